"""The numbers of the pictures of `studies lr-range` and `studies compare`, and what they say: pure functions."""

import math
from dataclasses import dataclass

from studies.records import Objective


@dataclass(frozen=True, slots=True)
class RatePicture:
    """Loss over the learning rate of each step."""

    study: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    ends: tuple[float | None, float | None]
    """Between which rates the loss falls; None, None where it falls nowhere."""
    steepest: float | None
    has_edge: bool = True
    """Whether the loss rises again behind the range."""

    @property
    def line(self) -> str:
        """The range as a line of [search_space]; "" where there is none."""
        low, high = self.ends
        if low is None or high is None:
            return ""
        return f"learning_rate = {{ low = {rounded(low):g}, high = {rounded(high):g}, log = true }}"


@dataclass(frozen=True, slots=True)
class Lane:
    """The searches of one sampler."""

    sampler: str
    searches: tuple[tuple[float, ...], ...]
    """Of each seed the best value so far after 1, 2, .. trials; NaN before the first one."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Over the seeds, after 1, 2, .. trials."""
        return tuple(math.fsum(values) / len(values) for values in zip(*self.searches, strict=False))


@dataclass(frozen=True, slots=True)
class Race:
    """Several samplers on one budget."""

    objective: Objective
    lanes: tuple[Lane, ...]
    verdict: str


Picture = RatePicture | Race


def rounded(value: float) -> float:
    """Two digits, as people write a learning rate."""
    return float(f"{value:.1e}")


def rate_sentence(p: RatePicture) -> str:
    """What a range test shows."""
    low, high = p.ends
    if low is None or high is None or p.steepest is None:
        return (
            f"At none of {len(p.rates)} rates from {p.rates[0]:.1g} to {p.rates[-1]:.2g} the loss falls: the network "
            "does not learn; look at its initialization, and at the data."
        )
    learnt = f"there all is learnt, and no rate up to {p.rates[-1]:.2g} was too high"
    beyond = "beyond, it rises" if p.has_edge else learnt
    reached = min(loss for rate, loss in zip(p.rates, p.smoothed, strict=True) if rate <= high)
    return (
        f"The loss falls from {p.smoothed[0]:.3g} to {reached:.3g} between the rates {rounded(low):g} and "
        f"{rounded(high):g}, most steeply at {rounded(p.steepest):g}; {beyond}."
    )


def race_sentence(p: Race) -> str:
    """What the race of the samplers shows."""
    said = []
    for lane in p.lanes:
        known = [(i + 1, value) for i, value in enumerate(lane.mean) if math.isfinite(value)]
        if known:
            n, last = known[-1]
            soon = next(at for at, value in known if value == last)
            said.append(f"{lane.sampler} comes to {last:.4g} by trial {soon} of {n}")
        else:
            n = sum(math.isfinite(value) for own in lane.searches for value in own[-1:])
            often = f"a trial to its end in {n} of {len(lane.searches)} searches only" if n else "no trial to its end"
            said.append(f"{lane.sampler} trains {often}")
    many = max(len(lane.searches) for lane in p.lanes)
    what = f"Best {p.objective.metric} so far{f', the mean of {many} searches' if many > 1 else ''}: "
    return f"{what}{'; '.join(said)}. {p.verdict}"


def alternative(picture: Picture) -> str:
    """The text that stands for a picture where it cannot be seen."""
    if isinstance(picture, RatePicture):
        return (
            f"A line of training loss over the learning rate, both smoothed and as measured. {rate_sentence(picture)}"
        )
    return f"Stepped lines of the best value so far over trials, one for each sampler. {race_sentence(picture)}"
