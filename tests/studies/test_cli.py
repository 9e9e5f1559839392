import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlcore.exported import ExportedModel
from dlcore.files import sha256
from studies import commands
from studies.cli import main
from studies.errors import StudyFailed
from studies.home import Home
from studies.storage import Storage
from tests.conftest import studies_environment
from tests.dlcore.column_tools import splits_of_all_kinds
from tests.dlcore.forging import forge
from tests.dlcore.test_predict_script import an_export
from tests.studies.conftest import NOBODY

Call = Callable[..., tuple[int, str, str]]
GOOD = {
    "study": 'study = "wine"',
    "data": '[data]\nsource = "sklearn:wine"',
}


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """`studies WORDS...` in this process, in an empty folder: exit code, standard output, standard error."""
    mask = os.umask(0o022)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path / "home"))
    for name in ("STUDIES_DB", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["studies", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    yield run
    os.umask(mask)


def refused(answer: tuple[int, str, str]) -> str:
    """The message of a user's mistake: exit code 2, short, no traceback."""
    code, out, err = answer
    assert code == 2, (out, err)
    assert err.startswith("error: ") and "Traceback" not in out + err
    assert len(err.splitlines()) <= 6
    return err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": 'study = "wine"\nbudget = { trails = 3 }'}, 'budget.trails .*unknown key; did you mean "trials"'),
        ({"study": 'study = "wine"\nseed = "seven"'}, r'seed .*whole number; got "seven"'),
        ({"space": "[search_space]\nwidth = { low = 64, high = 16 }"}, "search_space.width.*64"),
        ({"space": "[search_space]\nlearning_rate = { low = 0.0, high = 1.0, log = true }"}, "must be > 0.*got 0.0"),
        ({"data": '[data]\nsource = "sklearn:wines"'}, 'did you mean "sklearn:wine"'),
        ({"data": '[data]\npath = "none.csv"\ntarget = "y"'}, r"none\.csv"),
        ({"data": '[data]\npath = "table.csv"\ntarget = "z"'}, "z"),
        ({"data": '[data]\npath = "empty.csv"\ntarget = "y"'}, r"empty\.csv"),
        ({"data": '[data]\npath = "one.csv"\ntarget = "y"'}, "two classes"),
        ({"study": 'study = "a/b"'}, "study .*a/b"),
        ({"study": 'study = "it\'s"'}, "study .*it's"),
        ({"study": 'study = "a\\"b"'}, "study "),
        ({"study": 'study = "wine'}, "TOML"),
    ],
)
def test_a_mistake_in_a_spec_is_one_message(call: Call, tmp_path: Path, change: dict[str, str], message: str) -> None:
    import re

    (tmp_path / "table.csv").write_text("x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(50)))
    (tmp_path / "empty.csv").write_text("x,y\n")
    (tmp_path / "one.csv").write_text("x,y\n" + "".join(f"{i},same\n" for i in range(50)))
    (tmp_path / "spec.toml").write_text("\n".join((GOOD | change).values()))
    err = refused(call("run", "spec.toml"))
    assert re.search(message, err), err


def test_all_mistakes_come_in_one_message(call: Call, tmp_path: Path) -> None:
    (tmp_path / "wine.toml").write_text(
        'study = "wine"\nbudget = { trails = 3 }\n[data]\nsource = "sklearn:wine"\n'
        "[search_space]\nlearning_rate = { low = 0.0, high = 1.0, log = true }\n"
    )
    err = refused(call("run", "wine.toml"))
    assert "wine.toml: 2 mistakes" in err and "trials" in err and "learning_rate" in err


@pytest.mark.parametrize("place", ["/proc/no/home", "file"])
def test_a_home_that_cannot_be_written_is_refused(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STUDIES_HOME", place)
    assert "STUDIES_HOME" in refused(call("run", "wine"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run",), "give a spec"),
        (("run", "wime"), "bundled specs: breast_cancer, diabetes, digits, wine"),
        (("run", "none.toml"), "there is no such file"),
        (("run", "wine", "--data", "t.csv", "--target", "y"), "not both"),
        (("run", "--data", "t.csv"), "--target"),
        (("run", "--data", "t.csv", "--target", "y"), r"t.csv"),
        (("show", "zoo"), 'no study "zoo"'),
        (("export", "zoo"), 'no study "zoo"'),
        (("track", "zoo"), 'no study "zoo"'),
        (("replay", "zoo", "1"), 'no study "zoo"'),
        (("predict", "nowhere", "t.csv"), "nowhere"),
        (("doctor", "zoo"), 'no study "zoo"'),
        (("delete", "zoo", "--yes"), 'no study "zoo"'),
    ],
)
def test_a_command_that_cannot_be_carried_out_says_why(call: Call, words: tuple[str, ...], message: str) -> None:
    assert message in refused(call(*words))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return an_export(tmp_path_factory.mktemp("made") / "export", splits_of_all_kinds("binary"), 1)


FORGED = {
    "task": ("ranking", "model.json must describe a network; task must be one of"),
    "columns": ([{"name": "size"}], "model.json must describe a network; a column must have a name and a form"),
    "inputs": ({"size": "year"}, "model.json must describe a network; inputs must be those of its columns"),
    "format_version": (1, "model.json must have format_version 2 or 3, not 1"),
    "class_labels": (["no", "perhaps"], "model.json must describe a network; outputs must be those"),
}


@pytest.mark.parametrize("key", FORGED)
def test_an_export_with_a_forged_manifest_is_refused_in_one_line(
    call: Call, made: Path, tmp_path: Path, key: str
) -> None:
    shutil.copytree(made, tmp_path / "forged")
    value, said = FORGED[key]
    forge(tmp_path / "forged", {**json.loads((made / "model.json").read_text()), key: value})
    (tmp_path / "rows.csv").write_text("size\n1\n")
    for words in (
        ("predict", "forged", "rows.csv", "--out", "answers.csv"),
        ("serve", "forged", "--port", "0"),
        ("serve", "forged", "--dockerfile", "image"),
    ):
        err = refused(call(*words))
        assert f"error: forged/{said}" in err and len(err.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["forged", "rows.csv"]


def test_what_lies_beside_the_files_of_an_export_is_not_read_and_sums_that_tell_of_it_are_refused(
    call: Call, made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made, tmp_path / "copy")
    names = list(ExportedModel.load(made).kinds)
    (tmp_path / "rows.csv").write_text(",".join(names) + "\n" + "," * (len(names) - 1) + "\n")
    usual = call("predict", "copy", "rows.csv")
    (tmp_path / "copy" / "notes.txt").write_text("mine")
    assert call("predict", "copy", "rows.csv") == usual and usual[0] == 0
    with (tmp_path / "copy" / "SHA256SUMS").open("a") as sums:
        sums.write(f"{sha256(b'mine')}  notes.txt\n")
    for words in (("predict", "copy", "rows.csv"), ("serve", "copy", "--port", "0")):
        err = refused(call(*words))
        assert "copy/SHA256SUMS must tell of README.md, model.json" in err and len(err.splitlines()) == 1


def test_an_unknown_command_or_option_is_a_usage_error(call: Call) -> None:
    for words in (("runn",), ("run", "wine", "--trails", "3"), ("run", "wine", "--trials", "0")):
        code, _, err = call(*words)
        assert code == 2 and "Traceback" not in err


def test_every_command_has_help_with_an_example(call: Call) -> None:
    code, out, _ = call("--help")
    names = [line.split()[0] for line in out.split("Commands:")[1].splitlines() if line.strip()]
    assert code == 0
    wanted = {"run", "list", "show", "export", "predict", "serve", "replay", "track", "doctor"}
    wanted |= {"delete", "report", "ui", "stop", "compare", "lr-range"}
    assert set(names) == wanted
    for name in names:
        code, out, _ = call(name, "--help")
        assert code == 0 and f"Example: studies {name}" in out


@pytest.mark.parametrize("word", ["\udcff.csv", "a\x1b[31m"])
def test_an_argument_that_is_no_text_is_refused_and_never_reaches_the_terminal(call: Call, word: str) -> None:
    err = refused(call("run", word))
    assert err.isascii() and "\x1b" not in err


def test_what_a_file_says_cannot_command_the_terminal(call: Call, tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text('study = "a"\n"\\u001b[31mRED" = 1\n[data]\nsource = "sklearn:wine"\n')
    assert "\x1b" not in refused(call("run", "spec.toml"))


def test_a_key_of_thousands_of_parts_is_refused_at_once(call: Call, tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(".".join(["a"] * 20_000) + " = 1\n")
    assert "fewer than 20 parts" in refused(call("run", "spec.toml"))


@pytest.mark.parametrize("name", ["../outside", "..", "/tmp/outside", "a/../../outside", "outside/"])
@pytest.mark.parametrize("command", ["run", "show", "export", "track", "doctor", "delete", "replay"])
def test_a_study_name_that_leads_out_of_the_home_makes_and_deletes_nothing(
    call: Call, tmp_path: Path, command: str, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.json").write_text("{}")
    more = {"delete": ("--yes",), "replay": ("0",), "doctor": ("--repair",)}.get(command, ())
    refused(call(command, name, *more))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "outside"]
    assert [p.name for p in outside.iterdir()] == ["model.json"]
    assert not {p.name for p in (tmp_path / "home").iterdir()} - {"studies.db", "locks"}


def test_a_password_is_never_shown(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob:canary@127.0.0.1:9/x")
    code, out, err = call("ui")
    assert code == 0 and "127.0.0.1:9/x" in out and "canary" not in out + err
    for wrong in ("file:/tmp/canary", "databricks", "http://[::1"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", wrong)
        assert "canary" not in refused(call("ui"))


def test_too_many_trials_are_refused_before_they_are_stored(call: Call) -> None:
    code, _, err = call("run", "wine", "--trials", "1000001")
    assert code == 2 and "1000000" in err


def test_with_no_studies_the_list_says_how_to_make_one(call: Call) -> None:
    code, out, _ = call("list")
    assert code == 0 and "studies run digits" in out


def test_stopping_where_nothing_runs_is_no_mistake(call: Call) -> None:
    assert call("stop") == (0, "no tracking server runs for this home\n", "")


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*args: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "the same command goes on where it stopped"),
        (StudyFailed("no trial has a value"), 1, "error: no trial has a value"),
        (OSError(28, "No space left on device", "/a/b"), 1, "error: /a/b: No space left on device"),
        (MemoryError(), 1, "error: there is too little memory; nothing that was recorded is lost"),
        (RuntimeError("can't allocate memory: you tried to allocate 64 bytes."), 1, "memory (64 bytes were asked for)"),
        (MemoryError("Unable to allocate 7.11 PiB for an array"), 1, "memory (7.11 PiB were asked for)"),
        (
            RuntimeError("MPS backend out of memory. Tried to allocate 6.25 MB on private pool"),
            1,
            "memory (6.25 MB were",
        ),
    ],
)
def test_each_end_has_its_exit_code(
    call: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    monkeypatch.setattr(commands, "run", raising(error))
    found, _, err = call("run", "wine")
    assert found == code and message in err and "Traceback" not in err


def test_a_mistake_of_ours_is_no_lack_of_memory(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "run", raising(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        call("run", "wine")


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_command_quietly(finished_home: Home, tmp_path: Path) -> None:
    names = ExportedModel.load(finished_home.exports / "wine").feature_names
    line = ",".join(["1"] * len(names)) + "\n"
    (tmp_path / "rows.csv").write_text(",".join(f'"{name}"' for name in names) + "\n" + line * 20_000)
    words = [sys.executable, "-m", "studies", "predict", finished_home.exports / "wine", tmp_path / "rows.csv"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert ",label," in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.slow
@pytest.mark.parametrize("words", [("list",), ("show", "wine")])
def test_a_reader_that_is_gone_before_a_short_answer_is_told_nothing(
    words: tuple[str, ...], finished_home: Home
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command, environment = [sys.executable, "-m", "studies", *words], studies_environment(finished_home.root)
    environment.pop("PYTHONUNBUFFERED", None)  # what is said waits until the end, as it does for people
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_reader_that_goes_away_while_a_study_trains_leaves_no_trial_running(
    form: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "wine.toml").write_text(
        'study = "wine"\nbudget = { trials = 400 }\ntraining = { batch_size = 32 }\n'
        'search = { cohort = 8 }\ndata = { source = "sklearn:wine" }\n'
    )
    home = tmp_path / "home"
    words = [sys.executable, "-m", "studies", "run", tmp_path / "wine.toml", *form]
    environment = studies_environment(home) | {"MLFLOW_TRACKING_URI": NOBODY}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if line.startswith("trial ") or '"event": "epoch"' in line:
                break
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
    states = Storage(f"sqlite:///{home / 'studies.db'}").states("wine")
    assert sum(states.values()) >= 8 and "RUNNING" not in states
