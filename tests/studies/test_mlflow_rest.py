import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from studies.errors import TrackingError
from studies.mlflow_rest import Refused, Rest, Unreachable


class Scripted(BaseHTTPRequestHandler):
    """Answers with what the test says, and remembers what it was asked."""

    protocol_version = "HTTP/1.1"
    status, reply = 200, b"{}"
    seen: tuple[str, str | None] = ("", None)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).seen = (self.path, self.headers["Authorization"])
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.reply)))
        self.end_headers()
        self.wfile.write(self.reply)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    listener = HTTPServer(("127.0.0.1", 0), Scripted)
    thread = threading.Thread(target=lambda: listener.serve_forever(poll_interval=0.02))
    thread.start()
    yield listener.server_port
    listener.shutdown()
    listener.server_close()
    thread.join()


@pytest.fixture
def rest(port: int) -> Iterator[Rest]:
    client = Rest(f"http://127.0.0.1:{port}/prefix/")
    yield client
    client.close()


def answer(status: int, reply: bytes) -> None:
    Scripted.status, Scripted.reply = status, reply


def test_a_reply_is_parsed_and_the_path_prefix_is_kept(rest: Rest) -> None:
    answer(200, b'{"a": 1}')
    assert rest.call("POST", "runs/create", {}) == {"a": 1}
    assert Scripted.seen[0] == "/prefix/api/2.0/mlflow/runs/create"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_passing_status_says_nothing_of_the_request(rest: Rest, status: int) -> None:
    answer(status, b"{}")
    with pytest.raises(Unreachable, match=str(status)):
        rest.call("POST", "runs/create", {})


def test_a_refusal_has_the_code_of_mlflow(rest: Rest) -> None:
    answer(404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such run"}')
    with pytest.raises(Refused, match="no such run") as caught:
        rest.call("POST", "runs/update", {})
    assert caught.value.code == "RESOURCE_DOES_NOT_EXIST"


def test_a_stranger_on_the_port_is_said(rest: Rest) -> None:
    answer(200, b"<html>")
    with pytest.raises(Unreachable, match="not as an MLflow server"):
        rest.call("POST", "runs/search", {})
    answer(403, b"<html>")
    with pytest.raises(Refused, match="403"):
        rest.call("POST", "runs/search", {})


def test_credentials_are_sent_and_never_said(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(500, b"")
    for client in (Rest(f"http://ann:s3cret@127.0.0.1:{port}"), Rest(f"http://ann:s3cret@127.0.0.1:{port}/x")):
        with pytest.raises(Unreachable) as caught:
            client.call("POST", "runs/create", {})
        assert Scripted.seen[1] == "Basic YW5uOnMzY3JldA=="
        assert "s3cret" not in str(caught.value) + client.where
        client.close()
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok")
    client = Rest(f"http://127.0.0.1:{port}")
    with pytest.raises(Unreachable):
        client.call("POST", "runs/create", {})
    assert Scripted.seen[1] == "Bearer tok"
    client.close()


@pytest.mark.parametrize("address", ["sqlite:///mlflow.db", "file:///tmp", "127.0.0.1:5000", "http://", "databricks"])
def test_an_address_that_is_no_server_is_refused(address: str) -> None:
    with pytest.raises(TrackingError, match="http://"):
        Rest(address)


def test_nobody_there_is_unreachable() -> None:
    client = Rest("http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="does not answer"):
        client.call("GET", "experiments/get")
