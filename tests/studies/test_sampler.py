"""studies.sampler: a cohort is a pure function of the spec and of earlier trials."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from studies.history import history
from studies.records import COMPLETE, FAIL, PRUNED, RUNNING, WAITING, Objective, Suggestion, TrialRecord, Value
from studies.sampler import SobolSampler, ask_cohort, build_sampler, frozen_trial
from studies.space import distributions, grid_points
from studies.spec import StudySpec, parse_spec, spec_from_dict

ONE = (Objective("accuracy", "maximize"),)
TWO = (Objective("accuracy", "maximize"), Objective("n_parameters", "minimize"))
SPACE = """
[search_space]
depth = { low = 1, high = 4 }
width = { low = 16, high = 256, log = true }
activation = ["relu", "leaky_relu", "tanh"]
slope = { low = 0.01, high = 0.3, log = true }
optimizer = ["sgd", "adamw"]
learning_rate = { low = 1e-3, high = 0.5, log = true }
momentum = { low = 0.0, high = 0.95 }
dropout = { low = 0.0, high = 0.5, step = 0.1 }
"""
GRID = """
[search_space]
depth = { low = 1, high = 4 }
width = [16, 32, 64]
activation = ["relu", "leaky_relu"]
slope = [0.1, 0.2]
"""
SAMPLERS = ("tpe", "random", "qmc", "nsga2", "grid")
N = 16


def spec_for(sampler: str, more: str = "", seed: int = 3) -> StudySpec:
    space = GRID if sampler == "grid" else SPACE
    search = f'[search]\nsampler = "{sampler}"\n{more}\n'
    return parse_spec(f'study = "a"\nseed = {seed}\n[data]\nsource = "sklearn:digits"\n{search}{space}', "a.toml")


def size(hyperparameters: Mapping[str, Value]) -> int:
    return int(hyperparameters["width"]) * int(hyperparameters["depth"])


def told(suggestion: Suggestion, cohort: int, n_objectives: int = 1) -> TrialRecord:
    """What a training might have found: some finish, some are pruned, some fail."""
    chosen, number = suggestion.hyperparameters, suggestion.number
    value = -abs(math.log10(float(chosen["learning_rate"])) + 1.3) - float(chosen["dropout"]) + 1 / int(chosen["width"])
    state = FAIL if number % 11 == 7 else PRUNED if number % 3 == 1 else COMPLETE
    values = (value, float(size(chosen)))[:n_objectives]
    has_values = state == COMPLETE or (state == PRUNED and n_objectives == 1)
    return TrialRecord(
        number,
        state,
        chosen,
        suggestion.searched,
        cohort,
        size(chosen),
        values=values if has_values else None,
        rungs={} if state == FAIL else {5: value - 0.1},
        system_attrs=suggestion.system_attrs,
    )


def ask(
    spec: StudySpec, records: Sequence[TrialRecord], cohort: int, n: int = N, objectives: Sequence[Objective] = ONE
) -> list[Suggestion]:
    return ask_cohort(spec, objectives, records, cohort * n, n, size)


def driven(
    spec: StudySpec, n_cohorts: int, n: int = N, objectives: Sequence[Objective] = ONE
) -> tuple[list[Suggestion], list[TrialRecord]]:
    """A study that is never stopped: what it asked, and what it found."""
    asked: list[Suggestion] = []
    records: list[TrialRecord] = []
    for cohort in range(n_cohorts):
        own = ask_cohort(spec, objectives, records, cohort * n, n, size)
        asked += own
        records += [told(s, cohort, len(objectives)) for s in own]
    return asked, records


def in_a_fresh_process(asked: Sequence[tuple[StudySpec, Sequence[TrialRecord], int, int]], folder: Path) -> list[str]:
    """What another python with another hash seed asks, from plain data: a cohort for each spec, records, cohort, n."""
    data = [(spec.to_dict(), [asdict(record) for record in records], cohort, n) for spec, records, cohort, n in asked]
    (folder / "data.json").write_text(json.dumps(data))
    code = "import sys, tests.studies.test_sampler as t; t.answer(sys.argv[1])"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", code, str(folder / "data.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=environment)
    return done.stdout.splitlines()


def answer(path: str) -> None:
    """The other end of `in_a_fresh_process`."""
    for spec, rows, cohort, n in json.loads(Path(path).read_text()):
        records = [TrialRecord(**row | {"rungs": {int(k): v for k, v in row["rungs"].items()}}) for row in rows]
        print(plain(ask(spec_from_dict(spec), records, cohort, n)))


def plain(suggestions: Sequence[Suggestion]) -> str:
    """Every bit of them: repr of a float is exact."""
    return repr([(s.number, dict(s.hyperparameters), s.searched, dict(s.system_attrs)) for s in suggestions])


# A pure function


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_asking_twice_gives_the_same_bit_for_bit(sampler: str) -> None:
    spec = spec_for(sampler)
    records = [] if sampler == "grid" else driven(spec_for("random"), 2)[1]

    assert plain(ask(spec, records, 2)) == plain(ask(spec, records, 2)) != plain(ask(spec, records, 1))


@pytest.mark.slow
def test_a_fresh_process_asks_each_cohort_as_the_process_that_was_never_stopped(tmp_path: Path) -> None:
    questions, expected = [], []
    for sampler in SAMPLERS:
        spec, n = spec_for(sampler), 8 if sampler == "grid" else N
        if sampler == "grid":
            asked, records = [s for cohort in range(4) for s in ask(spec, [], cohort, n)], []
        else:
            asked, records = driven(spec, 4, n)
        for cohort in (3, 2, 1, 0):  # backwards: none of them warms anything up for a later one
            questions.append((spec, records[: cohort * n], cohort, n))
            expected.append(plain(asked[cohort * n : (cohort + 1) * n]))

    assert in_a_fresh_process(questions, tmp_path) == expected


@pytest.mark.slow
def test_a_gaussian_process_asks_the_same_in_a_fresh_process(tmp_path: Path) -> None:
    _, records = driven(spec_for("random"), 2)
    spec = spec_for("gp")
    own = ask(spec, records, 16, 2)

    assert plain(own) != plain(ask(spec_for("random"), records, 16, 2))
    assert in_a_fresh_process([(spec, records, 16, 2)], tmp_path) == [plain(own)]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2"])
def test_trials_of_this_cohort_and_later_ones_do_not_matter(sampler: str) -> None:
    spec = spec_for(sampler)
    _, records = driven(spec, 3)

    assert plain(ask(spec, records, 1)) == plain(ask(spec, records[:N], 1))


def test_the_order_in_which_records_are_given_does_not_matter() -> None:
    _, records = driven(spec_for("tpe"), 2)

    assert plain(ask(spec_for("tpe"), records[::-1], 2)) == plain(ask(spec_for("tpe"), records, 2))


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2", "grid"])
def test_another_seed_asks_something_else(sampler: str) -> None:
    assert plain(ask(spec_for(sampler), [], 0)) != plain(ask(spec_for(sampler, seed=4), [], 0))


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2"])
def test_cohorts_do_not_repeat_each_other(sampler: str) -> None:
    asked, _ = driven(spec_for(sampler), 3)

    assert len({tuple(s.hyperparameters.items()) for s in asked}) == 3 * N


def test_a_spec_that_was_stored_asks_what_its_file_asks() -> None:
    text = 'study = "a"\n[data]\nsource = "sklearn:digits"\n[search]\nsampler = "{}"'
    for sampler in ("tpe", "random", "qmc", "nsga2"):
        spec = parse_spec(text.format(sampler), "a.toml")
        assert plain(ask(spec, [], 0)) == plain(ask(spec_from_dict(json.loads(json.dumps(spec.to_dict()))), [], 0))


# What is asked


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_asked_is_numbered_and_lies_inside_the_distributions(sampler: str) -> None:
    spec = spec_for(sampler)
    asked = ask(spec, [], 1) if sampler == "grid" else driven(spec, 3)[0]
    known = distributions(spec)

    assert [s.number for s in asked] == list(range(asked[0].number, asked[0].number + len(asked)))
    for suggestion in asked:
        chosen = suggestion.hyperparameters
        assert set(suggestion.searched) == chosen.keys() & known.keys()
        assert ("slope" in chosen) == (chosen["activation"] == "leaky_relu")
        assert ("momentum" in chosen) == (chosen["optimizer"] == "sgd")
        for name in suggestion.searched:
            assert known[name]._contains(known[name].to_internal_repr(chosen[name])), (name, chosen[name])


def test_tpe_learns_from_the_second_cohort_on() -> None:
    asked, _ = driven(spec_for("tpe"), 5)

    def mean_distance(own: Sequence[Suggestion]) -> float:
        return sum(abs(math.log10(float(s.hyperparameters["learning_rate"])) + 1.3) for s in own) / len(own)

    assert mean_distance(asked[-32:]) < 0.7 * mean_distance(asked[:N])


def test_nothing_is_printed_and_nothing_warns(capfd: pytest.CaptureFixture[str]) -> None:
    for sampler in ("tpe", "random", "qmc", "nsga2"):
        driven(spec_for(sampler), 2)

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2"])
def test_several_objectives_are_asked_with_pruned_and_failed_trials_among_them(sampler: str) -> None:
    asked, records = driven(spec_for(sampler), 3, objectives=TWO)

    assert {record.state for record in records} == {COMPLETE, PRUNED, FAIL}
    assert len(asked) == 3 * N


@pytest.mark.parametrize("state", [RUNNING, WAITING])
def test_an_earlier_trial_that_is_not_finished_is_not_asked_again(state: str) -> None:
    _, records = driven(spec_for("tpe"), 1)
    open_ones = [replace(r, state=state, values=None, rungs={}) if r.number % 2 else r for r in records]
    asked = ask(spec_for("tpe"), open_ones, 1)

    assert len(asked) == N
    assert not {repr(s.hyperparameters) for s in asked} & {repr(r.hyperparameters) for r in records}


def test_larger_suggestions_are_shrunk_inside_the_search_space() -> None:
    spec = spec_for("tpe", "max_parameters = 100")
    known = distributions(spec)
    asked, _ = driven(spec, 3)

    assert all(size(s.hyperparameters) <= 100 for s in asked)
    assert max(size(s.hyperparameters) for s in asked) > 90
    assert all(known["width"]._contains(s.hyperparameters["width"]) for s in asked)


# Each sampler


def test_tpe_models_conditional_hyperparameters_jointly() -> None:
    sampler = build_sampler(spec_for("tpe"), 0, N)

    assert isinstance(sampler, optuna.samplers.TPESampler)
    assert (sampler._multivariate, sampler._group, sampler._constant_liar) == (True, True, True)


def test_qmc_takes_each_point_of_its_sequence_once() -> None:
    asked, _ = driven(spec_for("qmc"), 4)
    in_one = ask(spec_for("qmc"), [], 0, n=64)

    assert plain(asked) == plain(in_one)
    assert len({s.hyperparameters["learning_rate"] for s in asked}) == 64


def test_qmc_spreads_evenly_from_the_first_trial_on() -> None:
    asked = ask(spec_for("qmc"), [], 0)
    spec = spec_for("qmc")
    rate = distributions(spec)["learning_rate"]
    assert isinstance(rate, FloatDistribution)
    span = math.log(rate.high / rate.low)
    cells = [int(math.log(float(s.hyperparameters["learning_rate"]) / rate.low) / span * 16) for s in asked]

    # The first 2^k points of a Sobol' sequence hold one point in each of 2^k slices of every axis.
    assert sorted(cells) == list(range(16))
    assert {s.hyperparameters["depth"] for s in asked} == {1, 2, 3, 4}
    assert sorted([s.hyperparameters["depth"] for s in asked]) == sorted([1, 2, 3, 4] * 4)


def test_qmc_gives_every_value_of_a_discrete_range_its_share() -> None:
    space = {
        "listed": CategoricalDistribution(("a", "b")),
        "stepped": FloatDistribution(0.0, 0.3, step=0.1),
        "whole": IntDistribution(1, 4),
        "log": IntDistribution(1, 1000, log=True),
    }
    sampler = SobolSampler(space, 0, 0)
    points = [sampler.sample_relative(None, None, space) for _ in range(64)]  # type: ignore[arg-type]

    assert sum(p["listed"] == "a" for p in points) == 32
    for step in range(4):
        assert sum(abs(p["stepped"] - step / 10) < 1e-9 for p in points) == 16
        assert sum(p["whole"] == step + 1 for p in points) == 16
    # Half of the logarithmic scale from 0.5 to 1000.5 lies below its geometric mean.
    assert 30 <= sum(p["log"] < math.sqrt(0.5 * 1000.5) for p in points) <= 34
    assert all(isinstance(p["log"], int) and 1 <= p["log"] <= 1000 for p in points)


def test_a_grid_is_asked_once_and_then_exhausted() -> None:
    spec = spec_for("grid")
    asked = [s for cohort in range(5) for s in ask(spec, [], cohort)]

    assert [s.hyperparameters for s in asked] == grid_points(spec)
    assert len(asked) == 4 * 3 * 3
    assert all(("slope" in s.searched) == (s.hyperparameters["activation"] == "leaky_relu") for s in asked)
    assert ask(spec, [], 5) == []


def test_a_grid_leaves_out_what_is_too_large() -> None:
    asked = [s for cohort in range(3) for s in ask(spec_for("grid", "max_parameters = 64"), [], cohort)]

    assert sorted({(s.hyperparameters["depth"], s.hyperparameters["width"]) for s in asked}) == [
        (1, 16), (1, 32), (1, 64), (2, 16), (2, 32), (3, 16), (4, 16),
    ]  # fmt: skip
    assert len(asked) == 7 * 3


def test_nsga2_breeds_generations_from_what_finished() -> None:
    asked, _ = driven(spec_for("nsga2"), 6)
    generations = [s.system_attrs["NSGAIISampler:generation"] for s in asked]

    assert generations == sorted(generations)  # type: ignore[type-var]
    assert generations[0] == 0
    assert generations[-1] >= 2  # type: ignore[operator]


def test_only_nsga2_notes_anything_with_its_trials() -> None:
    for sampler in ("tpe", "random", "qmc"):
        assert all(not s.system_attrs for s in driven(spec_for(sampler), 2)[0])


# Records as trials


def test_a_record_shows_the_sampler_what_it_chose() -> None:
    spec = spec_for("tpe")
    record = told(ask(spec, [], 0)[0], 0)
    trial = frozen_trial(record, distributions(spec), 1)

    assert trial.state == TrialState.COMPLETE
    assert trial.values == list(record.values or ())
    assert trial.params == {name: record.hyperparameters[name] for name in record.searched}
    assert trial.distributions == {name: distributions(spec)[name] for name in record.searched}
    assert trial.intermediate_values == {5: record.rungs[5]}


def test_a_pruned_record_keeps_its_rungs_with_one_objective_only() -> None:
    spec = spec_for("tpe")
    record = told(ask(spec, [], 0)[1], 0)
    assert record.state == PRUNED

    one, two = frozen_trial(record, distributions(spec), 1), frozen_trial(record, distributions(spec), 2)
    assert (one.value, one.intermediate_values) == (record.value, {5: record.rungs[5]})
    assert (two.values, two.intermediate_values) == (None, {})


def test_a_failed_record_has_no_value() -> None:
    spec = spec_for("tpe")
    record = told(ask(spec, [], 0)[7], 0)

    trial = frozen_trial(record, distributions(spec), 1)
    assert (trial.state, trial.values) == (TrialState.FAIL, None)


def test_tpe_is_told_of_the_best_and_the_newest_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studies.history.N_BEST", 8)
    monkeypatch.setattr("studies.history.N_NEWEST", 2 * N)
    spec = spec_for("tpe")
    _, records = driven(spec, 6)
    shown = history("tpe", ONE, records)

    assert len(shown) == 8 + 2 * N
    assert plain(ask(spec, records, 6)) == plain(ask(spec, shown, 6))
