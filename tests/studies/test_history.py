from collections.abc import Callable

import pytest

from studies.history import N_BEST, N_NEWEST, history, remembered
from studies.records import COMPLETE, FAIL, PRUNED, RUNNING, Objective, TrialRecord

MOST = (Objective("accuracy", "maximize"),)
LEAST = (Objective("rmse", "minimize"),)
BOTH = (Objective("accuracy", "maximize"), Objective("n_parameters", "minimize"))
Make = Callable[..., TrialRecord]


def numbers(trials: list[TrialRecord]) -> list[int]:
    return [trial.number for trial in trials]


@pytest.mark.parametrize(("objectives", "best"), [(MOST, [7, 8, 9]), (LEAST, [0, 1, 2])])
def test_the_best_and_the_newest_are_remembered_in_order_of_number(
    objectives: tuple[Objective, ...], best: list[int], make_trial: Make
) -> None:
    trials = [make_trial(i, float(i)) for i in range(10)] + [make_trial(i, 5.0) for i in range(10, 14)]

    assert numbers(remembered(objectives, trials, 3, 4)) == [*best, 10, 11, 12, 13]


def test_finished_trials_come_before_pruned_ones_and_these_by_how_far_they_came(make_trial: Make) -> None:
    trials = [
        make_trial(0, 0.9, PRUNED, rungs={5: 0.9}),
        make_trial(1, 0.3, PRUNED, rungs={5: 0.1, 15: 0.3}),
        make_trial(2, 0.4, PRUNED, rungs={5: 0.2, 15: 0.4}),
        make_trial(3, None, PRUNED, rungs={}),
        make_trial(4, 0.1),
        make_trial(5, 0.0),
    ]

    for n_best, expected in ((1, [4]), (2, [2, 4]), (3, [1, 2, 4]), (4, [0, 1, 2, 4]), (9, [0, 1, 2, 3, 4])):
        assert numbers(remembered(MOST, trials, n_best, 1)) == [*expected, 5]


def test_among_equals_the_earlier_one_is_remembered(make_trial: Make) -> None:
    trials = [make_trial(i, 1.0) for i in range(6)]

    assert numbers(remembered(MOST, trials, 2, 1)) == [0, 1, 5]


def test_failed_trials_take_nobodys_place_and_open_ones_stay(make_trial: Make) -> None:
    trials = [
        make_trial(0, 0.5),
        make_trial(1, 0.1),
        make_trial(2, None, FAIL),
        make_trial(3, None, RUNNING),
        make_trial(4, None, FAIL),
    ]

    assert numbers(remembered(MOST, trials, 1, 1)) == [0, 3]


def test_with_several_objectives_the_first_fronts_are_remembered(make_trial: Make) -> None:
    values = [(0.9, 100.0), (0.5, 10.0), (0.4, 50.0), (0.8, 200.0), (0.7, 20.0)]  # fronts: 0, 1, 4 then 2, 3
    trials = [make_trial(i, values=pair) for i, pair in enumerate(values)]
    trials += [make_trial(5, None, PRUNED), make_trial(6, values=(0.0, 1e9))]

    assert numbers(remembered(BOTH, trials, 3, 1)) == [0, 1, 4, 6]
    assert numbers(remembered(BOTH, trials, 5, 1)) == [0, 1, 2, 3, 4, 6]
    assert numbers(remembered(BOTH, trials[5:], 5, 1)) == [5, 6]


def test_a_short_history_is_remembered_whole(make_trial: Make) -> None:
    trials = [make_trial(i, float(i)) for i in range(20)]

    assert remembered(MOST, trials, 5, 20) == trials
    assert remembered(MOST, [], 5, 20) == []


def test_only_tpe_forgets_and_who_does_not_learn_is_shown_nothing(make_trial: Make) -> None:
    trials = [make_trial(i, float(i), COMPLETE if i % 2 else FAIL) for i in range(2 * (N_BEST + N_NEWEST) + 100)]

    assert len(history("tpe", MOST, trials)) == N_BEST + N_NEWEST
    assert history("gp", MOST, trials) == history("nsga2", MOST, trials) == trials
    assert [history(name, MOST, trials) for name in ("random", "qmc", "grid")] == [[], [], []]


def test_what_tpe_counts_as_good_is_never_forgotten(make_trial: Make) -> None:
    # Its good trials are a tenth of those told, 25 at most.
    assert N_BEST >= 25
    assert N_NEWEST >= 250
