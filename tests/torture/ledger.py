"""What a victim said that it did, kept outside of what is tested; and what a study database says beside it.

A line is written before and after each call that stores something. A process that is killed loses nothing that it had
handed to the kernel, so a line that was written is there afterwards.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from studies.records import COMPLETE, FAIL, FINISHED_STATES, PRUNED, EpochRecord, Suggestion, TrialRecord

EPOCHS = 6


@dataclass(slots=True)
class Faults:
    """What was promised and is not so; each is a list of sentences."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    zombies: list[str] = field(default_factory=list)
    false_reaps: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        return {f.name: len(getattr(self, f.name)) for f in fields(self)}

    def told(self) -> str:
        """The first of each kind; empty where there is none."""
        kinds = ((f.name, getattr(self, f.name)) for f in fields(self))
        return "\n".join(f"{kind} ({len(found)}): {'; '.join(found[:5])}" for kind, found in kinds if found)


class Ledger:
    """A victim's own file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, what: str, **more: object) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(file, (json.dumps({"what": what, **more}) + "\n").encode())
        os.close(file)


def lines(path: Path) -> list[dict[str, object]]:
    """What a victim wrote; a line that its end cut off was never said."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


# ---- what a life claims and tells; so whoever knows the life knows every bit of it


def suggestion(number: int, life: int) -> Suggestion:
    x = ((number * 2654435761 + life * 40503) % 1_000_003) / 1_000_003
    return Suggestion(number, {"x": x, "depth": life}, ("x",), {"life": life, "parts": [x, number]})


def result(asked: Suggestion, cohort: int, life: int) -> TrialRecord:
    """What a life finds in a trial, which another one may have asked."""
    number = asked.number
    value = ((number * 7919 + life * 104729) % 99991) / 99991
    state = (COMPLETE, PRUNED, COMPLETE, FAIL)[(number + life) % 4]
    curve = tuple(EpochRecord(e, value / e, value / 3 / e, value / 7, 0.1 / e, 1.7e9 + e) for e in range(1, EPOCHS + 1))
    return TrialRecord(
        number=number,
        state=state,
        hyperparameters=asked.hyperparameters,
        searched=asked.searched,
        cohort=cohort,
        n_parameters=9,
        values=None if state == FAIL else (value,),
        reason=f"by life {life}",
        rungs={} if state == FAIL else {1: value / 3, 3: value},
        curve=curve,
        best_epoch=None if state == FAIL else 3,
        best_val_loss=None if state == FAIL else value / 9,
        started_at=1.7e9,
        finished_at=1.7e9 + EPOCHS,
        duration_s=float(life),
        system_attrs=asked.system_attrs,
    )


def compare(
    ledgers: Mapping[int, Sequence[Mapping[str, object]]], found: Iterable[TrialRecord], faults: Faults
) -> None:
    """Hold the trials of a study, with curves, against all that its victims said; `ledgers` is by life."""
    stored = list(found)
    counts = Counter(t.number for t in stored)
    faults.doubled += [f"trial {number} is there {n} times" for number, n in counts.items() if n > 1]
    faults.lost += [f"trial {number} is missing" for number in range(max(counts, default=-1)) if number not in counts]
    kinds = ("claiming", "claimed", "telling", "told")
    said: dict[str, dict[int, list[int]]] = {what: defaultdict(list) for what in kinds}
    for life, own in ledgers.items():
        for line in own:
            what, numbers = str(line["what"]), line.get("numbers", ())
            assert isinstance(numbers, list | tuple)
            if what in said:
                for number in numbers:
                    said[what][number].append(life)
    for what in ("claimed", "told"):
        faults.doubled += [f"{what}: trial {n} by lives {who}" for n, who in said[what].items() if len(who) > 1]
        faults.lost += [f"{what}: trial {n} is not there" for n in said[what] if n not in counts]
    for trial in stored:
        n = trial.number
        askers = said["claimed"].get(n) or said["claiming"].get(n, [])
        asked = next((s for s in (suggestion(n, life) for life in askers) if s == trial.suggestion), None)
        if asked is None:
            faults.differences.append(f"trial {n} was not asked so by lives {askers}")
        elif trial.state in FINISHED_STATES:
            tellers = said["told"].get(n) or said["telling"].get(n, [])
            if trial not in [result(asked, trial.cohort, life) for life in tellers]:
                faults.differences.append(f"trial {n} was not told so by lives {tellers}")
        elif n in said["told"]:
            faults.lost.append(f"told: trial {n} is {trial.state}")
        elif trial.values is not None or trial.rungs or trial.curve:
            faults.differences.append(f"trial {n} is {trial.state} and holds results")
