import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dlcore.columns import Features
from dlcore.config import TARGET_TRANSFORMS, PreprocessConfig
from dlcore.errors import DataError
from dlcore.preprocess import fit_preprocessor
from dlcore.target_scaling import TargetTransform, fit_target_transform
from dlcore.tasks import Task

positive = arrays(np.float64, st.tuples(st.integers(2, 30), st.just(2)), elements=st.integers(0, 10**6).map(float))


@settings(max_examples=100, deadline=None)
@given(positive, positive, st.sampled_from(["log", "quantile_normal"]))
def test_targets_come_back_beyond_the_range_of_train_too(y: np.ndarray, later: np.ndarray, name: str) -> None:
    transform = fit_target_transform(name, y)
    assert transform is not None
    later = later + 1  # where train has no zeros, a zero has no logarithm
    if name == "quantile_normal" and any(len(np.unique(column)) < 2 for column in y.T):
        return  # a constant target is refused before it is transformed
    np.testing.assert_allclose(transform.inverse(transform.forward(y), is_prediction=True), y, rtol=1e-9, atol=1e-6)
    back = transform.inverse(transform.forward(later), is_prediction=False)
    np.testing.assert_allclose(back, later, rtol=1e-6, atol=1e-4)
    stored = TargetTransform.from_dict(json.loads(json.dumps(transform.to_dict())))
    assert stored == transform


def test_predictions_stay_in_the_range_of_train() -> None:
    y = np.array([[1.0], [10.0], [1000.0]])
    for name in ("log", "quantile_normal"):
        transform = fit_target_transform(name, y)
        assert transform is not None
        wild = np.array([[-1e9], [1e9]])
        np.testing.assert_allclose(transform.inverse(wild, is_prediction=True), [[1.0], [1000.0]])


def test_a_price_becomes_even_by_its_logarithm_and_normal_by_its_rank() -> None:
    y = np.random.default_rng(0).lognormal(10, 2, (5000, 1))
    x = Features.from_numbers(("a",), np.zeros((5000, 1)) + np.arange(5000)[:, None])
    for name in TARGET_TRANSFORMS:
        fitted = fit_preprocessor(x, y, "regression", PreprocessConfig(target_transform=name))
        scaled = fitted.scale_target(y)
        assert abs(scaled.mean()) < 1e-9 and scaled.std() == pytest.approx(1)
        assert (abs(np.median(scaled)) < 0.05) == (name != "none")


@pytest.mark.parametrize("name", TARGET_TRANSFORMS)
def test_a_task_restores_targets_as_the_preprocessor_does(name: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.lognormal(3, 1, (200, 2))
    x = Features.from_numbers(("a",), rng.normal(size=(200, 1)))
    fitted = fit_preprocessor(x, y, "regression", PreprocessConfig(target_transform=name))
    task = Task("regression", 2, fitted.target_mean, fitted.target_scale, fitted.target_transform)
    outputs = rng.normal(size=(3, 50, 2)) * 3
    found = task.predict(torch.from_numpy(outputs)).numpy()
    for member in range(3):
        expected = fitted.unscale_target(outputs[member], is_prediction=True)
        np.testing.assert_allclose(found[member], expected, rtol=1e-9)
    # A metric is measured in the targets' own unit, whatever was done to them.
    later = rng.lognormal(3, 2, (50, 2))  # beyond the range of train
    targets = torch.from_numpy(fitted.scale_target(later))
    mae = task.metric("mae", torch.from_numpy(outputs[0]), targets)
    assert mae.item() == pytest.approx(np.abs(found[0] - later).mean(), rel=1e-6)


def test_zeros_have_a_logarithm_and_negative_targets_are_refused() -> None:
    transform = fit_target_transform("log", np.array([[0.0], [9.0]]))
    assert transform is not None and transform.offsets == (1.0,)
    with pytest.raises(DataError, match=r'"log" needs targets >= 0; train has -1: take "quantile_normal"'):
        fit_target_transform("log", np.array([[-1.0], [9.0]]))
    assert fit_target_transform("none", np.zeros((3, 1))) is None
