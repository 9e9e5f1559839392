"""The tables of MLflow's tracking database that hold runs, and their rows as MLflow itself writes them.

A mirror of MLflow's own models, as far as runs need it: a contract test compares what both write.
"""

import math
import secrets
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, islice
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Connection, Float, Integer, MetaData, String, Table, select

from studies import runs
from studies.runs import Metric
from studies.tracking_store import FoundRun

VARIABLES = 30_000
"""Of one statement: SQLite takes 32,766."""
ROOT = "mlflow-artifacts:/"
"""Artifacts of a server that is started as `server` starts it."""

_metadata = MetaData()
EXPERIMENTS = Table(
    "experiments",
    _metadata,
    Column("experiment_id", Integer, primary_key=True),
    Column("name", String),
    Column("artifact_location", String),
    Column("lifecycle_stage", String),
    Column("creation_time", BigInteger),
    Column("last_update_time", BigInteger),
    Column("workspace", String),
)
EXPERIMENT_TAGS = Table(
    "experiment_tags",
    _metadata,
    Column("key", String, primary_key=True),
    Column("value", String),
    Column("experiment_id", Integer, primary_key=True),
)
RUNS = Table(
    "runs",
    _metadata,
    Column("run_uuid", String, primary_key=True),
    Column("name", String),
    Column("source_type", String),
    Column("source_name", String),
    Column("entry_point_name", String),
    Column("user_id", String),
    Column("status", String),
    Column("start_time", BigInteger),
    Column("end_time", BigInteger),
    Column("source_version", String),
    Column("lifecycle_stage", String),
    Column("artifact_uri", String),
    Column("experiment_id", Integer),
    Column("deleted_time", BigInteger),
)
PARAMS, TAGS = (
    Table(
        name,
        _metadata,
        Column("key", String, primary_key=True),
        Column("value", String),
        Column("run_uuid", String, primary_key=True),
    )
    for name in ("params", "tags")
)
METRICS, LATEST = (
    Table(
        name,
        _metadata,
        Column("key", String, primary_key=True),
        Column("value", Float),
        Column("timestamp", BigInteger),
        Column("step", BigInteger),
        Column("is_nan", Boolean),
        Column("run_uuid", String, primary_key=True),
    )
    for name in ("metrics", "latest_metrics")
)
POINT_COLUMNS = ("key", "value", "timestamp", "step", "is_nan", "run_uuid")
TEXT_COLUMNS = ("key", "value", "run_uuid")
REPLACE_TEXT = 'DO UPDATE SET "value" = excluded."value"'
REPLACE_POINT = "DO UPDATE SET " + ", ".join(
    f'"{name}" = excluded."{name}"' for name in ("value", "timestamp", "step", "is_nan")
)


@cache
def _statement(table: str, columns: tuple[str, ...], n_rows: int, on_conflict: str) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    row = f"({', '.join('?' * len(columns))})"
    conflict = f" ON CONFLICT {on_conflict}" if on_conflict else ""
    return f'INSERT INTO "{table}" ({names}) VALUES {", ".join([row] * n_rows)}{conflict}'


def put(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Iterable[tuple[object, ...]],
    on_conflict: str = "",
) -> None:
    """Insert rows, thousands by one statement.

    Row by row would take the interpreter's lock back after each, and make a training thread wait for it.
    """
    source = iter(rows)
    while part := list(islice(source, VARIABLES // len(columns))):
        flat = tuple(chain.from_iterable(part))
        connection.exec_driver_sql(_statement(table, columns, len(part), on_conflict), flat)


def put_points(connection: Connection, points: Mapping[str, Sequence[Metric]], old: Sequence[str]) -> None:
    """Insert the points of runs, and of each metric the latest into its own table.

    Args:
        connection: In a transaction.
        points: Run id -> its points.
        old: Runs among them that may have points already.
    """
    put(connection, "metrics", POINT_COLUMNS, _point_rows(points), "DO NOTHING" if old else "")
    latest = {run_id: runs.latest(of_run) for run_id, of_run in points.items()}
    columns = (LATEST.c.run_uuid, *point_columns(LATEST))
    for run_id, *point in connection.execute(select(*columns).where(LATEST.c.run_uuid.in_(old))):
        known, own = point_of(*point), latest[run_id]
        if known.key in own:
            own[known.key] = runs.latest([known, own[known.key]])[known.key]
    rows = _point_rows({run_id: list(of_run.values()) for run_id, of_run in latest.items()})
    put(connection, "latest_metrics", POINT_COLUMNS, rows, REPLACE_POINT if old else "")


def _point_rows(points: Mapping[str, Sequence[Metric]]) -> Iterator[tuple[object, ...]]:
    for run_id, of_run in points.items():
        for key, value, timestamp, step in of_run:
            yield key, value, timestamp, step, 0, run_id


def point_columns(table: Table) -> tuple[Any, ...]:
    """The columns that `point_of` takes."""
    return table.c.key, table.c.value, table.c.timestamp, table.c.step, table.c.is_nan


def point_of(key: str, value: float, timestamp: int, step: int, is_nan: bool) -> Metric:
    """A stored point; MLflow stores NaN as 0."""
    return Metric(key, math.nan if is_nan else value, timestamp, step)


def new_run_id() -> str:
    """32 hexadecimal digits, later ones behind earlier ones: a UUID of version 7 (RFC 9562).

    Runs of one time are then neighbours in every index of MLflow's tables that has the run in it. Random ones touch a
    page for each of their rows as soon as there are more runs than fit into a page, and are written half as fast.
    """
    now_ms, rest = time.time_ns() // 1_000_000, secrets.randbits(74)
    head, tail = rest >> 62, rest & ((1 << 62) - 1)
    return uuid.UUID(int=now_ms << 80 | 7 << 76 | head << 64 | 2 << 62 | tail).hex


def new_run(experiment_id: str, name: str, status: str, start_ms: int, end_ms: int | None) -> dict[str, object]:
    """A row of `runs`, its columns in their order."""
    run_id = new_run_id()
    return {
        "run_uuid": run_id,
        "name": name,
        "source_type": "UNKNOWN",
        "source_name": "",
        "entry_point_name": "",
        "user_id": "unknown",
        "status": status,
        "start_time": start_ms,
        "end_time": end_ms,
        "source_version": "",
        "lifecycle_stage": "active",
        "artifact_uri": f"{ROOT}{experiment_id}/{run_id}/artifacts",
        "experiment_id": int(experiment_id),
        "deleted_time": None,
    }


def found_run(row: Any) -> FoundRun:
    """A row of `runs`, without tags, params and metrics."""
    return FoundRun(
        run_id=row.run_uuid,
        name=row.name or "",
        status=row.status,
        start_ms=row.start_time or 0,
        end_ms=row.end_time or 0,
        is_deleted=row.lifecycle_stage == "deleted",
        artifact_uri=row.artifact_uri or "",
    )


def read_texts(connection: Connection, found: Mapping[str, FoundRun], needed: Collection[str] | None) -> None:
    """Fill in the tags, params and latest metrics of runs."""

    def chosen(table: Table, *columns: Any) -> Any:
        query = select(table.c.run_uuid, *columns).where(table.c.run_uuid.in_(found))
        return query if needed is None else query.where(table.c.key.in_(needed))

    for run_id, key, value in connection.execute(chosen(TAGS, TAGS.c.key, TAGS.c.value)):
        found[run_id].tags[key] = value or ""
    for run_id, *point in connection.execute(chosen(LATEST, *point_columns(LATEST))):
        found[run_id].latest[point[0]] = point_of(*point)
    if needed is None:
        for run_id, key, value in connection.execute(chosen(PARAMS, PARAMS.c.key, PARAMS.c.value)):
            found[run_id].params[key] = value
