"""Create, ask, tell, resume: a study's trials, from the database and back into it, a cohort at a time.

A cohort is asked whole, from the trials of earlier cohorts alone; the budget cuts what of it is claimed. So what is
asked does not depend on when a study was stopped, and a study that was killed asks what it would have asked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from studies.records import WAITING, StudyFacts, Suggestion, TrialRecord, Value
from studies.sampler import ask_cohort
from studies.space import distributions
from studies.spec import StudySpec
from studies.storage import Storage


@dataclass(frozen=True, slots=True)
class Cohort:
    """Trials that are RUNNING in our name, to be trained together."""

    id: int
    suggestions: tuple[Suggestion, ...]


class Search:
    """One study's search. Its process must hold the study's lock."""

    def __init__(
        self,
        storage: Storage,
        spec: StudySpec,
        facts: StudyFacts,
        count_parameters: Callable[[Mapping[str, Value]], int],
    ) -> None:
        """Go on with a stored study; what a dead driver left RUNNING goes back to WAITING."""
        self._storage, self._spec, self._facts = storage, spec, facts
        self._count_parameters = count_parameters
        self._distributions = distributions(spec)
        self.released = storage.release(facts.name)
        self.trials = storage.records(facts.name)
        """All trials, without their curves, in order of number."""

    def next_cohort(self) -> Cohort | None:
        """Claim what is to be trained next: trials that wait, before anything new is asked.

        Returns:
            The cohort; None if the budget of trials is spent, or the grid has no point left.
        """
        if waiting := [t for t in self.trials if t.state == WAITING]:
            cohort = min(t.cohort for t in waiting)
            own = [t for t in waiting if t.cohort == cohort]
            taken = self._storage.take(self._facts.name, [t.number for t in own])
            return Cohort(taken, tuple(t.suggestion for t in own))
        return self._ask()

    def tell(self, trials: Sequence[TrialRecord], spent_s: float) -> None:
        """Store the results of a cohort and the seconds it took; trials without a result wait for another time."""
        self._storage.record(self._facts.name, trials, spent_s)
        self._storage.release(self._facts.name)
        self.trials = self._storage.records(self._facts.name)

    def _ask(self) -> Cohort | None:
        size, first = self._facts.cohort_size, len(self.trials)
        begin = first - first % size
        total = self._spec.budget.trials
        end = begin + size if total is None else min(begin + size, total)
        if first >= end:
            return None
        suggestions = ask_cohort(
            self._spec, self._facts.objectives, self.trials[:begin], begin, size, self._count_parameters
        )
        claimed = [s for s in suggestions if first <= s.number < end]
        if not claimed:
            return None
        n_parameters = [self._count_parameters(s.hyperparameters) for s in claimed]
        cohort = self._storage.claim(self._facts.name, claimed, n_parameters, self._distributions)
        return Cohort(cohort, tuple(claimed))
