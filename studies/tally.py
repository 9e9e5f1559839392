"""The numbers of a running study, for whoever shows them: trials by state and rung, the best, the rate, the time left.

Nothing here prints. What is costly to know is worked out when a cohort is stored, not each time it is shown.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from studies.closing import FRESH, Backlog, Closing, Hindrance, hindered, seeds_within
from studies.figures import number
from studies.halving import rungs
from studies.hyperparameters import OVERFIT_FIRST
from studies.pace import Pace, Trained, weight
from studies.ranking import best_trial, ranking
from studies.records import (
    COMPLETE,
    CUT,
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
_MOMENT_S = 1e-3


@dataclass(frozen=True, slots=True)
class Prospect:
    """What is known beforehand of the time that a command takes."""

    deadline: float | None = None
    """Of training, by the clock; None is no limit."""
    weigh: Callable[[Mapping[str, Value]], float] | None = None
    """What an epoch of a network takes beside one of another network."""
    closing: Closing | None = None
    """What comes after the search; None is nothing."""
    up_at: Callable[[], float | None] = lambda: -math.inf
    """When the tracking server answered, by the clock; None while it starts, minus infinity where none does."""
    slowdown: float = 0.0
    """How much longer everything takes until then; see `Hindrance`."""
    spent_s: float = 0.0
    """Seconds of training that earlier runs of the study took."""
    backlog: Callable[[], Backlog] = Backlog
    """What trials MLflow is still to get."""


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
        self._n_unwritten = 0
        """Trials that MLflow lacked then."""
        self._top: list[TrialRecord] = []
        """Those that would enter the finals now."""
        self._count([t for t in done if t.state in FINISHED_STATES])
        self._n_before = self.n_done
        per_trial = epochs_per_trial(facts, epochs)
        self._alone = Hindrance(clock, lambda: prospect.up_at() is not None, prospect.slowdown)
        self._pace = Pace(self._alone(), per_trial, facts.cohort_size, is_guided=is_guided(facts))

    def add_cohort(self, suggestions: Sequence[Suggestion]) -> None:
        """A cohort is being trained."""
        weigh = self._prospect.weigh
        if weigh is not None:
            self._pace.began([weigh(s.hyperparameters) for s in suggestions])

    def searched(self) -> None:
        """The search is over."""
        self._ended = self._clock()
        self._n_unwritten = self._prospect.backlog().n_trials

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
            if (rung := pruned_at(trial)) is not None:
                self.pruned_at[rung] += 1
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
        """Trials finished per second of this run's search."""
        spent = (self._clock() if self._ended is None else self._ended) - self._started
        return (self.n_done - self._n_before) / spent if spent > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Until the command ends; None where nobody can know yet."""
        now, closing = self._clock(), self._prospect.closing
        if self._ended is not None:
            whole = 0.0 if closing is None else self._with_closing(closing, 0.0, self._ended)
            return max(0.0, whole - (now - self._ended))
        left = None if self.n_trials is None else self._pace.left(max(0, self.n_trials - self.n_done), self._alone())
        if left is not None and closing is not None:
            left = hindered(left, self._starting_s(closing, now), self._prospect.slowdown)
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
            search_s: Seconds that the search will still take.
            now: By the clock.
        """
        weights = [self._weight(t) for t in self._top for _ in range(self._n_seeds(closing, now + search_s))]
        epochs = mean(map(self._epochs_of, self._top)) if self._top else 0.0
        finals_s = FRESH * (self._pace.together(weights, epochs) or 0.0)
        training_s = finals_s + closing.rivals_s() + closing.export_s() + self._pace.cohort_s()
        slowdown, up_s = self._prospect.slowdown, self._starting_s(closing, now)
        starting_s = max(0.0, up_s - search_s)
        meanwhile_s = max(0.0, search_s + hindered(training_s, starting_s, slowdown) - up_s)
        backlog, n_to_come = self._prospect.backlog(), max(0, (self.n_trials or 0) - self.n_done)
        if self._ended is not None:
            backlog, n_to_come = replace(backlog, n_trials=self._n_unwritten), 0
        writing_s = closing.writing_s(backlog, n_to_come, meanwhile_s)
        up_at = self._prospect.up_at()
        waited_s = max(0.0, (self._clock() if up_at is None else up_at) - self._started)
        return search_s + closing.whole_s(training_s, writing_s, starting_s, slowdown, waited_s)

    def _n_seeds(self, closing: Closing, ends_at: float) -> int:
        """Fresh seeds of each finalist: fewer where time cuts the search, as the finals have it."""
        deadline = self._prospect.deadline
        if deadline is None or ends_at < deadline - _MOMENT_S or closing.n_seeds == 0:
            return closing.n_seeds
        return seeds_within(self._top, closing.n_seeds, self._prospect.spent_s + deadline - self._started)

    def _starting_s(self, closing: Closing, now: float) -> float:
        """In how many seconds from a moment on the tracking server is up, which may have come to pass since."""
        up_at = self._prospect.up_at()
        if up_at is not None:
            return max(0.0, up_at - now)
        return max(closing.starting_s(now - self._started), self._clock() - now)

    def line(self) -> str:
        """Counts, best, rate and time left in one line; the last as long as the search goes on."""
        parts = [f"{self.n_done} trials" if self.n_trials is None else f"{self.n_done}/{self.n_trials} trials"]
        parts += [f"{self.states[PRUNED]} pruned", f"{self.states[FAIL]} failed"]
        if self.best is not None and self.best.value is not None:
            parts.append(f"best {self.facts.objectives[0].metric} {number(self.best.value)} (trial {self.best.number})")
        if (rate := self.trials_per_s) > 0:
            parts.append(f"{rate:.1f} trials/s" if rate >= 0.1 else f"{60 * rate:.1f} trials/min")
            if self._ended is None and (left := self.seconds_left) is not None:
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


def pruned_at(trial: TrialRecord) -> int | None:
    """Epoch of the rung at which a trial was pruned; None where it was not, or time cut it."""
    return max(trial.rungs) if trial.state == PRUNED and trial.rungs and trial.reason != CUT else None


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
