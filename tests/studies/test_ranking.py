import math
from collections.abc import Callable

import pytest
from scipy.stats import spearmanr

from studies.ranking import best_trial, pareto_front, rank_correlation, ranking
from studies.records import FAIL, PRUNED, Objective, TrialRecord

MOST_ACCURATE = (Objective("accuracy", "maximize"),)
LEAST_ERROR = (Objective("rmse", "minimize"),)
Make = Callable[..., TrialRecord]


def test_the_best_trial_has_the_best_value_in_the_objectives_direction(make_trial: Make) -> None:
    trials = [make_trial(0, 0.5), make_trial(1, 0.9), make_trial(2, 0.1)]
    assert best_trial(trials, MOST_ACCURATE) is trials[1]
    assert best_trial(trials, LEAST_ERROR) is trials[2]


def test_ties_go_to_the_lower_val_loss_then_to_the_earlier_number(make_trial: Make) -> None:
    trials = [make_trial(0, best_val_loss=0.3), make_trial(2, best_val_loss=0.2), make_trial(1, best_val_loss=0.2)]
    assert [t.number for t in ranking(trials, MOST_ACCURATE)] == [1, 2, 0]


def test_a_pruned_trial_is_best_only_where_none_is_complete(make_trial: Make) -> None:
    pruned, complete = make_trial(0, 0.9, PRUNED), make_trial(1, 0.1)
    assert best_trial([pruned, complete], MOST_ACCURATE) is complete
    assert best_trial([pruned], MOST_ACCURATE) is pruned


def test_trials_without_a_finite_value_are_never_best(make_trial: Make) -> None:
    assert (
        best_trial([make_trial(0, None, FAIL), make_trial(1, math.nan), make_trial(2, math.inf)], LEAST_ERROR) is None
    )
    assert best_trial([], LEAST_ERROR) is None


def test_with_several_objectives_the_best_trial_is_one_that_nothing_dominates(make_trial: Make) -> None:
    objectives = (Objective("accuracy", "maximize"), Objective("n_parameters", "minimize"))
    large = make_trial(0, values=(1.0, 9000.0), best_val_loss=0.01)
    small = make_trial(1, values=(1.0, 90.0), best_val_loss=0.02)
    assert best_trial([large, small], objectives) is small


def test_trials_that_were_cut_rank_behind_those_that_were_not(make_trial: Make) -> None:
    trials = [make_trial(0, 0.9, PRUNED), make_trial(1, 0.1), make_trial(2, None, FAIL)]
    assert [t.number for t in ranking(trials, MOST_ACCURATE)] == [1, 0]


def test_the_pareto_front_holds_what_nothing_dominates(make_trial: Make) -> None:
    objectives = (Objective("accuracy", "maximize"), Objective("n_parameters", "minimize"))
    points = [(0.9, 100.0), (0.8, 50.0), (0.8, 60.0), (0.95, 1000.0), (0.7, 50.0), (0.9, 100.0)]
    trials = [make_trial(i, values=point) for i, point in enumerate(points)]
    assert [t.number for t in pareto_front(trials, objectives)] == [3, 0, 5, 1]


def test_rank_correlation_is_spearmans() -> None:
    pairs = [(1.0, 2.0), (2.0, 1.0), (2.0, 5.0), (7.0, 5.0), (3.0, -4.0)]
    theirs = spearmanr([a for a, _ in pairs], [b for _, b in pairs]).statistic
    assert rank_correlation(pairs) == pytest.approx(theirs)
    assert rank_correlation([(1.0, 1.0), (1.0, 2.0)]) == 1.0
    assert not math.isnan(rank_correlation([(1.0, 1.0)]))
