"""One raw column as people have it -> the array that an exported graph takes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlcore.cells import ISO, MISSING, PLAIN, meaning
from dlcore.errors import ExportError

_ValueOf = Callable[[str], float | None]
"""See `dlcore.cells.meaning`."""
_WANTED = {
    "numeric": "numbers or booleans{}, NaN where missing",
    "boolean": "booleans, or true and false, yes and no, 1 and 0",
    "date": 'dates (texts such as "2024-02-29T12:30:00Z"{}, datetime64, or seconds since 1970 in UTC)',
}


def to_input(name: str, kind: str, values: NDArray[Any], form: str = "") -> NDArray[Any]:
    """Convert one column.

    Args:
        name: For the message.
        kind: "numeric", "boolean", "date" or "categorical".
        values: (N,), numpy's or pandas's: texts; numbers or booleans; for a date texts, datetime64, or numbers that
            are seconds since 1970-01-01 UTC (a time without a zone is UTC). None, NaN, NaT and texts that stand for
            nothing (`dlcore.cells.MISSING`) are missing.
        form: How the column's cells were written in the training (see `dlcore.columns.Column.form`): so texts are
            read; dates may be as ISO writes them, too.

    Returns:
        (N,): text as Python strings, "" where missing; all else float64, NaN where missing.

    Raises:
        ExportError: The values are of another kind.
    """
    if np.ndim(values) != 1:
        raise ExportError(f"column {name} must have one dimension; got shape {np.shape(values)}")
    series = pd.Series(values)
    if kind == "categorical":
        return _texts(name, series)
    try:
        value_of = meaning(kind, form)
        numbers = _seconds(series, value_of) if kind == "date" else _numbers(series, value_of)
    except (TypeError, ValueError, OverflowError) as error:
        wanted = _WANTED[kind].format(f", or written as {form}" if form not in ("", ISO, PLAIN) else "")
        raise ExportError(f"column {name} must hold {wanted}; {error}") from error
    if (infinite := np.isinf(numbers)).any():
        raise ExportError(f"column {name} must hold finite values; row {int(infinite.argmax()) + 1} is infinite")
    return np.ascontiguousarray(numbers)


def _texts(name: str, series: "pd.Series[Any]") -> NDArray[Any]:
    texts = np.empty(len(series), dtype=object)
    for row, (value, is_missing) in enumerate(zip(series.tolist(), series.isna().tolist(), strict=True)):
        texts[row] = "" if is_missing else _text(value)
        if texts[row] is None:
            raise ExportError(f"column {name} must hold texts, None or NaN where missing; got {value!r}")
    return texts


def _text(value: object) -> str | None:
    """A category's text, as a table would have it: a whole number too, since codes are often read as numbers."""
    if isinstance(value, str):
        text = value.strip()
        return "" if text.lower() in MISSING else text
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else None


def _numbers(series: "pd.Series[Any]", value_of: _ValueOf) -> NDArray[np.float64]:
    """Numbers or booleans, whose texts mean what the cells of the table did."""
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        raise TypeError("got dates")
    if not pd.api.types.is_numeric_dtype(series.dtype):
        values = [_worth(value, value_of) if isinstance(value, str) else value for value in series.tolist()]
        series = pd.Series(values, dtype=object)
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def _worth(text: str, value_of: _ValueOf) -> float:
    """What a text says, NaN where it stands for nothing."""
    bare = text.strip()
    value = np.nan if bare.lower() in MISSING else value_of(bare)
    if value is None:
        raise ValueError(f"got {text!r}")
    return value


def _seconds(series: "pd.Series[Any]", value_of: _ValueOf) -> NDArray[np.float64]:
    """Dates, whose texts mean what the cells of the table did."""
    if not pd.api.types.is_datetime64_any_dtype(series.dtype):
        if pd.api.types.is_numeric_dtype(series.dtype) or series.isna().all():
            return _numbers(series, value_of)
        return np.array([_moment(value, value_of) for value in series.tolist()], dtype=np.float64)
    if series.dt.tz is not None:
        series = series.dt.tz_convert("UTC")
    moments = series.to_numpy(dtype="datetime64[us]")
    return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 1e6)


def _moment(value: Any, value_of: _ValueOf) -> float:
    """Seconds since 1970-01-01 UTC of a text, or of a date of Python, numpy or pandas; NaN where there is none."""
    if isinstance(value, str):
        return _worth(value, value_of)
    if pd.isna(value):
        return np.nan
    if isinstance(value, bool | int | float | np.number):
        raise TypeError(f"got {value!r} among texts")
    return float(pd.Timestamp(value).timestamp())
