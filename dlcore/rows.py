"""The rows that engines train on: tensors alone, so that a worker process need not import what reads tables."""

from dataclasses import dataclass

from torch import Tensor

from dlcore.tasks import Task


@dataclass(frozen=True, slots=True, eq=False)
class TensorData:
    """Preprocessed train and val, resident on one device. Test is not here: it is read once, at the end."""

    task: Task
    x_train: Tensor
    """(N, F), standardised."""
    y_train: Tensor
    """As `Task.loss` wants it: binary (N,) floating, multiclass (N,) int64, regression (N, C) standardised."""
    x_val: Tensor
    """See `x_train`."""
    y_val: Tensor
    """See `y_train`."""
