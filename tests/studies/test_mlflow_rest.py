import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from studies.addresses import tracking_address
from studies.mlflow_rest import HISTORY, Rest, RestStore
from studies.tracking_store import Refused, Unreachable


class Scripted(BaseHTTPRequestHandler):
    """Answers with what the test says, and remembers what it was asked."""

    protocol_version = "HTTP/1.1"
    status, reply = 200, b"{}"
    seen: tuple[str, str | None] = ("", None)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        type(self).seen = (self.path, self.headers["Authorization"])
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.reply)))
        self.end_headers()
        self.wfile.write(self.reply)

    do_GET = do_POST

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
    client = Rest(tracking_address(f"http://127.0.0.1:{port}/prefix/"))
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
    for path in ("", "/x"):
        store = RestStore(f"http://ann:s%2Fcret@127.0.0.1:{port}{path}")
        with pytest.raises(Unreachable) as caught:
            store.experiments("a", "b")
        assert Scripted.seen[1] == "Basic YW5uOnMvY3JldA=="  # ann:s/cret
        assert "cret" not in str(caught.value) + store.where + repr(store.identity) + repr(store.rest)
        store.close()
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok")
    client = Rest(tracking_address(f"http://127.0.0.1:{port}"))
    with pytest.raises(Unreachable):
        client.call("POST", "runs/create", {})
    assert Scripted.seen[1] == "Bearer tok"
    client.close()


def test_a_history_that_may_be_cut_is_asked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = {"a": 3, "b": HISTORY - 2, "c": HISTORY + 7}

    def point(run_id: str, step: int) -> dict[str, object]:
        return {"key": "k", "value": 0.5, "timestamp": 1, "step": step, "run_id": run_id}

    def histories(self: Rest, run_ids: list[str], key: str) -> list[dict[str, object]]:
        return [point(run_id, step) for run_id in run_ids for step in range(lengths[run_id])][:HISTORY]

    def call(self: Rest, method: str, path: str) -> dict[str, object]:
        assert "run_id=c" in path
        if path.endswith("page_token="):
            return {"metrics": [point("c", step) for step in range(HISTORY)], "next_page_token": "more"}
        return {"metrics": [point("c", step) for step in range(HISTORY, HISTORY + 7)]}

    monkeypatch.setattr(Rest, "histories", histories)
    monkeypatch.setattr(Rest, "call", call)
    found = RestStore("http://127.0.0.1:9").points(["a", "b", "c"], ["k"])
    assert {run_id: len(points) for run_id, points in found.items()} == lengths


def test_nobody_there_is_unreachable() -> None:
    client = Rest(tracking_address("http://127.0.0.1:9"))
    with pytest.raises(Unreachable, match="does not answer"):
        client.call("GET", "experiments/get")
