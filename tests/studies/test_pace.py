"""The time left: of made-up courses, and of real ones, recorded on two cores that others used too.

`assets/courses.json` holds the default study, a study of the loop, and one of 120 epochs: when epochs ended (how many
in a row) and when cohorts were stored.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from studies.halving import rungs
from studies.pace import Pace

COURSES = json.loads((Path(__file__).parent / "assets" / "courses.json").read_text())


def test_nothing_is_known_before_some_epochs() -> None:
    pace = Pace(0.0, 10, 8)
    assert pace.left(8, 5.0) is None
    pace.epoch(6.0)
    assert pace.left(8, 7.0) is None
    assert pace.left(0, 7.0) == 0


def test_what_came_before_the_first_epoch_and_the_pause_behind_it_are_not_paid_again() -> None:
    pace = Pace(0.0, 1, 10)
    for now in (20.0, 21.0, 27.0, 28.0):
        pace.epoch(now)
    pace.told(10, 30.0)
    assert pace.left(20, 30.0) == pytest.approx(2 * (30 - 20 - 6))


def test_a_cohort_says_by_its_epochs_how_far_it_is() -> None:
    pace = Pace(0.0, 5, 8)
    for i in range(21):
        pace.epoch(1.0 + i)
    assert pace.left(16, 21.0) == pytest.approx(19 / (21 / 40) * 2 - 19)  # a pause of one second is left out
    pace.told(8, 22.0)
    before = pace.left(16, 22.0)
    for i in range(10):
        pace.epoch(23.0 + i)
    left = pace.left(16, 33.0)
    assert before is not None and left is not None and left == pytest.approx(before * (1 - 10 / 21 / 2))


def test_the_later_half_sets_the_price() -> None:
    pace = Pace(0.0, 1, 10)
    pace.epoch(0.0)
    for now in (100.0, 110.0, 120.0, 130.0):
        pace.told(10, now)
    assert pace.left(10, 130.0) == pytest.approx(10.0)


def test_trials_that_nobody_told_the_epochs_of_are_counted_from_the_beginning() -> None:
    pace = Pace(5.0, 1, 10)
    pace.told(10, 15.0)
    assert pace.left(10, 15.0) == pytest.approx(10.0)


def estimates(name: str) -> Iterator[tuple[float, float, float, float]]:
    """Of a recorded course at each stored cohort: share of trials done, time left as told, as it was, by the mean rate;
    all as shares of the whole course."""
    course = COURSES[name]
    cohort, epochs, n = course["cohort"], course["epochs"], course["trials"]
    total, living, before = 0, cohort, 0
    for rung in (*rungs(5, 3, epochs), epochs):
        total, living, before = total + living * (rung - before), -(-living // 3), rung
    end = max(at for at, kind, _ in course["events"] if kind == "t")
    pace, done = Pace(0.0, total / cohort, cohort), 0
    for at, kind, count in course["events"]:
        if kind == "e":
            for _ in range(count):
                pace.epoch(at)
            continue
        done += count
        pace.told(count, at)
        left = pace.left(n - done, at)
        assert left is not None
        yield done / n, left / end, (end - at) / end, at / done * (n - done) / end


@pytest.mark.parametrize("name", COURSES)
def test_on_recorded_courses_the_time_left_is_right_to_a_fifth_of_the_course_from_half_of_the_trials_on(
    name: str,
) -> None:
    """Not before: the default study becomes twice as fast on its way, and nobody knows that beforehand."""
    for share, told, true, _ in estimates(name):
        assert abs(told - true) <= (0.2 if share >= 0.5 else 0.6), f"{name} at {share:.0%}"


@pytest.mark.parametrize("name", ["digits", "long"])
def test_it_is_nearer_than_the_mean_rate_would_be(name: str) -> None:
    """Those two begin with a pause of seconds, while processes start."""
    found = list(estimates(name))
    ours = [abs(told - true) for _, told, true, _ in found]
    theirs = [abs(plain - true) for _, _, true, plain in found]
    assert sum(ours) < sum(theirs) / 2
