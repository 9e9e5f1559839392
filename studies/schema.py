"""Making a study database, and recognising one: Optuna's own schema with our tables beside it.

Optuna's `RDBStorage` commits each of its tables alone, so a kill in between would leave half a schema that nothing
mends. Here all tables are made in one transaction, from Optuna's own definitions.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages._rdb import models
from sqlalchemy import Connection, Engine, insert, inspect, text

from studies.database import database_file, lock_schema, open_engine, reading, shown, writing
from studies.errors import UserError
from studies.migrations import migrate, upgrade
from studies.rows import VERSION

OPTUNA_SCHEMA = "v3.2.0.a"
"""Head of Optuna 5's migrations."""


def open_database(url: str) -> Engine:
    """An engine on a study database of the newest version; the first time, the database is made.

    Raises:
        UserError: It cannot be reached, read or written, is damaged, or of another version.
    """
    path = database_file(url)
    if path is not None and _is_empty(path):
        create(path)
    engine = open_engine(url)
    if path is None:
        create_if_empty(engine)
    check_schema(engine)
    migrate(engine)
    return engine


def create(path: Path) -> None:
    """Make an empty study database in a file: complete, and flushed to disk, before it appears under its name.

    Of several processes one makes it; a database that is there by then is left alone.
    """
    draft = path.with_name(f".{path.name}.new")
    with _alone_in(path.parent):
        if not _is_empty(path):
            return
        try:
            _remove(draft)  # of a process that was killed
            engine = open_engine(f"sqlite:///{draft}")
            with writing(engine) as connection:
                _make(connection)
            engine.dispose()
            draft.chmod(0o600)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            _remove(draft)


def _is_empty(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _remove(draft: Path) -> None:
    for leftover in (draft, draft.with_name(f"{draft.name}-journal")):
        leftover.unlink(missing_ok=True)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No other process of ours makes a database in this folder; the kernel frees the lock when we die."""
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"no study database can be made in {folder}: {error.strerror}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def create_if_empty(engine: Engine) -> None:
    """Make the tables in a PostgreSQL database that has none; the first of several processes makes them."""
    with reading(engine) as connection:
        if inspect(connection).get_table_names():
            return
    with writing(engine) as connection:
        lock_schema(connection)
        if not inspect(connection).get_table_names():
            _make(connection)


def _make(connection: Connection) -> None:
    models.BaseModel.metadata.create_all(connection)
    version = {"version_info_id": 1, "schema_version": models.SCHEMA_VERSION, "library_version": optuna.__version__}
    connection.execute(insert(VERSION).values(version))
    # As alembic makes it; its own function would commit.
    connection.execute(
        text(
            "CREATE TABLE alembic_version "
            "( version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num) )"
        )
    )
    connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": OPTUNA_SCHEMA})
    upgrade(connection)


def check_schema(engine: Engine) -> None:
    """Refuse a database that is not Optuna's, or of another version of Optuna's schema; nothing is written."""
    with reading(engine) as connection:
        tables = set(inspect(connection).get_table_names())
        if not {"studies", "trials", "version_info", "alembic_version"} <= tables:
            raise UserError(f"{shown(engine)} must be a study database; it holds other tables, and is left alone")
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found != OPTUNA_SCHEMA:
        raise UserError(
            f"the study database {shown(engine)} must have Optuna's schema {OPTUNA_SCHEMA}; it has {found}: "
            "run `optuna storage upgrade`, or install the version of Optuna that made it"
        )
