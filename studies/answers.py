"""Rows and what a network answers to them, as CSV or Parquet, whole or not at all.

A row keeps all of its own columns; answers follow, and are empty where there is none. In CSV the rows are the text that
was read, and a label that a spreadsheet would take for a formula has an apostrophe before it.
"""

import fcntl
import gzip
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dlcore.rowblocks import RowBlock, as_line
from studies.errors import UserError

Answers = Mapping[str, Any]
"""Name -> pyarrow array (n,), null where there is no answer."""
_FORMULA = r"^[=+\-@\t\r]"
_UNLOCKED_S = 60.0
"""A draft that is younger may not have got its lock yet."""


class Sink(Protocol):
    """Where rows and answers go: rendered by any thread, written in order by one."""

    def render(self, block: RowBlock, answers: Answers) -> Any:
        """What `write` takes."""

    def write(self, rendered: Any) -> None:
        """Write the next rows."""


class CsvSink:
    """CSV in the separator and decimal sign of the rows."""

    def __init__(self, stream: BinaryIO, header: Sequence[str], separator: str, *, has_decimal_comma: bool) -> None:
        """Write the header."""
        self._stream, self._separator, self._has_decimal_comma = stream, separator, has_decimal_comma
        stream.write((as_line(header, separator) + "\n").encode())

    def render(self, block: RowBlock, answers: Answers) -> Any:
        """Bytes of the lines (n,)."""
        if isinstance(block.own, pa.RecordBatch):
            own = [csv_cells(column, self._separator, name=name) for name, column in _columns(block.own)]
        else:
            own = [block.own]
        cells = [self._cells(column) for column in answers.values()]
        rows = pc.binary_join_element_wise(*own, *cells, self._separator)
        lines = pc.binary_join_element_wise(rows, "", "\n")
        _, offsets, data = lines.buffers()
        return (
            data
            if data is None
            else data[: int.from_bytes(offsets[4 * len(lines) : 4 * len(lines) + 4], sys.byteorder)]
        )

    def _cells(self, column: Any) -> Any:
        if pa.types.is_string(column.type):
            is_formula = pc.match_substring_regex(column, _FORMULA)
            column = pc.if_else(is_formula, pc.binary_join_element_wise("'", column, ""), column)
        cells = csv_cells(column, self._separator)
        if self._has_decimal_comma and pa.types.is_floating(column.type):
            return pc.replace_substring(cells, ".", ",")
        return cells

    def write(self, rendered: Any) -> None:
        """Write lines."""
        if rendered is not None:
            self._stream.write(rendered)


class ParquetSink:
    """Parquet; the rows of a CSV file are texts there, as they were read, and answers have their types."""

    def __init__(self, stream: BinaryIO, own: Any, names: Sequence[str], answers: Answers) -> None:
        """Begin the file.

        Args:
            stream: To write to.
            own: pyarrow schema of the rows.
            names: Of the answers.
            answers: Of no rows, for their types.
        """
        fields = [pa.field(name, column.type) for name, column in zip(names, answers.values(), strict=True)]
        self._schema = pa.schema([*own, *fields], metadata=own.metadata)
        self._writer = pq.ParquetWriter(stream, self._schema)

    def render(self, block: RowBlock, answers: Answers) -> Any:
        """A RecordBatch (n,)."""
        own = block.own.columns if isinstance(block.own, pa.RecordBatch) else block.cells.values()
        return pa.RecordBatch.from_arrays([*own, *answers.values()], schema=self._schema)

    def write(self, rendered: Any) -> None:
        """Write rows."""
        self._writer.write_batch(rendered)

    def close(self) -> None:
        """End the file."""
        self._writer.close()


def csv_cells(column: Any, separator: str, *, name: str = "") -> Any:
    """Cells (n,) of a pyarrow array, as pyarrow strings, quoted where they must be.

    Raises:
        UserError: They are lists or the like.
    """
    is_text = pa.types.is_string(column.type)
    try:
        texts = pc.fill_null(column if is_text else column.cast(pa.string()), "")
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise UserError(
            f"a column of a CSV file must hold numbers, dates or text; {name!r} holds {column.type}: "
            "give --out a name that ends with .parquet"
        ) from None
    kind = pa.types
    if kind.is_integer(column.type) or kind.is_floating(column.type) or kind.is_boolean(column.type):
        return texts
    is_special = pc.match_substring_regex(texts, f'["\\r\\n{separator}]')
    if not pc.any(is_special).as_py():
        return texts
    doubled = pc.replace_substring(texts, '"', '""')
    return pc.if_else(is_special, pc.binary_join_element_wise('"', doubled, '"', ""), texts)


def _columns(batch: Any) -> Iterator[tuple[str, Any]]:
    yield from zip(batch.schema.names, batch.columns, strict=True)


def free_names(names: Sequence[str], header: Sequence[str]) -> list[str]:
    """Names of answers, each with so many _ behind it that no column of the rows has it."""
    taken, found = set(header), []
    for name in names:
        while name in taken:
            name += "_"
        taken.add(name)
        found.append(name)
    return found


def is_parquet(out: Path | None) -> bool:
    """Whether the name of a file says that it is Parquet."""
    return out is not None and out.suffix.lower() in (".parquet", ".pq")


@contextmanager
def whole_file(out: Path | None) -> Iterator[BinaryIO]:
    """A stream to write to, packed if its name says so; the file appears under its name when it is complete.

    Raises:
        UserError: It cannot be written there. What was there is still there.
    """
    if out is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if not out.name or (out.exists() and not out.is_file()):
        raise UserError(f"--out must name a file, not a folder, a pipe or a device; got {str(out)!r}")
    out = out.resolve()  # a link stays, and what it leads to is written
    try:
        _clear_drafts(out)
        with _draft(out) as file:
            if out.suffix.lower() == ".gz":
                with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                    yield cast(BinaryIO, packed)
            else:
                yield file
    except gzip.BadGzipFile:  # of what is read
        raise
    except OSError as error:
        raise UserError(f"{out} must be a file that can be written; {error.strerror or error}") from error


@contextmanager
def _draft(out: Path) -> Iterator[BinaryIO]:
    """A new file beside the one that it replaces once all is written; nothing is left of it otherwise."""
    # Two containers may have one folder and the same process ids.
    draft = out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with draft.open("xb") as file:
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
            file.flush()
            os.fsync(file.fileno())
            draft.replace(out)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise


def _clear_drafts(out: Path) -> None:
    """Put away what commands left that were killed while they wrote this file; one that still writes holds a lock."""
    # Earlier versions wrote no random part.
    mine = re.compile(re.escape(f".{out.name}.") + r"\d+(?:\.[0-9a-f]{8})?")
    for draft in out.parent.iterdir():
        with suppress(OSError):
            if mine.fullmatch(draft.name) and time.time() - draft.stat().st_mtime > _UNLOCKED_S:
                with draft.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    draft.unlink()
