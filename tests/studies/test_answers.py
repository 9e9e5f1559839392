import os
import secrets
from contextlib import suppress
from pathlib import Path

import pytest

from studies.answers import whole_file
from studies.errors import UserError
from studies.report import FOLDER, PAGE, _check


def test_answers_replace_no_pipe_and_no_folder_and_go_where_a_link_leads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for out in (tmp_path / "pipe", tmp_path, Path()):
        with pytest.raises(UserError, match="--out must name a file"), whole_file(out):
            raise AssertionError("nothing may be written")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    with whole_file(tmp_path / "link.csv") as stream:
        stream.write(b"answers")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "real.csv").read_bytes() == b"answers"


@pytest.mark.parametrize("name", [".a.csv.1.0000beef", ".a.csv.1"])
def test_a_draft_of_somebody_with_the_same_process_id_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(secrets, "token_hex", lambda _: "0000beef")
    (tmp_path / name).write_bytes(b"theirs")
    with suppress(UserError), whole_file(tmp_path / "a.csv") as stream:
        stream.write(b"mine")
    assert (tmp_path / name).read_bytes() == b"theirs"
    assert (tmp_path / "a.csv").exists() == (name == ".a.csv.1")
    assert not [path for path in tmp_path.iterdir() if path.name not in (name, "a.csv")]


def test_nothing_is_left_of_what_was_not_written_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"old")
    with pytest.raises(KeyError), whole_file(tmp_path / "a.csv") as stream:
        stream.write(b"half")
        raise KeyError
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("name", ["cat.jpg", PAGE])
def test_a_report_replaces_nothing_that_it_did_not_write(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="an earlier report"):
        _check(tmp_path)


def test_a_report_follows_no_link_to_somebodys_pictures(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text('<meta name="generator" content="studies report">')
    _check(tmp_path)
    (tmp_path / FOLDER).symlink_to(tmp_path)
    with pytest.raises(UserError, match="an earlier report"):
        _check(tmp_path)
