"""How long the rest of a search will take, from what was done so far: numbers in, a number out.

Two things are asked of the cohorts of the later half of those that were stored:

- What a trial of theirs took: the median, since start-up and other programs only ever add.
- How much more or less the next ones will take. Halving leaves about equal epochs to every cohort, but a search moves
  to networks of another size: a sampler that learns asks for what did well, so the next ones are taken to be like the
  best eighth of each cohort, its guides; one that does not learn asks for what it always asked. A network weighs its
  parameters, and something for each layer, since a small layer costs its calls and not its products.

What is paid once is left out: what came before the first epoch, and the longest pause in the first cohort, while
processes start and memory is filled. A cohort's own epochs say how far it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pow
from statistics import median_low

_LEAST_EPOCHS = 20
_LEAST_SHARE = 0.15
"""Of the first cohort; below both nothing is said."""
LAYER = 6_000
"""Parameters whose products take as long as a hidden layer's calls; measured on two cores, at a batch of 128."""
_GROWTH = 0.7
"""Power of the work with which seconds grow: asking, storing and measuring do not grow with networks. Of 0, 0.4, ... 1
the best on recorded searches; see benchmarks/pace.py."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a stored trial cost."""

    epochs: int
    weight: float
    """Of its network: what an epoch of it is beside one of another network; see `weight`."""
    is_guide: bool
    """Whether it is of the best of its cohort: the next ones will be like it, if the sampler learns."""


def weight(n_parameters: int, depth: int) -> float:
    """What an epoch of a network is beside one of another network, from what is always known of it."""
    return float(n_parameters + LAYER * depth)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A cohort, or what of it was stored at once."""

    n_trials: int
    epochs: int
    work: float
    n_guides: int
    weight: float
    """Of all its guides."""
    at: float
    """When it was stored."""


class Pace:
    """Seconds until a number of trials is trained."""

    def __init__(self, began: float, epochs_per_trial: float, cohort: int, *, is_guided: bool = True) -> None:
        """Begin at a time.

        Args:
            began: When the search began, by any clock.
            epochs_per_trial: Mean epochs of a trial as the rungs leave them, at most.
            cohort: Trials of a cohort.
            is_guided: Whether the sampler learns from trials.
        """
        self._cohort, self._is_guided = cohort, is_guided
        self._expected = epochs_per_trial * cohort
        self._start, self._latest = began, began
        """When the first cohort began, less its pause; when something was heard."""
        self._pause = 0.0
        self._stored: list[_Stored] = []
        self._epochs = self._all_epochs = 0
        """Epochs heard of since trials were stored last, and before that."""
        self._underway: Sequence[float] = ()
        """Weights of the cohort that is being trained, where that is known."""

    def began(self, weights: Sequence[float]) -> None:
        """A cohort of networks of such weights is being trained."""
        self._underway = tuple(weights)

    def epoch(self, now: float) -> None:
        """A trial finished an epoch."""
        if not self._stored and self._epochs == 0:
            self._start = now
        elif not self._stored and now - self._latest > self._pause:
            self._pause = now - self._latest
        self._latest = now
        self._epochs += 1

    def told(self, trials: Sequence[Trained], now: float) -> None:
        """A cohort of trials was stored."""
        if not trials:
            return
        guides = [t.weight for t in trials if t.is_guide]
        epochs, work = sum(t.epochs for t in trials), sum(t.epochs * t.weight for t in trials)
        self._stored.append(_Stored(len(trials), epochs, work, len(guides), sum(guides), now))
        self._all_epochs += self._epochs
        self._epochs, self._underway = 0, ()

    def left(self, n_left: int, now: float) -> float | None:
        """Seconds until `n_left` more trials are stored; None where nothing is known yet."""
        if n_left == 0:
            return 0.0
        if not self._stored:
            share = min(1.0, self._epochs / self._expected)
            if self._epochs < _LEAST_EPOCHS or share < _LEAST_SHARE:
                return None
            spent = now - self._start - self._pause
            return spent / share * n_left / self._cohort - spent
        # Of epochs that are told now and then only, as by workers, a cohort has fewer than it trains.
        heard = self._all_epochs / sum(c.n_trials for c in self._stored) * self._cohort
        share = min(1.0, self._epochs / heard) if heard else 0.0
        n_underway = min(n_left, len(self._underway) or self._cohort)
        each = self._each(sum(self._underway) / len(self._underway)) if self._underway else self._each()
        return each * n_underway * (1 - share) + self._each() * (n_left - n_underway)

    def together(self, weights: Sequence[float], epochs: float) -> float | None:
        """Seconds that networks of such weights train together for so many epochs; None where nothing is known yet."""
        if not self._stored or not weights:
            return None if weights else 0.0
        return len(weights) * self._priced(epochs * sum(weights) / len(weights))

    def cohort_s(self) -> float:
        """Seconds of a whole cohort; 0 where nothing is known yet."""
        return self._cohort * self._each() if self._stored else 0.0

    def _each(self, weight: float | None = None) -> float:
        """Seconds that one more trial takes, of a network of that weight or like the guides."""
        later = self._stored[len(self._stored) // 2 :]
        n_guides = sum(c.n_guides for c in later)
        if weight is None and self._is_guided and n_guides:
            weight = sum(c.weight for c in later) / n_guides
        if weight is None:
            return self._priced(None)
        return self._priced(weight * sum(c.epochs for c in later) / sum(c.n_trials for c in later))

    def _priced(self, work: float | None) -> float:
        """Seconds of a trial of so much work: the median of what the later cohorts say, of two the lower.

        Args:
            work: Epochs times weight; None is a trial like those that were trained.
        """
        half = len(self._stored) // 2
        later = self._stored[half:]
        since = [self._stored[half - 1].at if half else self._start + self._pause, *(c.at for c in later)]
        seconds = [(c.at - then) / c.n_trials for then, c in zip(since, later, strict=False)]
        if work is None or not all(c.work for c in later):
            return median_low(seconds)
        ratios = [work / (c.work / c.n_trials) for c in later]
        return median_low([s * pow(ratio, _GROWTH) for s, ratio in zip(seconds, ratios, strict=True)])
