"""The learning curve of one network: its epochs, which of them is the best, and when training has failed.

Both engines (`dlcore.training`, `dlcore.population`) judge by these functions, so that they cannot disagree.
Pure numbers, no tensors.
"""

import math
from dataclasses import dataclass

from dlcore.config import LOWER_IS_BETTER

DIVERGED_AT = 1e4
"""Times the first step's training loss: above it a training has diverged."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One point of the curve."""

    epoch: int
    """Counts from 1."""
    train_loss: float
    """Mean over the training rows, each as seen during the epoch, with dropout."""
    val_loss: float
    val_metric: float
    """The objective on val; the task's default metric where the objective is the loss."""
    learning_rate: float
    """Of the epoch's last step."""
    finished_at: float
    """Seconds since 1970, UTC."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Why and when a training failed. A result, not an error."""

    epoch: int
    """The epoch in which it diverged, from 1; it is not part of the curve."""
    reason: str


def objective_value(epoch: Epoch, objective: str) -> float:
    """The number that `objective` (as in `TrainConfig.objective`) reads from an epoch."""
    return epoch.val_loss if objective == "loss" else epoch.val_metric


def is_better(left: Epoch, right: Epoch | None, objective: str) -> bool:
    """Whether `left` beats `right` strictly.

    By the objective; ties go to the lower val loss, then to the earlier epoch. Numbers that are not finite
    never beat anything, not even None (no epoch at all).
    """
    if not (math.isfinite(left.val_loss) and math.isfinite(objective_value(left, objective))):
        return False
    if right is None:
        return True
    return _rank(left, objective) < _rank(right, objective)


def _rank(epoch: Epoch, objective: str) -> tuple[float, float, int]:
    """Sorts the best epoch first."""
    value = objective_value(epoch, objective)
    return (value if objective in LOWER_IS_BETTER else -value, epoch.val_loss, epoch.epoch)


def is_out_of_patience(epoch: int, best_epoch: int, patience: int | None) -> bool:
    """Whether `patience` epochs went by without a better one; `best_epoch` is 0 where there is none yet."""
    return patience is not None and epoch - best_epoch >= patience


def find_divergence(epoch: int, first_loss: float, train_loss: float, highest_loss: float) -> Divergence | None:
    """Judge the training losses of one epoch.

    The mean is judged, against no less than 1: a first batch without an outlier has a loss near 0 and a later batch
    with one a very large loss, in a training where nothing is wrong. Whoever predicts the mean of standardised targets
    has a loss of 1, and of C even classes log C.

    Args:
        epoch: Its number, from 1.
        first_loss: Training loss of the very first step.
        train_loss: Mean training loss of this epoch.
        highest_loss: The largest training loss of any step of this epoch; NaN if one of them was NaN.

    Returns:
        The divergence, or None while all is well.
    """
    if not math.isfinite(highest_loss):
        return Divergence(epoch, f"training loss is not finite in epoch {epoch}")
    if train_loss > DIVERGED_AT * max(first_loss, 1.0):
        return Divergence(
            epoch,
            f"training loss {train_loss:.3g} in epoch {epoch} is above "
            f"{DIVERGED_AT:g} times the first step's {first_loss:.3g} (or 1, if that is more)",
        )
    return None
