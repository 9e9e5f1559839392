from collections.abc import Callable
from dataclasses import replace

from studies import story
from studies.records import PRUNED, Final, Finalist, Interval, Rival, StudyFacts, TrialRecord, Winner

SPEC = {
    "budget": {"trials": 4, "seconds": None},
    "seed": 7,
    "search": {"sampler": "tpe"},
    "training": {"epochs": 40},
    "data": {"val_fraction": 0.2, "test_fraction": 0.1, "split": {"column": None, "group": "house|hold"}},
}
ONE, TWO = {"accuracy": 0.8, "loss": 0.5}, {"accuracy": 0.9, "loss": 0.4}


def told(
    make_facts: Callable[..., StudyFacts], make_trial: Callable[..., TrialRecord], winner: Winner
) -> dict[str, str]:
    trials = [make_trial(0), make_trial(1), make_trial(2, 0.3, PRUNED)]
    return story.sections(winner, trials, make_facts(spec=SPEC))


def a_winner(**changes: object) -> Winner:
    lead = {"accuracy": Interval(0.05, -0.01, 0.11)}
    rivals = (Rival("gradient boosting", ONE, ONE, "37 of 100 rounds", lead),)
    over = {"accuracy": Interval(0.85, 0.7, 0.99)}
    ensemble = Rival("ensemble", TWO, TWO, "the mean of 4 networks with 99 parameters")
    final = Final({}, (Finalist(4, (ONE, TWO)),), (ONE, TWO), rivals, ensemble, over, is_ensemble=True)
    return replace(Winner(4, (0.9,), {"depth": 1}, 9, TWO, ONE, "x", "a", final), **changes)  # type: ignore[arg-type]


def test_results_have_intervals_and_rivals_a_verdict(
    make_facts: Callable[..., StudyFacts], make_trial: Callable[..., TrialRecord]
) -> None:
    found = told(make_facts, make_trial, a_winner())
    assert list(found) == ["Results", "Rivals", "Search", "Trained under"]
    assert "test, 2 seeds: mean [95 % over seeds and rows]" in found["Results"]
    assert "0.85 \\[0.7, 0.99\\]" in found["Results"]
    assert "The ensemble is exported: on val its accuracy 0.9000 is better than 0.8500" in found["Results"]
    assert "37 of 100 rounds" in found["Rivals"] and "cannot be told apart on test" in found["Rivals"]
    assert "| trials | 2 COMPLETE, 1 PRUNED |" in found["Search"] and "| budget | 4 trials |" in found["Search"]
    assert "by group house\\|hold" in found["Search"] and "torch" in found["Trained under"]


def test_what_was_not_measured_is_not_said(
    make_facts: Callable[..., StudyFacts], make_trial: Callable[..., TrialRecord]
) -> None:
    found = told(make_facts, make_trial, a_winner(final=None, test_metrics={}))
    assert "Rivals" not in found and "| accuracy | 0.9 | not measured |" in found["Results"]
    assert "It was not measured on test" in found["Results"] and "seeds" not in found["Results"]
