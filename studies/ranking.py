"""Which trial is best, which ones nothing beats, and how far two orders agree: pure functions of records."""

import math
from collections.abc import Sequence

from studies.records import COMPLETE, PRUNED, Objective, TrialRecord


def best_trial(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> TrialRecord | None:
    """The best trial by the first objective; ties go to the lower val loss, then to the earlier number.

    With several objectives it is the first one of the Pareto front. A trial that was cut is best only where none
    trained to its end: a time budget can end a study before.
    """
    ranked = ranking(trials, objectives)
    if len(objectives) > 1:
        ranked = pareto_front(trials, objectives) or ranked
    return ranked[0] if ranked else None


def ranking(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    """Trials that have a finite value, from the best to the worst: first those that trained to their end."""
    sign = -1.0 if objectives[0].direction == "maximize" else 1.0
    valued = [t for t in trials if t.value is not None and math.isfinite(t.value) and t.state in (COMPLETE, PRUNED)]

    def place(trial: TrialRecord) -> tuple[bool, float, float, int]:
        val_loss = math.inf if trial.best_val_loss is None else trial.best_val_loss
        return trial.state != COMPLETE, sign * (trial.value or 0.0), val_loss, trial.number

    return sorted(valued, key=place)


def pareto_front(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    """COMPLETE trials that no other one dominates (never worse, better in one objective), by the first objective."""
    complete = ranking([t for t in trials if t.state == COMPLETE], objectives)
    return [t for t in complete if not any(_dominates(other, t, objectives) for other in complete)]


def _dominates(left: TrialRecord, right: TrialRecord, objectives: Sequence[Objective]) -> bool:
    pairs = list(zip(objectives, left.values or (), right.values or (), strict=True))
    is_never_worse = not any(o.is_better(b, a) for o, a, b in pairs)
    return is_never_worse and any(o.is_better(a, b) for o, a, b in pairs)


def rank_correlation(pairs: Sequence[tuple[float, float | None]]) -> float:
    """Spearman's: 1 is the same order, 0 none; ties share their mean rank. 1 where one side is all the same."""
    sides = [[float(p[i] or 0.0) for p in pairs] for i in (0, 1)]
    ranks = [_ranks(side) for side in sides]
    mean = (len(pairs) - 1) / 2
    products = [sum((a - mean) * (b - mean) for a, b in zip(x, y, strict=True)) for x in ranks for y in ranks]
    scale = math.sqrt(products[0] * products[3])
    return products[1] / scale if scale > 0 else 1.0


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(v) + (ordered.count(v) - 1) / 2 for v in values]
