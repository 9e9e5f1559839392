"""What MLflow shows of a study and its trials: records -> names, tags, params and metrics; pure functions.

Everything is a function of the records alone, times included, so that writing it twice changes no row: MLflow's
key of a metric is run, key, timestamp, step and value.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from studies.records import COMPLETE, FAIL, PRUNED, Objective, StudyFacts, TrialRecord

STATUS = {COMPLETE: "FINISHED", PRUNED: "KILLED", FAIL: "FAILED"}
# Limits of MLflow 3 (mlflow/utils/validation.py).
KEY_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
MARK = "dlcore.mirrored"
"""Tag with the checksum of a run. The end of a run is written last: marked and ended, all of it is there."""
PARENT = "mlflow.parentRunId"
KEY = "dlcore.key"
STUDY = "dlcore.study"
"""Tag of a study's experiment and of its run: the study's uuid."""
NOW = "dlcore.now."
"""Tags with the state of the running cohort; gone when the study is not running."""
NOTE = "mlflow.note.content"
"""Tag that MLflow shows as a run's description, in Markdown."""
STORY = "story.md"
"""The file of a report that becomes the description of the study's run."""
SIGN = "<!-- told by studies -->"
"""The end of a story of ours: a description without it is somebody's own, and stays."""
_MAY_CHANGE = ("budget", "transfer.from")
"""Keys of a spec whose values may change while a study lives."""
NOT_IN_KEYS = re.compile(r"[^\w\-.: ]", re.ASCII)  # MLflow takes "/", but then wants a normal path


class Metric(NamedTuple):
    """One point of one metric of a run."""

    key: str
    value: float
    timestamp: int
    """Milliseconds since 1970, UTC."""
    step: int
    """The epoch for curves, the number of finished trials for the running best, else 0."""


@dataclass(frozen=True, slots=True)
class TrialRun:
    """The run of one trial."""

    number: int
    key: str
    """Names the trial in all of MLflow: "<study uuid>:<number>"."""
    name: str
    status: str
    start_ms: int
    end_ms: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: tuple[Metric, ...]
    checksum: str
    """sha256 of all of the above."""

    def all_tags(self, parent_run_id: str) -> dict[str, str]:
        """The tags of the run under the study's run."""
        return {**self.tags, PARENT: parent_run_id, MARK: self.checksum}


def trial_run(facts: StudyFacts, record: TrialRecord) -> TrialRun:
    """Return what MLflow shows of a finished trial."""
    start_ms = milliseconds(record.started_at if record.started_at is not None else facts.created_at)
    end_ms = milliseconds(record.finished_at) if record.finished_at is not None else start_ms
    points = [*_curves(facts, record), *_single_metrics(facts, record, end_ms)]
    metrics = [point for point in points if is_finite(point)]
    key, name = trial_key(facts, record.number), f"trial-{record.number:04d}"
    tags = {
        KEY: key,
        "dlcore.state": record.state,
        "dlcore.reason": record.reason or "",
        "dlcore.cohort": str(record.cohort),
        "dlcore.engine": record.engine,
        "dlcore.device": record.device,
        "dlcore.searched": ", ".join(record.searched),
        "dlcore.not_finite": _not_finite(points) if len(metrics) < len(points) else "",
    }
    params = {to_key(name): str(value)[:PARAM_LENGTH] for name, value in record.hyperparameters.items()}
    tags = {name: value[:TAG_LENGTH] for name, value in tags.items() if value}
    status = STATUS[record.state]
    # In the order in which they were always counted: what is shown first must not change a checksum.
    text = json.dumps([key, name, status, start_ms, end_ms, params, tags, metrics], sort_keys=True)
    checksum = hashlib.sha256(text.encode()).hexdigest()
    shown = _values_first(facts, metrics)
    return TrialRun(record.number, key, name, status, start_ms, end_ms, params, tags, shown, checksum)


def _curves(facts: StudyFacts, record: TrialRecord) -> Iterator[Metric]:
    name = None if facts.curve_metric == "loss" else f"val_{facts.curve_metric}"
    for point in record.curve:
        at = milliseconds(point.finished_at)
        yield Metric("train_loss", point.train_loss, at, point.epoch)
        yield Metric("val_loss", point.val_loss, at, point.epoch)
        if name is not None:
            yield Metric(name, point.val_metric, at, point.epoch)
        yield Metric("learning_rate", point.learning_rate, at, point.epoch)


def _single_metrics(facts: StudyFacts, record: TrialRecord, at: int) -> Iterator[Metric]:
    """One number per run: columns to sort and search by."""
    single: dict[str, float | None] = {
        "n_parameters": record.n_parameters,
        "epochs": len(record.curve),
        "best_epoch": record.best_epoch,
        "best_val_loss": record.best_val_loss,
        "duration_s": record.duration_s,
        "samples_per_s": record.samples_per_s,
        "peak_memory_bytes": record.peak_memory_bytes,
        "population_size": record.population_size,
    }
    for objective, value in zip(facts.objectives, record.values or (), strict=False):
        single[value_key(objective.metric)] = value
    for key, number in single.items():
        if number is not None:
            yield Metric(key, float(number), at, 0)


def _values_first(facts: StudyFacts, metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """The value first, then the other single numbers, then curves.

    MLflow's pages list metrics as they were written, and draw the first one where runs are compared.
    """
    keys = {value_key(objective.metric) for objective in facts.objectives}
    values = [point for point in metrics if point.key in keys]
    others = [point for point in metrics if point.key not in keys]
    single, curves = [p for p in others if p.step == 0], [p for p in others if p.step > 0]
    return (*values, *single, *curves)


def _not_finite(points: Sequence[Metric]) -> str:
    """Which points were left out: MLflow would store infinity as 1.8e308 and NaN as 0."""
    steps: dict[str, list[int]] = {}
    for point in points:
        if not is_finite(point):
            steps.setdefault(point.key, []).append(point.step)
    return "; ".join(f"{key} at {', '.join(map(str, found))}" for key, found in steps.items())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the running best needs of one finished trial."""

    is_complete: bool
    values: tuple[float, ...]
    """One per objective; empty if there is none."""
    end_ms: int


def outcome(record: TrialRecord, end_ms: int) -> Outcome:
    """The outcome of a finished trial."""
    return Outcome(record.state == COMPLETE, record.values or (), end_ms)


class RunningBest:
    """The best value after the first 1, 2, 3, ... trials, as far as none of them is missing.

    Counted in the order of numbers and not of finishing, so that it is the same after a crash.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        """Begin before trial 0."""
        self._objectives = objectives
        self._waiting: dict[int, Outcome] = {}
        self._best: dict[str, float] = {}
        self._at = self.end_ms = 0
        self._next = 0

    def add(self, number: int, outcome: Outcome) -> None:
        """Take in a finished trial; one that was counted already changes nothing."""
        self.end_ms = max(self.end_ms, outcome.end_ms)
        if number >= self._next:
            self._waiting[number] = outcome

    def points(self) -> Iterator[Metric]:
        """Yield the points that are known now and were not yielded before."""
        while (outcome := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            self._at = max(self._at, outcome.end_ms)
            if outcome.is_complete:
                for objective, value in zip(self._objectives, outcome.values, strict=False):
                    name = value_key(objective.metric)
                    if name not in self._best or objective.is_better(value, self._best[name]):
                        self._best[name] = value
            for name, value in self._best.items():
                yield Metric(name, value, self._at, self._next)


def value_key(metric: str) -> str:
    """Name of a trial's value, and of the best one so far on the study's run.

    "best_val_accuracy" is the accuracy at the trial's best epoch, which the study was told; "val_accuracy" is the
    curve, of which MLflow's tables show the last epoch.
    """
    return metric if metric == "n_parameters" else f"best_val_{metric}"


def latest(points: Iterable[Metric]) -> dict[str, Metric]:
    """The points that MLflow's tables show: of each key the last by step, then time, then value."""
    found: dict[str, Metric] = {}
    for point in points:
        known = found.get(point.key)
        if known is None or (point.step, point.timestamp, point.value) > (known.step, known.timestamp, known.value):
            found[point.key] = point
    return found


def study_params(facts: StudyFacts) -> dict[str, str]:
    """The spec, flattened; a value too long for a param stands in spec.json only."""
    goals = ", ".join(f"{goal.direction} {goal.metric}" for goal in facts.objectives)
    settled = {"objective": goals, "search.cohort": str(facts.cohort_size)}
    flat = {key: text for key, text in flattened(facts.spec).items() if text != "null"}
    flat = {key: text for key, text in flat.items() if not key.startswith("objective")} | settled
    # The budget may be raised later, and the source lie elsewhere, and a param can never change: they are tags.
    return {key: text for key, text in flat.items() if len(text) <= PARAM_LENGTH and not key.startswith(_MAY_CHANGE)}


def study_tags(facts: StudyFacts) -> dict[str, str]:
    """Tags of the study's parent run."""
    budget = {key: text for key, text in flattened(facts.spec).items() if key.startswith(_MAY_CHANGE)}
    environment = {to_key(f"dlcore.{key}"): str(value) for key, value in facts.environment.items()}
    tags = {
        **environment,
        **{f"dlcore.{key}": text for key, text in budget.items()},
        STUDY: facts.uuid,
        "dlcore.name": facts.name,
        "dlcore.task": facts.task,
        "dlcore.data": facts.data_name,
        "dlcore.data_fingerprint": facts.data_fingerprint,
        "dlcore.objective": ", ".join(f"{goal.direction} {goal.metric}" for goal in facts.objectives),
        "dlcore.cohort_size": str(facts.cohort_size),
    }
    return {key: text[:TAG_LENGTH] for key, text in tags.items() if text}


def flattened(data: object, prefix: str = "") -> dict[str, str]:
    """Nested tables as "a.b.c" -> text; lists as JSON."""
    if isinstance(data, Mapping):
        flat: dict[str, str] = {}
        for key, value in data.items():
            flat |= flattened(value, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {to_key(prefix): data if isinstance(data, str) else json.dumps(data, default=str)}


def is_finite(point: Metric) -> bool:
    """Whether MLflow can hold the point as it is."""
    return math.isfinite(point.value)


def trial_key(facts: StudyFacts, number: int) -> str:
    """The name of a trial in all of MLflow."""
    return f"{facts.uuid}:{number}"


def to_key(text: str) -> str:
    """A key that MLflow takes: other characters become "_", and the end is cut off."""
    return NOT_IN_KEYS.sub("_", text)[:KEY_LENGTH].strip(". ") or "_"


def milliseconds(seconds: float) -> int:
    """Seconds since 1970 as MLflow counts."""
    return round(seconds * 1000)
