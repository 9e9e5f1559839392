"""Names of metrics -> functions that people read, for one network or a whole population at once.

Every function works on any leading dimensions and on any device, without a loop over members, and gives one
number per leading index: float64, or float32 on MPS, which has nothing wider. NaN in a member's predictions
gives NaN for that member, never an exception.

Classification predictions are probabilities (..., N, C), two columns for a binary task; targets are classes
(..., N), int64, shared by all members or one row each. Regression predictions are (..., N, C) and targets
(N, C) or (..., N, C), in the target's own units; several targets count the same. `dlcore.tasks` brings a
network's outputs into this form.

All follow scikit-learn's functions of the same names, which the tests compare them with.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MetricFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric."""

    name: str
    """Its key in `METRICS`."""
    function: MetricFunction
    """(predictions, targets) -> one number per leading index."""
    direction: str
    """"maximize" or "minimize"."""


def widest_dtype(device: torch.device) -> torch.dtype:
    """The most exact floating type of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


def _nan_where_nan(values: Tensor, predictions: Tensor) -> Tensor:
    """Values (...,) with NaN where any of the predictions (..., N, C) is NaN."""
    # A maximum is NaN where one of its numbers is, and takes a tenth of the time of looking at each.
    return values.masked_fill(predictions.amax((-2, -1)).isnan(), torch.nan)


def _confusion(predictions: Tensor, targets: Tensor) -> Tensor:
    """How many rows of class i (dim -2) are given class j (dim -1): (..., N, C) -> (..., C, C).

    The class given is the most probable one, on ties the first: class 0 at a binary 0.5, as in scikit-learn.
    """
    n_classes = predictions.shape[-1]
    cells = targets * n_classes + predictions.contiguous().argmax(-1)  # (..., N)
    counts = torch.zeros(*cells.shape[:-1], n_classes**2, dtype=torch.int64, device=cells.device)
    # Whole numbers: unlike sums of floats, the same in any order, so the same on every run on a GPU.
    counts.scatter_add_(-1, cells, torch.ones_like(cells))
    square = counts.view(*cells.shape[:-1], n_classes, n_classes)
    return square.to(widest_dtype(cells.device))


def _accuracy(predictions: Tensor, targets: Tensor) -> Tensor:
    """Share of rows whose most probable class is right; on ties the first, as in `_confusion`."""
    classes = targets.expand(predictions.shape[:-1]).unsqueeze(-1)
    right = predictions.gather(-1, classes).squeeze(-1)
    # By maxima alone, not by argmax, which is many times slower where the classes are not side by side, as in a
    # population: the right class has the highest number, and those of the classes before it are lower.
    n_classes = torch.arange(predictions.shape[-1], device=predictions.device)
    is_before = (n_classes.unsqueeze(-1) < targets.unsqueeze(-2)).mT  # laid out alike
    masked = torch.where(is_before, 0.0, -torch.inf).to(predictions.dtype) + predictions
    is_right = (right == predictions.amax(-1)) & (right > masked.amax(-1))
    return _nan_where_nan(is_right.to(widest_dtype(is_right.device)).mean(-1), predictions)


def _balanced_accuracy(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean over the classes seen in the targets of the share of their rows that is right."""
    confusion = _confusion(predictions, targets)
    recalls = confusion.diagonal(dim1=-2, dim2=-1) / confusion.sum(-1)  # 0 / 0 is NaN: class not seen
    return _nan_where_nan(recalls.nanmean(-1), predictions)


def _f1(predictions: Tensor, targets: Tensor) -> Tensor:
    """2 tp / (2 tp + fp + fn): of class 1 if there are two classes (average="binary"), else the mean over the
    classes seen in targets or predictions (average="macro"); 0 where class 1 is in neither (zero_division)."""
    confusion = _confusion(predictions, targets)
    twice_right = 2 * confusion.diagonal(dim1=-2, dim2=-1)
    per_class = twice_right / (confusion.sum(-1) + confusion.sum(-2))
    values = per_class[..., 1].nan_to_num(nan=0.0) if per_class.shape[-1] == 2 else per_class.nanmean(-1)
    return _nan_where_nan(values, predictions)


def _roc_auc(predictions: Tensor, targets: Tensor) -> Tensor:
    """Probability that a row of a class gets a higher probability for it than a row of another class does.

    Two classes: of class 1. More: mean over the classes, each against the rest (multi_class="ovr",
    average="macro"), leaving out those that no row has or all rows have; NaN if none is left. From ranks, ties
    sharing their mean rank: Hanley and McNeil, Radiology 143, 1982 (Mann and Whitney's U).
    """
    n_classes = predictions.shape[-1]
    is_class = F.one_hot(targets, n_classes).transpose(-1, -2)  # (..., C, N)
    scores = predictions.transpose(-1, -2)
    if n_classes == 2:
        is_class, scores = is_class[..., 1:, :], scores[..., 1:, :]
    scores = scores.contiguous()
    ordered = scores.sort(-1).values
    twice_rank = 1 + torch.searchsorted(ordered, scores) + torch.searchsorted(ordered, scores, right=True)
    n_in = is_class.sum(-1)
    n_out = is_class.shape[-1] - n_in
    # Twice U and twice the pairs, in whole numbers, so that no rounding enters before the division.
    wins = (twice_rank * is_class).sum(-1) - n_in * (n_in + 1)
    values = wins.to(widest_dtype(wins.device)) / (2 * n_in * n_out)
    return _nan_where_nan(values.nanmean(-1), predictions)


def _log_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean of -log(probability of the right class), clipped to [eps, 1 - eps] of the predictions' type."""
    classes = targets.expand(predictions.shape[:-1]).unsqueeze(-1)
    right = predictions.gather(-1, classes).squeeze(-1).to(widest_dtype(predictions.device))
    eps = torch.finfo(predictions.dtype).eps
    return _nan_where_nan(-right.clamp(eps, 1 - eps).log().mean(-1), predictions)


def _errors(predictions: Tensor, targets: Tensor) -> Tensor:
    """Prediction minus target, (..., N, C), in the widest type."""
    wide = widest_dtype(predictions.device)
    return predictions.to(wide) - targets.to(wide)


def _rmse(predictions: Tensor, targets: Tensor) -> Tensor:
    """Root of the mean squared error of each target, in its units; then the mean over targets."""
    return _errors(predictions, targets).square().mean(-2).sqrt().mean(-1)


def _mae(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error of each target, in its units; then the mean over targets."""
    return _errors(predictions, targets).abs().mean(-2).mean(-1)


def _r2(predictions: Tensor, targets: Tensor) -> Tensor:
    """1 - squared error / squared deviation from the mean target; then the mean over targets.

    A target that does not vary gives 1 if all is right, else 0 (force_finite); fewer than 2 rows give NaN.
    """
    wide = targets.to(widest_dtype(targets.device))
    left = _errors(predictions, targets).square().sum(-2)  # (..., C)
    spread = (wide - wide.mean(-2, keepdim=True)).square().sum(-2)
    varies = (wide != wide[..., :1, :]).any(-2)  # not spread > 0: the mean of equal numbers may differ from them
    values = torch.where(varies, 1 - left / spread, (left == 0).to(left.dtype)).mean(-1)
    return _nan_where_nan(values, predictions) if targets.shape[-2] >= 2 else torch.full_like(values, torch.nan)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", _accuracy, "maximize"),
        Metric("balanced_accuracy", _balanced_accuracy, "maximize"),
        Metric("f1", _f1, "maximize"),
        Metric("roc_auc", _roc_auc, "maximize"),
        Metric("log_loss", _log_loss, "minimize"),
        Metric("rmse", _rmse, "minimize"),
        Metric("mae", _mae, "minimize"),
        Metric("r2", _r2, "maximize"),
    )
}
