import dataclasses
import math
import posixpath
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies import runs
from studies.records import COMPLETE, FAIL, PRUNED, EpochRecord, Objective, StudyFacts, TrialRecord

FACTS = StudyFacts(
    name="wine",
    uuid="0123456789abcdef" * 2,
    spec={"study": "wine", "budget": {"trials": 8}, "training": {"epochs": 3}, "long": "x" * 7000, "flags": [1, True]},
    objectives=(Objective("accuracy", "maximize"),),
    task="multiclass",
    curve_metric="accuracy",
    cohort_size=16,
    n_features=13,
    n_outputs=3,
    data_name="sklearn:wine",
    data_fingerprint="ab" * 32,
    environment={"torch": "2.13.0", "git_commit": "abc"},
    created_at=1_700_000_000.25,
)


def a_record(number: int = 7, **changes: object) -> TrialRecord:
    curve = tuple(EpochRecord(e, 1 / e, 1.5 / e, 1 - 0.5 / e, 0.1, 1_700_000_000.0 + e) for e in (1, 2, 3))
    record = TrialRecord(
        number=number,
        state=COMPLETE,
        hyperparameters={"depth": 2, "learning_rate": 0.1, "nesterov": True},
        searched=("depth",),
        cohort=1,
        n_parameters=99,
        values=(0.75,),
        curve=curve,
        best_epoch=3,
        started_at=1_700_000_000.0,
        finished_at=1_700_000_003.5,
        duration_s=3.5,
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def test_a_trial_shows_every_epoch_of_its_curves_once_at_its_own_time() -> None:
    run = runs.trial_run(FACTS, a_record())
    for key in ("train_loss", "val_loss", "val_accuracy", "learning_rate"):
        points = [point for point in run.metrics if point.key == key]
        assert [point.step for point in points] == [1, 2, 3]
        assert [point.timestamp for point in points] == [1_700_000_001_000, 1_700_000_002_000, 1_700_000_003_000]
    single = {point.key: point.value for point in run.metrics if point.step == 0}
    assert single["best_val_accuracy"] == 0.75
    assert single["n_parameters"] == 99
    assert "peak_memory_bytes" not in single
    assert run.params == {"depth": "2", "learning_rate": "0.1", "nesterov": "True"}
    assert (run.name, run.key) == ("trial-0007", f"{FACTS.uuid}:7")
    assert (run.start_ms, run.end_ms) == (1_700_000_000_000, 1_700_000_003_500)


def test_the_value_comes_first_then_single_numbers_then_curves() -> None:
    run = runs.trial_run(FACTS, a_record())
    keys = list(dict.fromkeys(point.key for point in run.metrics))
    assert keys[0] == "best_val_accuracy" and set(keys[-4:]) == {
        "train_loss", "val_loss", "val_accuracy", "learning_rate",
    }  # fmt: skip


@pytest.mark.parametrize(("state", "status"), [(COMPLETE, "FINISHED"), (PRUNED, "KILLED"), (FAIL, "FAILED")])
def test_each_state_has_its_status(state: str, status: str) -> None:
    run = runs.trial_run(FACTS, a_record(state=state, reason="why"))
    assert run.status == status
    assert run.tags["dlcore.state"] == state
    assert run.tags["dlcore.reason"] == "why"


def test_points_that_are_not_finite_are_left_out_and_named() -> None:
    curve = list(a_record().curve)
    curve[1] = dataclasses.replace(curve[1], train_loss=math.nan, val_loss=math.inf)
    run = runs.trial_run(FACTS, a_record(curve=tuple(curve), values=(-math.inf,)))
    assert all(math.isfinite(point.value) for point in run.metrics)
    assert [point.step for point in run.metrics if point.key == "train_loss"] == [1, 3]
    assert run.tags["dlcore.not_finite"] == "train_loss at 2; val_loss at 2; best_val_accuracy at 0"


def test_the_checksum_tells_other_contents_and_only_those() -> None:
    same = runs.trial_run(FACTS, a_record()).checksum
    assert runs.trial_run(FACTS, a_record()).checksum == same
    for change in (
        {"n_parameters": 98},
        {"state": PRUNED},
        {"finished_at": 1.7e9 + 9},
        {"reason": "x"},
        {"best_epoch": 2},
    ):
        assert runs.trial_run(FACTS, a_record(**change)).checksum != same, change


def test_a_study_of_the_loss_has_no_second_curve_of_it() -> None:
    facts = dataclasses.replace(FACTS, curve_metric="loss", objectives=(Objective("loss", "minimize"),))
    run = runs.trial_run(facts, a_record())
    assert len([point for point in run.metrics if point.key == "val_loss"]) == 3


def test_an_objective_that_is_also_a_fact_is_one_metric() -> None:
    facts = dataclasses.replace(
        FACTS, objectives=(Objective("accuracy", "maximize"), Objective("n_parameters", "minimize"))
    )
    run = runs.trial_run(facts, a_record(values=(0.75, 99.0)))
    assert [point.value for point in run.metrics if point.key == "n_parameters"] == [99.0]


def test_the_running_best_counts_trials_by_number_and_stops_at_a_gap() -> None:
    outcomes = {
        0: runs.Outcome(False, (0.99,), 10),
        1: runs.Outcome(True, (0.5,), 40),
        2: runs.Outcome(True, (0.4,), 20),
        3: runs.Outcome(True, (0.6,), 50),
        5: runs.Outcome(True, (0.9,), 60),
    }
    best = runs.RunningBest(FACTS.objectives)
    points = []
    for number in (1, 0, 5, 3, 2):
        best.add(number, outcomes[number])
        points += best.points()
    best.add(2, outcomes[2])  # a second time
    assert not list(best.points())
    assert [(point.step, point.value, point.timestamp) for point in points] == [
        (2, 0.5, 40),
        (3, 0.5, 40),
        (4, 0.6, 50),
    ]
    assert {point.key for point in points} == {"best_val_accuracy"}
    assert best.end_ms == 60
    downwards = runs.RunningBest((Objective("loss", "minimize"),))
    for number, outcome in outcomes.items():
        downwards.add(number, outcome)
    assert [point.value for point in downwards.points()] == [0.5, 0.4, 0.4]


def test_the_best_value_and_the_curve_have_different_names() -> None:
    run = runs.trial_run(FACTS, a_record(values=(0.9,)))
    assert [point.value for point in run.metrics if point.key == "best_val_accuracy"] == [0.9]
    assert runs.latest(run.metrics)["val_accuracy"].value == 1 - 0.5 / 3  # of the last epoch
    assert runs.value_key("loss") == "best_val_loss"
    assert runs.value_key("n_parameters") == "n_parameters"


def test_the_latest_point_is_the_last_by_step_then_time_then_value() -> None:
    points = [(1.0, 5, 2), (2.0, 9, 1), (3.0, 5, 2), (0.5, 4, 2)]
    latest = runs.latest([runs.Metric("loss", *point) for point in points])
    assert latest == {"loss": runs.Metric("loss", 3.0, 5, 2)}


def test_the_spec_is_flat_and_the_budget_which_may_be_raised_is_a_tag() -> None:
    params, tags = runs.study_params(FACTS), runs.study_tags(FACTS)
    assert params == {
        "study": "wine",
        "training.epochs": "3",
        "flags": "[1, true]",
        "objective": "maximize accuracy",
        "search.cohort": "16",
    }
    assert tags["dlcore.budget.trials"] == "8"
    assert tags["dlcore.study"] == FACTS.uuid
    assert tags["dlcore.git_commit"] == "abc"
    assert not any(key.startswith("mlflow.") for key in tags)


@given(st.text(max_size=400))
def test_any_text_becomes_a_key_that_mlflow_takes(text: str) -> None:
    key = runs.to_key(text)
    assert re.fullmatch(r"[/\w.\- :]+", key, re.ASCII)
    assert len(key) <= runs.KEY_LENGTH
    assert posixpath.normpath(key) == key != "."  # mlflow.utils.validation.path_not_unique
    assert not key.startswith((".", "/"))


def test_ordinary_keys_stay_as_they_are() -> None:
    for key in ("val_accuracy", "search_space.width.low", "dlcore.now.cohort"):
        assert runs.to_key(key) == key
