from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcore.columns import Finding
from dlcore.config import DataConfig, SplitConfig
from dlcore.dividing import Division, assign_groups, divide_rows
from dlcore.errors import DataError
from dlcore.roles import Divider
from dlcore.splitting import split_rows

SHOWN = Finding("g", "group", "", 0, 2, "")


def divide(
    by: str | None, values: np.ndarray, classes: np.ndarray | None = None, folds: int | None = None, seed: int = 0
) -> Division:
    config = DataConfig(source="sklearn:wine", split=SplitConfig(**({by: "g"} if by else {}), folds=folds))
    divider = None if by is None else Divider("g", by, values, SHOWN)
    return divide_rows(len(values), classes, divider, config, seed)


def parts(division: Division) -> list[np.ndarray]:
    return [division.train, division.val, division.test]


def test_without_anything_said_rows_are_divided_as_before() -> None:
    classes = np.arange(100) % 3
    found, before = divide(None, classes, classes), split_rows(100, classes, 0.2, 0.2, 0)
    for one, two in zip(parts(found), (before.train, before.val, before.test), strict=True):
        np.testing.assert_array_equal(one, two)
    assert found.folds == () and found.notes == () and found.is_stratified


def test_a_column_says_where_each_row_belongs() -> None:
    said = np.array([0, 1, 2, 0, 2, 1, 0, 0])
    found = divide("column", said)
    assert [rows.tolist() for rows in parts(found)] == [[0, 3, 6, 7], [1, 5], [2, 4]]
    assert found.notes == ("column 'g' says which rows are train, val and test",)


def test_without_val_in_the_column_it_is_cut_from_train_class_by_class() -> None:
    said, classes = np.repeat([0, 2], [100, 30]), np.arange(130) % 4
    found = divide("column", said, classes)
    assert found.test.tolist() == list(range(100, 130)) and len(found.val) == 20
    assert np.bincount(classes[found.val]).tolist() == [5] * 4 and found.is_stratified
    assert found.notes == ("column 'g' says which rows are test; val is 20 of the 100 others",)
    assert divide("column", said, classes, seed=1).val.tolist() != found.val.tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=6, max_size=60), st.integers(0, 9), st.booleans())
def test_a_group_is_never_torn_apart(raw: list[int], seed: int, has_classes: bool) -> None:
    groups = np.unique(raw, return_inverse=True)[1].astype(np.int64)
    classes = np.arange(len(groups)) % 2 if has_classes else None
    if groups.max() < 2:
        with pytest.raises(DataError, match=r"must be of at least 3 groups; there are [12]"):
            divide("group", groups, classes, seed=seed)
        return
    found = divide("group", groups, classes, seed=seed)
    assert sorted(np.concatenate(parts(found)).tolist()) == list(range(len(groups)))
    assert all(len(rows) for rows in parts(found))
    seen = [set(groups[rows].tolist()) for rows in parts(found)]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


def test_groups_come_near_their_shares_of_rows_and_of_classes() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), rng.integers(1, 20, 300))
    classes = (rng.random(len(groups)) < 0.1).astype(np.int64)
    found = divide("group", groups, classes)
    for rows, share in zip(parts(found), (0.6, 0.2, 0.2), strict=True):
        assert len(rows) / len(groups) == pytest.approx(share, abs=0.01)
        assert classes[rows].mean() == pytest.approx(classes.mean(), abs=0.01)
    assert divide("group", groups, classes, seed=1).test.tolist() != found.test.tolist()
    np.testing.assert_array_equal(
        assign_groups(groups, classes, (0.5, 0.5), 3), assign_groups(groups, classes, (0.5, 0.5), 3)
    )


def test_the_latest_rows_are_test_and_those_before_them_val() -> None:
    times = np.random.default_rng(0).permutation(100).astype(np.float64)
    found = divide("time", times)
    assert [len(rows) for rows in parts(found)] == [60, 20, 20]
    assert times[found.train].max() < times[found.val].min() <= times[found.val].max() < times[found.test].min()


def test_rows_of_one_moment_stay_together() -> None:
    times = np.repeat(np.arange(10.0), 7)
    found = divide("time", times)
    for one, two in ((found.train, found.val), (found.val, found.test)):
        assert times[one].max() < times[two].min()
    with pytest.raises(DataError, match="'g' must have enough different values"):
        divide("time", np.repeat([1.0, 2.0], 50))


def by_group(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 30, 200)


def by_column(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 3, 200)


@pytest.mark.parametrize(("by", "values"), [(None, by_column), ("group", by_group), ("column", by_column)])
@pytest.mark.parametrize("has_classes", [True, False])
def test_folds_cover_the_rows_that_are_not_test_once(
    by: str | None, values: Callable[[np.random.Generator], np.ndarray], has_classes: bool
) -> None:
    rng = np.random.default_rng(0)
    said, classes = values(rng), rng.integers(0, 3, 200) if has_classes else None
    whole, found = divide(by, said, classes), divide(by, said, classes, folds=5)
    np.testing.assert_array_equal(found.test, whole.test)
    rows = np.concatenate([found.train, found.val])
    assert sorted(rows.tolist()) == sorted([*whole.train.tolist(), *whole.val.tolist()])
    assert len(found.folds) == 5
    assert sorted(np.concatenate([val for _, val in found.folds]).tolist()) == list(range(len(rows)))
    for train, val in found.folds:
        assert not set(train.tolist()) & set(val.tolist()) and len(train) + len(val) == len(rows)
        assert len(val) == pytest.approx(len(rows) / 5, abs=1 if by != "group" else 8)
        if by == "group":
            assert not set(said[rows[train]].tolist()) & set(said[rows[val]].tolist())
        elif classes is not None:
            counts = np.bincount(classes[rows[val]], minlength=3) * 5
            assert np.abs(counts - np.bincount(classes[rows])).max() <= 5
    first_train, first_val = found.folds[0]
    np.testing.assert_array_equal(first_train, np.arange(len(found.train)))
    np.testing.assert_array_equal(first_val, np.arange(len(found.val)) + len(found.train))
    assert "5 folds of the" in found.notes[-1]


def test_a_class_that_some_fold_lacks_is_said() -> None:
    classes = np.array([0] * 60 + [1] * 4)
    assert not divide(None, classes, classes, folds=10).is_stratified
    with pytest.raises(DataError, match="100 folds must each have a row; only"):
        divide(None, classes, classes, folds=100)
    with pytest.raises(DataError, match=r"6 folds must each have a group; only [345] are not test"):
        divide("group", np.arange(64) % 6, None, folds=6)
