import io
import sys
from collections.abc import Callable

import pytest

from studies import display
from studies.display import JsonDisplay, PlainDisplay, QuietDisplay, open_display
from studies.records import EpochDone, EpochRecord, StudyFacts, TrialRecord
from studies.tally import Tally

EPOCH = EpochDone(4, EpochRecord(7, 0.5, 0.25, 0.875, 0.05, 1.0))
Facts = Callable[..., StudyFacts]
Make = Callable[..., TrialRecord]


def test_a_plain_display_says_the_first_epoch_at_once_and_then_holds_its_breath(
    make_facts: Facts, make_trial: Make
) -> None:
    out = io.StringIO()
    plain = PlainDisplay(out)
    plain.begin(Tally(make_facts(), 8, 40, []))
    plain.epoch(EPOCH)
    plain.epoch(EPOCH)
    plain.trials([make_trial(0)])
    plain.end()
    first, second = out.getvalue().splitlines()
    assert first == "trial 4, epoch 7/40: train loss 0.5000, val loss 0.2500, val accuracy 0.8750"
    assert second.startswith("1/8 trials")


def test_a_quiet_display_says_warnings_alone(make_facts: Facts, make_trial: Make) -> None:
    err = io.StringIO()
    quiet = QuietDisplay(err)
    quiet.note("study   wine: 8 trials")
    quiet.begin(Tally(make_facts(), 8, 40, []))
    quiet.epoch(EPOCH)
    quiet.trials([make_trial(0)])
    quiet.end()
    quiet.note("warning: MLflow lacks 8 trials")
    assert err.getvalue() == "warning: MLflow lacks 8 trials\n"


def test_what_is_asked_for_is_opened_and_a_pipe_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    opened = [type(open_display(form)) for form in display.FORMS]
    assert opened == [PlainDisplay, JsonDisplay, QuietDisplay]
