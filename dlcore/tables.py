"""Read a table: numbers for the features, numbers or text for the targets.

Only numeric and true/false columns can be features for now. What a target means is for `dlcore.targets` to say.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets

from dlcore.columns import Features, Finding
from dlcore.config import SKLEARN_SETS, DataConfig
from dlcore.csvfile import CsvFile, did_you_mean, listed, open_csv
from dlcore.errors import DataError

MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})
"""Cells without a number, stripped and in lower case."""
_TRUTH = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows as they were read; nothing is filled, scaled or encoded."""

    name: str
    """The set's name, or the file's without its ending."""
    features: Features
    targets: dict[str, NDArray[Any]]
    """Each target (N,): float64, bool or str; nothing missing, nothing infinite."""
    findings: tuple[Finding, ...] = ()
    """What each column was found to be, in the order of the table."""


def read_table(config: DataConfig) -> Table:
    """The table that a config names, with its targets.

    Raises:
        DataError: it cannot be read, or lacks what the config names.
    """
    if config.path is not None:
        return _read_csv(config.path, config.target, config.drop)
    return _read_sklearn(str(config.source), config)


def read_features(path: str, names: Sequence[str]) -> NDArray[np.float64]:
    """Named columns of a CSV file, to predict from: (N, F) in the order of the names; NaN = missing.

    Raises:
        DataError: the file cannot be read, or lacks a column.
    """
    with open_csv(path) as file:
        if missing := [name for name in names if name not in file.header]:
            raise DataError(f"{path} must have the columns of the training; missing: {listed(missing, most=30)}")
        return _read_columns(file, names, ())[0]


_LOADERS: dict[str, Callable[[], Any]] = {
    "digits": datasets.load_digits,
    "breast_cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "iris": datasets.load_iris,
    # Unscaled: the scaled form has already seen the means of the rows of val and test.
    "diabetes": lambda: datasets.load_diabetes(scaled=False),
}


def _read_sklearn(source: str, config: DataConfig) -> Table:
    """A set that comes inside scikit-learn; classes by their names where these are text."""
    prefix, _, name = source.partition(":")
    if prefix != "sklearn" or name not in SKLEARN_SETS:
        known = [f"sklearn:{known}" for known in SKLEARN_SETS]
        raise DataError(f"data.source must be one of {', '.join(known)}; got {source!r}")
    if config.target:
        raise DataError(f"data.target is for CSV files; {source} has its own target: leave it out")
    bunch = _LOADERS[name]()
    features = [str(feature) for feature in bunch.feature_names]
    for dropped in config.drop:
        if dropped not in features:
            hint = did_you_mean(dropped, features) or f"; its columns are {listed(features)}"
            raise DataError(f"{source} must have the dropped column {dropped!r}{hint}")
    kept = [i for i, feature in enumerate(features) if feature not in config.drop]
    if not kept:
        raise DataError(f"{source} must keep a feature; data.drop names all its columns")
    target: NDArray[Any] = np.asarray(bunch.target)
    labels = bunch.get("target_names", ())
    if len(labels) and isinstance(labels[0], str):
        target = np.asarray(labels, dtype=np.str_)[target]
    else:
        target = target.astype(np.float64)
    x = np.ascontiguousarray(bunch.data[:, kept], dtype=np.float64)
    return Table(name, Features.from_numbers([features[i] for i in kept], x), {"target": target})


def _read_csv(path: str, target_names: tuple[str, ...], drop: tuple[str, ...]) -> Table:
    with open_csv(path) as file:
        feature_names = _choose_features(file, target_names, drop)
        x, cells, lines = _read_columns(file, feature_names, target_names)
    if not len(x):
        raise DataError(f"{path} must have rows to learn from; it has only a header")
    targets = {name: _target(path, name, cells[name], lines) for name in target_names}
    return Table(Path(path).stem, Features.from_numbers(feature_names, x), targets)


def _choose_features(file: CsvFile, target_names: tuple[str, ...], drop: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that are neither target nor dropped."""
    for name in target_names:
        file.position(name, "target")
    for name in drop:
        file.position(name, "dropped")
    if set(target_names) & set(drop) or len(set(target_names)) < len(target_names):
        raise DataError(
            "data.target must name each column once, and none that data.drop names; "
            f"got target = [{listed(target_names)}], drop = [{listed(drop)}]"
        )
    features = tuple(name for name in file.header if name not in {*target_names, *drop})
    if not features:
        raise DataError(f"{file.path} must have a feature beside its target; no column is left for one")
    if "" in features:
        raise DataError(
            f"{file.path}: every column must have a name; column {file.header.index('') + 1} has none "
            '(a row index?): name it, or leave it out with drop = [""]'
        )
    return features


def _read_columns(
    file: CsvFile, feature_names: Sequence[str], target_names: Sequence[str]
) -> tuple[NDArray[np.float64], dict[str, list[str]], "array[int]"]:
    """Features (N, F), the stripped cells of each target, and each row's line."""
    features = [file.position(name, "feature") for name in feature_names]
    targets = {name: file.position(name, "target") for name in target_names}
    blocks = [np.empty((0, len(features)))]
    cells: dict[str, list[str]] = {name: [] for name in target_names}
    lines = array("q")
    texts: dict[str, str] = {}
    seen: dict[str, str] = {}  # one object per distinct text: a class's label comes a million times
    for chunk in file.chunks:
        columns = list(zip(*chunk.rows, strict=True))
        block = np.empty((len(chunk.rows), len(features)))
        for i, (name, position) in enumerate(zip(feature_names, features, strict=True)):
            bad = _fill(block[:, i], columns[position])
            if bad is not None:
                texts.setdefault(name, f"{columns[position][bad].strip()[:40]!r} in line {chunk.lines[bad]}")
        blocks.append(block)
        lines.extend(chunk.lines)
        for name, position in targets.items():
            cells[name].extend(seen.setdefault(cell.strip(), cell.strip()) for cell in columns[position])
    if texts:
        in_order = [name for name in feature_names if name in texts]
        mend = f"leave text columns out with drop = [{listed(in_order, most=30)}]" if targets else "mend these cells"
        raise DataError(_text_message(file.path, feature_names, texts, mend))
    x = np.concatenate(blocks)
    infinite = np.argwhere(np.isinf(x))
    if len(infinite):
        row, column = infinite[0]
        raise DataError(
            f"{file.path}: features must be finite; column {feature_names[column]!r} is infinite in line "
            f"{lines[row]}, {len(infinite)} cells in all: leave such cells empty if the value is missing"
        )
    return x, cells, lines


def _fill(block: NDArray[np.float64], cells: Sequence[str]) -> int | None:
    """Write the numbers of one column (N,) into a block; the index of the first cell that is none, or None."""
    try:
        if "_" not in "".join(cells):  # Python reads 1_000 as a number; a table should not
            block[:] = np.array(cells, dtype=np.float64)
            return None
    except ValueError:
        pass  # a missing cell, true or false, or text: look at each
    for i, cell in enumerate(cells):
        number = _number(cell)
        if number is None:
            return i
        block[i] = number
    return None


def _number(cell: str) -> float | None:
    """The number in a cell; NaN if it is missing; None if it is text."""
    text = cell.strip().lower()
    if text in MISSING:
        return np.nan
    if text in _TRUTH:
        return _TRUTH[text]
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _text_message(path: str, names: Sequence[str], texts: dict[str, str], mend: str) -> str:
    found = [name for name in names if name in texts]  # as in the header, not as met
    examples = ", ".join(f"{name!r} ({texts[name]})" for name in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{path}: features must be numbers, true/false or empty; text is in {examples}{more}: {mend}"


def _target(path: str, name: str, cells: list[str], lines: Sequence[int]) -> NDArray[Any]:
    """One target as float64, bool or str (N,), whichever fits all its cells."""
    distinct = {cell: _number(cell) for cell in set(cells)}
    if all(number is not None for number in distinct.values()):
        numbers = np.array([distinct[cell] for cell in cells], dtype=np.float64)
        _refuse(path, name, lines, np.flatnonzero(np.isnan(numbers)), "missing")
        _refuse(path, name, lines, np.flatnonzero(np.isinf(numbers)), "infinite")
        is_truth = all(cell.lower() in _TRUTH for cell in distinct)
        return numbers.astype(np.bool_) if is_truth else numbers
    # In text only an empty cell is missing: "none" may be a class.
    _refuse(path, name, lines, [i for i, cell in enumerate(cells) if not cell], "missing")
    return np.array(cells, dtype=np.str_)


def _refuse(path: str, name: str, lines: Sequence[int], rows: Iterable[int], what: str) -> None:
    found = [lines[row] for row in rows]
    if found:
        raise DataError(
            f"{path}: the target {name!r} must be known and finite in every row; it is {what} in "
            f"{len(found)} rows (lines {', '.join(map(str, found[:5]))}{', ...' if len(found) > 5 else ''}): "
            "fill in or remove these rows"
        )
