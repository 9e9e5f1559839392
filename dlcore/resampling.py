"""What other test rows would have said: a paired bootstrap over rows (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapters 6 and 13).

Rows are drawn with replacement, the same ones for every model, and each model's answers, which were made once, are
measured on them. How far a value, or the difference of two models, moves from draw to draw is how far it would have
moved with other rows of the same kind. A draw is how often each row is in it, so that each model's answers are sorted
and taken apart once and all draws are sums with weights; `dlcore.metrics` on the drawn rows is the readable twin.

With few rows a bootstrap is a little bold: of two equally good models on 20 rows it calls one ahead in 8 of 100 tables,
on 100 rows in 6, where 5 were asked for (`tests/dlcore/test_resampling.py` counts them).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlcore.config import metrics_of
from dlcore.seeding import generator
from dlcore.tasks import Task

MOST_DRAWS = 1_000
_FEWEST_DRAWS = 200
_WORK = 40_000_000
"""Draws times rows times outputs of one model, beyond which there are fewer draws."""
_CHUNK = 4_000_000
"""Weights of the draws that are in memory at once: 32 MB."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Where 95 of 100 draws are."""

    low: float
    high: float


Spreads = Mapping[str, Spread]
"""Of "loss" and each metric of the task."""


def compare(
    task: Task, own: Sequence[Tensor], others: Sequence[Tensor], y: Tensor, seed: int
) -> tuple[Spreads, list[Spreads]]:
    """One kind of network, trained several times, beside other models on the same draws of rows.

    Args:
        task: What their outputs mean.
        own: Outputs (N, C) of each of the networks; their mean value counts.
        others: Outputs (N, C) of each other model for the same rows.
        y: Targets (N,) or (N, C) as the loss wants them.
        seed: The same draws come of the same seed.

    Returns:
        Of the networks' mean value, and for each other model of that mean minus its value.
    """
    drawn = measure_draws(task, [*own, *others], y, seed)
    means = {name: torch.stack([found[name] for found in drawn[: len(own)]]).mean(0) for name in drawn[0]}
    leads = [{name: means[name] - found[name] for name in means} for found in drawn[len(own) :]]
    alone, *beside = [_spreads(found) for found in (means, *leads)]
    return alone, beside


def _spreads(found: Mapping[str, Tensor]) -> Spreads:
    """Of values, one per draw (D,); draws on which a metric is not defined are left out."""
    ends = {name: torch.nanquantile(values, values.new_tensor([0.025, 0.975])) for name, values in found.items()}
    return {name: Spread(*values.tolist()) for name, values in ends.items()}


def measure_draws(task: Task, answers: Sequence[Tensor], y: Tensor, seed: int) -> list[dict[str, Tensor]]:
    """Measure models on the same draws of rows.

    Args:
        task: What their outputs mean.
        answers: Outputs (N, C) of each model for the same rows.
        y: Targets (N,) or (N, C) as the loss wants them.
        seed: The same draws come of the same seed.

    Returns:
        Of each model "loss" and each metric of the task -> its values (D,), float64.
    """
    models = [_Answers(task, outputs.cpu(), y.cpu()) for outputs in answers]
    found: list[dict[str, list[Tensor]]] = [{} for _ in models]
    for weights in _draws(len(y), n_draws(len(y), task.n_outputs), seed):
        for model, own in zip(models, found, strict=True):
            for name, values in model.measure(weights).items():
                own.setdefault(name, []).append(values)
    return [{name: torch.cat(values) for name, values in own.items()} for own in found]


def n_draws(n_rows: int, n_outputs: int) -> int:
    """How many draws: fewer of many rows, which differ less from draw to draw."""
    return max(_FEWEST_DRAWS, min(MOST_DRAWS, _WORK // (n_rows * n_outputs)))


def _draws(n_rows: int, n: int, seed: int) -> Iterator[Tensor]:
    """How often each row is in each of n draws, a few draws at a time: (d, N), float64."""
    own = generator(seed, "draws of rows")
    at_once = max(1, _CHUNK // n_rows)
    for begin in range(0, n, at_once):
        size = min(at_once, n - begin)
        rows = torch.randint(n_rows, (size, n_rows), generator=own)
        yield torch.zeros(size, n_rows, dtype=torch.float64).scatter_add_(
            1, rows, torch.ones(1, 1, dtype=torch.float64).expand(size, n_rows)
        )


class _Answers:
    """One model's answers, taken apart so that a draw is a sum with weights."""

    def __init__(self, task: Task, outputs: Tensor, y: Tensor) -> None:
        wide = outputs.double()
        own = y.double() if y.is_floating_point() else y
        self._task = task
        self._loss = task.loss(wide.unsqueeze(1), own.unsqueeze(1))  # a row is a batch of its own: (N,)
        if task.name == "regression":
            self._targets = task.in_own_units(own, is_prediction=False)
            self._errors = task.predict(wide) - self._targets  # (N, C)
            return
        found = task.predict(wide)
        predictions = torch.stack([1 - found, found], -1) if task.name == "binary" else found
        self._n_classes = predictions.shape[-1]
        self._classes = y.long()
        self._cells = self._classes * self._n_classes + predictions.argmax(-1)
        ranked = range(1, 2) if self._n_classes == 2 else range(self._n_classes)
        self._ranks = [_Ranks(predictions[:, c], self._classes == c) for c in ranked]

    def measure(self, weights: Tensor) -> dict[str, Tensor]:
        """Loss and metrics (d,) with weights (d, N)."""
        loss = weights @ self._loss / weights.sum(1)
        if self._task.name == "regression":
            found = self._of_quantities(weights)
        else:
            found = {"log_loss": loss, **self._of_classes(weights)}
        return {"loss": loss, **{name: found[name] for name in metrics_of(self._task.name)}}

    def _of_classes(self, weights: Tensor) -> dict[str, Tensor]:
        n = self._n_classes
        confusion = weights.new_zeros(len(weights), n * n).index_add_(1, self._cells, weights).view(-1, n, n)
        right, true, said = confusion.diagonal(dim1=1, dim2=2), confusion.sum(2), confusion.sum(1)
        f1 = 2 * right / (true + said)
        return {
            "accuracy": right.sum(1) / weights.sum(1),
            "balanced_accuracy": (right / true).nanmean(1),
            "f1": f1[:, 1].nan_to_num(nan=0.0) if n == 2 else f1.nanmean(1),
            "roc_auc": torch.stack([ranks.area(weights) for ranks in self._ranks]).nanmean(0),
        }

    def _of_quantities(self, weights: Tensor) -> dict[str, Tensor]:
        n, targets = weights.sum(1, keepdim=True), self._targets - self._targets.mean(0)
        squares = weights @ self._errors.square()  # (d, C)
        mean = weights @ targets / n
        whole = weights @ targets.square()
        deviations = whole - n * mean.square()
        deviations = deviations.masked_fill(deviations <= 1e-12 * whole, torch.nan)  # the same target in all rows drawn
        return {
            "rmse": (squares / n).sqrt().mean(1),
            "mae": (weights @ self._errors.abs() / n).mean(1),
            "r2": (1 - squares / deviations).mean(1),
        }


class _Ranks:
    """One class's probabilities in order, for the area under its ROC curve on any draw."""

    def __init__(self, scores: Tensor, is_class: Tensor) -> None:
        """Scores (N,), and whether each row is of the class (N,)."""
        ordered, self._order = scores.sort()
        is_in = is_class[self._order]
        self._is_out = (~is_in).double()
        self._rows = self._order[is_in]
        self._below = torch.searchsorted(ordered, ordered[is_in])
        self._up_to = torch.searchsorted(ordered, ordered[is_in], right=True)

    def area(self, weights: Tensor) -> Tensor:
        """Share of pairs that are in the right order, half of the ties (d,); NaN where a draw has no pair."""
        others = (weights[:, self._order] * self._is_out).cumsum(1)
        others = torch.cat([others.new_zeros(len(others), 1), others], 1)
        own = weights[:, self._rows]
        wins = (own * (others[:, self._below] + others[:, self._up_to])).sum(1)
        return wins / (2 * own.sum(1) * others[:, -1])
