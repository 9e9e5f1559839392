"""The rows of a Parquet file, a bounded batch at a time: what `dlcore.rowblocks` is for a CSV file."""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dlcore.errors import DataError
from dlcore.frames import checked_header, no_cells
from dlcore.parquet import is_readable
from dlcore.rowblocks import BLOCK_BYTES, RowBlock

MAX_ROWS = 65_536
"""Of a batch; fewer where rows are wide."""


class ParquetRows:
    """An open Parquet file; its pieces may be parsed in any order and by any thread."""

    separator = ","

    def __init__(self, handle: BinaryIO, path: str) -> None:
        """Read the schema.

        Raises:
            DataError: It is no Parquet file that can be read.
        """
        self.path = path
        try:
            self._file = pq.ParquetFile(handle, pre_buffer=False, buffer_size=1 << 20)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._unreadable(error) from None
        self.schema: Any = self._file.schema_arrow
        self.header = checked_header(path, [label.strip() for label in self.schema.names], 0)

    def pieces(self) -> Iterator[tuple[int, Any]]:
        """All rows, once: the number of rows before, and a RecordBatch.

        Raises:
            DataError: The file cannot be read to its end.
        """
        facts = self._file.metadata
        n_bytes = sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))
        row_bytes = max(n_bytes / max(facts.num_rows, 1), 8 * len(self.header))
        size = max(1, min(MAX_ROWS, int(BLOCK_BYTES / row_bytes)))
        n_before = 0
        batches = self._file.iter_batches(batch_size=size, use_threads=False)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise self._unreadable(error) from None
            if batch is None:
                return
            yield n_before, batch
            n_before += batch.num_rows

    def parse(self, piece: tuple[int, Any], wanted: Sequence[str]) -> RowBlock:
        """Take a piece apart.

        Args:
            piece: Of this file.
            wanted: Names of columns, all of them in the header.

        Raises:
            DataError: One of them holds what is no cell.
        """
        n_before, batch = piece
        cells = {}
        for name in wanted:
            cells[name] = batch.column(self.header.index(name))
            if not is_readable(cells[name].type):
                raise no_cells(self.path, name, str(cells[name].type))
        return RowBlock(range(n_before + 1, n_before + batch.num_rows + 1), cells, batch)

    def _unreadable(self, error: Exception) -> DataError:
        reason = " ".join(str(error).split())[:200]
        return DataError(f"{self.path} must be a Parquet file that can be read; {reason}")
