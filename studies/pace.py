"""How long the rest of a search will take, from what was done so far: numbers in, a number out.

Trials are stored a cohort at a time, and halving stops most of them early: so a cohort's own epochs say how far it is,
and the price of a trial is taken from the later half of those that were stored, since a search moves to networks of
another size. What came before the first epoch (processes that start, memory that is filled) is paid once.
"""

from collections import deque


class Pace:
    """Seconds until a number of trials is trained."""

    def __init__(self, began: float, epochs_per_trial: float, cohort: int) -> None:
        """Begin at a time.

        Args:
            began: When the search began, by any clock.
            epochs_per_trial: Mean epochs of a trial as the rungs leave them, at most.
            cohort: Trials of a cohort.
        """
        self._began, self._cohort = began, cohort
        self._expected = epochs_per_trial
        self._first: float | None = None
        self._told: deque[tuple[int, float]] = deque(maxlen=256)
        """Trials stored so far and when, one entry a cohort."""
        self._epochs = 0
        """Epochs of trials that are not stored yet."""

    def epoch(self, now: float) -> None:
        """A trial finished an epoch."""
        if self._first is None:
            self._first = now
        self._epochs += 1

    def told(self, n_trials: int, now: float) -> None:
        """A cohort of trials was stored."""
        if self._first is None:
            self._first = self._began  # nobody told of its epochs
        n = self._told[-1][0] if self._told else 0
        self._told.append((n + n_trials, now))
        self._epochs = 0

    def left(self, n_left: int, now: float) -> float | None:
        """Seconds until `n_left` more trials are stored; None where nothing is known yet."""
        if n_left == 0:
            return 0.0
        if self._first is None:
            return None
        if not self._told:
            share = min(1.0, self._epochs / (self._expected * self._cohort))
            spent = now - self._first
            return spent / share * n_left / self._cohort - spent if share > 0 and spent > 0 else None
        n, at = self._told[-1]
        before, since = 0, self._first
        for m, then in self._told:
            if m > n / 2 or m == n:
                break
            before, since = m, then
        each = (at - since) / (n - before)
        return max(0.0, each * n_left - (now - at))
