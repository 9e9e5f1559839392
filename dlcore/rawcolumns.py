"""Columns before anything is known of them but whether they hold numbers or text, whatever they were read from."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlcore.cells import DECIMAL_COMMA, MISSING
from dlcore.csvfile import CsvFile
from dlcore.errors import DataError

MAX_TEXTS = 10_000_000
"""Different texts of a table: some 2 GB, all of them in memory."""


@dataclass(frozen=True, slots=True, eq=False)
class RawColumn:
    """One column (N,): either `numbers`, or `codes` into `texts`."""

    name: str
    numbers: NDArray[np.float64] | None
    """NaN = missing; may be infinite."""
    codes: NDArray[np.int32]
    """(N,) where there are texts; -1 = missing."""
    texts: tuple[str, ...] = ()
    """Different, stripped, in no order; among them those that stand for a missing value."""
    native: str = "numeric"
    """What the numbers are by their type: "numeric", "boolean" or "date" (seconds since 1970-01-01 UTC)."""
    form: str = ""
    """How the numbers were written, where that is not as Python writes them; see `dlcore.cells`."""

    def __len__(self) -> int:
        """Rows N."""
        return len(self.codes if self.numbers is None else self.numbers)


@dataclass(frozen=True, slots=True, eq=False)
class RawTable:
    """What was read of a file or a frame."""

    name: str
    """Of the table."""
    place: str
    """What messages call it: a path, say."""
    columns: tuple[RawColumn, ...]
    """In the order of the source; those that nobody wants are not there."""
    lines: Sequence[int] | None = None
    """Line of each row (N,), counted from 1, in a text file."""
    decimal: str = "."
    """"." where `1,234` alone would be 1234; "?" where it would be 1.234, since no comma separates columns; "," where
    other columns have decimal commas, so that `1.234` alone would be 1234."""

    def where(self, row: int) -> str:
        """What messages call a row."""
        return f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"


Select = Callable[[tuple[str, ...]], Mapping[str, bool]]
"""The header -> the columns that are wanted, and whether as text even if all of their cells are numbers."""


def raw_texts(name: str, codes: NDArray[np.int32], texts: Sequence[str]) -> RawColumn:
    """A column of texts that may need stripping, after which some may be the same."""
    stripped = [text.strip() for text in texts]
    place = {text: i for i, text in enumerate(dict.fromkeys(stripped))}
    if len(place) < len(stripped) or stripped != list(texts):
        renumbered = np.array([*(place[text] for text in stripped), -1], dtype=np.int32)
        codes = renumbered[codes]
    return RawColumn(name, None, codes, tuple(place))


def too_many_texts(place: str, name: str) -> DataError:
    """Why a table of endless texts is refused."""
    return DataError(
        f"{place} must have at most {MAX_TEXTS:,} different texts; most are in column {name!r}: "
        f"leave it out with drop = [{name!r}]"
    )


def read_csv_columns(file: CsvFile, wanted: Mapping[str, bool]) -> tuple[tuple[RawColumn, ...], "array[int]", str]:
    """Read a file to its end.

    Args:
        file: Its chunks are used up.
        wanted: Names of columns, and whether as text even if all of their cells are numbers.

    Returns:
        The columns, in the order of the file; the line of each row; the file's `RawTable.decimal`. A column that turned
        out to be text after it began with numbers, or whose points may not be decimal, has no rows: it must be read
        again as text.
    """
    builders = [
        (i, _Builder(name, wanted[name], file.separator != ",")) for i, name in enumerate(file.header) if name in wanted
    ]
    lines = array("q")
    for chunk in file.chunks:
        columns = list(zip(*chunk.rows, strict=True))
        lines.extend(chunk.lines)
        for i, builder in builders:
            builder.add(columns[i])
        if sum(len(builder.texts) for _, builder in builders) > MAX_TEXTS:
            raise too_many_texts(file.path, max((b for _, b in builders), key=lambda b: len(b.texts)).name)
    decimal = "." if file.separator == "," else "," if any(builder.has_comma for _, builder in builders) else "?"
    for _, builder in builders:
        builder.is_broken |= decimal == "," and builder.has_point
    return tuple(builder.build() for _, builder in builders), lines, decimal


class _Builder:
    """Collects one column: as numbers as long as its cells are numbers, else as codes of its texts."""

    def __init__(self, name: str, is_text: bool, may_have_comma: bool) -> None:
        self.name, self.is_broken, self.has_comma, self.has_point = name, False, False, False
        self.texts: dict[str, int] = {}
        self._is_text, self._may_have_comma = is_text, may_have_comma
        self._numbers: list[NDArray[np.float64]] = []
        self._codes: list[NDArray[np.int32]] = []

    def add(self, cells: Sequence[str]) -> None:
        """The next rows."""
        if self.is_broken:
            return
        if not self._is_text:
            numbers = self._read(cells)
            if numbers is not None:
                self._numbers.append(numbers)
                return
            self._is_text, self.is_broken = True, bool(self._numbers)
            if self.is_broken:
                return
        texts = self.texts
        self._codes.append(np.array([texts.setdefault(cell, len(texts)) for cell in cells], dtype=np.int32))

    def _read(self, cells: Sequence[str]) -> NDArray[np.float64] | None:
        if not self.has_comma and (numbers := _plain_numbers(cells)) is not None:
            self.has_point |= self._may_have_comma and "." in "".join(cells)
            return numbers
        if not (self.has_comma or (self._may_have_comma and not self._numbers and _has_decimal_comma(cells))):
            return None
        if any("." in cell for cell in cells):
            return None
        numbers = _plain_numbers([cell.replace(",", ".") for cell in cells])
        self.has_comma |= numbers is not None
        return numbers

    def build(self) -> RawColumn:
        """All rows; none where the column is broken."""
        nothing = np.empty(0, dtype=np.int32)
        if self.is_broken:
            return RawColumn(self.name, None, nothing)
        if self._is_text:
            codes = np.concatenate(self._codes) if self._codes else nothing
            return raw_texts(self.name, codes, tuple(self.texts))
        numbers = np.concatenate(self._numbers) if self._numbers else np.empty(0)
        return RawColumn(self.name, numbers, nothing, form=DECIMAL_COMMA if self.has_comma else "")


def _plain_numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """Numbers (n,), NaN where missing; None where a cell is text."""
    if "_" in "".join(cells):  # Python reads 1_000 as a number; a table should not
        return None
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        pass
    try:
        return np.array([np.nan if cell.strip().lower() in MISSING else float(cell) for cell in cells])
    except ValueError:
        return None


def _has_decimal_comma(cells: Sequence[str]) -> bool:
    """Whether a comma stands where no thousands separator could: after a zero, or not three digits before the end.

    The rows that follow must agree, or the column is looked at as a whole.
    """
    parts = [cell.strip().lstrip("+-").split(",") for cell in cells]
    return all(len(part) <= 2 for part in parts) and any(
        len(part) == 2 and (len(part[1]) != 3 or part[0].startswith("0")) for part in parts
    )
