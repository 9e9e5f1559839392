"""`studies doctor` as a person types it: one line where all is well, one line per finding, and its exit codes."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from studies.checkup import check
from studies.findings import LINES_OF_A_KIND, Finding, lines
from studies.home import Home
from tests.studies.conftest import NOBODY

Damage = Callable[[Path], None]


@pytest.fixture
def home(finished_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a finished home; no tracking server answers."""
    root = tmp_path / "home"
    shutil.copytree(finished_home.root, root)
    root.chmod(0o700)
    monkeypatch.setenv("STUDIES_HOME", str(root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    monkeypatch.delenv("STUDIES_DB", raising=False)
    return root


def sql(home: Path, *statements: str) -> None:
    with sqlite3.connect(home / "studies.db") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_a_sound_study_and_sound_studies_are_one_line_each(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("wine", is_mended=False)
    note, line = capsys.readouterr().out.splitlines()
    assert note.startswith(f"MLflow was not compared: {NOBODY} does not answer")
    assert line == 'study "wine" is sound: 6 trials'
    assert check(None, is_mended=True)
    assert capsys.readouterr().out.splitlines()[-1] == "1 study is sound: 6 trials"


def test_findings_are_a_line_each_and_the_last_one_says_what_mends_them(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sql(home, "UPDATE trial_values SET value = 0.5", "DROP VIEW dlcore_trials")
    home.chmod(0o755)
    assert not check("wine", is_mended=False)
    out = capsys.readouterr().out.splitlines()
    assert f"open to others: {home} has mode 755; it must be for its user alone" in out
    assert "missing view: dlcore_trials" in out
    assert "wine: falsified trial: trial 0: its rows do not have their checksum" in out
    assert out[-1].endswith("found; `studies doctor wine --repair` mends what can be mended")
    assert home.stat().st_mode & 0o777 == 0o755  # who only looks changes nothing


@pytest.mark.slow
def test_what_is_mended_ends_in_the_line_of_a_sound_study(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sql(home, "UPDATE trial_values SET value = 0.5", "DROP VIEW dlcore_trials")
    assert check("wine", is_mended=True)
    assert capsys.readouterr().out.splitlines()[-1] == 'study "wine" is sound: 6 trials'
    assert check("wine", is_mended=False)


@pytest.mark.slow
def test_what_cannot_be_mended_is_said_with_what_a_person_can_do(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sql(home, "INSERT INTO trials (number, study_id, state) VALUES (6, 1, 'WAITING')")
    assert not check("wine", is_mended=True)
    out = capsys.readouterr().out.splitlines()
    assert "1 cannot be mended:" in out
    assert out[-1].startswith("wine: foreign trial: trial 6 was added by another program (no doctor deletes")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database at all " * 100),
        lambda path: path.write_bytes(path.read_bytes()[:-8192]),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 4096 + path.read_bytes()[8192:]),
    ],
    ids=["text", "cut", "page"],
)
def test_a_damaged_database_is_one_finding_with_its_name(
    home: Path, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(home / "studies.db")
    assert not check(None, is_mended=False)
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("damaged database: ") and any(str(home / "studies.db") in line for line in out)
    assert not check(None, is_mended=True)


def test_many_findings_of_a_kind_are_counted() -> None:
    found = [Finding("zombie", f"trial {n}", "wine") for n in range(30)] + [Finding("missing view", "x", cure="do y")]
    shown = list(lines(found))
    assert shown[: LINES_OF_A_KIND + 1][-1] == f"wine: zombie: ... and {30 - LINES_OF_A_KIND} more"
    assert shown[-1] == "missing view: x (do y)" and len(shown) == LINES_OF_A_KIND + 2


def test_an_empty_home_has_nothing_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path / "new"))
    for name in ("STUDIES_DB", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    assert check(None, is_mended=False)
    assert capsys.readouterr().out == "there are no studies, and nothing is wrong\n"
