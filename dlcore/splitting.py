"""Which rows are train, val and test: a pure function of the classes, the shares and the seed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from dlcore.errors import DataError
from dlcore.seeding import derive_seed

RowNumbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class RowSplit:
    """Row numbers (N,) of each split, ascending; together every row once."""

    train: RowNumbers
    val: RowNumbers
    test: RowNumbers
    is_stratified: bool
    """Each class has about its share in every split."""


def split_rows(
    n_rows: int, classes: RowNumbers | None, val_fraction: float, test_fraction: float, seed: int
) -> RowSplit:
    """Divide rows at random, class by class where there are enough of each.

    Args:
        n_rows: rows of the table.
        classes: class index of each row (N,), every index from 0 on used; None for regression.
        val_fraction: share of all rows that go to val, rounded to whole rows.
        test_fraction: the same for test; 0 keeps none back, and leaves at least one row for val.
        seed: the study's seed.

    Raises:
        DataError: a split would be empty.
    """
    if test_fraction == 0 and n_rows > 1:
        train, val, is_stratified = take_share(np.arange(n_rows), classes, val_fraction, seed)
        return RowSplit(train, val, np.empty(0, dtype=np.int64), is_stratified)
    n_val, n_test = (int(n_rows * fraction + 0.5) for fraction in (val_fraction, test_fraction))
    n_train = n_rows - n_val - n_test
    if min(n_train, n_val, n_test) < 1:
        raise DataError(
            f"train, val and test must each have a row; {n_rows} rows give {n_train}, {n_val} and {n_test}: "
            "more rows, or other data.val_fraction and data.test_fraction"
        )
    if classes is not None:
        stratified = _stratified(classes, n_val, n_test, seed)
        if stratified is not None:
            return stratified
    order = np.random.default_rng(derive_seed(seed, "split")).permutation(n_rows)
    if classes is not None:
        order = _every_class_first(order, classes)
    train, val, test = np.split(order, [n_train, n_train + n_val])
    return RowSplit(np.sort(train), np.sort(val), np.sort(test), False)


def take_share(
    rows: RowNumbers, classes: RowNumbers | None, fraction: float, seed: int
) -> tuple[RowNumbers, RowNumbers, bool]:
    """Cut a share of some rows off, class by class where there are enough of each.

    Args:
        rows: row numbers (n,) of a table.
        classes: class index of each row (N,) of the table; None for regression.
        fraction: share of these rows that is cut off, rounded to whole rows, at least one.
        seed: the study's seed.

    Returns:
        The rows that are left, those cut off, both ascending; False where classes were to be kept and are too rare.
    """
    n_cut = max(1, int(len(rows) * fraction + 0.5))
    if classes is not None:
        here = np.unique(classes[rows], return_inverse=True)[1]
        counts = np.bincount(here)
        if counts.min() >= 2 and min(n_cut, len(rows) - n_cut) >= len(counts):
            random_state = derive_seed(seed, "split") % 2**32
            left, cut = train_test_split(rows, test_size=n_cut, stratify=here, random_state=random_state)
            return np.sort(left), np.sort(cut), True
    order = rows[np.random.default_rng(derive_seed(seed, "split")).permutation(len(rows))]
    if classes is not None:
        order = _every_class_first(order, classes)
    return np.sort(order[: len(rows) - n_cut]), np.sort(order[len(rows) - n_cut :]), classes is None


def _stratified(classes: RowNumbers, n_val: int, n_test: int, seed: int) -> RowSplit | None:
    """scikit-learn's stratified split, done twice; None where a class is too rare for it."""
    counts = np.bincount(classes)
    n_train = len(classes) - n_val - n_test
    if counts.min() < 3 or min(n_train, n_val, n_test) < len(counts):
        return None
    random_state = derive_seed(seed, "split") % 2**32  # as much as numpy's legacy generator takes
    rest, test = train_test_split(
        np.arange(len(classes)), test_size=n_test, stratify=classes, random_state=random_state
    )
    if np.bincount(classes[rest], minlength=len(counts)).min() < 2:
        return None
    train, val = train_test_split(rest, test_size=n_val, stratify=classes[rest], random_state=random_state)
    if np.bincount(classes[train], minlength=len(counts)).min() < 1:
        return None
    return RowSplit(np.sort(train), np.sort(val), np.sort(test), True)


def _every_class_first(order: RowNumbers, classes: RowNumbers) -> RowNumbers:
    """The same order, but one row of each class moved to its front, into train: none is met unlearned."""
    _, first = np.unique(classes[order], return_index=True)
    return np.concatenate([order[first], np.delete(order, first)])
