"""Networks for an ensemble, chosen one by one by what they bring on val.

Caruana, Niculescu-Mizil, Crew and Ksikes, Ensemble Selection from Libraries of Models, ICML 2004: in each round the
network joins whose joining makes the mean of the predictions best; one may join again, and then counts for more. Of all
rounds the best one counts. What is chosen by val is flattered by val.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlcore.config import LOWER_IS_BETTER
from dlcore.evaluation import outputs_of
from dlcore.tasks import Task

ROUNDS = 25
_ROUNDING = 1e-12


def choose(task: Task, outputs: Sequence[Tensor], y: Tensor, objective: str, rounds: int = ROUNDS) -> tuple[int, ...]:
    """How often each network joins; the sum is at least 1.

    Args:
        task: What outputs mean.
        outputs: Of each network for the rows of val, (N, C).
        y: Their targets, as the loss wants them.
        objective: "loss" or a metric: what is to be best; ties go to the lower loss, then to the earlier network.
        rounds: That are played.
    """
    said = torch.stack([_predictions(task, own) for own in outputs])
    counts, total = [0] * len(outputs), torch.zeros_like(said[0])
    best: tuple[tuple[float, float], tuple[int, ...]] | None = None
    for n in range(1, rounds + 1):
        places = [_place(task, (total + own) / n, y, objective) for own in said]
        winner = max(range(len(places)), key=lambda i: (places[i], -i))
        total, counts[winner] = total + said[winner], counts[winner] + 1
        if best is None or _is_better(places[winner], best[0]):
            best = places[winner], tuple(counts)
    assert best is not None
    together = math.gcd(*best[1])
    return tuple(count // together for count in best[1])


def _is_better(new: tuple[float, float], old: tuple[float, float]) -> bool:
    """By more than what rounding makes of the mean of equal predictions."""
    for ours, theirs in zip(new, old, strict=True):
        if abs(ours - theirs) > _ROUNDING * max(1.0, abs(theirs)):
            return ours > theirs
    return False


def _predictions(task: Task, outputs: Tensor) -> Tensor:
    """What is averaged: probabilities (N, K), or the standardised values (N, C) of a regression; in float64."""
    wide = outputs.cpu().double()
    if task.name == "regression":
        return wide
    found = task.predict(wide)
    return torch.stack([1 - found, found], -1) if task.name == "binary" else found


def _place(task: Task, predictions: Tensor, y: Tensor, objective: str) -> tuple[float, float]:
    """How good mean predictions are: larger is better."""
    outputs = predictions if task.name == "regression" else outputs_of(task, predictions)
    targets = y.cpu().double() if y.is_floating_point() else y.cpu()
    loss = -float(task.loss(outputs, targets))
    if objective == "loss":
        return loss, 0.0
    value = float(task.metric(objective, outputs, targets))
    return (-value if objective in LOWER_IS_BETTER else value), loss
