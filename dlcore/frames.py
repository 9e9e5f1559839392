"""Columns of a pandas DataFrame or of a Parquet file: typed already, so that only texts have to be looked at."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dlcore.csvfile import MAX_CELLS, MAX_COLUMNS
from dlcore.errors import DataError
from dlcore.inputfile import MAX_BYTES, listed
from dlcore.rawcolumns import MAX_TEXTS, RawColumn, RawTable, Select, raw_texts, too_many_texts

_NO_CODES = np.empty(0, dtype=np.int32)
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
    header = _checked_header(place, [str(label).strip() for label in frame.columns], len(frame))
    wanted = select(header)
    columns = [
        _as_text_column(raw) if wanted[label] else raw
        for i, label in enumerate(header)
        if label in wanted
        for raw in [_frame_column(frame.iloc[:, i], label, place)]
    ]
    return RawTable(name, place, tuple(columns))


def _checked_header(place: str, header: list[str], n_rows: int) -> tuple[str, ...]:
    if not header or len(header) > MAX_COLUMNS:
        raise DataError(f"{place} must have 1 to {MAX_COLUMNS:,} columns; it has {len(header):,}")
    if n_rows * len(header) > MAX_CELLS:
        raise DataError(f"{place} must have at most {MAX_CELLS:,} cells; it has {n_rows * len(header):,}")
    doubled = [name for name in dict.fromkeys(header) if header.count(name) > 1] if len({*header}) < len(header) else []
    if doubled:
        raise DataError(f"{place}: column names must differ; more than once there is {listed(doubled)}")
    return tuple(header)


def _frame_column(series: "pd.Series[Any]", name: str, place: str) -> RawColumn:
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        codes = np.asarray(series.cat.codes, dtype=np.int32)
        return raw_texts(name, codes, [str(category) for category in series.cat.categories])
    if pd.api.types.is_bool_dtype(dtype):
        return RawColumn(name, series.to_numpy(np.float64, na_value=np.nan), _NO_CODES, native="boolean")
    if pd.api.types.is_complex_dtype(dtype):
        raise _no_cells(place, name, "complex numbers")
    if pd.api.types.is_numeric_dtype(dtype):
        return RawColumn(name, series.to_numpy(np.float64, na_value=np.nan), _NO_CODES)
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return RawColumn(name, _seconds(series), _NO_CODES, native="date")
    if not pd.api.types.is_object_dtype(dtype) and not pd.api.types.is_string_dtype(dtype):
        raise _no_cells(place, name, str(dtype))
    cells = series.to_numpy(object)
    is_missing = np.asarray(pd.isna(series), dtype=bool)
    found = {type(cell) for cell in cells[~is_missing]}
    if odd := [kind for kind in found if not issubclass(kind, _PLAIN_TYPES)]:
        raise _no_cells(place, name, " and ".join(sorted(kind.__name__ for kind in odd)))
    filled = np.array(["" if gone else str(cell) for cell, gone in zip(cells, is_missing, strict=True)], dtype=object)
    places, texts = pd.factorize(filled)
    return raw_texts(name, places.astype(np.int32), [str(text) for text in texts])


def _no_cells(place: str, name: str, what: str) -> DataError:
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


def _as_text_column(raw: RawColumn) -> RawColumn:
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


def parquet_columns(handle: BinaryIO, name: str, place: str, select: Select) -> RawTable:
    """The wanted columns of a Parquet file.

    Raises:
        DataError: It cannot be read, is too large, or a wanted column holds what is no number, date or text.
    """
    try:
        file = pq.ParquetFile(handle)
        facts = file.metadata
        header = _checked_header(place, [label.strip() for label in file.schema_arrow.names], facts.num_rows)
        n_bytes = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
        if n_bytes > MAX_BYTES:
            raise DataError(f"{place} must have at most {MAX_BYTES:,} bytes once unpacked; it has {n_bytes:,}")
        wanted = select(header)
        schema = file.schema_arrow
        texts = [
            field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        for label, field in zip(header, schema, strict=True):
            if label in wanted and not _is_readable(field.type):
                raise _no_cells(place, label, str(field.type))
        handle.seek(0)
        file = pq.ParquetFile(handle, read_dictionary=texts)  # each text once, however often it comes
        columns = []
        for i, label in enumerate(header):
            if label in wanted:
                raw = _parquet_column(file.read(columns=[schema.names[i]]).column(0), label, place)
                columns.append(_as_text_column(raw) if wanted[label] else raw)
    except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{place} must be a Parquet file that can be read; {reason}") from None
    return RawTable(name, place, tuple(columns))


def _is_readable(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_date,
        pa.types.is_timestamp, pa.types.is_string, pa.types.is_large_string, pa.types.is_null,
    )  # fmt: skip
    is_coded_text = pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type)
    return is_coded_text or any(test(kind) for test in tests)


def _parquet_column(column: pa.ChunkedArray, name: str, place: str) -> RawColumn:
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        coded = column if pa.types.is_dictionary(kind) else column.dictionary_encode()
        whole = coded.unify_dictionaries().combine_chunks()
        if isinstance(whole, pa.ChunkedArray):  # no rows at all
            return raw_texts(name, _NO_CODES, ())
        if len(whole.dictionary) > MAX_TEXTS:
            raise too_many_texts(place, name)
        codes = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return raw_texts(name, codes, ["" if text is None else text for text in whole.dictionary.to_pylist()])
    native = "numeric"
    if pa.types.is_null(kind):
        return RawColumn(name, np.full(len(column), np.nan), _NO_CODES)
    if pa.types.is_boolean(kind):
        native, column = "boolean", column.cast(pa.int8())
    elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        native = "date"
        micros = column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False).cast(pa.int64())
        seconds = micros.cast(pa.float64(), safe=False).to_numpy() / 1e6
        return RawColumn(name, seconds.astype(np.float64), _NO_CODES, native=native)
    values = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
    return RawColumn(name, values, _NO_CODES, native=native)
