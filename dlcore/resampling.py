"""What other test rows would have said: a paired bootstrap over rows (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapters 6 and 13).

Rows are drawn with replacement, the same ones for every model, and each model's answers, which were made once, are
measured on them. How far a value, or the difference of two models, moves from draw to draw is how far it would have
moved with other rows of the same kind. A draw is how often each row is in it, so that each model's answers are sorted
and taken apart once and all draws are sums with weights; `dlcore.metrics` on the drawn rows is the readable twin.

Of two models that are equally good in accuracy one is said to be ahead as seldom as asked for, 5 times in 100: counted
on 1,000 tables each, in 0.5 to 5 of 100 tables of 20 test rows, 3 to 4 of 50 (`tests/dlcore/test_resampling.py` counts
a few). Errors of quantities on twenty to fifty rows, and metrics of a class of five or six rows, come to about 10 in
100. All this is of rows that are drawn one by one. Where rows belong together, in groups, whole groups are drawn
instead (Field and Welsh, Bootstrapping clustered data, Journal of the Royal Statistical Society B 69, 2007, 369-390),
all rows of one as often as it is drawn: a draw has more or fewer rows than there are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlcore.config import metrics_of
from dlcore.device import one_thread
from dlcore.seeding import generator
from dlcore.tasks import Task

MOST_DRAWS = 1_000
FEWEST_GROUPS = 10
"""Groups below which draws of them say too little: with ten, one of two equally good models is ahead in about 10 of 100
tables (Student's t of 9 degrees of freedom beyond 1.96 times the square root of 9/10), with five in 15."""
_FEWEST_DRAWS = 200
_WORK = 8_000_000
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
    task: Task,
    own: Sequence[Tensor],
    others: Sequence[Tensor],
    y: Tensor,
    seed: int,
    groups: Tensor | None = None,
) -> tuple[Spreads, list[Spreads]]:
    """One kind of network, trained several times, beside other models on the same draws of rows.

    Args:
        task: What their outputs mean.
        own: Outputs (N, C) of each of the networks; their mean value counts.
        others: Outputs (N, C) of each other model for the same rows.
        y: Targets (N,) or (N, C) as the loss wants them.
        seed: The same draws come of the same seed.
        groups: As in `measure_draws`.

    Returns:
        Of the networks' mean value, and for each other model of that mean minus its value.
    """
    drawn = measure_draws(task, [*own, *others], y, seed, groups)
    means = {name: torch.stack([found[name] for found in drawn[: len(own)]]).mean(0) for name in drawn[0]}
    leads = [{name: means[name] - found[name] for name in means} for found in drawn[len(own) :]]
    alone, *beside = [_spreads(found) for found in (means, *leads)]
    return alone, beside


def _spreads(found: Mapping[str, Tensor]) -> Spreads:
    """Of values, one per draw (D,); draws on which a metric is not defined are left out."""
    ends = {name: torch.nanquantile(values, values.new_tensor([0.025, 0.975])) for name, values in found.items()}
    return {name: Spread(*values.tolist()) for name, values in ends.items()}


def measure_draws(
    task: Task, answers: Sequence[Tensor], y: Tensor, seed: int, groups: Tensor | None = None
) -> list[dict[str, Tensor]]:
    """Measure models on the same draws of rows.

    Args:
        task: What their outputs mean.
        answers: Outputs (N, C) of each model for the same rows.
        y: Targets (N,) or (N, C) as the loss wants them.
        seed: The same draws come of the same seed.
        groups: The group of each row (N,), int64, 0 to G - 1: whole groups are drawn. None draws row by row.

    Returns:
        Of each model "loss" and each metric of the task -> its values (D,), float64.
    """
    with one_thread():
        models = [_Answers(task, outputs.cpu(), y.cpu()) for outputs in answers]
        found: list[dict[str, list[Tensor]]] = [{} for _ in models]
        for weights in _draws(len(y), n_draws(len(y), task.n_outputs), seed, groups):
            for model, own in zip(models, found, strict=True):
                for name, values in model.measure(weights).items():
                    own.setdefault(name, []).append(values)
    return [{name: torch.cat(values) for name, values in own.items()} for own in found]


def n_draws(n_rows: int, n_outputs: int) -> int:
    """How many draws: fewer of many rows, which differ less from draw to draw."""
    return max(_FEWEST_DRAWS, min(MOST_DRAWS, _WORK // (n_rows * n_outputs)))


def _draws(n_rows: int, n: int, seed: int, groups: Tensor | None = None) -> Iterator[Tensor]:
    """How often each row is in each of n draws, a few draws at a time: (N, d), float64.

    A row's weights lie side by side: they are put in order and summed many times, and so that is several times faster.
    """
    own = generator(seed, "draws of rows")
    at_once = max(1, _CHUNK // n_rows)
    n_units = n_rows if groups is None else int(groups.max()) + 1
    for begin in range(0, n, at_once):
        size = min(at_once, n - begin)
        cells = torch.randint(n_units, (size, n_units), generator=own) * size + torch.arange(size).unsqueeze(1)
        drawn = torch.bincount(cells.view(-1), minlength=n_units * size).double().view(n_units, size)
        yield drawn if groups is None else drawn[groups]


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
        self._said = predictions.argmax(-1)
        ranked = range(1, 2) if self._n_classes == 2 else range(self._n_classes)
        self._ranks = [_Ranks(predictions[:, c], self._classes == c) for c in ranked]

    def measure(self, weights: Tensor) -> dict[str, Tensor]:
        """Loss and metrics (d,) with weights (N, d)."""
        loss = self._loss @ weights / weights.sum(0)  # N in all, unless groups are drawn
        if self._task.name == "regression":
            found = self._of_quantities(weights)
        else:
            found = {"log_loss": loss, **self._of_classes(weights)}
        return {"loss": loss, **{name: found[name] for name in metrics_of(self._task.name)}}

    def _of_classes(self, weights: Tensor) -> dict[str, Tensor]:
        n = self._n_classes
        hit = self._classes == self._said
        # Margins and diagonal of the confusion alone, (C, d): the whole of it grows with the square of the classes.
        true, said, right = (
            weights.new_zeros(n, weights.shape[1]).index_add_(0, cells, of)
            for cells, of in ((self._classes, weights), (self._said, weights), (self._classes[hit], weights[hit]))
        )
        f1 = 2 * right / (true + said)
        return {
            "accuracy": right.sum(0) / weights.sum(0),
            "balanced_accuracy": (right / true).nanmean(0),
            "f1": f1[1].nan_to_num(nan=0.0) if n == 2 else f1.nanmean(0),
            "roc_auc": torch.stack([ranks.area(weights) for ranks in self._ranks]).nanmean(0),
        }

    def _of_quantities(self, weights: Tensor) -> dict[str, Tensor]:
        n, targets = weights.sum(0), self._targets - self._targets.mean(0)
        squares = self._errors.square().T @ weights  # (C, d)
        mean = targets.T @ weights / n
        whole = targets.square().T @ weights
        deviations = whole - n * mean.square()
        deviations = deviations.masked_fill(deviations <= 1e-12 * whole, torch.nan)  # the same target in all rows drawn
        return {
            "rmse": (squares / n).sqrt().mean(0),
            "mae": (self._errors.abs().T @ weights / n).mean(0),
            "r2": (1 - squares / deviations).mean(0),
        }


class _Ranks:
    """One class's probabilities in order, for the area under its ROC curve on any draw."""

    def __init__(self, scores: Tensor, is_class: Tensor) -> None:
        """Scores (N,), and whether each row is of the class (N,)."""
        rows = torch.arange(len(scores))
        self._own, out = rows[is_class], rows[~is_class]
        ordered, order = scores[out].sort()
        self._others = out[order]
        self._below = torch.searchsorted(ordered, scores[self._own])
        self._up_to = torch.searchsorted(ordered, scores[self._own], right=True)
        self._has_ties = not torch.equal(self._below, self._up_to)

    def area(self, weights: Tensor) -> Tensor:
        """Share of pairs that are in the right order, half of the ties (d,); NaN where a draw has no pair."""
        others = torch.cat([weights.new_zeros(1, weights.shape[1]), weights[self._others].cumsum(0)])
        own, below = weights[self._own], others[self._below]
        wins = (own * (below + others[self._up_to])).sum(0) / 2 if self._has_ties else (own * below).sum(0)
        return wins / (own.sum(0) * others[-1])
