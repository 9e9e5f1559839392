"""The measure of the time left; and what `Pace` says of real searches, recorded on two cores that others used too."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.pace import Course, errors_at, moments, quantile, report
from studies.pace import Pace, Trained, weight

COURSES = json.loads((Path(__file__).parents[1] / "studies" / "assets" / "courses.json").read_text())


def steady(error: float = 0.0) -> Course:
    """A command of 100 s and 100 trials whose time left is told too long by a share."""
    return {"seconds": 100.0, "told": [[t, t, (100 - t) * (1 + error), 100.0 - t] for t in range(1, 100)]}


def test_the_moments_lie_between_ten_trials_and_the_end() -> None:
    found = list(moments(steady()))
    assert found[0] == (90.0, 90.0, 90.0) and found[-1][0] == 5.0
    assert list(moments({"seconds": 9.0, "told": [[1.0, 20, None, 0.0]]})) == []


def test_an_error_is_a_share_of_the_true_time_left_at_each_moment() -> None:
    assert dict(errors_at(steady(0.5))) == pytest.approx(dict.fromkeys(("ten trials", "25 %", "50 %", "75 %"), 0.5))
    assert dict(errors_at({"seconds": 100.0, "told": []})) == {}
    late = {"seconds": 100.0, "told": [[60.0, 5, 40.0, 40.0], [70.0, 16, 15.0, 30.0], [80.0, 32, 20.0, 20.0]]}
    assert dict(errors_at(late)) == {"ten trials": 0.5, "75 %": 0.0}  # the others came before ten trials


def test_an_estimate_that_is_wrong_is_seen() -> None:
    assert "Within 20 %: 100% of all moments" in report({"good": steady(0.1)})
    said = report({"good": steady(), "bad": steady(-0.5)})
    assert "| bad | 100 | 50% | 50% | 50% | 50% | 50% |" in said and "| median of all |  | 50% |" in said
    assert "Within 20 %: 50% of all moments" in said


def test_a_quantile_is_one_of_the_values() -> None:
    assert [quantile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.9)] == [1.0, 2.0, 3.0]


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
            pace.told([Trained(epochs, weight(n, depth), is_guide) for epochs, n, depth, is_guide in what], at)
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
