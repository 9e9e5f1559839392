from typing import Any

import pytest

from dlcore.activations import ACTIVATIONS
from dlcore.config import ACTIVATIONS as ACTIVATION_NAMES
from dlcore.config import (
    CLASSIFICATION_METRICS,
    DEFAULT_METRIC,
    DRAWN_INITIALIZATIONS,
    LOWER_IS_BETTER,
    METRICS,
    REGRESSION_METRICS,
    SCHEDULES,
    SKLEARN_SETS,
    TASKS,
    DataConfig,
    ModelConfig,
    SplitConfig,
    TrainConfig,
    metrics_of,
)
from dlcore.config import INITIALIZATIONS as INITIALIZATION_NAMES
from dlcore.errors import ConfigError
from dlcore.init import INITIALIZATIONS
from dlcore.metrics import METRICS as METRIC_TABLE
from dlcore.schedules import SCHEDULES as SCHEDULE_TABLE
from dlcore.tables import _LOADERS


@pytest.mark.parametrize(
    ("names", "table"),
    [
        (ACTIVATION_NAMES, ACTIVATIONS),
        (DRAWN_INITIALIZATIONS, INITIALIZATIONS),
        (METRICS, METRIC_TABLE),
        (SCHEDULES, SCHEDULE_TABLE),
        (SKLEARN_SETS, _LOADERS),
        (TASKS, DEFAULT_METRIC),
    ],
)
def test_the_names_a_config_allows_are_the_keys_of_the_table(names: tuple[str, ...], table: dict[str, Any]) -> None:
    assert names == tuple(table)


def test_weights_are_drawn_as_a_name_says_or_pretrained() -> None:
    assert set(INITIALIZATION_NAMES) - set(INITIALIZATIONS) == {"pretrained"}


def test_each_default_metric_fits_its_task() -> None:
    assert all(metric in metrics_of(task) for task, metric in DEFAULT_METRIC.items())


def test_metrics_belong_to_classes_or_to_regression() -> None:
    assert metrics_of("binary") == metrics_of("multiclass") == CLASSIFICATION_METRICS
    assert metrics_of("regression") == REGRESSION_METRICS
    with pytest.raises(ConfigError, match="task must be one of binary, multiclass, regression; got 'ranking'"):
        metrics_of("ranking")


def test_lower_is_better_names_only_what_can_be_an_objective() -> None:
    assert {*METRICS, "loss", "n_parameters"} >= LOWER_IS_BETTER


def test_configs_are_frozen_and_comparable() -> None:
    config = ModelConfig(4, 3, (8, 8))
    assert config == ModelConfig(4, 3, (8, 8)) and hash(config) == hash(ModelConfig(4, 3, (8, 8)))
    assert config.depth == 2
    with pytest.raises(AttributeError):
        config.dropout = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "must name the target column of the frame"),
        ({"source": "sklearn:wine", "path": "wine.csv", "target": ("y",)}, "one of source .* and path .*, not both"),
        ({"path": "wine.csv"}, "data.target must name the target column of wine.csv"),
        ({"source": "sklearn:wine", "task": "ranking"}, "data.task must be one of"),
        ({"path": "a.csv", "target": ("y",), "kinds": {"a": "text"}}, "data.kinds must be one of numeric, .*'text'"),
        ({"source": "sklearn:wine", "val_fraction": 0.0}, r"data.val_fraction must lie in \(0, 1\); got 0.0"),
        ({"source": "sklearn:wine", "test_fraction": 1.0}, r"data.test_fraction must lie in \[0, 1\); got 1.0"),
        (
            {"path": "a.csv", "target": ("y",), "split": SplitConfig(group="a"), "test_fraction": 0.0},
            r"data.test_fraction must lie in \(0, 1\); got 0",
        ),
        ({"source": "sklearn:wine", "val_fraction": 0.5, "test_fraction": 0.5}, "rows are left to train on"),
    ],
)
def test_a_wrong_data_config_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(**wrong)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_features", 0),
        ("n_outputs", 0),
        ("widths", (8, 0)),
        ("activation", "swish"),
        ("slope", -0.1),
        ("slope", float("nan")),
        ("initialization", "zeros"),
        ("dropout", 1.0),
        ("dropout", -0.1),
    ],
)
def test_a_wrong_model_config_is_refused_by_the_name_of_its_field(field: str, value: Any) -> None:
    right: dict[str, Any] = {"n_features": 4, "n_outputs": 1, "widths": (8,)}
    ModelConfig(**right)
    with pytest.raises(ConfigError, match=f"^{field.removesuffix('s') if field == 'widths' else field} must"):
        ModelConfig(**right | {field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("optimizer", "lion"),
        ("learning_rate", -1.0),
        ("learning_rate", float("inf")),
        ("momentum", 1.0),
        ("weight_decay", -1e-9),
        ("schedule", "step"),
        ("warmup_epochs", 11),
        ("clip_norm", 0.0),
        ("patience", 0),
        ("objective", "lost"),
        ("precision", "fp16"),
        ("n_frozen", -1),
        ("backbone_rate", 0.0),
        ("backbone_rate", float("nan")),
    ],
)
def test_a_wrong_train_config_is_refused_by_the_name_of_its_field(field: str, value: Any) -> None:
    TrainConfig(epochs=10)
    with pytest.raises(ConfigError, match=f"^{field} must"):
        TrainConfig(**{"epochs": 10} | {field: value})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"column": "a", "group": "b"}, "one of column, group and time; got column and group"),
        ({"folds": 1}, r"data.split.folds must lie in \[2, 100\]; got 1"),
        ({"folds": 5, "time": "t"}, "folds cannot go with time"),
    ],
)
def test_a_wrong_split_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SplitConfig(**wrong)
    assert SplitConfig(group="g", folds=5).by == "g" and SplitConfig().by is None
