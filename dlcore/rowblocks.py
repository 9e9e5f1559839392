"""The rows of a CSV file, a bounded block at a time, for whoever must answer every one of them.

Read as `dlcore.csvfile` reads, with two differences: no file is too long, and a row that cannot be read is no reason to
refuse the others: it keeps its place, and is said to be at fault. Text that is no UTF-8 still ends everything, since
then no row can be trusted.

Most blocks are plain: every quote stands where RFC 4180 has it and no row runs over a line. pyarrow parses these, and
their rows pass through as they are written. All others are read by Python's `csv`, which is the meaning of both.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from dlcore.csvfile import MAX_LINE_BYTES, called, find_separator, read_header, read_records, text_lines

BLOCK_BYTES = 4_000_000
"""Of a file, read at once; every step of an answer holds a few times as much."""
MAX_CELL = 131_072
"""Characters of a cell: the limit of Python's csv, which a quote that is never closed runs into."""
_Records = list[tuple[int, list[str] | str]]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row cannot be used."""

    row: int
    """Its index in the block."""
    rule: str
    """What must hold; the same words for all rows of this fault."""
    found: str
    """What was found there."""


@dataclass(frozen=True, slots=True, eq=False)
class RowBlock:
    """Some rows (n,) of a file, in its order."""

    lines: Sequence[int]
    """Number of each row's last line in a text, or of the row itself, counted from 1."""
    cells: Mapping[str, Any]
    """Wanted column -> pyarrow array (n,): text of a CSV file, anything of Parquet; of no meaning where at fault."""
    own: Any
    """The rows as they are to be passed on: of a CSV file, the text of each without its end, pyarrow string (n,); of
    Parquet, a RecordBatch."""
    faults: tuple[Fault, ...] = ()
    """Of rows that could not even be taken apart."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole rows that nobody has taken apart yet, or records of rows that had to be."""

    first_line: int
    content: bytes
    records: _Records | None = None
    """Number of the last line, and cells or what is wrong; None for plain content."""


class CsvRows:
    """An open CSV file, from its first row on; its pieces may be parsed in any order and by any thread."""

    def __init__(self, handle: BinaryIO, path: str, block_bytes: int = BLOCK_BYTES) -> None:
        """Read the header.

        Raises:
            DataError: The file is empty, or no text in columns.
        """
        self.path = path
        self.separator = find_separator(handle)
        self._handle, self._block_bytes = handle, block_bytes
        self._n_lines = 0
        self._lines = text_lines(handle, path)
        self.header = read_header(self._header_records(), path)
        self._is_whole = _whole_rows(self.separator)

    def _header_records(self) -> Iterator[tuple[int, list[str]]]:
        for number, cells in read_records(self._lines, self.path, self.separator):
            self._n_lines = number
            yield number, cells

    def pieces(self) -> Iterator[Piece]:
        """All rows, once.

        Raises:
            DataError: A line is no UTF-8, or endless.
        """
        while content := self._handle.read(self._block_bytes):
            if not content.endswith(b"\n"):
                content += self._handle.readline(MAX_LINE_BYTES + 1)
            if not content.endswith(b"\n"):
                content += b"\n"
            first = self._n_lines + 1
            if self._is_plain(content):
                self._n_lines += content.count(b"\n")
                yield Piece(first, content)
            else:
                yield Piece(first, b"", self._take_apart(content))

    def _is_plain(self, content: bytes) -> bool:
        """Whether Python's csv and pyarrow's cannot differ on it."""
        if len(self.header) == 1 or b"\0" in content or content.count(b"\r") != content.count(b"\r\n"):
            return False
        if np.diff(_line_ends(content), prepend=0).max() > MAX_CELL:
            return False
        if b'"' in content and self._is_whole(content) is None:
            return False
        try:
            content.decode()
        except UnicodeDecodeError:
            return False
        return True

    def _take_apart(self, content: bytes) -> _Records:
        """Records of a block by Python's csv; a quoted text may run on behind its end."""
        lines = text_lines(io.BytesIO(content), self.path, self._n_lines)
        n_end = self._n_lines + content.count(b"\n")

        def feed() -> Iterator[str]:
            for line in lines:
                self._n_lines += 1
                yield line
            for line in text_lines(self._handle, self.path, self._n_lines):
                self._n_lines += 1
                yield line

        return list(_lenient(feed(), self.separator, self._n_lines, n_end))

    def parse(self, piece: Piece, wanted: Sequence[str]) -> RowBlock:
        """Take a piece apart.

        Args:
            piece: Of this file.
            wanted: Names of columns, all of them in the header.
        """
        records = piece.records
        if records is None:
            block = self._parse_plain(piece, wanted)
            if block is not None:
                return block
            text = io.StringIO(piece.content.decode(), newline="")
            records = list(_lenient(text, self.separator, piece.first_line - 1, None))
        return self._parse_records(records, wanted)

    def _parse_plain(self, piece: Piece, wanted: Sequence[str]) -> RowBlock | None:
        """By pyarrow; None where a row is blank or has another number of cells than the header."""
        names = [str(i) for i in range(len(self.header))]
        places = [str(self.header.index(name)) for name in wanted]
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(piece.content),
                arrow_csv.ReadOptions(use_threads=False, block_size=len(piece.content) + 1, column_names=names),
                arrow_csv.ParseOptions(
                    delimiter=self.separator, quote_char='"' if b'"' in piece.content else False, double_quote=True
                ),
                arrow_csv.ConvertOptions(
                    check_utf8=False,
                    column_types=dict.fromkeys(names, pa.string()),
                    include_columns=places,
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid:
            return None
        own = _lines_of(piece.content)
        if table.num_rows != len(own):
            return None
        cells = {name: table.column(place).combine_chunks() for name, place in zip(wanted, places, strict=True)}
        return RowBlock(range(piece.first_line, piece.first_line + len(own)), cells, own)

    def _parse_records(self, records: _Records, wanted: Sequence[str]) -> RowBlock:
        """By Python's csv, which has done it already; a row with too few cells is filled, one with too many cut."""
        n_columns, faults, rows = len(self.header), [], []
        for row, (_, cells) in enumerate(records):
            if isinstance(cells, str):
                rule = f"a row must be text in columns, separated by {called(self.separator)}"
                faults.append(Fault(row, rule, f"has an error: {cells}"))
                cells = []
            elif len(cells) != n_columns:
                rule = f"a row must have {n_columns} cells, as the header has"
                faults.append(Fault(row, rule, f"has {len(cells)}"))
            rows.append((cells + [""] * n_columns)[:n_columns])
        columns = list(zip(*rows, strict=True)) or [()] * n_columns
        cells_of = {name: pa.array(columns[self.header.index(name)], pa.string()) for name in wanted}
        own = pa.array([as_line(row, self.separator) for row in rows], pa.string())
        return RowBlock([line for line, _ in records], cells_of, own, tuple(faults))


def as_line(cells: Sequence[str], separator: str) -> str:
    """One row of a CSV file, without the end of its line."""
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator, lineterminator="\r\n").writerow(cells)  # so that both are quoted
    return stream.getvalue()[:-2]


def _lenient(
    lines: Iterator[str] | io.StringIO, separator: str, n_before: int, n_end: int | None
) -> Iterator[tuple[int, list[str] | str]]:
    """Records until the line `n_end` has been read, or to the end; what is wrong with a row in place of its cells."""
    reader = csv.reader(lines, strict=True, skipinitialspace=True, delimiter=separator)
    while n_end is None or n_before + reader.line_num < n_end:
        began = n_before + reader.line_num + 1
        try:
            cells: list[str] | str = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells = "a lone \\r ends no line" if "new-line" in str(error) else str(error)
            if (ended := n_before + reader.line_num) > began:
                cells += f" (lines {began} to {ended} are taken for one row)"
        if isinstance(cells, str) or len(cells) > 1 or (cells and cells[0].strip()):
            yield n_before + reader.line_num, cells


def _whole_rows(separator: str) -> Any:
    """Matches bytes in which every cell is either quoted as a whole, on one line, or has no quote."""
    mark = re.escape(separator)
    cell = rf'(?:[^"{mark}\n]*+|"[^"\n]*+(?:""[^"\n]*+)*+")'
    return re.compile(rf"(?:{cell}(?:{mark}|\r?\n))*+".encode()).fullmatch


def _lines_of(content: bytes) -> Any:
    """The lines of bytes that end with one, without their ends: pyarrow string (n,)."""
    ends = _line_ends(content)
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    lines = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(content))
    return pc.ascii_rtrim(lines, characters="\r\n")


def _line_ends(content: bytes) -> NDArray[np.int64]:
    """Where each line ends, behind its newline."""
    ends: NDArray[np.int64] = np.flatnonzero(np.frombuffer(content, dtype=np.uint8) == ord("\n")) + 1
    return ends
