"""Engines and transactions of the study database: SQLite in a file, or PostgreSQL.

Writing is done a cohort to a transaction, so SQLite's rollback journal with synchronous=FULL costs nothing that
matters; WAL stays off (SQLite before 3.51.3 can corrupt the file when it resets the log,
https://sqlite.org/wal.html#walresetbug). What a transaction reads stays true until it commits: on SQLite since it
takes the only write lock at its start, on PostgreSQL for whoever locks the study's row first, as every writer of ours
and Optuna's own does. No message shows a password.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    event,
    extract,
    func,
    select,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from studies.errors import Damaged, DatabaseGone, StudiesError, UserError

_SCHEMA_LOCK = 0x646C636F7265
"""Key of the advisory lock under which PostgreSQL's tables are made or changed: "dlcore"."""
_BUSY_S = 20.0
"""How long SQLite waits for a lock; a reader of the whole file may hold one for longer."""
_GONE = ("OperationalError", "AdminShutdown", "CrashShutdown", "CannotConnectNow")
_SECRETS = ("password", "passfile", "sslpassword", "sslkey")


def open_engine(url: str) -> Engine:
    """An engine whose connections keep foreign keys, wait for locks, and flush what they commit.

    Raises:
        UserError: The database cannot be reached or read, is damaged, or does not keep what it commits.
    """
    try:
        parsed = make_url(url)
        return _open_sqlite(parsed) if parsed.get_backend_name() == "sqlite" else _open_postgresql(parsed)
    except (ArgumentError, ValueError, NoSuchModuleError):
        pass  # their texts may hold the password
    raise UserError("STUDIES_DB must be sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE")


def _open_sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_S})

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, see _begin
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        is_writing = connection.get_execution_options().get("dlcore_writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")

    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    except DBAPIError as error:
        raise Damaged(f"the study database {url.database} cannot be read: {error.orig}") from error
    except UnicodeError as error:  # a damaged name, in SQLite's own words about it
        raise Damaged(f"the study database {url.database} is damaged ({error}); restore it from a copy") from error
    if found != "ok":
        raise Damaged(
            f"the study database {url.database} is damaged ({found}); restore it from a copy, or move it away"
        )
    return engine


def _open_postgresql(url: URL) -> Engine:
    own = "-c timezone=UTC -c statement_timeout=30000 -c synchronous_commit=on"
    given = url.query.get("options", "")
    arguments = {
        "connect_timeout": int(str(url.query.get("connect_timeout", "5"))),
        "options": f"{given if isinstance(given, str) else ' '.join(given)} {own}".strip(),
        "application_name": "dlcore",
        "tcp_user_timeout": 30_000,
    }
    url = url.difference_update_query(["options", "connect_timeout"])
    try:
        engine = create_engine(url, connect_args=arguments, pool_pre_ping=True)
    except ImportError as error:
        raise UserError("a study database in PostgreSQL needs psycopg: pip install 'dlcore[postgres]'") from error
    try:
        with engine.connect() as connection:
            for setting in ("fsync", "full_page_writes"):
                if connection.exec_driver_sql(f"SHOW {setting}").scalar() != "on":
                    raise UserError(f"{shown(engine)} must keep what it commits, and its {setting} is off; turn it on")
    except DBAPIError as error:
        raise UserError(f"the study database {shown(engine)} cannot be reached: {said(engine, error)}") from None
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction; on SQLite it takes the write lock at its start.

    Raises:
        DatabaseGone: The database went away, and whether the transaction was committed is unknown; or another program
            keeps SQLite locked, and nothing was.
        StudiesError: The database cannot be written (a full disk): nothing was.
    """
    try:
        with engine.connect().execution_options(dlcore_writing=True) as connection, connection.begin():
            yield connection
    except DBAPIError as error:
        raise _error(engine, error, "written") from error.orig


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that sees one state of the database; what it reads is made sense of inside.

    Raises:
        StudiesError: The database cannot be read, or holds what makes no sense.
    """
    try:
        with engine.connect() as connection:
            if not is_sqlite(connection):
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection
    except DBAPIError as error:
        raise _error(engine, error, "read") from error.orig
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise StudiesError(f"{shown(engine)} holds a damaged row ({what}); restore it from a copy") from error


def _error(engine: Engine, error: DBAPIError, what: str) -> StudiesError:
    text = f"the study database {shown(engine)} cannot be {what}: {said(engine, error)}"
    # A connection that cannot be made leaves nothing invalid behind, but is as gone as one that breaks.
    is_gone = error.connection_invalidated or (
        engine.dialect.name == "postgresql" and type(error.orig).__name__ in _GONE
    )
    is_locked = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    return DatabaseGone(text) if is_gone or is_locked else StudiesError(text)


def said(engine: Engine, error: DBAPIError) -> str:
    """What the database said, in one line, without the password."""
    line = " ".join(str(error.orig).split())
    secrets = [engine.url.password, *(engine.url.query.get(name) for name in _SECRETS)]
    for secret in secrets:
        line = line.replace(str(secret), "***") if secret else line
    return line


def shown(engine: Engine) -> str:
    """The database's name as it may be shown: a file, or an address without secrets."""
    if engine.dialect.name == "sqlite":
        return str(engine.url.database)
    return engine.url.difference_update_query(_SECRETS).render_as_string(hide_password=True)


def address(engine: Engine) -> str:
    """The database's URL without secrets, from which it can be opened where the environment holds them."""
    url = engine.url.difference_update_query(_SECRETS)
    open_url = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
    return open_url.render_as_string()


def lock_schema(connection: Connection) -> None:
    """Let nobody else make or change tables until this transaction ends; SQLite's write lock does that already."""
    if not is_sqlite(connection):
        connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))


def now(connection: Connection) -> float:
    """The database's clock: seconds since 1970, UTC."""
    if is_sqlite(connection):
        return float(connection.exec_driver_sql("SELECT (julianday('now') - 2440587.5) * 86400.0").scalar_one())
    return float(connection.execute(select(extract("epoch", func.clock_timestamp()))).scalar_one())


def is_sqlite(connection: Connection) -> bool:
    """Whether the database is SQLite; else it is PostgreSQL."""
    return connection.dialect.name == "sqlite"


def database_file(url: str) -> Path | None:
    """The file behind an SQLite URL; None for a database in memory, or on a server."""
    if not url.startswith("sqlite:"):
        return None
    name = make_url(url).database
    return Path(name) if name and name != ":memory:" else None
