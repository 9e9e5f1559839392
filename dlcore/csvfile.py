"""Read a CSV file strictly: what it is not sure about, it refuses with the line number.

The file may come from a stranger, so it is opened by `dlcore.inputfile`, must be plain UTF-8 with a header row and
equally long rows, and is read in bounded pieces. RFC 4180, with \\n or \\r\\n after a line and a byte order mark
allowed; columns may be separated by semicolons, tabs or bars as well. What cells mean is for `dlcore.cells` to say.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from dlcore.errors import DataError
from dlcore.inputfile import did_you_mean, listed

MAX_LINE_BYTES = 10_000_000
MAX_COLUMNS = 20_000
MAX_CELLS = 250_000_000
"""2 GB as float64: all rows are kept in memory, and on the device."""
_CHUNK_CELLS = 200_000
_SEPARATORS = ",;\t|"
_SAMPLE_BYTES = 200_000
"""Of a file, from which its separator is found."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows, so that the text of all of them need not fit in memory."""

    lines: list[int]
    """Number of each row's last line, counted from 1."""
    rows: list[list[str]]
    """Cells of each row, as many as the header has."""


@dataclass(frozen=True, slots=True)
class CsvFile:
    """An open file whose header has been read."""

    path: str
    header: tuple[str, ...]
    """Stripped names, all different; at most one is empty."""
    separator: str
    chunks: Iterator[Chunk]
    """All rows that are not blank, once."""

    def position(self, name: str, role: str) -> int:
        """Index of a column; `role` says what it is wanted for.

        Raises:
            DataError: there is no such column; the message names the nearest one.
        """
        if name in self.header:
            return self.header.index(name)
        hint = did_you_mean(name, self.header) or f"; its columns are {listed(self.header)}"
        raise DataError(f"{self.path} must have the {role} column {name!r}{hint}")


def open_csv(handle: BinaryIO, path: str) -> CsvFile:
    """Read the header of a file that stands at its beginning.

    Raises:
        DataError: here or while its chunks are read, if it is not a CSV file as described above.
    """
    separator = find_separator(handle)
    records = read_records(text_lines(handle, path), path, separator)
    header = read_header(records, path)
    return CsvFile(path, header, separator, _chunks(records, len(header), path))


def find_separator(handle: BinaryIO) -> str:
    """The separator by which most of the first rows have as many cells as the header; a comma in doubt."""
    start = handle.tell()
    sample = handle.read(_SAMPLE_BYTES).decode("utf-8-sig", errors="replace")
    handle.seek(start)
    scores = {}
    for separator in _SEPARATORS:
        sizes = []
        try:
            reader = csv.reader(io.StringIO(sample, newline=""), delimiter=separator, skipinitialspace=True)
            for cells in reader:
                if len(cells) > 1 or (cells and cells[0].strip()):
                    sizes.append(len(cells))
        except csv.Error:
            pass  # what could be read says enough; the whole file is read strictly later
        if len(sizes) > 1 and len(sample) == _SAMPLE_BYTES:
            del sizes[-1]  # it may be cut
        n_alike = sum(size == sizes[0] for size in sizes) if sizes and sizes[0] > 1 else 0
        scores[separator] = (n_alike, sizes[0] if n_alike else 0)
    return max(scores, key=lambda separator: scores[separator])  # of equals the first, the comma


def read_records(lines: Iterator[str], path: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row that is not blank.

    Raises:
        DataError: A row is no text in columns.
    """
    reader = csv.reader(lines, strict=True, skipinitialspace=True, delimiter=separator)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = "a lone \\r ends no line" if "new-line" in str(error) else str(error)
            raise DataError(
                f"{path} must be text in columns, separated by {called(separator)}; line {reader.line_num}: {what}"
            ) from None
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield reader.line_num, cells


def called(separator: str) -> str:
    """What messages call a separator."""
    return {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}[separator]


def text_lines(handle: BinaryIO, path: str, number: int = 0) -> Iterator[str]:
    """The lines of a file from where it stands, after `number` lines.

    Raises:
        DataError: A line is endless, or no plain UTF-8 text.
    """
    while raw := handle.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise DataError(f"{path}: a line must have at most {MAX_LINE_BYTES:,} bytes; line {number} has more")
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} must be plain UTF-8 text; line {number} has the byte 0x{raw[error.start]:02x}: "
                "unpack it, or save it again as UTF-8"
            ) from None
        if "\0" in line:
            raise DataError(f"{path} must be plain UTF-8 text; line {number} has a NUL: save it again as UTF-8")
        yield line


def read_header(records: Iterator[tuple[int, list[str]]], path: str) -> tuple[str, ...]:
    """Stripped names of the columns, from the first record.

    Raises:
        DataError: There is none, or names are doubled or too many.
    """
    _, cells = next(records, (0, []))
    if not cells:
        raise DataError(f"{path} must have a header row and rows below it; it is empty")
    header = tuple(name.strip() for name in cells)
    if len(header) > MAX_COLUMNS:
        raise DataError(f"{path} must have at most {MAX_COLUMNS:,} columns; found {len(header):,}")
    doubled = [name for name, count in Counter(header).items() if count > 1]
    if doubled:
        raise DataError(f"{path}: column names must differ; more than once there is {listed(doubled)}")
    return header


def _chunks(records: Iterator[tuple[int, list[str]]], n_columns: int, path: str) -> Iterator[Chunk]:
    most_rows = MAX_CELLS // n_columns
    size = max(1, _CHUNK_CELLS // n_columns)
    n_rows = 0
    chunk = Chunk([], [])
    for line, cells in records:
        if len(cells) != n_columns:
            raise DataError(
                f"{path}: every row must have {n_columns} cells, as the header has; line {line} has {len(cells)}"
            )
        chunk.lines.append(line)
        chunk.rows.append(cells)
        if len(chunk.rows) == size:
            yield chunk
            n_rows += size
            chunk = Chunk([], [])
            if n_rows > most_rows:
                raise DataError(f"{path} must have at most {MAX_CELLS:,} cells; line {line} passes that")
    if chunk.rows:
        yield chunk
