"""What a study does, for machines: one JSON object a line, on standard output, each with its kind and its time.

docs/terminal.md documents every kind and key; a test holds the page against what is written. Numbers that are not
finite are null.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TextIO

from studies import finals
from studies.records import EpochDone, Objective, TrialRecord
from studies.tally import Tally, pruned_at

_EPOCH_EVERY_S = 0.2
"""An epoch is told so often at most: a population has thousands a second."""


class JsonDisplay:
    """Writes what happens as lines of JSON."""

    def __init__(self, out: TextIO) -> None:
        """Write to `out`."""
        self._out = out
        self._tally: Tally | None = None
        self._said = float("-inf")

    def say(self, event: str, **what: object) -> None:
        """Write one event."""
        line = {"event": event, "time": round(time.time(), 3), **what}
        print(json.dumps(finals.finite(line), ensure_ascii=False, allow_nan=False), file=self._out, flush=True)

    def note(self, line: str) -> None:
        """What people are told in words; a warning is an event of its own."""
        if line.startswith("warning: "):
            self.say("warning", text=line.removeprefix("warning: "))
        elif line:
            self.say("note", text=line)

    def begin(self, tally: Tally) -> None:
        """Training begins."""
        self._tally, facts = tally, tally.facts
        self.say(
            "began",
            study=facts.name,
            objectives=[asdict(o) for o in facts.objectives],
            task=facts.task,
            data=facts.data_name,
            trials=tally.n_done,
            budget=tally.n_trials,
            cohort=facts.cohort_size,
            epochs=tally.epochs,
        )

    def epoch(self, event: EpochDone) -> None:
        """The latest epoch, five times a second at most."""
        assert self._tally is not None
        self._tally.add_epoch(event)
        if time.monotonic() - self._said >= _EPOCH_EVERY_S:
            self._said = time.monotonic()
            point = {key: value for key, value in asdict(event.epoch).items() if key != "finished_at"}
            self.say("epoch", number=event.number, **point)

    def trials(self, trials: Sequence[TrialRecord]) -> None:
        """Each trial that was stored, then how the study stands."""
        assert self._tally is not None
        tally = self._tally
        tally.add_trials(trials)
        for trial in trials:
            self.say("trial", **_trial(trial, tally.facts.objectives))
        self.say(
            "progress",
            trials=tally.n_done,
            budget=tally.n_trials,
            states=dict(tally.states),
            pruned_at={str(rung): n for rung, n in sorted(tally.pruned_at.items())},
            best=None if tally.best is None else _trial(tally.best, tally.facts.objectives),
            trials_per_s=round(tally.trials_per_s, 3),
            seconds_left=None if tally.seconds_left is None else round(tally.seconds_left, 1),
        )

    def end(self) -> None:
        """Training is over, for whatever reason."""
        if self._tally is not None:
            self.say("searched", trials=self._tally.n_done)
            self._tally = None


def _trial(trial: TrialRecord, objectives: Sequence[Objective]) -> dict[str, Any]:
    values = trial.values or ()
    return {
        "number": trial.number,
        "state": trial.state,
        "values": {o.metric: v for o, v in zip(objectives, values, strict=False)},
        "hyperparameters": dict(trial.hyperparameters),
        "n_parameters": trial.n_parameters,
        "best_epoch": trial.best_epoch,
        "pruned_at": pruned_at(trial),
        "reason": trial.reason,
        "duration_s": trial.duration_s,
    }
