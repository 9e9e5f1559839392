"""The live block: its lines as text, and the whole of it in a real pseudo-terminal."""

import re
from collections.abc import Callable

import pytest
from rich.cells import cell_len

from studies.live import block, sparkline
from studies.records import FAIL, PRUNED, EpochDone, EpochRecord, StudyFacts, TrialRecord
from studies.tally import Tally
from tests.terminals import COLOUR, CONTROL, terminal

Facts = Callable[..., StudyFacts]
Make = Callable[..., TrialRecord]
EPOCH = EpochDone(4, EpochRecord(7, 0.5, 0.25, 0.875, 0.05, 1.0))
REPLAY = """
import sys, time
sys.path.insert(0, "tests/studies")
from studies.display import open_display
from studies.records import *
from studies.tally import Tally
facts = StudyFacts("wine", "0" * 32, {}, (Objective("accuracy", "maximize"),), "multiclass", "accuracy", 4, 13, 3,
                   "wine", "f" * 64, {}, 0.0)
shown = open_display()
shown.note("study   wine: 16 trials, tpe in cohorts of 4, 40 epochs, rungs at 5, 15, which is a long line to be shown")
shown.begin(Tally(facts, 16, 40, []))
for cohort in range(4):
    for n in range(4):
        shown.epoch(EpochDone(4 * cohort + n, EpochRecord(1, 1.0, 1.0, 0.5, 0.1, 0.0)))
        time.sleep(0.02)
    hyperparameters = {"width": 64, "activation": "leaky_relu", "learning_rate": 0.1, "momentum": 0.9,
                       "initialization": "kaiming_normal", "depth": 3}
    shown.trials([TrialRecord(4 * cohort + n, "PRUNED" if n else "COMPLETE", hyperparameters, tuple(hyperparameters),
                              cohort, 99, (0.5 + 0.1 * cohort - 0.01 * n,), rungs={5: 0.4}, best_val_loss=0.1)
                  for n in range(4)])
    time.sleep(0.15)
shown.end()
shown.note("all 16 trials are done")
"""


def test_the_block_says_what_a_person_wants_to_know(make_facts: Facts, make_trial: Make) -> None:
    tally = Tally(make_facts(), 8, 40, [])
    tally.add_epoch(EPOCH)
    tally.add_trials([make_trial(0, 0.5, PRUNED, rungs={5: 0.5}), make_trial(1, 0.75), make_trial(2, None, FAIL)])
    bar, best, course, rungs, now = block(tally, 100).plain.split("\n")
    assert re.fullmatch(r"wine  ━+─+  3/8 trials  [\d.]+/(s|min)  \d+ s left", bar)
    assert best == "best    accuracy 0.7500  trial 1  learning_rate 0.0667, activation tanh"
    assert course == "course  0.75 ██ 0.75"
    assert rungs == "rungs   pruned 1 at epoch 5; 1 to the end, 1 failed"
    assert now.startswith("now     trial 4, epoch 7/40: train loss 0.5000")


def test_a_study_that_has_just_begun_has_a_bar_and_no_numbers(make_facts: Facts) -> None:
    lines = block(Tally(make_facts(), 8, 40, []), 80).plain.split("\n")
    assert lines[0].startswith("wine  ───") and lines[0].endswith("0/8 trials")
    assert lines[1:] == ["now     getting ready"]


def test_without_a_number_of_trials_there_is_no_bar(make_facts: Facts, make_trial: Make) -> None:
    tally = Tally(make_facts(), None, 40, [make_trial(0)])
    assert block(tally, 80, is_over=True).plain.split("\n")[0] == "wine  1 trials"


def test_every_hyperparameter_of_the_best_is_shown_where_columns_are_few(make_facts: Facts, make_trial: Make) -> None:
    tally = Tally(make_facts(), 8, 40, [make_trial(1, 0.75)])
    assert block(tally, 50, is_over=True).plain.split("\n")[1:3] == [
        "best    accuracy 0.7500  trial 1",
        "        learning_rate 0.0667, activation tanh",
    ]


def test_eighty_columns_show_the_metric_of_the_latest_epoch(make_facts: Facts) -> None:
    tally = Tally(make_facts(), 1024, 40, [])
    tally.add_epoch(EpochDone(1023, EpochRecord(40, 1.234e-5, 0.25, 0.875, 0.05, 1.0)))
    said = {width: block(tally, width).plain.split("\n")[-1].removeprefix("now     ") for width in (119, 79, 60)}
    assert said[119] == "trial 1023, epoch 40/40: train loss 1.23e-05, val loss 0.2500, val accuracy 0.8750"
    assert said[79] == "trial 1023, epoch 40: val accuracy 0.8750, loss 0.2500 (train 1.23e-05)"
    assert said[60] == "trial 1023, epoch 40: val accuracy 0.8750"


@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize("is_ascii", [False, True])
def test_no_line_is_wider_than_the_terminal(make_facts: Facts, make_trial: Make, width: int, is_ascii: bool) -> None:
    tally = Tally(make_facts(name="a-study-with-a-name-of-some-length"), 8, 40, [make_trial(0)])
    tally.add_epoch(EPOCH)
    text = block(tally, width, is_ascii=is_ascii).plain
    assert all(cell_len(line) <= width for line in text.split("\n"))
    assert text.isascii() or not is_ascii


def test_a_sparkline_goes_from_the_least_to_the_greatest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([7, 0], 8) == "█▁"
    assert sparkline([1.0] * 5, 3) == "███"
    assert sparkline([], 8) == ""
    assert sparkline(list(range(1000)), 4) == "▁▃▆█"
    assert sparkline([0, 1], 8, is_ascii=True) == "_#"


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_a_block_that_is_drawn_in_place(columns: int) -> None:
    written = terminal(REPLAY, columns)
    assert "\x1b[1A" in written and "\x1b[?25h" in written  # it goes up, and gives the cursor back at the end
    lines = [line for line in CONTROL.sub("", written).replace("\r", "\n").split("\n") if line.strip()]
    assert all(cell_len(line) <= columns for line in lines if not line.startswith("study "))
    last = lines[-6:]
    assert last[0].startswith("wine  ━") and "16/16 trials" in last[0] and "left" not in last[0]
    assert last[1].startswith("best    accuracy 0.8000  trial 12  width 64")
    assert last[2].startswith("        ") and last[2].endswith("depth 3")  # of the best, all is to be seen
    assert last[3].startswith("course  0.5 ▁")
    assert last[4] == "rungs   pruned 12 at epoch 5; 4 to the end, 0 failed"
    assert last[5] == "all 16 trials are done"
    assert any("s left" in line for line in lines)


def test_no_colour_is_no_colour() -> None:
    assert COLOUR.search(terminal(REPLAY, 80, NO_COLOR="1")) is None
    assert COLOUR.search(terminal(REPLAY, 80)) is not None


def test_a_dumb_terminal_gets_plain_lines() -> None:
    written = terminal(REPLAY, 80, TERM="dumb")
    assert "\x1b" not in written
    assert "16/16 trials, 12 pruned, 0 failed, best accuracy 0.8000 (trial 12)" in written


def test_a_terminal_that_knows_ascii_alone_gets_it() -> None:
    written = terminal(REPLAY, 80, PYTHONIOENCODING="ascii")
    assert "#" in written and written.isascii()
