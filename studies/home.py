"""The folder where everything that studies produce is kept, and the lock that makes one process a study's driver.

`STUDIES_HOME` names the folder (default `mlruns/`), `STUDIES_DB` another study database, `MLFLOW_TRACKING_URI`
another tracking server. The folder is private to its user: it holds data and needs no other readers.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from studies.addresses import tracking_address
from studies.errors import StudyBusy, UserError

_LOOKS, _LOOK_S = 5, 0.02
"""How often a lock is tried that somebody may hold who only looks, and the pause in between."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where things lie."""

    root: Path
    database_url: str
    """SQLAlchemy URL of the study database; it may hold a password."""
    tracking_uri: str | None
    """A tracking server that the user names; None is the one that belongs to this home."""

    @property
    def exports(self) -> Path:
        """Folder of exports, one folder per study in it."""
        return self.root / "exports"


def open_home(*, is_made_private: bool = True, at: Path | None = None) -> Home:
    """Find the home and make it ready: created, private, writable.

    Args:
        at: The folder, with a study database of its own; None asks the environment.
        is_made_private: Close a home that others may read to them; what looks for faults does not mend this one.

    Raises:
        UserError: The folder cannot be made or written, or the study database is of a kind that is not supported.
    """
    try:
        root = Path(at or os.environ.get("STUDIES_HOME") or "mlruns").expanduser().absolute()
    except RuntimeError as error:
        raise UserError(f"STUDIES_HOME must name a folder; {error}") from error
    if found := set("?%") & set(str(root)):
        raise UserError(f"the home's path must not hold {' or '.join(sorted(found))}; got {root}. Set STUDIES_HOME")
    try:
        if not root.exists() or is_made_private:
            root.mkdir(parents=True, exist_ok=True)
            root.chmod(0o700)
        probe = root / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)  # another thread of this process looks too
    except OSError as error:
        raise UserError(
            f"the home {root} must be a folder that you can write to; {error.strerror}. "
            "Set STUDIES_HOME to another folder."
        ) from error
    url = (None if at is not None else os.environ.get("STUDIES_DB")) or f"sqlite:///{root / 'studies.db'}"
    if url.startswith(("postgresql://", "postgresql+psycopg://")):
        url = "postgresql+psycopg://" + url.partition("://")[2]
    elif not url.startswith("sqlite:///"):
        scheme = url.partition(":")[0] if "://" in url else "no address"
        raise UserError(
            "STUDIES_DB must be an SQLite file (sqlite:///file.db) or a PostgreSQL database "
            f"(postgresql+psycopg://user@host/name); got {scheme}"
        )
    elif not url.removeprefix("sqlite:///") or "?" in url or ":memory:" in url:
        raise UserError(f"STUDIES_DB must name a file, without options (sqlite:///file.db); got {url}")
    return Home(root, url, _tracking_uri())


def _tracking_uri() -> str | None:
    """The user's tracking server; its password stays out of every message."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if not given:
        return None
    tracking_address(given)
    return given


def without_password(uri: str) -> str:
    """An address as it may be shown."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def open_to_others(home: Home) -> list[Path]:
    """The home and the databases in it that other users of the machine may read or write."""
    file = home.database_url.removeprefix("sqlite:///") if home.database_url.startswith("sqlite:") else None
    places = [home.root, home.root / "mlflow.db", *([Path(file)] if file else [])]
    return [place for place in places if place.exists() and place.stat().st_mode & 0o077]


def is_driven(home: Home, study: str) -> bool:
    """Whether a process holds the lock of a study in SQLite."""
    file = _lock_folder(home) / f"{study}.lock"
    if not home.database_url.startswith("sqlite:") or not file.exists():
        return False
    with file.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _lock_folder(home: Home) -> Path:
    """Beside the database, which two homes may share."""
    return Path(home.database_url.removeprefix("sqlite:///")).absolute().resolve().parent / "locks"


@contextmanager
def drive(home: Home, study: str) -> Iterator[None]:
    """Hold the lock that makes this process the only driver of a study in SQLite; the kernel frees it when we die.

    Raises:
        StudyBusy: Another process holds it.
    """
    if not home.database_url.startswith("sqlite:"):
        yield  # several processes may drive a study: each claims its own cohorts
        return
    folder = _lock_folder(home)
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / f"{study}.lock").open("a+") as lock:
        if not _locks(lock.fileno()):
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise StudyBusy(f'study "{study}" is being run by process {owner}; wait for it, or end it, and try again')
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _locks(file: int) -> bool:
    """Lock a file, unless another process holds its lock for longer than `is_driven` takes to look."""
    for _ in range(_LOOKS):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_LOOK_S)
    return False


@contextmanager
def writing_export(home: Home, export: Path) -> Iterator[None]:
    """Be the only process that writes an export in the home: of several drivers in PostgreSQL all end at once."""
    if export.parent != home.exports:
        yield
        return
    folder = home.root / "locks"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / f"{export.name}.export").open("a") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
