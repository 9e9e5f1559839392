"""Answer the rows of a file with an exported network, a block at a time; needs neither torch nor a study."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dlcore.errors import DataError, ExportError
from dlcore.exported import ExportedModel
from dlcore.inputfile import PARQUET_MAGIC, listed, open_stream
from dlcore.rowbatches import ParquetRows
from dlcore.rowblocks import CsvRows, Fault, RowBlock
from dlcore.rowvalues import RowReader
from studies.answers import Answers, CsvSink, ParquetSink, Sink, free_names, is_parquet, whole_file
from studies.errors import UserError

SLICE_ROWS = 4096
"""Rows that the network answers at once: a hidden layer of all rows of a block would be large."""
MAX_THREADS = 8
_SHOWN = 5
_Piece = TypeVar("_Piece")
_Made = TypeVar("_Made")


@dataclass(slots=True)
class Outcome:
    """What became of the rows of a file."""

    word: str = "line"
    """What a number counts: lines of a text, rows of Parquet."""
    n_rows: int = 0
    n_unanswered: int = 0
    renamed: dict[str, str] = field(default_factory=dict)
    """Answer -> what it is called, where the file has a column of its name."""
    by_rule: dict[str, tuple[int, str, list[int]]] = field(default_factory=dict)
    """What must hold -> in how many rows it does not, what was found in the first, numbers of the first."""

    def add(self, block: RowBlock, faults: Sequence[Fault]) -> None:
        """Count the rows of a block."""
        self.n_rows += len(block.lines)
        self.n_unanswered += len({fault.row for fault in faults})
        for fault in faults:
            n, first, lines = self.by_rule.setdefault(fault.rule, (0, fault.found, []))
            if n < _SHOWN:
                lines.append(block.lines[fault.row])
            self.by_rule[fault.rule] = n + 1, first, lines

    def sentences(self) -> list[str]:
        """For people, one a line; none where all is as it should be."""
        said = [
            f"the file has a column {name!r} of its own: the answer is in {new!r}" for name, new in self.renamed.items()
        ]
        if self.n_unanswered:
            said.append(f"{self.n_unanswered:,} of {self.n_rows:,} rows cannot be used; their answers are empty:")
        for rule, (n, first, lines) in self.by_rule.items():
            more = f", also {', '.join(map(str, lines[1:]))}{', ...' if n > _SHOWN else ''}" if n > 1 else ""
            said.append(f"  {n:,} row{'s' if n > 1 else ''}: {rule}; {self.word} {lines[0]} {first}{more}")
        return said


def predict_file(export_dir: Path, file: Path, out: Path | None) -> Outcome:
    """Write the rows of a file and an answer to each, in their order.

    Args:
        export_dir: Folder of an export; its files are verified first.
        file: CSV, packed or not, or Parquet, of any size, with the columns that the network knows among others.
        out: Where to, whole or not at all; Parquet or packed if its name says so. None is standard output.

    Returns:
        How many rows there are, and which have no answer, and why.

    Raises:
        UserError: The export is not whole, or the answers cannot be written there.
        dlcore.errors.DataError: The file cannot be read, or lacks a column.
    """
    if out is not None and out.exists() and file.exists() and out.samefile(file):
        raise UserError(f"--out must be another file than {file}")
    model = load_export(export_dir)
    with open_stream(str(file)) as handle:
        rows = _rows_of(handle, str(file))
        if missing := [name for name in model.feature_names if name not in rows.header]:
            raise DataError(f"{file} must have the columns of the training; missing: {listed(missing, most=30)}")
        with whole_file(out) as stream:
            return _answer(model, rows, stream, to_parquet=is_parquet(out))


def load_export(folder: Path) -> ExportedModel:
    """An export, verified.

    Raises:
        UserError: It is not whole.
    """
    try:
        return ExportedModel.load(folder)
    except ExportError as error:
        raise UserError(str(error)) from error


def _rows_of(handle: BinaryIO, path: str) -> CsvRows | ParquetRows:
    magic = handle.read(4)
    handle.seek(0)
    return ParquetRows(handle, path) if magic == PARQUET_MAGIC else CsvRows(handle, path)


def _answer(model: ExportedModel, rows: CsvRows | ParquetRows, stream: BinaryIO, *, to_parquet: bool) -> Outcome:
    """Read, answer and write all rows."""
    is_text = isinstance(rows, CsvRows)
    wanted = rows.header if is_text and to_parquet else model.feature_names
    pieces: Any = rows.pieces()
    parse: Callable[[Any, Sequence[str]], RowBlock] = rows.parse
    first = next(pieces, None)
    reader = RowReader(model.kinds, model.forms, rows.separator)
    if first is not None:
        reader = reader.learn(_of_features(parse(first, wanted), model))
    no_answers = _arrays(model.predict({name: np.zeros(0) for name in model.feature_names}), [])
    names = free_names(list(no_answers), rows.header)
    outcome = Outcome("line" if is_text else "row")
    outcome.renamed = {old: new for old, new in zip(no_answers, names, strict=True) if old != new}

    def work(piece: Any, sink: Sink) -> tuple[RowBlock, list[Fault], Any]:
        block = parse(piece, wanted)
        inputs, faults = reader.read(_of_features(block, model))
        faults = [*block.faults, *_without(block.faults, faults)]
        found = _in_slices(model, inputs, len(block.lines))
        faults += _without(faults, _unanswered(found))
        answers = _arrays(found, sorted({fault.row for fault in faults}))
        return RowBlock(block.lines, {}, None), faults, sink.render(block, answers)

    with _sink(stream, rows, names, no_answers, reader if not to_parquet else None) as sink:
        for block, faults, rendered in _in_order(lambda piece: work(piece, sink), _chained(first, pieces)):
            sink.write(rendered)
            outcome.add(block, faults)
    return outcome


def _unanswered(found: Mapping[str, Any]) -> list[Fault]:
    """Rows to which the network has no answer: their numbers are beyond what it calculates with."""
    known = [np.isfinite(values) for values in found.values() if values.dtype.kind == "f"]
    rows = np.flatnonzero(~np.logical_and.reduce(known)) if known else ()
    words = "numbers must be small enough for the network to have an answer", "has larger ones"
    return [Fault(int(row), *words) for row in rows]


@contextmanager
def _sink(
    stream: BinaryIO, rows: CsvRows | ParquetRows, names: Sequence[str], no_answers: Answers, reader: RowReader | None
) -> Iterator[Sink]:
    """CSV with a reader, else Parquet."""
    if reader is not None:
        comma = isinstance(rows, CsvRows) and rows.separator != "," and reader.has_decimal_comma
        yield CsvSink(stream, [*rows.header, *names], rows.separator, has_decimal_comma=comma)
        return
    own = rows.schema if isinstance(rows, ParquetRows) else pa.schema([(name, pa.string()) for name in rows.header])
    sink = ParquetSink(stream, own, names, no_answers)
    yield sink
    sink.close()


def _of_features(block: RowBlock, model: ExportedModel) -> dict[str, Any]:
    return {name: block.cells[name] for name in model.feature_names}


def _without(faults: Sequence[Fault], others: Sequence[Fault]) -> list[Fault]:
    """The others, but for rows that are at fault already."""
    known = {fault.row for fault in faults}
    return [fault for fault in others if fault.row not in known]


def _in_slices(model: ExportedModel, inputs: dict[str, NDArray[Any]], n_rows: int) -> dict[str, NDArray[np.generic]]:
    """Answers (n,) to rows (n,)."""
    parts = [
        model.answer({name: values[start : start + SLICE_ROWS] for name, values in inputs.items()})
        for start in range(0, max(n_rows, 1), SLICE_ROWS)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _arrays(answers: dict[str, NDArray[np.generic]], without: Sequence[int]) -> dict[str, Any]:
    """pyarrow arrays (n,), null in some rows."""
    mask = None
    if without:
        mask = np.zeros(len(next(iter(answers.values()))), dtype=np.bool_)
        mask[list(without)] = True
    return {
        name: pa.array(values, pa.string() if values.dtype == object else None, mask=mask)
        for name, values in answers.items()
    }


def _chained(first: _Piece | None, others: Iterable[_Piece]) -> Iterator[_Piece]:
    if first is not None:
        yield first
    yield from others


def _in_order(work: Callable[[_Piece], _Made], pieces: Iterable[_Piece]) -> Iterator[_Made]:
    """What is made of each piece, in their order; a thread for each core works, a few pieces ahead."""
    n_threads = min(MAX_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    ahead: deque[Future[_Made]] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for piece in pieces:
                ahead.append(pool.submit(work, piece))
                if len(ahead) > n_threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
