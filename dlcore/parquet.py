"""Columns of a Parquet file: typed already, so that only texts have to be looked at.

Imported by whoever reads one: pyarrow need not be where nobody does.
"""

from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dlcore.errors import DataError
from dlcore.frames import NO_CODES, as_wanted, checked_header, no_cells
from dlcore.inputfile import MAX_BYTES
from dlcore.rawcolumns import MAX_TEXTS, RawColumn, RawTable, Select, raw_texts, too_many_texts


def parquet_columns(handle: BinaryIO, name: str, place: str, select: Select) -> RawTable:
    """The wanted columns of a Parquet file.

    Raises:
        DataError: It cannot be read, is too large, or a wanted column holds what is no number, date or text.
    """
    try:
        file = pq.ParquetFile(handle)
        facts = file.metadata
        header = checked_header(place, [label.strip() for label in file.schema_arrow.names], facts.num_rows)
        n_bytes = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
        if n_bytes > MAX_BYTES:
            raise DataError(f"{place} must have at most {MAX_BYTES:,} bytes once unpacked; it has {n_bytes:,}")
        wanted = select(header)
        schema = file.schema_arrow
        texts = [
            field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        for label, field in zip(header, schema, strict=True):
            if label in wanted and not is_readable(field.type):
                raise no_cells(place, label, str(field.type))
        handle.seek(0)
        file = pq.ParquetFile(handle, read_dictionary=texts)  # each text once, however often it comes
        columns = []
        for i, label in enumerate(header):
            if label in wanted:
                read = file.read(columns=[schema.names[i]]).column(0)
                if wanted[label] and pa.types.is_integer(read.type):
                    read = read.cast(pa.string())  # as a float, an id of 19 digits would be another one
                columns.append(as_wanted(_parquet_column(read, label, place), is_text=wanted[label]))
    except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{place} must be a Parquet file that can be read; {reason}") from None
    return RawTable(name, place, tuple(columns))


def is_readable(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers, true and false, dates or text."""
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
            return raw_texts(name, NO_CODES, ())
        if len(whole.dictionary) > MAX_TEXTS:
            raise too_many_texts(place, name)
        codes = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return raw_texts(name, codes, ["" if text is None else text for text in whole.dictionary.to_pylist()])
    native = "numeric"
    if pa.types.is_null(kind):
        return RawColumn(name, np.full(len(column), np.nan), NO_CODES)
    if pa.types.is_boolean(kind):
        native, column = "boolean", column.cast(pa.int8())
    elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        native = "date"
        micros = column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False).cast(pa.int64())
        seconds = micros.cast(pa.float64(), safe=False).to_numpy() / 1e6
        return RawColumn(name, seconds.astype(np.float64), NO_CODES, native=native)
    values = column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
    return RawColumn(name, values, NO_CODES, native=native)
