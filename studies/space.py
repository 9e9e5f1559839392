"""Search space <-> Optuna: distributions, suggestions, the points of a grid, and the configs that dlcore trains.

Define-by-run: a hyperparameter that has no meaning for the others chosen (a slope without leaky_relu, a momentum
without SGD) is neither suggested nor part of a trial's hyperparameters.
"""

import itertools
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from dlcore.config import ModelConfig, TrainConfig
from studies.errors import SpecError
from studies.hyperparameters import RULES, Range, Setting, choices, fixed_learning_rate, middle_value
from studies.records import Value
from studies.spec import StudySpec

Hyperparameters = Mapping[str, Value]


def distributions(spec: StudySpec) -> dict[str, BaseDistribution]:
    """Of every searched hyperparameter, in the order in which they are suggested."""
    return {name: distribution(setting) for name, setting in spec.searched.items()}


def distribution(setting: Setting) -> BaseDistribution:
    """Optuna's form of one setting that is searched."""
    if isinstance(setting, tuple):
        return CategoricalDistribution(setting)
    assert isinstance(setting, Range), f"{setting} is fixed: there is nothing to distribute"
    # Optuna moves `high` down to low + n x step by itself, with a warning: it is moved here.
    high = setting.high if setting.step is None else setting.value((setting.n_values or 1) - 1)
    if isinstance(setting.low, int):
        return IntDistribution(setting.low, int(high), setting.log, 1 if setting.step is None else int(setting.step))
    return FloatDistribution(setting.low, high, setting.log, setting.step)


def suggest(trial: optuna.Trial, spec: StudySpec) -> tuple[dict[str, Value], tuple[str, ...]]:
    """Ask a trial for its hyperparameters.

    Returns:
        All hyperparameters that have a meaning together, the fixed ones included, and the names of the searched ones.
    """
    fixed, searched = spec.fixed, spec.searched
    chosen: dict[str, Value] = {}
    for name in RULES:
        if not _applies(name, chosen):
            continue
        if name in searched:
            chosen[name] = _suggest(trial, name, searched[name])
        elif name in fixed or RULES[name].idle is None:
            chosen[name] = fixed[name] if name in fixed else fixed_learning_rate(chosen["optimizer"])
    return chosen, tuple(name for name in chosen if name in searched)


def _applies(name: str, chosen: Hyperparameters) -> bool:
    condition = RULES[name].only_with
    return condition is None or chosen[condition[0]] == condition[1]


def _suggest(trial: optuna.Trial, name: str, setting: Setting) -> Value:
    found = distribution(setting)
    if isinstance(found, IntDistribution):
        return trial.suggest_int(name, found.low, found.high, step=found.step, log=found.log)
    if isinstance(found, FloatDistribution):
        return trial.suggest_float(name, found.low, found.high, step=found.step, log=found.log)
    assert isinstance(found, CategoricalDistribution)
    value = trial.suggest_categorical(name, found.choices)
    assert isinstance(value, int | float | str | bool)
    return value


def shrink(
    hyperparameters: Hyperparameters, spec: StudySpec, count: Callable[[Hyperparameters], int]
) -> dict[str, Value]:
    """The suggestion, made small enough for `max_parameters`: narrower first, then shallower.

    Args:
        hyperparameters: As suggested.
        spec: Its search space bounds what widths and depths there are.
        count: Hyperparameters -> weights and biases; grows with width.

    Returns:
        The suggestion itself if it fits; else the deepest network that does, of the largest width that fits it.

    Raises:
        SpecError: Even the smallest network of the search space is too large.
    """
    limit, shrunk = spec.search.max_parameters, dict(hyperparameters)
    if limit is None or count(shrunk) <= limit:
        return shrunk
    widths = _numbers_up_to(spec, "width", shrunk["width"])
    for depth in reversed(_numbers_up_to(spec, "depth", shrunk["depth"])):
        shrunk["depth"] = depth
        if n_fitting := bisect_right(widths, limit, key=lambda width: count(shrunk | {"width": width})):
            return shrunk | {"width": widths[n_fitting - 1]}
    least = count(shrunk | {"width": widths[0]})
    raise SpecError(
        f"{spec.study}: search.max_parameters must allow the smallest network of each kind in the search space, one of "
        f"which has {least} weights and biases; got {limit}"
    )


def check_smallest(spec: StudySpec, count: Callable[[Hyperparameters], int]) -> None:
    """Whether any network of the search space fits `max_parameters`; asked before work starts.

    Raises:
        SpecError: None does.
    """
    smallest = {name: _smallest(setting) for name, setting in spec.searched.items()} | spec.fixed
    # A suggestion keeps these when it is shrunk: the funnel that narrows least must fit too, and each normalization.
    if "funnel" in spec.searched:
        smallest["funnel"] = _largest(spec.searched["funnel"])
    for name in choices(spec.searched.get("normalization", spec.fixed.get("normalization", "none"))) or ():
        shrink(smallest | {"normalization": name}, spec, count)


def _smallest(setting: Setting) -> Value:
    if isinstance(setting, Range):
        return setting.low
    values = setting if isinstance(setting, tuple) else (setting,)
    return values[0] if isinstance(values[0], str) else min(values)  # of one kind in a setting


def _largest(setting: Setting) -> Value:
    return setting.high if isinstance(setting, Range) else max(setting) if isinstance(setting, tuple) else setting


def _numbers_up_to(spec: StudySpec, name: str, high: Value) -> list[int]:
    """The values of a whole-number hyperparameter that are not above `high`, ascending."""
    setting = spec.searched.get(name, spec.fixed.get(name, 0))
    return sorted(int(value) for value in choices(setting) or () if int(value) <= int(high))


def grid_points(spec: StudySpec, fits: Callable[[Hyperparameters], bool] | None = None) -> list[dict[str, Value]]:
    """Every point of a grid once, shuffled by the study's seed.

    Args:
        spec: Its searched settings can all be counted (`parse_spec` has checked it).
        fits: Whether a point may be trained; those too large are left out. None is all.

    Returns:
        The hyperparameters of each point, the fixed ones included; a conditional one only where it applies.
    """
    fixed, searched = spec.fixed, spec.searched
    points: list[dict[str, Value]] = [{}]
    for name in RULES:
        if name in searched:
            values = choices(searched[name]) or ()
        elif name in fixed:
            values = (fixed[name],)
        elif RULES[name].idle is not None:
            continue
        else:
            points = [point | {name: fixed_learning_rate(point["optimizer"])} for point in points]
            continue
        points = list(itertools.chain.from_iterable(_extended(point, name, values) for point in points))
    # Shuffled, so that a budget smaller than the grid sees all of its corners.
    random.Random(spec.seed).shuffle(points)
    return [point for point in points if fits is None or fits(point)]


def most_trials(spec: StudySpec, count: Callable[[Hyperparameters], int] | None = None) -> int | None:
    """How many trials a study may come to: its budget, or the points of its grid where those are fewer; None is no end.

    Args:
        spec: The study's.
        count: Hyperparameters -> weights and biases; None counts points that `max_parameters` leaves out, too.
    """
    budget, limit = spec.budget.trials, spec.search.max_parameters
    if spec.search.sampler != "grid":
        return budget
    points = grid_points(spec)
    if limit is not None and count is not None:
        points = [point for point in points if count(point) <= limit]
    return len(points) if budget is None else min(budget, len(points))


def _extended(point: dict[str, Value], name: str, values: tuple[Value, ...]) -> list[dict[str, Value]]:
    return [point | {name: value} for value in values] if _applies(name, point) else [point]


def widths(hyperparameters: Hyperparameters) -> tuple[int, ...]:
    """Units of each hidden layer: `width` in the first, in each other one those of the layer before times `funnel`,
    rounded, at least 1."""
    # A trial that was recorded before there were funnels has none.
    width, funnel = int(hyperparameters["width"]), float(hyperparameters.get("funnel", 1.0))
    found: list[int] = []
    for _ in range(int(hyperparameters["depth"])):
        found.append(width)
        width = max(1, round(width * funnel))
    return tuple(found)


def middle(spec: StudySpec) -> dict[str, Value]:
    """One configuration in the middle of the search space: of a range its middle, by its scale; of a list the first."""
    fixed, chosen = spec.fixed, dict[str, Value]()
    for name in RULES:
        if not _applies(name, chosen):
            continue
        if name in spec.searched:
            chosen[name] = middle_value(spec.searched[name])
        elif name in fixed or RULES[name].idle is None:
            chosen[name] = fixed[name] if name in fixed else fixed_learning_rate(chosen["optimizer"])
    return chosen


def decays_sgd(spec: StudySpec) -> bool:
    """Whether a trial of the study may be trained by SGD with weight decay."""
    optimizer, decay = (
        spec.search_space.get(name, spec.fixed.get(name, 0.0)) for name in ("optimizer", "weight_decay")
    )
    return "sgd" in (choices(optimizer) or ()) and choices(decay) != (0.0,)


def preprocess(hyperparameters: Hyperparameters) -> str:
    """How the numeric columns of a trial are scaled: a name in `dlcore.config.SCALINGS`."""
    # A trial that was recorded before there was a choice has none.
    return str(hyperparameters.get("preprocess", "standard"))


def model_config(hyperparameters: Hyperparameters, n_features: int, n_outputs: int) -> ModelConfig:
    """The network of one trial.

    Args:
        hyperparameters: All of a trial's, as `suggest` gives them.
        n_features: Inputs F, after preprocessing.
        n_outputs: Outputs C.
    """
    values = dict(hyperparameters)
    return ModelConfig(
        n_features=n_features,
        n_outputs=n_outputs,
        widths=widths(values),
        activation=str(values["activation"]),
        initialization=str(values["initialization"]),
        dropout=float(values["dropout"]),
        normalization=str(values.get("normalization", "none")),
        **({"slope": float(values["slope"])} if "slope" in values else {}),
    )


def train_config(spec: StudySpec, hyperparameters: Hyperparameters, objective_metric: str) -> TrainConfig:
    """The training of one trial.

    Args:
        spec: Gives epochs, patience and precision.
        hyperparameters: All of the trial's, as `suggest` gives them.
        objective_metric: Name of the first objective, which decides the best epoch.
    """
    values = dict(hyperparameters)
    clip_norm = values["clip_norm"]
    return TrainConfig(
        epochs=spec.training.epochs,
        batch_size=int(values["batch_size"]),
        optimizer=str(values["optimizer"]),
        learning_rate=float(values["learning_rate"]),
        momentum=float(values.get("momentum", 0.0)),
        nesterov=bool(values.get("nesterov", False)),
        weight_decay=float(values["weight_decay"]),
        schedule=str(values["schedule"]),
        warmup_epochs=int(values["warmup_epochs"]),
        clip_norm=None if clip_norm is False else float(clip_norm),
        patience=spec.training.patience,
        objective=objective_metric,
        precision=spec.training.precision,
        noise=float(values.get("noise", 0.0)),
        mixup=float(values.get("mixup", 0.0)),
        label_smoothing=float(values.get("label_smoothing", 0.0)),
        class_weights=str(values.get("class_weights", "none")),
        n_frozen=int(values.get("n_frozen", 0)),
        backbone_rate=float(values.get("backbone_rate", 1.0)),
    )
