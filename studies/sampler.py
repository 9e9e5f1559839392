"""Spec -> Optuna sampler, and the asking of a cohort.

A cohort is a pure function of the spec and of the trials of earlier cohorts: it is asked from a fresh in-memory study
that holds only those, by a fresh sampler. So a study that was killed asks what it would have asked, and Optuna's
stored study (where `ask` would pop WAITING trials) is never asked.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler
from optuna.storages import InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import qmc

from studies.cohort_tpe import CohortTPESampler
from studies.history import history
from studies.recipe import staged
from studies.records import COMPLETE, FINISHED_STATES, PRUNED, WAITING, Objective, Suggestion, TrialRecord, Value
from studies.space import Hyperparameters, distributions, grid_points, shrink, suggest
from studies.spec import StudySpec

FITS_PER_COHORT = 8
"""How often TPE is fitted while a cohort is asked."""
_SOME_TIME = datetime(2000, 1, 1)
"""A told trial must have one; no sampler looks at it."""


def build_sampler(spec: StudySpec, first_number: int, cohort: int) -> BaseSampler:
    """A fresh sampler for one cohort.

    Args:
        spec: Names the sampler and the study's seed.
        first_number: Number of the cohort's first trial: the same cohort always gets the same sampler.
        cohort: Trials in a cohort; NSGA-II's population.
    """
    seed = _seed(spec.seed, first_number)
    if spec.search.sampler == "tpe":
        return CohortTPESampler(seed, math.ceil(cohort / FITS_PER_COHORT))
    if spec.search.sampler == "gp":
        return GPSampler(seed=seed, warn_independent_sampling=False)
    if spec.search.sampler == "nsga2":
        return NSGAIISampler(seed=seed, population_size=cohort)
    if spec.search.sampler == "qmc":
        return SobolSampler(distributions(spec), _seed(spec.seed, "qmc"), first_number)
    return RandomSampler(seed=seed)  # a grid is not sampled (`ask_cohort`)


def _seed(study_seed: int, *names: int | str) -> int:
    """32 bits, as many as numpy's RandomState takes: one stream for each name."""
    text = ":".join(map(str, (study_seed, "sampler", *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


class SobolSampler(BaseSampler):
    """Trial number n takes point n of one scrambled Sobol' sequence over the whole search space.

    Optuna's `QMCSampler` draws the first trial, and conditional hyperparameters, at random, and counts its points in
    the study's attributes, so that asking a cohort again would skip points. Here a conditional hyperparameter has a
    coordinate like any other; a trial to which it does not apply leaves its coordinate unused.

    Source: A. B. Owen, "Scrambling Sobol' and Niederreiter-Xing points", J. Complexity 14 (1998), as implemented in
    `scipy.stats.qmc.Sobol`.
    """

    def __init__(self, space: Mapping[str, BaseDistribution], seed: int, first_number: int) -> None:
        """Stand before the point of trial `first_number`."""
        self._space = dict(space)
        self._sequence = qmc.Sobol(len(self._space), scramble=True, seed=seed)
        if first_number > 0:
            self._sequence.fast_forward(first_number)
        # What Optuna asks for beside the space; there is nothing.
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole search space, for the first trial too."""
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next point of the sequence."""
        point = self._sequence.random(1)[0]
        return {name: _at(found, float(u)) for (name, found), u in zip(search_space.items(), point, strict=True)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never needed for a study's own search space."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)


def _at(found: BaseDistribution, u: float) -> Value:
    """The value at quantile `u`, in [0, 1), of a distribution: every value of a discrete one has an equal share."""
    if isinstance(found, CategoricalDistribution):
        choice = found.choices[int(u * len(found.choices))]
        assert isinstance(choice, int | float | str | bool)
        return choice
    assert isinstance(found, IntDistribution | FloatDistribution)
    low, high = float(found.low), float(found.high)
    if isinstance(found, IntDistribution) and found.log:
        # The share of n is that of [n - 1/2, n + 1/2) on the logarithmic scale, as in Optuna.
        return min(max(round(_log_between(low - 0.5, high + 0.5, u)), found.low), found.high)
    if found.step is not None:
        n = round((high - low) / found.step) + 1
        value = low + found.step * int(u * n)
        return int(value) if isinstance(found, IntDistribution) else min(value, high)
    return min(max(_log_between(low, high, u) if found.log else low + (high - low) * u, low), high)


def _log_between(low: float, high: float, u: float) -> float:
    return float(np.exp(np.log(low) + (np.log(high) - np.log(low)) * u))


def asking_study(
    spec: StudySpec,
    objectives: Sequence[Objective],
    sampler: BaseSampler,
    finished: Sequence[FrozenTrial],
    storage: InMemoryStorage | None = None,
) -> Study:
    """A fresh in-memory study that holds the trials of earlier cohorts and no others.

    Args:
        spec: Its study's name.
        objectives: What the sampler is told.
        sampler: Will propose.
        finished: In order of number.
        storage: An empty one, for a caller that wants to read it afterwards.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # Optuna announces every new study
    storage = storage or InMemoryStorage()
    directions = [StudyDirection[objective.direction.upper()] for objective in objectives]
    study = optuna.create_study(study_name=spec.study, storage=storage, sampler=sampler, directions=directions)
    study.add_trials(finished)
    return study


class _ToldTrial(FrozenTrial):
    """A trial of an earlier cohort. Nobody changes it, so a storage need not copy all that it holds (which is slow)."""

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
        """Optuna's storage numbers its copy anew; it may share the rest."""
        return copy.copy(self)


def frozen_trial(record: TrialRecord, known: Mapping[str, BaseDistribution], n_objectives: int) -> FrozenTrial:
    """A record as the sampler sees it.

    Only hyperparameters that were chosen count as Optuna's parameters. With several objectives a PRUNED trial keeps
    neither value nor intermediate values: TPE cannot rank them, and crashes on them.

    Args:
        record: Of an earlier cohort.
        known: The distribution of every searched hyperparameter.
        n_objectives: Of the study.
    """
    # A study that holds a WAITING trial hands it out again at the next ask; it is somebody's, as RUNNING ones are.
    state = TrialState.RUNNING if record.state == WAITING else TrialState[record.state]
    is_ranked = record.state == COMPLETE or (record.state == PRUNED and n_objectives == 1)
    return _ToldTrial(
        number=-1,  # the storage's own
        trial_id=-1,
        state=state,
        params={name: record.hyperparameters[name] for name in record.searched},
        distributions={name: known[name] for name in record.searched},
        value=None,
        values=list(record.values) if is_ranked and record.values else None,
        intermediate_values=dict(record.rungs) if n_objectives == 1 else {},
        user_attrs={},
        system_attrs=dict(record.system_attrs),
        datetime_start=_SOME_TIME,
        datetime_complete=_SOME_TIME if state.is_finished() else None,
    )


def recorded_study(spec: StudySpec, objectives: Sequence[Objective], records: Sequence[TrialRecord]) -> Study:
    """The finished trials as an Optuna study in memory, to look at and to plot: a copy, which pickles.

    Args:
        spec: The study's.
        objectives: Its resolved objectives.
        records: In order of number.
    """
    known, finished = distributions(spec), []
    for record in (r for r in records if r.state in FINISHED_STATES):
        trial = frozen_trial(record, known, len(objectives))
        trial.datetime_start = datetime.fromtimestamp(record.started_at or 0.0)
        trial.datetime_complete = datetime.fromtimestamp(record.finished_at or 0.0)
        trial.user_attrs = {"n_parameters": record.n_parameters, "hyperparameters": dict(record.hyperparameters)}
        finished.append(trial)
    return asking_study(spec, objectives, RandomSampler(seed=0), finished)


def ask_cohort(
    spec: StudySpec,
    objectives: Sequence[Objective],
    records: Sequence[TrialRecord],
    first_number: int,
    n: int,
    count_parameters: Callable[[Hyperparameters], int],
) -> list[Suggestion]:
    """Ask for a whole cohort. A pure function of its arguments.

    Args:
        spec: The study's.
        objectives: Its resolved objectives.
        records: Trials of the study; those from `first_number` on are not looked at.
        first_number: Number of the cohort's first trial.
        n: Trials of a whole cohort.
        count_parameters: Hyperparameters -> weights and biases, for `max_parameters`.

    Returns:
        Suggestions numbered from `first_number`: n of them, fewer at the end of a grid, none when it is exhausted.
    """
    if spec.search.sampler == "grid":
        limit = spec.search.max_parameters
        points = grid_points(spec, None if limit is None else lambda point: count_parameters(point) <= limit)
        own = points[first_number : first_number + n]
        return [_grid_suggestion(first_number + i, point, spec) for i, point in enumerate(own)]
    before = sorted((r for r in records if r.number < first_number), key=lambda record: record.number)
    whole = spec
    spec, earlier = staged(whole, objectives, before, first_number, n)
    known = distributions(spec)
    shown = history(spec.search.sampler, objectives, earlier)
    finished = [frozen_trial(record, known, len(objectives)) for record in shown]
    sampler, storage = build_sampler(spec, first_number, n), InMemoryStorage()
    study = asking_study(spec, objectives, sampler, finished, storage)
    asked = [_ask(study, storage, (spec, whole), count_parameters) for _ in range(n)]
    trials = study.get_trials(deepcopy=False)[len(shown) :]
    return [
        # Of the trials' notes only NSGA-II's generations are read again.
        Suggestion(first_number + i, *one, trial.system_attrs if isinstance(sampler, NSGAIISampler) else {})
        for i, (one, trial) in enumerate(zip(asked, trials, strict=True))
    ]


def _grid_suggestion(number: int, point: dict[str, Value], spec: StudySpec) -> Suggestion:
    return Suggestion(number, point, tuple(name for name in point if name in spec.searched))


def _ask(
    study: Study,
    storage: InMemoryStorage,
    specs: tuple[StudySpec, StudySpec],
    count_parameters: Callable[[Hyperparameters], int],
) -> tuple[dict[str, Value], tuple[str, ...]]:
    spec, whole = specs  # of the stage, and of the study, which says how small a network may be
    trial = study.ask()
    hyperparameters, searched = suggest(trial, spec)
    shrunk = shrink(hyperparameters, whole, count_parameters)
    for name, found in distributions(spec).items():
        if name in searched and shrunk[name] != hyperparameters[name]:
            # The rest of the cohort is to keep away from what is trained, not from what was proposed.
            study_id = storage.get_study_id_from_name(spec.study)
            trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            storage.set_trial_param(trial_id, name, found.to_internal_repr(shrunk[name]), found)
    return shrunk, searched
