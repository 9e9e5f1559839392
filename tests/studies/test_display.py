import io
import re
from collections.abc import Callable

from rich.console import Console

from studies import display
from studies.display import LiveDisplay, PlainDisplay, Tally, format_value
from studies.records import FAIL, PRUNED, WAITING, EpochDone, EpochRecord, StudyFacts, TrialRecord

EPOCH = EpochDone(4, EpochRecord(7, 0.5, 0.25, 0.875, 0.05, 1.0))
Facts = Callable[..., StudyFacts]
Make = Callable[..., TrialRecord]


def test_the_tally_counts_what_earlier_runs_finished_but_not_in_its_rate(make_facts: Facts, make_trial: Make) -> None:
    earlier = [make_trial(0, 0.75), make_trial(1, 0.5, PRUNED), make_trial(2, None, WAITING)]
    tally = Tally(make_facts(), 8, 40, earlier)
    assert (tally.n_done, tally.trials_per_s) == (2, 0)
    assert tally.line() == "2/8 trials, 1 pruned, 0 failed, best accuracy 0.7500 (trial 0)"
    tally.add_trials([make_trial(2, 0.875), make_trial(3, None, FAIL)])
    assert tally.trials_per_s > 0
    assert re.fullmatch(
        r"4/8 trials, 1 pruned, 1 failed, best accuracy 0\.8750 \(trial 2\), [\d.]+ trials/s, \d+ s left", tally.line()
    )


def test_a_budget_without_a_number_of_trials_has_no_time_left(make_facts: Facts, make_trial: Make) -> None:
    tally = Tally(make_facts(), None, 40, [])
    tally.add_trials([make_trial(0)])
    assert tally.line().startswith("1 trials, ") and "left" not in tally.line()


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


def test_a_live_display_draws_the_bar_the_tally_and_the_epoch(make_facts: Facts, make_trial: Make) -> None:
    out = io.StringIO()
    live = LiveDisplay(Console(file=out, force_terminal=True, width=100, color_system=None))
    live.note("said [before] all else")
    live.begin(Tally(make_facts(), 8, 40, []))
    live.epoch(EPOCH)
    live.trials([make_trial(0), make_trial(1)])
    live.end()
    live.end()
    shown = out.getvalue()
    for text in ("said [before] all else", "2/8", "best accuracy 0.5000 (trial 0)", "trial 4, epoch 7/40"):
        assert text in shown


def test_long_times_are_minutes() -> None:
    assert [display._minutes(s) for s in (0.4, 89.4, 90, 605)] == ["0 s", "89 s", "1:30 min", "10:05 min"]


def test_hyperparameters_are_written_short() -> None:
    assert display.hyperparameters_line({"width": 64, "learning_rate": 0.0123456, "nesterov": False}) == (
        "width 64, learning_rate 0.0123, nesterov False"
    )
    assert format_value("relu") == "relu"
