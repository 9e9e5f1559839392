import math

import pytest

from studies.figures import number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.986072, "0.9861"),
        (1.0, "1.0000"),
        (0.0, "0.0000"),
        (9.87654321, "9.8765"),
        (53.123456, "53.123"),
        (532.123456, "532.12"),
        (-532.123456, "-532.12"),
        (5321.23456, "5,321.2"),
        (53212.3456, "53,212"),
        (1234567.8, "1,234,568"),
        (6835.0, "6,835"),
        (0.00012345, "0.000123"),
        (1.5e-9, "1.5e-09"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_a_value_has_as_many_digits_as_its_size_earns(value: float, text: str) -> None:
    assert number(value) == text


def test_a_difference_shows_its_sign() -> None:
    assert [number(v, has_sign=True) for v in (0.25, -0.25, 532.123, 0.0001)] == [
        "+0.2500",
        "-0.2500",
        "+532.12",
        "+0.0001",
    ]


def test_what_is_shown_is_the_value_within_half_a_digit() -> None:
    for power in range(-12, 13):
        for digits in (1.0, 1.23456789, 9.9996):
            value = digits * 10.0**power
            assert float(number(value).replace(",", "")) == pytest.approx(
                value, rel=6e-3, abs=5.1e-5 if value >= 0.001 else 0.0
            )
