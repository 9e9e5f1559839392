"""What is wrong with a spec, in the user's words: the key, the rule, the value, the nearest valid name.

A mistake is plain data, so that every check can go on and all of them are said at once. Nothing here raises.
"""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pydantic_core import ErrorDetails

_MAX_SHOWN = 60
_TYPES = {
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "finite_number": "must be finite",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "string_type": "must be text",
    "tuple_type": "must be a list",
}
_BOUNDS = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}


class Mistake(NamedTuple):
    """One thing that the user has to mend."""

    key: str
    """Dotted path of the key in the TOML file; empty for the file as a whole."""
    text: str
    """What must hold, and what was found."""


def shown(value: object) -> str:
    """A value as it stands in TOML, cut to one short line."""
    # JSON writes all but infinite numbers as TOML does.
    text = repr(value) if isinstance(value, float) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """`; did you mean "x"?` for the nearest valid name, or nothing where none is near."""
    near = difflib.get_close_matches(str(name).lower(), list(names), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def must_be_one_of(value: object, names: Sequence[str]) -> str:
    """The text of a mistake about a name."""
    return f"must be one of {', '.join(names)}; got {shown(value)}{did_you_mean(value, names)}"


def unknown_keys(prefix: str, given: Iterable[str], known: Iterable[str]) -> list[Mistake]:
    """One mistake for each given key that is not known."""
    names = list(known)
    return [Mistake(f"{prefix}{key}", f"unknown key{did_you_mean(key, names)}") for key in given if key not in names]


def from_pydantic(error: ErrorDetails, section: str, known: Mapping[str, Sequence[str]]) -> Mistake:
    """pydantic's finding in our words.

    Args:
        error: One of `ValidationError.errors()`.
        section: The section that was read; "" is the whole spec.
        known: Section -> its keys, to find the nearest name of an unknown one.
    """
    # Places in a list are left out: `objective` is a list of tables as well as a single one.
    path = [section] * bool(section) + [part for part in error["loc"] if isinstance(part, str)]
    key, kind, value, context = ".".join(path), error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return Mistake(key, "is required")
    if kind == "extra_forbidden":
        return unknown_keys("".join(f"{part}." for part in path[:-1]), path[-1:], known[".".join(path[:-1])])[0]
    if kind == "value_error":
        return Mistake(key, str(context["error"]))
    if kind in _BOUNDS:
        sign, name = _BOUNDS[kind]
        bound = f"{context[name]:g}" if isinstance(context[name], float) else context[name]
        return Mistake(key, f"must be {sign} {bound}; got {shown(value)}")
    return Mistake(key, f"{_TYPES.get(kind, error['msg'])}; got {shown(value)}")


def message(name_of_file: str, mistakes: Sequence[Mistake]) -> str:
    """All mistakes as one text: a heading with their count, then one line each."""
    n = len(mistakes)
    width = max(len(mistake.key) for mistake in mistakes)
    lines = [f"  {mistake.key.ljust(width)}   {mistake.text}" for mistake in mistakes]
    return "\n".join([f"{name_of_file}: {n} mistake{'s' if n > 1 else ''}", *lines])
