from typing import Any

import numpy as np
import pandas as pd
import pytest

from dlcore.errors import ExportError
from dlcore.raw import to_input

NOON = 1_709_208_000.0  # 2024-02-29T12:00:00Z


@pytest.mark.parametrize(
    "values",
    [
        np.array(["a", None, "ä b", np.nan, ""], dtype=object),
        pd.Series(["a", None, "ä b", None, ""]),
        pd.Series(["a", None, "ä b", None, ""], dtype="string"),
        pd.Series(["a", None, "ä b", None, ""], dtype="category"),
    ],
)
def test_texts_are_taken_from_numpy_and_pandas_with_nothing_as_missing(values: Any) -> None:
    found = to_input("c", "categorical", values)
    assert found.dtype == object and found.tolist() == ["a", "", "ä b", "", ""]


def test_codes_that_were_read_as_numbers_are_the_texts_that_they_were() -> None:
    assert to_input("c", "categorical", np.array([1, 20])).tolist() == ["1", "20"]
    assert to_input("c", "categorical", np.array([1.0, np.nan])).tolist() == ["1", ""]
    for wrong in (np.array([True, False]), np.array([0.5]), np.array([b"a", None])):
        with pytest.raises(ExportError, match="column c must hold texts, None or NaN where missing; got"):
            to_input("c", "categorical", wrong)


def test_categories_are_stripped_and_words_for_nothing_are_missing_as_in_a_table() -> None:
    values = np.array([" Rome", "Rome\t", "NA", "?", "none", " "], dtype=object)
    assert to_input("c", "categorical", values).tolist() == ["Rome", "Rome", "", "", "", ""]


@pytest.mark.parametrize(
    ("form", "texts", "numbers"),
    [
        ("", ["1.5", " 2e3 ", "NA", ""], [1.5, 2000, np.nan, np.nan]),
        ("1234.5", ["1.234", None, "-1", "?"], [1.234, np.nan, -1, np.nan]),
        ("1.234,5", ["1.234", "1.234,50", "0,5", "n/a"], [1234, 1234.5, 0.5, np.nan]),
        ("$1,234.5", ["$1,234", "-$2", "$0.5", "nan"], [1234, -2, 0.5, np.nan]),
        ("1234.5%", ["5%", "0.5 %", "null", "10%"], [5, 0.5, np.nan, 10]),
    ],
)
def test_numbers_in_texts_are_read_as_the_table_had_them(
    form: str, texts: list[str | None], numbers: list[float]
) -> None:
    for values in (np.array(texts, dtype=object), pd.Series(texts), pd.Series(texts, dtype="category")):
        np.testing.assert_array_equal(to_input("c", "numeric", values, form), numbers)
    np.testing.assert_array_equal(to_input("c", "numeric", np.array([1.234, 2]), form), [1.234, 2])


def test_numbers_written_in_another_way_are_refused() -> None:
    message = r"column c must hold numbers or booleans, or written as 1\.234,5, NaN where missing; got '12\.34'"
    with pytest.raises(ExportError, match=message):
        to_input("c", "numeric", np.array(["1.234", "12.34"]), "1.234,5")
    with pytest.raises(ExportError, match="column c must hold booleans"):
        to_input("c", "boolean", np.array(["yes", "0.5"]))


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, 0]),
        np.array([True, False]),
        pd.Series([1, 0], dtype="Int64"),
        pd.Series([True, False], dtype="boolean"),
        np.array([1, 0], dtype=object),
    ],
)
def test_numbers_and_booleans_are_doubles(values: Any) -> None:
    for kind in ("numeric", "boolean"):
        found = to_input("c", kind, values)
        assert found.dtype == np.float64 and found.tolist() == [1, 0]


def test_booleans_may_be_written_in_words() -> None:
    for words in (["yes", "NO", ""], ["True", "false", None], ["1", "0", ""], [" yes ", "0.0", "NA"]):
        np.testing.assert_array_equal(to_input("c", "boolean", np.array(words, dtype=object)), [1, 0, np.nan])
    with pytest.raises(ExportError, match="column c must hold booleans"):
        to_input("c", "boolean", np.array(["perhaps"]))


def test_missing_numbers_are_nan() -> None:
    for values in (
        np.array([1.5, None], dtype=object),
        pd.Series([1.5, None], dtype="Float64"),
        np.array([1.5, np.nan]),
    ):
        np.testing.assert_array_equal(to_input("c", "numeric", values), [1.5, np.nan])


@pytest.mark.parametrize(
    "values",
    [
        np.array(["2024-02-29T12:00:00Z", "2024-02-29", "", None], dtype=object),
        np.array(["2024-02-29T12:00", "2024-02-29", "NaT", "NaT"], dtype="datetime64[s]"),
        pd.Series(pd.to_datetime(["2024-02-29T12:00", "2024-02-29T00:00", None, None])),
        pd.Series(pd.to_datetime(["2024-02-29T13:00+01:00", "2024-02-29T01:00+01:00", None, None])),
        np.array([NOON, NOON - 43_200, np.nan, np.nan]),
    ],
)
def test_dates_are_texts_or_datetimes_or_seconds(values: Any) -> None:
    np.testing.assert_array_equal(to_input("c", "date", values), [NOON, NOON - 43_200, np.nan, np.nan])


def test_what_is_of_another_kind_is_refused_by_the_name_of_the_column() -> None:
    for kind, values, message in (
        ("numeric", np.array(["x"]), "must hold numbers or booleans"),
        ("numeric", np.array(["2024-01-01"], dtype="datetime64[s]"), "must hold numbers or booleans"),
        ("numeric", np.array([1.0, np.inf]), "must hold finite values; row 2 is infinite"),
        ("date", np.array(["tomorrow"]), "must hold dates"),
        ("numeric", np.zeros((3, 1)), r"must have one dimension; got shape \(3, 1\)"),
    ):
        with pytest.raises(ExportError, match=f"column c {message}"):
            to_input("c", kind, values)


def test_no_rows_are_taken() -> None:
    for kind in ("numeric", "date", "categorical"):
        assert to_input("c", kind, np.zeros(0)).shape == (0,)


def test_dates_in_texts_may_be_as_the_table_had_them() -> None:
    texts = np.array(["29.2.2024", "2024-02-29", " ", None, pd.Timestamp("2024-02-29", tz="UTC")], dtype=object)
    found = to_input("c", "date", texts, "day/month/year")
    np.testing.assert_array_equal(found, [1709164800, 1709164800, np.nan, np.nan, 1709164800])


@pytest.mark.parametrize("value", ["now", "2/29/2024", "2024-02-30", 5])
def test_what_is_no_date_beside_texts_is_refused(value: object) -> None:
    with pytest.raises(ExportError, match=r"column c must hold dates .*or written as day/month/year"):
        to_input("c", "date", np.array(["29.2.2024", value], dtype=object), "day/month/year")
