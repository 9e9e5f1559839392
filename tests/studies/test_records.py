"""studies.records: rows that know their best point, and objectives that know what is better."""

import dataclasses
import math

import pytest

from studies.records import FINISHED_STATES, STATES, EpochRecord, Objective, Suggestion, TrialRecord


def trial(**facts: object) -> TrialRecord:
    return TrialRecord(3, "COMPLETE", {"width": 8}, ("width",), 0, 99, **facts)  # type: ignore[arg-type]


def epoch(number: int) -> EpochRecord:
    return EpochRecord(number, 1.0, 2.0, 0.5 + number / 10, 0.1, 1000.0 + number)


def test_better_is_strictly_better() -> None:
    up, down = Objective("accuracy", "maximize"), Objective("rmse", "minimize")

    assert up.is_better(2.0, 1.0)
    assert down.is_better(1.0, 2.0)
    assert not up.is_better(1.0, 2.0)
    assert not down.is_better(2.0, 1.0)
    assert not up.is_better(1.0, 1.0)
    assert not down.is_better(1.0, 1.0)
    assert not up.is_better(math.nan, 1.0)


def test_the_value_of_a_trial_is_its_first_objectives() -> None:
    assert trial(values=(0.9, 100.0)).value == 0.9
    assert trial(values=(0.0,)).value == 0.0
    assert trial().value is None


def test_the_best_point_of_a_curve_counts_epochs_from_one() -> None:
    curve = (epoch(1), epoch(2), epoch(3))

    assert trial(curve=curve, best_epoch=1).best == curve[0]
    assert trial(curve=curve, best_epoch=3).best == curve[2]
    assert trial(curve=curve).best is None


@pytest.mark.parametrize("record", [trial(), Suggestion(0, {}, ()), epoch(1), Objective("loss", "minimize")])
def test_records_do_not_change(record: object) -> None:
    field = dataclasses.fields(record)[0].name  # type: ignore[arg-type]

    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, field, None)


def test_states_are_optunas_five() -> None:
    from optuna.trial import TrialState

    assert set(STATES) == {state.name for state in TrialState}
    assert set(FINISHED_STATES) == {state.name for state in TrialState if state.is_finished()}
