import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights

from studies import parzen
from studies.parzen import log_density, log_mass

SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "momentum": FloatDistribution(0.0, 0.95),
    "width": IntDistribution(16, 256, log=True),
    "depth": IntDistribution(1, 4),
    "dropout": FloatDistribution(0.0, 0.5, step=0.1),
    "kind": CategoricalDistribution(("relu", "leaky", "tanh")),
}
KINDS = {
    "all": list(SPACE),
    "continuous": ["rate", "momentum"],
    "countable": ["width", "depth", "dropout"],
    "categorical": ["kind"],
}


def fitted(names: list[str], n: int, seed: int = 0) -> _ParzenEstimator:
    """Fitted to n trials, many of them alike."""
    rng = np.random.default_rng(seed)
    drawn = {
        "rate": 10 ** rng.uniform(-4, 0, n),
        "momentum": rng.uniform(0, 0.95, n),
        "width": rng.integers(16, 257, n).astype(float),
        "depth": rng.integers(1, 5, n).astype(float),
        "dropout": rng.integers(0, 6, n) * 0.1,
        "kind": rng.integers(0, 3, n).astype(float),
    }
    parameters = _ParzenEstimatorParameters(1.0, True, False, default_weights, True)
    return _ParzenEstimator({name: drawn[name] for name in names}, {name: SPACE[name] for name in names}, parameters)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 3, 40, 300])
def test_the_density_is_optunas(kind: str, n: int) -> None:
    estimator = fitted(KINDS[kind], n)
    points = estimator.sample(np.random.RandomState(1), 50)
    elsewhere = fitted(KINDS[kind], 60, seed=1).sample(np.random.RandomState(2), 50)

    for own in (points, elsewhere):
        np.testing.assert_allclose(log_density(estimator, own), estimator.log_pdf(own), rtol=1e-9, atol=1e-9)


def test_points_are_computed_in_parts_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = fitted(list(SPACE), 40)
    points = estimator.sample(np.random.RandomState(1), 100)
    whole = log_density(estimator, points)
    monkeypatch.setattr(parzen, "_POINTS_AT_ONCE", 7)

    np.testing.assert_allclose(log_density(estimator, points), whole, rtol=1e-12)


def test_the_mass_between_two_points_is_optunas_in_both_tails() -> None:
    a = np.concatenate([np.linspace(-40, 40, 161), np.linspace(-3, 3, 101)])
    for gap in (1e-3, 0.1, 2.0, 30.0):
        np.testing.assert_allclose(log_mass(a, a + gap), _truncnorm._log_gauss_mass(a, a + gap), rtol=1e-8, atol=1e-12)
