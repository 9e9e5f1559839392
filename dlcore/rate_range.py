"""The learning-rate range test: one network, a rate that grows from step to step, and the loss of each step.

Leslie N. Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, section 3.3; here the rate grows
geometrically, as a learning rate is searched. Below some rate the loss does not move; above it, it falls; beyond the
edge of stability it rises again (of a quadratic with curvature a and momentum m: at 2 (1 + m) / a).
"""

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlcore.backbone import Backbone
from dlcore.config import ModelConfig, TrainConfig
from dlcore.precision import products_in
from dlcore.rows import TensorData
from dlcore.seeding import batch_order
from dlcore.training import Training

STEPS = 200
LOWEST, HIGHEST = 1e-6, 10.0
_EXPLODED = 4.0
"""Times the first loss: one that is higher ends the test."""
_BEGINS = 0.1
"""Of the whole fall: where the loss has fallen by so much, the range begins; a rise by so much is its end."""
_GROWS = 100.0
"""Times the lowest loss: of a loss that fell to nearly nothing a rise by so much is the end too."""
_DONE = 0.99
"""Of the whole fall: where so much is done, and no rise follows, there is nothing left to fall."""
_REACH = 4
"""Steps on each side that are averaged."""
_FALLS = 0.02
"""Of the first loss: a fall that is smaller is none."""
_BY_CHANCE = 4.0
"""Standard errors of a smoothed loss: the same."""


@dataclass(frozen=True, slots=True)
class RateRange:
    """What a test found."""

    rates: tuple[float, ...]
    """Of each step until the loss exploded, ascending."""
    losses: tuple[float, ...]
    """Training loss of the batch of each step, before the step."""
    smoothed: tuple[float, ...]
    low: float | None
    """From where the loss falls; None where no rate lets it fall."""
    high: float | None
    """Up to where it falls: beyond, it rises again, or there is nothing left to learn."""
    steepest: float | None
    """Where it falls fastest, by the rate's logarithm; at most half of `high`."""
    has_edge: bool = False
    """Whether the loss rises again beyond `high`, or diverges; else all was learnt before a rate was too high."""


def geometric(low: float, high: float, n: int) -> list[float]:
    """n rates from low to high, each the same number of times the one before."""
    return [low * (high / low) ** (i / (n - 1)) for i in range(n)]


def sweep(step: Callable[[float], float], rates: Sequence[float]) -> RateRange:
    """Take a step at each rate until the loss explodes, and read the losses.

    Args:
        step: Rate -> loss before the step that it takes.
        rates: Ascending.
    """
    losses: list[float] = []
    for rate in rates:
        loss = step(rate)
        if not math.isfinite(loss):
            break
        losses.append(loss)
        if loss > _EXPLODED * losses[0]:
            break
    return read(rates[: len(losses)], losses, diverged=len(losses) < len(rates))


def read(rates: Sequence[float], losses: Sequence[float], *, diverged: bool = False) -> RateRange:
    """The range that the losses of a sweep show.

    Args:
        rates: Ascending.
        losses: Of the step at each rate.
        diverged: Whether the next rate, or the last one, was too high.
    """
    smoothed = smooth(losses)
    nothing = RateRange(tuple(rates), tuple(losses), tuple(smoothed), None, None, None)
    if len(losses) < 3:
        return nothing
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
    first = math.fsum(losses[: max(1, lowest // 4)]) / max(1, lowest // 4)  # batches differ: one loss says little
    fall = first - smoothed[lowest]
    # Batches differ by chance, and of many means one lies lowest: the steps from loss to loss say how far.
    steps = [(b - a) ** 2 / 2 for a, b in itertools.pairwise(losses[: max(10, lowest + 1)])]
    near = min(_REACH, lowest, len(losses) - 1 - lowest)
    by_chance = math.sqrt(statistics.fmean(steps) * (1 / (2 * near + 1) + 1 / max(1, lowest // 4)))
    if fall < max(_FALLS * abs(first), _BY_CHANCE * by_chance):
        return nothing
    peak = max(smoothed[lowest:])
    has_edge = diverged or peak - smoothed[lowest] >= _BEGINS * fall or peak > _GROWS * smoothed[lowest]
    # A network that has learnt all its rows has no gradients left to diverge by, however high the rate grows.
    end = lowest if has_edge else next(i for i, loss in enumerate(smoothed) if first - loss >= _DONE * fall)
    # The last rate at which the loss had not fallen yet: before it, batches differ by chance.
    begins = max((i for i in range(end) if first - smoothed[i] < _BEGINS * fall), default=0)
    inside = [i for i in range(begins, end) if rates[i] <= rates[end] / 2] or [begins]
    steepest = min(inside, key=lambda i: _slope(smoothed, i, end))
    low = max(rates[0], min(rates[begins], rates[end] / 10))
    steep = min(rates[steepest], rates[end] / 2)
    return replace(nothing, low=low, high=rates[end], steepest=steep, has_edge=has_edge)


def _slope(smoothed: Sequence[float], at: int, last: int) -> float:
    """How the loss moves from a few steps before to a few steps behind."""
    before, behind = max(0, at - _REACH), min(last, at + _REACH)
    return (smoothed[behind] - smoothed[before]) / max(1, behind - before)


def smooth(losses: Sequence[float], reach: int = _REACH) -> list[float]:
    """The mean of each loss and its neighbours, so many on each side as both sides have: no lag, as an average that
    runs after the losses would have."""
    found = []
    for i in range(len(losses)):
        near = min(reach, i, len(losses) - 1 - i)
        found.append(math.fsum(losses[i - near : i + near + 1]) / (2 * near + 1))
    return found


def measure_rates(
    model_config: ModelConfig,
    train_config: TrainConfig,
    data: TensorData,
    seeds: tuple[int, int],
    n_steps: int = STEPS,
    backbone: Backbone | None = None,
) -> RateRange:
    """The test of one network, on batches of train; val is not looked at.

    Args:
        model_config: Its architecture.
        train_config: How it is trained; its learning rate, schedule and epochs do not matter.
        data: Preprocessed rows.
        seeds: Of the network, and of the order of its rows.
        n_steps: Steps from `LOWEST` to `HIGHEST`.
        backbone: What it begins with, where it is pretrained; the rate is that of its head.
    """
    plain = replace(train_config, schedule="constant", warmup_epochs=0)
    training = Training(model_config, plain, data, seed=seeds[0], order_seed=seeds[1], backbone=backbone)
    batches = _batches(len(data.x_train), plain.batch_size, seeds[1])

    def step(rate: float) -> float:
        with products_in(plain.precision):
            return float(training.step(next(batches).to(data.x_train.device), rate))

    return sweep(step, geometric(LOWEST, HIGHEST, n_steps))


def _batches(n_rows: int, size: int, order_seed: int) -> Iterator[Tensor]:
    """Whole batches of row numbers, epoch after epoch, without end; of a smaller table all rows."""
    for epoch in itertools.count(1):
        order = batch_order(order_seed, epoch, n_rows)
        yield from (rows for rows in torch.split(order, size) if len(rows) == min(size, n_rows))
