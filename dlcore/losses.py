"""Losses of a stack and their gradients with respect to the outputs: `dlcore.criterion.Criterion`, by hand.

Outputs are units first, (P, C, B). Each member's loss is the mean over its own rows, and their gradients are
taken apart, as if of a sum over members.

Where a member of the stack weighs classes, smooths labels or mixes rows, each row has for each class k a share a_k in
the loss, -sum_k a_k log p_k, whose gradient is p_k sum(a) - a_k. The shares hold all that `dlcore.criterion` says.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from dlcore.criterion import Mix, Weighing
from dlcore.elementwise import Op


def targets_like(y: Tensor, n_rows: int, n_copies: int = 1) -> Tensor:
    """Room for the targets of a batch, (B,) or (B, C); with members in front where each has a batch of its own."""
    return y.new_zeros(*([] if n_copies == 1 else [n_copies]), n_rows, *y.shape[1:])


def loss_ops(  # noqa: PLR0913 - what goes in and what comes out
    task: str,
    outputs: Tensor,
    targets: Tensor,
    gradients: Tensor,
    losses: Tensor,
    weighing: Weighing | None = None,
    mix: Mix | None = None,
) -> list[Op]:
    """Calls from outputs to losses and gradients.

    Args:
        task: Name of the task.
        outputs: (P, C, B); may be overwritten.
        targets: (B,), for regression (B, C), for all members; or (P, B) and (P, B, C).
        gradients: (P, C, B), written.
        losses: (P,), written.
        weighing: How rows of each class count; None is all alike, as in a regression always.
        mix: How rows of a batch are mixed; it needs a weighing.
    """
    if weighing is not None:
        shares = _Shares(weighing, outputs, targets, mix)
        return (_weighed_binary if task == "binary" else _weighed_classes)(shares, outputs, gradients, losses)
    bind = {"binary": _binary, "multiclass": _multiclass, "regression": _regression}[task]
    return bind(outputs, targets, gradients, losses)


def _in_rows(targets: Tensor) -> Tensor:
    """(B,) as it is, (P, B) as (P, 1, B)."""
    return targets if targets.dim() == 1 else targets.unsqueeze(1)


def _multiclass(outputs: Tensor, targets: Tensor, gradients: Tensor, losses: Tensor) -> list[Op]:
    """Loss: mean of -log softmax of the right class. Gradient: (softmax - 1 at the right class) / B."""
    n_members, _, n_rows = outputs.shape
    right = _in_rows(targets).expand(n_members, 1, n_rows)
    picked = outputs.new_empty(n_members, 1, n_rows)
    share = outputs.new_full((n_members, 1, n_rows), -1 / n_rows)
    return [
        partial(torch.log_softmax, outputs, 1, out=gradients),
        partial(torch.gather, gradients, 1, right, out=picked),
        partial(torch.mean, picked.view(n_members, n_rows), 1, out=losses),
        losses.neg_,
        gradients.exp_,
        partial(gradients.mul_, 1 / n_rows),
        partial(gradients.scatter_add_, 1, right, share),
    ]


def _binary(outputs: Tensor, targets: Tensor, gradients: Tensor, losses: Tensor) -> list[Op]:
    """Loss: mean of (1 - y) z - log sigmoid(z). Gradient: (sigmoid(z) - y) / B."""
    n_rows, targets = outputs.shape[2], _in_rows(targets)

    def loss() -> None:
        torch.mean((1 - targets) * outputs - F.logsigmoid(outputs), (1, 2), out=losses)

    return [
        loss,
        partial(torch.sigmoid, outputs, out=gradients),
        partial(gradients.sub_, targets),
        partial(gradients.mul_, 1 / n_rows),
    ]


def _regression(outputs: Tensor, targets: Tensor, gradients: Tensor, losses: Tensor) -> list[Op]:
    """Loss: mean of squared errors over rows and targets. Gradient: 2 error / (B C)."""
    n_outputs, n_rows = outputs.shape[1:]

    def loss() -> None:
        torch.mean(gradients.square(), (1, 2), out=losses)

    return [
        partial(torch.sub, outputs, targets.mT, out=gradients),
        loss,
        partial(gradients.mul_, 2 / (n_rows * n_outputs)),
    ]


class _Shares:
    """What each class of each row counts in the loss of a batch."""

    def __init__(self, weighing: Weighing, outputs: Tensor, targets: Tensor, mix: Mix | None) -> None:
        """Allocate them.

        Args:
            weighing: Of the members.
            outputs: (P, C, B), for their shape.
            targets: (B,) or (P, B), classes.
            mix: How rows are mixed, filled before each batch.
        """
        n_members, _, n_rows = outputs.shape
        weights = weighing.weights
        self.values = outputs.new_empty(n_members, weights.shape[1], n_rows)
        """(P, K, B), as they are after `fill`."""
        self._weights, self._targets = weights, targets
        self._rest = 1 - weighing.smoothing
        self._floor = (weighing.smoothing / weights.shape[1] * weights).unsqueeze(-1)
        self._shape = (n_members, n_rows)
        self._mix = mix

    def fill(self) -> None:
        """Compute them from the targets of a batch."""
        classes = self._targets.to(torch.int64).expand(self._shape)
        own = self._weights.gather(1, classes)
        self.values.copy_(self._floor.expand_as(self.values))
        self.values.scatter_add_(1, classes.unsqueeze(1), (own * self._rest).unsqueeze(1))
        self.values.div_(own.sum(1)[:, None, None])
        if self._mix is not None:
            self.values.copy_(self._mix.of(self.values.mT).mT)


def _weighed_classes(shares: _Shares, outputs: Tensor, gradients: Tensor, losses: Tensor) -> list[Op]:
    def loss() -> None:
        torch.sum(gradients * shares.values, (1, 2), out=losses)

    def gradient() -> None:
        gradients.exp_().mul_(shares.values.sum(1, keepdim=True)).sub_(shares.values)

    return [shares.fill, partial(torch.log_softmax, outputs, 1, out=gradients), loss, losses.neg_, gradient]


def _weighed_binary(shares: _Shares, outputs: Tensor, gradients: Tensor, losses: Tensor) -> list[Op]:
    first, second = shares.values[:, :1], shares.values[:, 1:]

    def loss() -> None:
        torch.sum(first * F.logsigmoid(-outputs) + second * F.logsigmoid(outputs), (1, 2), out=losses)

    def gradient() -> None:
        torch.sigmoid(outputs, out=gradients).mul_(first + second).sub_(second)

    return [shares.fill, loss, losses.neg_, gradient]
