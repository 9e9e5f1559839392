"""The JSON Schema of a spec, made from the classes that check it, for editors that complete and check TOML.

What a key means is the docstring behind its field in `studies.sections`, or behind the field of that name in
`dlcore.config`.
"""

import ast
import inspect
import textwrap
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from dlcore.config import DataConfig, ModelConfig, PreprocessConfig, SplitConfig, TrainConfig
from studies import sections
from studies.hyperparameters import RULES, Rule
from studies.spec import StudySpec

TABLES: dict[str, type[sections.Section]] = {
    "objective": sections.ObjectiveSection,
    "budget": sections.Budget,
    "search": sections.Search,
    "search.halving": sections.Halving,
    "data": sections.DataSection,
    "data.split": sections.SplitSection,
    "training": sections.Training,
    "transfer": sections.TransferSection,
    "final": sections.FinalSection,
}
_TOP = {
    "study": "The study's name, unique in its database: running the same spec again goes on with it. Letters, digits, "
    "`_`, `.` and `-`.",
    "seed": "Everything random follows from it: splits, suggestions, weights, order of rows, dropout.",
    "objective": "What the study looks for, a metric on val: a name, a table, or a list of either, which gives a "
    "Pareto front. Default: accuracy, for a regression rmse.",
    "budget": "What the study may cost.",
    "search": "How hyperparameters are proposed, and who is stopped early.",
    "data": "Which table.",
    "training": "How every trial trains.",
    "transfer": "From which trained network trials may start.",
    "final": "How the winner is found among the best trials.",
    "recipe": "`overfit-first`: prove on a few rows that the network can learn, then search the cures for overfitting, "
    "then the rest; `none` searches all at once.",
    "search_space": "Hyperparameters and their ranges.",
}
MEANINGS = {
    "depth": "Hidden layers; 0 is a linear model.",
    "width": "Units of the first hidden layer, and of all of them where `funnel` is 1.",
    "funnel": "Width of each hidden layer divided by that of the layer before.",
    "activation": "Function behind each hidden layer.",
    "slope": "Slope of leaky_relu left of 0.",
    "initialization": "From what the weights are drawn before training; `pretrained`: the hidden layers are those of "
    "the source of `[transfer]`.",
    "n_frozen": "First hidden layers that keep the source's weights: they are never updated.",
    "backbone_rate": "Learning rate of the source's layers, divided by that of the head.",
    "dropout": "Share of hidden units that are left out of a training step.",
    "normalization": "Over what hidden units are standardised: the rows of a batch, the units of a layer, or nothing.",
    "optimizer": "Who updates the weights.",
    "learning_rate": "Size of a step; the schedule scales it.",
    "momentum": "Share of the last step that goes on; AdamW has its own.",
    "nesterov": "Nesterov's form of momentum.",
    "weight_decay": "How strongly weights are pulled to 0.",
    "batch_size": "Rows of one step.",
    "schedule": "How the learning rate moves from epoch to epoch.",
    "warmup_epochs": "Epochs over which the learning rate rises from 0.",
    "clip_norm": "Largest norm of all gradients together; false does not clip.",
    "noise": "Standard deviation of what is added to each input in training.",
    "mixup": "Both parameters of the Beta distribution by which rows are mixed in training; 0 does not.",
    "label_smoothing": "Share of each row's class that is spread over all classes in training. Not in a regression.",
    "class_weights": "`balanced` lets rows of rare classes weigh more in training. Not in a regression.",
    "preprocess": "How numeric columns are scaled.",
}
"""What each hyperparameter is, in the words of a user."""
_NO_NULL = {"type": "null"}


def schema() -> dict[str, Any]:
    """JSON Schema of a spec, as editors read it for TOML: each key with its meaning, type, bounds and default."""
    found = StudySpec.model_json_schema(by_alias=True)
    models = {model.__name__: model for model in TABLES.values()}
    for name, definition in found["$defs"].items():
        tidy(definition, models[name])
    tidy(found, StudySpec)
    for key, text in _TOP.items():
        found["properties"][key] = _described(found["properties"][key], text)
    one = {"anyOf": [{"enum": list(sections.OBJECTIVES)}, {"$ref": "#/$defs/ObjectiveSection"}]}
    several = {"type": "array", "items": one, "minItems": 1}
    found["properties"]["objective"] = {"description": _TOP["objective"], "anyOf": [*one["anyOf"], several]}
    found["properties"]["study"]["pattern"] = f"^{sections.STUDY_NAME.pattern}$"
    found["properties"]["search_space"] = {
        "description": _TOP["search_space"],
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _described(of_rule(rule), MEANINGS[name]) for name, rule in RULES.items()},
    }
    found["required"] = ["study", "data"]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A spec of dlcore"}
    return head | found | {"title": "A spec of dlcore"}


def meaning(model: type[BaseModel], name: str) -> str:
    """What a key is for, in one line; of the class that checks it, else of dlcore's that it is handed to."""
    if model is StudySpec:
        return _TOP[model.model_fields[name].alias or name]
    owners: list[type[Any]] = [model, SplitConfig, DataConfig, PreprocessConfig, TrainConfig, ModelConfig]
    for owner in owners:
        if (text := _docstrings(owner).get(name)) is not None:  # type: ignore[arg-type]  # mypy: a class is hashable
            return text if owner is model else text.replace("None is", "false is")
    return ""


@cache
def _docstrings(owner: Hashable) -> dict[str, str]:
    """The strings behind a class's fields, each in one line."""
    assert isinstance(owner, type)
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if is_text and isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())  # type: ignore[attr-defined]
    return found


def tidy(definition: dict[str, Any], model: type[BaseModel]) -> None:
    """TOML has no null: a key that may be None may be left out, or is off by `false`."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        own = definition["properties"][key]
        own.pop("title", None)
        if own.get("default", 0) is None or isinstance(own.get("default"), dict):
            del own["default"]
        if "anyOf" in own:
            own["anyOf"] = [choice for choice in own["anyOf"] if choice != _NO_NULL]
            own["anyOf"] += [{"const": False}] if _can_be_off(field) else []
            if len(own["anyOf"]) == 1:
                own |= own.pop("anyOf")[0]
        if own.get("type") == "array" and own.get("items") == {"type": "string"}:
            del own["type"], own["items"]
            own["anyOf"] = [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
        if text := meaning(model, name):
            definition["properties"][key] = _described(own, text)
    definition.pop("title", None)


def _described(own: Mapping[str, Any], text: str) -> dict[str, Any]:
    return {"description": text} | {key: value for key, value in own.items() if key != "description"}


def _can_be_off(field: FieldInfo) -> bool:
    return any(isinstance(m, BeforeValidator) and m.func is sections.false_is_off for m in field.metadata)


def of_rule(rule: Rule) -> dict[str, Any]:
    """What `[search_space]` may say of a hyperparameter: one value, a list, or a range."""
    if rule.kind in ("name", "switch"):
        value: dict[str, Any] = {"enum": list(rule.names)} if rule.kind == "name" else {"type": "boolean"}
        return {"anyOf": [value, _list_of(value)]}
    number: dict[str, Any] = {"type": "integer" if rule.kind == "integer" else "number"}
    low = {"exclusiveMinimum" if rule.is_low_open else "minimum": rule.low}
    high = {"exclusiveMaximum" if rule.is_high_open else "maximum": rule.high} if rule.high < float("inf") else {}
    value = number | low | high
    ends: dict[str, Any] = {"low": number | {"minimum": rule.low} | high, "high": value}
    ends |= {"log": {"type": "boolean"}, "step": number | {"exclusiveMinimum": 0}}
    ranged = {"type": "object", "properties": ends, "required": ["low", "high"], "additionalProperties": False}
    one = {"anyOf": [value, {"const": False}]} if rule.can_be_off else value
    return {"anyOf": [one, _list_of(one), ranged]}


def _list_of(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
