"""Whole studies as scikit-learn's estimators: all of its own checks, and what people do with them."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from optuna.trial import TrialState
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_iris, load_wine
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from studies.errors import SpecChanged, UserError
from studies.estimators import StudyClassifier, StudyRegressor
from studies.storage import Storage

SMALL = {"n_trials": 3, "epochs": 8, "final_seeds": 0}


@pytest.mark.filterwarnings("ignore")  # the checks have warnings of their own to say
@parametrize_with_checks(
    [
        StudyClassifier(n_trials=2, epochs=6, final_seeds=0),
        StudyRegressor(n_trials=2, epochs=12, final_seeds=0),
    ]
)
def test_every_check_of_scikit_learn_passes(estimator: BaseEstimator, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def mixed(n: int = 120) -> tuple[pd.DataFrame, np.ndarray]:
    """A table of every kind with holes, and classes that follow from it."""
    rng = np.random.default_rng(0)
    size = rng.normal(size=n)
    colour = rng.choice(["red", "green", "blue"], n).astype(object)
    y = np.where(size + (colour == "red") > 0.5, "10", "9")  # texts that a table would take for numbers
    size[::11], colour[::13] = np.nan, None
    frame = pd.DataFrame(
        {
            "size": size,
            "colour": colour,
            "day": [f"{1 + i % 28:02d}.03.2024" for i in range(n)],
            "is_new": rng.random(n) < 0.5,
            "shape": pd.Categorical(rng.choice(["round", "square"], n)),
        }
    )
    return frame, y


def test_a_frame_of_mixed_kinds_is_learned_and_answered_by_the_names_that_y_has() -> None:
    frame, y = mixed()
    model = StudyClassifier(n_trials=8, epochs=20, final_seeds=2).fit(frame, y)
    assert model.classes_.tolist() == ["10", "9"] and model.n_features_in_ == 5
    assert list(model.feature_names_in_) == list(frame.columns)
    assert model.score(frame, y) > 0.8
    probabilities = model.predict_proba(frame)
    assert probabilities.shape == (120, 2) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    assert (model.classes_[probabilities.argmax(axis=1)] == model.predict(frame)).all()
    unseen = frame.assign(colour="violet", size=np.nan)
    assert set(model.predict(unseen)) <= {"9", "10"}
    assert len(model.study_.trials) == 8 and set(model.best_params_) <= set(model.study_.trials[0].params)
    assert model.study_.trials[model.best_number_].state == TrialState.COMPLETE
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.drop(columns="size"))


def test_a_fitted_study_pickles_and_needs_no_file() -> None:
    X, y = load_iris(return_X_y=True)
    model = StudyClassifier(**SMALL).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict_proba(X) == model.predict_proba(X)).all()
    assert [t.params for t in again.study_.trials] == [t.params for t in model.study_.trials]


def test_equal_data_and_random_state_give_the_same_network_to_the_bit() -> None:
    X, y = load_wine(return_X_y=True)
    first, second, other = (StudyClassifier(**SMALL, random_state=seed).fit(X, y) for seed in (1, 1, 2))
    for name in ("model.onnx", "weights.safetensors"):
        assert first.model_.files[name] == second.model_.files[name] != other.model_.files[name]


def test_it_works_in_a_pipeline_a_grid_and_a_cross_validation_in_two_processes() -> None:
    X, y = load_iris(return_X_y=True)
    model = StudyClassifier(**SMALL)
    scores = cross_val_score(make_pipeline(StandardScaler(), model), X, y, cv=2, n_jobs=2)
    alone = cross_val_score(make_pipeline(StandardScaler(), clone(model)), X, y, cv=2)
    assert scores.tolist() == alone.tolist() and scores.min() > 0.5
    grid = GridSearchCV(model, {"epochs": np.array([2, 8])}, cv=2).fit(X, y)
    assert grid.best_params_["epochs"] in (2, 8)


def test_several_targets_are_predicted_together() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    Y = np.stack([X[:, 0], X[:, 1] - X[:, 2]], axis=1)
    model = StudyRegressor(n_trials=6, epochs=30, final_seeds=0).fit(X, Y)
    assert model.predict(X).shape == Y.shape and model.score(X, Y) > 0.5


def test_the_spec_corrects_what_the_arguments_leave_out() -> None:
    X, y = load_iris(return_X_y=True)
    spec = {"search": {"sampler": "random"}, "data": {"split": {"folds": 3}}}
    model = StudyClassifier(**SMALL, spec=spec, search_space={"width": [4, 8], "depth": 1}).fit(X, y)
    assert set(model.best_params_) == {"width"}
    with pytest.raises(UserError, match="budget"):
        StudyClassifier(**SMALL, spec={"budget": {"trails": 3}}).fit(X, y)


def test_a_named_study_is_kept_and_goes_on_with_the_same_data_alone(tmp_path: Path) -> None:
    frame, y = mixed()
    kept = StudyClassifier(**SMALL, study="things", home=tmp_path).fit(frame, y)
    storage = Storage(f"sqlite:///{tmp_path / 'studies.db'}")
    assert len(storage.records("things")) == 3
    more = StudyClassifier(**SMALL | {"n_trials": 5}, study="things", home=tmp_path).fit(frame, y)
    assert len(storage.records("things")) == 5 and len(more.study_.trials) == 5
    assert [t.params for t in more.study_.trials[:3]] == [t.params for t in kept.study_.trials]
    with pytest.raises(UserError, match="data of study"):
        StudyClassifier(**SMALL, study="things", home=tmp_path).fit(frame[::-1], y)
    with pytest.raises(SpecChanged, match=r"training\.epochs: 8 -> 9"):
        StudyClassifier(**SMALL | {"epochs": 9}, study="things", home=tmp_path).fit(frame, y)
    temporary = StudyClassifier(**SMALL).fit(frame, y)
    assert temporary.model_.files["model.onnx"] == kept.model_.files["model.onnx"]
    storage.close()


def test_rows_are_not_weighted() -> None:
    X, y = load_iris(return_X_y=True)
    with pytest.raises(TypeError, match="sample_weight"):
        StudyClassifier(**SMALL).fit(X, y, sample_weight=np.ones(len(y)))
