"""Which rows are train, val and test, and which belong to which fold: by chance, a column, groups or time.

A pure function of the table's divider, the classes, the config and the seed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlcore.config import DataConfig
from dlcore.errors import DataError
from dlcore.roles import Divider
from dlcore.seeding import derive_seed
from dlcore.splitting import RowNumbers, split_rows, take_share

Folds = tuple[tuple[RowNumbers, RowNumbers], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """Row numbers of each split, ascending; together every row once."""

    train: RowNumbers
    """With folds: the rows that the first one trains on."""
    val: RowNumbers
    """With folds: the rows that the first one measures on."""
    test: RowNumbers
    """Empty where the config keeps none back."""
    folds: Folds = ()
    """Positions in train followed by val that each fold trains on, and measures on; empty without folds."""
    is_stratified: bool = True
    """False where classes were to have their shares in every split and some have too few rows for it."""
    notes: tuple[str, ...] = ()
    """What decided, one sentence each; nothing where chance did."""


def divide_rows(
    n_rows: int, classes: RowNumbers | None, divider: Divider | None, config: DataConfig, seed: int
) -> Division:
    """Divide the rows of a table.

    Args:
        n_rows: of the table.
        classes: class index of each row (N,), every index from 0 on used; None for regression.
        divider: what decides; None is chance.
        config: shares of val and test, and the number of folds.
        seed: the study's seed.

    Raises:
        DataError: a split or a fold would be empty.
    """
    if divider is None:
        split = split_rows(n_rows, classes, config.val_fraction, config.test_fraction, seed)
        found = Division(split.train, split.val, split.test, (), split.is_stratified or classes is None)
    elif divider.by == "column":
        found = _by_column(divider, classes, config, seed)
    elif divider.by == "group":
        found = _by_group(divider, classes, config, seed)
    else:
        found = _by_time(divider, config)
    sizes = [len(rows) for rows in (found.train, found.val, found.test)]
    if min(sizes[:2] if config.test_fraction == 0 else sizes) < 1:
        raise DataError(f"train, val and test must each have a row; they have {sizes[0]}, {sizes[1]} and {sizes[2]}")
    groups = divider.values if divider is not None and divider.by == "group" else None
    return found if config.split.folds is None else _with_folds(found, classes, groups, config.split.folds, seed)


def _by_column(divider: Divider, classes: RowNumbers | None, config: DataConfig, seed: int) -> Division:
    train, val, test = (np.flatnonzero(divider.values == part) for part in range(3))
    note = f"column {divider.name!r} says which rows are train, val and test"
    is_stratified = True
    if not len(val):
        train, val, is_stratified = take_share(train, classes, config.val_fraction, seed)
        n_others = len(train) + len(val)
        note = f"column {divider.name!r} says which rows are test; val is {len(val):,} of the {n_others:,} others"
    return Division(train, val, test, (), is_stratified, (note,))


def _by_group(divider: Divider, classes: RowNumbers | None, config: DataConfig, seed: int) -> Division:
    shares = (1 - config.val_fraction - config.test_fraction, config.val_fraction, config.test_fraction)
    part_of = assign_groups(divider.values, classes, shares, seed)
    train, val, test = (np.flatnonzero(part_of == part) for part in range(3))
    counts = [len(np.unique(divider.values[rows])) for rows in (train, val, test)]
    of_each = f"train has {counts[0]:,} of them, val {counts[1]:,}, test {counts[2]:,}"
    note = f"rows of one {divider.name!r} stay together: {of_each}"
    return Division(train, val, test, notes=(note,))


def _by_time(divider: Divider, config: DataConfig) -> Division:
    """The latest rows are test; rows of one moment stay together, in the later split."""
    times = divider.values
    ordered = np.sort(times)
    n_rows = len(times)
    n_test = max(1, int(n_rows * config.test_fraction + 0.5))
    n_val = max(1, int(n_rows * config.val_fraction + 0.5))
    test_from = ordered[n_rows - n_test]
    earlier = ordered[ordered < test_from]
    if len(earlier) <= n_val or earlier[0] == earlier[-n_val]:
        raise DataError(
            f"the time column {divider.name!r} must have enough different values to tell train, val and test apart; "
            f"{n_test:,} rows are as late as its last share, {len(earlier):,} earlier"
        )
    val_from = earlier[len(earlier) - n_val]
    part_of = np.digitize(times, [val_from, test_from])
    note = f"the latest rows by {divider.name!r} are test, those before them val"
    train, val, test = (np.flatnonzero(part_of == part) for part in range(3))
    return Division(train, val, test, notes=(note,))


def assign_groups(
    groups: RowNumbers, classes: RowNumbers | None, shares: tuple[float, ...], seed: int
) -> NDArray[np.int64]:
    """A part for each row (N,), the same for all rows of a group; parts come near their shares of each class.

    Largest groups first, in an order of the seed among equals; each goes to the part that lacks most of what it has.
    """
    n_groups = int(groups.max()) + 1
    if n_groups < len(shares):
        raise DataError(f"rows to be kept together must be of at least {len(shares)} groups; there are {n_groups}")
    y = np.zeros(len(groups), dtype=np.int64) if classes is None else classes
    n_classes = int(y.max()) + 1
    counts = np.bincount(groups * n_classes + y, minlength=n_groups * n_classes).reshape(n_groups, n_classes)
    wanted = np.outer(shares, counts.sum(0)).astype(np.float64)
    lacking = wanted.copy()
    order = np.random.default_rng(derive_seed(seed, "groups")).permutation(n_groups)
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    part_of = np.empty(n_groups, dtype=np.int64)
    weights = 1 / np.maximum(wanted, 1e-12)
    for rank, group in enumerate(order):
        scores = (lacking * weights) @ counts[group]
        if n_groups - rank <= len(shares):  # none may stay empty
            empty = [part for part in range(len(shares)) if part not in part_of[order[:rank]]]
            if len(empty) >= n_groups - rank:
                scores = np.array([score if part in empty else -np.inf for part, score in enumerate(scores)])
        part_of[group] = part = int(np.argmax(scores))
        lacking[part] -= counts[group]
    return part_of[groups]


def _with_folds(
    found: Division, classes: RowNumbers | None, groups: RowNumbers | None, n_folds: int, seed: int
) -> Division:
    """The rows that are not test, dealt out to folds; the first fold's rows are train and val."""
    rows = np.sort(np.concatenate([found.train, found.val]))
    if len(rows) < n_folds:
        raise DataError(f"{n_folds} folds must each have a row; only {len(rows)} are not test")
    here = None if classes is None else np.unique(classes[rows], return_inverse=True)[1].astype(np.int64)
    if groups is None:
        fold_of = _dealt(len(rows), here, n_folds, seed)
    else:
        ours = np.unique(groups[rows], return_inverse=True)[1].astype(np.int64)
        if (n_groups := int(ours.max()) + 1) < n_folds:
            raise DataError(f"{n_folds} folds must each have a group; only {n_groups} are not test")
        fold_of = assign_groups(ours, here, (1 / n_folds,) * n_folds, seed)
    train, val = rows[fold_of != 0], rows[fold_of == 0]
    place = np.empty(len(rows), dtype=np.int64)  # of each row in train followed by val
    place[np.concatenate([np.flatnonzero(fold_of != 0), np.flatnonzero(fold_of == 0)])] = np.arange(len(rows))
    folds = tuple((np.sort(place[fold_of != fold]), np.sort(place[fold_of == fold])) for fold in range(n_folds))
    note = f"{n_folds} folds of the {len(rows):,} rows that are not test: each trial is trained {n_folds} times"
    is_stratified = here is None or bool(np.bincount(here).min() >= n_folds)
    return Division(train, val, found.test, folds, found.is_stratified and is_stratified, (*found.notes, note))


def _dealt(n_rows: int, classes: RowNumbers | None, n_folds: int, seed: int) -> NDArray[np.int64]:
    """A fold for each row (N,): shuffled, then dealt out class by class, going on where the last class ended."""
    order = np.random.default_rng(derive_seed(seed, "folds")).permutation(n_rows)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
    fold_of = np.empty(n_rows, dtype=np.int64)
    fold_of[order] = np.arange(n_rows) % n_folds
    return fold_of
