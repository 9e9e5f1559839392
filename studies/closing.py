"""How long a command goes on when its search is over: finals, rivals, export, MLflow. Numbers in, seconds out.

Finals and export train networks at the price that the search has found. All else takes what it takes on any machine,
in units of a small calibration: a loop of the interpreter, timed when the study begins. The constants were measured on
two cores; see `benchmarks/pace.py`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

_LOOP = 100_000
_TURNS = 3
EXPORT, RIVALS, SERVER, MIRROR, MIRROR_TRIAL = 60.0, 18.0, 2_000.0, 1_150.0, 0.05
"""Of export without its training, rivals on the smallest table, the start of a tracking server, registration with the
report, and one trial in MLflow; in units."""
ROUND, CELL = 0.25, 5.3e-6
"""Of gradient boosting's rounds, each for each class, and of each cell of train in each of them."""
FRESH = 1.35
"""How much longer networks on fresh seeds take than those of the search: each has an order of rows of its own."""
_ROUNDS = 100
_LONGEST_RIVALS_S = 75.0


@dataclass(frozen=True, slots=True)
class Closing:
    """What follows a search."""

    n_candidates: int
    n_seeds: int
    """Fresh seeds of each candidate; 0 is no finals."""
    has_rivals: bool
    n_rows: int
    """Of train."""
    n_columns: int
    """Of train, as networks see it."""
    n_models: int
    """Trees of one round of gradient boosting: classes, or targets."""
    is_mirrored: bool
    unit_s: float
    """Seconds of the calibration."""

    def rivals_s(self) -> float:
        """Seconds of all rivals, as they are bounded."""
        if not self.has_rivals:
            return 0.0
        each = ROUND + CELL * self.n_rows * self.n_columns
        return min(_LONGEST_RIVALS_S, self.unit_s * (RIVALS + _ROUNDS * self.n_models * each))

    def export_s(self) -> float:
        """Seconds of an export, but for its training."""
        return self.unit_s * EXPORT

    def mirror_s(self, n_trials: int, *, is_up: bool, waited_s: float) -> float:
        """Seconds until MLflow has everything, from the export on.

        Args:
            n_trials: Of the study.
            is_up: Whether the tracking server answers.
            waited_s: How long ago it was started, at the export.
        """
        if not self.is_mirrored:
            return 0.0
        start = 0.0 if is_up else max(0.0, self.unit_s * (SERVER + MIRROR_TRIAL * n_trials) - waited_s)
        return start + self.unit_s * MIRROR


def calibrate(clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that a small piece of work takes the interpreter here: the least of some turns."""
    found = []
    for _ in range(_TURNS):
        began, total = clock(), 0
        for i in range(_LOOP):
            total += i
        found.append(clock() - began)
    return min(found)
