"""Claim a cohort, train it, tell: until nothing is left. A driver does this itself, or many of its workers do."""

import time
from typing import Protocol

from studies.cohort import Trainer
from studies.leases import Keeper
from studies.ledger import Ledger
from studies.records import FINISHED_STATES, EpochDone, TrialRecord
from studies.search import Cohort, Search


class Watcher(Protocol):
    """Who is told what happens."""

    def began(self, cohort: Cohort) -> None:
        """A cohort is being trained."""

    def epoch(self, event: EpochDone) -> None:
        """A trial finished an epoch."""

    def told(self, trials: list[TrialRecord]) -> None:
        """A cohort was stored."""

    def note(self, line: str) -> None:
        """Something that people should know."""


def train_all(
    search: Search, storage: Ledger, trainer: Trainer, watcher: Watcher, deadline: float | None, *, share: float = 1.0
) -> bool:
    """Train cohorts until there is nothing left to train.

    Args:
        search: Of the study.
        storage: That `search` claims in.
        trainer: Of the study.
        watcher: Is told.
        deadline: `time.monotonic()` at which no training goes on; None is no limit.
        share: What a second of this worker counts in the seconds that the study has spent.

    Returns:
        False where the time was up before.
    """
    with Keeper(storage.renew) as keeper:
        while deadline is None or time.monotonic() < deadline:
            cohort = search.next_cohort(deadline)
            if cohort is None:
                return deadline is None or time.monotonic() < deadline or search.is_complete
            watcher.began(cohort)
            trained: list[TrialRecord] = []
            began = time.monotonic()
            earlier = [t for t in search.trials if t.state in FINISHED_STATES]
            for event in trainer.train(cohort.suggestions, cohort.id, earlier, deadline):
                if keeper.lost.is_set():
                    break
                if isinstance(event, EpochDone):
                    watcher.epoch(event)
                else:
                    trained.append(event)
            if keeper.lost.is_set() or not search.tell(trained, (time.monotonic() - began) * share):
                search.give_up()
                keeper.lost.clear()
                watcher.note(
                    f"cohort {cohort.id} was given to another worker, since this one was not heard of for too long; "
                    "its results are refused"
                )
                continue
            watcher.told(trained)
    return False
