"""What the tests of the mirror share: a study's records, what stands in MLflow's database, and a bad network."""

import contextlib
import dataclasses
import hashlib
import http.client
import json
import math
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from studies import runs, server
from studies.comparison import compare
from studies.mlflow_rest import RestStore
from studies.mlflow_sql import SqlStore
from studies.records import COMPLETE, FAIL, PRUNED, EpochRecord, Objective, StudyFacts, TrialRecord
from studies.tracking import Mirror
from studies.tracking_store import TrackingStore

N_EPOCHS = 5
PORT = 5400
PATIENCE_S = 240.0
"""With everything that a busy machine may delay."""
TRANSPORTS = ("rest", "sql")

Connect = Callable[[], TrackingStore]


def make_facts(name: str) -> StudyFacts:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return StudyFacts(
        name=f"study.{digest[:8]}",
        uuid=digest[:32],
        spec={"study": "x", "budget": {"trials": 8}, "training": {"epochs": N_EPOCHS}},
        objectives=(Objective("accuracy", "maximize"),),
        task="binary",
        curve_metric="accuracy",
        cohort_size=4,
        n_features=2,
        n_outputs=1,
        data_name="csv",
        data_fingerprint="0" * 64,
        environment={"torch": "2.13.0"},
        created_at=1_700_000_000.0,
    )


def a_record(number: int) -> TrialRecord:
    began = 1_700_000_000.0 + 100 * number
    state = (COMPLETE, PRUNED, COMPLETE, FAIL)[number % 4]
    curve = [EpochRecord(e, 1 / e, 1.5 / e, 1 - 0.5 / e, 0.1, began + e) for e in range(1, N_EPOCHS + 1)]
    if state == FAIL:
        curve[-1] = dataclasses.replace(curve[-1], train_loss=math.nan)
    return TrialRecord(
        number=number,
        state=state,
        hyperparameters={"depth": number, "activation": "relu"},
        searched=("depth",),
        cohort=number // 4,
        n_parameters=10 + number,
        values=None if state == FAIL else (0.5 + number / 1000,),
        reason="diverged" if state == FAIL else None,
        curve=tuple(curve),
        best_epoch=None if state == FAIL else N_EPOCHS,
        started_at=began,
        finished_at=began + 50,
        duration_s=50.0,
    )


def read(numbers: Sequence[int]) -> list[TrialRecord]:
    return [a_record(number) for number in numbers]


def connecting(home: Path, transport: str) -> Connect:
    """Opens the home's own server, started if need be, in one of the two ways."""

    def connect() -> TrackingStore:
        address = server.find_or_start(home, port=PORT, timeout_s=PATIENCE_S).address
        return sql_store(home, address) if transport == "sql" else RestStore(address)

    return connect


def sql_store(home: Path, address: str = "http://127.0.0.1:9") -> SqlStore:
    root = home.resolve()
    return SqlStore(root / "mlflow.db", root / "artifacts", address)


@contextlib.contextmanager
def mirroring(connect: Connect, facts: StudyFacts, **how: bool) -> Iterator[Mirror]:
    mirror = Mirror(connect, facts, read, **how)
    mirror.start()
    try:
        yield mirror
    finally:
        mirror.close()


def mirrored(connect: Connect, facts: StudyFacts, n_trials: int, **how: bool) -> Mirror:
    """A mirror that has written its trials and is closed."""
    with mirroring(connect, facts, **how) as mirror:
        mirror.put(range(n_trials))
        assert mirror.finish("FINISHED", PATIENCE_S), mirror.error
    return mirror


def rows(home: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(home / "mlflow.db", timeout=20)) as database:
        return database.execute(query, values).fetchall()


def change(home: Path, query: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(home / "mlflow.db", timeout=20)) as database, database:
        assert database.execute(query, values).rowcount > 0, query


def all_rows(home: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    tables = [str(name) for (name,) in rows(home, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {table: rows(home, f'SELECT * FROM "{table}"') for table in sorted(tables)}


def contents(home: Path) -> str:
    """sha256 over every row of every table."""
    text = repr([(table, sorted(map(repr, found))) for table, found in all_rows(home).items()])
    return hashlib.sha256(text.encode()).hexdigest()


def trial_runs(home: Path, facts: StudyFacts) -> dict[str, list[str]]:
    """Key of each trial -> ids of its runs that are not deleted."""
    found: dict[str, list[str]] = {}
    query = """SELECT t.value, t.run_uuid FROM tags t JOIN runs r USING (run_uuid)
               WHERE t.key = 'dlcore.key' AND t.value LIKE ? AND r.lifecycle_stage = 'active'"""
    for key, run_id in rows(home, query, f"{facts.uuid}:%"):
        found.setdefault(str(key), []).append(str(run_id))
    return found


def run_of(home: Path, facts: StudyFacts, number: int) -> str:
    (run_id,) = trial_runs(home, facts)[f"{facts.uuid}:{number}"]
    return run_id


def parents(home: Path, facts: StudyFacts) -> list[str]:
    query = """SELECT r.run_uuid FROM tags t JOIN runs r USING (run_uuid)
               WHERE t.key = 'dlcore.study' AND t.value = ? AND r.lifecycle_stage = 'active'"""
    return [str(run_id) for (run_id,) in rows(home, query, facts.uuid)]


def assert_complete(home: Path, facts: StudyFacts, n_trials: int) -> None:
    """Every trial has one run, with its status and every point of its curves once; the study has one run."""
    found = trial_runs(home, facts)
    assert set(found) == {f"{facts.uuid}:{number}" for number in range(n_trials)}
    (parent,) = parents(home, facts)
    for number in range(n_trials):
        (run_id,) = found[f"{facts.uuid}:{number}"]
        wanted = runs.trial_run(facts, a_record(number))
        points = rows(home, "SELECT key, value, timestamp, step FROM metrics WHERE run_uuid = ?", run_id)
        assert sorted(points) == sorted(wanted.metrics)
        assert dict(rows(home, "SELECT key, value FROM params WHERE run_uuid = ?", run_id)) == wanted.params
        tags = dict(rows(home, "SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
        assert tags == {**wanted.all_tags(parent), "mlflow.runName": wanted.name}
        (row,) = rows(home, "SELECT status, start_time, end_time FROM runs WHERE run_uuid = ?", run_id)
        assert row == (wanted.status, wanted.start_ms, wanted.end_ms)


def assert_equal_and_quiet(home: Path, facts: StudyFacts, n_trials: int, connect: Connect) -> None:
    """A comparison finds nothing, and neither a run of the mirror nor a thorough one has anything to do."""
    store = connect()
    assert compare(store, facts, range(n_trials), read) == []
    store.close()
    assert_complete(home, facts, n_trials)
    before = contents(home)
    mirrored(connect, facts, n_trials)
    mirrored(connect, facts, n_trials, is_thorough=True)
    assert contents(home) == before


def post(address: str, path: str, **body: object) -> dict[str, object]:
    host = address.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(host, timeout=20)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), headers)
        reply = connection.getresponse()
        text = reply.read()
        assert reply.status == 200, text
        return dict(json.loads(text))


def in_python(code: str, data: object) -> str:
    """Standard output of a program that imports mlflow, whose warnings and settings so stay out of here."""
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, input=json.dumps(data), capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


class TcpProxy:
    """Stands between a client and a server on loopback, and treats each reply as `fault` says.

    Faults: None passes replies on; "lose" cuts the connection instead, after the server has done its work; "hang"
    passes nothing on and cuts nothing; "drip" passes one byte a second; "slow" waits `delay_s`; "500" says that
    instead of asking the server.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.fault: Callable[[], str | None] = lambda: None
        self.delay_s = 10.0
        self.n_faults = 0
        self.asked = b""
        """First line of the newest request."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._is_closed.set()
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname(), timeout=1).close()  # wakes `accept`
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._is_closed.is_set():
            client, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            host, _, port = self.upstream.removeprefix("http://").rpartition(":")
            with socket.create_connection((host, int(port)), timeout=30) as server_side:
                while request := _message(client):
                    self.asked = request.partition(b"\r\n")[0]
                    fault = self.fault()
                    if fault is not None:
                        self.n_faults += 1
                    if fault == "500":
                        client.sendall(b"HTTP/1.1 500 Oh dear\r\nContent-Length: 2\r\n\r\n{}")
                        continue
                    # The server answers to its own name only.
                    own = self.address.removeprefix("http://").encode()
                    server_side.sendall(request.replace(b"Host: " + own, f"Host: {host}:{port}".encode(), 1))
                    reply = _message(server_side)
                    if not reply or fault == "lose":
                        return
                    self._pass_on(client, reply, fault)

    def _pass_on(self, client: socket.socket, reply: bytes, fault: str | None) -> None:
        if fault == "hang":
            self._is_closed.wait()
        elif fault == "slow":
            self._is_closed.wait(self.delay_s)
            client.sendall(reply)
        elif fault == "drip":
            for byte in reply:
                client.sendall(bytes([byte]))
                if self._is_closed.wait(1.0):
                    return
        else:
            client.sendall(reply)


def _message(sock: socket.socket) -> bytes:
    """One whole HTTP message with a Content-Length; empty when the other side is gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        part = sock.recv(65536)
        if not part:
            return b""
        body += part
    return head + b"\r\n\r\n" + body


def wait_until(is_so: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
