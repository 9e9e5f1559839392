"""Manifests that someone wrote anew: the sums are right, and what stands there is not."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlcore.exported import FILES
from dlcore.files import read_sealed, write_sealed

WRONG: tuple[Any, ...] = (
    None, [], {}, "", "x", -1, 0, 1e308, 10**30, True, [None], [[]], {"": None}, [[[[]]]], ["x", 1], "\0", [{}], -0.5,
)  # fmt: skip
"""What takes the place of something."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys and indices that lead to everything inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*path, key)
        yield from places(part, (*path, key))


def forged(manifest: dict[str, Any], chance: random.Random) -> tuple[dict[str, Any], str]:
    """A manifest in which one thing is gone, doubled or another one, and what was done."""
    new = json.loads(json.dumps(manifest))
    everywhere = [path for path in places(new) if path[0] not in ("facts", "data", "versions", "check", "files")]
    by_root: dict[Any, list[tuple[Any, ...]]] = {}
    for path in everywhere:
        by_root.setdefault(path[0], []).append(path)
    path = chance.choice(by_root[chance.choice(sorted(by_root))])
    parent = new
    for key in path[:-1]:
        parent = parent[key]
    way = chance.choice(("remove", "replace", "replace", "replace", "double"))
    if way == "remove":
        del parent[path[-1]]
    elif way == "double" and isinstance(parent, list):
        parent.insert(path[-1], parent[path[-1]])
    else:
        parent[path[-1]] = chance.choice(WRONG)
    return new, f"{way} {'/'.join(map(str, path))} {parent[path[-1]] if way == 'replace' else ''}"


def forge(folder: Path, manifest: dict[str, Any]) -> None:
    """Write another manifest into an export, with right sums."""
    files = read_sealed(folder, FILES)
    write_sealed(folder, {**files, "model.json": json.dumps(manifest).encode()})
