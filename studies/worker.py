"""A child process of `studies run --workers`: trains cohorts of one study, and says on its standard output how it goes.

What it is to do comes on its standard input as one line of JSON, where the database lies by the environment: `ps`
shows neither. It ends with its driver, whose end closes that input.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict

from dlcore.data import load_splits
from dlcore.errors import DlcoreError
from studies.cohort import Trainer
from studies.errors import StudiesError, lack_of_memory
from studies.home import open_home
from studies.records import EpochDone, TrialRecord
from studies.search import Cohort, Search
from studies.spec import resolved_objectives, spec_from_dict
from studies.storage import Storage
from studies.transfer import fitted, kinds_of, open_source
from studies.work import train_all

_EPOCH_EVERY_S = 0.2
"""How often an epoch is told: a display shows no more."""
_PR_SET_PDEATHSIG = 1


class _Teller:
    """Writes what happens as lines of JSON."""

    def __init__(self) -> None:
        self._said = 0.0

    def began(self, cohort: Cohort) -> None:
        """A cohort is being trained."""
        numbers = [s.number for s in cohort.suggestions]
        _say("began", cohort=cohort.id, numbers=numbers)

    def epoch(self, event: EpochDone) -> None:
        """A trial finished an epoch; most of them are nobody's business."""
        if time.monotonic() - self._said >= _EPOCH_EVERY_S:
            self._said = time.monotonic()
            _say("epoch", number=event.number, epoch=asdict(event.epoch))

    def told(self, trials: list[TrialRecord]) -> None:
        """A cohort was stored; who wants to know more reads it there."""
        _say("told", numbers=[t.number for t in trials])

    def note(self, line: str) -> None:
        """Something that people should know."""
        _say("note", text=line)


def main() -> None:
    """Do what the first line of the standard input says; exit code 0 where nothing is left to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends us
    order = json.loads(sys.stdin.readline())
    _end_with_driver(order["driver"])
    try:
        _work(order)
    except (StudiesError, DlcoreError) as error:
        _say("error", text=str(error), exit_code=getattr(error, "exit_code", 2))
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        message = lack_of_memory(error)
        if message is None:
            raise
        _say("error", text=message, exit_code=1)
        sys.exit(1)


def _work(order: dict[str, object]) -> None:
    name, seconds = str(order["study"]), order["seconds"]
    deadline = None if seconds is None else time.monotonic() + float(str(seconds))
    storage = Storage(open_home().database_url)
    facts = storage.facts(name)
    assert facts is not None  # the driver made it
    spec = spec_from_dict(facts.spec, name)
    source = open_source(spec)
    splits, transfer = fitted(load_splits(spec.data_config(), spec.seed, kinds_of(source)), source)
    trainer = Trainer(spec, resolved_objectives(spec, splits.task), splits, transfer)
    search = Search(storage, spec, facts, trainer.count_parameters)
    is_done = train_all(search, storage, trainer, _Teller(), deadline, share=float(str(order["share"])))
    _say("done", is_complete=is_done)
    storage.close()


def _say(kind: str, **what: object) -> None:
    print(json.dumps({"kind": kind, **what}), flush=True)


def _end_with_driver(driver: int) -> None:
    """End when the driver does, even if we are paused then (Linux), or as soon as its pipe is closed (anywhere)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != driver:
            os._exit(1)

    def watch() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, name="driver", daemon=True).start()


if __name__ == "__main__":
    main()
