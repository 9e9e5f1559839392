import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from studies import finals
from studies.records import PRUNED, Final, Finalist, Interval, Objective, Rival, TrialRecord, Winner

Make = Callable[..., TrialRecord]
ACCURACY = Objective("accuracy", "maximize")
RMSE = Objective("rmse", "minimize")


def finalist(number: int, *values: float, metric: str = "accuracy", loss: float = 0.5) -> Finalist:
    return Finalist(number, tuple({"loss": loss, metric: value} for value in values))


def test_an_interval_is_students() -> None:
    # By hand: mean 2, deviation 1, t(2) = 4.302653, divided by sqrt(3).
    found = finals.interval([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, -0.4841, 4.4841), abs=1e-4)
    assert finals.interval([0.5] * 5) == Interval(0.5, 0.5, 0.5)
    assert math.isnan(finals.interval([0.5, math.nan]).mean)


def test_the_table_of_t_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    assert [stats.t.ppf(0.975, df) for df in range(1, finals.MOST_SEEDS)] == pytest.approx(finals._T, rel=1e-6)


def test_the_best_that_trained_to_their_end_come_into_the_finals(make_trial: Make) -> None:
    trials = [make_trial(0, 0.7), make_trial(1, 0.99, PRUNED), make_trial(2, 0.9), make_trial(3, 0.8)]
    assert [t.number for t in finals.candidates(trials, [ACCURACY], 2)] == [2, 3]
    assert finals.candidates([trials[1]], [ACCURACY], 2) == []


def test_of_several_objectives_the_front_comes_into_the_finals(make_trial: Make) -> None:
    goals = [ACCURACY, Objective("n_parameters", "minimize")]
    trials = [make_trial(n, values=v) for n, v in enumerate([(0.9, 50.0), (0.8, 90.0), (0.7, 10.0)])]
    assert [t.number for t in finals.candidates(trials, goals, 4)] == [0, 2]


def test_the_best_mean_wins_whatever_was_recorded() -> None:
    ordered = finals.in_order([finalist(0, 0.9, 0.7), finalist(1, 0.85, 0.85)], ACCURACY)
    assert [f.number for f in ordered] == [1, 0]
    ordered = finals.in_order([finalist(0, 3.0, 2.0, metric="rmse"), finalist(1, 2.0, 2.0, metric="rmse")], RMSE)
    assert [f.number for f in ordered] == [1, 0]


def test_ties_go_to_the_lower_loss_then_to_the_earlier_number() -> None:
    equal = [finalist(3, 0.9, 0.9), finalist(2, 0.9, 0.9), finalist(7, 0.9, 0.9, loss=0.1)]
    assert [f.number for f in finals.in_order(equal, ACCURACY)] == [7, 2, 3]


def test_a_finalist_of_which_a_seed_diverged_comes_last() -> None:
    shaky, sure = finalist(0, 0.99, math.nan), finalist(1, 0.5, 0.5)
    assert [f.number for f in finals.in_order([shaky, sure], ACCURACY)] == [1, 0]
    assert finals.has_winner([sure, shaky], ACCURACY) and not finals.has_winner([shaky], ACCURACY)
    assert not finals.has_winner([], ACCURACY)


def test_a_study_that_time_limits_has_fewer_seeds_and_never_one(make_trial: Make) -> None:
    trials = [make_trial(n, duration_s=4.0, population_size=4) for n in range(2)]  # two seconds for one seed of both
    assert finals.seeds_within(trials, 5, 100.0) == 5
    assert finals.seeds_within(trials, 5, 24.0) == 3
    assert finals.seeds_within(trials, 5, 1.0) == 2


@pytest.fixture
def winner() -> Winner:
    final = Final(
        {"candidates": 2, "seeds": 2, "baselines": True, "ensemble": True},
        (finalist(4, 0.9, 0.8), finalist(1, 0.7, math.nan)),
        ({"loss": 0.2, "accuracy": 0.85}, {"loss": 0.4, "accuracy": 0.75}),
        (Rival("gradient boosting", {"accuracy": 0.6}, {"accuracy": 0.5}, "37 of 100 rounds"),),
        Rival("ensemble of 4", {"accuracy": 0.95}, {"accuracy": 0.9}),
    )
    return Winner(4, (0.9,), {"depth": 1}, 9, {"accuracy": 0.9}, {"accuracy": 0.8}, "exports/x", "a" * 64, final)


def test_finals_come_back_as_they_were_stored(winner: Winner) -> None:
    assert winner.final is not None
    back = finals.from_json(finals.to_json(winner.final))
    assert repr(back) == repr(winner.final)  # a NaN does not equal itself
    whole = replace(winner.final, finalists=winner.final.finalists[:1], ensemble=None)
    assert finals.from_json(finals.to_json(whole)) == whole


def test_programs_get_a_mean_and_an_interval_and_no_nan(winner: Winner) -> None:
    found, test = finals.as_json(winner), finals.json_of_test(winner)
    json.dumps([found, test], allow_nan=False)
    assert test["accuracy"]["mean"] == pytest.approx(0.8)
    assert test["accuracy"]["low"] < 0.8 < test["accuracy"]["high"]
    assert found["exported"]["test"] == {"accuracy": 0.8}
    assert found["finalists"][1]["val"]["accuracy"] == {"mean": None, "low": None, "high": None}
    assert [r["name"] for r in found["rivals"]] == ["ensemble of 4", "gradient boosting"]


@pytest.mark.parametrize("final", [None, Final({}, (), ())])
def test_without_finals_programs_get_numbers(winner: Winner, final: Final | None) -> None:
    assert finals.json_of_test(replace(winner, final=final)) == {"accuracy": 0.8}
    assert set(finals.shown_metrics(replace(winner, final=final))) == {"val_accuracy", "test_accuracy"}


def test_the_studys_run_shows_means_intervals_and_rivals(winner: Winner) -> None:
    found = finals.shown_metrics(winner)
    assert found["final_val_accuracy_mean"] == pytest.approx(0.85)
    assert found["final_test_accuracy_low"] < found["final_test_accuracy_mean"] < found["final_test_accuracy_high"]
    assert found["gradient_boosting_test_accuracy"] == 0.5 and found["ensemble_of_4_val_accuracy"] == 0.95
    tags = finals.shown_tags(winner, ACCURACY)
    assert tags["dlcore.winner"] == "4"
    assert tags["dlcore.finalists"].startswith("trial 4: accuracy 0.8500 [0.2147, 1.4853] on val, 2 seeds; trial 1: ")
