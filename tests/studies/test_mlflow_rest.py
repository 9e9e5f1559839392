import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any

import pytest

from studies import runs
from studies.addresses import tracking_address
from studies.mlflow_http import Rest
from studies.mlflow_rest import AT_ONCE, HISTORY, RestStore
from studies.tracking_store import Refused, Unreachable, Work
from tests.studies.mirror_tools import PATIENCE_S, a_record, make_facts


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


class Runs:
    """A tracking server that knows of runs no more than their keys, and does as it is told."""

    def __init__(self) -> None:
        self.made: list[str] = []
        """Key of each run that was made; its id is its place."""
        self.ended: list[int] = []
        self.answers: Callable[[str], int] = lambda path: 200
        """Status of a request, when its work is done; 0 cuts the connection."""

    def do(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "runs/create":
            self.made.append({tag["key"]: tag["value"] for tag in body["tags"]}[runs.KEY])
            return {"run": {"info": {"run_id": str(len(self.made) - 1), "status": "RUNNING"}}}
        if path == "runs/search":
            ids = [i for i, key in enumerate(self.made) if f"'{key}'" in body["filter"]]
            return {"runs": [{"info": {"run_id": str(i), "status": "RUNNING"}} for i in ids]}
        if path == "runs/update":
            self.ended.append(int(body["run_id"]))
        return {}


@pytest.fixture
def server() -> Iterator[tuple[Runs, RestStore]]:
    known = Runs()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            path = self.path.removeprefix("/api/2.0/mlflow/")
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = json.dumps(known.do(path, body)).encode()
            status = known.answers(path)
            self.close_connection = status == 0
            if status:
                self.send_response(status)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=lambda: listener.serve_forever(poll_interval=0.02))
    thread.start()
    store = RestStore(f"http://127.0.0.1:{listener.server_port}")
    yield known, store
    store.close()
    listener.shutdown()
    listener.server_close()
    thread.join()


def work(n: int) -> list[Work]:
    return [Work(runs.trial_run(make_facts("rest"), a_record(number)), None) for number in range(n)]


def test_several_runs_are_written_at_a_time(server: tuple[Runs, RestStore]) -> None:
    known, store = server
    together = threading.Barrier(AT_ONCE)

    def answers(path: str) -> int:
        if path == "runs/create":
            together.wait(PATIENCE_S)  # nobody is answered before as many have asked
        return 200

    known.answers = answers
    written = [one for some in store.write_trials("1", "p", work(2 * AT_ONCE)) for one in some]
    assert sorted(one.number for one in written) == list(range(2 * AT_ONCE))
    assert sorted(known.ended) == list(range(2 * AT_ONCE))
    for one in written:
        assert known.made[int(str(one.run_id))].endswith(f":{one.number}")


@pytest.mark.parametrize("status", [0, 503])
@pytest.mark.parametrize("path", ["runs/create", "runs/log-batch", "runs/update", "runs/search"])
def test_a_run_whose_answers_are_lost_is_made_once(server: tuple[Runs, RestStore], path: str, status: int) -> None:
    known, store = server
    counts: Counter[str] = Counter()

    def answers(asked: str) -> int:
        counts[asked] += 1
        fails = asked == path or (path == "runs/search" and asked == "runs/create")
        return status if fails and counts[asked] % 3 else 200

    known.answers = answers
    left, written = work(3 * AT_ONCE), []
    for _ in range(100):
        try:
            for some in store.write_trials("1", "p", left):
                written += [one.number for one in some]
        except Unreachable:
            left = [item for item in left if item.wanted.number not in written]
        else:
            break
    assert sorted(written) == list(range(3 * AT_ONCE))
    assert set(Counter(known.made).values()) == {1}
    assert set(known.ended) == set(range(3 * AT_ONCE))


def test_who_stops_in_between_makes_no_run_twice(server: tuple[Runs, RestStore]) -> None:
    known, store = server
    left, written = work(3 * AT_ONCE), []
    while left:
        for some in store.write_trials("1", "p", left):
            written += [one.number for one in some]
            break
        left = [item for item in left if item.wanted.number not in written]
    assert sorted(written) == list(range(3 * AT_ONCE))
    assert set(Counter(known.made).values()) == {1}


def test_after_a_failure_one_run_is_written_at_a_time_until_the_server_keeps_up(
    server: tuple[Runs, RestStore],
) -> None:
    known, store = server
    known.answers = lambda path: 503
    with pytest.raises(Unreachable):
        list(store.write_trials("1", "p", work(AT_ONCE)))
    n_made, in_flight, most = len(known.made), [0], [0]
    assert n_made == AT_ONCE

    def answers(path: str) -> int:
        in_flight[0] += (path == "runs/log-batch") - (path == "runs/update")
        most[0] = max(most[0], in_flight[0])
        return 200

    known.answers = answers
    assert len(list(store.write_trials("1", "p", work(AT_ONCE)))) == AT_ONCE
    assert (most[0], len(known.made)) == (1, n_made)
