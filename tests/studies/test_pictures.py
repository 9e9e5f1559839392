"""What is drawn equals what the database holds, and what cannot be drawn says why."""

import dataclasses
import itertools
import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest

from studies import pictures, report
from studies.home import Home
from studies.importance import importances
from studies.pictures import Material
from studies.records import COMPLETE, FAIL, PRUNED, WAITING, Objective, StudyFacts, TrialRecord
from studies.spec import spec_from_dict
from studies.storage import Storage

Make = Callable[..., TrialRecord]
SPEC: dict[str, object] = {"study": "wine", "budget": {"trials": 40}, "data": {"source": "sklearn:wine"}}


@pytest.fixture(scope="module")
def own(finished_home: Home) -> Iterator[Material]:
    storage = Storage(finished_home.database_url)
    yield report.material(storage, "wine")
    storage.close()


def rows(home: Home, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(home.root / "studies.db")) as database:
        return database.execute(query).fetchall()


def of(trials: Sequence[TrialRecord], facts: StudyFacts) -> Material:
    objectives = [{"metric": o.metric, "direction": o.direction} for o in facts.objectives]
    spec = spec_from_dict(SPEC | {"objective": objectives})
    return Material(dataclasses.replace(facts, spec=spec.to_dict()), spec, tuple(trials), {}, None)


def test_the_dots_are_the_values_in_the_database(own: Material, finished_home: Home) -> None:
    found = pictures.progress(own, "trials")
    assert not isinstance(found, str)
    for state, dots in ((COMPLETE, found.complete), (PRUNED, found.pruned)):
        query = f"SELECT number + 1.0, value FROM dlcore_trials WHERE state = '{state}' AND value IS NOT NULL"
        assert sorted(dots) == sorted(rows(finished_home, query)), state
    best = rows(finished_home, "SELECT max(value) FROM dlcore_trials WHERE state = 'COMPLETE'")
    assert [(found.best[-1][1],)] == best


def test_over_seconds_the_trials_stand_at_their_ends_less_pauses(own: Material) -> None:
    found = pictures.progress(own, "seconds")
    assert not isinstance(found, str)
    ends = {t.number: t.finished_at or math.nan for t in own.trials}
    ordered = sorted((t for t in own.trials if t.value is not None), key=lambda t: (ends[t.number], t.number))
    whole = sorted((ends[t.number], t.value or 0.0) for t in ordered if t.state == COMPLETE)
    assert [value for _, value in sorted(found.complete)] == [value for _, value in whole]
    at = sorted(x for x, _ in (*found.complete, *found.pruned))
    gaps = [ends[b.number] - ends[a.number] for a, b in itertools.pairwise(ordered)]
    # Time between cohorts may be left out, and none is added.
    assert all(-1e-6 <= b - a <= gap + 1e-6 for (a, b), gap in zip(itertools.pairwise(at), gaps, strict=True))
    assert found.end == max(at)


def test_the_curves_are_the_losses_in_the_database(own: Material, finished_home: Home) -> None:
    found = pictures.curves(own)
    assert not isinstance(found, str)
    drawn = {
        (c.number, epoch, train, val)
        for c in (*found.top, *found.others)
        for epoch, (train, val) in enumerate(zip(c.train_loss, c.val_loss, strict=True), 1)
    }
    query = """SELECT t.number, c.epoch, c.train_loss, c.val_loss FROM dlcore_curves c JOIN trials t USING (trial_id)
               WHERE c.val_loss IS NOT NULL"""
    assert {row for row in drawn if math.isfinite(row[3])} == set(rows(finished_home, query))
    pruned = rows(finished_home, "SELECT number FROM trials WHERE state = 'PRUNED'")
    assert {(c.number,) for c in (*found.top, *found.others) if c.is_pruned} == set(pruned)
    assert own.winner is not None and found.top[0].number == own.winner.number


def test_learning_rates_momenta_and_sizes_are_those_in_the_database(own: Material, finished_home: Home) -> None:
    rates, sizes = pictures.rates(own), pictures.sizes(own)
    assert not isinstance(rates, str) and not isinstance(sizes, str)
    query = "SELECT number, learning_rate, momentum FROM dlcore_trials"
    assert {(d.number, d.x, d.y) for d in rates.dots} == set(rows(finished_home, query))
    query = "SELECT number, n_parameters, value FROM dlcore_trials WHERE value IS NOT NULL"
    assert {(d.number, d.x, d.y) for d in sizes.dots} == set(rows(finished_home, query))


def test_the_confusion_holds_every_row_of_test_and_agrees_with_the_measured_accuracy(own: Material) -> None:
    found, sure = pictures.confusion(own), pictures.calibration(own)
    assert not isinstance(found, str) and not isinstance(sure, str) and own.winner is not None
    table, n_rows = found.answers.confusion, found.answers.n_rows
    assert sum(map(sum, table)) == n_rows == sum(n for n, _, _ in sure.answers.calibration) == 36
    right = sum(table[i][i] for i in range(len(table)))
    assert right / n_rows == pytest.approx(own.winner.test_metrics["accuracy"])
    assert found.answers.split == "test" and found.answers.classes == ("class_0", "class_1", "class_2")


def test_phases_take_what_the_study_took(own: Material) -> None:
    found = pictures.time_spent(own)
    assert not isinstance(found, str)
    assert {"epochs 1 to 2", "epochs 3 to 4", "finals", "rivals", "export"} <= found.seconds.keys()
    assert all(seconds > 0 for seconds in found.seconds.values())


def test_the_front_holds_trials_that_no_smaller_one_equals(
    make_trial: Make, make_facts: Callable[..., StudyFacts]
) -> None:
    sized = [(10, 0.5), (20, 0.7), (30, 0.6), (40, 0.7), (50, 0.9)]
    trials = [make_trial(i, value, n_parameters=n) for i, (n, value) in enumerate(sized)]
    trials.append(make_trial(9, 0.99, PRUNED, n_parameters=1))
    found = pictures.sizes(of(trials, make_facts()))
    assert not isinstance(found, str) and [d.number for d in found.front] == [0, 1, 4]
    down = pictures.sizes(of(trials, make_facts(objectives=(Objective("log_loss", "minimize"),))))
    assert not isinstance(down, str) and [d.number for d in down.front] == [0]


def test_two_objectives_have_the_front_that_nothing_dominates(
    make_trial: Make, make_facts: Callable[..., StudyFacts]
) -> None:
    facts = make_facts(objectives=(Objective("accuracy", "maximize"), Objective("log_loss", "minimize")))
    pairs = [(0.9, 0.5), (0.8, 0.3), (0.7, 0.4), (0.9, 0.6)]
    trials = [dataclasses.replace(make_trial(i), values=pair) for i, pair in enumerate(pairs)]
    found = pictures.trade(of(trials, facts))
    assert not isinstance(found, str) and [d.number for d in found.front] == [1, 0]


def test_the_hyperparameter_that_decides_is_the_most_important(
    make_trial: Make, make_facts: Callable[..., StudyFacts]
) -> None:
    trials = []
    for i in range(60):
        rate, momentum = 10 ** (-3 + 2.5 * i / 60), (i * 37 % 60) / 64
        chosen = {"learning_rate": rate, "momentum": momentum}
        trials.append(make_trial(i, -abs(math.log(rate / 0.05)), hyperparameters=chosen, searched=tuple(chosen)))
    found = pictures.which_mattered(of(trials, make_facts()))
    assert not isinstance(found, str) and found.n_trials == 60
    assert next(iter(found.shares)) == "learning_rate" and sum(found.shares.values()) == pytest.approx(1)
    assert importances(spec_from_dict(SPEC), make_facts().objectives, trials[:10]) == {}


def test_what_cannot_be_drawn_says_why(make_trial: Make, make_facts: Callable[..., StudyFacts]) -> None:
    failed = [make_trial(i, None, FAIL, reason="diverged", curve=(), best_epoch=None) for i in range(3)]
    for trials in ([], failed, [make_trial(0)]):
        own = of(trials, make_facts())
        said = [found for _, _, numbers in report.wanted(own) if isinstance(found := numbers(own), str)]
        assert all(text.endswith(".") for text in said)
        assert any("no winner yet" in text for text in said)
    assert "3 failed" in str(pictures.curves(of(failed, make_facts())))


def test_trials_that_are_not_finished_are_not_counted_as_tried(
    make_trial: Make, make_facts: Callable[..., StudyFacts]
) -> None:
    done = [make_trial(i, i / 9) for i in range(4)]
    waiting = [make_trial(i, None, WAITING, curve=(), started_at=None, finished_at=None) for i in range(4, 40)]
    found = pictures.progress(of([*done, *waiting], make_facts()), "trials")
    assert not isinstance(found, str) and found.end == 4


@pytest.mark.parametrize(
    ("n", "changes", "is_telling"),
    [(20, {}, True), (19, {}, False), (20, {"sampler": "random"}, False), (20, {"recipe": "overfit-first"}, False)],
)
def test_few_trials_and_those_that_chance_or_a_stage_chose_tell_nothing_of_more(
    make_trial: Make, make_facts: Callable[..., StudyFacts], n: int, changes: dict[str, str], is_telling: bool
) -> None:
    own = of([make_trial(i) for i in range(n)], make_facts())
    search = own.spec.search.model_copy(update={"sampler": changes.get("sampler", "tpe")})
    spec = own.spec.model_copy(update={"search": search, "recipe": changes.get("recipe", "none")})
    found = pictures.progress(dataclasses.replace(own, spec=spec), "trials")
    assert not isinstance(found, str) and found.is_telling == is_telling
