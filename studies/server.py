"""Find, start and stop the tracking server of a home: one `mlflow server` on the loopback interface.

The server outlives the study that started it, so that people can browse. It is told from any other process
by its own environment, where it carries the path and the identity of its home: a kill between spawn and
`server.json` leaves a server that the next command finds and takes over, never a second one.
`server.json` only makes finding it fast.

Not covered: servers on other machines (MLFLOW_TRACKING_URI), and Windows (no flock, no process sessions).
MLflow is never imported here: a server costs its own processes, not the study's.
"""

import contextlib
import fcntl
import http.client
import json
import os
import re
import secrets
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from studies.errors import TrackingError

HOST = "127.0.0.1"
LOOPBACK = f"http://{HOST}:"
"""What the address of a home's server begins with; its port follows."""
PORTS_TRIED = 100
"""How many ports from the wanted one upwards may be busy."""
STATE_FILE = "server.json"
LOCK_FILE = "server.lock"
"""Locked while a server is started or stopped; its text is the identity of the home."""
LOG_FILE = "server.log"
LOG_BYTES = 1_000_000
"""A longer log is moved aside when a server starts."""
STOP_S = 10.0
"""Patience with SIGTERM before SIGKILL; a server with idle connections needs 2 s."""
POLL_S = 0.05
HOME_VARIABLE = "STUDIES_SERVER_HOME"
IDENTITY_VARIABLE = "STUDIES_SERVER_IDENTITY"
PORT_VARIABLE = "STUDIES_SERVER_PORT"

SETTINGS: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 8 more processes and 2.5 GB, for nothing we use
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",
    "PYTHONSAFEPATH": "1",  # `-m` would import modules that lie in the home before the installed ones
    "TZ": "UTC",
    "PGTZ": "UTC",
}

PORT = 5000
"""MLflow's own default."""

# Children of this process, kept because Python warns about a Popen that is dropped while its process runs.
_children: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class Server:
    """A tracking server that answers."""

    address: str
    """Such as "http://127.0.0.1:5000"."""
    pid: int
    """Of the leader of its process group."""
    port: int
    started: bool = False
    """Whether this call started it."""


def find_or_start(home: Path, *, port: int = PORT, timeout_s: float = 60) -> Server:
    """Return the home's server once it answers, and start it if there is none.

    Args:
        home: folder of `mlflow.db` and `artifacts/`; made if missing, closed to other users.
        port: first port to try; the next free one is taken if it is busy (`Server.port` says which);
            0 is any free port.
        timeout_s: patience until the server answers; a start takes 7 s on an idle 2-core machine.

    Raises:
        TrackingError: no server answers in time, with the last lines of its log.
    """
    deadline = time.monotonic() + timeout_s
    home = _prepared(home)
    if server := _found_by_state(home):
        return server
    with _locked(home, deadline) as identity:
        if server := _found_by_state(home) or _adopted(home, identity, deadline):
            return server
        _end(_processes(home))
        _discard_half_made(home / "mlflow.db")
        wanted = port
        while True:
            wanted = _free_port(wanted)
            child = _spawned(home, identity, wanted)
            if _answers_before(child.pid, wanted, deadline):
                return _noted(home, child.pid, wanted, started=True)
            # uvicorn ends when another process took the port in the seconds since it was free. Not poll(): the system
            # gives up a leader that is a zombie only when its last thread has ended.
            lost_port = not _is_alive(child.pid) and "address already in use" in _log_tail(home)
            _end(_processes(home))
            if not lost_port or time.monotonic() > deadline:
                raise TrackingError(
                    f"the tracking server of {home} must answer within {timeout_s:g} s, and did not; "
                    f"the end of {home / LOG_FILE} says: {_last_words(_log_tail(home))}"
                )
            wanted = wanted + 1 if port else 0


def find(home: Path) -> Server | None:
    """Return the home's server if it runs and answers."""
    home = home.resolve()
    if server := _found_by_state(home):
        return server
    identity = _read_identity(home)
    for process in _processes(home):
        if server := _serving(home, process.pid, identity):
            return server
    return None


def stop(home: Path) -> bool:
    """End every process of the home's server and wait for it; return whether there was one."""
    home = home.resolve()
    if not home.is_dir():
        return _end(_processes(home))
    with _locked(home, time.monotonic() + 60):
        found = _end(_processes(home))
        (home / STATE_FILE).unlink(missing_ok=True)
    return found


def _prepared(home: Path) -> Path:
    """Make the folders, readable for their owner alone, and return the home's real path."""
    home.mkdir(parents=True, exist_ok=True)
    home = home.resolve()
    if "?" in str(home):
        raise TrackingError(f"the path of the studies' home must hold no '?' (SQLite URLs end there); got {home}")
    for folder in (home, home / "artifacts", home / "tmp"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
    for name in ("mlflow.db", LOG_FILE):
        if (home / name).exists():
            (home / name).chmod(0o600)
    return home


@contextlib.contextmanager
def _locked(home: Path, deadline: float) -> Iterator[str]:
    """Hold the home's start lock; give the identity of the home."""
    descriptor = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TrackingError(
                        f"another command is starting or stopping the tracking server of {home}; try again"
                    ) from None
                time.sleep(POLL_S)
        identity = file.read().strip()
        if not identity:
            identity = secrets.token_hex(16)
            file.write(identity)
            file.flush()
        yield identity


def _read_identity(home: Path) -> str:
    with contextlib.suppress(OSError):
        return (home / LOCK_FILE).read_text().strip()
    return ""


def _discard_half_made(database: Path) -> None:
    """Remove a tracking database that MLflow was killed while making: no server would ever start on it again.

    A whole one has an experiment at least, "Default", from its first start on; one without holds nothing.
    """
    if not database.exists():
        return
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database, timeout=20)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        known = tables & {"experiments", "runs", "registered_models"}
        holds_any = any(connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in known)
        if "experiments" in known and not holds_any:
            database.unlink()


def _found_by_state(home: Path) -> Server | None:
    """Return the server that `server.json` names, if it is still that one."""
    try:
        state = json.loads((home / STATE_FILE).read_text())
        pid, created_at = int(state["pid"]), float(state["created_at"])
        # A process is itself only by id and start time together. Two seconds: the start time is reckoned from
        # the machine's boot time, which moves when the clock is set.
        if abs(psutil.Process(pid).create_time() - created_at) > 2:
            return None
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    return _serving(home, pid, _read_identity(home))


def _serving(home: Path, pid: int, identity: str) -> Server | None:
    """Return the server led by `pid` if it belongs to this very home, listens and answers."""
    environment = _environment(pid)
    if environment.get(HOME_VARIABLE) != str(home) or environment.get(IDENTITY_VARIABLE) != identity:
        return None
    try:
        port = int(environment.get(PORT_VARIABLE, ""))
        is_leader = os.getpgid(pid) == pid
    except (ValueError, ProcessLookupError):
        return None
    if is_leader and _listens(pid, port) and _is_healthy(port):
        return Server(f"http://{HOST}:{port}", pid, port)
    return None


def _adopted(home: Path, identity: str, deadline: float) -> Server | None:
    """Return the server that a killed command started for this home but did not note, once it answers."""
    for process in _processes(home):
        environment = _environment(process.pid)
        with contextlib.suppress(ValueError, ProcessLookupError):
            port = int(environment.get(PORT_VARIABLE, ""))
            is_whole = os.getpgid(process.pid) == process.pid and environment.get(IDENTITY_VARIABLE) == identity
            if is_whole and _answers_before(process.pid, port, deadline):
                return _noted(home, process.pid, port, started=False)
    return None


def _noted(home: Path, pid: int, port: int, *, started: bool) -> Server:
    """Write `server.json` whole or not at all, and return the server."""
    state = {
        "pid": pid,
        "created_at": psutil.Process(pid).create_time(),
        "port": port,
        "home": str(home),
        "identity": _read_identity(home),
    }
    with tempfile.NamedTemporaryFile("w", dir=home, prefix=STATE_FILE, delete=False) as file:  # mode 0600
        json.dump(state, file)
    Path(file.name).replace(home / STATE_FILE)
    return Server(f"http://{HOST}:{port}", pid, port, started)


def _processes(home: Path) -> list[psutil.Process]:
    """All processes of this user that were started for a home at this path, whatever its identity."""
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _environment(process.pid).get(HOME_VARIABLE) == str(home)
    ]


def _environment(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty if it is gone, a zombie, or another user's."""
    try:
        return dict(psutil.Process(pid).environ())
    except (psutil.Error, OSError):
        return {}


def _is_alive(pid: int) -> bool:
    """Whether the process runs; its environment does not tell, since it is empty for a moment after exec."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _listens(leader: int, port: int) -> bool:
    """Whether a process of the group listens on the port: an answer could come from a stranger."""
    try:
        family = [psutil.Process(leader), *psutil.Process(leader).children(recursive=True)]
    except psutil.Error:
        return False
    for process in family:
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections(kind="tcp4"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return True
    return False


def _is_healthy(port: int) -> bool:
    """Whether /health answers; http.client knows no proxies, so the question cannot leave the machine."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        reply = connection.getresponse()
        return reply.status == 200 and reply.read() == b"OK"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _answers_before(pid: int, port: int, deadline: float) -> bool:
    """Wait until the group listens and answers; False when its leader is gone or time is up."""
    while time.monotonic() < deadline:
        if not _is_alive(pid):
            return False
        if _listens(pid, port) and _is_healthy(port):
            return True
        time.sleep(POLL_S)
    return False


def _free_port(first: int) -> int:
    """The first port from `first` upwards that can be listened on."""
    for port in (0,) if first == 0 else range(first, min(first + PORTS_TRIED, 65_536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn: TIME_WAIT is not busy
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                return int(probe.getsockname()[1])
    raise TrackingError(f"one of the ports {first} to {first + PORTS_TRIED - 1} must be free; all are busy")


def _spawned(home: Path, identity: str, port: int) -> subprocess.Popen[bytes]:
    """Start the server in a session of its own, so that Ctrl-C of the study does not reach it."""
    log = home / LOG_FILE
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(home / f"{LOG_FILE}.1")
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--serve-artifacts", "--artifacts-destination", str(home / "artifacts")]
    command += ["--allowed-hosts", f"{HOST}:{port},localhost:{port}"]  # MLflow's default lets 10.evil.example in
    command += ["--uvicorn-opts", "--no-access-log --timeout-graceful-shutdown 3"]
    with log.open("ab") as output:
        log.chmod(0o600)
        child = subprocess.Popen(
            command,
            cwd=home,
            env=_server_environment(home, identity, port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    _children.append(child)
    return child


def _server_environment(home: Path, identity: str, port: int) -> dict[str, str]:
    """This process's environment without what would make the server listen elsewhere, write elsewhere, or ask home."""
    own = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{home / 'mlflow.db'}",  # by environment: `ps` shows arguments
        "TMPDIR": str(home / "tmp"),
        HOME_VARIABLE: str(home),
        IDENTITY_VARIABLE: identity,
        PORT_VARIABLE: str(port),
    }
    # uvicorn reads each of its options from a variable: UVICORN_FD and UVICORN_UDS outdo --host.
    kept = {name: value for name, value in os.environ.items() if "MLFLOW_" not in name and "UVICORN_" not in name}
    return kept | dict(SETTINGS) | own


def _log_tail(home: Path, n_bytes: int = 2000) -> str:
    with contextlib.suppress(OSError), (home / LOG_FILE).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - n_bytes))
        return file.read().decode(errors="replace").strip()
    return ""


def _last_words(log: str) -> str:
    """The last error in a log, in one line; its last line where there is none."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"(Error|Exception)\b", line)]
    return (errors or lines or ["nothing"])[-1]


def _end(processes: list[psutil.Process]) -> bool:
    """End the processes, politely first, and wait for them; return whether there were any."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=STOP_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=STOP_S)
    _children[:] = [child for child in _children if child.poll() is None]
    return bool(processes)
