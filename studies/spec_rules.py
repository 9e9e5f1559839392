"""What must hold between the keys of a spec. Each rule is a function of sections that are right by themselves.

A section that is wrong by itself is None here, and the rules that need it wait until it is mended.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from dlcore.config import LOWER_IS_BETTER, PRETRAINED
from studies.hyperparameters import (
    CURES,
    FIXED,
    MAX_GRID_RANGE,
    OF_SOURCE,
    OF_TRANSFER,
    OVERFIT_FIRST,
    RULES,
    Range,
    Setting,
    choices,
    is_searched,
    n_choices,
)
from studies.mistakes import Mistake, shown
from studies.sections import (
    FRAME,
    Budget,
    DataSection,
    FinalSection,
    ObjectiveList,
    ObjectiveSection,
    Search,
    Training,
    TransferSection,
)

MAX_GP_COHORT = 8
"""Asking a Gaussian process for a cohort grows with the cohort's square: 9 s for 48 asks on two cores."""
MAX_GRID_POINTS = 100_000
_STAGED = ("tpe", "random", "qmc")
"""Samplers that may search one thing in one cohort, and another in the next."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The sections of one spec that are right by themselves."""

    budget: Budget | None
    search: Search | None
    data: DataSection | None
    training: Training | None
    final: FinalSection | None
    transfer: TransferSection | None
    """None too where the spec has none."""
    space: Mapping[str, Setting]
    """Its settings that are right."""
    given: frozenset[str] | None
    """Names in the spec's [search_space], right or wrong; None where it has none, and the default one is taken."""
    objectives: ObjectiveList | None
    recipe: object = None
    """As the spec gives it."""
    has_transfer: bool = False
    """Whether the spec has a [transfer], right or wrong."""


def broken_rules(parts: Parts) -> list[Mistake]:
    """Every rule between keys that a spec breaks."""
    found: list[Mistake] = []
    if parts.objectives is not None:
        found += _objective_rules(parts.objectives.objectives)
    if parts.data is not None:
        found += _data_rules(parts.data)
    if parts.search is not None:
        found += _search_rules(parts.search)
    if parts.training is not None:
        found += _training_rules(parts.training, parts.search)
    if parts.final is not None:
        found += _final_rules(parts.final, parts.data)
    if parts.given is not None:
        if not parts.has_transfer or parts.given >= set(OF_TRANSFER):  # else the rest of those is searched
            found += _space_rules(parts.space, parts.given)
        if parts.training is not None:
            found += _space_and_training_rules(parts, parts.training)
        if parts.data is not None and "preprocess" in parts.given and "preprocess" in parts.data.model_fields_set:
            value = shown(parts.data.preprocess)
            found.append(Mistake("search_space.preprocess", f"is in [data] too, as {value}: leave one of them out"))
    found += _transfer_rules(parts) if parts.has_transfer else _without_transfer_rules(parts)
    if parts.recipe == OVERFIT_FIRST:
        found += _recipe_rules(parts)
    if parts.search is not None and parts.search.sampler == "grid":
        found += _grid_rules(parts.space, parts.given)
    return found


def _objective_rules(objectives: Sequence[ObjectiveSection]) -> Iterator[Mistake]:
    names = [section.metric for section in objectives]
    for i, (name, section) in enumerate(zip(names, objectives, strict=True)):
        if name in names[:i]:
            yield Mistake("objective.metric", f"must name each metric once; got {shown(name)} twice")
        sense = "minimize" if name in LOWER_IS_BETTER else "maximize"
        if section.direction not in (None, sense):
            yield Mistake("objective.direction", f'must be "{sense}" for {name}; got {shown(section.direction)}')
    if names and names[0] == "n_parameters":
        yield Mistake("objective.metric", "must be something that training changes; n_parameters can only be a second")


def _data_rules(data: DataSection) -> Iterator[Mistake]:
    if (data.source is None) == (data.path is None):
        found = "neither" if data.source is None else "both"
        yield Mistake("data", f'must have one of source (such as "sklearn:digits") and path (a CSV file); got {found}')
    elif (data.path is not None or data.source == FRAME) and not data.target:
        given = "path" if data.path is not None else "a frame"
        yield Mistake("data.target", f"is required with {given}: the column, or list of columns, to predict")
    elif data.source is not None and data.source.startswith("sklearn:"):
        if data.target:
            got = shown(list(data.target))
            yield Mistake("data.target", f"only goes with path: {data.source} has its own; got {got}")
        for key, names in (("kinds", list(data.kinds)), ("split", list(_split_columns(data)))):
            if names:
                yield Mistake(f"data.{key}", f"names columns of tables of your own, not of {data.source}")
    if doubled := set(data.target) & set(data.drop):
        yield Mistake("data.drop", f"must not hold a target; got {shown(sorted(doubled))}")
    yield from _column_rules(data)
    if len(data.target) > 1 and data.task in ("binary", "multiclass"):
        yield Mistake("data.target", f"must be one column where task is {data.task}; got {shown(list(data.target))}")
    if data.test_fraction == 0 and (by := list(_split_columns(data))):
        yield Mistake("data.test_fraction", f"must be > 0 where split names a {by[0]}, which says what is test; got 0")
    if data.val_fraction + data.test_fraction >= 1:
        yield Mistake(
            "data.test_fraction",
            "must leave rows to train on: val_fraction + test_fraction must be < 1; "
            f"got {data.val_fraction} + {data.test_fraction}",
        )


def _split_columns(data: DataSection) -> dict[str, str]:
    """What the rows are divided by -> the column."""
    named = {"column": data.split.column, "group": data.split.group, "time": data.split.time}
    return {key: name for key, name in named.items() if name is not None}


def _column_rules(data: DataSection) -> Iterator[Mistake]:
    """Of the columns that are named more than once."""
    named = _split_columns(data)
    if len(named) > 1:
        yield Mistake("data.split", f"must have one of column, group and time; got {' and '.join(named)}")
    for key, name in named.items():
        if name in (*data.target, *data.drop):
            yield Mistake(f"data.split.{key}", f"must be neither a target nor dropped; got {shown(name)}")
    if data.split.time is not None and data.split.folds is not None:
        yield Mistake("data.split.folds", "cannot go with time: a fold would learn from what comes later")
    if both := sorted(set(data.kinds) & {*data.target, *data.drop}):
        yield Mistake(
            "data.kinds", f"must name features; {shown(both)} are targets or dropped: task says what a target is"
        )


def _search_rules(search: Search) -> Iterator[Mistake]:
    if search.pruner is not None and search.halving is not None:
        yield Mistake("search.pruner", f"cannot go with halving: leave one of them out; got {shown(search.pruner)}")
    bounds = {"prune_below": search.prune_below, "prune_above": search.prune_above}
    given = [name for name, bound in bounds.items() if bound is not None]
    if search.pruner == "threshold" and not given:
        yield Mistake(
            "search.pruner", "threshold needs prune_below or prune_above: the value at which a trial is stopped"
        )
    if search.pruner != "threshold":
        yield from (Mistake(f"search.{name}", 'only goes with pruner = "threshold"') for name in given)
    if search.sampler == "gp" and (search.cohort or 1) > MAX_GP_COHORT:
        yield Mistake("search.cohort", f'must be <= {MAX_GP_COHORT} with sampler = "gp"; got {search.cohort}')
    if search.sampler == "nsga2" and search.cohort == 1:
        yield Mistake("search.cohort", 'must be >= 2 with sampler = "nsga2": a child has two parents; got 1')


def _training_rules(training: Training, search: Search | None) -> Iterator[Mistake]:
    if training.warmup_epochs > training.epochs:
        yield Mistake("training.warmup_epochs", f"must be <= epochs = {training.epochs}; got {training.warmup_epochs}")
    halving = search.halving if search else None
    if halving is not None and halving.first_rung >= training.epochs:
        yield Mistake(
            "search.halving.first_rung",
            f"must be < training.epochs = {training.epochs}, or nobody is halved; got {halving.first_rung}",
        )


def _final_rules(final: FinalSection, data: DataSection | None) -> Iterator[Mistake]:
    if data is not None and data.test_fraction == 0 and (final.baselines or final.ensemble):
        key = "baselines" if final.baselines else "ensemble"
        yield Mistake(f"final.{key}", "must be false where data.test_fraction = 0: test is where models are compared")
    if final.seeds == 1:
        yield Mistake("final.seeds", "must be >= 2, or 0 for no finals: one seed has no interval; got 1")
    if final.ensemble and final.seeds == 0:
        yield Mistake("final.ensemble", "needs finals: their networks are what it is made of; final.seeds is 0")


def _space_rules(space: Mapping[str, Setting], given: frozenset[str]) -> Iterator[Mistake]:
    if given == space.keys() and not any(is_searched(setting) for setting in space.values()):
        yield Mistake("search_space", "must leave at least one hyperparameter to choose: give a range or a list")


def _space_and_training_rules(parts: Parts, training: Training) -> Iterator[Mistake]:
    space, given = parts.space, parts.given or frozenset()
    waiting = () if parts.has_transfer else OF_TRANSFER[1:]  # another rule speaks of them
    for name in [name for name in RULES if name in given and name not in waiting]:
        if name in training.model_fields_set:
            value = shown(getattr(training, name))
            yield Mistake(f"search_space.{name}", f"is in [training] too, as {value}: leave one of them out")
        if (condition := RULES[name].only_with) is not None:
            other, value = condition
            setting = space[other] if other in space else getattr(training, other, None) or FIXED[other]
            if not (other in given and other not in space) and value not in (choices(setting) or ()):
                yield Mistake(f"search_space.{name}", f"has no meaning where {other} is never {value}")
    depth = space.get("depth", FIXED["depth"])
    deepest = depth.high if isinstance(depth, Range) else max(depth) if isinstance(depth, tuple) else depth
    if "funnel" in space and int(deepest) < 2 and not ("depth" in given and "depth" not in space):
        yield Mistake("search_space.funnel", "has no meaning where depth is never above 1")
    warmup = space.get("warmup_epochs", 0)
    longest = warmup.high if isinstance(warmup, Range) else max(warmup) if isinstance(warmup, tuple) else warmup
    if int(longest) > training.epochs:
        yield Mistake("search_space.warmup_epochs", f"must be <= training.epochs = {training.epochs}; got {longest}")


def class_rules(space: Mapping[str, Setting], training: Training) -> Iterator[Mistake]:
    """What of a spec has no meaning where its task is found to be a regression."""
    for name in [name for name, rule in RULES.items() if rule.only_classes]:
        setting = space.get(name, getattr(training, name))
        if choices(setting) != (RULES[name].idle,):
            where = "search_space" if name in space else "training"
            yield Mistake(f"{where}.{name}", "has no meaning in a regression, which has no classes: leave it out")


def _transfer_rules(parts: Parts) -> Iterator[Mistake]:
    """What the source of a [transfer] decides, nobody else can."""
    for name in [name for name in OF_SOURCE if name in parts.space and is_searched(parts.space[name])]:
        yield Mistake(f"search_space.{name}", "is that of the source of [transfer]: leave it out")
    for key, section, name in (("training", parts.training, "normalization"), ("data", parts.data, "preprocess")):
        if section is not None and name in section.model_fields_set:
            yield Mistake(f"{key}.{name}", "is that of the source of [transfer]: leave it out")
    if PRETRAINED not in (choices(parts.space.get("initialization", PRETRAINED)) or ()):
        text = f'must have "{PRETRAINED}" where there is a [transfer]: leave one of them out'
        yield Mistake("search_space.initialization", text)
    if parts.search is not None and parts.search.max_parameters is not None:
        text = "has no meaning with [transfer]: all networks are as large as its source"
        yield Mistake("search.max_parameters", text)


def _without_transfer_rules(parts: Parts) -> Iterator[Mistake]:
    names = [name for name in OF_TRANSFER[1:] if name in (parts.given or ())]
    if PRETRAINED in (choices(parts.space.get("initialization", "default")) or ()):
        names.insert(0, "initialization")
    for name in names:
        what = f'"{PRETRAINED}" needs' if name == "initialization" else "needs"
        yield Mistake(f"search_space.{name}", f'{what} a [transfer]: from = "FOLDER", the export of a trained network')


def _recipe_rules(parts: Parts) -> Iterator[Mistake]:
    if parts.search is not None and parts.search.sampler not in _STAGED:
        names = ", ".join(_STAGED)
        yield Mistake(
            "recipe", f"needs search.sampler to be one of {names}, which take stages; got {parts.search.sampler}"
        )
    searched = [name for name, setting in parts.space.items() if is_searched(setting)]
    if parts.given is not None and parts.given == frozenset(parts.space):
        if not any(name in CURES for name in searched):
            yield Mistake("recipe", f"needs a cure for overfitting in search_space: one of {', '.join(CURES)}")
        if searched and all(name in CURES for name in searched):
            yield Mistake("recipe", "needs something to tune in search_space beside the cures, such as learning_rate")


def _grid_rules(space: Mapping[str, Setting], given: frozenset[str] | None) -> Iterator[Mistake]:
    if given is None:
        yield Mistake("search_space", 'is required with sampler = "grid": lists, or ranges with a step')
        return
    endless = [
        name
        for name, setting in space.items()
        if isinstance(setting, Range)
        and is_searched(setting)
        and setting.step is None
        and (setting.n_values or MAX_GRID_RANGE + 1) > MAX_GRID_RANGE
    ]
    for name in endless:
        yield Mistake(f"search_space.{name}", 'must be a list or a range with a step where sampler = "grid"')
    n_points = prod(n_choices(setting) or 1 for setting in space.values() if not endless)
    if not endless and n_points > MAX_GRID_POINTS:
        yield Mistake("search_space", f"must have <= {MAX_GRID_POINTS} points as a grid; got up to {n_points}")
