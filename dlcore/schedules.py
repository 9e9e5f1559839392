"""Names of schedules -> the learning rate of every step, as a multiple of the peak learning rate.

A schedule is a plain tensor made before training, so that the loop, a population and a resumed training
all read the same numbers and none keeps a scheduler's state.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dlcore.errors import ConfigError

# OneCycleLR's defaults: share of steps that rise, peak / first, first / last.
_RISING_SHARE = 0.3
_FIRST_DIVISOR = 25.0
_LAST_DIVISOR = 1e4


def learning_rate_factors(name: str, n_steps: int, warmup_steps: int = 0) -> Tensor:
    """The learning rate of each step, divided by the peak learning rate.

    Args:
        name: a key of `SCHEDULES`.
        n_steps: weight updates of the whole training, at least 1.
        warmup_steps: first steps, on which the rate rises; at most `n_steps`.

    Returns:
        Shape (n_steps,), float64, on the CPU.

    Raises:
        ConfigError: the name is unknown, or the numbers of steps do not fit.
    """
    if name not in SCHEDULES:
        raise ConfigError(f"schedule must be one of {', '.join(SCHEDULES)}; got {name!r}")
    if not (n_steps >= 1 and 0 <= warmup_steps <= n_steps):
        raise ConfigError(
            "a schedule needs n_steps >= 1 and warmup_steps in [0, n_steps]; "
            f"got n_steps = {n_steps}, warmup_steps = {warmup_steps}"
        )
    return SCHEDULES[name](n_steps, warmup_steps)


def _constant(n_steps: int, warmup_steps: int) -> Tensor:
    """1 after the warm-up."""
    return _with_warmup(torch.ones(n_steps - warmup_steps, dtype=torch.float64), warmup_steps)


def _cosine(n_steps: int, warmup_steps: int) -> Tensor:
    """(1 + cos(pi t / T)) / 2 at t = 0 .. T - 1 after the warm-up, so that 0 would come one step after the last.

    Loshchilov and Hutter, SGDR, arXiv:1608.03983, without restarts; torch's CosineAnnealingLR.
    """
    t = torch.arange(n_steps - warmup_steps, dtype=torch.float64)
    return _with_warmup((1 + torch.cos(math.pi * t / max(len(t), 1))) / 2, warmup_steps)


def _one_cycle(n_steps: int, warmup_steps: int) -> Tensor:
    """A rise from 1/25 to 1, then a fall to 1/250,000, both half cosines; a warm-up is the rise's length.

    Smith and Topin, Super-Convergence, arXiv:1708.07120; torch's OneCycleLR with its defaults.
    """
    top = (warmup_steps or _RISING_SHARE * n_steps) - 1.0  # the step at the peak, not always a whole number
    last = n_steps - 1.0
    t = torch.arange(n_steps, dtype=torch.float64)
    # A rise or fall of no length is at its end: top = 0 is the peak at the first step.
    risen = (t / top).clamp(max=1) if top > 0 else torch.ones_like(t)
    fallen = ((t - top) / (last - top)).clamp(min=0) if last > top else torch.zeros_like(t)
    first, end = 1 / _FIRST_DIVISOR, 1 / (_FIRST_DIVISOR * _LAST_DIVISOR)
    rise = _half_cosine(first, 1.0, risen)
    fall = _half_cosine(1.0, end, fallen)
    return torch.where(t <= top, rise, fall)


def _half_cosine(start: float, end: float, progress: Tensor) -> Tensor:
    """From start at progress 0 to end at progress 1, same shape as progress."""
    return end + (start - end) / 2 * (1 + torch.cos(math.pi * progress))


def _with_warmup(after: Tensor, warmup_steps: int) -> Tensor:
    """Put 1/(W+1), .., W/(W+1) before the factors: the peak is reached by the first step after the warm-up."""
    rise = torch.arange(1, warmup_steps + 1, dtype=torch.float64) / (warmup_steps + 1)
    return torch.cat([rise, after])


SCHEDULES: dict[str, Callable[[int, int], Tensor]] = {
    "constant": _constant,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
}
