"""Cells by whole columns of pyarrow, and one by one: both mean the same, and what training would have read."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcore.cells import meaning, number_of
from dlcore.rowvalues import RowReader, one_by_one, plain_numbers
from dlcore.tables import read_features

NUMBERS = ["1", "1.5", " 2 ", "-3e5", "+4", "1e400", "nan", "NaN", "-nan", "nan(ind)", "", "NA", "?", "1_0", "x", "inf"]


@given(st.lists(st.one_of(st.sampled_from(NUMBERS), st.floats().map(repr), st.text(max_size=3)), max_size=8))
def test_numbers_of_a_whole_column_are_those_of_its_cells(texts: list[str]) -> None:
    column = pa.array(texts, pa.string())
    fast = plain_numbers(column)
    values, is_bad = one_by_one(column, number_of)
    if fast is not None:
        np.testing.assert_array_equal(np.where(np.isinf(fast), np.nan, fast), np.where(is_bad, np.nan, values))
        np.testing.assert_array_equal(np.isinf(fast), is_bad)


CASES = {
    "plain": ("a,b\n1.5,x\n-2,y\n,\n", "numeric", ""),
    "decimal commas that training did not see": ("a;b\n1,5;x\n2;y\n", "numeric", ""),
    "decimal commas": ("a;b\n1.234,5;x\n2;y\n", "numeric", "1.234,5"),
    "thousands": ("a;b\n1 234.5;x\n2;NA\n", "numeric", "1 234.5"),
    "the day first": ("a,b\n3/4/2024,x\n,y\n", "date", "day/month/year"),
    "a day that says it": ("a,b\n3/4/2024,x\n13/2/2024,y\n", "date", ""),
    "a month that says it": ("a,b\n3/4/2024,x\n2/13/2024,y\n", "date", ""),
    "truth": ("a,b\nYes,x\nno,y\n?,y\n", "boolean", ""),
    "ones": ("a,b\n1,x\n0,y\n,y\n", "boolean", ""),
    "codes": ("a,b\n007, x\nNone,y\n", "categorical", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_are_read_as_a_whole_table_is(case, tmp_path):
    text, kind, form = CASES[case]
    (tmp_path / "t.csv").write_text(text)
    kinds, forms = {"a": kind, "b": "categorical"}, {"a": form, "b": ""}
    expected = [column.raw() for column in read_features(str(tmp_path / "t.csv"), kinds, forms).columns]
    separator = text[1]
    columns = zip(*(line.split(separator) for line in text.splitlines()[1:]), strict=True)
    cells = dict(zip(kinds, (pa.array(column) for column in columns), strict=True))
    inputs, faults = RowReader(kinds, forms, separator).learn(cells).read(cells)
    assert faults == []
    for name, values in zip(kinds, expected, strict=True):
        np.testing.assert_array_equal(inputs[name], values)


def test_a_cell_that_cannot_be_used_is_named():
    reader = RowReader({"a": "numeric", "b": "boolean"}, {"a": "", "b": ""})
    cells = {"a": pa.array(["1", "many", "inf"]), "b": pa.array(["yes", "2", ""])}
    inputs, faults = reader.read(cells)
    np.testing.assert_array_equal(inputs["a"], [1, np.nan, np.nan])
    assert [(fault.row, fault.found) for fault in faults] == [(1, "has 'many'"), (2, "has 'inf'"), (1, "has '2'")]


def test_numbers_with_decimal_commas_are_read_as_the_training_read_them():
    value = meaning("numeric", "1.234,5")
    assert [value(text) for text in (",5", "1,5e3", "1.234,5", "1.5", "1,2,3")] == [0.5, 1500.0, 1234.5, None, None]


def test_whole_numbers_of_parquet_that_are_categories_keep_all_their_digits():
    inputs, _ = RowReader({"id": "categorical"}, {"id": ""}).read({"id": pa.array([2**60 + 1, None, 7])})
    assert inputs["id"].tolist() == [str(2**60 + 1), "", "7"]
