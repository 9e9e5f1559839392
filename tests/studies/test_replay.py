from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from studies.home import Home
from studies.records import TrialRecord
from studies.replay import NUDGES, replay_cohort, replay_trial
from studies.runner import Run
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import SMALL_SPEC, Lines

slow = pytest.mark.slow  # a whole study runs before them


@pytest.fixture
def run(finished_home: Home, display: Lines) -> Run:
    return Run(spec_from_dict(SMALL_SPEC), finished_home, Storage(finished_home.database_url), display)


def forged(trial: TrialRecord, epoch: int, by: float) -> TrialRecord:
    point = trial.curve[epoch - 1]
    curve = [*trial.curve]
    curve[epoch - 1] = replace(point, val_loss=point.val_loss + by)
    return replace(trial, curve=tuple(curve))


@slow
def test_every_trial_gives_its_recorded_curve(run: Run) -> None:
    for trial in run.storage.records("wine", has_curves=True):
        verdict = replay_trial(trial, run.trainer)
        assert verdict.is_equal, verdict.text
        assert "came out again" in verdict.text


@slow
def test_a_forged_point_of_a_stable_curve_is_found_with_its_epoch(run: Run) -> None:
    trial = run.storage.records("wine", has_curves=True)[0]
    verdict = replay_trial(forged(trial, 2, 0.01), run.trainer)
    assert not verdict.is_equal and "differ from epoch 2 on" in verdict.text
    assert replay_trial(forged(trial, 2, 1e-7), run.trainer).is_equal


@slow
def test_a_curve_of_another_length_is_found(run: Run) -> None:
    trial = run.storage.records("wine", has_curves=True)[0]
    stopped = replace(trial, curve=(*trial.curve, *trial.curve, *trial.curve))
    assert not replay_trial(stopped, run.trainer).is_equal


@slow
def test_a_cohort_comes_out_again_bit_for_bit(run: Run) -> None:
    trials = run.storage.records("wine", has_curves=True)
    for trial in (trials[0], trials[-1]):
        verdict = replay_cohort(trial, trials, run.facts, run.trainer)
        assert verdict.is_equal and "all 3 trials" in verdict.text


@slow
def test_the_smallest_difference_in_a_cohort_is_found_and_explained(run: Run) -> None:
    trials = run.storage.records("wine", has_curves=True)
    trials[1] = forged(trials[1], 1, 2**-40)
    verdict = replay_cohort(trials[0], trials, run.facts, run.trainer)
    assert not verdict.is_equal and "1 of 3 trials differ (trial 1 the first)" in verdict.text
    elsewhere = replace(run.facts, environment={**run.facts.environment, "torch": "1.0"})
    assert "torch 1.0 ->" in replay_cohort(trials[0], trials, elsewhere, run.trainer).text


class Stand:
    """A trainer whose curve differs from the recorded one at epoch 2, and there moves by one of its nudges alone."""

    def __init__(self, parting: int | None, by: float) -> None:
        self.parting, self.by, self.asked = parting, by, list[int | None]()

    def retrain(self, trial: TrialRecord, *, nudged: int | None = None) -> list[SimpleNamespace]:
        self.asked.append(nudged)
        again = [SimpleNamespace(train_loss=e.train_loss, val_loss=e.val_loss) for e in trial.curve]
        again[1].val_loss += self.by + (0.01 if nudged is not None and nudged == self.parting else 0.0)
        return again


@pytest.mark.parametrize("parting", [0, 2, NUDGES - 1])
def test_a_kink_that_one_nudge_misses_is_no_forgery(make_trial: Callable[..., TrialRecord], parting: int) -> None:
    stand = Stand(parting, 0.01)
    verdict = replay_trial(make_trial(0), stand)  # type: ignore[arg-type]
    assert verdict.is_equal and "leaves 1 of 3 epochs" in verdict.text
    assert stand.asked == [None, *range(parting + 1)], "none after the one that parts"


def test_a_record_that_no_nudge_excuses_is_wrong_and_one_that_agrees_costs_one(
    make_trial: Callable[..., TrialRecord],
) -> None:
    wrong, right = Stand(None, 0.01), Stand(None, 0.0)
    verdict = replay_trial(make_trial(0), wrong)  # type: ignore[arg-type]
    assert not verdict.is_equal and "differ from epoch 2 on" in verdict.text
    assert wrong.asked == [None, *range(NUDGES)]
    assert replay_trial(make_trial(0), right).is_equal and right.asked == [None, 0]  # type: ignore[arg-type]
