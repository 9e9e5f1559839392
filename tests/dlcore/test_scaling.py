import json
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import StandardScaler

from dlcore.config import SCALINGS
from dlcore.scaling import (
    MAX_KNOTS,
    SCALERS,
    SOFT_LIMIT,
    fit_quantile_normal,
    fit_robust,
    fit_scaler,
    fit_standard,
    median,
    scaler_from_dict,
    scaler_to_dict,
)

numbers = (
    st.integers(-(10**9), 10**9).map(lambda n: n / 1000)
    | st.sampled_from([0.0, 3.0, 0.1, 1e12, -1e-310])
    | st.floats(allow_nan=False, allow_infinity=False)
)
columns = arrays(np.float64, st.integers(1, 40), elements=numbers)


def test_every_scaling_has_its_class() -> None:
    assert tuple(SCALERS) == SCALINGS


@settings(max_examples=300, deadline=None)
@given(columns, st.sampled_from(SCALINGS))
def test_training_values_stay_finite_and_in_order_and_json_gives_the_scaler_back(x: np.ndarray, name: str) -> None:
    scaler = fit_scaler(name, x)
    with np.errstate(over="ignore"):  # the difference of two values near 1e308; the table is refused for it later
        scaled = scaler.apply(x)
    if name != "standard" or np.abs(x).max() < 1e300:
        assert np.isfinite(scaled).all()
    assert (np.diff(scaled[np.argsort(x, kind="stable")]) >= -1e-9).all()
    assert scaler_from_dict(json.loads(json.dumps(scaler_to_dict(scaler)))) == scaler


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.integers(1, 40), elements=st.integers(-(10**9), 10**9).map(lambda n: n / 1000)))
def test_standard_is_what_scikit_learn_makes(x: np.ndarray) -> None:
    scaler, fitted = StandardScaler().fit(x[:, np.newaxis]), fit_standard(x)
    assert fitted.mean == pytest.approx(scaler.mean_[0], rel=1e-9, abs=1e-9 * np.abs(x).max())
    assert fitted.scale == pytest.approx(scaler.scale_[0], rel=1e-6)


def test_values_near_the_end_of_float64_are_scaled_without_overflow() -> None:
    x = np.array([1e308, -1e308, 5e307, 1.5e308])
    for name in SCALINGS:
        scaled = fit_scaler(name, x).apply(x / 4)
        assert np.isfinite(scaled).all() and scaled.std() > 0
    assert median(x) == 7.5e307


def test_equal_values_become_zero_whatever_the_scaling() -> None:
    for name in SCALINGS:
        scaler = fit_scaler(name, np.full(7, 0.1))
        np.testing.assert_allclose(scaler.apply(np.full(2, 0.1)), 0.0, atol=1e-16)
        assert np.isfinite(scaler.apply(np.array([-1e308, 5.0, 1e308]))).all()


def test_robust_is_the_distance_from_the_median_in_quartiles_softly_clipped() -> None:
    x = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 1e9])
    fitted = fit_robust(x)
    assert (fitted.median, fitted.scale) == (2.5, 2.5)
    z = (np.array([2.5, 5.0, -5.0]) - 2.5) / 2.5
    np.testing.assert_allclose(fitted.apply(np.array([2.5, 5.0, -5.0])), z / np.sqrt(1 + (z / 3) ** 2))
    assert 2.99 < fitted.apply(x)[-1] <= SOFT_LIMIT
    assert fit_robust(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 10.0])).scale == 5.0  # no quartiles: half the range


def test_quantile_normal_gives_each_value_the_normal_quantile_of_its_rank() -> None:
    x = np.random.default_rng(0).permutation(np.exp(np.arange(9.0)))
    fitted = fit_quantile_normal(x)
    expected = [NormalDist().inv_cdf((rank + 0.5) / 9) for rank in np.argsort(np.argsort(x))]
    np.testing.assert_allclose(fitted.apply(x), expected)
    between = fitted.apply(np.array([(1 + np.e) / 2]))
    np.testing.assert_allclose(between, (fitted.levels[0] + fitted.levels[1]) / 2)
    np.testing.assert_array_equal(fitted.apply(np.array([-1e9, 1e9])), [fitted.levels[0], fitted.levels[-1]])


def test_many_values_keep_a_bounded_number_of_knots_and_become_normal() -> None:
    x = np.random.default_rng(0).lognormal(0, 3, 100_000)
    fitted = fit_quantile_normal(x)
    assert len(fitted.knots) <= MAX_KNOTS and fitted.knots[0] == x.min() and fitted.knots[-1] == x.max()
    scaled = fitted.apply(x)
    assert abs(scaled.mean()) < 0.01 and scaled.std() == pytest.approx(1, abs=0.01)
    assert np.abs(np.quantile(scaled, [0.1, 0.5, 0.9]) - [-1.2816, 0, 1.2816]).max() < 0.01


@settings(max_examples=100, deadline=None)
@given(columns, columns)
def test_the_curve_is_what_numpy_interpolates(x: np.ndarray, later: np.ndarray) -> None:
    # Between knots that are hardly apart numpy's own slope overflows.
    x, later = (np.where(np.abs(v) < 1e-290, 0.0, np.clip(v, -1e100, 1e100)) for v in (x, later))
    fitted = fit_quantile_normal(x)
    expected = np.interp(later, fitted.knots, fitted.levels)
    np.testing.assert_allclose(fitted.apply(later), expected, atol=1e-6)


def test_the_median_of_nothing_is_zero() -> None:
    assert median(np.array([np.nan])) == 0.0
    assert median(np.array([np.nan, 5.0, 1.0])) == 3.0
