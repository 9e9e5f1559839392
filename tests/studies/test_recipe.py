"""studies.recipe: what is searched in which stage, and what is said of a network that cannot learn."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from sklearn.datasets import load_wine

from dlcore.learnable import Attempt, Held, Sampled
from studies.errors import SpecError, StudyFailed
from studies.home import Home
from studies.hyperparameters import Range
from studies.recipe import fault_of_sample, fault_of_val, prove, staged
from studies.records import PRUNED, Objective, TrialRecord, Value
from studies.runner import Run
from studies.sampler import ask_cohort
from studies.space import middle
from studies.spec import StudySpec, parse_spec, spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import NOBODY, SMALL_SPEC, Lines

ACCURACY = (Objective("accuracy", "maximize"),)
SIZE = 3
KNOWN = Sampled(32, 1.1, Attempt(0.05, 40, 0.01))
STUCK = Attempt(0.05, None, 1.09)


def spec_of(**changes: object) -> StudySpec:
    return spec_from_dict(SMALL_SPEC | {"recipe": "overfit-first"} | changes)


def asked(spec: StudySpec, records: list[TrialRecord], first: int) -> list[Mapping[str, Value]]:
    return [s.hyperparameters for s in ask_cohort(spec, ACCURACY, records, first, SIZE, lambda own: 1)]


def test_the_default_space_of_the_recipe_has_cures() -> None:
    assert {"dropout", "weight_decay"} < set(spec_of().searched)
    assert "dropout" not in spec_from_dict(SMALL_SPEC).searched
    fixed = spec_of(training={"epochs": 4, "dropout": 0.2})
    assert "dropout" not in fixed.searched and "weight_decay" in fixed.searched
    assert spec_from_dict(spec_of().to_dict()).to_dict() == spec_of().to_dict()


@pytest.mark.parametrize(
    "text, message",
    [
        ('recipe = "overfit"', "must be one of none, overfit-first"),
        ('recipe = "overfit-first"\n[search_space]\nwidth = [8, 16]', "needs a cure for overfitting in search_space"),
        ('recipe = "overfit-first"\n[search_space]\ndropout = [0.0, 0.5]', "needs something to tune in search_space"),
        ('recipe = "overfit-first"\nsearch = { sampler = "gp" }', "needs search.sampler to be one of tpe, random, qmc"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_spec(f'study = "a"\ndata = {{ source = "sklearn:wine" }}\n{text}', "a.toml")


def test_the_first_cohorts_search_the_cures_and_the_others_all_else(make_trial: Callable[..., TrialRecord]) -> None:
    spec = spec_of()
    plain, cures = middle(spec), ("dropout", "weight_decay", "learning_rate")
    first = asked(spec, [], 0)
    for own in first:
        assert {n: own[n] for n in own if n not in cures} == {n: plain[n] for n in plain if n not in cures}
    assert len({own["dropout"] for own in first}) == len({own["learning_rate"] for own in first}) == SIZE
    told = [make_trial(i, 0.5, hyperparameters=own, searched=cures) for i, own in enumerate(first)]
    second = asked(spec, told, SIZE)
    told += [make_trial(SIZE + i, 0.6 + i / 10, hyperparameters=own, searched=cures) for i, own in enumerate(second)]
    third = asked(spec, told, 2 * SIZE)
    best = told[-1].hyperparameters
    assert all(own["dropout"] == best["dropout"] and own["weight_decay"] == best["weight_decay"] for own in third)
    assert len({own["learning_rate"] for own in third}) == SIZE
    assert third == asked(spec, told, 2 * SIZE), "a study that was stopped asks the same"
    later = [
        make_trial(2 * SIZE + i, 0.99, hyperparameters=own, searched=("learning_rate",)) for i, own in enumerate(third)
    ]
    assert all(own["dropout"] == best["dropout"] for own in asked(spec, told + later, 3 * SIZE))


def test_a_study_without_the_recipe_has_no_stages(make_trial: Callable[..., TrialRecord]) -> None:
    spec = spec_from_dict(SMALL_SPEC)
    told = [make_trial(0), make_trial(1, None, PRUNED)]
    assert staged(spec, ACCURACY, told, 3, SIZE) == (spec, told)
    prove(spec, None, SIZE, pytest.fail)  # type: ignore[arg-type]  # nobody is asked


class Stand:
    """A trainer that found this."""

    def __init__(self, sampled: Sampled, held: Held) -> None:
        self.sampled, self.held = sampled, held
        self.rates: list[Value] = []

    def count_parameters(self, hyperparameters: Mapping[str, Value]) -> int:
        return 9

    def check_sample(self, hyperparameters: Mapping[str, Value]) -> Sampled:
        return self.sampled

    def check_val(self, hyperparameters: Mapping[str, Value]) -> Held:
        self.rates.append(hyperparameters["learning_rate"])
        return self.held


HOLDS = Held(36, 0.2, 1.09, 0.89, 0.05)


def test_a_network_that_learns_is_told_in_four_lines() -> None:
    said: list[str] = []
    prove(spec_of(), Stand(KNOWN, HOLDS), SIZE, said.append)
    assert said[0] == "recipe  1 overfit: 32 rows learnt by heart in 40 epochs: the network can learn"
    assert "holds on val: loss 0.2, guessing has 1.09" in said[1]
    assert "trials 0 to 5 search dropout, learning_rate, weight_decay for that" in said[2]
    assert "from trial 6 on depth, width" in said[3] and "learning_rate" in said[3] and len(said) == 4


def test_a_rate_that_the_space_holds_is_no_fault() -> None:
    other = Sampled(32, 1.1, STUCK, Attempt(0.1, 30, 0.01))
    stand, said = Stand(other, HOLDS), list[str]()
    prove(spec_of(), stand, SIZE, said.append)
    assert "at a learning rate of 0.1: the network can learn" in said[0] and stand.rates == [0.1]


def test_a_learning_rate_that_is_fixed_stays_so_beside_the_cures() -> None:
    spec = spec_of(search_space={"width": [8, 16], "dropout": [0.0, 0.3], "learning_rate": 0.02})
    assert set(staged(spec, ACCURACY, [], 0, SIZE)[0].searched) == {"dropout"}


def test_targets_that_are_all_but_one_value_skip_the_first_part_with_a_word() -> None:
    stand, said = Stand(Sampled(32, 1e-9, Attempt(0.05, 0, 1e-9)), HOLDS), list[str]()
    prove(spec_of(), stand, SIZE, said.append)
    assert said[0].startswith("recipe  1 overfit: skipped, for the targets of 32 rows of train are all but one value")
    assert "holds on val" in said[1] and len(said) == 4 and stand.rates == [0.05]


SMALL, LARGE = replace(STUCK, learning_rate=1e-6), Attempt(9.0, None, float("nan"), is_diverged=True)


@pytest.mark.parametrize(
    "found, words",
    [
        (replace(KNOWN, first=SMALL, other=Attempt(5.0, 9, 0.01)), "rate is too small: at 1e-06"),
        (replace(KNOWN, first=LARGE, other=Attempt(1e-5, 9, 0.01)), "rate is too large: at 9 it diverges"),
        (replace(KNOWN, first=STUCK, dead=(2, 64, 64)), "dead ReLUs: 64 of 64 units of hidden layer 2"),
        (replace(KNOWN, first=STUCK, is_too_small=True), "the network is too small"),
        (replace(KNOWN, first=STUCK), "no network learns 32 rows by heart"),
    ],
)  # fmt: skip
def test_each_fault_is_named(found: Sampled, words: str) -> None:
    text = fault_of_sample(found, spec_of(), {"initialization": "normal"})
    assert text is not None and words in text
    with pytest.raises(StudyFailed, match='study "wine" did not begin') as error:
        prove(spec_of(), Stand(found, HOLDS), SIZE, pytest.fail)
    assert error.value.exit_code == 1 and words in str(error.value)


def test_what_holds_nowhere_is_named_as_shuffled_labels() -> None:
    assert fault_of_val(HOLDS) is None
    text = fault_of_val(Held(36, 1.08, 1.09, 0.01, 0.02))
    assert text is not None and text.startswith("the labels look shuffled") and "over 36 rows" in text
    assert "diverges on all of train" in str(fault_of_val(Held(36, float("nan"), 1.09, float("nan"), float("nan"))))


def home_at(root: Path) -> Home:
    root.mkdir(exist_ok=True)
    return Home(root, f"sqlite:///{root / 'studies.db'}", NOBODY)


def run(home: Home, spec: StudySpec) -> Lines:
    lines = Lines()
    Run(spec, home, Storage(home.database_url), lines).execute(None)
    return lines


@pytest.mark.slow
def test_planted_faults_stop_a_study_before_it_begins(tmp_path: Path) -> None:
    x, y = load_wine(return_X_y=True)
    labels = list(y)
    random.Random(3).shuffle(labels)
    rows = [",".join([*map(str, row), f"kind{label}"]) for row, label in zip(x, labels, strict=True)]
    header = ",".join([*(f"c{i}" for i in range(x.shape[1])), "kind"])
    (tmp_path / "shuffled.csv").write_text("\n".join([header, *rows]) + "\n")
    home = home_at(tmp_path / "home")
    shuffled = spec_of(study="shuffled", data={"path": str(tmp_path / "shuffled.csv"), "target": "kind"})
    with pytest.raises(StudyFailed, match="the labels look shuffled"):
        run(home, shuffled)
    space = {"dropout": [0.0, 0.3], "learning_rate": {"low": 1e-9, "high": 1e-8, "log": True}}
    with pytest.raises(StudyFailed, match=r"the learning rate is too small: at 3\.2e-09"):
        run(home, spec_of(study="slow", search_space=space))
    assert Storage(home.database_url).names() == [], "nothing began"


@pytest.mark.slow
def test_a_study_by_the_recipe_that_is_stopped_ends_as_one_that_is_not(tmp_path: Path) -> None:
    spec = spec_of(budget={"trials": 9}, final={"seeds": 0, "baselines": False})
    whole, stopped = home_at(tmp_path / "whole"), home_at(tmp_path / "stopped")
    lines = run(whole, spec)
    assert any("learnt by heart" in line for line in lines.said)
    run(stopped, spec_of(budget={"trials": 4}, final={"seeds": 0, "baselines": False}))
    again = run(stopped, spec)
    assert not any("learnt by heart" in line for line in again.said), "it was proven when the study began"
    found = [
        [
            (t.number, t.searched, dict(t.hyperparameters), t.values, t.state)
            for t in Storage(h.database_url).records("wine")
        ]
        for h in (whole, stopped)
    ]
    assert found[0] == found[1]
    assert [set(t[1]) for t in found[0][:6]] == [{"dropout", "weight_decay", "learning_rate"}] * 6
    assert all("dropout" not in t[1] and "width" in t[1] for t in found[0][6:])
    assert isinstance(spec.search_space["dropout"], Range)
