"""Columns of a pandas DataFrame: typed already, so that only texts have to be looked at."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlcore.csvfile import MAX_CELLS, MAX_COLUMNS
from dlcore.errors import DataError
from dlcore.inputfile import listed
from dlcore.rawcolumns import RawColumn, RawTable, Select, raw_texts

NO_CODES = np.empty(0, dtype=np.int32)
_PLAIN_TYPES = (str, bool, np.bool_, int, float, np.integer, np.floating, Decimal, date, datetime)


def frame_columns(frame: pd.DataFrame, name: str, place: str, select: Select) -> RawTable:
    """The wanted columns of a frame; its index is no column.

    Args:
        frame: Any, with one row of names.
        name: Of the table.
        place: For messages.
        select: Says which columns are wanted.

    Raises:
        DataError: Its names are not texts or numbers that differ, it is too large, or a column holds other objects.
    """
    if frame.columns.nlevels > 1:
        raise DataError(f"{place} must have one row of column names; it has {frame.columns.nlevels}")
    header = checked_header(place, [str(label).strip() for label in frame.columns], len(frame))
    wanted = select(header)
    columns = [
        as_wanted(raw, is_text=wanted[label])
        for i, label in enumerate(header)
        if label in wanted
        for raw in [_frame_column(frame.iloc[:, i], label, place, is_text=wanted[label])]
    ]
    return RawTable(name, place, tuple(columns))


def checked_header(place: str, header: list[str], n_rows: int) -> tuple[str, ...]:
    """Names of columns that differ, of a table that is not too large."""
    if not header or len(header) > MAX_COLUMNS:
        raise DataError(f"{place} must have 1 to {MAX_COLUMNS:,} columns; it has {len(header):,}")
    if n_rows * len(header) > MAX_CELLS:
        raise DataError(f"{place} must have at most {MAX_CELLS:,} cells; it has {n_rows * len(header):,}")
    doubled = [name for name in dict.fromkeys(header) if header.count(name) > 1] if len({*header}) < len(header) else []
    if doubled:
        raise DataError(f"{place}: column names must differ; more than once there is {listed(doubled)}")
    return tuple(header)


def _frame_column(series: "pd.Series[Any]", name: str, place: str, *, is_text: bool) -> RawColumn:
    dtype = series.dtype
    if is_text and pd.api.types.is_integer_dtype(dtype):  # as a float, an id of 19 digits would be another one
        places, distinct = pd.factorize(series)
        return raw_texts(name, places.astype(np.int32), [str(whole) for whole in distinct.tolist()])
    if isinstance(dtype, pd.CategoricalDtype):
        codes = np.asarray(series.cat.codes, dtype=np.int32)
        return raw_texts(name, codes, [str(category) for category in series.cat.categories])
    if pd.api.types.is_bool_dtype(dtype):
        return RawColumn(name, series.to_numpy(np.float64, na_value=np.nan), NO_CODES, native="boolean")
    if pd.api.types.is_complex_dtype(dtype):
        raise no_cells(place, name, "complex numbers")
    if pd.api.types.is_numeric_dtype(dtype):
        return RawColumn(name, series.to_numpy(np.float64, na_value=np.nan), NO_CODES)
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return RawColumn(name, _seconds(series), NO_CODES, native="date")
    if not pd.api.types.is_object_dtype(dtype) and not pd.api.types.is_string_dtype(dtype):
        raise no_cells(place, name, str(dtype))
    cells = series.to_numpy(object)
    is_missing = np.asarray(pd.isna(series), dtype=bool)
    found = {type(cell) for cell in cells[~is_missing]}
    if odd := [kind for kind in found if not issubclass(kind, _PLAIN_TYPES)]:
        raise no_cells(place, name, " and ".join(sorted(kind.__name__ for kind in odd)))
    filled = np.array(["" if gone else str(cell) for cell, gone in zip(cells, is_missing, strict=True)], dtype=object)
    places, texts = pd.factorize(filled)
    return raw_texts(name, places.astype(np.int32), [str(text) for text in texts])


def no_cells(place: str, name: str, what: str) -> DataError:
    """What is said of a column that holds something else than cells."""
    return DataError(
        f"{place}: a column must hold numbers, true/false, dates or text; {name!r} holds {what}: "
        f"leave it out with drop = [{name!r}]"
    )


def _seconds(series: "pd.Series[Any]") -> NDArray[np.float64]:
    """Times (N,) as seconds since 1970-01-01 UTC; one without a zone is UTC."""
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    times = series.to_numpy("datetime64[us]")
    return np.where(np.isnat(times), np.nan, times.astype(np.int64) / 1e6)


def as_wanted(raw: RawColumn, *, is_text: bool) -> RawColumn:
    """A typed column as text where that is wanted; dates stay numbers, which a column of any kind can be made of."""
    return as_text_column(raw) if is_text and raw.native != "date" else raw


def as_text_column(raw: RawColumn) -> RawColumn:
    """Whole numbers without a point; true and false; seconds of dates."""
    if raw.numbers is None:
        return raw
    distinct, codes = np.unique(raw.numbers, return_inverse=True)
    if raw.native == "boolean":
        texts = ["" if np.isnan(value) else "true" if value else "false" for value in distinct]
    else:
        texts = [
            "" if np.isnan(value) else f"{int(value)}" if float(value).is_integer() else repr(float(value))
            for value in distinct
        ]
    return raw_texts(raw.name, codes.astype(np.int32), texts)
