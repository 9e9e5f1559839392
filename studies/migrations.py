"""Numbered migrations of our tables, and the view that people ask in SQL.

DDL is written out, not derived from `tables`, which may move on. The view is dropped before a migration and made again
after it, so that no step has to know it.
"""

import time
from collections.abc import Callable

from sqlalchemy import Connection, Engine, inspect, select, text

from studies import seals, trials
from studies.database import is_sqlite, lock_schema, reading, shown, writing
from studies.errors import UserError
from studies.tables import MIGRATIONS


def _create_tables(connection: Connection) -> None:
    """Version 1."""
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


def _add_leases(connection: Connection) -> None:
    """Version 2: who trains what, until when; a checksum per finished trial."""
    statements = (
        """CREATE TABLE dlcore_leases (
            token TEXT PRIMARY KEY, study_id INTEGER NOT NULL REFERENCES studies (study_id) ON DELETE CASCADE,
            cohort INTEGER NOT NULL, machine TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
            process_started TEXT NOT NULL, claimer TEXT NOT NULL, claimed_at DOUBLE PRECISION NOT NULL,
            expires_at DOUBLE PRECISION NOT NULL, UNIQUE (study_id, cohort))""",
        "ALTER TABLE dlcore_results ADD COLUMN searched_json TEXT",
        "ALTER TABLE dlcore_results ADD COLUMN token TEXT",
        "ALTER TABLE dlcore_results ADD COLUMN sha256 TEXT",
    )
    for statement in statements:
        connection.execute(text(statement))


def _add_seals(connection: Connection) -> None:
    """Version 3: a checksum of a study's facts, and of a winner."""
    for table in ("dlcore_studies", "dlcore_winners"):
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN sha256 TEXT"))


def _add_finals(connection: Connection) -> None:
    """Version 4: how a winner won. The checksums of earlier winners hold: they leave out what is NULL here."""
    connection.execute(text("ALTER TABLE dlcore_winners ADD COLUMN final_json TEXT"))


_MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_create_tables, _add_leases, _add_seals, _add_finals)
"""Migration n brings the tables from version n to n + 1."""

VIEW = "dlcore_trials"

_FIXED = {
    "depth": "INTEGER",
    "width": "INTEGER",
    "activation": "TEXT",
    "learning_rate": "DOUBLE PRECISION",
    "momentum": "DOUBLE PRECISION",
    "initialization": "TEXT",
}
"""Hyperparameters that have a column of their own in the view, and its type."""


def migrate(engine: Engine) -> None:
    """Bring our tables to the newest version, all steps in one transaction with their records.

    Raises:
        UserError: The database was written by a newer version of this program.
    """
    with reading(engine) as connection:
        version = _version(connection)
    if version > len(_MIGRATIONS):
        raise UserError(
            f"the study database {shown(engine)} is of version {version}, this program knows versions up to "
            f"{len(_MIGRATIONS)}; install a newer dlcore"
        )
    if version < len(_MIGRATIONS):
        with writing(engine) as connection:
            lock_schema(connection)
            upgrade(connection)


def upgrade(connection: Connection) -> None:
    """Take the steps that are missing, in the transaction of the caller, who holds the schema's lock."""
    version = _version(connection)  # another process may have been faster
    if version >= len(_MIGRATIONS):
        return
    connection.execute(
        text(
            "CREATE TABLE IF NOT EXISTS dlcore_migrations "
            "(version INTEGER PRIMARY KEY, applied_at DOUBLE PRECISION NOT NULL)"
        )
    )
    connection.execute(text(f"DROP VIEW IF EXISTS {VIEW}"))
    for number, step in enumerate(_MIGRATIONS[version:], start=version + 1):
        step(connection)
        connection.execute(MIGRATIONS.insert().values(version=number, applied_at=time.time()))
    create_view(connection)
    if 0 < version < 2:
        trials.seal_all(connection)
    if 0 < version < 3:
        seals.seal_all(connection)


def create_view(connection: Connection) -> None:
    """Make the view that people ask, where it is not there."""
    connection.execute(text(_view(is_sqlite(connection))))


def _version(connection: Connection) -> int:
    if not inspect(connection).has_table(MIGRATIONS.name):
        return 0
    return max(connection.execute(select(MIGRATIONS.c.version)).scalars().all(), default=0)


def _view(for_sqlite: bool) -> str:
    """One row per trial of our studies."""
    names = ", ".join(f"'{name}'" for name in _FIXED)
    if for_sqlite:
        fixed = [f"json_extract(r.hyperparameters_json, '$.{name}') AS {name}" for name in _FIXED]
        paths = ", ".join(f"'$.{name}'" for name in _FIXED)
        rest, infinity = f"json_remove(r.hyperparameters_json, {paths})", "9e999"
        state = "t.state"
    else:
        fixed = [
            f"(CAST(r.hyperparameters_json AS jsonb) ->> '{name}')::{kind} AS {name}" for name, kind in _FIXED.items()
        ]
        rest = f"CAST(CAST(r.hyperparameters_json AS jsonb) - ARRAY[{names}] AS TEXT)"
        infinity, state = "CAST('Infinity' AS DOUBLE PRECISION)", "CAST(t.state AS TEXT)"
    return f"""CREATE VIEW {VIEW} AS SELECT
        s.study_name AS study, t.number AS number, {state} AS state,
        CASE CAST(v.value_type AS TEXT) WHEN 'INF_POS' THEN {infinity} WHEN 'INF_NEG' THEN -{infinity}
            ELSE v.value END AS value,
        r.n_parameters AS n_parameters, r.duration_s AS seconds, {", ".join(fixed)},
        {rest} AS other_hyperparameters, r.cohort AS cohort, r.best_epoch AS best_epoch, r.reason AS reason
        FROM trials t JOIN studies s ON s.study_id = t.study_id JOIN dlcore_results r ON r.trial_id = t.trial_id
        LEFT JOIN trial_values v ON v.trial_id = t.trial_id AND v.objective = 0"""
