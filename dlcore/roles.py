"""Columns that are no features: the targets, and what decides which rows are train, val and test."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlcore.cells import MISSING, numbers_of, truths_of
from dlcore.columns import Finding
from dlcore.config import SplitConfig
from dlcore.errors import DataError
from dlcore.inputfile import listed
from dlcore.kinds import settle
from dlcore.rawcolumns import RawColumn, RawTable

MAX_LABEL = 200
"""Characters that the name of a class may have."""
PARTS = {
    "train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2
}  # fmt: skip
"""What a column may say of a row, in lower case -> 0 train, 1 val, 2 test."""


@dataclass(frozen=True, slots=True, eq=False)
class Divider:
    """A column by which rows are divided."""

    name: str
    by: str
    """"column", "group" or "time"."""
    values: NDArray[Any]
    """(N,), nothing missing. Column: int64, 0 train, 1 val, 2 test; group: int64, from 0 on; time: float64."""
    finding: Finding
    """Its line in the table that people see."""


def target_of(raw: RawColumn, table: RawTable) -> NDArray[Any]:
    """One target as float64, bool or str (N,), whichever fits all its cells.

    Raises:
        DataError: It is missing or infinite somewhere, or a class has an endless name.
    """
    if raw.numbers is not None:
        _refuse(raw.name, table, np.flatnonzero(np.isnan(raw.numbers)), "missing")
        _refuse(raw.name, table, np.flatnonzero(np.isinf(raw.numbers)), "infinite")
        return raw.numbers.astype(np.bool_) if raw.native == "boolean" else raw.numbers
    texts = [*raw.texts, ""]  # the last one for codes of -1
    there = [text for text in raw.texts if text.lower() not in MISSING]
    values = _as_numbers(there, table)
    if values is not None:
        by_text = dict(zip(there, values.tolist(), strict=True))
        numbers = np.array([by_text.get(text, np.nan) for text in texts])[raw.codes]
        _refuse(raw.name, table, np.flatnonzero(np.isnan(numbers)), "missing")
        _refuse(raw.name, table, np.flatnonzero(np.isinf(numbers)), "infinite")
        return numbers.astype(np.bool_) if values.dtype == np.bool_ else numbers
    # In text only an empty cell is missing: "none" may be a class.
    empty = [i for i, text in enumerate(texts) if not text]
    codes = np.where(raw.codes < 0, len(texts) - 1, raw.codes)
    _refuse(raw.name, table, np.flatnonzero(np.isin(codes, empty)), "missing")
    if (longest := max(texts, key=len)) and len(longest) > MAX_LABEL:
        raise DataError(
            f"{table.place}: classes must have names of at most {MAX_LABEL} characters; the target {raw.name!r} "
            f"has one of {len(longest):,}, {longest[:40]!r}"
        )
    labels: NDArray[Any] = np.array(texts, dtype=np.str_)[codes]
    return labels


def _as_numbers(texts: list[str], table: RawTable) -> NDArray[Any] | None:
    """Truth as bool, numbers as float64 (n,), or None where there is text; yes and no are classes by their names."""
    if not texts:
        return np.empty(0)
    if all(text.lower() in ("true", "false") for text in texts) and (truths := truths_of(texts)) is not None:
        return truths.astype(np.bool_)
    found = numbers_of(texts, decimal=table.decimal)
    return None if found is None else found[0]


def _refuse(name: str, table: RawTable, rows: Iterable[Any], what: str) -> None:
    numbers = [int(row) for row in rows]
    if numbers:
        kind = "rows" if table.lines is None else "lines"
        places = ", ".join(table.where(row).rpartition(" ")[2] for row in numbers[:5])
        raise DataError(
            f"{table.place}: the target {name!r} must be known and finite in every row; it is {what} in "
            f"{len(numbers)} rows ({kind} {places}{', ...' if len(numbers) > 5 else ''}): fill in or remove these rows"
        )


def divider_of(raw: RawColumn, table: RawTable, config: SplitConfig, kind: str | None) -> Divider:
    """What a column says about where its rows belong.

    Raises:
        DataError: It is missing somewhere, or does not say that.
    """
    if config.time is not None:
        return _time(raw, table, kind)
    settled = settle(raw, table, "categorical")
    codes, texts = settled.column.values, settled.column.categories
    if (missing := np.flatnonzero(codes < 0)).size:
        raise _unknown(raw.name, table, int(missing[0]), len(missing))
    example = texts[codes[0]]
    if config.group is not None:
        finding = Finding(raw.name, "group", "rows of one value stay together", 0, len(texts), example)
        return Divider(raw.name, "group", codes.astype(np.int64), finding)
    odd = [i for i, text in enumerate(texts) if text.lower() not in PARTS]
    if odd:
        row = int(np.flatnonzero(codes == odd[0])[0])
        raise DataError(
            f"{table.place}: the split column {raw.name!r} must say train, val or test in every row; "
            f"{table.where(row)} has {texts[odd[0]][:40]!r}"
        )
    parts = np.array([PARTS[text.lower()] for text in texts], dtype=np.int64)
    if not {0, 2} <= set(parts.tolist()):
        raise DataError(
            f"{table.place}: the split column {raw.name!r} must have rows of train and of test; it has {listed(texts)}"
        )
    return Divider(raw.name, "column", parts[codes], Finding(raw.name, "split", "", 0, len(texts), example))


def _time(raw: RawColumn, table: RawTable, kind: str | None) -> Divider:
    settled = settle(raw, table, kind)
    values = settled.column.values
    if values.dtype != np.float64:
        raise DataError(
            f"{table.place}: the time column {raw.name!r} must hold dates or numbers; it has "
            f"{settled.finding.example[:40]!r}: [data] kinds may say that it is a date"
        )
    if (missing := np.flatnonzero(np.isnan(values))).size:
        raise _unknown(raw.name, table, int(missing[0]), len(missing))
    found = settled.finding
    return Divider(raw.name, "time", values, Finding(raw.name, "time", found.why, 0, found.n_distinct, found.example))


def _unknown(name: str, table: RawTable, row: int, n_rows: int) -> DataError:
    return DataError(
        f"{table.place}: the split column {name!r} must be known in every row; it is missing in {n_rows} rows, "
        f"the first is {table.where(row)}"
    )
