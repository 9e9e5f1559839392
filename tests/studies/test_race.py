"""studies.race: the studies of a comparison, and what is said of their results."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from studies import race
from studies.errors import UserError
from studies.hyperparameters import Range
from studies.race import Result
from studies.records import PRUNED, Final, Finalist, Objective, TrialRecord, Winner
from studies.spec import StudySpec, spec_from_dict
from studies.spec_changes import differences
from tests.studies.conftest import SMALL_SPEC

ACCURACY = Objective("accuracy", "maximize")


def spec() -> StudySpec:
    return spec_from_dict(SMALL_SPEC)


def result(sampler: str, *values: float, trials: tuple[TrialRecord, ...] = ()) -> Result:
    """A search whose winner came to these values on fresh seeds."""
    val = tuple({"accuracy": value, "loss": 1 - value} for value in values)
    final = Final({}, (Finalist(0, val),), ())
    return Result(sampler, trials, Winner(0, (0.9,), {}, 9, {}, {}, "", "", final))


def test_samplers_are_named_each_once_and_at_least_two() -> None:
    assert race.samplers_of("grid, random,tpe") == ("grid", "random", "tpe")
    with pytest.raises(UserError, match=r'must name some of tpe, random.* got "tp"'):
        race.samplers_of("tp,random")
    for text in ("tpe", "tpe,tpe", "tpe,random,tpe"):
        with pytest.raises(UserError, match="at least two, each once"):
            race.samplers_of(text)


def test_an_entrant_differs_from_its_spec_in_what_is_compared_alone() -> None:
    plain = spec().to_dict()
    found = [d.partition(":")[0] for d in differences(plain, race.entrant(spec(), "random", 6, 0).to_dict())]
    assert sorted(found) == ["final.baselines", "search.sampler", "study"]
    second = race.entrant(spec(), "random", 9, 1)
    assert (second.study, second.seed, second.budget.trials) == ("wine-random-1", 2, 9)
    assert race.entrant(spec(), "gp", 6, 0).ladder is None, "it learns from finished trials alone"


def test_the_cohort_is_that_of_the_budget_that_is_compared() -> None:
    large = spec_from_dict(SMALL_SPEC | {"budget": {"trials": 512}, "search": {}})
    assert race.cohort_size(race.entrant(large, "tpe", 64, 0)) == 16
    blind = [name for name in ("grid", "random", "tpe") if race.is_asked_at_once(race.entrant(large, name, 16, 0))]
    assert blind == ["tpe"]
    assert not race.is_asked_at_once(race.entrant(large, "tpe", 64, 0))


def test_a_grid_has_as_many_values_of_each_range_as_the_budget_allows() -> None:
    searched = {"width": Range(16, 256, log=True), "dropout": Range(0.0, 0.5), "activation": ("relu", "tanh")}
    assert race.gridded(searched, 18) == {"width": [16, 64, 256], "dropout": [0.0, 0.25, 0.5]}
    assert race.gridded(searched, 3) == {"width": [16, 256], "dropout": [0.0, 0.5]}, "two at least"
    assert race.gridded({"depth": Range(1, 2), "batch_size": Range(16, 128, step=16)}, 99)["depth"] == [1, 2]
    own = race.entrant(spec(), "grid", 16, 0)
    assert own.search.sampler == "grid" and isinstance(own.search_space["learning_rate"], tuple)


def test_the_best_so_far_is_of_trials_that_trained_to_their_end(make_trial: Callable[..., TrialRecord]) -> None:
    trials = [make_trial(0, 0.9, PRUNED), make_trial(2, 0.5), make_trial(1, 0.7), make_trial(3, 0.8)]
    found = race.best_so_far(trials, ACCURACY)
    assert math.isnan(found[0]) and found[1:] == (0.7, 0.7, 0.8)
    assert race.best_so_far(trials, Objective("rmse", "minimize"))[1:] == (0.7, 0.5, 0.5)


THREE = {"grid": (0.80, 0.84), "random": (0.1, 0.11), "tpe": (0.81, 0.85)}


def test_one_search_each_is_not_taken_for_more_than_it_is() -> None:
    near = race.verdict([result("grid", 0.80, 0.84), result("tpe", 0.81, 0.85)], ACCURACY)
    assert near.startswith("Tpe and grid cannot be told apart on fresh seeds (0.8300 against 0.8200")
    far = race.verdict([result("grid", 0.80, 0.801), result("tpe", 0.95, 0.951)], ACCURACY)
    assert far.startswith("Tpe's winner is better than grid's on fresh seeds")
    three = race.verdict([result(name, *own) for name, own in THREE.items()], ACCURACY)
    assert "tpe and grid cannot" in three.lower() and "tpe's winner is better than random's" in three
    assert all("another seed may turn the order" in text for text in (near, far))


def test_searches_without_finals_that_come_to_one_value_are_level() -> None:
    grid, tpe = (replace(result(name), winner=Winner(0, (0.9,), {}, 9, {}, {}, "", "")) for name in ("grid", "tpe"))
    text = race.verdict([grid, tpe], ACCURACY)
    assert text.startswith("Grid and tpe come out level (0.9000 against 0.9000), by values")


def test_several_searches_are_compared_seed_by_seed() -> None:
    # The rows of each seed differ, and move both samplers alike: only their difference is steady.
    results = [result("random", base, base) for base in (0.6, 0.7, 0.8, 0.9)]
    results += [
        result("tpe", base + gain, base + gain)
        for base, gain in zip((0.6, 0.7, 0.8, 0.9), (0.02, 0.03, 0.02, 0.03), strict=True)
    ]
    results += [
        result("grid", base - gain, base - gain)
        for base, gain in zip((0.6, 0.7, 0.8, 0.9), (0.05, -0.04, 0.06, -0.05), strict=True)
    ]
    text = race.verdict(results, ACCURACY)
    assert text.startswith("Over 4 searches each, on the same rows, tpe is ahead of random by 0.0250")
    assert "not to be told from grid" in text
    flipped = race.verdict(results, Objective("loss", "minimize"))
    assert "grid is" in flipped or "tpe is" in flipped


def test_a_table_has_a_row_for_each_search(make_trial: Callable[..., TrialRecord]) -> None:
    trials = (make_trial(0, 0.7), make_trial(1, 0.9), make_trial(2, 0.8, PRUNED))
    header, row, empty = race.rows([result("tpe", 0.8, 0.9, trials=trials), Result("grid", (), None)], ACCURACY)
    assert len(header) == len(row) == len(empty)
    assert row[:4] == ["tpe", "0.9000", "2", "2 of 3"] and row[4].startswith("0.8500 [")
    assert empty == ["grid", "nan", "-", "0 of 0", "not measured"]
