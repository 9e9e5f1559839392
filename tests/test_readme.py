"""Every block of the README is run: commands as a person types them, specs by the parser, SQL on a real database."""

import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from studies import server
from studies.cli import app
from studies.spec import parse_spec
from tests.conftest import studies_environment

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.M | re.S)


def commands() -> list[list[str]]:
    """All commands in the order of the text; comments and `cd` left out."""
    lines = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
    inline = re.findall(r"`(make study [^`]+)`", TEXT)
    return [words for line in (*lines, *inline) if (words := shlex.split(line.split(" && ")[0], comments=True))]


def test_the_readme_is_short() -> None:
    assert len(TEXT.splitlines()) < 200


def test_every_spec_is_valid(tmp_path: Path) -> None:
    (tmp_path / "wine.csv").write_text("quality\n")
    specs = [block for kind, block in BLOCKS if kind == "toml"]
    assert specs
    for spec in specs:
        parse_spec(spec, "README.md", tmp_path)


def test_every_command_of_the_command_line_and_of_make_is_mentioned() -> None:
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        assert re.search(rf"studies {name}\b", TEXT), name
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    told = "".join(path.read_text() for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")))
    unsaid = {
        "help",
        "lint",
        "types",
        "test",
        "clean",
        "bench",
        "stop",
        "export",
        "reference",
    }  # `make` alone lists them
    assert [t for t in targets if t not in unsaid and f"make {t}" not in told] == []


def test_every_environment_variable_that_is_read_is_mentioned() -> None:
    source = "".join(path.read_text() for path in (ROOT / "studies").glob("*.py"))
    for name in re.findall(r'environ(?:\.get)?[\[(]"((?:STUDIES|MLFLOW_TRACKING)_[A-Z]+)"', source):
        assert name in TEXT, name


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_does_what_the_text_says(tmp_path: Path) -> None:
    rows = "".join(f"{50 + i},{i % 4},{1000 * (50 + i) + 9000 * (i % 4)}\n" for i in range(160))
    (tmp_path / "houses.csv").write_text("area,rooms,price\n" + rows)
    environment = studies_environment(tmp_path / "home")
    said: dict[str, str] = {}
    try:
        for words in commands():
            line = shlex.join(words)
            if words[0] == "git":
                words = ["git", "clone", "--quiet", str(ROOT), str(tmp_path / "dlcore")]
            elif words[0] == "make":
                words = ["make", "--directory", str(ROOT), "--old-file", ".venv/.ready", *words[1:]]
            elif words[0] in ("studies", ".venv/bin/studies"):
                words = [sys.executable, "-m", "studies", *words[1:]]
            if "predict" in words:
                write_rows(tmp_path / "rows.csv")
            answer = subprocess.run(
                words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=600, check=False
            )
            assert answer.returncode == 0, f"{line}\n{answer.stdout}{answer.stderr}"
            assert "MLflow lacks" not in answer.stdout, f"{line}\n{answer.stdout}"
            said[line] = answer.stdout
        python = next(block for kind, block in BLOCKS if kind == "python")
        address = server.find_or_start(tmp_path / "home").address  # `studies stop` was the last command
        code = python.replace("http://127.0.0.1:5000", address).replace("mlruns/", f"{tmp_path}/home/")
        code += "\nassert list(champion['label']) == list(answers[0]) and len(study.trials) == 96\n"
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert answer.returncode == 0, answer.stderr
        sql = next(block for kind, block in BLOCKS if kind == "sql")
        with sqlite3.connect(tmp_path / "home" / "studies.db") as connection:
            assert len(connection.execute(sql).fetchall()) == 5
        connection.close()
    finally:
        server.stop(tmp_path / "home")
    _compare_shape(said["make study"])
    assert ",label,probability_class_0," in (tmp_path / "answers.csv").read_text()
    assert (tmp_path / "dlcore" / "README.md").is_file()


def write_rows(path: Path) -> None:
    """A few rows of the wine set, with its columns."""
    from sklearn.datasets import load_wine

    wine = load_wine()
    header = ",".join(f'"{name}"' for name in wine.feature_names)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in wine.data[:5])]) + "\n")


def _compare_shape(output: str) -> None:
    """The README shows real output: the same lines but for numbers, names of a machine, and times of progress."""
    shown = re.search(r"<!-- output of `make study` -->\n```text\n(.*?)```", TEXT, re.S)
    assert shown is not None
    assert _shape(shown[1]) == _shape(output)


def _shape(output: str) -> list[str]:
    steady = [
        line
        for line in output.splitlines()
        if not re.match(r"trial \d+, epoch|device|home|python|\.venv|make|port", line)
    ]
    words = [re.sub(r"[\d.,:]+", "#", line.split("  ")[0]) for line in steady if line.strip()]
    return [
        word
        for word in dict.fromkeys(words)
        if not re.match(r"#/# trials|# trials are on|the model is|finals# epoch", word)
    ]
