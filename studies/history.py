"""Which trials of earlier cohorts a sampler is shown: enough to learn from, and no more than it can use quickly.

TPE's time to ask grows with the trials told times the trials asked; at 10,000 it would outlast their training. What it
learns comes from the best trials (at most 25 of them are its good ones) and from what was tried lately: its own weights
fade the others out. So it is shown the best and the newest, a fixed number of each; a pure function of the records.
"""

import math
from collections.abc import Sequence

import numpy as np
from optuna.study._multi_objective import _fast_non_domination_rank

from studies.records import COMPLETE, FAIL, PRUNED, Objective, TrialRecord

N_BEST = 128
N_NEWEST = 1_024

_LEARNS_NOTHING = ("random", "qmc", "grid")


def history(sampler: str, objectives: Sequence[Objective], earlier: Sequence[TrialRecord]) -> list[TrialRecord]:
    """What of the earlier trials the sampler is shown.

    Args:
        sampler: Its name in the spec.
        objectives: What it is told.
        earlier: All trials of earlier cohorts, in order of number.

    Returns:
        Trials in order of number; none for a sampler that does not learn, all for one other than TPE.
    """
    if sampler in _LEARNS_NOTHING:
        return []
    return remembered(objectives, earlier, N_BEST, N_NEWEST) if sampler == "tpe" else list(earlier)


def remembered(
    objectives: Sequence[Objective], earlier: Sequence[TrialRecord], n_best: int, n_newest: int
) -> list[TrialRecord]:
    """The best and the newest trials, failed ones left out, in order of number.

    Args:
        objectives: With several of them, the best are those that the fewest fronts of others dominate.
        earlier: In order of number.
        n_best: At most so many of those that are not among the newest.
        n_newest: At most so many.
    """
    known = [trial for trial in earlier if trial.state != FAIL]
    old, new = known[: max(0, len(known) - n_newest)], known[max(0, len(known) - n_newest) :]
    ranked = sorted(old, key=lambda t: _place(t, objectives)) if len(objectives) == 1 else _by_front(old, objectives)
    return sorted(ranked[:n_best], key=lambda trial: trial.number) + new


def _place(trial: TrialRecord, objectives: Sequence[Objective]) -> tuple[int, int, float]:
    """Sorts as TPE does: finished trials by value, then pruned ones by how far they came and by their value there."""
    sign = -1.0 if objectives[0].direction == "maximize" else 1.0
    if trial.state == COMPLETE and trial.value is not None:
        return 0, 0, sign * trial.value
    if trial.state == PRUNED and trial.rungs:
        rung, value = max(trial.rungs.items())
        return 1, -rung, math.inf if math.isnan(value) else sign * value
    return 2, 0, 0.0


def _by_front(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    """Finished trials, the Pareto front first, then the front of the rest, and so on; then the others."""
    finished = [t for t in trials if t.state == COMPLETE and t.values]
    signs = [-1.0 if objective.direction == "maximize" else 1.0 for objective in objectives]
    losses = np.array([t.values for t in finished]).reshape(len(finished), len(objectives)) * signs
    ranks = _fast_non_domination_rank(losses)
    ordered = [finished[i] for i in np.argsort(ranks, kind="stable")]
    return ordered + [t for t in trials if not (t.state == COMPLETE and t.values)]
