"""Each fault in MLflow's database is found under its name, and mended by the next thorough run of the mirror."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from studies import runs
from studies.comparison import Difference, compare, run_differences
from studies.records import StudyFacts
from studies.tracking_store import FoundRun
from tests.studies.mirror_tools import (
    TRANSPORTS,
    Connect,
    a_record,
    assert_complete,
    change,
    connecting,
    contents,
    make_facts,
    mirrored,
    parents,
    read,
    rows,
    run_of,
    sql_store,
)

N_TRIALS = 3
Fault = Callable[[Path, str, str], None]
"""Takes a home, the run of trial 1 and the run of the study."""


def executing(*queries: str) -> Fault:
    """Queries in which RUN and PARENT are ids."""

    def fault(home: Path, run: str, parent: str) -> None:
        for query in queries:
            change(home, query.replace("RUN", f"'{run}'").replace("PARENT", f"'{parent}'"))

    return fault


def erasing(run: str) -> Fault:
    tables = ("tags", "params", "metrics", "latest_metrics", "runs")
    return executing(*(f"DELETE FROM {table} WHERE run_uuid = {run}" for table in tables))


def copying(run: str) -> Fault:
    names = "name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, source_version, "
    names += "lifecycle_stage, artifact_uri, experiment_id, deleted_time"
    return executing(
        f"INSERT INTO runs (run_uuid, {names}) SELECT 'zz' || substr(run_uuid, 3), {names} FROM runs "
        f"WHERE run_uuid = {run}",
        "INSERT INTO tags (key, value, run_uuid) SELECT key, value, 'zz' || substr(run_uuid, 3) FROM tags "
        f"WHERE run_uuid = {run} AND key LIKE 'dlcore.%'",
    )


FAULTS: dict[str, tuple[set[str], Fault]] = {
    "run erased": ({"missing run"}, erasing("RUN")),
    "run deleted": ({"missing run"}, executing("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = RUN")),
    "run doubled": ({"doubled run", "missing param", "missing points", "wrong tag"}, copying("RUN")),
    "run of no trial": (
        {"orphan run", "missing run"},
        executing("UPDATE tags SET value = replace(value, ':1', ':99') WHERE run_uuid = RUN AND key = 'dlcore.key'"),
    ),
    "child without a key": (
        {"orphan run", "missing run"},
        executing("DELETE FROM tags WHERE run_uuid = RUN AND key = 'dlcore.key'"),
    ),
    "status": ({"wrong state"}, executing("UPDATE runs SET status = 'FINISHED' WHERE run_uuid = RUN")),
    "end": ({"wrong state"}, executing("UPDATE runs SET end_time = 7 WHERE run_uuid = RUN")),
    "start": ({"wrong run"}, executing("UPDATE runs SET start_time = 7 WHERE run_uuid = RUN")),
    "name": ({"wrong run"}, executing("UPDATE runs SET name = 'x' WHERE run_uuid = RUN")),
    "param gone": ({"missing param"}, executing("DELETE FROM params WHERE run_uuid = RUN AND key = 'depth'")),
    "param": ({"wrong param"}, executing("UPDATE params SET value = '9' WHERE run_uuid = RUN AND key = 'depth'")),
    "one more param": ({"extra param"}, executing("INSERT INTO params (key, value, run_uuid) VALUES ('x', 'y', RUN)")),
    "tag gone": ({"missing tag"}, executing("DELETE FROM tags WHERE run_uuid = RUN AND key = 'dlcore.state'")),
    "mark gone": ({"missing tag"}, executing("DELETE FROM tags WHERE run_uuid = RUN AND key = 'dlcore.mirrored'")),
    "tag": ({"wrong tag"}, executing("UPDATE tags SET value = 'x' WHERE run_uuid = RUN AND key = 'dlcore.state'")),
    "one more tag": (
        {"extra tag"},
        executing("INSERT INTO tags (key, value, run_uuid) VALUES ('dlcore.x', 'y', RUN)"),
    ),
    "parent": (
        {"wrong tag"},
        executing("UPDATE tags SET value = 'x' WHERE run_uuid = RUN AND key = 'mlflow.parentRunId'"),
    ),
    "point gone": (
        {"missing points"},
        executing("DELETE FROM metrics WHERE run_uuid = RUN AND key = 'val_loss' AND step = 2"),
    ),
    "last point gone": (
        {"missing points", "wrong latest"},
        executing("DELETE FROM metrics WHERE run_uuid = RUN AND key = 'val_loss' AND step = 5"),
    ),
    "point": (
        {"missing points", "extra points"},
        executing("UPDATE metrics SET value = 9 WHERE run_uuid = RUN AND key = 'val_loss' AND step = 2"),
    ),
    "point that is no number": (
        {"missing points", "extra points"},
        executing("UPDATE metrics SET value = 0, is_nan = 1 WHERE run_uuid = RUN AND key = 'val_loss' AND step = 2"),
    ),
    "time of a point": (
        {"missing points", "extra points"},
        executing("UPDATE metrics SET timestamp = 9 WHERE run_uuid = RUN AND key = 'val_loss' AND step = 2"),
    ),
    "one more point": (
        {"extra points"},
        executing("INSERT INTO metrics SELECT key, 9, timestamp, run_uuid, step - 1, 0 FROM metrics WHERE "
                  "run_uuid = RUN AND key = 'val_loss' AND step = 4"),
    ),
    "latest": (
        {"wrong latest"},
        executing("UPDATE latest_metrics SET value = 9 WHERE run_uuid = RUN AND key = 'best_val_accuracy'"),
    ),
    "all metrics gone": (
        {"missing points"},
        executing("DELETE FROM metrics WHERE run_uuid = RUN", "DELETE FROM latest_metrics WHERE run_uuid = RUN"),
    ),
    "study's run erased": ({"missing run", "wrong tag"}, erasing("PARENT")),
    "study's run doubled": ({"doubled run", "missing param", "missing points"}, copying("PARENT")),
    "study's param": (
        {"wrong param"},
        executing("UPDATE params SET value = '9' WHERE run_uuid = PARENT AND key = 'study'"),
    ),
    "study's param gone": (
        {"missing param"},
        executing("DELETE FROM params WHERE run_uuid = PARENT AND key = 'study'"),
    ),
    "study's tag": (
        {"wrong tag"},
        executing("UPDATE tags SET value = '9' WHERE run_uuid = PARENT AND key = 'dlcore.task'"),
    ),
    "tag of a running cohort": (
        {"extra tag"},
        executing("INSERT INTO tags (key, value, run_uuid) VALUES ('dlcore.now.cohort', '3', PARENT)"),
    ),
    "running best gone": ({"missing points"}, executing("DELETE FROM metrics WHERE run_uuid = PARENT AND step = 2")),
    "running best": (
        {"missing points", "extra points"},
        executing("UPDATE metrics SET value = 9 WHERE run_uuid = PARENT AND step = 2"),
    ),
    "experiment deleted": (
        {"missing experiment"},
        executing("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE experiment_id = "
                  "(SELECT experiment_id FROM runs WHERE run_uuid = RUN)"),
    ),
    "experiment of somebody else": (
        {"missing experiment"},
        executing("UPDATE experiment_tags SET value = 'x' WHERE experiment_id = "
                  "(SELECT experiment_id FROM runs WHERE run_uuid = RUN)"),
    ),
}  # fmt: skip


def found_by(connect: Connect, facts: StudyFacts, n_trials: int = N_TRIALS) -> list[Difference]:
    store = connect()
    try:
        return compare(store, facts, range(n_trials), read)
    finally:
        store.close()


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_mended(home: Path, name: str, transport: str) -> None:
    facts, (kinds, fault) = make_facts(f"{name} {transport}"), FAULTS[name]
    mirror = mirrored(lambda: sql_store(home), facts, N_TRIALS)
    connect = connecting(home, transport)
    assert found_by(connect, facts) == []
    assert mirror.parent_run_id is not None
    fault(home, run_of(home, facts, 1), mirror.parent_run_id)
    found = found_by(connect, facts)
    assert {difference.kind for difference in found} == kinds, found
    assert all(difference.number in (None, 1, 99) for difference in found) or name == "study's run erased"
    assert all(str(difference) for difference in found)
    mirrored(connect, facts, N_TRIALS, is_thorough=True)
    assert found_by(connect, facts) == []
    if not name.startswith("experiment"):
        assert_complete(home, facts, N_TRIALS)
    before = contents(home)
    mirrored(connect, facts, N_TRIALS, is_thorough=True)
    assert contents(home) == before


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_others_add_is_left_alone_and_survives_a_replacement(home: Path, transport: str) -> None:
    facts = make_facts(f"notes {transport}")
    mirror = mirrored(lambda: sql_store(home), facts, N_TRIALS)
    run_id, parent = run_of(home, facts, 1), mirror.parent_run_id
    for run in (run_id, parent):
        change(home, "INSERT INTO tags (key, value, run_uuid) VALUES ('mlflow.note.content', 'mine', ?)", run)
    change(home, "INSERT INTO metrics VALUES ('test_accuracy', 0.5, 1, ?, 0, 0)", parent)
    change(home, "INSERT INTO latest_metrics VALUES ('test_accuracy', 0.5, 1, 0, 0, ?)", parent)
    connect = connecting(home, transport)
    assert found_by(connect, facts) == []
    change(home, "UPDATE params SET value = '9' WHERE run_uuid = ? AND key = 'depth'", run_id)
    change(home, "UPDATE metrics SET value = 9 WHERE run_uuid = ? AND step = 2", parent)
    mirrored(connect, facts, N_TRIALS, is_thorough=True)
    assert found_by(connect, facts) == []
    (new_parent,) = parents(home, facts)
    assert run_of(home, facts, 1) != run_id and new_parent != parent
    for run in (run_of(home, facts, 1), new_parent):
        query = "SELECT value FROM tags WHERE run_uuid = ? AND key = 'mlflow.note.content'"
        assert rows(home, query, run) == [("mine",)]
    query = "SELECT value, timestamp FROM metrics WHERE run_uuid = ? AND key = 'test_accuracy'"
    assert rows(home, query, new_parent) == [(0.5, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_study_that_was_never_mirrored_or_only_in_part_is_said(home: Path, transport: str) -> None:
    facts, connect = make_facts(f"part {transport}"), connecting(home, transport)
    (found,) = found_by(connect, facts)
    assert str(found) == "the study: missing experiment: there is none"
    mirrored(connect, facts, 2)
    found_later = found_by(connect, facts, 150)  # more than are compared at a time
    missing = [difference.number for difference in found_later if difference.kind == "missing run"]
    assert missing == list(range(2, 150))
    assert {difference.kind for difference in found_later} == {"missing run", "missing points"}
    assert [difference.number for difference in found_later if difference.kind == "missing points"] == [None]


def test_a_run_that_is_right_has_no_differences_and_each_is_said_in_one_line() -> None:
    facts = make_facts("pure")
    wanted = runs.trial_run(facts, a_record(1))
    tags = {**wanted.all_tags("parent"), "mlflow.runName": wanted.name, "mine": "x"}
    latest = runs.latest(wanted.metrics)
    run = FoundRun(
        "r", wanted.name, wanted.status, wanted.start_ms, wanted.end_ms, False, "", tags, dict(wanted.params), latest
    )
    points = set(wanted.metrics)
    assert not list(run_differences(wanted, run, points))
    wrong = dataclasses.replace(run, status="RUNNING", end_ms=0)
    (found,) = run_differences(wanted, wrong, points)
    assert str(found) == f"trial 1: wrong state: KILLED at {wanted.end_ms}; it is RUNNING at 0"
    lost = {point for point in points if not (point.key == "val_loss" and point.step in (2, 3))}
    (found,) = run_differences(wanted, run, lost)
    assert str(found) == "trial 1: missing points: val_loss at 2, 3"
