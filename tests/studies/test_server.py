import contextlib
import http.client
import json
import math
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from studies import server
from studies.errors import TrackingError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("a home with spaces, 100% ü") / "mlruns"
    yield folder
    server.stop(folder)


@pytest.fixture
def fresh_home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "mlruns"
    server.stop(tmp_path / "mlruns")


def wait_until(is_so: object, timeout_s: float = 30) -> None:
    assert callable(is_so)
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def status_for_host(port: int, host: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        path = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status
    finally:
        connection.close()


# --- without a server ---


def test_a_home_that_was_never_used_has_no_server(tmp_path: Path) -> None:
    assert server.find(tmp_path) is None
    assert not server.stop(tmp_path)
    assert server.find(tmp_path / "missing") is None
    assert not server.stop(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    "state", ["", "{", "[]", "{}", '{"pid": "x", "created_at": 1}', '{"pid": -1, "created_at": 0}']
)
def test_a_damaged_state_file_is_no_server(tmp_path: Path, state: str) -> None:
    (tmp_path / server.STATE_FILE).write_text(state)
    assert server.find(tmp_path) is None


def test_another_process_under_the_noted_pid_is_no_server(tmp_path: Path) -> None:
    me = psutil.Process()
    for created_at in (me.create_time(), me.create_time() - 100):
        state = {"pid": me.pid, "created_at": created_at, "port": 1}
        (tmp_path / server.STATE_FILE).write_text(json.dumps(state))
        assert server.find(tmp_path) is None
    assert not server.stop(tmp_path)


def test_a_busy_port_gives_the_next_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < server._free_port(port) < port + server.PORTS_TRIED


def test_no_free_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PORTS_TRIED", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(TrackingError, match="must be free"):
            server._free_port(taken.getsockname()[1])


def test_importing_it_imports_no_mlflow() -> None:
    code = "import sys, studies.server; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_somebody_else_who_starts_a_server_is_waited_for_only_so_long(tmp_path: Path) -> None:
    with (
        server._locked(tmp_path, time.monotonic() + 1),
        pytest.raises(TrackingError, match="another command is starting"),
        server._locked(tmp_path, time.monotonic() + 0.1),
    ):
        pass


def test_a_process_that_has_just_begun_is_waited_for_and_a_dead_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    # Right after exec Linux shows an empty environment: 24 of 3,000 times on a busy machine.
    listens = iter([False, False, True])
    monkeypatch.setattr(server, "_environment", lambda pid: {})
    monkeypatch.setattr(server, "_listens", lambda leader, port: next(listens))
    monkeypatch.setattr(server, "_is_healthy", lambda port: True)
    assert server._answers_before(os.getpid(), 1, time.monotonic() + 5)
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
        monkeypatch.setattr(server, "POLL_S", math.inf)  # sleeping so long is an error
        assert not server._answers_before(child.pid, 1, time.monotonic() + 5)


def test_nothing_in_the_environment_makes_it_listen_or_write_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UVICORN_FD", "UVICORN_UDS", "UVICORN_HOST", "MLFLOW_HOST", "_MLFLOW_SERVER_FILE_STORE"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    environment = server._server_environment(tmp_path, "an identity", 5000)
    assert not {"elsewhere", "s3cret"} & set(environment.values())
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/mlflow.db"


# --- one server, looked at from all sides ---


@pytest.mark.slow
def test_two_commands_at_once_start_one_server(home: Path) -> None:
    found: list[server.Server] = []
    threads = [threading.Thread(target=lambda: found.append(server.find_or_start(home, port=5300))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.started for one in found) == [False, False, True]
    assert len({one.pid for one in found}) == 1
    assert server.find(home) == server.find_or_start(home)


@pytest.mark.slow
def test_it_is_small_and_in_a_session_of_its_own(home: Path) -> None:
    leader = server.find_or_start(home, port=5300).pid
    family = server._processes(home.resolve())
    assert {os.getsid(process.pid) for process in family} == {leader} != {os.getsid(0)}
    assert len(family) <= 3
    assert sum(process.memory_info().rss for process in family) < 600e6


@pytest.mark.slow
def test_only_its_user_can_read_its_files_and_no_argument_names_the_database(home: Path) -> None:
    server.find_or_start(home, port=5300)
    root = home.resolve()
    assert root.stat().st_mode & 0o777 == 0o700
    for path in root.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    for process in server._processes(root):
        assert "mlflow.db" not in " ".join(process.cmdline())


@pytest.mark.slow
def test_it_listens_on_loopback_only_and_answers_to_its_own_names_only(home: Path) -> None:
    port = server.find_or_start(home, port=5300).port
    listening = [
        connection.laddr.ip
        for process in server._processes(home.resolve())
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}
    assert status_for_host(port, f"127.0.0.1:{port}") == status_for_host(port, f"localhost:{port}") == 200
    for stranger in ("10.evil.example", "evil.example", f"127.0.0.1:{port + 1}"):
        assert status_for_host(port, stranger) == 403, stranger


@pytest.mark.slow
def test_a_kill_before_it_was_noted_leaves_one_server(home: Path) -> None:
    first = server.find_or_start(home, port=5300)
    (home / server.STATE_FILE).unlink()
    assert server.find(home) == server.Server(first.address, first.pid, first.port)
    assert server.find_or_start(home, port=5300).pid == first.pid
    state = json.loads((home / server.STATE_FILE).read_text())
    assert state["pid"] == first.pid
    assert state["port"] == first.port


@pytest.mark.slow
def test_a_proxy_in_the_environment_is_not_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = server.find_or_start(home, port=5300)
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert server.find(home) == server.Server(first.address, first.pid, first.port)


@pytest.mark.slow
def test_a_copy_of_the_home_is_another_home(home: Path, tmp_path: Path) -> None:
    server.find_or_start(home, port=5300)
    for name in (server.STATE_FILE, server.LOCK_FILE):
        (tmp_path / name).write_bytes((home / name).read_bytes())
    assert server.find(tmp_path) is None
    assert not server.stop(tmp_path)
    assert server.find(home) is not None


@pytest.mark.slow
def test_a_server_without_its_leader_is_replaced_and_stop_ends_all(fresh_home: Path) -> None:
    first = server.find_or_start(fresh_home, port=5330)
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: not server._environment(first.pid))
    orphans = server._processes(fresh_home.resolve())
    assert orphans, "uvicorn should survive its parent; if it does not, this test can go"
    assert server.find(fresh_home) is None
    second = server.find_or_start(fresh_home, port=5330)
    assert second.started
    assert not any(orphan.is_running() for orphan in orphans)
    family = server._processes(fresh_home.resolve())
    assert server.stop(fresh_home)
    assert not any(process.is_running() for process in family)
    assert not server.stop(fresh_home)
    assert server.find(fresh_home) is None


@pytest.mark.slow
def test_a_server_of_a_deleted_home_is_replaced(fresh_home: Path) -> None:
    first = server.find_or_start(fresh_home, port=5340)
    for path in (server.STATE_FILE, server.LOCK_FILE):
        (fresh_home / path).unlink()
    second = server.find_or_start(fresh_home, port=5340)
    assert second.started
    assert second.pid != first.pid
    assert not psutil.pid_exists(first.pid) or not server._environment(first.pid)


HALF_MADE = "CREATE TABLE experiments (experiment_id); CREATE TABLE alembic_version (version_num);"
HALF_MADE += "INSERT INTO alembic_version VALUES ('75868b020152');"


@pytest.mark.slow
def test_a_tracking_database_that_was_cut_off_while_it_was_made_is_made_again(fresh_home: Path) -> None:
    fresh_home.mkdir()
    with contextlib.closing(sqlite3.connect(fresh_home / "mlflow.db")) as connection:
        connection.executescript(HALF_MADE)
    assert server.find_or_start(fresh_home, port=0, timeout_s=120).started
    with contextlib.closing(sqlite3.connect(fresh_home / "mlflow.db")) as connection:
        assert connection.execute("SELECT name FROM experiments").fetchall() == [("Default",)]


@pytest.mark.parametrize(
    "statements",
    [
        HALF_MADE + "INSERT INTO experiments VALUES (0)",
        HALF_MADE + "CREATE TABLE runs (x); INSERT INTO runs VALUES (0)",
        "CREATE TABLE thesis (x)",
    ],
)
def test_a_tracking_database_that_holds_anything_is_left_alone(tmp_path: Path, statements: str) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.executescript(statements)
    before = (tmp_path / "mlflow.db").read_bytes()
    server._discard_half_made(tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == before
    (tmp_path / "mlflow.db").write_bytes(b"damaged" * 1000)
    server._discard_half_made(tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == b"damaged" * 1000


@pytest.mark.slow
def test_a_server_that_cannot_start_is_said_with_the_end_of_its_log(fresh_home: Path) -> None:
    (fresh_home / "mlflow.db").mkdir(parents=True)
    with pytest.raises(TrackingError, match="unable to open database file"):
        server.find_or_start(fresh_home, port=5350, timeout_s=20)
    assert not server._processes(fresh_home.resolve())
