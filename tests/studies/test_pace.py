import pytest

from studies.pace import Pace


def test_nothing_is_known_before_the_first_epoch() -> None:
    pace = Pace(0.0, 10, 8)
    assert pace.left(8, 5.0) is None
    assert pace.left(0, 5.0) == 0


def test_what_came_before_the_first_epoch_is_not_paid_again() -> None:
    pace = Pace(0.0, 1, 10)
    pace.epoch(20.0)
    pace.told(10, 30.0)
    assert pace.left(20, 30.0) == pytest.approx(20.0)
    assert pace.left(20, 35.0) == pytest.approx(15.0)
    assert pace.left(20, 99.0) == 0.0


def test_in_the_first_cohort_its_epochs_say_how_far_it_is() -> None:
    pace = Pace(0.0, 5, 4)
    for i in range(10):
        pace.epoch(1.0 + i)
    assert pace.left(8, 10.0) == pytest.approx(9.0 / 0.5 * 2 - 9.0)


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
