"""studies.halving: rungs and who is promoted, without any study."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies import halving
from studies.halving import rungs


@pytest.mark.parametrize(
    ("first", "factor", "epochs", "ladder"),
    [
        (5, 3, 40, (5, 15)),
        (5, 3, 45, (5, 15)),
        (5, 3, 46, (5, 15, 45)),
        (1, 2, 8, (1, 2, 4)),
        (5, 3, 5, ()),
        (5, 3, 1, ()),
    ],
)
def test_rungs_grow_by_the_factor_and_the_end_is_none(
    first: int, factor: int, epochs: int, ladder: tuple[int, ...]
) -> None:
    assert rungs(first, factor, epochs) == ladder


def promoted(values: Mapping[int, float], factor: int, direction: str) -> set[int]:
    """Who goes on where all val losses are equal."""
    return halving.promoted({number: (value, 0.5) for number, value in values.items()}, factor, direction)


def test_of_equal_values_the_lower_val_loss_goes_on() -> None:
    values = {0: (0.5, 0.3), 1: (0.5, 0.1), 2: (0.5, 0.2), 3: (0.4, 0.0), 4: (0.6, 0.9)}
    assert halving.promoted(values, 2, "maximize") == {4, 1, 2}
    assert halving.promoted(values, 2, "minimize") == {3, 1, 2}


def test_the_best_third_goes_on() -> None:
    values = {number: float(number) for number in range(9)}

    assert promoted(values, 3, "maximize") == {6, 7, 8}
    assert promoted(values, 3, "minimize") == {0, 1, 2}


def test_a_share_is_rounded_up_so_that_one_always_goes_on() -> None:
    assert promoted({4: 0.0}, 3, "maximize") == {4}
    assert len(promoted({n: float(n) for n in range(4)}, 3, "maximize")) == 2
    assert promoted({}, 3, "maximize") == set()


def test_of_equal_values_the_earlier_number_goes_on() -> None:
    assert promoted({9: 0.5, 3: 0.5, 7: 0.5}, 2, "maximize") == {3, 7}
    assert promoted({9: 0.5, 3: 0.5, 7: 0.5}, 2, "minimize") == {3, 7}


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_value_that_is_no_number_is_the_worst(direction: str) -> None:
    worst = -math.inf if direction == "maximize" else math.inf

    assert promoted({0: math.nan, 1: worst, 2: 0.0}, 3, direction) == {2}
    assert promoted({0: math.nan, 1: worst}, 2, direction) == {1}
    assert promoted({5: math.nan, 3: math.nan}, 2, direction) == {3}


DIRECTIONS = st.sampled_from(["maximize", "minimize"])


@given(st.dictionaries(st.integers(0, 99), st.floats(), min_size=1), st.integers(2, 9), DIRECTIONS)
def test_nobody_who_stays_behind_is_better_than_one_who_goes_on(
    values: dict[int, float], factor: int, direction: str
) -> None:
    kept = promoted(values, factor, direction)
    left = [values[n] for n in values.keys() - kept if not math.isnan(values[n])]
    sign = 1 if direction == "maximize" else -1

    assert len(kept) == math.ceil(len(values) / factor)
    assert kept <= values.keys()
    if left and not any(math.isnan(values[n]) for n in kept):
        assert min(sign * values[n] for n in kept) >= max(sign * v for v in left)
    assert not left or not any(math.isnan(values[n]) for n in kept)


@given(st.dictionaries(st.integers(0, 99), st.floats(), min_size=1))
def test_the_order_of_the_values_does_not_matter(values: dict[int, float]) -> None:
    assert promoted(values, 3, "maximize") == promoted(dict(reversed(values.items())), 3, "maximize")
