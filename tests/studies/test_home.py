import fcntl
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from studies.errors import StudyBusy, UserError
from studies.home import Home, drive, is_driven, open_home, writing_export


def test_the_home_is_made_private_and_holds_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path / "a" / "b"))
    monkeypatch.delenv("STUDIES_DB", raising=False)
    home = open_home()
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert home.database_url == f"sqlite:///{tmp_path}/a/b/studies.db"
    assert list(home.root.iterdir()) == []


def test_a_home_that_is_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="STUDIES_HOME"):
        open_home()


@pytest.mark.parametrize("name", ["a?b", "a%41"])
def test_a_path_that_a_url_would_not_keep_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path / name))
    with pytest.raises(UserError, match="must not hold"):
        open_home()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite:///:memory:", "sqlite:////tmp/a.db?mode=ro&uri=true"])
def test_a_database_that_is_no_plain_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path))
    monkeypatch.setenv("STUDIES_DB", url)
    with pytest.raises(UserError, match="must name a file"):
        open_home()


def test_two_homes_on_one_database_share_its_lock(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first, second = (Home(tmp_path / name, url, None) for name in "ab")
    with drive(first, "wine"), pytest.raises(StudyBusy), drive(second, "wine"):
        pass


def test_another_kind_of_database_is_refused_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path))
    monkeypatch.setenv("STUDIES_DB", "mysql://me:secret@host/db")
    with pytest.raises(UserError, match="got mysql") as caught:
        open_home()
    assert "secret" not in str(caught.value)


def test_a_second_driver_is_refused_until_the_first_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path))
    home = open_home()
    code = "from studies.home import *\nwith drive(open_home(), 'wine'): input()"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint('over')"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        lock = tmp_path / "locks" / "wine.lock"
        while not (lock.is_file() and lock.read_text()):
            assert child.poll() is None
        with pytest.raises(StudyBusy, match=f"process {child.pid}"), drive(home, "wine"):
            pass
        with drive(home, "digits"):
            pass
    finally:
        child.kill()
        child.communicate()
    with drive(home, "wine"), lock.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_who_only_looks_whether_a_study_is_driven_keeps_nobody_from_driving_it(tmp_path: Path) -> None:
    home = Home(tmp_path, f"sqlite:///{tmp_path / 'studies.db'}", None)
    with drive(home, "wine"):
        assert is_driven(home, "wine")
    with (tmp_path / "locks" / "wine.lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("studies.home.time", SimpleNamespace(sleep=lambda _seconds: looking.close()))
            with drive(home, "wine"):
                assert is_driven(home, "wine")


def test_one_process_at_a_time_writes_an_export(tmp_path: Path) -> None:
    home, entered = Home(tmp_path, "", None), threading.Event()

    def write() -> None:
        with writing_export(home, home.exports / "wine"):
            entered.set()

    other = threading.Thread(target=write)
    with writing_export(home, home.exports / "wine"):
        other.start()
        assert not entered.wait(0.2)
        with writing_export(home, home.exports / "wine-trial-3"), writing_export(home, tmp_path / "mine" / "wine"):
            pass
    other.join(60)
    assert entered.is_set()


def test_a_home_is_opened_while_another_thread_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both try whether it can be written with a file of one name, since they are one process."""
    touch = Path.touch

    def touched_and_gone(self: Path) -> None:
        touch(self)
        self.unlink()

    monkeypatch.setattr(Path, "touch", touched_and_gone)
    assert open_home(at=tmp_path / "home").root == tmp_path / "home"
