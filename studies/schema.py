"""Making a study database, and recognising one: Optuna's own schema with our tables beside it.

Optuna's `RDBStorage` is used for one thing: to create its schema.
"""

import os
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DatabaseError

from studies.database import migrate, open_engine, reading
from studies.errors import StudiesError, UserError

OPTUNA_SCHEMA = "v3.2.0.a"
"""Head of Optuna 5's migrations."""


def create(path: Path) -> None:
    """Make an empty study database: complete, and flushed to disk, before it appears under its name.

    Optuna commits each of its tables alone, so a kill in between would leave half a schema that nothing mends.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    url = f"sqlite:///{draft}"
    try:
        try:
            RDBStorage(url.replace("{", "{{").replace("}", "}}")).engine.dispose()
            engine = open_engine(url)
            migrate(engine)
            engine.dispose()
        except (DatabaseError, StorageInternalError) as error:
            raise StudiesError(f"the study database {path} cannot be made: {getattr(error, 'orig', error)}") from error
        draft.chmod(0o600)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        for leftover in (draft, draft.with_name(f"{draft.name}-journal")):
            leftover.unlink(missing_ok=True)


def check_schema(engine: Engine) -> None:
    """Refuse a database that is not Optuna's, or of another version of Optuna's schema; nothing is written."""
    with reading(engine) as connection:
        tables = set(inspect(connection).get_table_names())
        if not {"studies", "trials", "version_info", "alembic_version"} <= tables:
            raise UserError(f"{engine.url.database} must be a study database; it holds other tables, and is left alone")
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found != OPTUNA_SCHEMA:
        raise UserError(
            f"the study database {engine.url.database} must have Optuna's schema {OPTUNA_SCHEMA}; it has {found}: "
            "run `optuna storage upgrade`, or install the version of Optuna that made it"
        )
