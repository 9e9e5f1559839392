import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcore import csvfile
from dlcore.csvfile import open_csv
from dlcore.errors import DataError
from dlcore.inputfile import open_input


def read(path: Path) -> tuple[tuple[str, ...], list[tuple[int, list[str]]]]:
    """Header, and each row with its line."""
    with open_input(str(path)) as handle:
        file = open_csv(handle, str(path))
        rows = [pair for chunk in file.chunks for pair in zip(chunk.lines, chunk.rows, strict=True)]
        return file.header, rows


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_rows_come_with_their_lines_and_blank_ones_are_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, '\n a , b\r\n1,2\r\n\n  \n"3\n4", 5\n6,"7""8"')
    assert read(path) == (("a", "b"), [(3, ["1", "2"]), (7, ["3\n4", "5"]), (8, ["6", '7"8'])])


def test_a_byte_order_mark_belongs_to_no_name(tmp_path: Path) -> None:
    assert read(written(tmp_path, b"\xef\xbb\xbfa,b\n1,2\n"))[0] == ("a", "b")


def test_many_rows_come_in_chunks_and_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvfile, "_CHUNK_CELLS", 6)
    path = written(tmp_path, "a,b\n" + "".join(f"{i},x\n" for i in range(10)))
    with open_input(str(path)) as handle:
        chunks = list(open_csv(handle, str(path)).chunks)
    assert [len(chunk.rows) for chunk in chunks] == [3, 3, 3, 1]
    assert [row[0] for chunk in chunks for row in chunk.rows] == [str(i) for i in range(10)]


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6).map(lambda cell: "x" + cell)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(cells, min_size=2, max_size=2), max_size=5))
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    found = read(written(tmp_path_factory.mktemp("csv"), text.getvalue()))
    assert [row for _, row in found[1]] == rows


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text('a,"\r\n1.\ufeff', max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    try:
        header, rows = read(written(tmp_path_factory.mktemp("csv"), content))
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
    else:
        assert all(len(row) == len(header) for _, row in rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must have a header row and rows below it; it is empty"),
        (b"\n \n", "it is empty"),
        (b"a,b\n1,2\n3\n", "every row must have 2 cells, as the header has; line 3 has 1"),
        (b"a,b\n1,2\n3,4,5\n", "line 3 has 3"),
        (b"a,b,a\n", "column names must differ; more than once there is 'a'"),
        (b'a,b\n1,"2\n', "line 2: unexpected end of data"),
        (b'a,b\n1,"2"3\n', "line 2: ',' expected after '\"'"),
        (b"a,b\r1,2\r", r"line 1: a lone \\r ends no line"),
        (b"a,b\n1,\xff\n", "plain UTF-8 text; line 2 has the byte 0xff"),
        ("a,b\n1,2\n".encode("utf-16"), "plain UTF-8 text; line 1 has the byte 0xff"),
        (b"a,b\n1,\0\n", "line 2 has a NUL"),
        (b"a,b\n1," + b"9" * 200_000, "line 2: field larger than field limit"),
    ],
)
def test_what_is_no_csv_file_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(written(tmp_path, content))
    assert "table.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("MAX_LINE_BYTES", "a line must have at most 4 bytes; line 1 has more"),
        ("MAX_COLUMNS", "must have at most 4 columns; found 5"),
    ],
)
def test_what_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, message: str
) -> None:
    path = written(tmp_path, "a,b,c,d,e\n1\n")
    monkeypatch.setattr(csvfile, limit, 4)
    with pytest.raises(DataError, match=message):
        read(path)


def test_too_many_cells_are_refused_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a,b\n" + "1,2\n" * 50)
    monkeypatch.setattr(csvfile, "MAX_CELLS", 20)
    monkeypatch.setattr(csvfile, "_CHUNK_CELLS", 4)
    with pytest.raises(DataError, match="must have at most 20 cells; line 13 passes that"):
        read(path)


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b;c\n1,5;2;3\n2,5;2;3\n", ";"),
        ("a\tb\n1,5\t2\n", "\t"),
        ("a|b\n1|2,3\n", "|"),
        ("a\n1\n", ","),
        ("a,b\n1;2,3\n1;2,3\n", ","),
        ('"a;b";"c,d"\n1;2\n', ";"),
        ("a;b;c,d\n1;2;3\n4;5;6\n", ";"),
        ("", ","),
    ],
)
def test_the_separator_is_the_one_by_which_rows_are_as_long_as_the_header(
    tmp_path: Path, text: str, separator: str
) -> None:
    path = written(tmp_path, text)
    with open_input(str(path)) as handle:
        assert csvfile.find_separator(handle) == separator
        assert handle.read() == text.encode()


def test_a_separator_is_found_from_the_beginning_of_a_large_file(tmp_path: Path) -> None:
    text = "a;b\n" + "1,25;x\n" * 100_000
    header, rows = read(written(tmp_path, text))
    assert header == ("a", "b") and len(rows) == 100_000 and rows[-1] == (100_001, ["1,25", "x"])
