"""The manifest of an export, `model.json`: what must stand in it before anything in it is used.

Sums tell that a file is as it was written; this tells that whoever wrote it, with right sums, described a network.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlcore.cells import DATE_FORMS, GROUPED, PLAIN, parts_of_form
from dlcore.config import TASKS
from dlcore.dates import FIRST_S, LAST_S
from dlcore.targets import Label

KINDS = ("numeric", "boolean", "date", "categorical")


@dataclass(frozen=True, slots=True)
class Interface:
    """What goes into a graph and what comes out: our names -> names in the graph.

    The two differ only where ONNX needs it: a column must not be called like an output, nor have no name.
    """

    inputs: dict[str, str]
    """Column -> rank-1 input: text for categories, double for all other columns."""
    outputs: dict[str, str]
    """Classification: "label", then one "probability_<class>" each; regression: "prediction" of one target,
    "prediction_<target>" of several. -> rank-1 output."""


def name_interface(
    feature_names: Sequence[str], target_names: Sequence[str], class_labels: Sequence[Label]
) -> Interface:
    """Name inputs and outputs; no labels mean regression."""
    if class_labels:
        wanted = ["label", *(f"probability_{label}" for label in class_labels)]
    else:
        several = len(target_names) > 1
        wanted = [f"prediction_{name}" for name in target_names] if several else ["prediction"]
    taken: set[str] = set()
    inputs = {name: _free_name(name, taken) for name in feature_names}
    return Interface(inputs, {name: _free_name(name, taken) for name in wanted})


def _free_name(name: str, taken: set[str]) -> str:
    """`name`, or the first of name_, name__, ... that is not taken; takes it."""
    name = name or "_"
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def what_is_wrong(manifest: Mapping[str, Any]) -> str:
    """What a manifest must have and has not, in a sentence; "" is nothing.

    Only its form is looked at: whether numbers in it are the right ones, no one can tell.
    """
    return next(_mistakes(manifest), "")


def _mistakes(manifest: Mapping[str, Any]) -> Iterator[str]:
    task: Any = manifest.get("task")
    labels: Any = manifest.get("class_labels")
    targets: Any = manifest.get("target_names")
    if task not in TASKS:
        yield f"task must be one of {', '.join(TASKS)}"
    if not _is_list(targets, str) or not targets:
        yield "target_names must be texts"
    if not any(_is_list(labels, kind) for kind in (str, bool, int, float)):
        yield "class_labels must be texts, or numbers"
    elif len({*labels}) != len(labels) or not (len(labels) == 2 if task == "binary" else _fits(len(labels), task)):
        yield f"class_labels must be those of a {task} task, each once"
    columns: Any = manifest.get("columns")
    if not _is_list(columns, dict) or not columns:
        yield "columns must be objects"
    for column in columns:
        yield from _mistakes_of(column)
    names = [column["name"] for column in columns]
    if len({*names}) != len(names):
        yield "columns must have different names"
    wanted = name_interface(names, targets, labels)
    for key, expected in (("inputs", wanted.inputs), ("outputs", wanted.outputs)):
        found = manifest.get(key)
        if not isinstance(found, dict) or list(found.items()) != list(expected.items()):
            yield f"{key} must be those of its columns and targets"
    data = manifest.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        yield "data must have a name"
    if not isinstance(manifest.get("versions"), dict) or not isinstance(manifest.get("facts", {}), dict):
        yield "versions and facts must be objects"


def _fits(n_labels: int, task: object) -> bool:
    return n_labels == 0 if task == "regression" else n_labels > 1


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _mistakes_of(column: Mapping[str, Any]) -> Iterator[str]:
    name, kind, form = (column.get(key) for key in ("name", "kind", "form"))
    if not isinstance(name, str) or not isinstance(form, str):
        yield "a column must have a name and a form"
        return
    if kind not in KINDS:
        yield f"the kind of column {name!r} must be one of {', '.join(KINDS)}"
    if kind == "date" and form and form not in DATE_FORMS:
        yield f"the form of column {name!r} must be one of dates"
    if kind == "numeric" and parts_of_form(form)[1] not in (PLAIN, *GROUPED):
        yield f"the form of column {name!r} must be one of numbers"
    if not _is_example(column.get("example"), kind):
        yield f"the example of column {name!r} must be a cell of it"
    rules = column.get("cells", [])
    if not _is_list(rules, list) or not all(_is_list(rule, str) and len(rule) == 2 for rule in rules):
        yield f"the cells of column {name!r} must be read by pairs of texts"


def _is_example(value: object, kind: object) -> bool:
    if value is None:
        return True
    if kind == "categorical":
        return isinstance(value, str | int)
    if kind == "date":
        return isinstance(value, str) or (isinstance(value, int | float) and FIRST_S <= value <= LAST_S)
    return isinstance(value, int | float)
