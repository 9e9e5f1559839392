import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from studies.json_lines import JsonDisplay
from studies.records import CUT, FAIL, PRUNED, EpochDone, EpochRecord, StudyFacts, TrialRecord
from studies.tally import Tally

Facts = Callable[..., StudyFacts]
Make = Callable[..., TrialRecord]
EPOCH = EpochDone(4, EpochRecord(7, 0.5, float("nan"), 0.875, 0.05, 1.0))
PAGE = Path(__file__).parent.parent.parent / "docs" / "terminal.md"


@pytest.fixture
def events(make_facts: Facts, make_trial: Make) -> list[dict[str, object]]:
    out = io.StringIO()
    said = JsonDisplay(out)
    said.note("study   wine: 8 trials\ndata    wine")
    said.note("")
    said.note("warning: something is odd")
    said.begin(Tally(make_facts(), 8, 40, [make_trial(0)]))
    said.epoch(EPOCH)
    said.epoch(EPOCH)
    said.trials([make_trial(1, 0.75), make_trial(2, 0.5, PRUNED, rungs={5: 0.5}), make_trial(3, None, FAIL)])
    said.end()
    said.end()
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_each_event_is_a_line_with_its_kind_and_its_time(events: list[dict[str, object]]) -> None:
    kinds = [event["event"] for event in events]
    assert kinds == ["note", "warning", "began", "epoch", "trial", "trial", "trial", "progress", "searched"]
    assert all(isinstance(event["time"], float) for event in events)
    assert events[1]["text"] == "something is odd"


def test_numbers_that_are_not_finite_are_null(events: list[dict[str, object]]) -> None:
    (epoch,) = [event for event in events if event["event"] == "epoch"]
    assert (epoch["number"], epoch["epoch"], epoch["val_loss"]) == (4, 7, None)


def test_trials_and_progress_say_how_the_study_stands(events: list[dict[str, object]]) -> None:
    first, second, third = [event for event in events if event["event"] == "trial"]
    assert (first["number"], first["state"], first["values"]) == (1, "COMPLETE", {"accuracy": 0.75})
    assert (second["pruned_at"], third["values"], third["state"]) == (5, {}, "FAIL")
    (progress,) = [event for event in events if event["event"] == "progress"]
    assert (progress["trials"], progress["budget"], progress["pruned_at"]) == (4, 8, {"5": 1})
    best = progress["best"]
    assert isinstance(best, dict) and best["number"] == 1


def test_the_page_names_every_event_and_every_key(events: list[dict[str, object]]) -> None:
    text = PAGE.read_text()
    for event in events:
        (row,) = re.findall(rf"^\| `{event['event']}` \|.*$", text, re.M)
        for key in set(event) - {"event", "time"}:
            assert f"`{key}`" in row, f"docs/terminal.md does not name {key} of {event['event']}"


def test_a_trial_that_time_cut_was_pruned_at_no_rung(make_facts: Facts, make_trial: Make) -> None:
    out = io.StringIO()
    said = JsonDisplay(out)
    said.begin(Tally(make_facts(), 8, 40, []))
    said.trials([make_trial(0, 0.5, PRUNED, rungs={5: 0.4, 7: 0.5}, reason=CUT)])
    _, trial, progress = map(json.loads, out.getvalue().splitlines())
    assert (trial["state"], trial["pruned_at"], trial["reason"]) == ("PRUNED", None, CUT)
    assert (progress["states"], progress["pruned_at"]) == ({"PRUNED": 1}, {})
