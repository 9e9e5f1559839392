"""A column that alone says the target of every training row: perhaps the target in other words, known too late.

Nothing is left out for it: only a person knows when a column is known.
"""

import numpy as np
from numpy.typing import NDArray

from dlcore.columns import NUMBER_KINDS, Column, Features

MIN_ROWS = 30
"""Of fewer training rows chance alone may look like a leak."""
MAX_ROWS = 200_000
"""So many rows are looked at."""


def leak_notes(features: Features, y: NDArray[np.generic], task: str) -> tuple[str, ...]:
    """One sentence on the columns that predict the target perfectly; nothing where there is none.

    Args:
        features: Of the training rows.
        y: Class indices (N,), or targets (N, C) of a regression, whose first one is looked at.
        task: one of `dlcore.config.TASKS`.
    """
    if len(features) < MIN_ROWS:
        return ()
    target = (y[:, 0] if y.ndim == 2 else y)[:MAX_ROWS]
    found = [
        repr(column.name)
        for column in features.columns
        if (_orders if task == "regression" else _tells)(column, target)
    ]
    if not found:
        return ()
    names = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    return (
        f"each of these columns alone says the target of every training row: {names}; if that is not known when the "
        "network is asked, leave it out with drop",
    )


def _tells(column: Column, classes: NDArray[np.generic]) -> bool:
    """Whether intervals of the column, or its categories, are the classes."""
    values = column.values[: len(classes)]
    is_missing = column.is_missing[: len(classes)]
    if is_missing.any():
        return False
    n_classes = len(np.unique(classes))
    if column.kind in NUMBER_KINDS:
        order = np.argsort(values, kind="stable")
        sorted_values, sorted_classes = values[order], classes[order]
        changes = sorted_classes[1:] != sorted_classes[:-1]
        return bool(changes.sum() == n_classes - 1 and not (changes & (sorted_values[1:] == sorted_values[:-1])).any())
    pairs = np.unique(np.stack([values, classes.astype(np.int64)]), axis=1)
    n_values = len(np.unique(values))
    return pairs.shape[1] == n_values and 5 * n_values <= len(classes)


def _orders(column: Column, target: NDArray[np.generic]) -> bool:
    """Whether a column of numbers orders the rows just as the target does, up or down."""
    values = column.values[: len(target)]
    if column.kind not in NUMBER_KINDS or column.is_missing[: len(target)].any() or len(np.unique(values)) < 10:
        return False
    order = np.lexsort((target, values))
    steps, moves = np.diff(values[order]), np.diff(target[order].astype(np.float64))
    if ((steps == 0) & (moves != 0)).any():
        return False
    rising = moves[steps > 0]
    return bool((rising > 0).all() or (rising < 0).all())
