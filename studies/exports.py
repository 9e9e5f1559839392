"""Exports as they lie on disk: whose they are, which of their files are damaged, what a killed writer left behind."""

import json
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlcore.errors import ExportError
from dlcore.files import SUMS_FILE, sha256
from studies.errors import UserError
from studies.records import StudyFacts

FILES = ("model.onnx", "weights.safetensors", "README.md", "predict.py", "model.json")
"""What an export holds beside the sums."""
_ADDED = ("README.md", "predict.py")
"""Those that exports of format_version 2 lack."""


@dataclass(frozen=True, slots=True)
class Found:
    """A folder that is an export, or was one."""

    folder: Path
    manifest: dict[str, Any] | None
    """None where it cannot be read."""

    @property
    def files(self) -> tuple[str, ...]:
        """What it must hold beside the sums."""
        is_older = (self.manifest or {}).get("format_version") == 2
        return tuple(name for name in FILES if not (is_older and name in _ADDED))

    @property
    def foreign(self) -> list[str]:
        """Names of what lies in it and is not of an export: a new export would not take its place."""
        return sorted({path.name for path in self.folder.iterdir()} - {SUMS_FILE, *FILES})

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says of the study and the trial; empty where it cannot be read."""
        facts = (self.manifest or {}).get("facts")
        return facts if isinstance(facts, dict) else {}

    @property
    def uuid(self) -> str | None:
        """Of the study."""
        uuid = self.facts.get("study_uuid")
        return uuid if isinstance(uuid, str) else None


def look(folder: Path) -> Found:
    """A folder, with its manifest if that can be read."""
    try:
        manifest = json.loads((folder / "model.json").read_bytes())
    except (OSError, ValueError):
        manifest = None
    return Found(folder, manifest if isinstance(manifest, dict) else None)


def refuse_other(folder: Path, facts: StudyFacts) -> None:
    """Refuse to replace the export of a study of another name: the trials of one may be called as another study is.

    Raises:
        UserError: It lies in the folder.
    """
    found = look(folder)
    if found.uuid not in (None, facts.uuid) and found.facts.get("study") != facts.name:
        raise UserError(
            f'{folder} is the export of study "{found.facts.get("study")}"; '
            "move it away, or give `studies export` another folder with --to"
        )


def find(root: Path) -> list[Found]:
    """The folders in the folder of exports."""
    if not root.is_dir():
        return []
    return [look(p) for p in sorted(root.iterdir()) if p.is_dir() and not p.is_symlink() and p.name[0] != "."]


def of_study(root: Path, name: str, uuid: str, others: frozenset[str]) -> list[Found]:
    """The exports of one study; one without a readable manifest is told by its name.

    Args:
        root: The folder of exports.
        name: Of the study.
        uuid: Of the study.
        others: Names of the other studies, which may begin as this one's does.
    """
    return [
        found
        for found in find(root)
        if found.uuid == uuid or (found.uuid is None and found.folder.name not in others and _is_named(found, name))
    ]


def _is_named(found: Found, name: str) -> bool:
    folder = found.folder.name
    number = folder.removeprefix(f"{name}-trial-")
    return folder == name or (number != folder and number.isdecimal())


def damaged(found: Found, onnx_sha256: str | None) -> list[str]:
    """Names of the files of an export that cannot be used, each with what is wrong.

    Args:
        found: The export.
        onnx_sha256: Of its graph by the study database, if that says so.
    """
    return list(_changed(found, onnx_sha256)) or list(_refused(found.folder))


def _refused(folder: Path) -> Iterator[str]:
    """What those say who load an export whose files all have their sums: somebody wrote them anew."""
    from dlcore.exported import ExportedModel  # onnx and onnxruntime are for those alone who look

    try:
        ExportedModel.load(folder)
    except ExportError as error:
        yield str(error).removeprefix(f"{folder}/")


def _changed(found: Found, onnx_sha256: str | None) -> Iterator[str]:
    """Names of files that are not as they were written.

    Each file has several witnesses: the sums, the manifest, and of the graph the study database. So the sums' own
    damage is told from that of the files.
    """
    contents, sums = {}, _sums(found.folder / SUMS_FILE)
    for name in found.files:
        try:
            contents[name] = sha256((found.folder / name).read_bytes())
        except OSError as error:
            yield f"{name}: {error.strerror}"
    told = (found.manifest or {}).get("files")
    witnesses = {name: told.get(name) if isinstance(told, dict) else None for name in found.files}
    witnesses["model.onnx"] = onnx_sha256 or witnesses["model.onnx"]
    right = {name for name, content in contents.items() if content in (witnesses[name], sums.get(name))}
    if onnx_sha256 is not None and contents.get("model.onnx") != onnx_sha256:
        right.discard("model.onnx")
    others_fit = all(sums.get(name) == contents.get(name) for name in found.files if name != "model.json")
    if "model.json" in contents and not others_fit and found.manifest is not None and "model.json" not in right:
        right.add("model.json")  # nobody but the sums tells of it, and they are wrong
    for name in contents:
        if name not in right:
            yield f"{name}: it is not as it was written"
    if any(sums.get(name) != contents[name] for name in right):
        yield f"{SUMS_FILE}: it does not tell what is there"


def _sums(path: Path) -> dict[str, str]:
    try:
        lines = path.read_bytes().decode(errors="replace").splitlines()
    except OSError:
        return {}
    return {line[66:]: line[:64] for line in lines if line[64:66] == "  "}


def leftovers(root: Path) -> list[Path]:
    """Folders that a killed writer of exports left behind: a draft, or the old one that was replaced."""
    if not root.is_dir():
        return []
    hidden = [p for p in sorted(root.iterdir()) if p.is_dir() and not p.is_symlink() and p.name[0] == "."]
    return [p for p in hidden if p.name.endswith((".new", ".old"))]


def study_of(leftover: Path, names: Collection[str]) -> str | None:
    """Which of the studies of these names a leftover is of, by its own name; None where it is of none of them."""
    place = leftover.name[1:-4]
    return next((name for name in (place, re.sub(r"-trial-\d+$", "", place)) if name in names), None)


def clear(leftover: Path) -> None:
    """Remove what a killed writer left; an old export whose successor never came is put back."""
    place = leftover.with_name(leftover.name[1:-4])
    if leftover.name.endswith(".old") and not place.exists():
        leftover.rename(place)
    else:
        shutil.rmtree(leftover)


def remove(folder: Path) -> None:
    """Delete an export, its manifest last: killed in between, the next call still knows whose it is."""
    for name in (SUMS_FILE, *FILES):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
