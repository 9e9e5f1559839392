"""A network's answers counted into what can be drawn of them: pure functions of arrays."""

import numpy as np
from numpy.typing import NDArray

from studies.records import Answers

N_BINS = 10
"""Tenths of confidence."""
MOST_POINTS = 1_000
"""Pairs of truth and prediction that are kept of a regression, evenly spread over its rows."""

MOST_CLASSES = 100
"""With more of them no confusion is kept."""

Floats = NDArray[np.float64]


def answered_classes(
    split: str, classes: tuple[str, ...], truth: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> Answers:
    """Count the answers of a classification; the class that is answered is the most probable one, of equals the first.

    Args:
        split: Name of the split.
        classes: Names of the K classes.
        truth: Indices of the rows' classes, (N,).
        probabilities: Of the classes (N, K), or of class 1 of two (N,).
    """
    if probabilities.ndim == 1:
        probabilities = np.stack([1 - probabilities, probabilities], axis=1)
    answered = probabilities.argmax(1)
    n = min(len(classes), MOST_CLASSES)
    confusion = np.zeros((n, n), dtype=np.int64)
    if len(classes) <= MOST_CLASSES:
        np.add.at(confusion, (truth, answered), 1)
    confidence, is_right = probabilities.max(1), answered == truth
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    calibration = tuple(
        (int(own.sum()), float(confidence[own].mean()), float(is_right[own].mean()))
        for own in (bins == b for b in range(N_BINS))
        if own.any()
    )
    rows = tuple(tuple(map(int, row)) for row in confusion) if len(classes) <= MOST_CLASSES else ()
    return Answers(split, len(truth), classes=classes, confusion=rows, calibration=calibration)


def answered_values(split: str, targets: tuple[str, ...], truth: Floats, predictions: Floats) -> Answers:
    """Pair truth and predictions of a regression.

    Args:
        split: Name of the split.
        targets: Names of the C targets.
        truth: In the targets' units, (N, C).
        predictions: Likewise.
    """
    n_rows = len(truth)
    kept = np.unique(np.linspace(0, n_rows - 1, min(n_rows, MOST_POINTS)).round().astype(int))
    points = tuple(
        tuple((float(t), float(p)) for t, p in zip(truth[kept, c], predictions[kept, c], strict=True))
        for c in range(len(targets))
    )
    return Answers(split, n_rows, targets=targets, points=points)
