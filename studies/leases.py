"""Who trains what, and until when that is believed.

A claim has an owner (machine, process, and the `Storage` in it that claims), a token, and a lease that ends by the
database's clock unless it is renewed. On one machine a look at the process says more than any clock: a process that is
gone owns nothing, one that runs keeps what it has however late it renews, and a paused one keeps it for its lease. Of
other machines only the lease is known, but where a driver holds a study's lock in SQLite: then there are none. The
token is the fence: whoever comes back after its claim was given to another finds it gone, and its result is refused.
"""

import fcntl
import os
import platform
import random
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from sqlalchemy import Connection, Engine, delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from studies.database import is_sqlite, now
from studies.errors import StudiesError, StudyBusy
from studies.tables import LEASES

LEASE_S = 60.0
"""How long a claim is believed without a sign of life; renewed three times as often."""
_ASK_LOCK, _LEAD_LOCK, _DRIVE_LOCK = 0x646C6361, 0x646C636C, 0x646C6364
"""First keys of PostgreSQL's advisory locks of a study: who asks, who mirrors, who drives it or wants it alone."""
_ASK_PATIENCE_S = 20.0

_claimers: "weakref.WeakValueDictionary[str, object]" = weakref.WeakValueDictionary()
"""What claims in this process, by its id, as long as it lives."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who claims: told apart from whoever gets its process id later."""

    machine: str
    """The boot of a machine, and the room in it that process ids count in."""
    host: str
    pid: int
    process_started: str
    claimer: str


def new_owner(claimer: object) -> Owner:
    """An owner in this process, alive as long as the object is, or until `disown`."""
    name = uuid4().hex
    _claimers[name] = claimer
    pid = os.getpid()
    return Owner(_machine(), platform.node(), pid, _process(pid)[0], name)


def disown(owner: Owner) -> None:
    """What this owner claimed is nobody's from now on."""
    _claimers.pop(owner.claimer, None)


# ---- in the transaction of the caller, who holds the study's lock


def grant(connection: Connection, study: int, cohort: int, token: str, owner: Owner) -> None:
    """A lease of a cohort, in the place of an earlier one."""
    begins = now(connection)
    connection.execute(delete(LEASES).where(LEASES.c.study_id == study, LEASES.c.cohort == cohort))
    lease = {"token": token, "study_id": study, "cohort": cohort, "claimed_at": begins, "expires_at": begins + LEASE_S}
    connection.execute(insert(LEASES).values(**lease, **asdict(owner)))


def cohort_of(connection: Connection, token: str) -> int | None:
    """The cohort that a token holds; None if it holds none any more."""
    return connection.execute(select(LEASES.c.cohort).where(LEASES.c.token == token)).scalar()


def end(connection: Connection, tokens: Collection[str]) -> None:
    """End leases."""
    connection.execute(delete(LEASES).where(LEASES.c.token.in_(tokens)))


def renew(connection: Connection, tokens: Collection[str]) -> set[str]:
    """Give leases their full length again; returns the tokens that still hold one."""
    own = LEASES.c.token.in_(tokens)
    connection.execute(update(LEASES).where(own).values(expires_at=now(connection) + LEASE_S))
    return set(connection.execute(select(LEASES.c.token).where(own)).scalars())


def living(connection: Connection, study: int, owner: Owner, *, is_alone: bool = False) -> set[int]:
    """Cohorts of a study that somebody other than `owner` trains.

    Args:
        connection: Of the caller.
        study: Its id.
        owner: Whose own cohorts do not count.
        is_alone: Whether a lock tells that no other machine trains, boots of this one before the present included.
    """
    clock = now(connection)
    found = connection.execute(select(LEASES).where(LEASES.c.study_id == study, LEASES.c.claimer != owner.claimer))
    possible = [lease for lease in found if not is_alone or lease.machine == owner.machine]
    return {lease.cohort for lease in possible if _is_alive(lease, owner, clock)}


def _is_alive(lease: Any, here: Owner, clock: float) -> bool:
    is_believed = bool(lease.expires_at > clock)
    if lease.machine != here.machine:
        return is_believed
    if (lease.pid, lease.process_started) == (here.pid, here.process_started):
        return lease.claimer in _claimers
    started, state = _process(lease.pid)
    if not started and _is_hidden(lease.pid):
        return is_believed
    if started != lease.process_started or state in ("Z", "X"):
        return False
    return is_believed if state in ("T", "t") else True


def _is_hidden(pid: int) -> bool:
    """Whether a process is there of which the system tells us nothing: another user's, where /proc has `hidepid`."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _process(pid: int) -> tuple[str, str]:
    """When a process started, by a clock that nobody sets, and its state as one letter; empty if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return fields[19], fields[0]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return "", ""
    except ProcessLookupError:
        return "", ""
    try:  # a system without /proc
        process = psutil.Process(pid)
        is_stopped = process.status() == psutil.STATUS_STOPPED
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return f"{process.create_time():.2f}", "Z" if is_zombie else "T" if is_stopped else "S"
    except psutil.NoSuchProcess:
        return "", ""


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{platform.node()} {psutil.boot_time():.0f}"


# ---- signs of life


class Keeper:
    """Renews leases in a thread, so that training need not; says when one is lost."""

    def __init__(self, renew_all: Callable[[], bool], every_s: float = LEASE_S / 3) -> None:
        """Call `renew_all` now and then; it returns whether everything is still ours."""
        self._renew, self._every_s = renew_all, every_s
        self._is_closed = threading.Event()
        self.lost = threading.Event()
        """Set when somebody else was given what is being trained: the training is to stop."""
        self._thread = threading.Thread(target=self._work, name="leases", daemon=True)

    def __enter__(self) -> "Keeper":
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """End; a renewal on its way is waited for."""
        self._is_closed.set()
        self._thread.join()

    def _work(self) -> None:
        wait_s = self._every_s
        # Not all at once, where many workers began together.
        while not self._is_closed.wait(wait_s * random.uniform(0.8, 1.0)):
            try:
                if not self._renew():
                    self.lost.set()
                wait_s = self._every_s
            except StudiesError:
                wait_s = self._every_s / 8  # the database is away: it decides when it is back, not we


# ---- locks that are only there to save work


@contextmanager
def asking(engine: Engine, study: int) -> Iterator[None]:
    """One worker asks at a time, since asking at the same time asks for the same numbers; nobody waits for ever."""
    ends = time.monotonic() + _ASK_PATIENCE_S
    if engine.dialect.name == "sqlite":
        folder = Path(str(engine.url.database)).absolute().resolve().parent / "locks"
        folder.mkdir(mode=0o700, exist_ok=True)
        with (folder / f"{study}.ask").open("a") as lock:
            while not _flock(lock.fileno()) and time.monotonic() < ends:
                time.sleep(random.uniform(0.01, 0.05))
            yield
        return
    with _advisory(engine, _ASK_LOCK, study) as attempt:
        while not attempt() and time.monotonic() < ends:
            time.sleep(random.uniform(0.01, 0.05))
        yield


@contextmanager
def leading(engine: Engine, study: int) -> Iterator[Callable[[], bool]]:
    """Be a driver of a study in PostgreSQL, of which one mirrors; yields what tells whether it is this one.

    On SQLite there is one driver at most.

    Raises:
        StudyBusy: Somebody wants the study alone.
    """
    if engine.dialect.name == "sqlite":
        yield lambda: True
        return
    with _advisory(engine, _DRIVE_LOCK, study, is_shared=True) as drive, _advisory(engine, _LEAD_LOCK, study) as lead:
        if not drive():
            raise StudyBusy("the study is being repaired or deleted; wait for the end of that, and try again")
        yield lead


@contextmanager
def alone(engine: Engine, study: int) -> Iterator[bool]:
    """Keep drivers of a study in PostgreSQL away; yields whether there are none. On SQLite `home.drive` does that."""
    if engine.dialect.name == "sqlite":
        yield True
        return
    with _advisory(engine, _DRIVE_LOCK, study) as attempt:
        yield attempt()


def is_driven(connection: Connection, study: int) -> bool:
    """Whether a study in PostgreSQL has a driver, be it in its finals, or somebody wants it alone."""
    if is_sqlite(connection):
        return False
    query = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = :kind AND objid = :study "
        "AND objsubid = 2 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return bool(connection.execute(query, {"kind": _DRIVE_LOCK, "study": study}).scalar_one())


@contextmanager
def _advisory(engine: Engine, kind: int, study: int, *, is_shared: bool = False) -> Iterator[Callable[[], bool]]:
    """A lock of PostgreSQL that ends with the connection, whatever happens to us; yields what tries to get it."""
    connection: Connection | None = None
    is_ours = False
    suffix = "_shared" if is_shared else ""
    lock, unlock = getattr(func, f"pg_try_advisory_lock{suffix}"), getattr(func, f"pg_advisory_unlock{suffix}")

    def attempt() -> bool:
        nonlocal connection, is_ours
        try:
            if connection is None:
                connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            is_ours = is_ours or bool(connection.execute(select(lock(kind, study))).scalar())
        except DBAPIError:
            if connection is not None:  # a broken one refuses all further use
                connection.close()
                connection = None
            return False  # who writes will say what is wrong
        return is_ours

    try:
        yield attempt
    finally:
        if connection is not None:
            with suppress(DBAPIError), connection:
                if is_ours:
                    connection.execute(select(unlock(kind, study)))


def _flock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
