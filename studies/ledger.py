"""Where one study's trials are kept while it is searched: what `Search` and `Run` ask of it, and nothing else.

Two ledgers answer the same calls (one contract test for both): `studies.storage.Storage`, a database that outlives
every process, and `studies.memory.MemoryStorage`, for a study that nobody will ask for again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from studies.records import StudyFacts, Suggestion, TrialRecord, Winner


class Ledger(Protocol):
    """See `studies.storage.Storage` for what each call promises."""

    # ---- of studies

    def create_study(self, facts: StudyFacts) -> None:
        """Store a new study."""

    def facts(self, name: str) -> StudyFacts | None:
        """What is fixed of a study; None if there is none."""

    def known(self, name: str) -> StudyFacts:
        """What is fixed of a study that must be there."""

    def store_spec(self, name: str, spec: Mapping[str, object]) -> None:
        """Replace the stored spec."""

    def spent_s(self, name: str) -> float:
        """Seconds that the recorded cohorts took."""

    def states(self, name: str) -> dict[str, int]:
        """How many trials are in each state."""

    def store_winner(self, name: str, winner: Winner, n_finished: int) -> None:
        """Store the winner among so many finished trials."""

    def winner(self, name: str, *, must_be_sealed: bool = False) -> tuple[Winner, int] | None:
        """The latest winner, and among how many finished trials it won."""

    def store_mirror(self, name: str, tracking_uri: str, experiment_id: str) -> None:
        """Note where the study was mirrored last."""

    def leading(self, name: str) -> AbstractContextManager[Callable[[], bool]]:
        """A context of a driver, which gives a function: whether this driver is the one that mirrors the study."""

    # ---- of trials

    def claim(
        self,
        name: str,
        suggestions: Sequence[Suggestion],
        n_parameters: Sequence[int],
        distributions: Mapping[str, Any],
    ) -> int:
        """Store a cohort's suggestions as RUNNING trials, ours; returns its id."""

    def take(self, name: str, numbers: Sequence[int]) -> int:
        """Claim WAITING trials of one cohort again; returns its id."""

    def release(self, name: str, *, holds_lock: bool = False) -> list[int]:
        """Put what is RUNNING and nobody else's back to WAITING; returns the numbers."""

    def abandon(self, name: str) -> None:
        """Release after an error, which may be the ledger's own."""

    def others(self, name: str) -> tuple[int, int]:
        """How many cohorts others train, and how many RUNNING trials are nobody's."""

    def asking(self, name: str) -> AbstractContextManager[None]:
        """A context in which no other worker asks."""

    def renew(self) -> bool:
        """Whether all that was claimed is still ours."""

    def record(self, name: str, told: Sequence[TrialRecord], spent_s: float) -> None:
        """Store the results of RUNNING trials that are ours, whole or not at all."""

    def records(
        self, name: str, numbers: Iterable[int] | None = None, *, has_curves: bool = False
    ) -> list[TrialRecord]:
        """Trials in order of number."""

    def changes(self, name: str, numbers: Sequence[int], first: int) -> list[TrialRecord]:
        """The trials named, and all from number `first` on, without curves."""
