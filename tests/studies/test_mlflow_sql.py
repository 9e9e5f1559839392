import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from studies import mlflow_sql, runs
from studies.errors import TrackingError
from studies.mlflow_sql import KNOWN_REVISIONS, SqlStore, revision
from studies.tracking_store import Work
from tests.studies.mirror_tools import contents, make_facts, read, rows, sql_store


@pytest.fixture
def store(home: Path) -> Iterator[SqlStore]:
    store = sql_store(home)
    yield store
    store.close()


def test_what_is_no_tracking_database_has_no_revision_and_is_not_made(tmp_path: Path) -> None:
    assert revision(tmp_path / "missing.db") is None
    assert not (tmp_path / "missing.db").exists()
    (tmp_path / "text.db").write_text("no database" * 1000)
    assert revision(tmp_path / "text.db") is None
    with contextlib.closing(sqlite3.connect(tmp_path / "two.db")) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.executemany("INSERT INTO alembic_version VALUES (?)", [("a",), ("b",)])
    assert revision(tmp_path / "two.db") is None
    with pytest.raises(TrackingError, match=r"missing\.db cannot be read"):
        SqlStore(tmp_path / "missing.db", tmp_path, "").experiments("x", "y")


@pytest.mark.slow
def test_the_installed_mlflow_is_of_a_known_revision(home: Path) -> None:
    assert revision(home / "mlflow.db") in KNOWN_REVISIONS, "run the contract test with it, and add it"


@pytest.mark.slow
def test_a_schema_that_changes_while_it_is_open_is_written_no_more(
    home: Path, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = store.create_experiment("changes", {})
    assert experiment is not None
    before = contents(home)
    monkeypatch.setattr(mlflow_sql, "KNOWN_REVISIONS", frozenset({"another"}))
    with pytest.raises(TrackingError, match="changed while it was open"):
        store.create_run(experiment, "r", 1, {})
    assert contents(home) == before


@pytest.mark.slow
def test_a_lock_is_waited_for_and_one_that_stays_is_said(
    home: Path, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(
        sqlite3.connect(home / "mlflow.db", isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, lambda: other.execute("ROLLBACK")).start()
        experiment = store.create_experiment("waits", {})
        assert experiment is not None
        monkeypatch.setattr(mlflow_sql, "BUSY_S", 0.05)
        impatient = sql_store(home)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TrackingError, match="database is locked"):
            impatient.create_run(experiment, "r", 1, {})
        other.execute("ROLLBACK")
        assert impatient.create_run(experiment, "r", 1, {}).run_id
        impatient.close()
    assert len(rows(home, "SELECT * FROM runs WHERE experiment_id = ?", int(experiment))) == 1


@pytest.mark.slow
def test_readers_see_all_of_a_run_or_nothing(home: Path, store: SqlStore) -> None:
    facts = make_facts("readers")
    experiment = store.create_experiment(facts.name, {})
    assert experiment is not None
    parent = store.create_run(experiment, facts.name, 1, {}).run_id
    wanted = [runs.trial_run(facts, record) for record in read(range(400))]
    query = """SELECT r.status, (SELECT count(*) FROM metrics m WHERE m.run_uuid = r.run_uuid),
                      (SELECT count(*) FROM params p WHERE p.run_uuid = r.run_uuid)
               FROM runs r WHERE r.experiment_id = ? AND r.run_uuid != ?"""
    expected = {(run.status, len(run.metrics), len(run.params)) for run in wanted}
    is_over, seen, n_looks = threading.Event(), set(), []

    def look() -> None:
        while not is_over.is_set():
            found = rows(home, query, int(experiment), parent)
            seen.update(found)
            n_looks.append(len(found))

    reader = threading.Thread(target=look)
    reader.start()
    for start in range(0, len(wanted), 8):
        work = [Work(run, None) for run in wanted[start : start + 8]]
        assert sum(map(len, store.write_trials(experiment, parent, work))) == 8
    is_over.set()
    reader.join()
    seen.update(rows(home, query, int(experiment), parent))
    assert seen == expected
    assert all(n % 8 == 0 for n in n_looks)


@pytest.mark.slow
def test_more_rows_than_one_statement_takes_are_written_by_several(home: Path, store: SqlStore) -> None:
    experiment = store.create_experiment("many", {})
    assert experiment is not None
    run_id = store.create_run(experiment, "r", 1, {}).run_id
    points = [runs.Metric("k", float(step), step, step) for step in range(12_345)]
    store.log(run_id, points)
    assert store.points([run_id], ["k"]) == {run_id: set(points)}
