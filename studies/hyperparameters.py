"""What a study can search: each hyperparameter, the values it may take, and its value where it is not searched.

A setting is what a spec says of one hyperparameter: a `Range`, a tuple of choices, or one fixed value.
How settings become Optuna's distributions is `studies.space`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from fractions import Fraction

from dlcore.config import (
    ACTIVATIONS,
    CLASS_WEIGHTS,
    INITIALIZATIONS,
    NORMALIZATIONS,
    OPTIMIZERS,
    PRETRAINED,
    SCALINGS,
    SCHEDULES,
)
from studies.mistakes import Mistake, must_be_one_of, shown, unknown_keys
from studies.records import Value

MAX_CHOICES = 1_000
MAX_STEPS = 1_000_000
MAX_GRID_RANGE = 64
"""A whole-number range of at most so many values needs no `step` in a grid."""


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers from `low` to `high`, both included; whole numbers where the hyperparameter is one."""

    low: int | float
    high: int | float
    log: bool = False
    """Drawn evenly on a logarithmic scale."""
    step: int | float | None = None
    """Only low, low + step, ... are drawn; None is every number."""

    @property
    def n_values(self) -> int | None:
        """How many values it holds; None where there is no end of them."""
        if self.step is None:
            return None if isinstance(self.low, float) else int(self.high - self.low) + 1
        # Fractions: Decimal refuses to count what has more than 28 digits.
        low, high, step = (Fraction(_decimal(number)) for number in (self.low, self.high, self.step))
        return (high - low) // step + 1

    def value(self, index: int) -> int | float:
        """One of its countable values, ascending from `low`, at index 0."""
        step = 1 if self.step is None else self.step
        return type(self.low)(_decimal(self.low) + index * _decimal(step))

    def values(self) -> tuple[int | float, ...]:
        """All of them, where they can be counted."""
        if self.n_values is None:
            raise ValueError(f"{self} holds no countable values: it needs a step")
        return tuple(self.value(index) for index in range(self.n_values))


def _decimal(number: float) -> Decimal:
    """The number as the user wrote it: 0.1 + 2 x 0.1 is to be 0.3."""
    return Decimal(str(number))


Setting = Range | tuple[Value, ...] | Value


@dataclass(frozen=True, slots=True)
class Rule:
    """What the values of one hyperparameter must be."""

    kind: str
    """"integer", "number", "name" or "switch"."""
    low: float = 0
    high: float = math.inf
    is_low_open: bool = False
    is_high_open: bool = False
    names: tuple[str, ...] = ()
    can_be_off: bool = False
    """Whether `false` turns it off."""
    only_with: tuple[str, str] | None = None
    """Another hyperparameter and the value at which this one has a meaning; else it is not suggested."""
    idle: Value | None = None
    """Its default, at which it does nothing: where it is fixed there, it is no part of a trial's hyperparameters."""
    only_classes: bool = False
    """Whether it has a meaning for classes alone, not in a regression."""

    def wrong(self, value: object) -> str | None:
        """The text of the mistake, or None if the value may be taken."""
        if value is False and self.can_be_off:
            return None
        if self.kind == "switch":
            return None if isinstance(value, bool) else f"must be true or false; got {shown(value)}"
        if self.kind == "name":
            return None if value in self.names else must_be_one_of(value, self.names)
        wanted = (int,) if self.kind == "integer" else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted):
            noun = "a whole number" if self.kind == "integer" else "a number"
            return f"must be {noun}{' or false' if self.can_be_off else ''}; got {shown(value)}"
        text = self._out_of_bounds(value)
        return f"{text}; got {shown(value)}" if text else None

    def _out_of_bounds(self, number: float) -> str | None:
        try:
            is_finite = math.isfinite(number)
        except OverflowError:  # TOML's whole numbers have no end, a float has
            is_finite = False
        if not is_finite:
            return "must be finite"
        if number < self.low or (self.is_low_open and number == self.low):
            return f"must be {'>' if self.is_low_open else '>='} {self.low:g}"
        if number > self.high or (self.is_high_open and number == self.high):
            return f"must be {'<' if self.is_high_open else '<='} {self.high:g}"
        return None


RULES: dict[str, Rule] = {
    "depth": Rule("integer", high=100),
    "width": Rule("integer", low=1, high=65_536),
    "funnel": Rule("number", high=1, is_low_open=True),
    "activation": Rule("name", names=ACTIVATIONS),
    "slope": Rule("number", high=1, only_with=("activation", "leaky_relu")),
    "initialization": Rule("name", names=INITIALIZATIONS),
    "n_frozen": Rule("integer", high=100, only_with=("initialization", PRETRAINED), idle=0),
    "backbone_rate": Rule("number", high=1, is_low_open=True, only_with=("initialization", PRETRAINED), idle=1.0),
    "dropout": Rule("number", high=0.99),
    "normalization": Rule("name", names=NORMALIZATIONS, idle="none"),
    "optimizer": Rule("name", names=OPTIMIZERS),
    "learning_rate": Rule("number", high=1_000, is_low_open=True),
    "momentum": Rule("number", high=1, is_high_open=True, only_with=("optimizer", "sgd")),
    "nesterov": Rule("switch", only_with=("optimizer", "sgd")),
    "weight_decay": Rule("number", high=1_000),
    "batch_size": Rule("integer", low=1, high=1_000_000),
    "schedule": Rule("name", names=SCHEDULES),
    "warmup_epochs": Rule("integer", high=100_000),
    "clip_norm": Rule("number", is_low_open=True, can_be_off=True),
    "noise": Rule("number", high=100, idle=0.0),
    "mixup": Rule("number", high=100, idle=0.0),
    "label_smoothing": Rule("number", high=1, is_high_open=True, idle=0.0, only_classes=True),
    "class_weights": Rule("name", names=CLASS_WEIGHTS, idle="none", only_classes=True),
    "preprocess": Rule("name", names=SCALINGS),
}
"""In the order in which they are suggested: one that decides whether another applies comes before it."""

OF_SOURCE = ("depth", "width", "funnel", "activation", "slope", "normalization", "preprocess")
"""Hyperparameters that are those of the source in a study with a [transfer]: what its weights were trained with."""
OF_TRANSFER = ("initialization", "n_frozen", "backbone_rate")
"""Hyperparameters that say how a trial starts from the source."""
CURES = ("dropout", "normalization", "weight_decay", "noise", "mixup", "label_smoothing")
"""Hyperparameters that fight overfitting."""
OVERFIT_FIRST = "overfit-first"
RECIPES = ("none", OVERFIT_FIRST)
"""In which order a study looks for what; see `studies.recipe`."""

FIXED: dict[str, Value] = {
    "depth": 2,
    "width": 64,
    "funnel": 1.0,
    "activation": "relu",
    "slope": 0.01,
    "initialization": "default",
    "momentum": 0.9,
}
"""Values of what is neither searched nor a key of `[training]` or `[data]`; the learning rate has its own function."""


def fixed_learning_rate(optimizer: object) -> float:
    """Learning rate where none is searched: AdamW's steps do not shrink with the gradient, so its is smaller."""
    return 0.002 if optimizer == "adamw" else 0.05


def default_space(optimizer: str) -> dict[str, Setting]:
    """The search space of a spec without one.

    The ends of learning rate and momentum are set so that few trials diverge: SGD's effective step is
    learning_rate / (1 - momentum), and beyond about 10 standardised tables rarely train.
    """
    space: dict[str, Setting] = {
        "depth": Range(1, 4),
        "width": Range(16, 256, log=True),
        "activation": ("relu", "leaky_relu", "tanh", "gelu"),
        "learning_rate": Range(1e-3, 0.5, log=True),
        "momentum": Range(0.0, 0.95),
        "initialization": ("default", "xavier_uniform", "kaiming_normal", "orthogonal"),
    }
    if optimizer == "adamw":
        del space["momentum"]
        space["learning_rate"] = Range(1e-4, 3e-2, log=True)
    return space


def table_space(given: Mapping[str, Value]) -> dict[str, Setting]:
    """The search space of a person's own table, where the spec has none: AdamW, which decays weights by itself.

    Chosen by val, the winner's mean over fresh seeds. AdamW: better than `default_space` on 2,000 rows each of letter
    recognition, magic telescope and wine quality (32 trials, one seed); with both optimizers in one space better on
    one, equal on one and worse on one. `preprocess`: see benchmarks/RESULTS.md, "The space for tables".

    Args:
        given: What [training] and [data] fix: it is not searched.
    """
    space: dict[str, Setting] = {
        "depth": Range(1, 4),
        "width": Range(32, 512, log=True),
        "activation": ("relu", "leaky_relu", "tanh", "gelu"),
        "dropout": Range(0.0, 0.5),
        "optimizer": "adamw",
        "learning_rate": Range(3e-4, 3e-2, log=True),
        "weight_decay": Range(1e-4, 1.0, log=True),
        "preprocess": ("standard", "quantile_normal"),
    }
    if given.get("optimizer") == "sgd":
        space |= default_space("sgd") | {"width": space["width"], "weight_decay": space["weight_decay"]}
    return {name: setting for name, setting in space.items() if name not in given}


def with_cures(space: Mapping[str, Setting], given: Mapping[str, Value]) -> dict[str, Setting]:
    """A default space that has cures to search: dropout and weight decay where it has none.

    Args:
        space: The default one.
        given: What [training] and [data] fix.
    """
    if any(name in CURES and is_searched(setting) for name, setting in space.items()):
        return dict(space)
    added = table_space(given)
    return dict(space) | {name: added[name] for name in ("dropout", "weight_decay") if name in added}


def with_transfer(space: Mapping[str, Setting]) -> dict[str, Setting]:
    """A default space without what the source decides."""
    return {name: setting for name, setting in space.items() if name not in (*OF_SOURCE, "initialization")}


def transfer_space(depth: int, *, is_grid: bool) -> dict[str, Setting]:
    """What a study with a [transfer] searches of it, where its spec does not say.

    Args:
        depth: Hidden layers of the source.
        is_grid: Whether ranges without end must be lists.
    """
    rates: Setting = (0.1, 1.0) if is_grid else Range(0.01, 1.0, log=True)
    return {"initialization": (PRETRAINED, "default"), "n_frozen": Range(0, depth), "backbone_rate": rates}


def plain(setting: Setting) -> object:
    """A setting as JSON-able data."""
    if isinstance(setting, Range):
        return asdict(setting)
    return list(setting) if isinstance(setting, tuple) else setting


def choices(setting: Setting) -> tuple[Value, ...] | None:
    """Every value that a setting can give, ascending for ranges; None for a range without end."""
    if isinstance(setting, Range):
        return setting.values() if setting.n_values is not None else None
    return setting if isinstance(setting, tuple) else (setting,)


def n_choices(setting: Setting) -> int | None:
    """How many values a setting can give; None for a range without end."""
    if isinstance(setting, Range):
        return setting.n_values
    return len(setting) if isinstance(setting, tuple) else 1


def is_searched(setting: Setting) -> bool:
    """Whether it leaves anything to choose."""
    n = n_choices(setting)
    if n is None:
        return isinstance(setting, Range) and setting.low < setting.high
    return n > 1


def only_value(setting: Setting) -> Value:
    """The one value of a setting that is not searched."""
    if isinstance(setting, Range):
        return setting.low
    return setting[0] if isinstance(setting, tuple) else setting


def middle_value(setting: Setting) -> Value:
    """The value in the middle of a range, by its scale; the first of a list."""
    if not isinstance(setting, Range):
        return only_value(setting)
    if setting.step is not None:
        return setting.value(((setting.n_values or 1) - 1) // 2)
    found = math.sqrt(setting.low * setting.high) if setting.log else (setting.low + setting.high) / 2
    return round(found) if isinstance(setting.low, int) else found


def read_settings(raw: Mapping[str, object]) -> tuple[dict[str, Setting], list[Mistake]]:
    """The `[search_space]` of a spec.

    Args:
        raw: Name -> what TOML gave: a table, a list or a single value.

    Returns:
        The settings without a mistake, and the mistakes of the others.
    """
    settings: dict[str, Setting] = {}
    mistakes: list[Mistake] = []
    for name, value in raw.items():
        if name in RULES:
            setting, found = _read_setting(f"search_space.{name}", RULES[name], value)
            mistakes += found
            if setting is not None and not found:
                settings[name] = setting
    return settings, mistakes + unknown_keys("search_space.", raw, RULES)


def _read_setting(key: str, rule: Rule, raw: object) -> tuple[Setting | None, list[Mistake]]:
    if isinstance(raw, Mapping):
        mistakes = _range_mistakes(key, rule, raw)
        return (None if mistakes else _range(rule, raw)), mistakes
    if not isinstance(raw, list | tuple):
        text = rule.wrong(raw)
        return (None, [Mistake(key, text)]) if text else (_value(rule, raw), [])
    if not 1 <= len(raw) <= MAX_CHOICES:
        return None, [Mistake(key, f"must list 1 to {MAX_CHOICES} values; got {len(raw)}")]
    mistakes = [Mistake(key, text) for value in raw if (text := rule.wrong(value))]
    if not mistakes:
        values = tuple(_value(rule, value) for value in raw)
        doubled = next((value for i, value in enumerate(values) if value in values[:i]), None)
        if doubled is None:
            return values, []
        mistakes = [Mistake(key, f"must list each value once; got {shown(doubled)} twice")]
    return None, mistakes


def _range_mistakes(key: str, rule: Rule, raw: Mapping[str, object]) -> list[Mistake]:
    if rule.kind in ("name", "switch"):
        return [Mistake(key, f"must be a list of values or one of them, not a range; got {shown(dict(raw))}")]
    number = Rule(rule.kind, low=rule.low, high=rule.high, is_high_open=rule.is_high_open)
    mistakes: list[Mistake] = []
    is_log = raw.get("log", False)
    for end in ("low", "high"):
        if end not in raw:
            mistakes.append(Mistake(f"{key}.{end}", "is required in a range"))
        elif text := number.wrong(raw[end]):
            mistakes.append(Mistake(f"{key}.{end}", text))
    if not isinstance(is_log, bool):
        mistakes.append(Mistake(f"{key}.log", f"must be true or false; got {shown(is_log)}"))
    mistakes += _step_mistakes(key, rule, raw)
    if not mistakes:
        mistakes = _order_mistakes(key, rule, _range(rule, raw))
    return mistakes + unknown_keys(f"{key}.", raw, [field.name for field in fields(Range)])


def _order_mistakes(key: str, rule: Rule, found: Range) -> list[Mistake]:
    """What is wrong with a range whose parts are right by themselves."""
    if found.low <= 0 and (found.log or rule.is_low_open):
        return [Mistake(f"{key}.low", f"must be > 0{' when log = true' if found.log else ''}; got {shown(found.low)}")]
    if found.high < found.low:
        return [Mistake(f"{key}.high", f"must be >= low = {shown(found.low)}; got {shown(found.high)}")]
    if found.step is not None and (found.n_values or 0) > MAX_STEPS:
        return [Mistake(f"{key}.step", f"must leave <= {MAX_STEPS} values; got {shown(found.n_values)}")]
    return []


def _step_mistakes(key: str, rule: Rule, raw: Mapping[str, object]) -> list[Mistake]:
    step = raw.get("step")
    if step is None:
        return []
    if text := Rule(rule.kind, is_low_open=True).wrong(step):
        return [Mistake(f"{key}.step", text)]
    if raw.get("log", False) is True:
        return [Mistake(f"{key}.step", f"cannot go with log = true: list the values; got {shown(step)}")]
    return []


def _range(rule: Rule, raw: Mapping[str, object]) -> Range:
    low, high, step = raw["low"], raw["high"], raw.get("step")
    if rule.kind == "number":
        low, high = float(low), float(high)  # type: ignore[arg-type]  # numbers: `_range_mistakes` found none
        step = None if step is None else float(step)  # type: ignore[arg-type]
    return Range(low, high, raw.get("log") is True, step)  # type: ignore[arg-type]


def _value(rule: Rule, raw: object) -> Value:
    if rule.kind == "number" and raw is not False:
        return float(raw)  # type: ignore[arg-type]  # a number: the rule found nothing wrong
    assert isinstance(raw, int | float | str)
    return raw
