"""benchmarks.study: the same search for both, and ratios of rates."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import study
from benchmarks.phases import NAMES, Course
from benchmarks.study import OURS, SPEC, results
from studies.spec import parse_spec


def course(seconds: float) -> Course:
    return Course(dict.fromkeys(NAMES, 1.0), 2.0, 2.0 + seconds, 3.0 + seconds, 100)


@pytest.mark.parametrize("search", OURS.values())
def test_the_search_stops_nothing_early_and_leaves_a_fifth_to_val_and_test(search: str) -> None:
    spec = parse_spec(SPEC.format(search=search, seed=0, trials=256, epochs=30), "study.toml")

    assert (spec.budget.trials, spec.training.epochs, spec.training.patience) == (256, 30, None)
    assert (spec.ladder is None) == (search == "halving = false")
    assert spec.data.val_fraction + spec.data.test_fraction == pytest.approx(0.2)


def test_the_table_compares_rates() -> None:
    text = results({"a": [course(10.0), course(12.5), course(20.0)], "b": [course(5.0)] * 3}, [0.5, 0.4, 0.6])
    header, _, rate, ratio, *_ = text.splitlines()

    assert header == "| figure (median) | a | b | baseline |"
    assert rate.endswith("| 8.00 | 20.00 | 0.500 |")
    assert ratio.endswith("| 16.0 | 40.0 | 1 |")


def test_without_a_baseline_there_is_neither_ratio_nor_column() -> None:
    text = results({"a": [course(10.0)]}, [])

    assert "baseline" not in text
    assert {line.count("|") for line in text.splitlines()} == {3}


def test_the_baselines_own_rate_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "rival.py"
    program.write_text(
        "import os, sys\nassert os.environ['STORAGE'].startswith('sqlite:///')\n"
        "print(f'{sys.argv[1]} trials {sys.argv[2]} epochs {sys.argv[3]}: 8.0s  0.250 trials/s; best 0.9')\n"
    )
    monkeypatch.setattr(study, "warm_server", lambda home: "http://127.0.0.1:9")
    monkeypatch.setattr(study.server, "stop", lambda home: None)

    assert study.baseline_rate(program, 2, 30) == 0.25
    program.write_text("raise SystemExit('no server')")
    with pytest.raises(SystemExit, match="no server"):
        study.baseline_rate(program, 2, 30)


def test_a_script_says_what_it_is_without_starting_anything() -> None:
    root = Path(study.__file__).parents[1]
    for name in ("asking", "study", "search_quality"):
        command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
        assert "--record" in subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
