import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from dlcore.columns import Column, Features
from dlcore.config import SCALINGS, TARGET_TRANSFORMS, PreprocessConfig
from dlcore.errors import DataError
from dlcore.preprocess import Preprocessor, fit_preprocessor
from tests.dlcore.column_tools import LABELS, of_all_kinds, splits_of_all_kinds, texts, with_unseen

tables = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.integers(-(10**9), 10**9).map(lambda n: n / 1000) | st.sampled_from([np.nan, 3.0, 0.1, 1e12]),
)


def columns(x: np.ndarray) -> Features:
    return Features.from_numbers([f"c{i}" for i in range(x.shape[1])], x)


@settings(max_examples=60, deadline=None)
@given(tables)
def test_numbers_become_what_scikit_learn_makes_of_them(x: np.ndarray) -> None:
    imputed = SimpleImputer(strategy="median").fit_transform(np.where(np.isnan(x).all(0), 0.0, x))
    scaler = StandardScaler().fit(imputed)
    fitted = fit_preprocessor(columns(x), np.zeros(len(x)), "binary", PreprocessConfig(missing_indicators=False))
    transformed = fitted.transform(columns(x))
    spread = np.abs(imputed - scaler.mean_).max(0) / scaler.scale_
    error = 1e-9 * np.abs(imputed).max(0) / scaler.scale_ + 1e-6 * spread
    assert (np.abs(transformed - scaler.transform(imputed)) <= error).all()


def test_missing_values_become_the_median_of_the_training_rows_and_a_mark() -> None:
    train = np.array([[1.0, np.nan], [2.0, np.nan], [9.0, np.nan], [np.nan, np.nan]])
    fitted = fit_preprocessor(columns(train), np.zeros(4), "binary")
    assert fitted.output_names == ("c0", "c0 is missing", "c1")  # always missing: the mark would be constant
    scale = np.std([1, 2, 9, 2])
    later = fitted.transform(columns(np.array([[np.nan, np.nan], [3.5, 7.0]])))
    np.testing.assert_allclose(later, [[(2.0 - 3.5) / scale, 1.0, 0.0], [0.0, 0.0, 7.0]])


def test_regression_targets_are_standardised_and_come_back() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(40, 2)) * [3.0, 1e5] + [10.0, -1e6]
    fitted = fit_preprocessor(columns(rng.normal(size=(40, 3))), y, "regression")
    scaled = fitted.scale_target(y)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.std(0), 1)
    np.testing.assert_allclose(fitted.unscale_target(scaled), y)
    assert fit_preprocessor(columns(y), y[:, 0] > 10, "binary").target_mean == ()


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("task", LABELS)
def test_every_kind_of_column_becomes_finite_numbers_and_json_gives_the_same_back(task: str, scaling: str) -> None:
    for transform in TARGET_TRANSFORMS if task == "regression" else ("none",):
        splits = splits_of_all_kinds(task, PreprocessConfig(scaling, target_transform=transform))
        fitted = splits.preprocessor
        assert Preprocessor.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted
        assert len(set(fitted.output_names)) == len(fitted.output_names) == fitted.n_outputs == sum(fitted.widths)
        for features in (splits.val.x, with_unseen(splits.val.x)):
            assert np.isfinite(fitted.transform(features)).all()
        assert np.isfinite(fitted.transform_training(splits.train.x, splits.train.y)).all()


def test_fitting_and_transforming_leave_the_rows_as_they_were() -> None:
    features, before = of_all_kinds(60), of_all_kinds(60)
    fit_preprocessor(features, np.arange(60) % 2, "binary").transform(features)
    for column, kept in zip(features.columns, before.columns, strict=True):
        np.testing.assert_array_equal(column.values, kept.values)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_what_is_fitted_knows_nothing_of_the_other_rows(scaling: str) -> None:
    """Texts of all rows stand in a column's categories: those that train lacks must change nothing."""
    features, y = of_all_kinds(300), np.arange(300) % 3
    config = PreprocessConfig(scaling)
    fitted = fit_preprocessor(features, y, "multiclass", config)
    renumbered = []
    for column in features.columns:
        if column.kind == "categorical":
            more = tuple(sorted((*column.categories, "", "!", "Zürich", "~")))[1:]
            codes = np.array([*(more.index(text) for text in column.categories), -1], dtype=np.int32)
            column = replace(column, values=codes[column.values], categories=more)
        renumbered.append(column)
    again = fit_preprocessor(Features(tuple(renumbered)), y, "multiclass", config)
    assert again == fitted
    np.testing.assert_array_equal(
        again.transform_training(Features(tuple(renumbered)), y), fitted.transform_training(features, y)
    )


def test_training_rows_are_encoded_as_any_rows_except_by_the_targets_of_others() -> None:
    features, y = of_all_kinds(300), np.arange(300) % 2
    fitted = fit_preprocessor(features, y, "binary")
    differs = (fitted.transform(features) != fitted.transform_training(features, y)).any(0)
    names = [name for name, is_different in zip(fitted.output_names, differs, strict=True) if is_different]
    assert set(names) <= {"zip: share of class 1"}


def test_classes_are_encoded_by_the_share_of_each() -> None:
    rng = np.random.default_rng(0)
    codes, n = rng.integers(0, 100, 2000), 2000
    column = Column("zip", "categorical", codes.astype(np.int32), tuple(f"{i:03}" for i in range(100)))
    y = np.where(rng.random(n) < 0.8, codes % 3, rng.integers(0, 3, n))
    fitted = fit_preprocessor(Features((column,)), y, "multiclass")
    assert fitted.output_names == (*(f"zip: share of class {i}" for i in range(3)), "zip: how common")
    encoded = fitted.transform(Features((column,)))
    assert (encoded[:, :3].argmax(1) == codes % 3).mean() > 0.95


def test_other_columns_than_those_of_train_are_refused() -> None:
    fitted = fit_preprocessor(columns(np.zeros((4, 2))), np.zeros(4), "binary")
    with pytest.raises(DataError, match=r"must be the columns \('c0', 'c1'\); got \('c0', 'c1', 'c2'\)"):
        fitted.transform(columns(np.zeros((4, 3))))
    with pytest.raises(DataError, match="column 'c1' must be numeric; it is categorical"):
        fitted.transform(Features((columns(np.zeros((1, 1))).columns[0], texts("c1", ["a"]))))


def test_features_without_any_value_in_train_are_refused() -> None:
    with pytest.raises(DataError, match="a feature must have a value in train"):
        fit_preprocessor(Features((texts("c", ["", ""]),)), np.arange(2), "binary")


def test_stored_preprocessing_that_is_not_whole_is_refused() -> None:
    stored = fit_preprocessor(of_all_kinds(30), np.arange(30) % 2, "binary").to_dict()
    with pytest.raises(DataError, match="encoders missing"):
        Preprocessor.from_dict({name: part for name, part in stored.items() if name != "encoders"})
    for wrong in ([{}], [{"form": "magic"}], [1], None, [{"form": "number", "name": "a"}]):
        with pytest.raises(DataError, match="must be as it was written"):
            Preprocessor.from_dict({**stored, "encoders": wrong})
