import gzip
import os
import tracemalloc
from pathlib import Path

import pytest

from dlcore import inputfile
from dlcore.errors import DataError
from dlcore.inputfile import did_you_mean, listed, open_input


def read(path: Path) -> bytes:
    with open_input(str(path)) as handle:
        return handle.read()


def written(folder: Path, content: bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content)
    return path


def test_a_missing_file_is_refused_and_the_nearest_name_proposed(tmp_path: Path) -> None:
    written(tmp_path, b"a\n")
    with pytest.raises(DataError, match=r"No such file or directory; did you mean 'table\.csv'\?"):
        read(tmp_path / "tabel.csv")
    for path in ("http://127.0.0.1:9/table.csv", "nowhere/table.csv", "table\0.csv", "~nobody-at-all/table.csv"):
        with pytest.raises(DataError, match=r"data\.path must name a CSV or Parquet file on this machine"):
            read(Path(path))


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match="is not a plain file"):
            read(path)


def test_a_packed_file_is_unpacked_and_can_seek(tmp_path: Path) -> None:
    text = b"".join(b"%d,%d\n" % (i, i**3 % 1009) for i in range(200_000))
    two_members = gzip.compress(text[:1000]) + gzip.compress(text[1000:]) + b"\0" * 7
    for packed in (gzip.compress(text), two_members):
        with open_input(str(written(tmp_path, packed))) as handle:
            assert handle.read() == text
            handle.seek(0)
            assert handle.read(3) == text[:3]


def test_a_packed_file_that_is_broken_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(os.urandom(1_000_000))
    for broken in (
        packed[:-1],
        packed[:1000],
        packed[:-8] + b"12345678",
        b"\x1f\x8b",
        b"\x1f\x8b\x08\0",
        packed + b"x",
    ):
        with pytest.raises(DataError, match=r"table\.csv must be a whole gzip file; .*: pack it again"):
            read(written(tmp_path, broken))


def test_a_packed_file_that_is_far_larger_than_it_looks_is_refused_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress(b"1,2\n" * 50_000_000, 9))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="at most 200 times its own size; it holds more"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_too_many_bytes_are_refused_packed_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputfile, "MAX_BYTES", 40)
    with pytest.raises(DataError, match="must have at most 40 bytes; it has 41"):
        read(written(tmp_path, b"1" * 41))
    with pytest.raises(DataError, match="must hold at most 40 bytes once unpacked"):
        read(written(tmp_path, gzip.compress(b"1" * 41)))
    assert read(written(tmp_path, b"1" * 40)) == b"1" * 40


def test_long_lists_are_cut_and_names_compared_without_case() -> None:
    assert listed("abc", most=2) == "'a', 'b' and 1 more"
    assert did_you_mean("PETAL", ["petal", "sepal"]) == "; did you mean 'petal'?"
    assert did_you_mean("x", ["petal"]) == ""
