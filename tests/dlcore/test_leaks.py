import numpy as np

from dlcore.columns import Column, Features
from dlcore.leaks import leak_notes

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 200)
PRICE = RNG.normal(size=(200, 1))


def notes(values: np.ndarray, y: np.ndarray, task: str) -> tuple[str, ...]:
    is_text = values.dtype == np.int32
    column = Column("x", "categorical" if is_text else "numeric", values, tuple("abcdefgh") if is_text else ())
    return leak_notes(Features((column, Column("noise", "numeric", RNG.normal(size=len(values))))), y, task)


def test_a_column_that_says_the_class_is_named() -> None:
    for values in (
        Y * 2.0 + RNG.random(200),
        (-Y).astype(np.float64),
        Y.astype(np.int32),
        (Y + 3 * (Y == 1)).astype(np.int32),
    ):
        [note] = notes(values, Y, "multiclass")
        assert "says the target of every training row: 'x'; if that is not known when" in note


def test_a_column_that_orders_the_target_is_named() -> None:
    for values in (np.exp(PRICE[:, 0]), -3 * PRICE[:, 0]):
        assert len(notes(values, PRICE, "regression")) == 1


def test_columns_that_are_only_good_are_not() -> None:
    almost = Y.astype(np.float64)
    almost[0] = (Y[0] + 1) % 3
    holed = np.where(np.arange(200) == 5, np.nan, Y)
    for values in (almost, holed, almost.astype(np.int32), RNG.normal(size=200)):
        assert notes(values, Y, "multiclass") == ()
    assert notes(np.round(PRICE[:, 0], 1), PRICE, "regression") == ()
    assert notes(PRICE[:, 0] + 1e-3 * RNG.normal(size=200), PRICE, "regression") == ()
    assert notes(np.arange(20.0), np.arange(20) // 10, "binary") == ()  # so few rows say nothing
