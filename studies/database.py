"""Engines, transactions, our own tables and their numbered migrations, beside Optuna's schema in one database.

Optuna's tables (`studies`, `trials`, ...) are the truth that every Optuna tool reads; ours (`dlcore_*`) hold what that
schema has no column for. Writing is done a cohort to a transaction, so SQLite's rollback journal with
synchronous=FULL costs nothing that matters; WAL stays off (SQLite before 3.51.3 can corrupt the file when it resets
the log, https://sqlite.org/wal.html#walresetbug).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import ConnectionPoolEntry

from studies.errors import StudiesError, UserError

_metadata = MetaData()

STUDIES = Table(
    "dlcore_studies",
    _metadata,
    Column("study_id", Integer, primary_key=True),
    Column("uuid", Text),
    Column("created_at", Double),
    Column("spec_json", Text),
    Column("objectives_json", Text),
    Column("task", Text),
    Column("curve_metric", Text),
    Column("cohort_size", Integer),
    Column("n_features", Integer),
    Column("n_outputs", Integer),
    Column("data_name", Text),
    Column("data_fingerprint", Text),
    Column("environment_json", Text),
    Column("spent_s", Double),
    Column("tracking_uri", Text),
    Column("experiment_id", Text),
)
COHORTS = Table(
    "dlcore_cohorts",
    _metadata,
    Column("study_id", Integer, primary_key=True),
    Column("cohort", Integer, primary_key=True),
    Column("first_number", Integer),
    Column("n_trials", Integer),
    Column("claimed_at", Double),
)
RESULTS = Table(
    "dlcore_results",
    _metadata,
    Column("trial_id", Integer, primary_key=True),
    Column("cohort", Integer),
    Column("hyperparameters_json", Text),
    Column("n_parameters", BigInteger),
    Column("reason", Text),
    Column("best_epoch", Integer),
    Column("best_val_loss", Double),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("duration_s", Double),
    Column("samples_per_s", Double),
    Column("engine", Text),
    Column("population_size", Integer),
    Column("device", Text),
    Column("peak_memory_bytes", BigInteger),
)
CURVES = Table(
    "dlcore_curves",
    _metadata,
    Column("trial_id", Integer, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("train_loss", Double),
    Column("val_loss", Double),
    Column("val_metric", Double),
    Column("learning_rate", Double),
    Column("finished_at", Double),
)
WINNERS = Table(
    "dlcore_winners",
    _metadata,
    Column("study_id", Integer, primary_key=True),
    Column("trial_id", Integer, primary_key=True),
    Column("created_at", Double),
    Column("n_finished", Integer),
    Column("val_metrics_json", Text),
    Column("test_metrics_json", Text),
    Column("export_dir", Text),
    Column("onnx_sha256", Text),
)
MIGRATIONS = Table(
    "dlcore_migrations",
    _metadata,
    Column("version", Integer, primary_key=True),
    Column("applied_at", Double),
)


def _create_tables(connection: Connection) -> None:
    """Version 1. DDL is written out, not derived from the tables above, which may move on."""
    statements = (
        """CREATE TABLE dlcore_studies (
            study_id INTEGER PRIMARY KEY REFERENCES studies (study_id) ON DELETE CASCADE,
            uuid TEXT NOT NULL UNIQUE, created_at DOUBLE PRECISION NOT NULL, spec_json TEXT NOT NULL,
            objectives_json TEXT NOT NULL, task TEXT NOT NULL, curve_metric TEXT NOT NULL,
            cohort_size INTEGER NOT NULL, n_features INTEGER NOT NULL, n_outputs INTEGER NOT NULL,
            data_name TEXT NOT NULL, data_fingerprint TEXT NOT NULL, environment_json TEXT NOT NULL,
            spent_s DOUBLE PRECISION NOT NULL, tracking_uri TEXT, experiment_id TEXT)""",
        """CREATE TABLE dlcore_cohorts (
            study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
            cohort INTEGER NOT NULL, first_number INTEGER NOT NULL, n_trials INTEGER NOT NULL,
            claimed_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (study_id, cohort))""",
        """CREATE TABLE dlcore_results (
            trial_id INTEGER PRIMARY KEY REFERENCES trials (trial_id) ON DELETE CASCADE,
            cohort INTEGER NOT NULL, hyperparameters_json TEXT NOT NULL, n_parameters BIGINT NOT NULL,
            reason TEXT, best_epoch INTEGER, best_val_loss DOUBLE PRECISION,
            started_at DOUBLE PRECISION, finished_at DOUBLE PRECISION,
            duration_s DOUBLE PRECISION, samples_per_s DOUBLE PRECISION, engine TEXT, population_size INTEGER,
            device TEXT, peak_memory_bytes BIGINT)""",
        """CREATE TABLE dlcore_curves (
            trial_id INTEGER NOT NULL REFERENCES trials (trial_id) ON DELETE CASCADE, epoch INTEGER NOT NULL,
            train_loss DOUBLE PRECISION, val_loss DOUBLE PRECISION, val_metric DOUBLE PRECISION,
            learning_rate DOUBLE PRECISION NOT NULL, finished_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (trial_id, epoch))""",
        """CREATE TABLE dlcore_winners (
            study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
            trial_id INTEGER NOT NULL REFERENCES trials (trial_id) ON DELETE CASCADE,
            created_at DOUBLE PRECISION NOT NULL, n_finished INTEGER NOT NULL, val_metrics_json TEXT NOT NULL,
            test_metrics_json TEXT NOT NULL, export_dir TEXT NOT NULL, onnx_sha256 TEXT NOT NULL,
            PRIMARY KEY (study_id, trial_id))""",
    )
    for statement in statements:
        connection.execute(text(statement))


_MIGRATIONS = (_create_tables,)
"""Migration n brings the tables from version n to n + 1."""


def open_engine(url: str) -> Engine:
    """An engine whose connections keep foreign keys, wait for locks, and flush what they commit.

    Raises:
        UserError: The file is no SQLite database, or is damaged.
    """
    engine = create_engine(url, connect_args={"timeout": 20.0})

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

    path = make_url(url).database
    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    except DatabaseError as error:
        raise UserError(f"the study database {path} cannot be read: {error.orig}") from error
    if found != "ok":
        raise UserError(f"the study database {path} is damaged ({found}); restore it from a copy, or move it away")
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that takes the write lock at its start, so that what it reads stays true until it commits.

    Raises:
        StudiesError: The database cannot be written (a full disk, a lock that is never freed): nothing was.
    """
    try:
        with engine.connect().execution_options(dlcore_writing=True) as connection, connection.begin():
            yield connection
    except DatabaseError as error:
        raise StudiesError(f"the study database {engine.url.database} cannot be written: {error.orig}") from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that sees one state of the database; what it reads is made sense of inside.

    Raises:
        StudiesError: The database cannot be read, or holds what makes no sense.
    """
    try:
        with engine.connect() as connection:
            yield connection
    except DatabaseError as error:
        raise StudiesError(f"the study database {engine.url.database} cannot be read: {error.orig}") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise StudiesError(f"{engine.url.database} holds a damaged row ({what}); restore it from a copy") from error


def migrate(engine: Engine) -> None:
    """Bring our tables to the newest version, each step in one transaction with its record.

    Raises:
        UserError: The database was written by a newer version of this program.
    """
    with writing(engine) as connection:
        connection.execute(
            text(
                "CREATE TABLE IF NOT EXISTS dlcore_migrations "
                "(version INTEGER PRIMARY KEY, applied_at DOUBLE PRECISION NOT NULL)"
            )
        )
        applied = connection.execute(select(MIGRATIONS.c.version)).scalars().all()
    version = max(applied, default=0)
    if version > len(_MIGRATIONS):
        raise UserError(
            f"the study database is of version {version}, this program knows versions up to {len(_MIGRATIONS)}; "
            "install a newer dlcore"
        )
    for number, step in enumerate(_MIGRATIONS[version:], start=version + 1):
        with writing(engine) as connection:
            if connection.execute(select(MIGRATIONS).where(MIGRATIONS.c.version == number)).first():
                continue  # another process was faster
            step(connection)
            connection.execute(MIGRATIONS.insert().values(version=number, applied_at=time.time()))


def database_file(url: str) -> Path | None:
    """The file behind an SQLite URL; None for a database in memory."""
    name = make_url(url).database
    return Path(name) if name and name != ":memory:" else None
