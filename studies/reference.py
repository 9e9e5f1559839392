"""The reference of the spec as a page, made from the classes that check it.

`python -m studies.reference FOLDER` (`make reference`) writes it and the JSON Schema; a test holds what is in `docs/`
against the code.
"""

import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from studies.hyperparameters import (
    FIXED,
    OF_TRANSFER,
    RULES,
    Range,
    Rule,
    Setting,
    default_space,
    fixed_learning_rate,
    plain,
    table_space,
)
from studies.spec import StudySpec, bundled
from studies.spec_schema import MEANINGS, TABLES, meaning, of_rule, schema, tidy

PAGE, SCHEMA = "spec.md", "spec.schema.json"


def page() -> str:
    """The reference as Markdown."""
    lines = [_HEAD.format(bundled=", ".join(f"`{name}`" for name in bundled()))]
    lines += ["## The file as a whole", "", *_key_rows(StudySpec, "")]
    for key, model in TABLES.items():
        title = f"`[{key}]`" if "." not in key else f"`{key.rpartition('.')[2]}` in `[{key.rpartition('.')[0]}]`"
        lines += ["", f"## {title}", "", _said(model), "", *_key_rows(model, key)]
    lines += ["", _SPACE, "", *_space_rows(), ""]
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Write both files."""
    (folder / PAGE).write_text(page())
    (folder / SCHEMA).write_text(json.dumps(schema(), indent=2) + "\n")


def _said(model: type[BaseModel]) -> str:
    """What a section is for; where its keys are checked is nothing to a user."""
    return inspect.cleandoc(model.__doc__ or "").replace("; each key as in ", "\0").partition("\0")[0].rstrip(".") + "."


def _key_rows(model: type[BaseModel], section: str) -> Iterator[str]:
    """A Markdown table of a section's keys."""
    properties = StudySpec.model_json_schema(by_alias=True)
    own = properties if model is StudySpec else properties["$defs"][model.__name__]
    tidy(own, model)
    yield "| key | takes | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        key = field.alias or name
        takes = _takes(section, key, own["properties"][key])
        yield f"| `{key}` | {takes} | {_default(key, field)} | {meaning(model, name)} |"


def _takes(section: str, key: str, own: Mapping[str, Any]) -> str:
    """The values of a key in words."""
    dotted = f"{section}.{key}".lstrip(".")
    if dotted in TABLES or key == "search_space":
        also = " or `false`" if key == "halving" else ""
        return f"a [table](#{_anchor(dotted)}){also}" + (", a name, or a list" if key == "objective" else "")
    if "anyOf" in own:
        return " or ".join(dict.fromkeys(_takes(section, "", choice) for choice in own["anyOf"]))
    if "enum" in own:
        return ", ".join(f"`{name}`" for name in own["enum"])
    if "const" in own:
        return "`false`"
    kinds = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "`true` or `false`"}
    kinds |= {"array": "a list of texts", "object": "a table of texts"}
    return kinds[own["type"]] + _bounds(own)


def _bounds(own: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {_number(own[key])}" for key, sign in signs.items() if key in own]
    return " " + " and ".join(found) if found else ""


def _number(value: float) -> str:
    return "2⁶³" if value >= 2**53 else f"{value:,.10g}" if isinstance(value, int) else f"{value:g}"


def _default(key: str, field: FieldInfo) -> str:
    """A key's default as a spec would say it."""
    if field.is_required() and key != "search_space":
        return "must be there"
    default = field.default
    if key == "budget" or (key == "trials" and default is None):
        return "64 trials, where no seconds are granted" if key == "trials" else "64 trials"
    if isinstance(default, BaseModel) or default in (None, (), {}) or key == "search_space":
        return "-"
    return f"`{json.dumps(default)}`"


def _space_rows() -> Iterator[str]:
    """A Markdown table of the hyperparameters."""
    bundled_space, own = default_space("sgd"), table_space({})
    yield "| hyperparameter | takes | not searched | searched by default | in a table of your own | meaning |"
    yield "|---|---|---|---|---|---|"
    for name, rule in RULES.items():
        takes = {"integer": "whole numbers", "number": "numbers", "switch": "`true`, `false`"}.get(rule.kind)
        takes = ", ".join(f"`{n}`" for n in rule.names) if takes is None else takes + _bounds(_value_of(rule))
        takes += ", or `false`" if rule.can_be_off else ""
        only = f" Only with {rule.only_with[0]} `{rule.only_with[1]}`." if rule.only_with else ""
        spaces = [f"{_setting(space[name])}" if name in space else "-" for space in (bundled_space, own)]
        yield f"| `{name}` | {takes} | {_fixed(name)} | {' | '.join(spaces)} | {MEANINGS[name]}{only} |"


def _value_of(rule: Rule) -> dict[str, Any]:
    choices: list[dict[str, Any]] = of_rule(rule)["anyOf"]
    first = choices[0]
    found: dict[str, Any] = first["anyOf"][0] if "anyOf" in first else first
    return found


def _fixed(name: str) -> str:
    if name == "learning_rate":
        return f"`{fixed_learning_rate('sgd')}`, `{fixed_learning_rate('adamw')}` with adamw"
    if name in OF_TRANSFER[1:]:
        return "searched where there is a [`[transfer]`](#transfer)"
    if name in FIXED:
        return f"`{json.dumps(FIXED[name])}`"
    return "as in [`[data]`](#data)" if name == "preprocess" else "as in [`[training]`](#training)"


def _setting(setting: Setting) -> str:
    if isinstance(setting, Range):
        return f"{setting.low:g} to {setting.high:g}" + (", log" if setting.log else "")
    value = plain(setting)
    return ", ".join(f"`{v}`" for v in value) if isinstance(value, list) else f"`{value}`"


def _anchor(dotted: str) -> str:
    """Of a heading, as Python-Markdown makes it."""
    parent, _, last = dotted.rpartition(".")
    return f"{last}-in-{parent}" if parent else last


_HEAD = """# The spec

<!-- made from the code by `make reference`; a test fails where they differ -->

A spec is a TOML file; `study` and `[data]` must be there, all else has a default. These come with dlcore:
{bundled} (`studies run wine` runs one). A wrong spec is answered with all its mistakes at once, before any work starts;
a key that is not below is a mistake too.

Editors complete and check it by [spec.schema.json](spec.schema.json): with Taplo (Even Better TOML in VS Code) the
first line `#:schema ./spec.schema.json`, or the file's address, does it.
"""
_SPACE = """## `[search_space]`

A hyperparameter is searched where it has a list of values, `["relu", "tanh"]`, or a range,
`{ low = 16, high = 256 }`: with `log = true` it is drawn evenly on a logarithmic scale, with `step = 16` from low,
low + step, ... A single value fixes it. A hyperparameter that is not named keeps the value in the column "not
searched". Without the table the default space is searched, which is another one for a table of your own (`path`, or
`openml:ID`)."""


if __name__ == "__main__":
    write(Path(sys.argv[1]))
