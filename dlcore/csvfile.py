"""Read a CSV file strictly: what it is not sure about, it refuses with the line number.

The file may come from a stranger, so it is opened by our own `open` (no addresses, no archives unpacked by
name), must be plain UTF-8 with a header row and equally long rows, and is read in bounded pieces. RFC 4180,
with \\n or \\r\\n after a line and a byte order mark allowed. What the cells mean is for `dlcore.tables` to say.
"""

import csv
import difflib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dlcore.errors import DataError

MAX_BYTES = 2_000_000_000
MAX_LINE_BYTES = 10_000_000
MAX_COLUMNS = 20_000
MAX_CELLS = 250_000_000
"""2 GB as float64: all rows are kept in memory, and on the device."""
_CHUNK_CELLS = 200_000


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
        if len(self.header) == 1 and any(mark in self.header[0] for mark in ";\t|"):
            hint = f"; it has one column, {self.header[0][:60]!r}: separate columns by commas"
        raise DataError(f"{self.path} must have the {role} column {name!r}{hint}")


@contextmanager
def open_csv(path: str) -> Iterator[CsvFile]:
    """Open a file and read its header.

    Raises:
        DataError: here or while its chunks are read, if it is not a CSV file as described above.
    """
    with _opened(path) as handle:
        records = _records(handle, path)
        header = _read_header(records, path)
        yield CsvFile(path, header, _chunks(records, len(header), path))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name as the end of a message, or nothing."""
    by_lower = {other.lower(): other for other in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower, 1)
    return f"; did you mean {by_lower[nearest[0]]!r}?" if nearest else ""


def listed(names: Sequence[object], most: int = 8) -> str:
    """The first names, quoted, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def _opened(path: str) -> BinaryIO:
    """The file, open for reading bytes, if it is a plain one on this machine and not too large."""
    try:
        # Not blocking, so that a pipe is refused instead of waited for.
        descriptor = os.open(Path(path).expanduser(), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in it; RuntimeError: ~nobody
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"data.path must name a CSV file on this machine; {path!r}: {reason}{_similar_file(path)}"
        ) from None
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise DataError(f"data.path must name a CSV file on this machine; {path!r} is not a plain file")
    if facts.st_size > MAX_BYTES:
        os.close(descriptor)
        raise DataError(f"{path} must have at most {MAX_BYTES:,} bytes; it has {facts.st_size:,}")
    return os.fdopen(descriptor, "rb")


def _similar_file(path: str) -> str:
    try:
        names = [other.name for other in Path(path).expanduser().parent.iterdir() if other.is_file()]
    except (OSError, ValueError, RuntimeError):
        return ""  # the folder is not there either: nothing to propose
    return did_you_mean(Path(path).name, names)


def _records(handle: BinaryIO, path: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row that is not blank."""
    reader = csv.reader(_lines(handle, path), strict=True, skipinitialspace=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = "a lone \\r ends no line" if "new-line" in str(error) else str(error)
            raise DataError(f"{path} must be comma-separated text; line {reader.line_num}: {what}") from None
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield reader.line_num, cells


def _lines(handle: BinaryIO, path: str) -> Iterator[str]:
    number = 0
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


def _read_header(records: Iterator[tuple[int, list[str]]], path: str) -> tuple[str, ...]:
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
