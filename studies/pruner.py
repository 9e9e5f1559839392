"""Spec -> Optuna pruner, and its judgement at a rung.

Pruners compare the first objective alone. They are asked at rungs only, in order of number, after every trial has
reported: what they answer depends on the trials told before and on the rung, never on who was faster.
"""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    PatientPruner,
    PercentilePruner,
    ThresholdPruner,
)
from optuna.samplers import RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.records import COMPLETE, Objective, TrialRecord
from studies.spec import StudySpec

_KEPT_PERCENT = 25.0


def build_pruner(spec: StudySpec) -> BasePruner | None:
    """The pruner that a spec names, or None."""
    name, ladder = spec.search.pruner, spec.ladder
    if name is None or ladder is None:
        return None
    if name == "median":
        return MedianPruner()
    if name == "percentile":
        return PercentilePruner(_KEPT_PERCENT)
    if name == "patient":
        # Of the median rule's victims, those that got no better since the rung before (`_stalled_is_worse`).
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return PatientPruner(MedianPruner(), patience=0)
    if name == "threshold":
        return ThresholdPruner(lower=spec.search.prune_below, upper=spec.search.prune_above)
    return HyperbandPruner(
        min_resource=ladder.first_rung,
        max_resource=spec.training.epochs,
        reduction_factor=ladder.reduction_factor,
    )


def prune(
    pruner: BasePruner | None,
    objective: Objective,
    records: Sequence[TrialRecord],
    live: Mapping[int, Mapping[int, float]],
    rung: int,
) -> set[int]:
    """Who of a cohort stops at a rung. A pure function of its arguments.

    Args:
        pruner: Fresh, as `build_pruner` gives it; None prunes nobody.
        objective: The first objective, of which all values are.
        records: Trials of earlier cohorts.
        live: Number -> rung -> best value up to it, of the trials that train now; each has one at `rung`.
        rung: Epoch.

    Returns:
        Numbers to prune. A trial with no finite value yet (NaN) is pruned by every pruner.
    """
    if pruner is None:
        return set()
    hopeless = {number for number, values in live.items() if math.isnan(values[rung])}
    reports = {number: _without_nan(values) for number, values in live.items()}
    if isinstance(pruner, PatientPruner):
        reports = {number: _stalled_is_worse(values, objective.direction) for number, values in reports.items()}
    earlier = [record for record in records if record.number not in live]
    told = [_told(record) for record in sorted(earlier, key=lambda record: record.number)]
    if isinstance(pruner, HyperbandPruner):
        # It keeps what each trial was compared with in that trial's notes: its whole history is told again.
        reports |= {record.number: _without_nan(record.rungs) for record in earlier}
        told = []
    return hopeless | (_judged(_study(pruner, objective, told), reports, rung) & live.keys())


def _study(pruner: BasePruner, objective: Objective, told: Sequence[FrozenTrial]) -> Study:
    """An in-memory study of the first objective; its name is fixed, since Hyperband's brackets depend on it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # Optuna announces every new study
    study = optuna.create_study(
        study_name="rungs",
        direction=StudyDirection[objective.direction.upper()],
        sampler=RandomSampler(seed=0),  # nothing is sampled
        pruner=pruner,
    )
    study.add_trials(told)
    return study


def _told(record: TrialRecord) -> FrozenTrial:
    """A finished trial as pruners see it: all but COMPLETE ones are only there to keep the numbers."""
    if record.state != COMPLETE:
        return create_trial(state=TrialState.FAIL)
    return create_trial(value=record.value, intermediate_values=_without_nan(record.rungs))


def _judged(study: Study, reports: Mapping[int, Mapping[int, float]], rung: int) -> set[int]:
    """Report and judge rung by rung, in order of number; the verdicts of the last one."""
    trials = {}
    for number in sorted(reports):
        while (trial := study.ask()).number < number:
            study.tell(trial, state=TrialState.FAIL)  # a number that is not ours keeps its place
        trials[number] = trial
    pruned: set[int] = set()
    for step in sorted({step for values in reports.values() for step in values if step <= rung}):
        here = [number for number in trials if step in reports[number]]
        for number in here:
            trials[number].report(reports[number][step], step)
        pruned = {number for number in here if trials[number].should_prune()}
    return pruned


def _without_nan(values: Mapping[int, float]) -> dict[int, float]:
    return {step: value for step, value in values.items() if not math.isnan(value)}


def _stalled_is_worse(values: Mapping[int, float], direction: str) -> dict[int, float]:
    """Values of rungs in which one that is no better than the one before is the smallest step worse.

    Optuna's patience waits until a value is worse than an earlier one; those of rungs are the best so far, and at worst
    equal.
    """
    worst = -math.inf if direction == "maximize" else math.inf
    steps = sorted(values)
    stalled = {b for a, b in itertools.pairwise(steps) if values[a] == values[b]}
    return {step: math.nextafter(values[step], worst) if step in stalled else values[step] for step in steps}
