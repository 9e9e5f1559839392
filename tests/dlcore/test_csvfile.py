import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcore import csvfile
from dlcore.csvfile import did_you_mean, listed, open_csv
from dlcore.errors import DataError


def read(path: Path) -> tuple[tuple[str, ...], list[tuple[int, list[str]]]]:
    """Header, and each row with its line."""
    with open_csv(str(path)) as file:
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
    with open_csv(str(path)) as file:
        chunks = list(file.chunks)
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
        (b"\x1f\x8b\x08\0", "line 1 has the byte 0x8b: unpack it"),
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
        ("MAX_BYTES", "must have at most 4 bytes; it has 12"),
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


def test_a_missing_file_is_refused_and_the_nearest_name_proposed(tmp_path: Path) -> None:
    written(tmp_path, "a\n")
    with pytest.raises(DataError, match=r"No such file or directory; did you mean 'table\.csv'\?"):
        read(tmp_path / "tabel.csv")
    for path in ("http://127.0.0.1:9/table.csv", "nowhere/table.csv", "table\0.csv", "~nobody-at-all/table.csv"):
        with pytest.raises(DataError, match=r"data\.path must name a CSV file on this machine"):
            read(Path(path))


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match="is not a plain file"):
            read(path)


def test_a_missing_column_is_refused_with_the_nearest_or_all_names(tmp_path: Path) -> None:
    with open_csv(str(written(tmp_path, "Quality,b\n"))) as file:
        assert file.position("b", "target") == 1
        with pytest.raises(DataError, match=r"must have the target column 'qualty'; did you mean 'Quality'\?"):
            file.position("qualty", "target")
        with pytest.raises(DataError, match="the dropped column 'zzz'; its columns are 'Quality', 'b'"):
            file.position("zzz", "dropped")
    with (
        open_csv(str(written(tmp_path, "a;b;c\n1;2;3\n"))) as file,
        pytest.raises(DataError, match="it has one column, 'a;b;c': separate columns by commas"),
    ):
        file.position("c", "target")


def test_long_lists_are_cut_and_names_compared_without_case() -> None:
    assert listed("abc", most=2) == "'a', 'b' and 1 more"
    assert did_you_mean("PETAL", ["petal", "sepal"]) == "; did you mean 'petal'?"
    assert did_you_mean("x", ["petal"]) == ""
