"""A throw-away PostgreSQL server: on loopback and a socket of its own, with a password, ended with its tests."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

PASSWORD = "canary-5f1d-and-percent%25"
"""Of every test's database, as it stands in a URL: no message may show it."""


def bin_folder() -> Path | None:
    """Where initdb and pg_ctl lie; None where they are not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    found = shutil.which("initdb")
    folders += [Path(found).parent] if found else []
    return next((f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


def required_binaries() -> Path:
    """Where they lie; without them a test is skipped, or fails where it must not be."""
    found = bin_folder()
    if found is None:
        reason = "PostgreSQL is not installed (initdb and pg_ctl are not there)"
        if os.environ.get("DLCORE_REQUIRE_POSTGRES") == "1":
            pytest.fail(f"DLCORE_REQUIRE_POSTGRES=1, and {reason}")
        pytest.skip(reason)
    return found


class Cluster:
    """One server with its own data folder."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        """Make and start it; run by root it belongs to another user, since PostgreSQL refuses root."""
        self._folder, self._binaries = folder, binaries
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            user = _other_user()
            self._user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        secret = folder / "secret"
        secret.write_text(PASSWORD.replace("%25", "%"))
        secret.chmod(0o644)
        self._call(
            "initdb", "-N", "-D", folder / "data", "-U", "dlcore", "-E", "UTF8", "--locale=C", "--auth-local=trust",
            "--auth-host=scram-sha-256", "--pwfile", secret,
        )  # fmt: skip
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{folder}'\n"
                "max_connections = 100\nshared_buffers = 64MB\nrecovery_init_sync_method = syncfs\n"
            )
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self._call("pg_ctl", "-D", self._folder / "data", "-l", self._folder / "log", "-w", "-t", "60", "start")

    def stop(self, mode: str = "immediate") -> None:
        """End the server: "immediate" as if it had crashed, "fast" in order."""
        self._call("pg_ctl", "-D", self._folder / "data", "-m", mode, "-w", "-t", "60", "stop")

    def url(self, database: str) -> str:
        """SQLAlchemy URL of one of its databases."""
        return f"postgresql+psycopg://dlcore:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, template: str = "template0") -> str:
        """Make a database; returns its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run one statement outside of a transaction; returns its rows."""
        address = f"host={self._folder} port={self.port} user=dlcore dbname={database}"
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _call(self, program: str, *words: object) -> None:
        subprocess.run(
            [self._binaries / program, *map(str, words)],
            check=True, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={"PATH": os.defpath, "LC_ALL": "C"}, **self._user,
        )  # fmt: skip


@contextlib.contextmanager
def cluster(binaries: Path) -> Iterator[Cluster]:
    """A server for the length of a block."""
    folder = Path(tempfile.mkdtemp(prefix="dlcore-postgres-"))
    made = None
    try:
        made = Cluster(folder, binaries)
        yield made
    finally:
        if made is not None:
            with contextlib.suppress(subprocess.CalledProcessError):  # a test may have ended it
                made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _other_user() -> pwd.struct_passwd:
    """Debian's user of PostgreSQL, or one that is made for the tests."""
    for name in ("postgres", "dlcore-test"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    subprocess.run(["useradd", "--system", "--no-create-home", "dlcore-test"], check=True)
    return pwd.getpwnam("dlcore-test")
