import numpy as np
import pytest

from dlcore.columns import Column
from dlcore.config import PreprocessConfig
from dlcore.encoders import CategoryEncoder, DateEncoder, Encoder, MeanEncoder, fit_encoder, look_up
from tests.dlcore.column_tools import texts

NAMES = ("mean target",)


def fit(column: Column, y: np.ndarray | None = None, **fields: object) -> Encoder:
    targets = np.arange(len(column), dtype=np.float64) if y is None else y
    return fit_encoder(column, targets[:, np.newaxis], NAMES, PreprocessConfig(**fields))  # type: ignore[arg-type]


def test_each_category_has_an_output_and_what_train_lacks_has_none() -> None:
    fitted = fit(texts("city", ["Rome", "Oslo", "Rome", "Oslo"]))
    assert fitted.output_names == ("city = Oslo", "city = Rome")
    later = fitted.encode(texts("city", ["Rome", "Oslo", "Bonn", ""]))
    assert later.tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]


def test_missing_text_is_a_category_where_train_has_holes() -> None:
    fitted = fit(texts("city", ["Rome", "", "Rome"]))
    assert fitted.output_names == ("city is missing", "city = Rome")
    assert fitted.encode(texts("city", ["", "Rome", "Bonn"])).tolist() == [[1, 0], [0, 1], [0, 0]]


def test_rare_categories_share_an_output_with_those_that_train_lacks() -> None:
    rows = ["a"] * 600 + ["b"] * 390 + ["c"] * 9 + ["d"]
    fitted = fit(texts("k", rows))
    assert fitted.output_names == ("k = a", "k = b", "k = (other)")
    assert fitted.encode(texts("k", ["b", "c", "d", "new", ""])).tolist() == [[0, 1, 0], *[[0, 0, 1]] * 4]
    assert fitted.example == "a"


def test_a_small_table_keeps_its_rare_categories() -> None:
    fitted = fit(texts("k", ["a"] * 100 + ["b"]))
    assert fitted.output_names == ("k = a", "k = b")


def test_only_the_commonest_categories_have_outputs() -> None:
    rows = [f"{i:02}" for i in range(40) for _ in range(40 - i + 10)]
    fitted = fit(texts("k", rows), max_categories=5)
    assert fitted.output_names == (*(f"k = {i:02}" for i in range(5)), "k = (other)")
    assert isinstance(fit(texts("k", rows), high_cardinality=39), MeanEncoder)


def test_a_category_called_other_is_itself() -> None:
    fitted = fit(texts("k", ["(other)"] * 600 + ["a"] * 399 + ["b"]))
    assert fitted.encode(texts("k", ["(other)", "b"])).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_very_many_categories_are_encoded_by_their_mean_and_how_common_they_are() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 100, 3000)
    y = (rows % 10) + rng.normal(size=3000)
    column = texts("zip", np.append(rows, 777).astype(str))
    fitted = fit(column, np.append(y, 1e3))
    assert isinstance(fitted, MeanEncoder) and fitted.output_names == ("zip: mean target", "zip: how common")
    assert "777" not in fitted.categories, "one row is no category"
    encoded = fitted.encode(texts("zip", ["9", "0", "777", "unseen", ""]))
    assert encoded[0, 0] > 0 > encoded[1, 0]
    assert (encoded[2] == encoded[3]).all() and (encoded[3] == encoded[4]).all() and encoded[3, 0] == 0


def test_texts_are_looked_up_by_what_they_are_and_not_by_their_code() -> None:
    table = np.arange(6.0).reshape(3, 2)
    column = Column("k", "categorical", np.array([2, 0, -1, 1], dtype=np.int32), ("a", "b", "c"))
    assert look_up(("b", "a"), table, column).tolist() == [[4, 5], [2, 3], [4, 5], [0, 1]]


def test_a_date_becomes_those_of_its_parts_that_vary() -> None:
    days = 86_400.0 * np.arange(60)  # January and February 1970, at midnight
    fitted = fit(Column("sold", "date", np.where(np.arange(60) == 7, np.nan, days)))
    parts = ("days", "month", "day of week", "day of year (sine)", "day of year (cosine)")
    assert fitted.output_names == (
        *(f"sold: {part}" for part in (parts[0], "year", *parts[1:])),
        "sold is missing",
    ) or (fitted.output_names == (*(f"sold: {part}" for part in parts), "sold is missing"))
    encoded = fitted.encode(Column("sold", "date", days))
    np.testing.assert_allclose(encoded[8:, :-1].mean(0), 0, atol=0.3)
    assert encoded[:, -1].sum() == 0
    assert fitted.example == "1970-01-31T00:00:00Z"


def test_a_date_that_never_changes_is_nothing_but_zeros() -> None:
    fitted = fit(Column("sold", "date", np.full(5, 1e9)))
    assert fitted.output_names == ("sold: days",)
    assert fitted.encode(Column("sold", "date", np.full(2, 1e9))).tolist() == [[0], [0]]


def test_a_boolean_is_standardised_whatever_the_scaling() -> None:
    column = Column("b", "boolean", np.array([0.0, 0.0, 0.0, 1.0]))
    expected = fit(column).encode(column)
    for scaling in ("robust", "quantile_normal"):
        np.testing.assert_array_equal(fit(column, scaling=scaling).encode(column), expected)


@pytest.mark.parametrize("scaling", ["robust", "quantile_normal"])
def test_filled_holes_do_not_bend_the_scale_of_ranks(scaling: str) -> None:
    full = Column("x", "numeric", np.arange(9.0))
    holed = Column("x", "numeric", np.append(np.arange(9.0), np.full(90, np.nan)))
    assert fit(holed, scaling=scaling).scaler == fit(full, scaling=scaling).scaler  # type: ignore[union-attr]


def test_a_column_of_missing_texts_has_no_input_that_says_nothing() -> None:
    fitted = fit(texts("k", ["", "", ""]))
    assert isinstance(fitted, CategoryEncoder) and fitted.output_names == ()
    assert fitted.encode(texts("k", ["", "a"])).shape == (2, 0)


def test_dates_at_midnight_and_noon_have_no_part_that_varies_by_rounding_alone() -> None:
    fitted = fit(Column("when", "date", 43_200.0 * np.array([0, 1, 2, 5, 8, 11])))
    assert isinstance(fitted, DateEncoder) and min(fitted.scale) > 1e-9
    assert "time of day (cosine)" in fitted.parts and "time of day (sine)" not in fitted.parts
