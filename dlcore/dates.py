"""Parts of a date, from seconds since 1970-01-01 UTC, in plain arithmetic that ONNX can repeat.

The calendar is computed from a year that begins on 1 March, so that the leap day is its last: Howard Hinnant,
"chrono-Compatible Low-Level Date Algorithms", civil_from_days. All in float64: every number here is a whole one far
below 2**53, or a fraction of a day.
"""

from collections.abc import Callable, Mapping

import numpy as np

from dlcore.scaling import FloatArray

DAY_S = 86_400.0
FIRST_S, LAST_S = -62_135_596_800.0, 253_402_300_799.0
"""0001-01-01 and the last second of 9999; later and earlier dates count as these."""
MARCH_0 = 719_468.0
"""Days from 1 March of the year 0 to 1970-01-01."""
ERA_DAYS = 146_097.0
"""Of 400 years."""

_DAY = np.arange(366)
MONTH_OF_DAY = np.asarray([3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 2], dtype=np.float64)[(5 * _DAY + 2) // 153]
"""Month, 1 to 12, of each day of a year that begins on 1 March, (366,)."""
SINE_OF_DAY = np.sin(2 * np.pi * _DAY / 365.25)
"""Where in the year each of these days lies, on a circle, (366,)."""
COSINE_OF_DAY = np.cos(2 * np.pi * _DAY / 365.25)


def clip_dates(seconds: FloatArray) -> FloatArray:
    """Dates (N,) of which `PARTS` are defined."""
    clipped: FloatArray = np.clip(seconds, FIRST_S, LAST_S)
    return clipped


def day_and_year(seconds: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Day since 1 March, 0 to 365, and the year that 1 March lies in: (N,), (N,)."""
    days = np.floor(seconds / DAY_S) + MARCH_0
    era = np.floor(days / ERA_DAYS)
    day = days - era * ERA_DAYS
    leaps = np.floor(day / 1460) - np.floor(day / 36_524) + np.floor(day / 146_096)
    year = np.floor((day - leaps) / 365)
    start = 365 * year + np.floor(year / 4) - np.floor(year / 100)
    return day - start, year + era * 400


def _year(seconds: FloatArray, origin: float) -> FloatArray:
    day, year = day_and_year(seconds)
    january_follows: FloatArray = year + (MONTH_OF_DAY[day.astype(np.int64)] <= 2)
    return january_follows


def _of_day(table: FloatArray) -> Callable[[FloatArray, float], FloatArray]:
    def look_up(seconds: FloatArray, origin: float) -> FloatArray:
        found: FloatArray = table[day_and_year(seconds)[0].astype(np.int64)]
        return found

    return look_up


def _day_of_week(seconds: FloatArray, origin: float) -> FloatArray:
    days = np.floor(seconds / DAY_S) + 3  # 1970-01-01 was a Thursday, 3
    weekday: FloatArray = days - 7 * np.floor(days / 7)
    return weekday


def time_of_day(seconds: FloatArray) -> FloatArray:
    """Seconds since midnight UTC (N,), as an angle: 2 pi is a day."""
    angle: FloatArray = (seconds - DAY_S * np.floor(seconds / DAY_S)) * (2 * np.pi / DAY_S)
    return angle


PARTS: Mapping[str, Callable[[FloatArray, float], FloatArray]] = {
    "days": lambda seconds, origin: (seconds - origin) / DAY_S,
    "year": _year,
    "month": _of_day(MONTH_OF_DAY),
    "day of week": _day_of_week,
    "day of year (sine)": _of_day(SINE_OF_DAY),
    "day of year (cosine)": _of_day(COSINE_OF_DAY),
    "time of day (sine)": lambda seconds, origin: np.sin(time_of_day(seconds)),
    "time of day (cosine)": lambda seconds, origin: np.sin(time_of_day(seconds) + np.pi / 2),
}
"""Name -> function of dates (N,), clipped, and of the date from which days are counted; Monday is 0."""
