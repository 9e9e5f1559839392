"""The time left, of made-up courses; tests/benchmarks/test_pace.py has real ones."""

import pytest

from studies.pace import LAYER, Pace, Trained, weight


def alike(n: int, epochs: int = 1, n_parameters: int = 1_000, *, is_guide: bool = False) -> list[Trained]:
    return [Trained(epochs, weight(n_parameters, 1), is_guide)] * n


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
    pace.told(alike(10), 30.0)
    assert pace.left(20, 30.0) == pytest.approx(2 * (30 - 20 - 6))


def test_a_cohort_says_by_its_epochs_how_far_it_is() -> None:
    pace = Pace(0.0, 5, 8)
    for i in range(21):
        pace.epoch(1.0 + i)
    assert pace.left(16, 21.0) == pytest.approx(19 / (21 / 40) * 2 - 19)  # a pause of one second is left out
    pace.told(alike(8), 22.0)
    before = pace.left(16, 22.0)
    for i in range(10):
        pace.epoch(23.0 + i)
    left = pace.left(16, 33.0)
    assert before is not None and left is not None and left == pytest.approx(before * (1 - 10 / 21 / 2))


def test_the_later_half_sets_the_price() -> None:
    pace = Pace(0.0, 1, 10)
    pace.epoch(0.0)
    for now in (100.0, 110.0, 120.0, 130.0):
        pace.told(alike(10), now)
    assert pace.left(10, 130.0) == pytest.approx(10.0)


def test_trials_that_nobody_told_the_epochs_of_are_counted_from_the_beginning() -> None:
    pace = Pace(5.0, 1, 10)
    pace.told(alike(10), 15.0)
    assert pace.left(10, 15.0) == pytest.approx(10.0)


def test_a_cohort_that_others_slowed_down_does_not_count() -> None:
    pace = Pace(0.0, 1, 10)
    pace.epoch(0.0)
    for now in (10.0, 20.0, 30.0, 40.0, 140.0, 150.0):
        pace.told(alike(10), now)
    assert pace.left(10, 150.0) == pytest.approx(10.0)


def test_a_layer_weighs_something_however_narrow() -> None:
    assert weight(1_000, 3) == 1_000 + 3 * LAYER


def test_a_sampler_that_learns_goes_on_with_networks_like_the_best() -> None:
    light, heavy = LAYER, 9 * LAYER  # weights 2 and 10
    cohort = [*alike(9, 2, heavy), *alike(1, 2, light, is_guide=True)]  # 20 epochs of 184 layers' work in 184 s
    pace = Pace(0.0, 2, 10)
    pace.told(cohort, 184.0)
    assert pace.left(10, 184.0) == pytest.approx(184 * (2 * 20 / 184) ** 0.7)
    pace = Pace(0.0, 2, 10, is_guided=False)
    pace.told(cohort, 184.0)
    assert pace.left(10, 184.0) == pytest.approx(184)


def test_trials_that_trained_for_nothing_do_no_harm() -> None:
    pace = Pace(0.0, 5, 4)
    pace.told(alike(4, 0), 8.0)
    assert pace.left(4, 8.0) == pytest.approx(8.0)
    pace.told([], 9.0)
    assert pace.left(4, 9.0) == pytest.approx(8.0)


def test_a_cohort_that_is_known_is_foretold_by_its_own_networks() -> None:
    pace = Pace(0.0, 2, 10, is_guided=False)
    pace.told(alike(10, 2), 10.0)
    pace.began([16 * weight(1_000, 1)] * 10)
    assert pace.left(20, 10.0) == pytest.approx(10 * 16**0.7 + 10)
    pace.told(alike(10, 2), 20.0)  # nothing is known of the next one
    assert pace.left(10, 20.0) == pytest.approx(10)


def test_networks_that_are_trained_again_have_the_price_of_the_search() -> None:
    pace = Pace(0.0, 2, 10)
    assert pace.together([], 3) == 0 and pace.together([1.0], 3) is None and pace.cohort_s() == 0
    pace.told(alike(10, 2), 10.0)
    assert pace.together([weight(1_000, 1)] * 5, 2) == pytest.approx(5)
    assert pace.together([weight(1_000, 1)] * 5, 8) == pytest.approx(5 * 4**0.7)
    assert pace.cohort_s() == pytest.approx(10)
