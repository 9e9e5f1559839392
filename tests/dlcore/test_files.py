import errno
import os
from pathlib import Path

import pytest

from dlcore import files
from dlcore.errors import ExportError
from dlcore.files import SUMS_FILE, read_sealed, sha256, write_file, write_sealed

OLD = {"a": b"old a", "b": b"old b"}
NEW = {"a": b"new a", "b": b"new b"}


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code may catch it."""


def test_a_written_folder_reads_back_equal(tmp_path):
    write_sealed(tmp_path / "deep" / "out", NEW)
    assert read_sealed(tmp_path / "deep" / "out", NEW) == NEW


def test_the_sums_are_what_sha256sum_reads(tmp_path):
    write_sealed(tmp_path / "out", NEW)
    lines = (tmp_path / "out" / SUMS_FILE).read_text().splitlines()
    assert lines == [f"{sha256(b'new a')}  a", f"{sha256(b'new b')}  b"]


def test_a_folder_written_before_is_replaced_and_nothing_stays_beside_it(tmp_path):
    write_sealed(tmp_path / "out", OLD)
    write_sealed(tmp_path / "out", NEW)
    assert read_sealed(tmp_path / "out", NEW) == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def kill_at(monkeypatch, number: int) -> list[int]:
    """Let the `number`-th change of the disk be the last thing that happens."""
    calls = [0]

    def counted(function):
        def call(*args):
            calls[0] += 1
            if calls[0] > number:
                raise Killed
            return function(*args)

        return call

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    for name in ("rename", "mkdir", "write_bytes"):
        original = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda self, *args, _f=original, **kw: counted(lambda: _f(self, *args, **kw))())
    return calls


@pytest.mark.parametrize("number", range(12))
def test_killed_anywhere_the_folder_is_the_old_one_or_the_new_one(tmp_path, number):
    folder = tmp_path / "out"
    write_sealed(folder, OLD)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, number)
        try:
            write_sealed(folder, NEW)
            was_killed = False
        except Killed:
            was_killed = True
    found = read_sealed(folder, NEW)
    assert found in (OLD, NEW)
    assert was_killed or found == NEW
    write_sealed(folder, NEW)
    assert read_sealed(folder, NEW) == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_kills_above_reach_past_the_last_change(tmp_path):
    write_sealed(tmp_path / "out", OLD)
    with pytest.MonkeyPatch.context() as patch:
        calls = kill_at(patch, 1000)
        write_sealed(tmp_path / "out", NEW)
    assert 5 < calls[0] <= 11


def test_a_full_disk_leaves_the_old_folder_whole(tmp_path, monkeypatch):
    write_sealed(tmp_path / "out", OLD)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="No space left"):
        write_sealed(tmp_path / "out", NEW)
    assert read_sealed(tmp_path / "out", OLD) == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_holds_something_else_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match=r"holds thesis\.tex"):
        write_sealed(tmp_path, NEW)
    with pytest.raises(ExportError, match=r"holds thesis\.tex"):
        write_sealed(tmp_path / "thesis.tex", NEW)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    write_sealed(tmp_path / "out", NEW)
    assert read_sealed(tmp_path / "out", NEW) == NEW


@pytest.mark.parametrize("name", ["a", "b", SUMS_FILE])
def test_a_missing_file_is_named(tmp_path, name):
    write_sealed(tmp_path / "out", NEW)
    (tmp_path / "out" / name).unlink()
    with pytest.raises(ExportError, match=f"out/{name} must be a readable file"):
        read_sealed(tmp_path / "out", NEW)


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_damaged_file_is_named(tmp_path, name):
    write_sealed(tmp_path / "out", NEW)
    (tmp_path / "out" / name).write_bytes(b"new c")
    with pytest.raises(ExportError, match=f"out/{name} must be as it was written"):
        read_sealed(tmp_path / "out", NEW)


def test_every_damaged_byte_of_the_sums_is_seen(tmp_path):
    write_sealed(tmp_path / "out", NEW)
    path = tmp_path / "out" / SUMS_FILE
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0x41
        path.write_bytes(damaged)
        with pytest.raises(ExportError, match=SUMS_FILE):
            read_sealed(tmp_path / "out", NEW)


@pytest.mark.parametrize("name", [SUMS_FILE, "a", "b"])
@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_a_reader_during_a_replacement_gets_the_old_files_or_the_new_ones(tmp_path, monkeypatch, name, place):
    folder, aside = tmp_path / "out", tmp_path / ".out.old"
    write_sealed(folder, OLD)
    read, steps = files._read, []

    def disturbed(path):
        if path.name == name and place != "after" and not steps:
            steps.append("replaced")
            if place == "before":
                write_sealed(folder, NEW)
            else:  # the writer is between its two renames
                folder.rename(aside)
        content = read(path)
        if path.name == name and place == "after" and not steps:
            steps.append("replaced")
            write_sealed(folder, NEW)
        return content

    monkeypatch.setattr(files, "_read", disturbed)
    found = read_sealed(folder, NEW)
    assert steps == ["replaced"] and found in (OLD, NEW)


def test_a_folder_that_never_rests_is_tried_three_times(tmp_path, monkeypatch):
    folder, tries = tmp_path / "out", []
    write_sealed(folder, OLD)
    read = files._read

    def disturbed(path):
        content = read(path)
        if path.name == SUMS_FILE:
            tries.append(path)
            write_sealed(folder, NEW if len(tries) % 2 else OLD)
        return content

    monkeypatch.setattr(files, "_read", disturbed)
    with pytest.raises(ExportError, match="out/a must be as it was written"):
        read_sealed(folder, NEW)
    assert len(tries) == 3


def test_a_file_is_replaced_as_a_whole(tmp_path, monkeypatch):
    write_file(tmp_path / "one", b"old")
    with monkeypatch.context() as patch:
        kill_at(patch, 0)
        with pytest.raises(Killed):
            write_file(tmp_path / "one", b"new")
    assert (tmp_path / "one").read_bytes() == b"old"
    write_file(tmp_path / "one", b"new")
    assert (tmp_path / "one").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_optional_files_are_read_where_the_sums_tell_of_them_and_no_others(tmp_path):
    write_sealed(tmp_path / "out", NEW)
    assert read_sealed(tmp_path / "out", ["a"], ["b", "c"]) == NEW
    with pytest.raises(ExportError, match=f"{SUMS_FILE} must tell of a alone"):
        read_sealed(tmp_path / "out", ["a"])
    path = tmp_path / "out" / SUMS_FILE
    path.write_text(path.read_text() + f"{sha256(b'')}  ../../etc/passwd\n")
    with pytest.raises(ExportError, match=f"{SUMS_FILE} must tell of a, b alone"):
        read_sealed(tmp_path / "out", NEW)


def test_somebodys_own_file_of_a_common_name_is_not_replaced(tmp_path):
    names = dict.fromkeys(("README.md", "predict.py", "model.json", "model.onnx"), b"new")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_bytes(b"mine")
    with pytest.raises(ExportError, match=r"it holds README\.md"):
        write_sealed(tmp_path / "out", names)
    assert (tmp_path / "out" / "README.md").read_bytes() == b"mine"
