"""Everything a study learns from: read, infer the task, split, preprocess, put on the device."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlcore.columns import NUMBER_KINDS, Features, Finding
from dlcore.config import DataConfig, PreprocessConfig
from dlcore.dividing import Folds, divide_rows
from dlcore.errors import DataError
from dlcore.inputfile import listed
from dlcore.leaks import leak_notes
from dlcore.preprocess import Preprocessor, fit_preprocessor
from dlcore.rows import TensorData
from dlcore.tables import Table, read_table
from dlcore.targets import Label, Targets, encode_targets
from dlcore.tasks import Task

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Some rows as they were read."""

    x: Features
    """Raw features of N rows."""
    y: NDArray[Any]
    """Class indices (N,), int64; or for regression raw targets (N, C), float64."""
    rows: NDArray[np.int64]
    """Their numbers in the source (N,), counted from 0 without the header."""
    groups: NDArray[np.int64] | None = None
    """Of each row the number of its group in the whole table (N,); None where rows are not kept together."""


@dataclass(frozen=True, slots=True, eq=False)
class DataSplits:
    """A table divided into train, val and test, with what was learned from train about its columns."""

    name: str
    task: str
    """One of `dlcore.config.TASKS`."""
    feature_names: tuple[str, ...]
    """Of the raw columns."""
    target_names: tuple[str, ...]
    class_labels: tuple[Label, ...]
    """What class 0, 1, .. is called; empty for regression."""
    train: Split
    val: Split
    test: Split
    preprocessor: Preprocessor
    fingerprint: str
    """SHA-256 of names, values, targets and split, in hex: equal if and only if the data are."""
    notes: tuple[str, ...] = ()
    """What the user should know about the columns, and about how the rows were split."""
    findings: tuple[Finding, ...] = ()
    """What each column of the table was found to be, in its order."""
    folds: Folds = ()
    """The rows that each fold trains on and measures on: positions in train followed by val; empty without k-fold."""
    preprocessing: PreprocessConfig = field(default_factory=PreprocessConfig)
    """What `preprocessor` was fitted with."""

    @property
    def n_features(self) -> int:
        """Inputs F of a network for these data: features after preprocessing."""
        return self.preprocessor.n_outputs

    @property
    def n_outputs(self) -> int:
        """Outputs C that a network for these data has."""
        if self.task == "regression":
            return len(self.target_names)
        return 1 if self.task == "binary" else len(self.class_labels)

    def split(self, name: str) -> Split:
        """The split of that name, one of `SPLITS`."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def to_task(self) -> Task:
        """The task, with the units of a regression's targets."""
        fitted = self.preprocessor
        return Task(self.task, self.n_outputs, fitted.target_mean, fitted.target_scale, fitted.target_transform)

    def prepared(self, scaling: str) -> "DataSplits":
        """The same rows, with numeric columns scaled another way: a name in `dlcore.config.SCALINGS`.

        A network for these has as many inputs, so that the two can be compared trial by trial.
        """
        if scaling == self.preprocessing.scaling:
            return self
        config = replace(self.preprocessing, scaling=scaling)
        fitted = fit_preprocessor(self.train.x, self.train.y, self.task, config, len(self.class_labels))
        prepared = replace(self, preprocessor=fitted, preprocessing=config)
        check_learnable(prepared)
        return prepared


def load_splits(config: DataConfig, seed: int, known: Mapping[str, str] | None = None) -> DataSplits:
    """Read a table and make it ready to learn from.

    Args:
        config: which table, which target, how much for val and test.
        seed: the study's seed: the same seed gives the same split.
        known: see `dlcore.tables.read_table`.

    Raises:
        DataError: the table, its target or its size does not allow it; one sentence says why.
    """
    return split_table(read_table(config, known), config, seed)


def split_table(table: Table, config: DataConfig, seed: int) -> DataSplits:
    """Make a table that was read ready to learn from: of a frame, say; see `load_splits`.

    Raises:
        DataError: its target or its size does not allow it; one sentence says why.
    """
    targets = encode_targets(table.targets, config.task)
    classes = None if targets.task == "regression" else targets.y
    if classes is not None and config.preprocessing.target_transform != "none":
        raise DataError(
            f"target_transform is for quantities; {', '.join(map(repr, table.targets))} has classes: leave it out"
        )
    divided = divide_rows(len(table.features), classes, table.divider, config, seed)
    groups = table.divider.values if table.divider is not None and table.divider.by == "group" else None
    train, val, test = (
        Split(table.features.take(rows), targets.y[rows], rows, None if groups is None else groups[rows])
        for rows in (divided.train, divided.val, divided.test)
    )
    splits = DataSplits(
        name=table.name,
        task=targets.task,
        feature_names=table.features.names,
        target_names=tuple(table.targets),
        class_labels=targets.class_labels,
        train=train,
        val=val,
        test=test,
        preprocessor=fit_preprocessor(train.x, train.y, targets.task, config.preprocessing, len(targets.class_labels)),
        preprocessing=config.preprocessing,
        fingerprint=_fingerprint(table, targets, (train, val, test), divided.folds),
        notes=(
            *table.notes,
            *divided.notes,
            *(() if divided.is_stratified else (_rare_classes(targets),)),
            *_unmet_classes(targets, train.y),
            *leak_notes(train.x, train.y, targets.task),
        ),
        findings=table.findings,
        folds=divided.folds,
    )
    check_learnable(splits)
    return splits


def _rare_classes(targets: Targets) -> str:
    """Why the rows could not be split class by class."""
    counts = np.bincount(targets.y)
    rarest = np.argsort(counts, kind="stable")[:5]
    found = ", ".join(f"{targets.class_labels[i]!r} ({counts[i]})" for i in rarest)
    return (
        f"rows were split at random, not class by class: too few rows of some of the {len(counts)} classes "
        f"(rarest: {found})"
    )


def _unmet_classes(targets: Targets, in_train: NDArray[np.int64]) -> tuple[str, ...]:
    """Which classes a column, a group or time left out of train, as chance never does."""
    unmet = np.setdiff1d(np.arange(len(targets.class_labels)), in_train)
    if not len(unmet):
        return ()
    named = listed([targets.class_labels[i] for i in unmet], most=5)
    return (f"train has no row of {named}: a class that is not learned is never answered",)


def check_learnable(splits: DataSplits) -> None:
    """Refuse what standardising on train cannot make into float32 numbers to learn from."""
    fitted = splits.preprocessor
    is_regression = splits.task == "regression"
    for part in SPLITS:
        split = splits.split(part)
        if is_regression and part == "train":
            for name, values in zip(splits.target_names, split.y.T, strict=True):
                if (values == values[0]).all():
                    raise DataError(f"the target {name!r} must vary in train; all its rows have {values[0]}")
        with np.errstate(over="ignore", invalid="ignore"):
            columns = np.repeat(np.arange(len(split.x.columns)), fitted.widths)  # of each input of the network
            if found := _out_of_range(fitted.transform(split.x)):
                column = split.x.columns[columns[found[1]]]
                raise _far_off(column.name, column.values[found[0]], split.rows[found[0]])
            if is_regression and (found := _out_of_range(fitted.scale_target(split.y))):
                raise _far_off(splits.target_names[found[1]], split.y[found], split.rows[found[0]])


def _out_of_range(encoded: NDArray[np.float64]) -> tuple[int, int] | None:
    """Where an array (N, D) first holds what float32 cannot."""
    too_large = np.argwhere(~(np.abs(encoded) <= np.finfo(np.float32).max))
    return (int(too_large[0, 0]), int(too_large[0, 1])) if len(too_large) else None


def _far_off(name: str, value: float, row: int) -> DataError:
    return DataError(
        f"values must lie near those of the training rows; {name!r} is {value:g} in row {row + 1}: "
        "correct it or remove the row"
    )


def _fingerprint(table: Table, targets: Targets, parts: tuple[Split, ...], folds: Folds) -> str:
    """Hash of all that training can see, and of which rows it sees.

    For a table of numbers alone that is split once, it is the hash that earlier versions made.
    """
    columns = table.features.columns
    names: list[object] = [table.features.names, tuple(table.targets), targets.task, targets.class_labels]
    if any(column.kind != "numeric" for column in columns):
        names += [[column.kind for column in columns], [column.categories for column in columns]]
    digest = hashlib.sha256(json.dumps(names).encode())
    numbers = [np.where(np.isnan(c.values), np.nan, c.values) for c in columns if c.kind in NUMBER_KINDS]
    codes = [column.values for column in columns if column.kind not in NUMBER_KINDS]
    x = [np.stack(numbers, axis=1)] if numbers else []  # one bit pattern for all NaNs
    for values in (*x, *codes, targets.y, *(part.rows for part in parts), *(rows for fold in folds for rows in fold)):
        digest.update(f"{values.dtype.str}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def split_tensors(
    splits: DataSplits, name: str, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """One split, preprocessed: x (N, F), and y as `Task.loss` wants it (see `TensorData`)."""
    split = splits.split(name)
    fitted = splits.preprocessor
    encoded = fitted.transform_training(split.x, split.y) if name == "train" else fitted.transform(split.x)
    x = torch.from_numpy(encoded).to(dtype).to(device)
    if splits.task == "regression":
        y = torch.from_numpy(splits.preprocessor.scale_target(split.y)).to(dtype)
    else:
        y = torch.from_numpy(split.y).to(dtype if splits.task == "binary" else torch.int64)
    return x, y.to(device)


def to_tensors(splits: DataSplits, device: torch.device | str, dtype: torch.dtype = torch.float32) -> TensorData:
    """Train and val, preprocessed, on the device.

    Args:
        splits: the data.
        device: where training happens; all rows are kept there.
        dtype: of features and floating targets.
    """
    x_train, y_train = split_tensors(splits, "train", device, dtype)
    x_val, y_val = split_tensors(splits, "val", device, dtype)
    return TensorData(splits.to_task(), x_train, y_train, x_val, y_val)
