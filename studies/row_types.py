"""What a row of an export and its answer are in JSON, as pydantic models; and what the export says of itself."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictBool, StrictInt, StrictStr, create_model

from dlcore.cells import ISO
from dlcore.exported import ExportedModel

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
TYPES: Mapping[str, Any] = {
    "numeric": Number | None,
    "boolean": StrictBool | Literal["true", "false", "yes", "no"] | None,
    "date": StrictStr | Number | None,
    "categorical": StrictStr | StrictInt | None,
}
"""Kind of a column -> what JSON may hold; null is missing."""
_MEANT = {
    "numeric": "a number, or null",
    "boolean": "true, false, yes or no, or null",
    "date": "a date such as 2024-02-29 or 2024-02-29T12:30:00Z{}, seconds since 1970-01-01 UTC, or null",
    "categorical": "a text, or null",
}
_LABELS: Mapping[type, Any] = {bool: bool, int: int, float: float, str: str}


def describe(model: ExportedModel) -> dict[str, Any]:
    """Facts of the manifest, for people and machines."""
    facts: Mapping[str, Any] = model.manifest.get("facts") or {}  # type: ignore[assignment]
    return {
        "title": str(facts.get("study") or model.manifest["data"]["name"]),  # type: ignore[index]
        "task": model.task,
        "columns": [
            {"name": name, "kind": kind, "example": example}
            for (name, kind), example in zip(model.kinds.items(), _examples(model), strict=True)
        ],
        "answers": list(model.manifest["outputs"]),  # type: ignore[call-overload]
        "class_labels": list(model.class_labels),
        "facts": _public(facts),
        "versions": model.manifest["versions"],
    }


def _public(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts for whoever asks: of the training's table its name alone, not where it lies on the machine of the study."""
    data = spec.get("data") if isinstance(spec := facts.get("spec"), dict) else None
    if not isinstance(data, dict) or not isinstance(data.get("path"), str):
        return dict(facts)
    return {**facts, "spec": {**facts["spec"], "data": {**data, "path": Path(data["path"]).name}}}


def _meant(model: ExportedModel, name: str) -> str:
    """What JSON may hold in a column, in words."""
    form = model.forms[name]
    return _MEANT[model.kinds[name]].format(f", or written as {form}" if form not in ("", ISO) else "")


def _examples(model: ExportedModel) -> list[Any]:
    """A value of each column, as JSON has it."""
    found = []
    for column in model.manifest["columns"]:  # type: ignore[attr-defined]
        value, kind = column.get("example"), column["kind"]
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        if kind == "date" and isinstance(value, int | float):
            value = datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if kind == "boolean" and value is not None:
            value = bool(value)
        found.append(value)
    return found


def row_type(model: ExportedModel) -> Any:
    """A row of the export's columns, all of them there; other keys are not read."""
    fields: dict[str, Any] = {
        f"c{i}": (TYPES[kind], Field(alias=name, title=name, description=f"{kind}: {_meant(model, name)}"))
        for i, (name, kind) in enumerate(model.kinds.items())
    }
    example = dict(zip(model.kinds, _examples(model), strict=True))
    return create_model("Row", __config__=ConfigDict(extra="ignore", json_schema_extra={"example": example}), **fields)


def answer_type(model: ExportedModel) -> Any:
    """The answer to a row: a value of each output."""
    label = type(model.class_labels[0]) if model.class_labels else float
    fields: dict[str, Any] = {
        f"a{i}": (_LABELS.get(label, str) if name == "label" and model.class_labels else float, Field(alias=name))
        for i, name in enumerate(list(model.manifest["outputs"]))  # type: ignore[call-overload]
    }
    return create_model("Answer", **fields)
