"""A study that ends with its process, in memory: the same calls as `studies.storage`, no file, no SQL, no other worker.

Where nothing is kept nothing can be resumed, shared or repaired: what only a database can do is not here.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from studies.errors import StudiesError, UserError
from studies.records import RUNNING, STATES, WAITING, StudyFacts, Suggestion, TrialRecord, Winner


class MemoryStorage:
    """Some studies of this process, for one driver each; see `studies.ledger`."""

    def __init__(self) -> None:
        """No study yet."""
        self._facts: dict[str, StudyFacts] = {}
        self._trials: dict[str, list[TrialRecord]] = {}
        self._spent_s: dict[str, float] = {}
        self._cohorts: dict[str, list[int]] = {}
        """Size of each cohort, by its id."""
        self._winners: dict[str, tuple[Winner, int]] = {}

    # ---- of studies

    def create_study(self, facts: StudyFacts) -> None:
        """Store a new study.

        Raises:
            UserError: The name is taken.
        """
        if facts.name in self._facts:
            raise UserError(f'a study named "{facts.name}" is there already')
        self._facts[facts.name] = facts
        self._trials[facts.name], self._cohorts[facts.name], self._spent_s[facts.name] = [], [], 0.0

    def facts(self, name: str) -> StudyFacts | None:
        """What is fixed of a study; None if there is none."""
        return self._facts.get(name)

    def known(self, name: str) -> StudyFacts:
        """What is fixed of a study that must be there.

        Raises:
            UserError: It is not.
        """
        if name not in self._facts:
            raise UserError(f'there is no study "{name}" in memory')
        return self._facts[name]

    def store_spec(self, name: str, spec: Mapping[str, object]) -> None:
        """Replace the stored spec (a raised budget)."""
        self._facts[name] = replace(self.known(name), spec=dict(spec))

    def spent_s(self, name: str) -> float:
        """Seconds that the study's recorded cohorts took."""
        return self._spent_s[self.known(name).name]

    def states(self, name: str) -> dict[str, int]:
        """How many trials of a study are in each state, those in no trial left out."""
        counts = Counter(trial.state for trial in self._of(name))
        return {state: counts[state] for state in STATES if state in counts}

    def store_winner(self, name: str, winner: Winner, n_finished: int) -> None:
        """Store the winner among `n_finished` trials."""
        self._winners[self.known(name).name] = winner, n_finished

    def winner(self, name: str, *, must_be_sealed: bool = False) -> tuple[Winner, int] | None:
        """The latest winner, and among how many finished trials it won."""
        return self._winners.get(self.known(name).name)

    def store_mirror(self, name: str, tracking_uri: str, experiment_id: str) -> None:
        """Nobody will ask."""

    @contextmanager
    def leading(self, name: str) -> Iterator[Callable[[], bool]]:
        """The only driver leads."""
        yield lambda: True

    # ---- of trials

    def claim(
        self,
        name: str,
        suggestions: Sequence[Suggestion],
        n_parameters: Sequence[int],
        distributions: Mapping[str, Any],
    ) -> int:
        """Store a cohort's suggestions as RUNNING trials; returns its id."""
        trials = self._of(name)
        if suggestions[0].number != len(trials):
            raise UserError(f'study "{name}" has {len(trials)} trials; it cannot go on with {suggestions[0].number}')
        cohort = self._new_cohort(name, len(suggestions))
        trials += [
            TrialRecord(s.number, RUNNING, s.hyperparameters, s.searched, cohort, n, system_attrs=s.system_attrs)
            for s, n in zip(suggestions, n_parameters, strict=True)
        ]
        return cohort

    def take(self, name: str, numbers: Sequence[int]) -> int:
        """Claim WAITING trials of one cohort again; what a time budget left over of it becomes a cohort of its own."""
        trials = self._of(name)
        assert all(trials[number].state == WAITING for number in numbers)
        cohort = trials[numbers[0]].cohort
        if self._cohorts[name][cohort] != len(numbers):
            cohort = self._new_cohort(name, len(numbers))
        for number in numbers:
            trials[number] = replace(trials[number], state=RUNNING, cohort=cohort)
        return cohort

    def abandon(self, name: str) -> None:
        """Put RUNNING trials back to WAITING."""
        self.release(name)

    def release(self, name: str, *, holds_lock: bool = False) -> list[int]:
        """Put RUNNING trials back to WAITING; returns their numbers."""
        trials = self._of(name)
        released = [trial.number for trial in trials if trial.state == RUNNING]
        for number in released:
            trials[number] = replace(trials[number], state=WAITING)
        return released

    def others(self, name: str) -> tuple[int, int]:
        """There is nobody else."""
        return 0, 0

    @contextmanager
    def asking(self, name: str) -> Iterator[None]:
        """There is nobody else to ask."""
        yield

    def renew(self) -> bool:
        """Nobody takes anything away."""
        return True

    def record(self, name: str, told: Sequence[TrialRecord], spent_s: float) -> None:
        """Store the results of a cohort's trials, whole or not at all.

        Raises:
            StudiesError: One of them is not RUNNING: the result is refused, not doubled.
        """
        trials = self._of(name)
        if not all(trials[trial.number].state == RUNNING for trial in told):
            raise StudiesError(f"the trials {[t.number for t in told]} are not all in training; this result is refused")
        for trial in told:
            trials[trial.number] = trial
        self._spent_s[name] += spent_s

    def records(
        self, name: str, numbers: Iterable[int] | None = None, *, has_curves: bool = False
    ) -> list[TrialRecord]:
        """Trials of a study in order of number; all of them, or those named. Curves are there where asked for."""
        wanted = None if numbers is None else set(numbers)
        found = [trial for trial in self._of(name) if wanted is None or trial.number in wanted]
        return found if has_curves else [replace(trial, curve=()) for trial in found]

    def changes(self, name: str, numbers: Sequence[int], first: int) -> list[TrialRecord]:
        """The trials named, and all from number `first` on, without curves."""
        named = set(numbers)
        return self.records(name, [t.number for t in self._of(name) if t.number in named or t.number >= first])

    def _of(self, name: str) -> list[TrialRecord]:
        return self._trials[self.known(name).name]

    def _new_cohort(self, name: str, n_trials: int) -> int:
        self._cohorts[name].append(n_trials)
        return len(self._cohorts[name]) - 1
