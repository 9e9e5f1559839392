"""The home's own tracking server by its database: a cohort of runs in one transaction.

The server runs on the same SQLite file. So every write is one short transaction that takes the write lock at its
start, waits for it as long as the server itself would, and shows readers all of a run or nothing. The rows are those
that MLflow's own client would have written: a contract test compares all tables. That holds for the schema revisions
that it was run with; with any other, the runs go through the server (see `stores`).

MLflow is not imported here.
"""

import sqlite3
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, and_, create_engine, delete, event, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from studies.errors import TrackingError
from studies.mlflow_tables import (
    EXPERIMENT_TAGS,
    EXPERIMENTS,
    METRICS,
    REPLACE_TEXT,
    ROOT,
    RUNS,
    TAGS,
    TEXT_COLUMNS,
    found_run,
    new_run,
    point_columns,
    point_of,
    put,
    put_points,
    read_texts,
)
from studies.runs import Metric
from studies.tracking_store import Experiment, FoundRun, Refused, Work, Written

KNOWN_REVISIONS = frozenset({"dc11669786a5"})
"""Of MLflow 3.17. Add one when the contract test has passed with it."""
BUSY_S = 20.0
"""Patience with the server's locks, as the server has with ours."""
AT_ONCE = 500
"""Runs that are read by one query."""


def revision(database: Path) -> str | None:
    """Revision of the tracking database's schema; None where there is none to be read."""
    try:
        connection = _open(database)
        try:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        finally:
            connection.close()
    except sqlite3.Error:
        return None
    return str(found[0][0]) if len(found) == 1 else None


def damage(database: Path) -> str | None:
    """What SQLite finds wrong with the tracking database, in one line; None if it finds nothing."""
    try:
        connection = _open(database)
        try:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        return str(error)
    return None if found == "ok" else " ".join(str(found).split())


class SqlStore:
    """Runs in the database of the home's own server; see `TrackingStore`."""

    def __init__(self, database: Path, artifacts: Path, where: str) -> None:
        """Nothing is read yet.

        Args:
            database: The server's `mlflow.db`; it must exist.
            artifacts: The folder that the server hands out as "mlflow-artifacts:/".
            where: The server's address.
        """
        self.where, self.identity, self.is_neighbour = where, ("sql", str(database)), False
        self._database, self._artifacts = database, artifacts
        self._engine = create_engine("sqlite://", creator=lambda: _open(database), poolclass=StaticPool)

        @event.listens_for(self._engine, "begin")
        def _begin(connection: Connection) -> None:
            is_writing = connection.get_execution_options().get("dlcore_writing", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")

    def credentials(self) -> Mapping[str, str]:
        """See `TrackingStore`: a server on loopback asks for none."""
        return {}

    def experiments(self, key: str, value: str) -> list[Experiment]:
        """See `TrackingStore`."""
        has_tag = and_(EXPERIMENT_TAGS.c.key == key, EXPERIMENT_TAGS.c.value == value)
        named = select(EXPERIMENT_TAGS.c.experiment_id).where(has_tag)
        with self._transaction() as connection:
            found = connection.execute(select(EXPERIMENTS).where(EXPERIMENTS.c.experiment_id.in_(named))).all()
            tags: dict[int, dict[str, str]] = {row.experiment_id: {} for row in found}
            for row in connection.execute(select(EXPERIMENT_TAGS).where(EXPERIMENT_TAGS.c.experiment_id.in_(tags))):
                tags[row.experiment_id][str(row.key)] = str(row.value)
        return [
            Experiment(str(row.experiment_id), row.lifecycle_stage == "deleted", tags[row.experiment_id])
            for row in found
        ]

    def create_experiment(self, name: str, tags: Mapping[str, str]) -> str | None:
        """See `TrackingStore`."""
        now = _now_ms()
        with self._transaction(is_writing=True) as connection:
            if connection.execute(select(EXPERIMENTS).where(EXPERIMENTS.c.name == name)).first():
                return None
            new = {
                "name": name,
                "lifecycle_stage": "active",
                "creation_time": now,
                "last_update_time": now,
                "workspace": "default",
            }
            created = connection.execute(insert(EXPERIMENTS).values(new)).inserted_primary_key
            assert created is not None
            number = created[0]
            own = update(EXPERIMENTS).where(EXPERIMENTS.c.experiment_id == number)
            connection.execute(own.values(artifact_location=f"{ROOT}{number}"))
            _put_labels(connection, number, tags)
        return str(number)

    def tag_experiment(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """See `TrackingStore`."""
        with self._transaction(is_writing=True) as connection:
            _check_experiment(connection, experiment_id)
            _put_labels(connection, int(experiment_id), tags)

    def delete_experiment(self, experiment_id: str) -> None:
        """See `TrackingStore`."""
        number, now = int(experiment_id), _now_ms()
        with self._transaction(is_writing=True) as connection:
            own = update(EXPERIMENTS).where(EXPERIMENTS.c.experiment_id == number)
            connection.execute(own.values(lifecycle_stage="deleted", last_update_time=now))
            own = update(RUNS).where(RUNS.c.experiment_id == number)
            connection.execute(own.values(lifecycle_stage="deleted", deleted_time=now))

    def restore_experiment(self, experiment_id: str) -> None:
        """See `TrackingStore`."""
        number = int(experiment_id)
        with self._transaction(is_writing=True) as connection:
            own = update(EXPERIMENTS).where(EXPERIMENTS.c.experiment_id == number)
            connection.execute(own.values(lifecycle_stage="active", last_update_time=_now_ms()))
            own = update(RUNS).where(RUNS.c.experiment_id == number)
            connection.execute(own.values(lifecycle_stage="active", deleted_time=None))

    def runs(
        self, experiment_id: str, run_ids: Sequence[str] | None = None, needed: Collection[str] | None = None
    ) -> Iterator[FoundRun]:
        """See `TrackingStore`. Each query is a transaction of its own: the server is not kept from writing."""
        last = ""
        while True:
            chosen = and_(RUNS.c.experiment_id == int(experiment_id), RUNS.c.run_uuid > last)
            if run_ids is not None:
                chosen = and_(chosen, RUNS.c.run_uuid.in_(run_ids))
            with self._transaction() as connection:
                query = select(RUNS).where(chosen).order_by(RUNS.c.run_uuid).limit(AT_ONCE)
                found = {row.run_uuid: found_run(row) for row in connection.execute(query)}
                read_texts(connection, found, needed)
            yield from found.values()
            if len(found) < AT_ONCE:
                return
            last = max(found)

    def points(self, run_ids: Sequence[str], keys: Collection[str]) -> dict[str, set[Metric]]:
        """See `TrackingStore`; the keys are not needed."""
        columns = (METRICS.c.run_uuid, *point_columns(METRICS))
        found: dict[str, set[Metric]] = {}
        with self._transaction() as connection:
            for run_id, *point in connection.execute(select(*columns).where(METRICS.c.run_uuid.in_(run_ids))):
                found.setdefault(run_id, set()).add(point_of(*point))
        return found

    def create_run(self, experiment_id: str, name: str, start_ms: int, tags: Mapping[str, str]) -> FoundRun:
        """See `TrackingStore`."""
        with self._transaction(is_writing=True) as connection:
            _check_experiment(connection, experiment_id)
            row = new_run(experiment_id, name, "RUNNING", start_ms, None)
            connection.execute(insert(RUNS), row)
            run_id = str(row["run_uuid"])
            named = {**tags, "mlflow.runName": name}
            put(connection, "tags", TEXT_COLUMNS, [(key, text, run_id) for key, text in named.items()])
        uri = str(row["artifact_uri"])
        return FoundRun(run_id, name, "RUNNING", start_ms, 0, False, uri, tags=named)

    def write_trials(self, experiment_id: str, parent_run_id: str, work: Sequence[Work]) -> Iterator[list[Written]]:
        """See `TrackingStore`. All of them in one transaction."""
        if not work:
            return
        written: list[Written] = []
        params: list[tuple[object, ...]] = []
        tags: list[tuple[object, ...]] = []
        new_runs, points = [], {}
        for item in work:
            wanted, run_id = item.wanted, item.run_id
            labels = {**item.notes, **wanted.all_tags(parent_run_id)}
            if run_id is None:
                row = new_run(experiment_id, wanted.name, wanted.status, wanted.start_ms, wanted.end_ms)
                new_runs.append(tuple(row.values()))
                run_id = str(row["run_uuid"])
                labels["mlflow.runName"] = wanted.name
            params += [(key, value, run_id) for key, value in wanted.params.items()]
            tags += [(key, value, run_id) for key, value in labels.items()]
            points[run_id] = wanted.metrics
            written.append(Written(wanted.number, run_id))
        old = {item.run_id: item.wanted for item in work if item.run_id is not None}
        with self._transaction(is_writing=True) as connection:
            _check_experiment(connection, experiment_id)
            _check_active(connection, list(old))
            put(connection, "runs", tuple(column.name for column in RUNS.columns), new_runs)
            for run_id, wanted in old.items():
                own = update(RUNS).where(RUNS.c.run_uuid == run_id)
                connection.execute(own.values(status=wanted.status, end_time=wanted.end_ms))
            put(connection, "params", TEXT_COLUMNS, params, "DO NOTHING")
            put(connection, "tags", TEXT_COLUMNS, tags, REPLACE_TEXT)
            put_points(connection, points, list(old))
        yield written

    def log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """See `TrackingStore`."""
        with self._transaction(is_writing=True) as connection:
            _check_active(connection, [run_id])
            rows = [(key, value, run_id) for key, value in (params or {}).items()]
            put(connection, "params", TEXT_COLUMNS, rows, "DO NOTHING")
            rows = [(key, value, run_id) for key, value in (tags or {}).items()]
            put(connection, "tags", TEXT_COLUMNS, rows, REPLACE_TEXT)
            if metrics:
                put_points(connection, {run_id: metrics}, [run_id])

    def update(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """See `TrackingStore`."""
        values: dict[str, object] = {"status": status} if end_ms is None else {"status": status, "end_time": end_ms}
        with self._transaction(is_writing=True) as connection:
            _check_active(connection, [run_id])
            connection.execute(update(RUNS).where(RUNS.c.run_uuid == run_id).values(values))

    def delete_tag(self, run_id: str, key: str) -> None:
        """See `TrackingStore`."""
        with self._transaction(is_writing=True) as connection:
            connection.execute(delete(TAGS).where(TAGS.c.run_uuid == run_id, TAGS.c.key == key))

    def delete_run(self, run_id: str) -> None:
        """See `TrackingStore`."""
        own = update(RUNS).where(RUNS.c.run_uuid == run_id, RUNS.c.lifecycle_stage == "active")
        with self._transaction(is_writing=True) as connection:
            connection.execute(own.values(lifecycle_stage="deleted", deleted_time=_now_ms()))

    def restore_run(self, run_id: str) -> None:
        """See `TrackingStore`."""
        own = update(RUNS).where(RUNS.c.run_uuid == run_id)
        with self._transaction(is_writing=True) as connection:
            connection.execute(own.values(lifecycle_stage="active", deleted_time=None))

    def put_artifact(self, run: FoundRun, name: str, content: bytes) -> None:
        """See `TrackingStore`."""
        place = self._artifacts / run.artifact_uri.removeprefix(ROOT) / name
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:  # mode 0600
                file.write(content)
            Path(file.name).replace(place)
        except OSError as error:
            raise TrackingError(f"{place} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """See `TrackingStore`."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, is_writing: bool = False) -> Iterator[Connection]:
        """One transaction on a database of a schema that is known at that moment."""
        try:
            with self._engine.connect().execution_options(dlcore_writing=is_writing) as connection, connection.begin():
                found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
                if found not in KNOWN_REVISIONS:
                    raise TrackingError(f"the schema of {self._database} changed while it was open")
                yield connection
        except DBAPIError as error:
            verb = "written" if is_writing else "read"
            raise TrackingError(f"the tracking database {self._database} cannot be {verb}: {error.orig}") from error


def _open(database: Path) -> sqlite3.Connection:
    """A connection to a database that exists; transactions are begun by hand."""
    uri = f"file:{quote(str(database.absolute()))}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _put_labels(connection: Connection, number: int, tags: Mapping[str, str]) -> None:
    """Set tags of an experiment."""
    labels = [(key, value, number) for key, value in tags.items()]
    conflict = "(key, experiment_id) DO UPDATE SET value = excluded.value"
    put(connection, "experiment_tags", ("key", "value", "experiment_id"), labels, conflict)


def _check_experiment(connection: Connection, experiment_id: str) -> None:
    """Refuse an experiment that somebody deleted meanwhile, as the server would."""
    query = select(EXPERIMENTS.c.lifecycle_stage).where(EXPERIMENTS.c.experiment_id == int(experiment_id))
    if connection.execute(query).scalar() != "active":
        raise Refused("INVALID_PARAMETER_VALUE", f"experiment {experiment_id} must be active, and is deleted")


def _check_active(connection: Connection, run_ids: Sequence[str]) -> None:
    """Refuse runs that somebody deleted meanwhile, as the server would."""
    is_active = and_(RUNS.c.run_uuid.in_(run_ids), RUNS.c.lifecycle_stage == "active")
    found = connection.execute(select(func.count()).where(is_active)).scalar_one()
    if found != len(run_ids):
        raise Refused("INVALID_PARAMETER_VALUE", f"{len(run_ids)} runs must be active; {found} are")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
