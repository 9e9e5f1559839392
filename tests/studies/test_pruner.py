"""studies.pruner: who stops at a rung, by name."""

import math

import pytest

from studies.pruner import build_pruner, prune
from studies.records import COMPLETE, FAIL, PRUNED, Objective, TrialRecord
from studies.spec import StudySpec, parse_spec

UP = Objective("accuracy", "maximize")
DOWN = Objective("rmse", "minimize")


def spec(search: str, epochs: int = 40) -> StudySpec:
    return parse_spec(
        f'study = "a"\n[data]\nsource = "sklearn:digits"\n[search]\n{search}\n[training]\nepochs = {epochs}', "a.toml"
    )


def record(number: int, rungs: dict[int, float], state: str = COMPLETE) -> TrialRecord:
    values = None if state == FAIL else (list(rungs.values())[-1],)
    return TrialRecord(number, state, {}, (), 0, 9, values=values, rungs=rungs)


def pruned(
    search: str,
    live: dict[int, dict[int, float]],
    rung: int,
    earlier: list[TrialRecord] | None = None,
    objective: Objective = UP,
) -> set[int]:
    return prune(build_pruner(spec(search)), objective, earlier or [], live, rung)


EARLIER = [record(n, {5: n / 10, 15: n / 10}) for n in range(9)]
"""Median 0.4, best quarter from 0.6 on."""


def test_without_a_pruner_nobody_is_pruned() -> None:
    assert build_pruner(spec("")) is None
    assert prune(None, UP, EARLIER, {9: {5: math.nan}}, 5) == set()


def test_the_median_rule_prunes_what_is_worse_than_half() -> None:
    live = {9: {5: 0.35}, 10: {5: 0.45}}

    assert pruned('pruner = "median"', live, 5, EARLIER) == {9}
    assert pruned('pruner = "median"', live, 5, EARLIER, DOWN) == {10}


def test_the_percentile_rule_keeps_the_best_quarter() -> None:
    assert pruned('pruner = "percentile"', {9: {5: 0.55}, 10: {5: 0.65}}, 5, EARLIER) == {9}


def test_the_median_rule_prunes_nobody_of_a_first_cohort() -> None:
    assert pruned('pruner = "median"', {n: {5: float(n)} for n in range(16)}, 5) == set()


def test_trials_that_did_not_finish_teach_the_median_rule_nothing() -> None:
    stopped = [record(n, {5: 0.9}, PRUNED) for n in range(9, 20)] + [record(20, {5: 0.9}, FAIL)]

    assert pruned('pruner = "median"', {21: {5: 0.45}}, 5, EARLIER + stopped) == set()


def test_a_threshold_prunes_on_its_side() -> None:
    live = {0: {5: 0.1}, 1: {5: 0.5}, 2: {5: 0.9}}

    assert pruned('pruner = "threshold"\nprune_below = 0.5', live, 5) == {0}
    assert pruned('pruner = "threshold"\nprune_above = 0.5', live, 5) == {2}
    assert pruned('pruner = "threshold"\nprune_below = 0.2\nprune_above = 0.6', live, 5) == {0, 2}


@pytest.mark.parametrize("objective", [UP, DOWN])
def test_patience_spares_a_trial_that_still_gets_better(objective: Objective) -> None:
    far = 0.0 if objective is UP else 0.9
    better = far + 0.1 if objective is UP else far - 0.1
    live = {9: {5: far, 15: far}, 10: {5: far, 15: better}, 11: {5: 0.4, 15: 0.4}}

    assert pruned('pruner = "median"', live, 15, EARLIER, objective) == {9, 10}
    assert pruned('pruner = "patient"', live, 15, EARLIER, objective) == {9}


def test_patience_prunes_nobody_at_the_first_rung() -> None:
    assert pruned('pruner = "patient"', {9: {5: 0.0}}, 5, EARLIER) == set()


@pytest.mark.parametrize("search", ["median", "percentile", "patient", "hyperband", "threshold"])
def test_a_trial_without_any_finite_value_is_pruned(search: str) -> None:
    bound = "\nprune_below = 0.0" if search == "threshold" else ""
    live = {9: {5: math.nan}, 10: {5: 0.95}}

    assert pruned(f'pruner = "{search}"{bound}', live, 5, EARLIER) == {9}


def test_a_value_that_comes_late_is_judged_as_any_other() -> None:
    live = {9: {5: math.nan, 15: 0.5}}

    for search in ("median", "percentile", "patient"):
        assert pruned(f'pruner = "{search}"', live, 15, EARLIER) == ({9} if search == "percentile" else set())


def test_hyperband_remembers_every_trial_of_its_bracket() -> None:
    good = {n: {5: 0.9} for n in range(30)}
    poor = {n: {5: 0.1} for n in range(30, 60)}
    earlier = [record(n, rungs, PRUNED) for n, rungs in good.items()]

    stopped = pruned('pruner = "hyperband"', poor, 5, earlier)
    # Numbers belong to two brackets; only the first has a rung at epoch 5.
    assert 10 <= len(stopped) < 30
    assert pruned('pruner = "hyperband"', poor, 5) < stopped


def test_hyperband_judges_a_second_rung_with_what_it_saw_at_the_first() -> None:
    live = {n: {5: 0.5 + n / 100, 15: 0.9 - n / 100} for n in range(30)}
    at_first = pruned('pruner = "hyperband"', {n: {5: v[5]} for n, v in live.items()}, 5)
    at_second = pruned('pruner = "hyperband"', live, 15)

    assert at_first != at_second
    assert at_second


@pytest.mark.parametrize("name", ["median", "percentile", "patient", "hyperband"])
def test_judging_twice_gives_the_same(name: str) -> None:
    live = {n: {5: (n * 7 % 16) / 16, 15: (n * 7 % 16) / 16} for n in range(9, 25)}

    assert pruned(f'pruner = "{name}"', live, 15, EARLIER) == pruned(f'pruner = "{name}"', live, 15, EARLIER)


def test_the_order_in_which_trials_are_given_does_not_matter() -> None:
    live = {n: {5: (n * 7 % 16) / 16} for n in range(9, 25)}
    backwards = dict(reversed(live.items()))

    for name in ("median", "hyperband"):
        assert pruned(f'pruner = "{name}"', live, 5, EARLIER) == pruned(
            f'pruner = "{name}"', backwards, 5, EARLIER[::-1]
        )


def test_a_number_keeps_its_bracket_whoever_else_is_there() -> None:
    earlier = [record(n, {5: 0.9}, PRUNED) for n in range(30)]
    stopped = pruned('pruner = "hyperband"', {n: {5: 0.1} for n in range(30, 60)}, 5, earlier)

    for number in range(30, 60):
        assert pruned('pruner = "hyperband"', {number: {5: 0.1}}, 5, earlier) == {number} & stopped
