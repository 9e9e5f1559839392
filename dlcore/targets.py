"""What is to be predicted: infer the task from the target columns, and turn classes into indices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlcore.errors import DataError

MAX_NUMERIC_CLASSES = 20
"""A target of whole numbers with more distinct values than this is a quantity, if nothing else is said."""

MAX_WHOLE = 2.0**53
"""From here on float64 does not hold every whole number."""
Label = str | int | float | bool


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """A task and its targets, ready to split."""

    task: str
    """One of `dlcore.config.TASKS`."""
    y: NDArray[Any]
    """Class indices (N,), int64; or for regression values (N, C), float64."""
    class_labels: tuple[Label, ...]
    """What each class is called in the table, sorted; empty for regression."""


def encode_targets(columns: Mapping[str, NDArray[Any]], task: str) -> Targets:
    """Decide what the target columns mean.

    Args:
        columns: each target (N,): float64, bool or str; nothing missing, nothing infinite.
        task: one of `dlcore.config.TASKS`, or "auto": text, true/false and few whole numbers are classes.

    Raises:
        DataError: the columns cannot be the targets of the task.
    """
    if len(columns) == 1:
        [(name, column)] = columns.items()
        if task in ("binary", "multiclass") or (task == "auto" and _are_classes(column)):
            return _encode_classes(name, column, task)
    elif task in ("binary", "multiclass"):
        raise DataError(f"a {task} task must have one target column; got {len(columns)}: {_names(columns)}")
    for name, column in columns.items():
        _check_quantity(name, column)
    y = np.stack([column.astype(np.float64) for column in columns.values()], axis=1)
    return Targets("regression", y, ())


def _names(columns: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(repr(name) for name in columns)


def _are_classes(column: NDArray[Any]) -> bool:
    """Text and true/false are; whole numbers are if few are distinct and most come often."""
    if column.dtype.kind != "f":
        return True
    n_classes = len(np.unique(column))
    is_whole = bool((column == np.trunc(column)).all())
    return is_whole and n_classes <= MAX_NUMERIC_CLASSES and 2 * n_classes < len(column)


def _encode_classes(name: str, column: NDArray[Any], task: str) -> Targets:
    distinct, y = np.unique(column, return_inverse=True)
    n_classes = len(distinct)
    if n_classes < 2:
        raise DataError(
            f"the target {name!r} must have at least two classes to tell apart; all rows have {distinct[0]!s}"
        )
    if column.dtype.kind == "f" and np.abs(distinct).max() >= MAX_WHOLE:
        raise DataError(
            f"classes that are numbers must be below 2**53, or they cannot be told apart; the target {name!r} has "
            f"{np.abs(distinct).max():g}: write them as text"
        )
    if 2 * n_classes >= len(column) and n_classes > 2:
        raise DataError(
            f"the classes of the target {name!r} must come more than twice on average; {n_classes} of "
            f"{len(column)} values are different: is it a name or a number to predict (task = "
            '"regression")?'
        )
    if (n_classes == 2) != (task == "binary") and task != "auto":
        expected, instead = ("two", "multiclass") if task == "binary" else ("more than two", "binary")
        raise DataError(
            f'a {task} task must have {expected} classes; the target {name!r} has {n_classes}: take task = "{instead}"'
        )
    labels = tuple(_label(value) for value in distinct.tolist())
    return Targets("binary" if n_classes == 2 else "multiclass", y.astype(np.int64), labels)


def _label(value: str | float | bool) -> Label:
    """A class's name: whole numbers without their ".0"."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_quantity(name: str, column: NDArray[Any]) -> None:
    if column.dtype.kind == "U":
        raise DataError(
            f"the target {name!r} of a regression must be numbers; it has text such as {str(column[0])[:40]!r}: "
            "several targets must all be numbers; for classes give one target"
        )
    if (column == column[0]).all():
        raise DataError(f"the target {name!r} must vary to be learned; all rows have {column[0]!s}")
