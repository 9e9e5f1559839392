"""How long the rest of a search will take, from what was done so far: numbers in, a number out.

Trials are stored a cohort at a time, and halving stops most of them early: so a cohort's own epochs say how far it is,
and the price of a trial is taken from the later half of those that were stored, since a search moves to networks of
another size. What is paid once is not in the price: what came before the first epoch, and the longest pause in the
first cohort, while processes start and memory is filled.
"""

from collections import deque

_LEAST_EPOCHS = 20
_LEAST_SHARE = 0.15
"""Of the first cohort; below both nothing is said."""


class Pace:
    """Seconds until a number of trials is trained."""

    def __init__(self, began: float, epochs_per_trial: float, cohort: int) -> None:
        """Begin at a time.

        Args:
            began: When the search began, by any clock.
            epochs_per_trial: Mean epochs of a trial as the rungs leave them, at most.
            cohort: Trials of a cohort.
        """
        self._cohort = cohort
        self._expected = epochs_per_trial * cohort
        self._start, self._latest = began, began
        """When the first cohort began, less its pause; when something was heard."""
        self._pause = 0.0
        self._told: deque[tuple[int, float]] = deque(maxlen=256)
        """Trials stored so far and when, one entry a cohort."""
        self._epochs = self._all_epochs = 0
        """Epochs heard of since trials were stored last, and before that."""

    def epoch(self, now: float) -> None:
        """A trial finished an epoch."""
        if not self._told and self._epochs == 0:
            self._start = now
        elif not self._told and now - self._latest > self._pause:
            self._pause = now - self._latest
        self._latest = now
        self._epochs += 1

    def told(self, n_trials: int, now: float) -> None:
        """A cohort of trials was stored."""
        n = self._told[-1][0] if self._told else 0
        self._told.append((n + n_trials, now))
        self._all_epochs += self._epochs
        self._epochs = 0

    def left(self, n_left: int, now: float) -> float | None:
        """Seconds until `n_left` more trials are stored; None where nothing is known yet."""
        if n_left == 0:
            return 0.0
        if not self._told:
            share = min(1.0, self._epochs / self._expected)
            if self._epochs < _LEAST_EPOCHS or share < _LEAST_SHARE:
                return None
            spent = now - self._start - self._pause
            return spent / share * n_left / self._cohort - spent
        n, at = self._told[-1]
        before, since = 0, self._start + self._pause
        for m, then in self._told:
            if m > n / 2 or m == n:
                break
            before, since = m, then
        each = (at - since) / (n - before)
        # Of epochs that are told now and then only, as by workers, a cohort has fewer than it trains.
        heard = self._all_epochs / n * self._cohort
        underway = min(1.0, self._epochs / heard) if heard else 0.0
        return each * max(0.0, n_left - underway * min(self._cohort, n_left))
