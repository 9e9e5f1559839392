"""What was broken, how often, and what came of it: rows of a table for the end of the tests and for RESULTS.md.

Run: python -m tests.torture.summary [--record] [--note TEXT]

The long form may be run in pieces: each adds its rows to a file, with the commit that it was run on.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.record import provenance, record, table
from tests.torture.forms import FORM
from tests.torture.ledger import Faults

PIECES = Path(__file__).parents[2] / "build" / "torture.jsonl"
HEADER = (
    "what",
    "faults made",
    "lost",
    "doubled",
    "zombies",
    "false reaps",
    "differences",
    "minutes",
    "seed",
    "commit",
)


@dataclass(slots=True)
class Row:
    """One test's outcome."""

    what: str
    n_made: int = 0
    more: str = ""
    """What else is to be said of the faults made."""
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    seed: int = FORM.seed
    commit: str = ""

    def cells(self) -> list[object]:
        made = f"{self.n_made:,}{f' ({self.more})' if self.more else ''}"
        return [self.what, made, *self.counts.values(), f"{self.seconds / 60:.1f}", self.seed, self.commit]


rows: list[Row] = []
"""Of this process."""


@contextmanager
def counting(what: str) -> Iterator[tuple[Row, Faults]]:
    """A row, which is kept whatever happens, and the faults in it, of which there must be none in the end."""
    row, faults, began = Row(what), Faults(), time.monotonic()
    try:
        yield row, faults
    finally:
        row.counts, row.seconds = faults.counts(), time.monotonic() - began
        rows.append(row)
    assert not faults.told(), f"TORTURE_SEED={FORM.seed}: {faults.told()}"


def keep() -> None:
    """Add this process's rows to the file of pieces."""
    PIECES.parent.mkdir(exist_ok=True)
    commit = provenance().split(", ")[1].removeprefix("commit ")
    with PIECES.open("a") as file:
        for row in rows:
            file.write(json.dumps(asdict(row) | {"commit": commit}) + "\n")


def as_table(found: list[Row]) -> str:
    return table(HEADER, [row.cells() for row in found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="put the table into benchmarks/RESULTS.md")
    parser.add_argument("--note", default="", help="what else was so, such as the machine's other work")
    arguments = parser.parse_args()
    kept = [Row(**json.loads(line)) for line in PIECES.read_text().splitlines()] if PIECES.exists() else []
    text = as_table(list({(row.what, row.seed): row for row in kept}.values()))
    print(f"{provenance()}\n\n{text}")
    if arguments.record:
        record("Torture", f"{text}\n\n{arguments.note}")


if __name__ == "__main__":
    main()
