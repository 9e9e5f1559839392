"""The rows that engines train on: tensors alone, so that a worker process need not import what reads tables."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from dlcore.errors import DataError
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


class Rows:
    """Some rows of a `TensorData`, by number: those of a fold, say. Equal if and only if the numbers are.

    For a cross-validation, give `TensorData` one table as both train and val: it is in memory once, whatever the number
    of folds.
    """

    __slots__ = ("_digest", "train", "val")

    def __init__(self, train: Tensor, val: Tensor) -> None:
        """Name the rows.

        Args:
            train: Numbers of rows of `x_train` to train on, (n,), int64, on the CPU; at least one.
            val: Numbers of rows of `x_val` to measure on, likewise.

        Raises:
            DataError: They are not such tensors.
        """
        for name, numbers in (("train", train), ("val", val)):
            is_right = numbers.dtype == torch.int64 and numbers.dim() == 1 and numbers.device.type == "cpu"
            if not is_right or not len(numbers) or int(numbers.min()) < 0:
                raise DataError(
                    f"rows of {name} must be at least one number >= 0, as int64 of shape (n,) on the CPU; "
                    f"got {numbers.dtype} of shape {tuple(numbers.shape)} on {numbers.device.type}"
                )
        self.train, self.val = train.contiguous(), val.contiguous()
        # By content, since they are copied from process to process with the members that have them.
        digest = hashlib.sha256(f"{len(train)} ".encode())
        for numbers in (self.train, self.val):
            digest.update(numbers.numpy().tobytes())
        self._digest = digest.digest()

    def __eq__(self, other: object) -> bool:
        """Whether the same rows are named, in the same order."""
        return isinstance(other, Rows) and self._digest == other._digest

    def __hash__(self) -> int:
        """Of the numbers."""
        return hash(self._digest)

    def of(self, data: TensorData) -> TensorData:
        """These rows alone, copied."""
        train, val = self.train.to(data.x_train.device), self.val.to(data.x_val.device)
        return TensorData(data.task, data.x_train[train], data.y_train[train], data.x_val[val], data.y_val[val])
