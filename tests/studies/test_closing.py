from dataclasses import replace

import pytest

from studies.closing import Closing, calibrate

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
    assert slow.mirror_s(100, is_up=True, waited_s=0) == pytest.approx(
        2 * CLOSING.mirror_s(100, is_up=True, waited_s=0)
    )


def test_a_server_that_starts_is_waited_for_as_long_as_it_still_takes() -> None:
    up = CLOSING.mirror_s(100, is_up=True, waited_s=0)
    cold, later = (CLOSING.mirror_s(100, is_up=False, waited_s=waited) for waited in (0.0, 1.0))
    assert cold > later > up and cold - later == pytest.approx(1.0)
    assert CLOSING.mirror_s(100, is_up=False, waited_s=10_000) == up
    assert replace(CLOSING, is_mirrored=False).mirror_s(100, is_up=False, waited_s=0) == 0


def test_the_calibration_is_the_least_of_its_turns() -> None:
    times = iter([0.0, 5.0, 10.0, 12.0, 20.0, 23.0])
    assert calibrate(lambda: next(times)) == 2.0
    assert calibrate() > 0
