"""How long a command goes on when its search is over: finals, rivals, export, MLflow. Numbers in, seconds out.

Finals and export train networks at the price that the search has found. All else takes what it takes on any machine,
in units of a small calibration: a loop of the interpreter, timed when the study begins. While a tracking server starts
it takes cores from the training, so that what is learned then is no price for later: `Hindrance` counts the seconds
that training alone would have had. The constants were measured on two cores; see `benchmarks/pace.py`.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from studies.records import TrialRecord

_LOOP = 100_000
_TURNS = 3
EXPORT, RIVALS, SERVER, MIRROR, MIRROR_TRIAL = 60.0, 18.0, 1_400.0, 1_150.0, 0.25
"""Of export without its training, rivals on the smallest table, the start of a tracking server, registration with the
report, and one trial in MLflow before any was written; in units."""
ROUND, CELL = 0.25, 5.3e-6
"""Of gradient boosting's rounds, each for each class, and of each cell of train in each of them."""
FRESH = 1.35
"""How much longer networks on fresh seeds take than those of the search: each has an order of rows of its own."""
_ROUNDS = 100
_LONGEST_RIVALS_S = 75.0
_LARGEST_SHARE = 0.25
"""Of the time that a study took, where time limits it, its finals may take so much more."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What trials MLflow is still to get."""

    n_trials: int = 0
    each_s: float | None = None
    """Seconds that one took so far; None where none was written yet."""
    share: float = 1.0
    """Of the time, in which they are written until the command waits for that."""


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

    def whole_s(
        self, training_s: float, writing_s: float, starting_s: float, slowdown: float, waited_s: float = 0.0
    ) -> float:
        """Seconds until everything is done, MLflow included.

        Args:
            training_s: That training and rivals and export would take alone.
            writing_s: That the trials take which MLflow still lacks then.
            starting_s: In so many the tracking server will be up.
            slowdown: How much longer everything takes until then.
            waited_s: How long a tracking server took to start in this run, or takes so far: where that is longer than
                foretold, so is the registration, which is work of the same kind.
        """
        here_s = hindered(training_s, starting_s, slowdown)
        if not self.is_mirrored:
            return here_s
        registering_s = MIRROR * max(self.unit_s, waited_s / SERVER)
        return max(here_s, starting_s) + writing_s + registering_s

    def writing_s(self, backlog: Backlog, n_to_come: int, meanwhile_s: float) -> float:
        """Seconds that trials take which MLflow lacks when the command waits for it.

        Args:
            backlog: Those of now.
            n_to_come: Those that are still to be trained.
            meanwhile_s: Until the command waits, as far as the tracking server is up.
        """
        each_s = self.unit_s * MIRROR_TRIAL if backlog.each_s is None else backlog.each_s
        return max(0.0, each_s * (backlog.n_trials + n_to_come) - meanwhile_s * backlog.share)

    def starting_s(self, waited_s: float) -> float:
        """In how many seconds a tracking server that was started so long ago will be up."""
        return max(0.0, self.unit_s * SERVER - waited_s) if self.is_mirrored else 0.0


def seeds_within(trials: Sequence[TrialRecord], n_seeds: int, spent_s: float) -> int:
    """How many seeds the finals of a study that time limits can afford, at least 2.

    Args:
        trials: The candidates.
        n_seeds: What the spec asks for.
        spent_s: Seconds of training that the study took.
    """
    once_s = sum((t.duration_s or 0.0) / t.population_size for t in trials)
    affordable = _LARGEST_SHARE * spent_s / once_s if once_s > 0 else math.inf
    return min(n_seeds, max(2, math.floor(min(affordable, n_seeds))))


def hindered(seconds: float, starting_s: float, slowdown: float) -> float:
    """What work takes that would take so many seconds alone, where other work goes on for a while.

    Args:
        seconds: Alone.
        starting_s: How long the other work goes on.
        slowdown: How much longer the work takes meanwhile: 1 is twice as long.
    """
    return min(seconds * (1 + slowdown), seconds + starting_s * slowdown / (1 + slowdown))


class Hindrance:
    """A clock that runs slower while a tracking server starts."""

    def __init__(self, clock: Callable[[], float], is_up: Callable[[], bool], slowdown: float) -> None:
        """Begin at what the clock shows.

        Args:
            clock: Gives seconds.
            is_up: Whether the server answers.
            slowdown: How much longer everything takes until then: 1 is twice as long.
        """
        self._clock, self._is_up, self._slowdown = clock, is_up, slowdown
        self._at = self._counted = clock()

    def __call__(self) -> float:
        """Seconds that work has had."""
        now = self._clock()
        self._counted += (now - self._at) / (1.0 if self._is_up() else 1 + self._slowdown)
        self._at = now
        return self._counted


def calibrate(clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that a small piece of work takes the interpreter here: the least of some turns."""
    found = []
    for _ in range(_TURNS):
        began, total = clock(), 0
        for i in range(_LOOP):
            total += i
        found.append(clock() - began)
    return min(found)
