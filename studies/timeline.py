"""Where a study's time went: its cohorts on one clock, from which pauses are taken out; pure functions of records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from studies.records import TrialRecord

PAUSE_S = 60.0
"""A longer time in which no cohort trained is one in which nobody drove the study."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds since a study began, as if it had never been stopped."""

    began: float
    """Seconds since 1970 when its first cohort was claimed."""
    pauses: tuple[tuple[float, float], ...] = ()
    """From when to when nobody drove it."""

    def at(self, moment: float) -> float:
        """Seconds of the study at a moment, which is given in seconds since 1970."""
        off = sum(max(0.0, min(moment, end) - start) for start, end in self.pauses)
        return max(0.0, moment - self.began - off)


def clock(trials: Sequence[TrialRecord], claims: Mapping[int, float]) -> Clock | None:
    """The clock of a study; None before any trial was finished.

    Args:
        trials: With their times.
        claims: When each cohort was claimed, by its id.
    """
    spans = busy(trials)
    if not spans:
        return None
    first = min(spans[0][0], min(claims.values(), default=spans[0][0]))
    idle = [(a[1], b[0]) for a, b in pairwise(spans)]
    return Clock(first, tuple(gap for gap in idle if gap[1] - gap[0] > PAUSE_S))


def busy(trials: Sequence[TrialRecord]) -> list[tuple[float, float]]:
    """When any cohort trained: spans that do not overlap, in order, in seconds since 1970."""
    own: dict[int, tuple[float, float]] = {}
    for t in trials:
        if t.started_at is not None and t.finished_at is not None:
            start, end = own.get(t.cohort, (t.started_at, t.finished_at))
            own[t.cohort] = (min(start, t.started_at), max(end, t.finished_at))
    merged: list[tuple[float, float]] = []
    for start, end in sorted(own.values()):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def phases(
    trials: Sequence[TrialRecord], claims: Mapping[int, float], rungs: Sequence[int], after: Mapping[str, float]
) -> dict[str, float]:
    """Seconds of each phase, in order: asking and recording, training up to each rung, what came after the search.

    Cohorts that trained side by side count once each in training.

    Args:
        trials: With curves.
        claims: When each cohort was claimed, by its id.
        rungs: Epochs at which trials are compared.
        after: What came after the search -> seconds.
    """
    found = {"asking, recording": _between(trials, claims)}
    stages = _stages(trials, rungs)
    last = max((t.curve[-1].epoch for t in trials if t.curve), default=0)
    bounds = [0, *(r for r in rungs if r < last), last]
    for low, high, seconds in zip(bounds[:-1], bounds[1:], stages, strict=False):
        found[f"epochs {low + 1} to {high}"] = seconds
    return {name: seconds for name, seconds in (found | dict(after)).items() if seconds > 0}


def _between(trials: Sequence[TrialRecord], claims: Mapping[int, float]) -> float:
    """Seconds of the search in which nothing trained, pauses left out."""
    time = clock(trials, claims)
    if time is None:
        return 0.0
    spans = busy(trials)
    trained = sum(end - start for start, end in spans)
    return max(0.0, time.at(spans[-1][1]) - trained)


def _stages(trials: Sequence[TrialRecord], rungs: Sequence[int]) -> list[float]:
    """Seconds of training up to each rung and to the end, over all cohorts: each stage ends with its last trial."""
    totals = [0.0] * (len(rungs) + 1)
    for cohort in {t.cohort for t in trials}:
        own = [t for t in trials if t.cohort == cohort and t.curve and t.started_at is not None]
        at = min((t.started_at or 0.0 for t in own), default=0.0)
        for stage, rung in enumerate([*rungs, None]):
            reached = [t.curve[-1 if rung is None else min(rung, len(t.curve)) - 1].finished_at for t in own]
            end = max([at, *reached])
            totals[stage] += end - at
            at = end
    return totals
