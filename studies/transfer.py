"""The source of a study with a [transfer]: opened, and what it decides written into the spec.

All trials of such a study have the source's hidden layers in form: those that start from its weights, and those that
start from fresh ones beside them, so that they differ in nothing else. The spec that is stored says all of it, so that
nobody needs the source to read the study; whoever trains again needs it, and is refused another one.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from dlcore.data import DataSplits
from dlcore.errors import ExportError
from dlcore.transfer import Source, Transfer, read_source, transferred
from studies.errors import SpecError, UserError
from studies.hyperparameters import (
    OF_SOURCE,
    Setting,
    choices,
    only_value,
    plain,
    transfer_space,
)
from studies.mistakes import Mistake, message, shown
from studies.records import Value
from studies.space import widths
from studies.spec import StudySpec, spec_from_dict
from studies.spec_changes import refuse_other_source

_DIGITS = 12
"""Of a SHA-256 sum that people compare by eye."""


def open_source(spec: StudySpec) -> Source | None:
    """The source that a spec names; None where it names none.

    Raises:
        UserError: It cannot be read, is damaged, or cannot be started from.
        SpecChanged: It is not the one that the spec means.
    """
    if spec.transfer is None:
        return None
    try:
        source = read_source(Path(spec.transfer.source))
    except ExportError as error:
        raise UserError(str(error)) from error
    refuse_other_source(spec, source.fingerprint)
    return source


def resolved(spec: StudySpec, source: Source | None) -> StudySpec:
    """The spec with all that its source decides; itself where there is none.

    Raises:
        SpecError: It says otherwise somewhere.
    """
    if source is None or spec.transfer is None:
        return spec
    own, depth = _of_source(spec, source), len(source.backbone.widths)
    given = spec.search_space
    found = [
        Mistake(f"search_space.{name}", f"must be that of the source, {shown(own.get(name))}; leave it out")
        for name in OF_SOURCE
        if name in given and only_value(given[name]) != own.get(name)
    ]
    space = transfer_space(depth, is_grid=spec.search.sampler == "grid") | dict(given) | own
    deepest = max(map(int, choices(space["n_frozen"]) or ()))
    if deepest > depth:
        found.append(
            Mistake("search_space.n_frozen", f"must be <= {depth}, the hidden layers of the source; got {deepest}")
        )
    if found:
        raise SpecError(message(spec.study, found))
    data = spec.to_dict()
    data["transfer"]["fingerprint"] = source.fingerprint
    data["search_space"] = {name: plain(setting) for name, setting in space.items()}
    return spec_from_dict(data, spec.study)


def fitted(splits: DataSplits, source: Source | None) -> tuple[DataSplits, Transfer | None]:
    """The data as the source knows them, and the source for them; as they are where there is none.

    Args:
        splits: Read with `kinds_of(source)`.
        source: Of the study.

    Raises:
        DataError: The columns do not meet.
    """
    return (splits, None) if source is None else transferred(splits, source)


def kinds_of(source: Source | None) -> Mapping[str, str] | None:
    """The kinds of the columns that the source knows."""
    return None if source is None else source.kinds


def facts_of(transfer: Transfer) -> dict[str, object]:
    """What an export says of its study's source."""
    source = transfer.source
    own = {key: source.facts[key] for key in ("study", "trial") if key in source.facts}
    return {"from": source.name, "weights_sha256": source.weights_sha256, **own}


def source_line(transfer: Transfer) -> str:
    """What the plan says of the source."""
    source, own = transfer.source, transfer.source.backbone
    study, trial = source.facts.get("study"), source.facts.get("trial")
    of = f", trial {trial} of study {study}" if study is not None and trial is not None else ""
    units = ", ".join(map(str, own.widths))
    normal = "" if own.normalization == "none" else f", {own.normalization} normalization"
    layers = "hidden layer" if len(own.widths) == 1 else "hidden layers"
    return (
        f"{source.name}{of}: {len(own.widths)} {layers} of {units} units, {own.activation}{normal}, "
        f"weights {source.weights_sha256[:_DIGITS]}"
    )


def _of_source(spec: StudySpec, source: Source) -> dict[str, Setting]:
    """The values of `OF_SOURCE` that have a meaning for it.

    Raises:
        SpecError: Its layers are not as a spec can say them.
    """
    own = source.backbone
    found: dict[str, Value] = {
        "depth": len(own.widths),
        "width": own.widths[0],
        "activation": own.activation,
        "normalization": own.normalization,
        "preprocess": source.scaling or spec.data.preprocess,
    }
    if own.activation == "leaky_relu":
        found["slope"] = own.slope
    if len(own.widths) > 1:
        told = source.facts.get("hyperparameters")
        noted = told.get("funnel") if isinstance(told, Mapping) else None
        funnel = next((f for f in (noted, funnel_of(own.widths)) if _says(f, own.widths)), None)
        if funnel is None:
            units = ", ".join(map(str, own.widths))
            text = f"must be a network whose layers have one width, or narrow evenly; got layers of {units} units"
            raise SpecError(message(spec.study, [Mistake("transfer.from", text)]))
        found["funnel"] = float(funnel)
    return dict(found)


def funnel_of(units: Sequence[int]) -> float | None:
    """The `funnel` by which hidden layers of so many units follow from the first; None where there is none.

    Args:
        units: Of at least two layers.
    """
    low, high = 0.0, 1.0
    for before, after in pairwise(units):
        low, high = max(low, (after - 0.5) / before), min(high, (after + 0.5) / before)
    steps = len(units) - 1
    even = (units[-1] / units[0]) ** (1 / steps)
    return next((f for f in (1.0, even, (low + high) / 2) if _says(f, units)), None)


def _says(funnel: object, units: Sequence[int]) -> bool:
    """Whether a funnel makes these layers."""
    if not isinstance(funnel, int | float) or not (math.isfinite(funnel) and 0 < funnel <= 1):
        return False
    return widths({"depth": len(units), "width": units[0], "funnel": funnel}) == tuple(units)
