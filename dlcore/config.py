"""Frozen descriptions of the data, one network and its training; they check themselves when built.

Nothing here imports torch, so that a spec can be checked without it. The names below are the only ones
that the tables in `activations`, `init`, `metrics`, `schedules` and `optim` may use (tested).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from dlcore.errors import ConfigError

TASKS = ("binary", "multiclass", "regression")
ACTIVATIONS = ("relu", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "elu", "selu")
DRAWN_INITIALIZATIONS = (
    "default",
    "uniform",
    "normal",
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "orthogonal",
)
PRETRAINED = "pretrained"
"""The hidden layers of another network, a `dlcore.backbone.Backbone`; only the head is drawn, as by "default"."""
INITIALIZATIONS = (*DRAWN_INITIALIZATIONS, PRETRAINED)
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "cosine", "one_cycle")
PRECISIONS = ("fp32", "tf32", "bf16")
CLASS_WEIGHTS = ("none", "balanced")
NORMALIZATIONS = ("none", "batch", "layer")
CLASSIFICATION_METRICS = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "log_loss")
REGRESSION_METRICS = ("rmse", "mae", "r2")
METRICS = CLASSIFICATION_METRICS + REGRESSION_METRICS
LOWER_IS_BETTER = frozenset({"loss", "log_loss", "rmse", "mae", "n_parameters"})
DEFAULT_METRIC = {"binary": "accuracy", "multiclass": "accuracy", "regression": "rmse"}
KINDS = ("numeric", "boolean", "categorical", "date", "identifier", "constant")
SCALINGS = ("standard", "robust", "quantile_normal")
TARGET_TRANSFORMS = ("none", "log", "quantile_normal")
SKLEARN_SETS = ("digits", "breast_cancer", "wine", "iris", "diabetes")


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{field} must be one of {', '.join(allowed)}; got {value!r}")


def _between(
    field: str,
    value: float,
    low: float,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if not (math.isfinite(value) and above and below):
        left, right = "(" if open_low else "[", ")" if open_high or high == math.inf else "]"
        raise ConfigError(f"{field} must lie in {left}{low:g}, {high:g}{right}; got {value!r}")


def metrics_of(task: str) -> tuple[str, ...]:
    """Names of the metrics that make sense for a task."""
    _one_of("task", task, TASKS)
    return REGRESSION_METRICS if task == "regression" else CLASSIFICATION_METRICS


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """By what rows are divided into train, val and test; at random, class by class, where nothing is said."""

    column: str | None = None
    """A column that says "train", "val" or "test" of each row; without "val", it is cut from train."""
    group: str | None = None
    """A column, such as a patient, whose rows of one value all go to the same split."""
    time: str | None = None
    """A column of dates or numbers: the latest rows are test, those before them val."""
    folds: int | None = None
    """Rows that are not test are divided into so many folds, each val of one training on the others."""

    def __post_init__(self) -> None:
        """Check the fields against each other."""
        named = [name for name in ("column", "group", "time") if getattr(self, name) is not None]
        if len(named) > 1:
            raise ConfigError(f"data.split must name one of column, group and time; got {' and '.join(named)}")
        if self.folds is not None:
            _between("data.split.folds", self.folds, 2, 100)
            if self.time is not None:
                raise ConfigError("data.split.folds cannot go with time: a fold would learn from what comes later")

    @property
    def by(self) -> str | None:
        """The column that decides, which is never a feature; None where chance does."""
        return self.column or self.group or self.time


@dataclass(frozen=True, slots=True)
class PreprocessConfig:
    """What becomes of raw columns before a network sees them; all of it is fitted on train."""

    scaling: str = "standard"
    """Of numeric columns: a name in `SCALINGS`. Parts of dates and booleans are standardised whatever it is."""
    missing_indicators: bool = True
    """Whether a column of numbers or dates that has holes in train gets an input that says where they are."""
    max_categories: int = 32
    """Categories of a column that get an input of their own, the commonest; the others share one."""
    min_category_rows: int = 10
    """Training rows that a category needs for its own input; 1 % of them where that is fewer."""
    high_cardinality: int = 64
    """A column with more categories than this in train is encoded by the mean target of each."""
    target_transform: str = "none"
    """Of the targets of a regression: a name in `TARGET_TRANSFORMS`."""

    def __post_init__(self) -> None:
        """Check each field."""
        _one_of("preprocess", self.scaling, SCALINGS)
        _between("max_categories", self.max_categories, 1)
        _between("min_category_rows", self.min_category_rows, 1)
        _between("high_cardinality", self.high_cardinality, 1)
        _one_of("target_transform", self.target_transform, TARGET_TRANSFORMS)


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which table to learn from, and how to split it. One of `source` and `path` is given, or a frame beside it."""

    source: str | None = None
    """A bundled set, "sklearn:digits" (see `SKLEARN_SETS`), or one of openml.org by its number, "openml:61"."""
    path: str | None = None
    """A CSV file with a header row, packed by gzip or not, or a Parquet file."""
    target: tuple[str, ...] = ()
    """Target column or columns; more than one only for regression. A source has its own."""
    drop: tuple[str, ...] = ()
    """Columns that are not read."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Column -> what it is, one of `KINDS`, where that is not what would be found out."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """By what rows are divided."""
    task: str = "auto"
    """"binary", "multiclass", "regression", or "auto": inferred from the target."""
    val_fraction: float = 0.2
    """Share of all rows that the study sees as `val`."""
    test_fraction: float = 0.2
    """Share of all rows that is read once, at the end; 0, only where chance divides them: none is kept back."""
    preprocessing: PreprocessConfig = field(default_factory=PreprocessConfig)
    """What becomes of the columns."""

    def __post_init__(self) -> None:
        """Check the fields against each other."""
        if self.source is not None and self.path is not None:
            raise ConfigError('data needs one of source (such as "sklearn:digits") and path (a CSV file), not both')
        if self.source is None and not self.target:
            raise ConfigError(f"data.target must name the target column of {self.path or 'the frame'}")
        for kind in self.kinds.values():
            _one_of("data.kinds", kind, KINDS)
        if self.task != "auto":
            _one_of("data.task", self.task, TASKS)
        _between("data.val_fraction", self.val_fraction, 0, 1, open_low=True, open_high=True)
        _between("data.test_fraction", self.test_fraction, 0, 1, open_low=self.split.by is not None, open_high=True)
        if self.val_fraction + self.test_fraction >= 1:
            raise ConfigError(
                "data.val_fraction + data.test_fraction must be < 1, so that rows are left to train on; "
                f"got {self.val_fraction} + {self.test_fraction}"
            )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One feed-forward network: Linear, normalization, activation, dropout, repeated; then a Linear head."""

    n_features: int
    """Input features F, after preprocessing."""
    n_outputs: int
    """Outputs C of the head: 1 for binary, classes for multi-class, targets for regression."""
    widths: tuple[int, ...]
    """Units of each hidden layer; its length is the depth; empty is a linear model."""
    activation: str = "relu"
    """Name in `ACTIVATIONS`."""
    slope: float = 0.01
    """Negative slope of leaky_relu; the other activations ignore it."""
    initialization: str = "default"
    """Name in `INITIALIZATIONS`."""
    dropout: float = 0.0
    """Probability that a hidden unit's output is dropped, in [0, 0.99]; masks round it to 2**-16."""
    normalization: str = "none"
    """Name in `NORMALIZATIONS`: over what each hidden unit is standardised before its activation."""

    def __post_init__(self) -> None:
        """Check each field."""
        _between("n_features", self.n_features, 1)
        _between("n_outputs", self.n_outputs, 1)
        for width in self.widths:
            _between("width", width, 1)
        _one_of("activation", self.activation, ACTIVATIONS)
        _between("slope", self.slope, 0, 1)
        _one_of("initialization", self.initialization, INITIALIZATIONS)
        _between("dropout", self.dropout, 0, 0.99)
        _one_of("normalization", self.normalization, NORMALIZATIONS)

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.widths)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How one network is trained, and which of its epochs is its best."""

    epochs: int
    """Passes over train at most."""
    batch_size: int = 128
    """Rows of one weight update; the last batch of an epoch may be smaller."""
    optimizer: str = "sgd"
    """Name in `OPTIMIZERS`."""
    learning_rate: float = 0.1
    """Peak learning rate; the schedule scales it."""
    momentum: float = 0.9
    """SGD's momentum, in [0, 1); AdamW ignores it (its betas are 0.9 and 0.999)."""
    nesterov: bool = False
    """Nesterov's form of SGD's momentum."""
    weight_decay: float = 0.0
    """Decay of weights, not of biases, decoupled: each step takes learning rate times decay of them away."""
    schedule: str = "constant"
    """Name in `SCHEDULES`."""
    warmup_epochs: int = 0
    """Epochs over which the learning rate rises linearly from 0, before the schedule begins."""
    clip_norm: float | None = None
    """Largest L2 norm of all gradients together; None is no clipping."""
    patience: int | None = None
    """Epochs without a better one after which training stops; None is never."""
    objective: str = "loss"
    """What makes an epoch the best: "loss" (on val) or a name in `METRICS`; ties go to the lower val loss,
    then to the earlier epoch."""
    precision: str = "fp32"
    """Name in `PRECISIONS`: of the matrix products while training; see `dlcore.precision`."""
    class_weights: str = "none"
    """Name in `CLASS_WEIGHTS`: how rows of each class count in the training loss; see `dlcore.criterion`."""
    noise: float = 0.0
    """Standard deviation of what is added to each standardised input of a row, anew in each step."""
    mixup: float = 0.0
    """Both parameters of the Beta distribution by which rows are mixed with others; 0 is not at all."""
    label_smoothing: float = 0.0
    """Share of each row's class that is spread over all classes in the training loss, in [0, 1)."""
    n_frozen: int = 0
    """First hidden layers that are never updated, their normalization's gain and shift included; only of "pretrained".
    Running statistics of batch normalization follow the rows all the same, as in PyTorch."""
    backbone_rate: float = 1.0
    """Learning rate of the hidden layers, divided by that of the head; other than 1 only of "pretrained"."""

    def __post_init__(self) -> None:
        """Check each field."""
        _between("epochs", self.epochs, 1)
        _between("batch_size", self.batch_size, 1)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _between("learning_rate", self.learning_rate, 0)
        _between("momentum", self.momentum, 0, 1, open_high=True)
        _between("weight_decay", self.weight_decay, 0)
        _one_of("schedule", self.schedule, SCHEDULES)
        _between("warmup_epochs", self.warmup_epochs, 0, self.epochs)
        if self.clip_norm is not None:
            _between("clip_norm", self.clip_norm, 0, open_low=True)
        if self.patience is not None:
            _between("patience", self.patience, 1)
        _one_of("objective", self.objective, ("loss", *METRICS))
        _one_of("precision", self.precision, PRECISIONS)
        _between("noise", self.noise, 0)
        _between("mixup", self.mixup, 0)
        _one_of("class_weights", self.class_weights, CLASS_WEIGHTS)
        _between("label_smoothing", self.label_smoothing, 0, 1, open_high=True)
        _between("n_frozen", self.n_frozen, 0)
        _between("backbone_rate", self.backbone_rate, 0, open_low=True)

    @property
    def is_augmented(self) -> bool:
        """Whether training sees other rows than there are."""
        return self.noise > 0 or self.mixup > 0
