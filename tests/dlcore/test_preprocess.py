import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from dlcore.columns import Features
from dlcore.errors import DataError
from dlcore.preprocess import Preprocessor, fit_preprocessor

tables = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.integers(-(10**9), 10**9).map(lambda n: n / 1000) | st.sampled_from([np.nan, 3.0, 0.1, 1e12]),
)


def columns(x: np.ndarray) -> Features:
    return Features.from_numbers([f"c{i}" for i in range(x.shape[1])], x)


@settings(max_examples=60, deadline=None)
@given(tables)
def test_features_become_what_scikit_learn_makes_of_them(x: np.ndarray) -> None:
    imputed = SimpleImputer(strategy="median").fit_transform(np.where(np.isnan(x).all(0), 0.0, x))
    scaler = StandardScaler().fit(imputed)
    fitted = fit_preprocessor(columns(x), np.zeros(len(x)), "binary")
    np.testing.assert_allclose(fitted.mean, scaler.mean_, rtol=1e-9, atol=1e-9 * np.abs(imputed).max())
    np.testing.assert_allclose(fitted.scale, scaler.scale_, rtol=1e-6)
    assert np.isfinite(fitted.transform(columns(x))).all()


def test_missing_values_become_the_median_of_the_training_rows() -> None:
    train = np.array([[1.0, np.nan], [2.0, np.nan], [9.0, np.nan], [np.nan, np.nan]])
    fitted = fit_preprocessor(columns(train), np.zeros(4), "binary")
    assert fitted.fill == (2.0, 0.0)
    assert fitted.mean == (3.5, 0.0)
    assert fitted.scale[1] == 1.0
    later = fitted.transform(columns(np.array([[np.nan, np.nan], [3.5, 7.0]])))
    np.testing.assert_allclose(later, [[(2.0 - 3.5) / fitted.scale[0], 0.0], [0.0, 7.0]])


def test_a_constant_column_becomes_zeros_and_later_values_stay_finite() -> None:
    fitted = fit_preprocessor(columns(np.full((7, 1), 0.1)), np.zeros(7), "binary")
    assert fitted.scale == (1.0,)
    np.testing.assert_allclose(fitted.transform(columns(np.full((2, 1), 0.1))), 0.0, atol=1e-16)


def test_values_near_the_end_of_float64_are_standardised_without_overflow() -> None:
    x = np.array([[1e308], [-1e308], [5e307], [1.5e308]])
    fitted = fit_preprocessor(columns(x), np.zeros(4), "binary")
    assert fitted.fill == (7.5e307,)
    assert np.std(fitted.transform(columns(x / 4))) > 0
    assert np.isfinite(fitted.mean).all() and np.isfinite(fitted.scale).all()


def test_regression_targets_are_standardised_and_come_back() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(40, 2)) * [3.0, 1e5] + [10.0, -1e6]
    fitted = fit_preprocessor(columns(rng.normal(size=(40, 3))), y, "regression")
    scaled = fitted.scale_target(y)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled.std(0), 1)
    np.testing.assert_allclose(fitted.unscale_target(scaled), y)
    assert fit_preprocessor(columns(y), y[:, 0] > 10, "binary").target_mean == ()


def test_fitting_and_transforming_leave_the_rows_as_they_were() -> None:
    x = np.array([[1.0, np.nan], [2.0, 5.0]])
    before = x.copy()
    fit_preprocessor(columns(x), np.zeros(2), "binary").transform(columns(x))
    np.testing.assert_array_equal(x, before)


@settings(max_examples=30, deadline=None)
@given(tables)
def test_json_gives_the_same_preprocessor_back(x: np.ndarray) -> None:
    fitted = fit_preprocessor(columns(x), x[:, :1] * 0 + 1, "regression" if not np.isnan(x).any() else "binary")
    assert Preprocessor.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


def test_wrong_shapes_and_stored_numbers_are_refused() -> None:
    fitted = Preprocessor((0.0, 0.0), (0.0, 0.0), (1.0, 1.0))
    with pytest.raises(DataError, match=r"must have shape \(N, 2\); got \(4, 3\)"):
        fitted.transform(columns(np.zeros((4, 3))))
    with pytest.raises(DataError, match="mean missing"):
        Preprocessor.from_dict({name: v for name, v in fitted.to_dict().items() if name != "mean"})
