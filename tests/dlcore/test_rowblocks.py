"""Plain blocks are parsed by pyarrow, all others by Python's csv; both mean the same."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcore.errors import DataError
from dlcore.rowblocks import CsvRows, RowBlock

CELL = st.text(st.sampled_from('ab1"\\\r\n ,;.é'), max_size=5)
QUOTED = st.builds(lambda text: '"' + text.replace('"', '""') + '"', CELL)
LINE = st.lists(st.one_of(CELL, QUOTED, st.just("1.5")), min_size=1, max_size=4).map(",".join)


def blocks(text: str, block_bytes: int = 40) -> list[RowBlock]:
    rows = CsvRows(io.BytesIO(text.encode()), "t.csv", block_bytes)
    return [rows.parse(piece, rows.header) for piece in rows.pieces()]


def of_all(found: list[RowBlock]) -> tuple[list[object], ...]:
    """Cells, own text read again, lines, and rows at fault: of all blocks together.

    Without the space around cells, which means nothing: `dlcore.rowvalues` takes it away.
    """
    columns = [[[cell.strip() for cell in c.to_pylist()] for c in b.cells.values()] for b in found]
    cells = [row for block in columns for row in zip(*block, strict=True)]
    texts = [io.StringIO(text, newline="") for b in found for text in b.own.to_pylist()]
    own = [tuple(next(csv.reader(text, skipinitialspace=True), [""])) for text in texts]
    lines = [line for b in found for line in b.lines]
    faults = [(b.lines[fault.row], fault.rule, fault.found) for b in found for fault in b.faults]
    return cells, own, lines, faults


@given(st.lists(LINE, max_size=12).map("\n".join))
def test_fast_blocks_and_slow_ones_mean_the_same(body: str) -> None:
    text = "a,b\n1,2\n" + body
    fast = of_all(blocks(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvRows, "_is_plain", lambda self, content: False)
        slow = of_all(blocks(text, 40))
    assert fast == slow


def test_whole_quoted_rows_are_taken_by_pyarrow_and_pass_as_they_are() -> None:
    body = [f'"{i}","say ""x,y"""' for i in range(30)]
    rows = CsvRows(io.BytesIO("\n".join(["a,b", *body]).encode()), "t.csv", 100)
    pieces = list(rows.pieces())
    assert len(pieces) > 3 and all(piece.records is None for piece in pieces)
    found = [rows.parse(piece, ["b"]) for piece in pieces]
    assert [text for block in found for text in block.own.to_pylist()] == body
    assert {text for block in found for text in block.cells["b"].to_pylist()} == {'say "x,y"'}
    assert [line for block in found for line in block.lines] == list(range(2, 32))


def test_a_text_runs_on_over_the_end_of_a_block() -> None:
    cells, _, lines, faults = of_all(blocks('a,b\n1,"' + "long\n" * 30 + 'x"\n3,4\n'))
    assert cells == [("1", "long\n" * 30 + "x"), ("3", "4")] and lines == [32, 33] and not faults


def test_rows_at_fault_keep_their_place() -> None:
    cells, _, lines, faults = of_all(blocks('a,b\n1,2\n3\n4,5,6\n"x"y,7\n\n8,9\n'))
    assert cells == [("1", "2"), ("3", ""), ("4", "5"), ("", ""), ("8", "9")]
    assert lines == [2, 3, 4, 5, 7] and [line for line, *_ in faults] == [3, 4, 5]


@pytest.mark.parametrize("body", [b"\xff,1\n", b"\x00,1\n"])
def test_text_that_is_no_utf_8_ends_everything(body: bytes, tmp_path: Path) -> None:
    rows = CsvRows(io.BytesIO(b"a,b\n1,2\n" + body), "t.csv", 4)
    with pytest.raises(DataError, match="line 3 has"):
        list(rows.pieces())
