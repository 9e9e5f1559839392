"""Create, ask, tell, resume: a study's trials, from the database and back into it, a cohort at a time.

A cohort is asked whole, from the trials of earlier cohorts alone; the budget cuts what of it is claimed. So what is
asked does not depend on when a study was stopped, and a study that was killed asks what it would have asked. Where
several workers search one study, a cohort is asked from those of the earlier trials that are finished by then; the
sampler knows that the others are on their way.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from studies.errors import LeaseLost, Overtaken
from studies.ledger import Ledger
from studies.records import FINISHED_STATES, WAITING, StudyFacts, Suggestion, TrialRecord, Value
from studies.sampler import ask_cohort
from studies.space import distributions
from studies.spec import StudySpec

_LOOK_EVERY_S = 1.0
"""How often a worker that has nothing to train looks whether another one's trials came back."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Trials that are RUNNING in our name, to be trained together."""

    id: int
    suggestions: tuple[Suggestion, ...]


class Search:
    """One study's search. On SQLite its driver must hold the study's lock."""

    def __init__(
        self,
        storage: Ledger,
        spec: StudySpec,
        facts: StudyFacts,
        count_parameters: Callable[[Mapping[str, Value]], int],
        *,
        is_driver: bool = False,
    ) -> None:
        """Go on with a stored study; what dead owners left RUNNING goes back to WAITING.

        Args:
            storage: Holds the study.
            spec: What is searched.
            facts: Of the study.
            count_parameters: Counts those of a network by its hyperparameters.
            is_driver: Whether this process holds the study's lock, and is none of a driver's workers.
        """
        self._storage, self._spec, self._facts = storage, spec, facts
        self._count_parameters = count_parameters
        self._distributions = distributions(spec)
        self.released = storage.release(facts.name, holds_lock=is_driver)
        self.trials = storage.records(facts.name)
        """All trials, without their curves, in order of number."""

    def next_cohort(self, deadline: float | None = None) -> Cohort | None:
        """Claim what is to be trained next: trials that wait, before anything new is asked.

        As long as other workers train trials that may come back, this waits for them.

        Args:
            deadline: `time.monotonic()` at which waiting ends.

        Returns:
            The cohort; None if the budget of trials is spent, or the grid has no point left, or the time is up.
        """
        while True:
            n_others, n_free = self._storage.others(self._facts.name)
            if n_free:
                self._storage.release(self._facts.name)
            self.refresh()
            try:
                if (cohort := self._take() or self._ask()) is not None:
                    return cohort
            except Overtaken:
                continue
            if n_others == 0 or (deadline is not None and time.monotonic() >= deadline):
                return None
            time.sleep(_LOOK_EVERY_S)

    def tell(self, trials: Sequence[TrialRecord], spent_s: float) -> bool:
        """Store the results of a cohort and the seconds it took; trials without a result wait for another time.

        Returns:
            False where the trials were given to another worker: these results are refused.
        """
        try:
            self._storage.record(self._facts.name, trials, spent_s)
        except LeaseLost:
            self.give_up()
            return False
        self.give_up()
        return True

    def give_up(self) -> None:
        """What was claimed and has no result waits again, for whoever comes first."""
        self._storage.release(self._facts.name)
        self.refresh()

    def refresh(self) -> None:
        """Learn what became of trials that were not finished, and of those that others claimed."""
        unfinished = [t.number for t in self.trials if t.state not in FINISHED_STATES]
        for trial in self._storage.changes(self._facts.name, unfinished, len(self.trials)):
            self.trials[trial.number : trial.number + 1] = [trial]

    @property
    def is_complete(self) -> bool:
        """Whether every trial that there is to be is finished, as far as this process knows."""
        if any(t.state not in FINISHED_STATES for t in self.trials):
            return False
        # A grid may have fewer points than the budget.
        return not self._is_left() or (self._spec.search.sampler == "grid" and not self._asked())

    @property
    def ended(self) -> str:
        """Why nothing is left to train, for people."""
        n, budget = len(self.trials), self._spec.budget.trials
        if budget is None or n < budget:
            return f"all {n} points of the grid are done"
        above = f", more than its budget of {budget}" if n > budget else ""
        return f"all {n} trials are done{above}; --trials raises the budget"

    def _take(self) -> Cohort | None:
        waiting = [t for t in self.trials if t.state == WAITING]
        if not waiting:
            return None
        cohort = min(t.cohort for t in waiting)
        own = [t for t in waiting if t.cohort == cohort]
        taken = self._storage.take(self._facts.name, [t.number for t in own])
        return Cohort(taken, tuple(t.suggestion for t in own))

    def _ask(self) -> Cohort | None:
        if not self._is_left():
            return None
        with self._storage.asking(self._facts.name):
            self.refresh()  # whoever asked before us claimed
            if not self._is_left():
                return None
            claimed = self._asked()
            if not claimed:
                return None
            n_parameters = [self._count_parameters(s.hyperparameters) for s in claimed]
            cohort = self._storage.claim(self._facts.name, claimed, n_parameters, self._distributions)
        return Cohort(cohort, tuple(claimed))

    def _asked(self) -> list[Suggestion]:
        """What is to be claimed next of the cohort that comes next; nothing where a grid has no point left."""
        size, first = self._facts.cohort_size, len(self.trials)
        begin = first - first % size
        suggestions = ask_cohort(
            self._spec, self._facts.objectives, self.trials[:begin], begin, size, self._count_parameters
        )
        return [s for s in suggestions if first <= s.number < self._end()]

    def _end(self) -> int:
        """Number behind the last trial of the cohort that is asked next."""
        size, first = self._facts.cohort_size, len(self.trials)
        end = first - first % size + size
        total = self._spec.budget.trials
        return end if total is None else min(end, total)

    def _is_left(self) -> bool:
        return len(self.trials) < self._end()
