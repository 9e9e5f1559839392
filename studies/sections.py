"""The sections of a spec: which keys each one has, their types, defaults and bounds.

What must hold between the keys of one section or of several is checked in `studies.spec_rules`.
"""

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from dlcore.config import (
    CLASS_WEIGHTS,
    KINDS,
    METRICS,
    NORMALIZATIONS,
    OPTIMIZERS,
    PRECISIONS,
    SCALINGS,
    SCHEDULES,
    SKLEARN_SETS,
    TARGET_TRANSFORMS,
    TASKS,
)
from studies.mistakes import must_be_one_of, shown

SAMPLERS = ("tpe", "random", "grid", "qmc", "gp", "nsga2")
LEARN_FROM_COMPLETE_ONLY = ("gp", "nsga2")
LEARN = ("tpe", *LEARN_FROM_COMPLETE_ONLY)
"""Samplers that ask for what did well."""
PRUNERS = ("median", "percentile", "patient", "threshold", "hyperband")
OBJECTIVES = (*METRICS, "loss", "n_parameters")
DEVICES = ("auto", "cpu", "cuda", "mps")
ENGINES = ("population", "loop")
STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""What may become a file name, an MLflow name and an SQL value without any quoting; ".." is refused beside it."""


def _name_in(names: tuple[str, ...], value: str) -> str:
    if value not in names:
        raise ValueError(must_be_one_of(value, names))
    return value


def study_name(value: str) -> str:
    """The name itself, if it may name a study."""
    if not STUDY_NAME.fullmatch(value) or ".." in value:
        raise ValueError(
            'must be 1 to 100 of the characters A-Z a-z 0-9 _ . -, begin with a letter or digit and hold no ".."; '
            f"got {shown(value)}"
        )
    return value


def false_is_off(value: object) -> object:
    """A key that is off by `false`, as None."""
    return None if value is False else value


def _texts(value: object) -> object:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _objective_list(value: object) -> object:
    if value is None:
        return ()
    entries = value if isinstance(value, list | tuple) else [value]
    return tuple({"metric": entry} if isinstance(entry, str) else entry for entry in entries)


@dataclass(frozen=True, slots=True)
class _OneOf:
    """A name of several; the JSON Schema for editors lists them."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(partial(_name_in, self.names), handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema) | {"enum": list(self.names)}


def one_of(names: tuple[str, ...]) -> _OneOf:
    """What must be one of these names; the JSON Schema for editors lists them."""
    return _OneOf(names)


_Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
_Off = BeforeValidator(false_is_off)


class Section(BaseModel):
    """A table of the spec: no unknown keys, no guessing of types, no infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ObjectiveSection(Section):
    """One objective, as a table."""

    metric: Annotated[str, one_of(OBJECTIVES)]
    """On val; `loss` is the loss on val, `n_parameters` (a second objective) the network's size."""
    direction: Annotated[str, one_of(("maximize", "minimize"))] | None = None
    """Follows from the metric; whoever writes it down must write the right one."""


class ObjectiveList(Section):
    """What the sampler is told of a trial."""

    objectives: Annotated[tuple[ObjectiveSection, ...], BeforeValidator(_objective_list)] = Field(
        default=(), alias="objective"
    )
    """Empty: the task's default, once the task is known. In TOML a metric's name, a table, or a list of either."""


class Budget(Section):
    """What the user grants."""

    trials: int | None = Field(default=None, ge=1, le=1_000_000)
    """In all, not more: a finished study that runs again does nothing."""
    seconds: float | None = Field(default=None, gt=0)
    """Of the search, in all runs of the study; finals and export come on top."""

    @model_validator(mode="before")
    @classmethod
    def _grant(cls, given: object) -> object:
        """64 trials where neither trials nor seconds are granted."""
        return {"trials": 64} if given == {} else given


class Halving(Section):
    """Who goes on at each rung: the best 1 / reduction_factor."""

    first_rung: int = Field(default=5, ge=1)
    """Epoch of rung 0."""
    reduction_factor: int = Field(default=3, ge=2, le=1_000)
    """Each rung is so many times as late as the one before, and one trial in so many is promoted there."""


class Search(Section):
    """How hyperparameters are proposed, and who is stopped early."""

    sampler: Annotated[str, one_of(SAMPLERS)] = "tpe"
    """Who proposes: a model of what went well (`tpe`, `gp`), evolution (`nsga2`), every point (`grid`), evenly spread
    points (`qmc`), or chance (`random`)."""
    halving: Annotated[Halving | None, _Off] = None
    """Rungs at which only the best of a cohort go on. Where the spec says nothing it is on, but for the samplers `gp`
    and `nsga2`, which learn from finished trials alone."""
    pruner: Annotated[str, one_of(PRUNERS)] | None = None
    """One of Optuna's rules in place of halving, asked at the same rungs."""
    prune_below: float | None = None
    """`threshold` prunes a trial whose first objective is below it at a rung."""
    prune_above: float | None = None
    """`threshold` prunes a trial whose first objective is above it at a rung."""
    cohort: int | None = Field(default=None, ge=1, le=100_000)
    """Trials that are asked and trained together. Default: an eighth of the budget, at least 16; 8 at most for `gp`."""
    max_parameters: int | None = Field(default=None, ge=1)
    """Weights and biases that a network may have; larger suggestions are made narrower, then shallower."""


PREPROCESSING_KEYS = (
    "missing_indicators",
    "max_categories",
    "min_category_rows",
    "high_cardinality",
    "target_transform",
)
"""Keys of `[data]` that are fields of `dlcore.config.PreprocessConfig`."""


FRAME = "frame"
"""The source of a study whose table was given in Python and is kept nowhere: only there it can go on."""


def _source(value: str) -> str:
    if value == FRAME or re.fullmatch(r"openml:[0-9]{1,9}", value):
        return value
    names = (*(f"sklearn:{name}" for name in SKLEARN_SETS), "openml:ID")
    if value not in names[:-1]:
        raise ValueError(must_be_one_of(value, names))
    return value


class SplitSection(Section):
    """By what rows are divided; each key as in `dlcore.config.SplitConfig`."""

    column: str | None = None
    group: str | None = None
    time: str | None = None
    folds: int | None = Field(default=None, ge=2, le=100)


class DataSection(Section):
    """Which table, what its columns are, and its split. One of `source` and `path` must be there."""

    source: Annotated[str, AfterValidator(_source)] | None = None
    """A bundled set (`sklearn:digits`, ...), or one of openml.org by its number (`openml:61`)."""
    path: str | None = None
    """A CSV file with a header row, packed by gzip or not, or a Parquet file; from the spec's folder, else from the
    working one."""
    target: _Texts = ()
    task: Annotated[str, one_of(("auto", *TASKS))] = "auto"
    """What is to be learned; `auto` infers it from the target."""
    drop: _Texts = ()
    kinds: dict[str, Annotated[str, one_of(KINDS)]] = {}
    """Column -> its kind, where a person knows better than what would be found out."""
    split: SplitSection = SplitSection()
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    test_fraction: float = Field(default=0.2, ge=0, lt=1)
    """0 keeps no test back: for whoever measures on rows of their own, as a cross-validation does."""
    preprocess: Annotated[str, one_of(SCALINGS)] = "standard"
    """How numeric columns are scaled, where that is not searched."""
    # These as in `dlcore.config.PreprocessConfig`.
    missing_indicators: bool = True
    max_categories: int = Field(default=32, ge=1, le=10_000)
    min_category_rows: int = Field(default=10, ge=1, le=1_000_000)
    high_cardinality: int = Field(default=64, ge=1, le=1_000_000)
    target_transform: Annotated[str, one_of(TARGET_TRANSFORMS)] = "none"
    """Of the targets of a regression; measured and answered in their own unit all the same."""


class TransferSection(Section):
    """From which trained network trials may start."""

    source: str = Field(alias="from", min_length=1)
    """The folder of an export; from the spec's folder, else from the working one."""
    fingerprint: str | None = None
    """Of the export's weights and preprocessing, as the study stores it: one with another fingerprint is refused. Where
    the spec does not say, that of the export that is there when the study begins."""


def _ensemble(value: object) -> object:
    """The value itself: pydantic would make a mistake of each kind that it is not, under a key that nobody wrote."""
    if not isinstance(value, bool) and value != "greedy":
        raise ValueError(f'must be true, false or "greedy"; got {shown(value)}')
    return value


class FinalSection(Section):
    """How the winner is found among the best trials, and what it is compared with."""

    candidates: int = Field(default=4, ge=1, le=100)
    """Trials that are trained again."""
    seeds: int = Field(default=5, ge=0, le=31)
    """Fresh seeds of each, 2 or more; 0 is no finals: the best trial wins, by what was recorded of it."""
    baselines: bool = True
    """Whether scikit-learn's models are trained beside the winner."""
    ensemble: Annotated[bool | Annotated[str, one_of(("greedy",))], BeforeValidator(_ensemble)] = False
    """Whether networks of the finals answer together too: the mean of their predictions, exported if it is better on
    val than the winner's networks in the mean. `true`: all of them; `"greedy"`: those that, chosen one by one, make val
    best, some several times."""


class Training(Section):
    """How every trial trains, apart from what is searched; each key as in `dlcore.config.TrainConfig`."""

    epochs: int = Field(default=40, ge=1, le=100_000)
    batch_size: int = Field(default=128, ge=1, le=1_000_000)
    patience: Annotated[Annotated[int, Field(ge=1)] | None, _Off] = 16
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = "sgd"
    """Who updates the weights."""
    schedule: Annotated[str, one_of(SCHEDULES)] = "constant"
    """How the learning rate moves from epoch to epoch."""
    warmup_epochs: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0, le=1_000)
    dropout: float = Field(default=0.0, ge=0, le=0.99)
    normalization: Annotated[str, one_of(NORMALIZATIONS)] = "none"
    """Over what each hidden unit is standardised before its activation."""
    noise: float = Field(default=0.0, ge=0, le=100)
    mixup: float = Field(default=0.0, ge=0, le=100)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Annotated[str, one_of(CLASS_WEIGHTS)] = "none"
    """`balanced` lets rows of rare classes weigh more in the training loss."""
    nesterov: bool = False
    clip_norm: Annotated[Annotated[float, Field(gt=0)] | None, _Off] = None
    device: Annotated[str, one_of(DEVICES)] = "auto"
    """Where; `auto` is the first of cuda, mps and cpu that is there."""
    engine: Annotated[str, one_of(ENGINES)] = "population"
    """`population` trains a cohort at once, `loop` one network after the other; both give the same results."""
    precision: Annotated[str, one_of(PRECISIONS)] = "fp32"
    """Of matrix products in training; `tf32` and `bf16` are faster on NVIDIA GPUs. All else is float32."""
