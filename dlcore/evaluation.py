"""Measure a network on rows: its loss and every metric of its task.

Nothing here trains. Both the training loop and the reports measure through `forward_rows`, so that the same
weights give the same numbers to the bit.
"""

import torch
from torch import Tensor, nn

from dlcore.config import metrics_of
from dlcore.data import split_tensors
from dlcore.tasks import Task

__all__ = ["evaluate", "forward_rows", "split_tensors"]

CHUNK_ROWS = 65_536
"""Rows of one forward pass: bounds the memory of hidden layers (width 256 in float32: 64 MiB each)."""


@torch.no_grad()
def forward_rows(model: nn.Module, x: Tensor) -> Tensor:
    """Outputs (N, C) of `model` in eval mode for rows x (N, F); its own mode is put back."""
    was_training = model.training
    model.eval()
    outputs = torch.cat([model(rows) for rows in torch.split(x, CHUNK_ROWS)])
    model.train(was_training)
    return outputs


def evaluate(model: nn.Module, task: Task, x: Tensor, y: Tensor) -> dict[str, float]:
    """Loss and every metric of the task.

    Args:
        model: A network from (N, F) to (N, C).
        task: What its outputs mean.
        x: Preprocessed rows (N, F).
        y: Targets as the loss wants them: (N,) for classes, (N, C) standardised for regression.

    Returns:
        "loss", then each name of `metrics_of(task.name)`; NaN where a metric is undefined.
    """
    outputs = forward_rows(model, x)
    measured = {"loss": task.loss(outputs, y), **task.metrics(metrics_of(task.name), outputs, y)}
    numbers: list[float] = torch.stack(list(measured.values())).tolist()
    return dict(zip(measured, numbers, strict=True))
