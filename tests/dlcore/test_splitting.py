import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcore.errors import DataError
from dlcore.splitting import RowSplit, split_rows


def parts(split: RowSplit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return split.train, split.val, split.test


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=4, max_size=60),
    st.floats(0.01, 0.9),
    st.floats(0.01, 0.9),
    st.integers(0, 2**63 - 1),
    st.booleans(),
)
def test_every_row_is_in_exactly_one_split_and_every_class_in_train(
    raw: list[int], val: float, test: float, seed: int, has_classes: bool
) -> None:
    classes = np.unique(raw, return_inverse=True)[1].astype(np.int64)
    n = len(classes)
    n_val, n_test = int(n * val + 0.5), int(n * test + 0.5)
    if min(n_val, n_test, n - n_val - n_test) < 1:
        with pytest.raises(DataError, match=rf"must each have a row; {n} rows give"):
            split_rows(n, classes, val, test, seed)
        return
    split = split_rows(n, classes if has_classes else None, val, test, seed)
    assert sorted(np.concatenate(parts(split)).tolist()) == list(range(n))
    assert [len(part) for part in parts(split)] == [n - n_val - n_test, n_val, n_test]
    assert all((np.diff(part) > 0).all() for part in parts(split))
    n_classes = len(np.unique(classes))
    if has_classes and len(split.train) >= n_classes:
        assert len(np.unique(classes[split.train])) == n_classes


def test_classes_have_their_shares_in_every_split() -> None:
    classes = np.repeat([0, 1, 2], [500, 300, 200])
    split = split_rows(1000, classes, 0.2, 0.3, 7)
    assert split.is_stratified
    shares = [np.bincount(classes[part]).tolist() for part in parts(split)]
    assert shares == [[250, 150, 100], [100, 60, 40], [150, 90, 60]]


@pytest.mark.parametrize("classes", [None, np.arange(100) % 2])
def test_the_seed_decides(classes: np.ndarray | None) -> None:
    first, again, other = (split_rows(100, classes, 0.2, 0.2, seed) for seed in (1, 1, 2))
    for one, two in zip(parts(first), parts(again), strict=True):
        np.testing.assert_array_equal(one, two)
    assert first.test.tolist() != other.test.tolist()


@pytest.mark.parametrize("n_rare", [1, 2])
def test_a_class_too_rare_to_split_is_kept_in_train(n_rare: int) -> None:
    classes = np.array([1] * n_rare + [0] * 40)
    for seed in range(20):
        split = split_rows(len(classes), classes, 0.2, 0.2, seed)
        assert not split.is_stratified
        assert 1 in classes[split.train]


def test_more_classes_than_rows_of_val_are_split_at_random() -> None:
    split = split_rows(20, np.arange(20) % 5, 0.1, 0.2, 0)
    assert not split.is_stratified and len(split.val) == 2


def test_regression_is_never_called_stratified() -> None:
    assert not split_rows(100, None, 0.2, 0.2, 0).is_stratified


@pytest.mark.parametrize("has_classes", [True, False])
def test_without_a_test_every_row_is_train_or_val(has_classes: bool) -> None:
    classes = np.repeat(np.arange(3), 10)
    split = split_rows(30, classes if has_classes else None, 0.2, 0.0, 7)
    assert split.test.shape == (0,) and split.test.dtype == np.int64
    assert sorted(np.concatenate(parts(split)).tolist()) == list(range(30)) and len(split.val) == 6
    assert not has_classes or np.bincount(classes[split.val]).tolist() == [2, 2, 2]
    assert split.is_stratified
    two = split_rows(2, None, 0.2, 0.0, 7)
    assert (len(two.train), len(two.val)) == (1, 1)
    with pytest.raises(DataError, match="1 rows give"):
        split_rows(1, None, 0.2, 0.0, 7)
