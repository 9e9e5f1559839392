import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from studies import tally
from studies.closing import FRESH, Backlog, Closing
from studies.pace import weight
from studies.records import CUT, FAIL, PRUNED, WAITING, EpochDone, EpochRecord, Objective, StudyFacts, TrialRecord
from studies.spec import spec_from_dict
from studies.tally import Prospect, Tally, format_value, hyperparameters_line, told_apart_by

EPOCH = EpochDone(4, EpochRecord(7, 0.5, 0.25, 0.875, 0.05, 1.0))
Facts = Callable[..., StudyFacts]
Make = Callable[..., TrialRecord]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_tally_counts_what_earlier_runs_finished_but_not_in_its_rate(make_facts: Facts, make_trial: Make) -> None:
    earlier = [make_trial(0, 0.75), make_trial(1, 0.5, PRUNED), make_trial(2, None, WAITING)]
    clock = Clock()
    found = Tally(make_facts(), 8, 40, earlier, clock=clock)
    assert (found.n_done, found.trials_per_s) == (2, 0)
    assert found.line() == "2/8 trials, 1 pruned, 0 failed, best accuracy 0.7500 (trial 0)"
    clock.now += 4
    found.add_trials([make_trial(2, 0.875), make_trial(3, None, FAIL)])
    assert found.line() == "4/8 trials, 1 pruned, 1 failed, best accuracy 0.8750 (trial 2), 0.5 trials/s, 8 s left"


def test_a_budget_without_a_number_of_trials_has_no_time_left_but_a_deadline(
    make_facts: Facts, make_trial: Make
) -> None:
    clock = Clock()
    for deadline, ending in ((None, "trials/s"), (160.0, "trials/s, 59 s left")):
        clock.now = 100.0
        found = Tally(make_facts(), None, 40, [], Prospect(deadline), clock=clock)
        clock.now = 101.0
        found.add_trials([make_trial(0)])
        assert found.line().startswith("1 trials, ") and found.line().endswith(ending)


def test_the_nearer_end_is_the_one_that_is_told(make_facts: Facts, make_trial: Make) -> None:
    clock = Clock()
    found = Tally(make_facts(), 100, 40, [], Prospect(103.0), clock=clock)
    clock.now = 101.0
    found.add_trials([make_trial(0)])
    assert found.seconds_left == 2.0


def test_what_comes_after_the_search_is_told_with_it_and_grows_less_from_its_end_on(
    make_facts: Facts, make_trial: Make
) -> None:
    clock = Clock()
    up: list[float | None] = [None]
    closing = Closing(1, 5, False, 100, 10, 1, True, 0.001)
    prospect = Prospect(weigh=lambda hyperparameters: 2.0, closing=closing, up_at=lambda: up[0])
    found, alone = (Tally(make_facts(), 32, 40, [], p, clock=clock) for p in (prospect, Prospect()))
    clock.now += 16
    for one in (found, alone):
        one.add_trials([make_trial(n, n / 16) for n in range(16)])
    search_s, cold_s = alone.seconds_left, found.seconds_left
    up[0] = clock.now
    whole_s = found.seconds_left
    assert search_s == 16 and cold_s is not None and whole_s is not None
    # Five networks as those of the search, a cohort of them for the export, and what is not training.
    after_s = 5 * FRESH + 16 + closing.export_s() + closing.whole_s(0, 0, 0, 0, 16)
    assert whole_s == pytest.approx(16 + after_s) and cold_s >= whole_s
    clock.now += 16
    found.add_trials([make_trial(n, n / 32) for n in range(16, 32)])
    found.searched()
    clock.now += 4
    assert found.seconds_left == pytest.approx(after_s - 4)
    clock.now += 1_000
    assert found.seconds_left == 0


def test_registration_begins_when_a_server_came_up_that_the_search_did_not_wait_for(
    make_facts: Facts, make_trial: Make
) -> None:
    clock = Clock()
    up: list[float | None] = [None]
    closing = Closing(1, 0, False, 100, 10, 1, True, 0.001)
    found = Tally(make_facts(), 16, 40, [], Prospect(closing=closing, up_at=lambda: up[0]), clock=clock)
    clock.now += 16
    found.add_trials([make_trial(n, n / 16) for n in range(16)])
    found.searched()
    clock.now += 100
    registered_s = closing.whole_s(0, 0, 0, 0, 116)
    assert registered_s > 10 * closing.whole_s(
        0, 0, 0, 0
    )  # the server took much longer than foretold, and so will this
    assert found.seconds_left == pytest.approx(registered_s)  # and later than foretold, it is not up yet
    up[0] = clock.now
    assert found.seconds_left == pytest.approx(registered_s)
    clock.now += registered_s / 2
    assert found.seconds_left == pytest.approx(registered_s / 2)


def test_trials_that_mlflow_takes_slowly_are_waited_for(make_facts: Facts, make_trial: Make) -> None:
    clock, pending = Clock(), [12]
    closing = Closing(1, 0, False, 100, 10, 1, True, 0.001)
    slow = Prospect(closing=closing, backlog=lambda: Backlog(pending[0], 10.0, 0.25))
    found, quick = (Tally(make_facts(), 32, 40, [], p, clock=clock) for p in (slow, Prospect(closing=closing)))
    clock.now += 16
    for one in (found, quick):
        one.add_trials([make_trial(n, n / 16) for n in range(16)])
    assert found.seconds_left is not None and quick.seconds_left is not None
    here_s = 32 + closing.export_s()  # the other cohort, and one for the export
    assert found.seconds_left - quick.seconds_left == pytest.approx((12 + 16) * 10 - here_s / 4)
    found.searched()
    left = found.seconds_left
    assert left is not None
    clock.now += 20
    pending[0] -= 2  # so many were written meanwhile, and are not taken off twice
    assert found.seconds_left == pytest.approx(left - 20)


def test_seconds_that_are_granted_are_not_made_more_by_a_server_that_starts(
    make_facts: Facts, make_trial: Make
) -> None:
    clock = Clock()
    told: list[float | None] = []
    closing = Closing(1, 0, False, 100, 10, 1, True, 0.01)
    answers: list[Callable[[], float | None]] = [lambda: -math.inf, lambda: None]
    for up_at in answers:
        clock.now = 100.0
        prospect = Prospect(160.0, closing=closing, up_at=up_at, slowdown=1.0)
        found = Tally(make_facts(cohort_size=1), None, 40, [], prospect, clock=clock)
        clock.now = 101.0
        found.add_trials([make_trial(0)])
        told.append(found.seconds_left)
    assert told[1] == pytest.approx(told[0], abs=1)


def test_finals_of_a_search_that_time_cuts_are_foretold_as_short_as_they_will_be(
    make_facts: Facts, make_trial: Make
) -> None:
    clock, closing = Clock(), Closing(1, 5, False, 100, 10, 1, False, 0.001)
    for deadline, spent_s, n_seeds in ((112.0, 0.0, 2), (112.0, 48.0, 5), (None, 0.0, 5)):
        clock.now = 100.0
        n_trials = None if deadline else 12
        found = Tally(make_facts(), n_trials, 40, [], Prospect(deadline, None, closing, spent_s=spent_s), clock=clock)
        clock.now = 101.0
        found.add_trials([make_trial(0)])  # of three seconds; finals may take a quarter of what all took
        cohort_s = 16.0
        assert found.seconds_left == pytest.approx(11 + FRESH * n_seeds + closing.export_s() + cohort_s)


def test_who_was_pruned_where_is_counted_by_rung(make_facts: Facts, make_trial: Make) -> None:
    found = Tally(make_facts(), 8, 40, [make_trial(0, 0.5, PRUNED, rungs={5: 0.5})])
    assert found.rungs_line() == "pruned 1 at epoch 5; 0 to the end, 0 failed"
    later = [make_trial(1, 0.6, PRUNED, rungs={5: 0.5, 15: 0.6}), make_trial(2, 0.5, PRUNED, rungs={5: 0.5})]
    cut = make_trial(5, 0.1, PRUNED, rungs={5: 0.1, 7: 0.1}, reason=CUT)
    found.add_trials([*later, make_trial(3, 0.9), make_trial(4, None, FAIL), cut])
    assert found.rungs_line() == "pruned 2 at epoch 5, 1 at epoch 15, 1 by the time; 1 to the end, 1 failed"
    assert Tally(make_facts(), 8, 40, []).rungs_line() == "none pruned; 0 to the end, 0 failed"


def test_a_search_that_is_over_keeps_its_rate_and_has_no_time_left(make_facts: Facts, make_trial: Make) -> None:
    clock = Clock()
    found = Tally(make_facts(), 8, 40, [], clock=clock)
    clock.now += 2
    found.add_trials([make_trial(n) for n in range(4)])
    assert found.line().endswith(", 2.0 trials/s, 2 s left")
    found.searched()
    clock.now += 60
    assert found.line().endswith(", 2.0 trials/s")


def test_a_slow_rate_is_told_by_the_minute(make_facts: Facts, make_trial: Make) -> None:
    clock = Clock()
    found = Tally(make_facts(), None, 40, [], clock=clock)
    clock.now += 30
    found.add_trials([make_trial(0)])
    assert found.line().endswith(", 2.0 trials/min")


def test_the_course_of_the_best_never_gets_worse(make_facts: Facts, make_trial: Make) -> None:
    facts = make_facts(objectives=(Objective("rmse", "minimize"),))
    found = Tally(facts, 8, 40, [])
    cut = make_trial(4, 0.5, PRUNED, rungs={5: 0.5})
    found.add_trials([cut, make_trial(0, None, FAIL), make_trial(1, 3.0), make_trial(2, 5.0), make_trial(3, 2.0)])
    assert found.path == [3.0, 3.0, 2.0] and found.best is not None and found.best.number == 3


def test_the_latest_epoch_is_a_line(make_facts: Facts) -> None:
    found = Tally(make_facts(), 8, 40, [])
    assert found.epoch_line() == "getting ready"
    found.add_epoch(EPOCH)
    assert found.epoch_line() == "trial 4, epoch 7/40: train loss 0.5000, val loss 0.2500, val accuracy 0.8750"


def test_a_metric_that_is_the_loss_is_said_once(make_facts: Facts) -> None:
    found = Tally(make_facts(objectives=(Objective("log_loss", "minimize"),), curve_metric="log_loss"), 8, 40, [])
    found.add_epoch(EpochDone(4, replace(EPOCH.epoch, val_metric=EPOCH.epoch.val_loss)))
    assert found.epoch_line() == "trial 4, epoch 7/40: train loss 0.5000, val loss 0.2500"
    assert found.epoch_line(60) == "trial 4, epoch 7: val loss 0.2500 (train 0.5000)"
    found.add_epoch(EPOCH)  # classes have weights
    assert found.epoch_line(60) == "trial 4, epoch 7: val log_loss 0.8750, loss 0.2500"


def test_the_epochs_of_a_trial_are_what_the_rungs_leave(make_facts: Facts) -> None:
    halving = {"search": {"halving": {"first_rung": 5, "reduction_factor": 3}}}
    # 32 to epoch 5, 11 to 15, 4 to 40
    assert tally.epochs_per_trial(make_facts(spec=halving, cohort_size=32), 40) == (32 * 5 + 11 * 10 + 4 * 25) / 32
    assert tally.epochs_per_trial(make_facts(spec={"search": {"halving": False}}), 40) == 40
    assert tally.epochs_per_trial(make_facts(), 40) == 40


def test_the_best_eighth_of_a_cohort_guides_and_a_trial_without_its_curve_trained_to_its_rung(
    make_facts: Facts, make_trial: Make
) -> None:
    cohort = [make_trial(0, 0.5, PRUNED, rungs={5: 0.5}), *(make_trial(n, n / 32) for n in range(1, 15))]
    cohort.append(make_trial(15, None, FAIL))
    found = Tally(make_facts(), 32, 40, []).trained([replace(t, curve=()) for t in cohort])
    assert [n for n, t in enumerate(found) if t.is_guide] == [13, 14]
    assert (found[0].epochs, found[1].epochs) == (5, 40)
    assert found[1].weight == weight(cohort[1].n_parameters, int(cohort[1].hyperparameters.get("depth", 1)))


def test_long_times_are_minutes_and_longer_ones_hours() -> None:
    said = [tally.minutes(s) for s in (0.4, 89.4, 90, 605, 7300)]
    assert said == ["0 s", "89 s", "1:30 min", "10:05 min", "2:01 h"]


def test_hyperparameters_are_written_short() -> None:
    assert hyperparameters_line({"width": 64, "learning_rate": 0.0123456, "nesterov": False}) == (
        "width 64, learning_rate 0.0123, nesterov False"
    )
    assert format_value("relu") == "relu"
    assert re.fullmatch("width 64", hyperparameters_line({"width": 64, "depth": 1}, ["width"]))


def test_in_stages_a_trial_is_told_with_what_earlier_stages_found(make_trial: Make) -> None:
    spec = spec_from_dict(
        {
            "study": "w",
            "budget": {"trials": 64},
            "data": {"source": "sklearn:wine"},
            "recipe": "overfit-first",
            "search_space": {"dropout": {"low": 0.0, "high": 0.5}, "activation": ["relu", "tanh"], "depth": 2},
        }
    ).to_dict()
    chosen = {"dropout": 0.25, "depth": 2, "activation": "tanh"}
    trial = make_trial(40, hyperparameters=chosen, searched=("activation",))
    assert told_apart_by(trial, spec) == ["dropout", "activation"]
    assert told_apart_by(trial, spec | {"recipe": "none"}) == ["activation"]
