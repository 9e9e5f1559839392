"""What one network's curve says in words: it fits, overfits, underfits, is unstable, is not done, or diverged; pure
functions.

Losses are compared with the loss of guessing, so that one threshold serves every task: whoever predicts the mean of
standardised targets has a loss of 1, and of C even classes log C.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from studies.records import EpochRecord

FITS, OVERFITS, UNDERFITS, UNFINISHED, DIVERGED = "fits", "overfits", "underfits", "unfinished", "diverged"
UNSTABLE, NOT_COMPARED = "unstable", "not compared"
KINDS = (FITS, OVERFITS, UNDERFITS, UNSTABLE, UNFINISHED, DIVERGED, NOT_COMPARED)

_WIDE_GAP = 0.1
"""Of guessing's loss: val may be so much above train, or behind its best epoch above that epoch's."""
_HARDLY_LEARNED = 0.8
"""Of guessing's loss: a network whose loss on train is above it learned little."""
_LATE = 0.9
"""Of all epochs: a best epoch behind it is late."""
_STILL_FALLS = 0.01
"""Of guessing's loss: by so much val has to fall in the last quarter of a curve to be still on its way."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a network took to its rows."""

    kind: str
    """One of `KINDS`."""
    text: str
    """A sentence that begins with the kind in words and names the numbers it is taken from."""
    gap: float
    """Val loss less train loss at the best epoch, as a share of guessing's loss; NaN where it diverged."""
    best_epoch: int | None
    """Epoch that is meant, from 1."""


def guessing_loss(task: str, n_outputs: int) -> float:
    """Loss of one who knows the target's distribution alone, of even classes or standardised targets."""
    return 1.0 if task == "regression" else math.log(max(2, n_outputs))


def read_curve(
    curve: Sequence[EpochRecord], guessing: float, *, epochs: int | None = None, best_epoch: int | None = None
) -> Fit:
    """What a curve says.

    Args:
        curve: From epoch 1; empty where training diverged at once.
        guessing: As `guessing_loss` gives it.
        epochs: That the training might have had; None is those of the curve.
        best_epoch: The one whose weights are kept; None is that of the lowest val loss.
    """
    finite = [e for e in curve if math.isfinite(e.train_loss) and math.isfinite(e.val_loss)]
    if not finite:
        return Fit(DIVERGED, "diverged: no epoch has a finite loss", math.nan, None)
    lowest = min(finite, key=lambda e: e.val_loss)
    best = next((e for e in finite if e.epoch == best_epoch), lowest)
    gap, last = (best.val_loss - best.train_loss) / guessing, finite[-1]
    losses = f"loss {best.train_loss:.3g} on train and {best.val_loss:.3g} on val at epoch {best.epoch}"
    is_rising = last.val_loss - lowest.val_loss > _WIDE_GAP * guessing
    after = f", and val grew worse to {last.val_loss:.3g} at epoch {last.epoch}" if is_rising else ""
    if gap > _WIDE_GAP:
        return Fit(OVERFITS, f"overfits: {losses}{after} (guessing has {guessing:.3g})", gap, best.epoch)
    if best.train_loss > _HARDLY_LEARNED * guessing:
        return Fit(UNDERFITS, f"underfits: {losses}, little below guessing's {guessing:.3g}", gap, best.epoch)
    worst = max((e for e in finite if e.epoch >= best.epoch), key=lambda e: e.val_loss)
    if worst.val_loss - best.val_loss > _WIDE_GAP * guessing:
        there = f"{worst.train_loss:.3g} on train and {worst.val_loss:.3g} on val at epoch {worst.epoch}"
        if worst.train_loss > best.train_loss:
            return Fit(UNSTABLE, f"is unstable: {losses}, whose weights are kept, then {there}", gap, best.epoch)
        return Fit(OVERFITS, f"overfits later: {losses}, whose weights are kept, then {there}", gap, best.epoch)
    if _is_falling(finite, guessing) and best.epoch > _LATE * (epochs or last.epoch):
        return Fit(UNFINISHED, f"is not done: {losses}, and val was still falling", gap, best.epoch)
    return Fit(FITS, f"fits: {losses} (guessing has {guessing:.3g})", gap, best.epoch)


def not_compared(curve: Sequence[EpochRecord], names: Sequence[str], best_epoch: int | None) -> Fit:
    """What is said of a curve, not empty, whose loss on train is another one than its loss on val.

    Args:
        curve: From epoch 1.
        names: Of the hyperparameters that make it another one.
        best_epoch: The one whose weights are kept; None is that of the lowest val loss.
    """
    lowest = min(curve, key=lambda e: e.val_loss if math.isfinite(e.val_loss) else math.inf)
    best = next((e for e in curve if e.epoch == best_epoch), lowest)
    text = (
        f"is not compared: loss {best.val_loss:.3g} on val at epoch {best.epoch}; with {' and '.join(names)} "
        "the loss on train is another one"
    )
    return Fit(NOT_COMPARED, text, math.nan, best.epoch)


def _is_falling(curve: Sequence[EpochRecord], guessing: float) -> bool:
    """Whether val is lower at the end than three quarters of the way."""
    n = len(curve)
    if n < 4:
        return False
    before = min(e.val_loss for e in curve[: n - n // 4])
    return before - min(e.val_loss for e in curve[n - n // 4 :]) > _STILL_FALLS * guessing
