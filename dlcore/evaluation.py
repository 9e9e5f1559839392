"""Measure a network on rows: its loss and every metric of its task.

Nothing here trains. Both the training loop and the reports measure through `forward_rows`, so that the same
weights give the same numbers to the bit.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dlcore.config import metrics_of
from dlcore.data import split_tensors
from dlcore.ensemble import averaged
from dlcore.metrics import widest_dtype
from dlcore.tasks import Task

__all__ = ["evaluate", "evaluate_outputs", "forward_rows", "outputs_of", "split_tensors", "together"]

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
    return evaluate_outputs(task, forward_rows(model, x), y)


def together(task: Task, outputs: Sequence[Tensor]) -> Tensor:
    """Outputs (N, C) of an ensemble whose members' outputs are these, each (N, C): its prediction is the mean."""
    return averaged(task.name, torch.stack([own.to(widest_dtype(own.device)) for own in outputs]))


def outputs_of(task: Task, probabilities: Tensor) -> Tensor:
    """Outputs (N, C) of which a classification task would make these probabilities (N, classes), two for binary.

    A probability of 0 counts as the smallest difference that numbers near 1 have, as in `log_loss` elsewhere.
    """
    logs = probabilities.clamp_min(torch.finfo(probabilities.dtype).eps).log()
    return (logs[:, 1] - logs[:, 0]).unsqueeze(-1) if task.name == "binary" else logs


def evaluate_outputs(task: Task, outputs: Tensor, y: Tensor) -> dict[str, float]:
    """Loss and every metric of outputs (N, C) of whatever model; see `evaluate`."""
    y = y.to(outputs.dtype) if y.is_floating_point() else y
    # In float32 the probabilities of a sure network are 0 and 1, and equal: ranks among them would be lost.
    wide = outputs.to(widest_dtype(outputs.device))
    of_metrics = task.metrics(metrics_of(task.name), wide, y.to(wide.dtype) if y.is_floating_point() else y)
    measured = {"loss": task.loss(outputs, y), **of_metrics}
    numbers: list[float] = torch.stack(list(measured.values())).tolist()
    return dict(zip(measured, numbers, strict=True))
