"""What the cells of some rows are worth to an exported network, row by row.

A table to learn from is looked at as a whole (`dlcore.kinds`). Here a row must mean the same whatever stands beside it:
kinds are those of the training, and so is the way in which numbers and dates are written, where the training saw them
as text. Only where it did not (plain numbers, dates of a Parquet file) the first rows of the file say it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dlcore.cells import COMMAS, DATE_FORMS, MISSING, PLAIN, meaning, numbers_of, parts_of_form
from dlcore.csvfile import Chunk, CsvFile
from dlcore.frames import NO_CODES, as_text_column
from dlcore.rawcolumns import RawColumn, RawTable, read_csv_columns
from dlcore.rowblocks import Fault

FloatArray = NDArray[np.float64]
FIRST_ROWS = 10_000
"""So many rows at the beginning of a file say how it is written, where the training does not."""
RULES = {
    "numeric": "must hold finite numbers{}",
    "boolean": "must hold true or false, yes or no, or 1 and 0",
    "date": "must hold dates{}",
}


@dataclass(frozen=True, slots=True)
class RowReader:
    """How the columns of a file are read."""

    kinds: Mapping[str, str]
    """Column -> its kind in the training: numeric, boolean, date or categorical."""
    forms: Mapping[str, str]
    """Column -> how its numbers or dates are written (see `dlcore.cells`); "" is not known."""
    separator: str = ","
    """Of a CSV file; a comma where there is none."""

    @property
    def has_decimal_comma(self) -> bool:
        """Whether the file writes numbers as 1,5."""
        forms = (self.forms[name] for name, kind in self.kinds.items() if kind == "numeric")
        return any(parts_of_form(form)[1] in COMMAS for form in forms)

    def learn(self, cells: Mapping[str, Any]) -> "RowReader":
        """The reader that also knows what the first rows say, (n,) pyarrow arrays as `read` takes them."""
        first = {name: _decoded(column.slice(0, FIRST_ROWS)) for name, column in cells.items()}
        texts = {name: column for name, column in first.items() if pa.types.is_string(column.type)}
        open_ones = [name for name in texts if self.forms[name] in ("", PLAIN) and self.kinds[name] in RULES]
        if not open_ones:
            return self
        is_text = {
            name: self.kinds[name] in ("categorical", "date") or self.forms[name] not in ("", PLAIN) for name in texts
        }
        raw = _first_columns({name: column.to_pylist() for name, column in texts.items()}, is_text, self.separator)
        forms = dict(self.forms)
        for column in raw.columns:
            if column.name in open_ones:
                forms[column.name] = _form_of(column, self.kinds[column.name], raw.decimal) or forms[column.name]
        return replace(self, forms=forms)

    def read(self, cells: Mapping[str, Any]) -> tuple[dict[str, NDArray[Any]], list[Fault]]:
        """Convert rows.

        Args:
            cells: Column -> pyarrow array (n,): texts, or what Parquet holds.

        Returns:
            Column -> what the graph takes (n,): texts as Python strings, "" where missing, else float64, NaN where
            missing or at fault; and the cells that cannot be used.
        """
        inputs: dict[str, NDArray[Any]] = {}
        faults: list[Fault] = []
        for name, kind in self.kinds.items():
            column = _simple(cells[name], name, kind)
            if kind == "categorical":
                inputs[name] = _texts(column)
                continue
            values, is_bad = self._numbers(name, column)
            inputs[name] = values
            if is_bad.any():
                faults += self._faults(name, column, is_bad)
        return inputs, faults

    def _numbers(self, name: str, column: Any) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Values (n,), NaN where missing or bad, and where they are bad (n,)."""
        kind, form = self.kinds[name], self.forms[name]
        if not pa.types.is_string(column.type):
            values = column.to_numpy(zero_copy_only=False)
            is_bad = np.isinf(values)
            if kind == "boolean":
                is_bad |= ~np.isnan(values) & (values != 0) & (values != 1)
        elif kind == "numeric" and form in ("", PLAIN) and (plain := plain_numbers(column)) is not None:
            values, is_bad = plain, np.isinf(plain)
        else:
            values, is_bad = one_by_one(column, meaning(kind, form))
        return np.where(is_bad, np.nan, values), is_bad

    def _faults(self, name: str, column: Any, is_bad: NDArray[np.bool_]) -> list[Fault]:
        kind, form = self.kinds[name], self.forms[name]
        written = f", written as {form}" if form not in ("", PLAIN) else ""
        rule = f"column {name!r} {RULES[kind].format(written)}"
        rows = np.flatnonzero(is_bad)
        found = column.take(pa.array(rows)).to_pylist()
        return [Fault(row, rule, f"has {str(text)[:40]!r}") for row, text in zip(rows.tolist(), found, strict=True)]


def plain_numbers(column: Any) -> FloatArray | None:
    """Numbers (n,) as Python writes them, of a pyarrow array of texts, NaN where missing; None where a cell is neither.

    `one_by_one` with `number_of` is its readable twin.
    """
    values = _cast(column)
    if values is None or np.isnan(values).any():  # there are holes, or perhaps a word that pyarrow takes for NaN
        texts = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        holes = pc.is_in(texts, value_set=_HOLES)
        values = _cast(pc.if_else(holes, None, texts))
        if values is None or np.isnan(values).sum() != pc.sum(holes).as_py():
            return None
    return values


_HOLES = pa.array(sorted(MISSING))


def _cast(column: Any) -> FloatArray | None:
    try:
        values: FloatArray = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return None
    return values


def one_by_one(column: Any, value_of: Callable[[str], float | None]) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Values (n,), NaN where missing or bad, and where they are bad (n,), of a pyarrow array of texts.

    Args:
        column: (n,); none of them null.
        value_of: The value of a text, stripped and not missing; None is bad.
    """
    coded = column.dictionary_encode()
    stripped = [text.strip() for text in coded.dictionary.to_pylist()]
    found = [np.nan if text.lower() in MISSING else value_of(text) for text in stripped]
    is_bad = np.array([value is None or np.isinf(value) for value in found], dtype=np.bool_)
    values = np.array([np.nan if value is None else value for value in found])
    codes = coded.indices.to_numpy()
    return values[codes], is_bad[codes]


def _texts(column: Any) -> NDArray[Any]:
    """Categories (n,) as Python strings, "" where missing."""
    coded = column.dictionary_encode()
    stripped = [text.strip() for text in coded.dictionary.to_pylist()]
    texts = np.array([*("" if text.lower() in MISSING else text for text in stripped), ""], dtype=object)
    taken: NDArray[Any] = texts[coded.indices.to_numpy()]
    return taken


def _simple(column: Any, name: str, kind: str) -> Any:
    """Texts without nulls, or float64 with NaN: as `dlcore.parquet` reads them, and dates always as seconds."""
    column = _decoded(column)
    if kind in ("categorical", "date") and pa.types.is_integer(column.type):
        return pc.fill_null(column.cast(pa.string()), "")
    if pa.types.is_string(column.type):
        return column
    native = "numeric"
    if pa.types.is_boolean(column.type):
        native, numbers = "boolean", column.cast(pa.float64())
    elif pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        native, zone = "date", getattr(column.type, "tz", None)
        micros = column.cast(pa.timestamp("us", tz=zone), safe=False).cast(pa.int64())
        numbers = pc.divide(micros.cast(pa.float64(), safe=False), 1e6)
    else:
        numbers = column.cast(pa.float64(), safe=False)
    values = numbers.to_numpy(zero_copy_only=False).astype(np.float64)
    if kind == "categorical" or (kind == "date" and native != "date"):
        raw = as_text_column(RawColumn(name, values, NO_CODES, native=native))
        return pa.array(np.array([*raw.texts, ""], dtype=object)[raw.codes], pa.string())
    return pa.array(values)


def _decoded(column: Any) -> Any:
    """Texts of any encoding as plain ones, "" where null; all else as it is."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pc.fill_null(column.cast(pa.string()), "")
    return column


def _first_columns(texts: Mapping[str, list[str]], is_text: Mapping[str, bool], separator: str) -> RawTable:
    """The first rows as a table, read as one of its own is read."""
    rows = [list(row) for row in zip(*texts.values(), strict=True)]

    def read(wanted: Mapping[str, bool]) -> tuple[tuple[RawColumn, ...], Any, str]:
        chunk = Chunk(list(range(len(rows))), rows)
        return read_csv_columns(CsvFile("", tuple(texts), separator, iter([chunk] if rows else [])), wanted)

    columns, lines, decimal = read(is_text)
    broken = [column.name for column in columns if len(column) < len(lines)]
    mended = {column.name: column for column in read(dict.fromkeys(broken, True))[0]}
    return RawTable("", "", tuple(mended.get(column.name, column) for column in columns), lines, decimal)


def _form_of(column: RawColumn, kind: str, decimal: str) -> str:
    """How most of a column's cells are written; "" where none says it."""
    if column.numbers is not None:
        return column.form
    there = sorted(text for text in column.texts if text.lower() not in MISSING)
    if not there:
        return ""
    if kind == "numeric":
        found = numbers_of(there, decimal=decimal, is_strict=False)
        return "" if found is None else found[1]
    if kind == "date":
        counts = {form: sum(meaning(kind, form)(text) is not None for text in there) for form in DATE_FORMS}
        best = max(counts, key=lambda form: counts[form])
        return best if counts[best] else ""
    return ""
