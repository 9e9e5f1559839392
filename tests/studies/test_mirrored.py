"""A second run of one trial, however it came about: it is found, and one run is left, which is the true one."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from studies import server
from studies.comparison import compare
from studies.records import StudyFacts, TrialRecord
from studies.runs import KEY, MARK, PARENT, STUDY
from studies.tracking import Mirror
from studies.tracking_store import FoundRun, TrackingStore
from tests.studies.mirror_tools import (
    PATIENCE_S,
    PORT,
    Connect,
    assert_complete,
    change,
    connecting,
    contents,
    mirrored,
    post,
    read,
    rows,
    run_of,
    sql_store,
    wait_until,
)

pytestmark = pytest.mark.slow
N_TRIALS = 3
FIRST, LAST = "0-", "zz"
"""Beginnings of ids before and after all that MLflow makes, of hexadecimal digits."""


def address_of(home: Path) -> str:
    return server.find_or_start(home, port=PORT, timeout_s=PATIENCE_S).address


def note(home: Path, run_id: str) -> None:
    """What a person writes to a run."""
    change(home, "INSERT INTO tags (key, value, run_uuid) VALUES ('mlflow.note.content', 'mine', ?)", run_id)


def differences(connect: Connect, facts: StudyFacts, n_trials: int = N_TRIALS) -> list[tuple[str, int | None]]:
    """What the doctor finds in MLflow: its kind, and the trial."""
    store = connect()
    try:
        return [(difference.kind, difference.number) for difference in compare(store, facts, range(n_trials), read)]
    finally:
        store.close()


@dataclass(frozen=True)
class Double:
    """How a second run differs from the first."""

    columns: dict[str, str] = field(default_factory=dict)
    """Columns of its row -> SQL."""
    tags: str = "1"
    """Which tags it has, in SQL."""
    is_filled: bool = True
    """Whether it has params and points."""
    more: tuple[str, ...] = ()
    """Statements in which NEW is its id."""

    def of(self, home: Path, run: str, prefix: str) -> str:
        """Copy a run; ids that begin with another prefix stand before or after it."""
        new = prefix + run[2:]
        columns = [str(row[1]) for row in rows(home, "PRAGMA table_info(runs)")]
        taken = ", ".join(self.columns.get(name, name) for name in columns if name != "run_uuid")
        names = ", ".join(name for name in columns if name != "run_uuid")
        change(home, f"INSERT INTO runs (run_uuid, {names}) SELECT '{new}', {taken} FROM runs WHERE run_uuid = '{run}'")
        tables = {"tags": self.tags} | (
            dict.fromkeys(("params", "metrics", "latest_metrics"), "1") if self.is_filled else {}
        )
        for table, which in tables.items():
            columns = [str(row[1]) for row in rows(home, f"PRAGMA table_info({table})")]
            names = ", ".join(name for name in columns if name != "run_uuid")
            query = f"INSERT INTO {table} (run_uuid, {names}) SELECT '{new}', {names} FROM {table}"
            change(home, f"{query} WHERE run_uuid = '{run}' AND {which}")
        for statement in self.more:
            change(home, statement.replace("NEW", f"'{new}'"))
        return new


BEGUN = {"status": "'RUNNING'", "end_time": "NULL"}
DOUBLES = {
    "identical": Double(),
    "of a repeated request": Double(BEGUN, is_filled=False),
    "half written": Double(BEGUN, more=("DELETE FROM metrics WHERE run_uuid = NEW AND step > 1",)),
    "begun by a person": Double(BEGUN, tags=f"key IN ('{KEY}', 'mlflow.runName')", is_filled=False),
    "copied without its points": Double(is_filled=False),
    "copied with another param": Double(more=("UPDATE params SET value = '9' WHERE run_uuid = NEW AND key = 'depth'",)),
    "copied with one point more": Double(
        more=(
            "INSERT INTO metrics SELECT key, 9, timestamp, run_uuid, 99, 0 FROM metrics WHERE run_uuid = NEW LIMIT 1",
        )
    ),
    "older": Double({"start_time": "start_time - 1000"}),
    "newer": Double({"start_time": "start_time + 1000", "end_time": "end_time + 1000"}),
    "failed": Double({"status": "'FAILED'"}),
    "of another study's run": Double(
        more=(f"UPDATE tags SET value = '{'0' * 32}' WHERE run_uuid = NEW AND key = '{PARENT}'",)
    ),
    "without its mark": Double(tags=f"key != '{MARK}'"),
}


@pytest.mark.parametrize("prefix", [FIRST, LAST], ids=["first", "last"])
@pytest.mark.parametrize("is_thorough", [False, True], ids=["resume", "repair"])
def test_of_doubled_runs_the_true_one_is_left(
    home: Path, facts: StudyFacts, connect: Connect, prefix: str, is_thorough: bool
) -> None:
    n = len(DOUBLES)
    mirrored(lambda: sql_store(home), facts, n)
    true = [run_of(home, facts, number) for number in range(n)]
    for run_id, double in zip(true, DOUBLES.values(), strict=True):
        double.of(home, run_id, prefix)
        note(home, run_id)
    found = [number for kind, number in differences(connect, facts, n) if kind == "doubled run"]
    assert found == list(range(n))
    mirrored(connect, facts, n, is_thorough=is_thorough)
    assert differences(connect, facts, n) == []
    kept = {name: run_of(home, facts, number) for number, name in enumerate(DOUBLES)}
    assert kept == dict(zip(DOUBLES, true, strict=True))  # of identical ones, that which somebody wrote a note on
    before = contents(home)
    for way in (False, True):
        mirrored(connect, facts, n, is_thorough=way)
    assert contents(home) == before
    # Nor does another come back in the place of a true one that a person deletes.
    for run_id in true:
        post(address_of(home), "runs/delete", run_id=run_id)
    mirrored(connect, facts, n)
    assert [run_of(home, facts, number) for number in range(n)] == true
    assert differences(connect, facts, n) == []


def test_the_one_run_that_is_left_is_made_true_where_none_is(home: Path, facts: StudyFacts, connect: Connect) -> None:
    mirrored(lambda: sql_store(home), facts, N_TRIALS)
    true = run_of(home, facts, 1)
    for prefix in (FIRST, LAST, "m-"):
        DOUBLES["copied with another param"].of(home, true, prefix)
    change(home, "UPDATE params SET value = '7' WHERE run_uuid = ? AND key = 'depth'", true)
    mirrored(connect, facts, N_TRIALS)  # without being asked to compare
    assert_complete(home, facts, N_TRIALS)
    assert differences(connect, facts) == []


def test_doubles_that_are_deleted_are_nobodys_business(home: Path, facts: StudyFacts, connect: Connect) -> None:
    mirrored(lambda: sql_store(home), facts, N_TRIALS)
    for number, name in enumerate(("identical", "half written", "newer")):
        new = DOUBLES[name].of(home, run_of(home, facts, number), FIRST)
        change(home, "UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = 1 WHERE run_uuid = ?", new)
    assert differences(connect, facts) == []
    before = contents(home)
    for is_thorough in (False, True):
        mirrored(connect, facts, N_TRIALS, is_thorough=is_thorough)
    assert contents(home) == before


def test_of_all_deleted_runs_of_a_trial_the_true_one_comes_back(
    home: Path, facts: StudyFacts, connect: Connect
) -> None:
    mirrored(lambda: sql_store(home), facts, N_TRIALS)
    true = run_of(home, facts, 1)
    copies = [DOUBLES["copied with another param"].of(home, true, prefix) for prefix in (FIRST, LAST)]
    for run_id in (true, *copies):
        change(home, "UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = 1 WHERE run_uuid = ?", run_id)
    mirrored(connect, facts, N_TRIALS)
    assert run_of(home, facts, 1) == true
    assert_complete(home, facts, N_TRIALS)


def test_more_doubled_trials_than_are_read_at_a_time(home: Path, facts: StudyFacts) -> None:
    connect, n = connecting(home, "sql"), 130
    mirrored(connect, facts, n)
    true = [run_of(home, facts, number) for number in range(n)]
    for run_id in true:
        DOUBLES["copied without its points"].of(home, run_id, FIRST)
    mirrored(connect, facts, n)
    assert [run_of(home, facts, number) for number in range(n)] == true
    assert differences(connect, facts, n) == []


def test_a_double_that_comes_late_is_gone_when_the_study_ends(home: Path, facts: StudyFacts, connect: Connect) -> None:
    """A request without a reply may be carried out after the trial got its run by another."""
    is_failing = threading.Event()

    def reading(numbers: Sequence[int]) -> list[TrialRecord]:
        if is_failing.is_set():
            is_failing.clear()
            raise RuntimeError("once")
        return read(numbers)

    mirror = Mirror(connect, facts, reading)
    mirror.start()
    try:
        is_failing.set()
        mirror.put(range(N_TRIALS))
        wait_until(lambda: mirror.pending == 0, PATIENCE_S)
        best = "SELECT 1 FROM metrics WHERE run_uuid = ?"  # written after the trials
        wait_until(lambda: bool(rows(home, best, str(mirror.parent_run_id))), PATIENCE_S)
        true = run_of(home, facts, 1)
        DOUBLES["copied without its points"].of(home, true, FIRST)
        DOUBLES["identical"].of(home, str(mirror.parent_run_id), FIRST)
        assert mirror.finish("FINISHED", PATIENCE_S), mirror.error
    finally:
        mirror.close()
    assert run_of(home, facts, 1) == true
    assert differences(connect, facts) == []
    assert_complete(home, facts, N_TRIALS)


@pytest.mark.parametrize("ways", [("rest", "rest"), ("sql", "sql"), ("rest", "sql")], ids="-".join)
def test_mirrors_that_race_leave_one_run_of_each_trial(home: Path, facts: StudyFacts, ways: tuple[str, str]) -> None:
    n = 12
    mirrors = [Mirror(connecting(home, way), facts, read) for way in ways for _ in range(2)]
    for mirror in mirrors:
        mirror.start()
    for number in range(n):
        for mirror in mirrors:
            mirror.put([number])
    for mirror in mirrors:
        assert mirror.finish("FINISHED", PATIENCE_S), mirror.error
        mirror.close()
    connect = connecting(home, ways[1])
    for is_thorough in (False, True):  # what is doubled goes, and nothing is made in its place
        mirrored(connect, facts, n, is_thorough=is_thorough)
        assert_complete(home, facts, n)
    assert differences(connect, facts, n) == []


def test_a_run_that_is_read_twice_is_one(home: Path, facts: StudyFacts, connect: Connect) -> None:
    """While others write, the next page of a server may begin with what the last one ended with."""
    mirrored(connect, facts, N_TRIALS)

    def stuttering() -> TrackingStore:
        store = connect()
        whole = store.runs

        def runs(experiment_id: str, run_ids: Sequence[str] | None = None, **more: Any) -> Iterator[FoundRun]:
            for run in whole(experiment_id, run_ids, **more):
                yield from [run] * (1 if run_ids is not None else 2)

        store.runs = runs  # type: ignore[method-assign]
        return store

    before = contents(home)
    assert differences(stuttering, facts) == []
    for is_thorough in (False, True):
        mirrored(stuttering, facts, N_TRIALS, is_thorough=is_thorough)
    assert contents(home) == before


# ---- the same trials in two experiments


def test_an_experiment_that_people_rename_is_still_the_studys(home: Path, facts: StudyFacts, connect: Connect) -> None:
    experiment = mirrored(connect, facts, 1).experiment_id
    post(address_of(home), "experiments/update", experiment_id=experiment, new_name=f"mine {facts.name} {uuid4()}")
    assert mirrored(connect, facts, N_TRIALS).experiment_id == experiment
    assert_complete(home, facts, N_TRIALS)
    assert differences(connect, facts) == []


def test_a_name_that_becomes_free_makes_no_second_experiment(home: Path, facts: StudyFacts, connect: Connect) -> None:
    others = post(address_of(home), "experiments/create", name=facts.name)["experiment_id"]
    experiment = mirrored(connect, facts, 1).experiment_id
    post(address_of(home), "experiments/update", experiment_id=others, new_name=f"other {uuid4()}")
    assert experiment != others and mirrored(connect, facts, N_TRIALS).experiment_id == experiment
    assert_complete(home, facts, N_TRIALS)


def test_a_second_experiment_of_a_study_is_found_and_deleted_by_a_repair(
    home: Path, facts: StudyFacts, connect: Connect
) -> None:
    experiment = mirrored(connect, facts, N_TRIALS).experiment_id
    tags = [{"key": STUDY, "value": facts.uuid}]
    copy = post(address_of(home), "experiments/create", name=f"copy {uuid4()}", tags=tags)["experiment_id"]
    key = [{"key": KEY, "value": f"{facts.uuid}:1"}]
    post(address_of(home), "runs/create", experiment_id=copy, start_time=1, tags=key)
    assert differences(connect, facts) == [("doubled experiment", None)]
    assert mirrored(connect, facts, N_TRIALS).experiment_id == experiment
    assert differences(connect, facts) == [("doubled experiment", None)]  # only who is asked to mend deletes it
    assert mirrored(connect, facts, N_TRIALS, is_thorough=True).experiment_id == experiment
    assert differences(connect, facts) == []
    assert_complete(home, facts, N_TRIALS)
    (row,) = rows(home, "SELECT lifecycle_stage FROM experiments WHERE experiment_id = ?", copy)
    assert row == ("deleted",)
