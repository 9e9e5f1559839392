"""Read a table: typed columns for the features, numbers or text for the targets, and what decides the split.

What a target means is for `dlcore.targets` to say.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import datasets

from dlcore.cells import PLAIN
from dlcore.columns import Column, Features, Finding
from dlcore.config import SKLEARN_SETS, DataConfig
from dlcore.csvfile import open_csv
from dlcore.errors import DataError
from dlcore.frames import frame_columns
from dlcore.inputfile import PARQUET_MAGIC, did_you_mean, listed, open_input
from dlcore.kinds import LEFT_OUT, as_known, keep_last_resort, left_out_note, settle
from dlcore.rawcolumns import RawTable, Select, read_csv_columns
from dlcore.roles import Divider, divider_of, target_of


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows as they were read; nothing is filled, scaled or encoded."""

    name: str
    """The set's name, or the file's without its ending."""
    features: Features
    targets: dict[str, NDArray[Any]]
    """Each target (N,): float64, bool or str; nothing missing, nothing infinite."""
    findings: tuple[Finding, ...] = ()
    """What each column was found to be, in the order of the table; empty for scikit-learn's sets."""
    divider: Divider | None = None
    """What decides which rows are train, val and test; None leaves it to chance."""
    notes: tuple[str, ...] = ()
    """What a person should know of the columns."""


def read_table(config: DataConfig, known: Mapping[str, str] | None = None) -> Table:
    """The table that a config names, with its targets.

    Args:
        config: Which table, which target.
        known: Column -> its kind in another table, which it has here too where its cells allow it.

    Raises:
        DataError: it cannot be read, or lacks what the config names.
    """
    if config.path is not None:
        return _table(read_file(config.path, _selection(config, config.path)), config, known=known)
    if config.source is None:
        raise DataError("data must have a path or a source, or a frame beside it; got none of them")
    if config.source.startswith("openml:"):
        return _read_openml(config.source, config, known)
    return _read_sklearn(config.source, config)


def read_frame(frame: pd.DataFrame, config: DataConfig, known: Mapping[str, str] | None = None) -> Table:
    """A DataFrame as a table; `config` names its target, and neither a path nor a source. `known`: see `read_table`.

    Raises:
        DataError: The frame lacks what the config names, or holds what is no table.
    """
    if config.path is not None or config.source is not None:
        raise DataError(f"with a frame, data must have neither path nor source; got {config.path or config.source!r}")
    return _table(frame_columns(frame, "frame", "the frame", _selection(config, "the frame")), config, known=known)


def read_file(path: str, select: Select) -> RawTable:
    """Columns of a CSV or Parquet file, packed or not.

    Raises:
        DataError: It cannot be read.
    """
    name = Path(path).name.removesuffix(".gz").rpartition(".")[0] or Path(path).name
    with open_input(path) as handle:
        magic = handle.read(4)
        handle.seek(0)
        if magic == PARQUET_MAGIC:
            from dlcore.parquet import parquet_columns  # pyarrow, which few need

            return parquet_columns(handle, name, path, select)
        file = open_csv(handle, path)
        wanted = select(file.header)
        columns, lines, decimal = read_csv_columns(file, wanted)
        if broken := {column.name for column in columns if len(column) < len(lines)}:
            handle.seek(0)  # text after numbers: once more, now that it is known
            again, _, _ = read_csv_columns(open_csv(handle, path), dict.fromkeys(broken, True))
            mended = {column.name: column for column in again}
            columns = tuple(mended.get(column.name, column) for column in columns)
        return RawTable(name, path, columns, lines, decimal)


def read_features(path: str, kinds: Mapping[str, str], forms: Mapping[str, str] | None = None) -> Features:
    """Named columns of a file, to predict from, in the order of the names.

    Args:
        path: A CSV or Parquet file.
        kinds: Column -> its kind in the training.
        forms: Column -> how its numbers or dates were written there, where that is known; see `Column.form`.

    Raises:
        DataError: the file cannot be read, lacks a column, or one has cells of another kind.
    """

    return _settled(read_file(path, _of_training(path, kinds, forms)), kinds, forms)


def frame_features(frame: pd.DataFrame, kinds: Mapping[str, str], forms: Mapping[str, str] | None = None) -> Features:
    """Named columns of a DataFrame, to predict from, in the order of the names; see `read_features`.

    Raises:
        DataError: The frame lacks a column, or one has cells of another kind.
    """
    # Numbers of a frame are not written in any way: as texts, 1.234 would be read as 1,234 where points were that.
    raw = frame_columns(frame, "frame", "the frame", _of_training("the frame", kinds, None))
    return _settled(raw, kinds, forms)


def _of_training(place: str, kinds: Mapping[str, str], forms: Mapping[str, str] | None) -> Select:
    """The columns of the training, those as text that are written in a way of their own."""

    def select(header: tuple[str, ...]) -> dict[str, bool]:
        if missing := [name for name in kinds if name not in header]:
            raise DataError(f"{place} must have the columns of the training; missing: {listed(missing, most=30)}")
        is_odd = {name for name, form in (forms or {}).items() if form not in ("", PLAIN)}
        return {name: kinds[name] in ("categorical", "date") or name in is_odd for name in kinds}

    return select


def _settled(raw: RawTable, kinds: Mapping[str, str], forms: Mapping[str, str] | None) -> Features:
    found = {column.name: column for column in raw.columns}
    return Features(
        tuple(
            settle(found[name], raw, kind, (forms or {}).get(name, ""), is_strict=True).column
            for name, kind in kinds.items()
        )
    )


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
        raise DataError(f"data.source must be one of {', '.join(known)}, or openml:ID; got {source!r}")
    if config.target:
        raise DataError(f"data.target is for tables of your own; {source} has its own target: leave it out")
    if config.kinds or config.split.by:
        raise DataError(f"data.kinds and columns to split by are for tables of your own; leave them out for {source}")
    bunch = _LOADERS[name]()
    features = [str(feature) for feature in bunch.feature_names]
    for dropped in config.drop:
        _require(features, dropped, "dropped", source)
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


def _read_openml(source: str, config: DataConfig, known: Mapping[str, str] | None) -> Table:
    """A set of openml.org, by scikit-learn, which keeps a copy; its own target where the config names none."""
    number = source.removeprefix("openml:")
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise DataError(f"data.source must be openml: and the number of a set, such as openml:61; got {source!r}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions and of sets that are not active
            bunch = datasets.fetch_openml(data_id=int(number), as_frame=True, parser="auto", n_retries=1)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:  # of the network, and of odd answers
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{source} must be a table that openml.org has and that can be reached; {reason}") from None
    own = (config.target) or tuple(str(name) for name in bunch.target_names or ())
    if not own:
        raise DataError(f"data.target must name the target column of {source}; it has none of its own")
    name = str(bunch.details.get("name", source)) if isinstance(bunch.get("details"), Mapping) else source
    return _table(frame_columns(bunch.frame, name, source, _selection(config, source, own)), config, own, known)


def _require(header: Sequence[str], name: str, role: str, place: str) -> None:
    """Refuse the name of a column that is not there, and propose the nearest one."""
    if name not in header:
        hint = did_you_mean(name, header) or f"; its columns are {listed(header)}"
        raise DataError(f"{place} must have the {role} column {name!r}{hint}")


def _selection(config: DataConfig, place: str, own: tuple[str, ...] = ()) -> Select:
    """Which columns to read, and which of them as text; checks all the names that the config has."""
    targets, drop, by = config.target or own, config.drop, config.split.by

    def select(header: tuple[str, ...]) -> dict[str, bool]:
        split = () if by is None else (by,)
        for names, role in ((targets, "target"), (drop, "dropped"), (config.kinds, "kinds"), (split, "split")):
            for name in names:
                _require(header, name, role, place)
        if set(targets) & set(drop) or len(set(targets)) < len(targets):
            raise DataError(
                "data.target must name each column once, and none that data.drop names; "
                f"got target = [{listed(targets)}], drop = [{listed(drop)}]"
            )
        if by is not None and by in (*targets, *drop):
            raise DataError(f"data.split must name a column that is neither target nor dropped; got {by!r}")
        if both := set(targets) & set(config.kinds):
            raise DataError(
                f"data.kinds is for features; {listed(sorted(both))} is a target: data.task says what it is"
            )
        if not set(header) - {*targets, *drop, *(name for name in split if name not in config.kinds)}:
            raise DataError(f"{place} must have a feature beside its target; no column is left for one")
        as_text = {name for name, kind in config.kinds.items() if kind in ("categorical", "date")}
        as_text |= {name for name in (config.split.column, config.split.group) if name is not None}
        return {name: name in as_text for name in header if name not in drop}

    return select


def _table(
    raw: RawTable, config: DataConfig, own: tuple[str, ...] = (), known: Mapping[str, str] | None = None
) -> Table:
    """Columns by their roles; every row has a target."""
    target_names, by = config.target or own, config.split.by
    if not len(raw.columns[0]):
        raise DataError(f"{raw.place} must have rows to learn from; it has only a header")
    columns = {column.name: column for column in raw.columns}
    targets = {name: target_of(columns[name], raw) for name in target_names}
    divider = None if by is None else divider_of(columns[by], raw, config.split, config.kinds.get(by))
    is_feature = {name: name not in target_names and (name != by or name in config.kinds) for name in columns}
    settled = {name: settle(columns[name], raw, config.kinds.get(name)) for name in columns if is_feature[name]}
    settled |= {name: as_known(settled[name], kind) for name, kind in (known or {}).items() if name in settled}
    settled = dict(zip(settled, keep_last_resort(list(settled.values())), strict=True))
    features = _features([one.column for one in settled.values() if one.column.kind not in LEFT_OUT], raw)
    findings = {name: one.finding for name, one in settled.items()}
    for name in target_names:
        findings[name] = target_finding(name, targets[name])
    if divider is not None and divider.name not in findings:
        findings[divider.name] = divider.finding
    note = left_out_note(list(settled.values()))
    return Table(
        raw.name, features, targets, tuple(findings[name] for name in columns), divider, (note,) if note else ()
    )


def _features(kept: Sequence[Column], raw: RawTable) -> Features:
    if not kept:
        raise DataError(
            f"{raw.place} must have a feature beside its target; its columns are identifiers or never change: "
            "[data] kinds says what they are"
        )
    if any(not column.name for column in kept):
        raise DataError(
            f"{raw.place}: every column must have a name; one has none (a row index?): name it, or leave it out with "
            'drop = [""]'
        )
    return Features(tuple(kept))


def target_finding(name: str, values: NDArray[Any]) -> Finding:
    """A target's line in the table that people see."""
    distinct = np.unique(values)
    return Finding(
        name, "target", "", 0, len(distinct), f"{values[0]:.10g}" if values.dtype.kind == "f" else str(values[0])
    )
