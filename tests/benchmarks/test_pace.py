"""The measure of the time left; and what it says of real searches, recorded on two cores that others used too."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.pace import N_MOMENTS, Course, moments, report
from studies.pace import Pace, Trained

COURSES = json.loads((Path(__file__).parents[1] / "studies" / "assets" / "courses.json").read_text())


def steady(n_cohorts: int, seconds: float = 8.0) -> Course:
    """Cohorts of 16 trials of one epoch, each after as many seconds; an epoch every 16th of them."""
    events: list[object] = [[0.0, "e", 1]]
    for cohort in range(n_cohorts):
        begin = cohort * seconds
        events += [[begin + i * seconds / 16, "e", 1] for i in range(1 if cohort == 0 else 0, 16)]
        events.append([begin + seconds, "t", [[1, 100, 1, False]] * 16])
    return {"trials": 16 * n_cohorts, "cohort": 16, "per_trial": 1.0, "guided": True, "events": events}


def test_the_moments_lie_evenly_between_ten_trials_and_the_end() -> None:
    found = list(moments(steady(5)))
    assert len(found) == N_MOMENTS
    assert [m.true for m in found[:2]] == pytest.approx([32.0, 32.0 * 0.99])


def test_a_steady_search_is_told_to_an_epoch() -> None:
    # The longest pause of the first cohort is one of its epochs here.
    assert all(abs(m.told - m.true) <= 0.6 + m.true / 16 for m in moments(steady(5)))


def test_an_estimate_that_is_wrong_is_seen() -> None:
    course = steady(5)
    course["events"][-1][0] += 100.0  # nobody could know that the last cohort hangs
    assert "| 100% | 0% | 0% |" not in report({"steady": steady(5)})
    assert statistics.median(abs(m.told - m.true) / m.true for m in moments(course)) > 0.5


def test_on_recorded_searches_the_median_error_is_a_fraction_of_that_of_the_mean_rate() -> None:
    found = [m for course in COURSES.values() for m in moments(course)]
    ours = statistics.median(abs(m.told - m.true) / m.true for m in found)
    plain = statistics.median(abs(m.plain - m.true) / m.true for m in found)
    assert ours <= 0.35 and ours < plain / 2


def at_cohorts(name: str) -> Iterator[tuple[float, float, float, float]]:
    """Of a recorded course at each stored cohort: share of trials done, time left as told, as it was, by the mean rate;
    all as shares of the whole course."""
    course = COURSES[name]
    end = max(at for at, kind, _ in course["events"] if kind == "t")
    pace, done = Pace(0.0, course["per_trial"], course["cohort"], is_guided=course["guided"]), 0
    for at, kind, what in course["events"]:
        for _ in range(what if kind == "e" else 0):
            pace.epoch(at)
        if kind == "t":
            pace.told([Trained(*trial) for trial in what], at)
            done += len(what)
            n_left = course["trials"] - done
            left = pace.left(n_left, at)
            assert left is not None
            yield done / course["trials"], left / end, (end - at) / end, at / done * n_left / end


@pytest.mark.parametrize("name", COURSES)
def test_on_recorded_searches_the_time_left_is_right_to_a_fifth_of_the_search_from_half_of_the_trials_on(
    name: str,
) -> None:
    """Not before: the default study becomes twice as fast on its way, and nobody knows that beforehand."""
    for share, told, true, _ in at_cohorts(name):
        assert abs(told - true) <= (0.2 if share >= 0.5 else 0.6), f"{name} at {share:.0%}"


@pytest.mark.parametrize("name", ["digits", "long"])
def test_it_is_nearer_than_the_mean_rate_would_be(name: str) -> None:
    """Those two begin with a pause of seconds, while processes start."""
    found = list(at_cohorts(name))
    ours = [abs(told - true) for _, told, true, _ in found]
    theirs = [abs(plain - true) for _, _, true, plain in found]
    assert sum(ours) < sum(theirs) / 2
