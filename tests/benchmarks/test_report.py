"""benchmarks.report: a cheap study, its report measured, and a table of what was."""

from pathlib import Path

import pytest

from benchmarks.report import SPEC, STUDY, body, command
from studies.spec import parse_spec


def test_the_spec_is_one_of_so_many_trials(tmp_path: Path) -> None:
    spec = parse_spec(SPEC.format(trials=1000), "many.toml", tmp_path)
    assert (spec.study, spec.budget.trials) == (STUDY, 1000)


def test_the_table_holds_the_median_the_sizes_and_the_number_of_turns() -> None:
    text = body(1000, [3.0, 1.0, 2.0], 2_500_000, [100_000, 400_000])
    for part in ("1,000 trials", "3 turns", "| 2.00 |", "| 1.00 to 3.00 |", "| 2.50 |", "its 2 pictures", "| 0.50 |"):
        assert part in text


def test_a_command_that_fails_ends_the_measuring_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match='no study "zoo"'):
        command(("show", "zoo"), tmp_path)
