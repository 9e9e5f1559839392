"""What a spec would change in the stored study of its name: refused, but for its budget."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from studies.errors import SpecChanged
from studies.mistakes import shown
from studies.records import StudyFacts
from studies.spec import StudySpec, resolved_objectives, spec_from_dict


def differences(stored: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What a spec would change in a stored study: `search_space.width.high: 256 -> 512`.

    Args:
        stored: `StudySpec.to_dict()` of the stored one.
        new: Of the new one. Its budget may differ, and a cohort size that it does not set.
    """
    old, now = _flat(stored), _flat(new)
    free = {"search.cohort"} if now.get("search.cohort") is None else set()
    if now.get("transfer.fingerprint") is not None and now["transfer.fingerprint"] == old.get("transfer.fingerprint"):
        free.add("transfer.from")  # the same network in another place
    keys = [key for key in dict.fromkeys([*now, *old]) if not key.startswith("budget.") and key not in free]
    return [
        f"{key}: {_said(old, key)} -> {_said(now, key)}"
        for key in keys
        if old.get(key, _ABSENT) != now.get(key, _ABSENT)
    ]


def refuse_changes(stored: StudyFacts, spec: StudySpec) -> None:
    """Refuse a spec that differs from that of the stored study of its name in more than its budget.

    Raises:
        SpecChanged: It does; the message lists what would change.
    """
    # A key that is younger than the study has its default there; an objective that is written down may be the task's
    # default, which an earlier spec left out.
    before = spec_from_dict(stored.spec, spec.study)
    if spec.transfer is not None and spec.transfer.fingerprint is not None:
        refuse_other_source(before, spec.transfer.fingerprint)
    old = {**before.to_dict(), "objective": [asdict(o) for o in stored.objectives]}
    new = {**spec.to_dict(), "objective": [asdict(o) for o in resolved_objectives(spec, stored.task)]}
    if changes := differences(old, new):
        raise SpecChanged(
            f'study "{spec.study}" is in the database with another spec; only its budget may change:\n'
            + "\n".join(f"  {change}" for change in changes)
            + "\nGive the new spec another name, or take the changes back."
        )


def refuse_other_source(spec: StudySpec, fingerprint: str) -> None:
    """Refuse an export that is not the one from which a study began.

    Args:
        spec: Of the study.
        fingerprint: Of the export.

    Raises:
        SpecChanged: It is not.
    """
    if spec.transfer is not None and spec.transfer.fingerprint not in (None, fingerprint):
        raise SpecChanged(
            f'study "{spec.study}" starts from the network of {spec.transfer.source}, and another one lies there now; '
            "put the old export back, or give the spec another name"
        )


_ABSENT = object()


def _said(flat: Mapping[str, Any], key: str) -> str:
    return shown(flat[key]) if flat.get(key) is not None else "absent"


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
