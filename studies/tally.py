"""The numbers of a running study, for whoever shows them: trials by state and rung, the best, the rate, the time left.

Nothing here prints. What is costly to know is worked out when a cohort is stored, not each time it is shown.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from studies.closing import FRESH, Closing, Hindrance
from studies.figures import number
from studies.halving import rungs
from studies.hyperparameters import OVERFIT_FIRST
from studies.pace import Pace, Trained, weight
from studies.ranking import best_trial, ranking
from studies.records import (
    COMPLETE,
    FAIL,
    FINISHED_STATES,
    PRUNED,
    EpochDone,
    StudyFacts,
    Suggestion,
    TrialRecord,
    Value,
)
from studies.sections import LEARN

_WHOLE_EPOCH = 76
"""Columns of a whole line about an epoch, beside the metric's name; by the name alone, so that its form stays."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """What is known beforehand of the time that a command takes."""

    deadline: float | None = None
    """Of training, by the clock; None is no limit."""
    weigh: Callable[[Mapping[str, Value]], float] | None = None
    """What an epoch of a network takes beside one of another network."""
    closing: Closing | None = None
    """What comes after the search; None is nothing."""
    is_up: Callable[[], bool] = lambda: True
    """Whether the tracking server answers."""
    slowdown: float = 0.0
    """How much longer everything takes until then; see `Hindrance`."""


SEARCH_ALONE = Prospect()


class Tally:
    """How a study stands: trials by state, the best, the rate, the time left."""

    def __init__(
        self,
        facts: StudyFacts,
        n_trials: int | None,
        epochs: int,
        done: Sequence[TrialRecord],
        prospect: Prospect = SEARCH_ALONE,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with what earlier runs finished.

        Args:
            facts: Of the study.
            n_trials: The budget; None where only time limits the study.
            epochs: Of a whole training.
            done: The study's trials so far.
            prospect: What else is known.
            clock: Gives seconds; a recorded course has its own.
        """
        self.facts, self.n_trials, self.epochs = facts, n_trials, epochs
        self._clock, self._prospect = clock, prospect
        self._started = clock()
        self.epoch: EpochDone | None = None
        self.n_done = self._n_before = 0
        self.states: Counter[str] = Counter()
        self.pruned_at: Counter[int] = Counter()
        """Epoch of a rung -> trials that were pruned there."""
        self.best: TrialRecord | None = None
        self.path: list[float] = []
        """The best value after each trial, from the first one that trained to its end: a cut one is another thing."""
        self._ended: float | None = None
        """When the search ended."""
        self._top: list[TrialRecord] = []
        """Those that would enter the finals now."""
        self._count([t for t in done if t.state in FINISHED_STATES])
        self._n_before = self.n_done
        per_trial = epochs_per_trial(facts, epochs)
        self._alone = Hindrance(clock, prospect.is_up, prospect.slowdown)
        self._pace = Pace(self._alone(), per_trial, facts.cohort_size, is_guided=is_guided(facts))

    def add_cohort(self, suggestions: Sequence[Suggestion]) -> None:
        """A cohort is being trained."""
        weigh = self._prospect.weigh
        if weigh is not None:
            self._pace.began([weigh(s.hyperparameters) for s in suggestions])

    def searched(self) -> None:
        """The search is over."""
        self._ended = self._clock()

    def add_epoch(self, event: EpochDone) -> None:
        """A trial finished an epoch."""
        self.epoch = event
        self._pace.epoch(self._alone())

    def add_trials(self, trials: Sequence[TrialRecord]) -> None:
        """A cohort's results."""
        self._count(trials)
        self._pace.told(self.trained(trials), self._alone())

    def trained(self, trials: Sequence[TrialRecord]) -> list[Trained]:
        """What the trials of a cohort cost, and which eighth of it was the best."""
        whole = ranking([t for t in trials if t.state == COMPLETE], self.facts.objectives)
        guides = {t.number for t in whole[: max(1, len(trials) // 8)]}
        return [Trained(self._epochs_of(t), self._weight(t), t.number in guides) for t in trials]

    def _epochs_of(self, trial: TrialRecord) -> int:
        # Workers tell of trials without their curves.
        last = max(trial.rungs, default=1) if trial.state == PRUNED else self.epochs
        return len(trial.curve) or last

    def _weight(self, trial: TrialRecord) -> float:
        """Of its network; by its size where nobody knows better. Depth is 1 where a spec has none."""
        if self._prospect.weigh is not None:
            return self._prospect.weigh(trial.hyperparameters)
        return weight(trial.n_parameters, int(trial.hyperparameters.get("depth", 1)))

    def _count(self, trials: Sequence[TrialRecord]) -> None:
        for trial in trials:
            self.n_done += 1
            self.states[trial.state] += 1
            if trial.state == PRUNED and trial.rungs:
                self.pruned_at[max(trial.rungs)] += 1
            rivals = [trial] if self.best is None else [self.best, trial]
            self.best = best_trial(rivals, self.facts.objectives) or self.best
            if self.best is not None and self.best.value is not None and self.best.state == COMPLETE:
                self.path.append(self.best.value)
        if self._prospect.closing is not None:
            whole = [t for t in trials if t.state == COMPLETE]
            ranked = ranking([*self._top, *whole], self.facts.objectives)
            self._top = ranked[: self._prospect.closing.n_candidates]

    @property
    def trials_per_s(self) -> float:
        """Trials finished per second since this run began."""
        spent = self._clock() - self._started
        return (self.n_done - self._n_before) / spent if spent > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Until the command ends; None where nobody can know yet."""
        now, closing = self._clock(), self._prospect.closing
        if self._ended is not None:
            whole = 0.0 if closing is None else self._with_closing(closing, 0.0, self._ended)
            return max(0.0, whole - (now - self._ended))
        left = None if self.n_trials is None else self._pace.left(max(0, self.n_trials - self.n_done), self._alone())
        if self._prospect.deadline is not None:
            until = max(0.0, self._prospect.deadline - now)
            left = until if left is None else min(left, until)
        if left is None or closing is None:
            return left
        return self._with_closing(closing, left, now)

    def _with_closing(self, closing: Closing, search_s: float, now: float) -> float:
        """Seconds until the command ends.

        Args:
            closing: What there is to do after the search.
            search_s: Seconds that the search would still take alone.
            now: By the clock.
        """
        weights = [self._weight(t) for t in self._top for _ in range(closing.n_seeds)]
        epochs = mean(map(self._epochs_of, self._top)) if self._top else 0.0
        finals_s = FRESH * (self._pace.together(weights, epochs) or 0.0)
        training_s = search_s + finals_s + closing.rivals_s() + closing.export_s() + self._pace.cohort_s()
        starting_s = 0.0 if self._prospect.is_up() else closing.starting_s(now - self._started)
        return closing.whole_s(training_s, self.n_trials or self.n_done, starting_s, self._prospect.slowdown)

    def line(self) -> str:
        """Counts, best, rate and time left in one line."""
        parts = [f"{self.n_done} trials" if self.n_trials is None else f"{self.n_done}/{self.n_trials} trials"]
        parts += [f"{self.states[PRUNED]} pruned", f"{self.states[FAIL]} failed"]
        if self.best is not None and self.best.value is not None:
            parts.append(f"best {self.facts.objectives[0].metric} {number(self.best.value)} (trial {self.best.number})")
        if self.trials_per_s > 0:
            parts.append(f"{self.trials_per_s:.1f} trials/s")
            if (left := self.seconds_left) is not None:
                parts.append(f"{minutes(left)} left")
        return ", ".join(parts)

    def epoch_line(self, width: int | None = None) -> str:
        """The latest epoch in one line.

        Args:
            width: Columns there are; where the whole line may need more, the metric comes first, and losses that
                would be cut are left out. None is no limit.
        """
        if self.epoch is None:
            return "getting ready"
        e = self.epoch.epoch
        train, val, metric = number(e.train_loss), number(e.val_loss), number(e.val_metric)
        name = f"val {self.facts.curve_metric}"
        # Without weights of classes the two are one number, which need not be said twice.
        is_loss = self.facts.curve_metric == "log_loss" and metric == val
        if width is None or width >= _WHOLE_EPOCH + len(name):
            at = f"trial {self.epoch.number}, epoch {e.epoch}/{self.epochs}"
            return f"{at}: train loss {train}, val loss {val}" + ("" if is_loss else f", {name} {metric}")
        line = f"trial {self.epoch.number}, epoch {e.epoch}: " + (f"val loss {val}" if is_loss else f"{name} {metric}")
        for part in ("" if is_loss else f", loss {val}", f" (train {train})"):
            if len(line) + len(part) > width:
                break
            line += part
        return line

    def rungs_line(self) -> str:
        """Who was pruned where: `168 pruned at epoch 5, 56 at epoch 15; 30 to the end, 2 failed`."""
        at = [f"{n} at epoch {rung}" for rung, n in sorted(self.pruned_at.items())]
        n_cut = self.states[PRUNED] - sum(self.pruned_at.values())
        at += [f"{n_cut} by the time"] if n_cut else []
        pruned = f"pruned {', '.join(at)}" if at else "none pruned"
        return f"{pruned}; {self.states[COMPLETE]} to the end, {self.states[FAIL]} failed"


def epochs_per_trial(facts: StudyFacts, epochs: int) -> float:
    """Mean epochs of a trial of a cohort as halving leaves them; all of them where a pruner decides, or nobody."""
    search = facts.spec.get("search")
    ladder = search.get("halving") if isinstance(search, Mapping) else None
    if not isinstance(ladder, Mapping):
        return epochs
    total, living, before = 0, facts.cohort_size, 0
    for rung in (*rungs(ladder["first_rung"], ladder["reduction_factor"], epochs), epochs):
        total += living * (rung - before)
        living, before = math.ceil(living / ladder["reduction_factor"]), rung
    return total / facts.cohort_size


def is_guided(facts: StudyFacts) -> bool:
    """Whether the sampler asks for what did well."""
    search = facts.spec.get("search")
    return isinstance(search, Mapping) and search.get("sampler") in LEARN


def hyperparameters_line(hyperparameters: Mapping[str, Value], names: Iterable[str] | None = None) -> str:
    """Hyperparameters in one line, numbers short; all of them, or those named."""
    chosen = hyperparameters if names is None else names
    return ", ".join(f"{name} {format_value(hyperparameters[name])}" for name in chosen)


def told_apart_by(trial: TrialRecord, spec: Mapping[str, Any]) -> list[str]:
    """The hyperparameters that tell a trial from others: those searched, and where a study searches in stages
    (`recipe`) those that other stages search too.

    Args:
        trial: Any.
        spec: Of its study, as `StudyFacts.spec`.
    """
    if spec.get("recipe") != OVERFIT_FIRST:
        return list(trial.searched)
    ranges = [name for name, setting in spec["search_space"].items() if isinstance(setting, Mapping | list | tuple)]
    return [name for name in trial.hyperparameters if name in ranges or name in trial.searched]


def format_value(value: Value) -> str:
    """A hyperparameter as people write it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def minutes(seconds: float) -> str:
    """Seconds as people say them."""
    whole = round(seconds)
    if whole < 90:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02d} min" if whole < 5400 else f"{whole // 3600}:{whole // 60 % 60:02d} h"
