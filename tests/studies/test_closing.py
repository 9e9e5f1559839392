from collections.abc import Callable
from dataclasses import replace

import pytest

from studies.closing import MIRROR_TRIAL, Backlog, Closing, Hindrance, calibrate, hindered, seeds_within
from studies.records import TrialRecord

CLOSING = Closing(4, 5, True, 1_000, 64, 10, True, 0.01)


def test_rivals_take_longer_on_larger_tables_and_no_longer_than_they_may() -> None:
    found = [replace(CLOSING, n_rows=rows).rivals_s() for rows in (100, 1_000, 10_000, 10**9)]
    assert found == sorted(found) and 0 < found[0] < found[2] and found[3] < 100
    assert replace(CLOSING, n_models=1).rivals_s() < CLOSING.rivals_s()
    assert replace(CLOSING, has_rivals=False).rivals_s() == 0


def test_all_of_it_takes_twice_as_long_where_the_interpreter_does() -> None:
    slow = replace(CLOSING, unit_s=0.02)
    assert slow.rivals_s() == pytest.approx(2 * CLOSING.rivals_s())
    assert slow.export_s() == pytest.approx(2 * CLOSING.export_s())
    assert slow.whole_s(0, 0, 0, 1) == pytest.approx(2 * CLOSING.whole_s(0, 0, 0, 1))
    assert slow.starting_s(0) == pytest.approx(2 * CLOSING.starting_s(0))


def test_a_server_that_starts_is_waited_for_as_long_as_it_still_takes() -> None:
    up = CLOSING.whole_s(5, 100, 0, 0)
    assert up > 5 and CLOSING.whole_s(5, 100, 8, 0) == up + 3 and CLOSING.whole_s(5, 100, 4, 0) == up
    assert CLOSING.starting_s(0) - CLOSING.starting_s(1) == pytest.approx(1) and CLOSING.starting_s(10_000) == 0
    unseen = replace(CLOSING, is_mirrored=False)
    assert unseen.whole_s(5, 100, 0, 0) == 5 and unseen.starting_s(0) == 0


def test_trials_that_mlflow_lacks_take_what_they_took_so_far_less_what_is_written_meanwhile() -> None:
    assert CLOSING.writing_s(Backlog(), 100, 0) == pytest.approx(100 * MIRROR_TRIAL * CLOSING.unit_s)
    assert CLOSING.writing_s(Backlog(20, 0.5, 0.25), 30, 40) == 50 * 0.5 - 40 * 0.25
    assert CLOSING.writing_s(Backlog(20, 0.5, 1.0), 30, 40) == 0


def test_a_study_that_time_limits_has_fewer_seeds_and_never_one(make_trial: Callable[..., TrialRecord]) -> None:
    trials = [make_trial(n, duration_s=4.0, population_size=4) for n in range(2)]  # two seconds for one seed of both
    assert [seeds_within(trials, 5, spent_s) for spent_s in (100.0, 24.0, 1.0)] == [5, 3, 2]


def test_a_registration_takes_as_much_longer_than_foretold_as_the_start_of_the_server_did() -> None:
    foretold, start_s = CLOSING.whole_s(0, 0, 0, 0), CLOSING.starting_s(0)
    assert CLOSING.whole_s(0, 0, 0, 0, start_s / 2) == pytest.approx(foretold)
    assert CLOSING.whole_s(0, 0, 0, 0, 3 * start_s) == pytest.approx(3 * foretold)


def test_work_beside_a_server_that_starts_takes_longer_until_it_is_up() -> None:
    assert [hindered(seconds, 10, 1) for seconds in (2, 5, 8)] == [4, 10, 13]
    assert hindered(8, 10, 0) == hindered(8, 0, 1) == 8


def test_the_seconds_that_work_has_had_are_fewer_while_a_server_starts() -> None:
    now, is_up = [10.0], [False]
    clock = Hindrance(lambda: now[0], lambda: is_up[0], 1.0)
    now[0] = 14.0
    assert clock() == 12
    is_up[0] = True
    now[0] = 15.0
    assert clock() == 13


def test_the_calibration_is_the_least_of_its_turns() -> None:
    times = iter([0.0, 5.0, 10.0, 12.0, 20.0, 23.0])
    assert calibrate(lambda: next(times)) == 2.0
    assert calibrate() > 0
