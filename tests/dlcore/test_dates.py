from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcore.dates import FIRST_S, LAST_S, PARTS, clip_dates

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@settings(max_examples=500, deadline=None)
@given(st.integers(int(FIRST_S), int(LAST_S)))
def test_the_calendar_is_that_of_the_standard_library(second: int) -> None:
    moment = EPOCH + timedelta(seconds=second)
    found = {name: part(np.array([float(second)]), 0.0)[0] for name, part in PARTS.items()}
    assert (found["year"], found["month"], found["day of week"]) == (moment.year, moment.month, moment.weekday())
    assert found["days"] == second / 86_400
    angle = 2 * np.pi * (second % 86_400) / 86_400
    circle = [found["time of day (sine)"], found["time of day (cosine)"]]
    np.testing.assert_allclose(circle, [np.sin(angle), np.cos(angle)], atol=1e-12)


def test_every_day_of_a_leap_year_has_its_place_on_a_circle() -> None:
    first = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
    days = first + 86_400 * np.arange(366.0)
    sine, cosine = PARTS["day of year (sine)"](days, 0.0), PARTS["day of year (cosine)"](days, 0.0)
    np.testing.assert_allclose(sine**2 + cosine**2, 1)
    steps = np.hypot(np.diff(sine), np.diff(cosine))
    assert steps.max() < 2 * np.pi / 365 and len({*zip(sine, cosine, strict=True)}) == 366


def test_dates_beyond_the_calendar_count_as_its_ends() -> None:
    clipped = clip_dates(np.array([-1e300, 0.0, 1e300]))
    assert [PARTS["year"](clipped, 0.0)[i] for i in range(3)] == [1, 1970, 9999]
