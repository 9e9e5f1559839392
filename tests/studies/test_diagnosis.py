import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from studies.diagnosis import Advice, advise, fit_of, gap_lines
from studies.records import (
    FAIL,
    PRUNED,
    EpochRecord,
    Final,
    Finalist,
    Interval,
    Objective,
    Rival,
    StudyFacts,
    TrialRecord,
    Winner,
)

Facts = Callable[..., StudyFacts]
Make = Callable[..., TrialRecord]
SPEC: dict[str, object] = {
    "study": "wine",
    "budget": {"trials": 30},
    "data": {"source": "sklearn:wine"},
    "training": {"epochs": 40},
    "search_space": {
        "depth": {"low": 1, "high": 4},
        "width": {"low": 16, "high": 256, "log": True},
        "learning_rate": {"low": 0.001, "high": 0.5, "log": True},
        "momentum": {"low": 0.0, "high": 0.95},
    },
}
GRID: dict[str, object] = {"search": {"sampler": "grid"}, "search_space": {"depth": [1, 2], "width": [8, 16, 32, 64]}}


@pytest.fixture
def facts(make_facts: Facts) -> StudyFacts:
    return make_facts(spec=SPEC)


def spread(make_trial: Make, n: int = 30, **changes: object) -> list[TrialRecord]:
    """Trials all over the space, whose value has nothing to do with their place; the best is number 5."""
    found = []
    for i in range(n):
        hyperparameters = {
            "depth": 1 + i % 4,
            "width": 16 * 2 ** (i % 5),
            "learning_rate": 0.001 * 500 ** ((i * 7 % n) / n),
            "momentum": 0.95 * (i * 11 % n) / n,
        }
        value = 0.9 if i == 5 else 0.5 + 0.3 * (i * 13 % n) / n
        found.append(make_trial(i, value, hyperparameters=hyperparameters, **changes))
    return found


def named(advices: tuple[Advice, ...], kind: str) -> Advice:
    (found,) = [a for a in advices if a.kind == kind]
    return found


def kinds(advices: tuple[Advice, ...]) -> set[str]:
    return {a.kind for a in advices}


def test_nothing_is_said_of_nothing(facts: StudyFacts, make_trial: Make) -> None:
    assert advise(facts, []) == ()
    assert advise(facts, [make_trial(0, None, "RUNNING")]) == ()


def test_a_few_trials_are_too_few(facts: StudyFacts, make_trial: Make) -> None:
    assert kinds(advise(facts, spread(make_trial, 8))) == {"few_trials"}


@pytest.mark.parametrize(
    ("changes", "next_"),
    [
        ({}, "`studies run wine --trials 64`"),
        ({"budget": {"trials": 8}}, "`studies run wine --trials 64`"),
        ({"budget": {"trials": 200}}, "`studies run wine`"),
        ({"budget": {"seconds": 60}}, "a budget of more than 60 seconds"),
        ({"budget": {"trials": 200, "seconds": 60}}, "a budget of more than 60 seconds"),
        ({"budget": {"trials": 8, "seconds": 60}}, "`studies run wine --trials 64`"),
        (GRID, "every point of the grid is done, and a study with lists of more values has more"),
    ],
)
def test_more_trials_are_asked_for_where_there_can_be_more(
    make_facts: Facts, make_trial: Make, changes: dict[str, object], next_: str
) -> None:
    found = named(advise(make_facts(spec=SPEC | changes), spread(make_trial, 8)), "few_trials")
    assert found.next == next_


def test_a_study_whose_best_came_early_and_lies_inside_is_settled(facts: StudyFacts, make_trial: Make) -> None:
    (only,) = advise(facts, spread(make_trial))
    assert only.kind == "settled" and "trial 5 of 30" in only.seen


def test_a_best_that_came_late_asks_for_more_trials(facts: StudyFacts, make_trial: Make) -> None:
    trials = spread(make_trial)
    trials[28] = replace(trials[28], values=(0.99,))
    found = named(advise(facts, trials), "budget")
    assert "trial 28" in found.seen and found.next == "`studies run wine --trials 60`"


def test_a_late_step_that_is_next_to_nothing_asks_for_nothing(facts: StudyFacts, make_trial: Make) -> None:
    trials = spread(make_trial)
    trials[28] = replace(trials[28], values=(0.9001,))
    assert "budget" not in kinds(advise(facts, trials))


@pytest.mark.parametrize(
    ("name", "near", "next_"),
    [
        ("learning_rate", [0.49, 0.47, 0.4, 0.45, 0.41], "search_space.learning_rate.high = 2 in place of 0.5"),
        ("learning_rate", [0.001, 0.0011, 0.002, 0.0012, 0.003], "learning_rate.low = 0.00025 in place of 0.001"),
        ("width", [250, 230, 256, 255, 240], "search_space.width.high = 1024 in place of 256"),
        ("momentum", [0.94, 0.93, 0.95, 0.92, 0.9], "search_space.momentum.high = 0.975 in place of 0.95"),
    ],
)
def test_a_winner_at_the_end_of_a_range_with_others_beside_it_asks_for_a_wider_one(
    facts: StudyFacts, make_trial: Make, name: str, near: list[float], next_: str
) -> None:
    trials = spread(make_trial)
    for number, value in enumerate(near):
        hyperparameters = {**trials[number].hyperparameters, "width": 64, "depth": 2 + number % 2, name: value}
        trials[number] = replace(trials[number], hyperparameters=hyperparameters, values=(0.99 - 0.001 * number,))
    for won, whose in ((None, "the best trial's"), (replace(winner(0.9, 0.9), number=0), "the winner's")):
        found = named(advise(facts, trials, won), "edge")
        assert next_ in found.next and found.seen.startswith(f"{whose} {name} {near[0]} is at the ")


def test_what_can_go_no_further_is_not_asked_to(facts: StudyFacts, make_trial: Make) -> None:
    trials = [
        replace(t, hyperparameters={**t.hyperparameters, "momentum": 0.001 * t.number, "depth": 2, "width": 64})
        for t in spread(make_trial)
    ]
    assert "edge" not in kinds(advise(facts, trials))  # there is no momentum below 0


def test_many_that_diverged_ask_for_smaller_steps(facts: StudyFacts, make_trial: Make) -> None:
    trials = [
        replace(t, state=FAIL, values=None, reason="diverged in epoch 2: training loss is not finite")
        if float(t.hyperparameters["learning_rate"]) > 0.1
        else t
        for t in spread(make_trial)
    ]
    found = named(advise(facts, trials), "diverged")
    assert (
        found.seen.endswith("from a learning_rate of 0.12 on") or "diverged, from a learning_rate of 0.1" in found.seen
    )
    assert "lower search_space.learning_rate.high from 0.5 to 0.2" in found.next


def test_where_all_were_pruned_the_rung_is_named(facts: StudyFacts, make_trial: Make) -> None:
    trials = spread(make_trial, state=PRUNED, rungs={5: 0.5})
    assert "30 of 30 trials were pruned, most at epoch 5" in named(advise(facts, trials), "pruned_all").seen


def test_rungs_that_say_nothing_of_the_end_are_too_early(facts: StudyFacts, make_trial: Make) -> None:
    trials = [replace(t, rungs={5: float(t.number * 17 % 30)}) for t in spread(make_trial)]
    assert named(advise(facts, trials), "rung").next == "a study with search.halving.first_rung = 10"
    agreeing = [replace(t, rungs={5: t.value or 0.0}) for t in trials]
    assert "rung" not in kinds(advise(facts, agreeing))


@pytest.mark.parametrize(
    ("train", "val", "kind", "next_"),
    [
        ([1.0, 0.5, 0.1, 0.01], [1.0, 0.8, 0.7, 0.9], "overfits", "search_space.dropout = { low = 0.0"),
        ([1.09] * 4, [1.09] * 4, "underfits", "search_space.width.high = 1024"),
        ([1.0 / e for e in range(1, 41)], [1.1 / e + 0.3 - 0.005 * e for e in range(1, 41)], "epochs", "epochs = 80"),
    ],
)
def test_what_the_best_curves_have_in_common_is_said(
    facts: StudyFacts, make_trial: Make, train: list[float], val: list[float], kind: str, next_: str
) -> None:
    pairs = enumerate(zip(train, val, strict=True), start=1)
    curve = tuple(EpochRecord(e, t, v, 0.5, 0.1, float(e)) for e, (t, v) in pairs)
    best = min(curve, key=lambda e: e.val_loss).epoch
    found = named(advise(facts, spread(make_trial, curve=curve, best_epoch=best)), kind)
    assert next_ in found.next and "trial 5" in found.seen and found.text == f"{found.seen}: {found.next}"


def test_one_trial_is_like_no_other(facts: StudyFacts, make_trial: Make) -> None:
    curve = tuple(EpochRecord(e, 1.09, 1.09, 0.5, 0.1, float(e)) for e in (1, 2))
    found = named(advise(facts, spread(make_trial, 1, curve=curve, best_epoch=1)), "underfits")
    assert found.seen.startswith("trial 0 underfits: ")


def winner(val: float, test: float, rival: float = 0.5, width: float = 0.01) -> Winner:
    finalist = Finalist(5, tuple({"accuracy": val + d, "loss": 0.1} for d in (-width, 0.0, width)))
    measured = tuple({"accuracy": test + d, "loss": 0.1} for d in (-width, 0.0, width))
    lead = {"accuracy": Interval(test - rival, test - rival - 0.01, test - rival + 0.01)}
    others = (Rival("gradient boosting", {"accuracy": rival}, {"accuracy": rival}, lead=lead),)
    final = Final({}, (finalist,), measured, others)
    return Winner(5, (0.9,), {}, 99, {"accuracy": val}, {"accuracy": test}, "mlruns/exports/wine", "0" * 64, final)


def test_a_rival_that_is_better_is_named(facts: StudyFacts, make_trial: Make) -> None:
    assert (
        "gradient boosting by 0.0900" in named(advise(facts, spread(make_trial), winner(0.9, 0.9, 0.99)), "rival").seen
    )
    assert "rival" not in kinds(advise(facts, spread(make_trial), winner(0.9, 0.9, 0.5)))


@pytest.mark.parametrize(
    ("val", "test", "words"),
    [
        (0.9, 0.89, "val to test: they agree: accuracy 0.9000 ["),
        (0.9, 0.7, "val to test: test is worse by 0.2000; the study chose by val: accuracy 0.9000 ["),
        (0.7, 0.9, "val to test: test is better by 0.2000"),
    ],
)
def test_the_gap_from_val_to_test_is_said_in_words(
    facts: StudyFacts, make_trial: Make, val: float, test: float, words: str
) -> None:
    lines = gap_lines(facts, make_trial(5), winner(val, test))
    assert lines[0].startswith("train to val: ") and words in lines[1]


def test_without_finals_two_numbers_are_two_numbers(facts: StudyFacts, make_trial: Make) -> None:
    plain = replace(winner(0.9, 0.88), final=None)
    assert gap_lines(facts, make_trial(5, curve=()), plain) == [
        "val to test: they differ by 0.0200: accuracy 0.9000 on val and 0.8800 on test"
    ]
    assert gap_lines(facts, make_trial(5, curve=()), None) == []


def test_a_val_and_a_test_that_are_one_number_agree(facts: StudyFacts, make_trial: Make) -> None:
    for one in (winner(1.0, 1.0, width=0.0), replace(winner(1.0, 1.0), final=None)):
        assert gap_lines(facts, make_trial(5, curve=()), one) == [
            "val to test: they agree: accuracy 1.0000 on val and 1.0000 on test"
        ]


def test_a_gap_that_was_not_measured_is_not_said(facts: StudyFacts, make_trial: Make) -> None:
    whole = winner(0.9, 0.8)
    for one in (
        replace(whole, test_metrics={}),
        winner(math.nan, 0.8),
        winner(0.9, math.nan),
        replace(whole, final=None, val_metrics={}),
    ):
        (line,) = gap_lines(facts, make_trial(5), one)
        assert line.startswith("train to val: ")


def test_less_is_better_where_the_objective_says_so(make_facts: Facts, make_trial: Make) -> None:
    facts = make_facts(spec=SPEC, objectives=(Objective("rmse", "minimize"),), task="regression")
    trials = [replace(t, values=(1 - (t.value or 0),)) for t in spread(make_trial)]
    assert kinds(advise(facts, trials)) == {"settled"}
    trials[28] = replace(trials[28], values=(0.001,))
    assert "budget" in kinds(advise(facts, trials))


def test_a_network_that_was_trained_on_another_loss_neither_overfits_nor_underfits(
    facts: StudyFacts, make_trial: Make
) -> None:
    plain = make_trial(5)
    bent = replace(plain, hyperparameters={**plain.hyperparameters, "label_smoothing": 0.4})
    assert fit_of(facts, plain).kind != "not compared" == fit_of(facts, bent).kind
    assert fit_of(facts, bent).text.startswith("is not compared: loss ")
