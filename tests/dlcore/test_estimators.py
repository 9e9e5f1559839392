"""One network as scikit-learn's estimators: all of its own checks, and a process that has neither Optuna nor MLflow."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_diabetes, load_iris
from sklearn.utils.estimator_checks import parametrize_with_checks

from dlcore.errors import ConfigError
from dlcore.estimators import NetworkClassifier, NetworkRegressor
from dlcore.exported import ExportedModel
from dlcore.tabular import n_threads


@pytest.mark.filterwarnings("ignore")  # the checks have warnings of their own to say
@parametrize_with_checks([NetworkClassifier((16,), epochs=20), NetworkRegressor((16,), epochs=40)])
def test_every_check_of_scikit_learn_passes(estimator: BaseEstimator, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def test_a_network_learns_and_its_export_answers_as_it_does(tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = NetworkClassifier((16, 8), activation="tanh", epochs=60).fit(X, names)
    assert model.score(X, names) > 0.9 and len(model.curve_) >= model.best_epoch_ >= 1
    assert model.n_parameters_ == 4 * 16 + 16 + 16 * 8 + 8 + 8 * 3 + 3
    answers = ExportedModel.load(model.export(tmp_path / "iris")).predict({f"x{i}": X[:, i] for i in range(4)})
    assert (answers["label"] == model.predict(X)).all()
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict_proba(X) == model.predict_proba(X)).all()


def test_a_frame_may_have_dates() -> None:
    days = pd.date_range("2024-01-01", periods=120, freq="D")
    frame = pd.DataFrame({"day": days, "size": np.arange(120) % 11})
    y = np.where(days.month > 2, "late", "early")
    model = NetworkClassifier((8,), epochs=20).fit(frame, y)
    assert model.score(frame, y) > 0.9 and model.predict(frame.iloc[[0]]).tolist() == ["early"]


def test_equal_random_states_give_equal_networks() -> None:
    X, y = load_diabetes(return_X_y=True)
    first, second, other = (NetworkRegressor(epochs=5, random_state=seed).fit(X, y) for seed in (3, 3, 4))
    assert first.model_.files["weights.safetensors"] == second.model_.files["weights.safetensors"]
    assert first.model_.files["weights.safetensors"] != other.model_.files["weights.safetensors"]


def test_a_training_that_diverges_says_so() -> None:
    X, y = load_diabetes(return_X_y=True)
    with pytest.raises(ConfigError, match="lower learning_rate"):
        NetworkRegressor(learning_rate=1e6, momentum=0.0).fit(X, y)


@pytest.mark.parametrize(
    "names",
    [
        ["5%", "10%", "50%"],
        ["$5", "$10"],
        ["2,000", "10,000"],
        ["1,000", "1000"],
        ["2,5", "10,5"],
        ["$1", "$1.0"],
        ["9", "ten"],
        ["true", "false", "maybe"],
        ["none", "some"],
        ["a", " a"],
        ["a" * 300, "b"],
    ],
)
def test_classes_are_answered_as_y_has_them_whatever_a_table_would_take_them_for(names: list[str]) -> None:
    codes = np.arange(120) % len(names)
    y = np.array(names)[codes]
    X = codes[:, None] + np.random.default_rng(0).normal(0, 0.05, (120, 1))
    model = NetworkClassifier((16,), epochs=60, batch_size=16).fit(X, y)
    assert model.classes_.tolist() == sorted(names)
    rows = np.arange(len(names), dtype=np.float64)[:, None]
    assert model.predict(rows).tolist() == names
    assert model.classes_[model.predict_proba(rows).argmax(axis=1)].tolist() == names


@pytest.mark.parametrize("value", [1e60, -3.4e38])
@pytest.mark.parametrize("kind", [NetworkClassifier, NetworkRegressor])
def test_a_row_without_an_answer_is_named(kind: type[NetworkClassifier] | type[NetworkRegressor], value: float) -> None:
    X, y = load_iris(return_X_y=True)
    model = kind((8,), epochs=2).fit(X, y)
    X[[3, 5], 1] = value
    for answer in ("predict", "predict_proba"):
        if hasattr(model, answer):
            with pytest.raises(ValueError, match="row 4 must have numbers small enough"):
                getattr(model, answer)(X)
    assert len(model.predict(X[:3])) == 3


@pytest.mark.parametrize(("n_jobs", "n"), [(None, 1), (3, 3), (-1, 4), (-2, 3), (-9, 1)])
def test_n_jobs_are_threads(n_jobs: int | None, n: int) -> None:
    assert n_threads(n_jobs, 4) == n
    with pytest.raises(ConfigError, match="n_jobs must be"):
        n_threads(0, 4)


def test_it_needs_neither_optuna_nor_mlflow() -> None:
    code = (
        "import sys\nfor name in ('optuna', 'mlflow', 'sqlalchemy', 'pydantic', 'rich'):\n"
        "    sys.modules[name] = None\n"
        "from sklearn.datasets import load_iris\nfrom dlcore.estimators import NetworkClassifier\n"
        "X, y = load_iris(return_X_y=True)\nassert NetworkClassifier(epochs=3).fit(X, y).predict(X).shape == (150,)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
