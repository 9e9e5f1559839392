"""A study is deleted whole, by whoever is asked and says yes; a command that was killed is finished by the next."""

import io
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect, select
from sqlalchemy import text as sql

from studies import deleting, exports, frames, server, trials
from studies.database import reading
from studies.errors import StudyBusy, UserError
from studies.home import Home, drive
from studies.integrity import PARENTS
from studies.picture_files import write_picture
from studies.report import write_report
from studies.runner import Run
from studies.spec import spec_from_dict
from studies.storage import Storage
from studies.sweep_pictures import RatePicture
from tests.conftest import Studies
from tests.studies.conftest import NOBODY, SMALL_SPEC, Lines
from tests.studies.mirror_tools import PATIENCE_S, PORT, rows

pytestmark = pytest.mark.slow
TOML = """
study = "{name}"
budget = {{ trials = 3 }}
data = {{ source = "sklearn:wine" }}
training = {{ epochs = 2 }}
"""


def environment(patch: pytest.MonkeyPatch, home: Home, typed: str = "") -> None:
    patch.setenv("STUDIES_HOME", str(home.root))
    patch.setenv("STUDIES_DB", home.database_url)
    if home.tracking_uri is None:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    else:
        patch.setenv("MLFLOW_TRACKING_URI", home.tracking_uri)
    patch.setattr("sys.stdin", io.StringIO(typed))


@pytest.fixture(scope="module")
def never_mirrored(finished_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home of which MLflow never heard; it is copied for each test."""
    return finished_home


@pytest.fixture
def home(never_mirrored: Home, tmp_path: Path) -> Home:
    shutil.copytree(never_mirrored.root, tmp_path / "home")
    return Home(tmp_path / "home", f"sqlite:///{tmp_path / 'home' / 'studies.db'}", None)


def names(home: Home) -> list[str]:
    storage = Storage(home.database_url)
    found = storage.names()
    storage.close()
    return found


def n_rows(home: Home) -> dict[str, int]:
    """How many rows each table of studies and trials has."""
    storage = Storage(home.database_url)
    with reading(storage.engine) as connection:
        found = {table.name: len(connection.execute(select(table)).all()) for table in PARENTS}
        assert inspect(connection).has_table("studies")
        found["studies"] = len(connection.execute(sql("SELECT * FROM studies")).all())
    storage.close()
    return found


@pytest.mark.parametrize("typed", ["n\n", "\n", "nonsense\n", "y but no\n"])
def test_any_answer_but_yes_deletes_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str
) -> None:
    environment(monkeypatch, home, typed)
    # An export lies where the study was made, so that this one is of another place.
    before = n_rows(home)
    assert not deleting.delete("wine", is_certain=False)
    said = capsys.readouterr().out
    assert said.startswith('delete study "wine": its 6 trials, ') and said.endswith("nothing was deleted\n")
    assert n_rows(home) == before and (home.exports / "wine" / "model.onnx").is_file()


def test_an_end_of_input_or_ctrl_c_deletes_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment(monkeypatch, home)
    with pytest.raises(UserError, match="nothing was deleted"):
        deleting.delete("wine", is_certain=False)

    class Interrupted(io.StringIO):
        def readline(self, size: int | None = -1, /) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        deleting.delete("wine", is_certain=False)
    assert capsys.readouterr().out.endswith("nothing was deleted\n")
    assert names(home) == ["wine"]


def test_what_a_killed_writer_left_goes_with_the_study_and_none_is_put_back(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(monkeypatch, home)
    for kind in ("new", "old"):
        shutil.copytree(home.exports / "wine", home.exports / f".wine.{kind}")
        shutil.copytree(home.exports / "wine", home.exports / f".wine-trial-3.{kind}")
    assert deleting.delete("wine", is_certain=True)
    assert list(home.exports.iterdir()) == []


def test_a_study_that_is_not_there_is_said(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, home)
    with pytest.raises(UserError, match='no study "zoo"'):
        deleting.delete("zoo", is_certain=True)


def test_a_study_that_is_run_is_not_deleted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, home)
    with drive(home, "wine"), pytest.raises(StudyBusy, match="is being run"):
        deleting.delete("wine", is_certain=True)
    assert names(home) == ["wine"]


def test_a_study_whose_trials_another_trains_is_not_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres_url: str
) -> None:
    (tmp_path / "home").mkdir()
    home = Home(tmp_path / "home", postgres_url, None)
    storage = Storage(home.database_url)
    Run(spec_from_dict(SMALL_SPEC), Home(home.root, postgres_url, NOBODY), storage, Lines()).execute(None)
    environment(monkeypatch, home)
    with storage.leading("wine") as is_leading:
        assert is_leading()
        with pytest.raises(StudyBusy, match="is being run"):
            deleting.delete("wine", is_certain=True)
    assert deleting.delete("wine", is_certain=True)
    assert set(n_rows(home).values()) == {0} and not any(home.exports.iterdir())
    storage.close()


def test_a_tracking_server_that_does_not_answer_keeps_the_study(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, Home(home.root, home.database_url, NOBODY))
    with pytest.raises(UserError, match=r"must answer.*still in the database"):
        deleting.delete("wine", is_certain=True)
    assert names(home) == ["wine"] and (home.exports / "wine" / "model.onnx").is_file()


def test_a_server_that_the_study_was_mirrored_to_and_that_was_not_asked_is_named(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = Storage(home.database_url)
    storage.store_mirror("wine", "http://somebody:secret@mlflow.example:5000", "7")
    storage.close()
    environment(monkeypatch, home)
    assert deleting.delete("wine", is_certain=True)
    said = capsys.readouterr().out
    assert "mirrored to http://mlflow.example:5000 too, which was not asked" in said and "never had it" not in said


def test_report_pictures_and_the_table_go_too(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_report(home, "wine", None)
    rates = (0.001, 0.01, 0.1)
    picture = RatePicture("wine", rates, (1.0, 0.5, 0.9), (1.0, 0.5, 0.9), (0.001, 0.01), 0.01)
    write_picture(home.root / "pictures" / "wine", "lr-range", picture)
    for name in ("wine.parquet", "wine-2.parquet"):
        table = frames.place(home, name.removesuffix(".parquet"))
        table.parent.mkdir(exist_ok=True)
        table.write_bytes(b"rows")
    (home.root / "frames" / ".wine.123").mkdir()
    (home.root / "frames" / ".wine.123" / "wine.parquet").write_bytes(b"rows")
    (home.root / "reports" / "wine" / "pictures" / "mine.txt").write_text("mine")
    environment(monkeypatch, home, "y\n")
    assert deleting.delete("wine", is_certain=False)
    asked, *said = capsys.readouterr().out.splitlines()
    for name in ("reports/wine", "pictures/wine", "frames/wine.parquet", "frames/.wine.123"):
        assert str(home.root / name) in asked
    assert "wine-2" not in asked and f"{home.root / 'reports' / 'wine'} holds other files, which are left" in asked
    left = {str(p.relative_to(home.root)) for kind in ("reports", "pictures", "frames") for p in files(home, kind)}
    assert left == {"reports/wine/pictures/mine.txt", "frames/wine-2.parquet"}, said


def files(home: Home, kind: str) -> list[Path]:
    return [path for path in (home.root / kind).rglob("*") if path.is_file()]


def test_what_is_not_of_the_study_is_left(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = Storage(home.database_url)
    spec = spec_from_dict(SMALL_SPEC | {"study": "wine-trial-3", "budget": {"trials": 3}})
    Run(spec, Home(home.root, home.database_url, NOBODY), storage, Lines()).execute(None)
    storage.close()
    (home.exports / "wine" / "notes.txt").write_text("mine")
    (home.exports / ".wine.new").mkdir()
    environment(monkeypatch, home, "yes\n")
    assert deleting.delete("wine", is_certain=False)
    said = capsys.readouterr().out
    assert "holds other files, which are left" in said and "MLflow never had it" in said
    assert names(home) == ["wine-trial-3"]
    assert [p.name for p in sorted(home.exports.iterdir())] == ["wine", "wine-trial-3"]
    assert [p.name for p in (home.exports / "wine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("step", range(6))
def test_killed_anywhere_the_same_command_finishes(home: Home, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    environment(monkeypatch, home)

    class Killed(BaseException):
        pass

    calls = 0

    def dying(function: Callable[..., object]) -> Callable[..., object]:
        def call(*words: object, **more: object) -> object:
            nonlocal calls
            calls += 1
            if calls == step + 1:
                raise Killed
            return function(*words, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dying(Path.unlink))
        patch.setattr(Path, "rmdir", dying(Path.rmdir))
        patch.setattr(trials, "delete_study", dying(trials.delete_study))
        with pytest.raises(Killed):
            deleting.delete("wine", is_certain=True)
    assert names(home) == ["wine"]
    assert deleting.delete("wine", is_certain=True)
    assert set(n_rows(home).values()) == {0} and not any(home.exports.iterdir())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("deleting") / "mlruns"
    server.find_or_start(folder, port=PORT, timeout_s=PATIENCE_S)
    yield folder
    server.stop(folder)


def test_mlflow_forgets_as_its_own_client_lets_it_and_the_name_is_free(
    served: Path, studies: Studies, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        (tmp_path / f"{name}.toml").write_text(TOML.format(name=name))
        ran = studies("run", f"{name}.toml", home=served)
        assert ran.returncode == 0, ran.stderr
    model = "SELECT name FROM registered_models ORDER BY name"
    assert rows(served, model) == [("first",), ("second",)]
    answer = studies("delete", "first", "--yes", home=served)
    assert answer.returncode == 0, answer.stderr
    assert "keeps its runs and files in experiment" in answer.stdout and "1 model versions" in answer.stdout
    assert rows(served, model) == [("second",)]
    query = "SELECT e.name, e.lifecycle_stage, r.lifecycle_stage, count(*) FROM experiments e JOIN runs r "
    query += "USING (experiment_id) GROUP BY 1, 2, 3 ORDER BY 1"
    assert rows(served, query) == [("first", "deleted", "deleted", 4), ("second", "active", "active", 4)]
    assert [p.name for p in (served / "exports").iterdir()] == ["second"]
    with sqlite3.connect(served / "studies.db") as connection:
        assert connection.execute("SELECT study_name FROM studies").fetchall() == [("second",)]
    connection.close()
    assert studies("delete", "first", "--yes", home=served).returncode == 2
    again = studies("run", "first.toml", home=served)
    assert again.returncode == 0, again.stderr
    assert studies("doctor", home=served).stdout == "2 studies are sound: 6 trials\n"


def test_an_export_knows_whose_it_is_until_it_is_gone(home: Home) -> None:
    (found,) = exports.find(home.exports)
    assert found.uuid is not None and list(exports.damaged(found, None)) == []
    exports.remove(found.folder)
    assert exports.find(home.exports) == []
