"""Answer the rows of a CSV file with an exported network; needs neither torch nor a study."""

import csv
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from dlcore.errors import ExportError
from dlcore.exported import ExportedModel
from dlcore.tables import read_features
from studies.errors import UserError

_CHUNK_ROWS = 10_000


def predict_file(export_dir: Path, file: Path, out: Path | None) -> None:
    """Write one answer per row, in the order of the rows, as CSV.

    Args:
        export_dir: Folder of an export; its files are verified first.
        file: CSV with a header; columns that the network does not know are not read.
        out: Where to, whole or not at all; None is standard output.

    Raises:
        UserError: The export is not whole, or the answers cannot be written there.
        dlcore.errors.DataError: The file cannot be read, or lacks a column.
    """
    if out is not None and out.exists() and file.exists() and out.samefile(file):
        raise UserError(f"--out must be another file than {file}")
    try:
        model = ExportedModel.load(export_dir)
    except ExportError as error:
        raise UserError(str(error)) from error
    rows = read_features(str(file), model.kinds, model.forms).columns
    with _opened(out) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        for start in range(0, max(len(rows[0]), 1), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            answers = model.predict({column.name: column.take(chunk).raw() for column in rows})
            if start == 0:
                writer.writerow(answers)
            writer.writerows(zip(*(column.tolist() for column in answers.values()), strict=True))


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    """A stream to write to; a file appears under its name when it is complete."""
    if out is None:
        yield sys.stdout
        return
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with draft.open("w", newline="", encoding="utf-8") as stream:
            yield stream
        draft.replace(out)
    except OSError as error:
        raise UserError(f"{out} must be a file that can be written; {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
