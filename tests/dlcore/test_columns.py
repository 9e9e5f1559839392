import numpy as np
import pytest

from dlcore.columns import Column, Features
from dlcore.errors import DataError

CITIES = Column("city", "categorical", np.array([1, -1, 0, 1], dtype=np.int32), ("Oslo", "Rome"))
AGES = Column("age", "numeric", np.array([3.0, np.nan, 5.0, 7.0]))


def test_a_column_knows_its_texts_and_its_holes() -> None:
    assert CITIES.texts().tolist() == ["Rome", "", "Oslo", "Rome"]
    assert CITIES.is_missing.tolist() == AGES.is_missing.tolist() == [False, True, False, False]


def test_rows_are_taken_from_every_column_and_categories_stay() -> None:
    features = Features((AGES, CITIES))
    for rows in (np.array([3, 0]), np.array([True, False, False, True])):
        taken = features.take(rows)
        assert len(taken) == 2 and taken.names == ("age", "city")
        assert sorted(taken.columns[0].values.tolist()) == [3, 7]
        assert (
            taken.columns[1].texts().tolist() == ["Rome", "Rome"] and taken.columns[1].categories == CITIES.categories
        )


def test_numbers_come_back_as_they_were_given() -> None:
    x = np.array([[1.0, np.nan], [2.0, 4.0]])
    features = Features.from_numbers(("a", "b"), x)
    np.testing.assert_array_equal(features.numbers(), x)
    assert [column.kind for column in features.columns] == ["numeric", "numeric"]
    with pytest.raises(DataError, match="all features must be numbers; text is in 'city'"):
        Features((AGES, CITIES)).numbers()


def test_columns_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(DataError, match="must have a feature beside its target"):
        Features(())
    with pytest.raises(DataError, match=r"equally long; got lengths \[2, 4\]"):
        Features((AGES, CITIES.take(np.array([0, 1]))))
