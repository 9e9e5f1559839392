"""The study database: Optuna's own schema and our `dlcore_*` tables, written with SQLAlchemy Core, a cohort at a time.

One transaction holds a cohort's claims (RUNNING trials with their hyperparameters), one its results (values, rungs,
attributes, curves, checksums). `optuna.load_study` and every other Optuna tool read the same rows as their own.

What a kill leaves behind is a whole cohort RUNNING, never half of one; `release` puts it back to WAITING.
"""

import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TypeVar
from uuid import uuid4

from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from sqlalchemy import Connection, and_, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from studies import leases, rows, trials
from studies.catalogue import Catalogue
from studies.database import reading, writing
from studies.errors import DatabaseGone, LeaseLost, Overtaken, StudiesError, UserError
from studies.records import Suggestion, TrialRecord
from studies.rows import PARAM, SYSTEM_ATTR, TRIAL
from studies.schema import open_database
from studies.tables import COHORTS, LEASES, RESULTS, STUDIES

_RETRY_AFTER_S = (0.5, 1.0, 2.0, 4.0)
"""Pauses before a claim or a result is tried again, where the database went away."""
_T = TypeVar("_T")


class Storage(Catalogue):
    """One study database. Safe to use from several threads; each call is one transaction."""

    def __init__(self, url: str) -> None:
        """Open the database; the first time, create it.

        Raises:
            UserError: It cannot be read or written, is damaged, or of another version.
        """
        super().__init__(open_database(url))
        self.url = url
        weakref.finalize(self, self._engine.dispose)
        self._owner = leases.new_owner(self)
        self._tokens: set[str] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give the connections back; what this object claimed and did not record is nobody's."""
        leases.disown(self._owner)
        self._engine.dispose()

    def claim(
        self,
        name: str,
        suggestions: Sequence[Suggestion],
        n_parameters: Sequence[int],
        distributions: Mapping[str, BaseDistribution],
    ) -> int:
        """Store a cohort's suggestions as RUNNING trials, whole or not at all, and own them from now on.

        Args:
            name: The study.
            suggestions: In order of number, which goes on from the last stored trial.
            n_parameters: Parameter count of each.
            distributions: Of every searched hyperparameter.

        Returns:
            The id of the cohort, counting from 0 in the study.

        Raises:
            Overtaken: Another worker of the study claimed these numbers.
            UserError: The numbers do not go on from the stored trials: another program wrote some.
        """
        token = uuid4().hex

        def write(connection: Connection, _is_again: bool) -> int:
            study = trials.study_id(connection, name, is_locked=True)
            if (landed := leases.cohort_of(connection, token)) is not None:
                return landed
            _check_first(connection, study, name, suggestions[0].number)
            now = datetime.now(UTC)
            numbers = [s.number for s in suggestions]
            cohort = _new_cohort(connection, study, numbers, now)
            running = {"state": TrialState.RUNNING, "datetime_start": now.replace(tzinfo=None)}
            ids = trials.add(connection, study, numbers, running)
            claimed = [
                rows.claim_row(ids[s.number], s, n, cohort) | {"token": token}
                for s, n in zip(suggestions, n_parameters, strict=True)
            ]
            new = {
                PARAM: rows.param_rows(suggestions, ids, distributions),
                RESULTS: claimed,
                SYSTEM_ATTR: rows.attr_rows({ids[s.number]: s.system_attrs for s in suggestions}),
            }
            trials.insert_rows(connection, new)
            leases.grant(connection, study, cohort, token, self._owner)
            return cohort

        return self._claimed(token, write)

    def take(self, name: str, numbers: Sequence[int]) -> int:
        """Claim WAITING trials of one cohort again; what a time budget left over of it becomes a cohort of its own.

        Returns:
            The id of their cohort.

        Raises:
            Overtaken: One of them does not wait any more.
        """
        token = uuid4().hex

        def write(connection: Connection, _is_again: bool) -> int:
            study = trials.study_id(connection, name, is_locked=True)
            if (landed := leases.cohort_of(connection, token)) is not None:
                return landed
            ids = trials.ids_of(connection, study, numbers)
            now = datetime.now(UTC)
            waits = and_(TRIAL.c.trial_id.in_(ids.values()), TRIAL.c.state == TrialState.WAITING)
            if connection.execute(select(func.count()).where(waits)).scalar_one() != len(ids):
                raise Overtaken(f"of the trials {sorted(ids)} some do not wait any more")
            claimed = {"state": TrialState.RUNNING, "datetime_start": now.replace(tzinfo=None)}
            trials.move(connection, ids, TrialState.WAITING, claimed)
            own = RESULTS.c.trial_id.in_(ids.values())
            cohort: int = connection.execute(select(RESULTS.c.cohort).where(own)).scalars().first() or 0
            in_cohort = and_(COHORTS.c.study_id == study, COHORTS.c.cohort == cohort)
            if connection.execute(select(COHORTS.c.n_trials).where(in_cohort)).scalar_one() != len(numbers):
                cohort = _new_cohort(connection, study, numbers, now)
            connection.execute(update(RESULTS).where(own).values(cohort=cohort, token=token))
            leases.grant(connection, study, cohort, token, self._owner)
            return cohort

        return self._claimed(token, write)

    def release(self, name: str, *, holds_lock: bool = False) -> list[int]:
        """Put RUNNING trials back to WAITING: those that this object claimed, and those of owners that are dead.

        Call it while nothing is trained.

        Args:
            name: The study.
            holds_lock: Whether the caller holds the lock of the study's driver (`home.drive`). On SQLite that says
                that whoever claimed on another machine, or before this one was started again, is dead.

        Returns:
            Their numbers.
        """

        def write(connection: Connection, _is_again: bool) -> list[int]:
            study = trials.study_id(connection, name, is_locked=True)
            kept = leases.living(connection, study, self._owner, is_alone=self._is_alone(holds_lock=holds_lock))
            is_running = and_(TRIAL.c.study_id == study, TRIAL.c.state == TrialState.RUNNING)
            query = select(TRIAL.c.trial_id, TRIAL.c.number, RESULTS.c.cohort)
            found = connection.execute(query.join(RESULTS, RESULTS.c.trial_id == TRIAL.c.trial_id).where(is_running))
            free = [row for row in found if row.cohort not in kept]
            ids = [row.trial_id for row in free]
            trials.put_back(connection, ids)
            connection.execute(update(RESULTS).where(RESULTS.c.trial_id.in_(ids)).values(token=None))
            ended = and_(LEASES.c.study_id == study, LEASES.c.cohort.not_in(kept))
            connection.execute(delete(LEASES).where(ended))
            return sorted(row.number for row in free)

        with self._lock:
            released = self._surely(write)
            self._tokens.clear()
        return released

    def _is_alone(self, *, holds_lock: bool) -> bool:
        return holds_lock and self._engine.dialect.name == "sqlite"

    def abandon(self, name: str) -> None:
        """Release, in a process that goes on after an error; where that fails, the claims are nobody's all the same."""
        try:
            self.release(name)
        except BaseException as error:  # a second Ctrl-C too: whoever asks next in this process would wait for ever
            leases.disown(self._owner)
            self._owner = leases.new_owner(self)
            self._tokens.clear()
            if not isinstance(error, (StudiesError, SQLAlchemyError, OSError, MemoryError)):
                raise

    def others(self, name: str, *, holds_lock: bool = False) -> tuple[int, int]:
        """How many cohorts of a study others train, and how many RUNNING trials are nobody's; see `release`."""
        with reading(self._engine) as connection:
            study = trials.study_id(connection, name)
            kept, free = self.ownership(connection, study, holds_lock=holds_lock)
        return len(kept), len(free)

    def ownership(self, connection: Connection, study: int, *, holds_lock: bool = False) -> tuple[set[int], list[int]]:
        """Ids of the cohorts of a study that others train, and numbers of the RUNNING trials that are nobody's."""
        kept = leases.living(connection, study, self._owner, is_alone=self._is_alone(holds_lock=holds_lock))
        is_running = and_(TRIAL.c.study_id == study, TRIAL.c.state == TrialState.RUNNING)
        query = select(TRIAL.c.number, RESULTS.c.cohort, RESULTS.c.token)
        found = connection.execute(query.join(RESULTS, RESULTS.c.trial_id == TRIAL.c.trial_id).where(is_running))
        return kept, sorted(row.number for row in found if row.cohort not in kept and row.token not in self._tokens)

    def renew(self) -> bool:
        """Show that this object lives; returns whether all that it claimed is still its own."""
        with self._lock:
            tokens = frozenset(self._tokens)
            if not tokens:
                return True
            with writing(self._engine) as connection:
                held = leases.renew(connection, tokens)
        return held == tokens

    def asking(self, name: str) -> AbstractContextManager[None]:
        """A context in which no other worker of the study asks."""
        with reading(self._engine) as connection:
            study = trials.study_id(connection, name)
        return leases.asking(self._engine, study)

    def leading(self, name: str) -> AbstractContextManager[Callable[[], bool]]:
        """A context of a driver, which gives a function: whether this driver is the one that mirrors the study.

        Raises:
            StudyBusy: On entering: somebody wants the study `alone`.
        """
        with reading(self._engine) as connection:
            study = trials.study_id(connection, name)
        return leases.leading(self._engine, study)

    def alone(self, name: str) -> AbstractContextManager[bool]:
        """A context that keeps drivers in PostgreSQL away, and gives whether there are none; needs `home.drive` too."""
        with reading(self._engine) as connection:
            study = trials.study_id(connection, name)
        return leases.alone(self._engine, study)

    def is_driven(self, name: str) -> bool:
        """Whether a study has a driver in PostgreSQL; of SQLite `home.is_driven` tells."""
        with reading(self._engine) as connection:
            return leases.is_driven(connection, trials.study_id(connection, name))

    def record(self, name: str, told: Sequence[TrialRecord], spent_s: float) -> None:
        """Store the results of a cohort's trials, whole or not at all.

        Args:
            name: The study.
            told: Finished trials.
            spent_s: Seconds that they took together; added to what the study has spent.

        Raises:
            LeaseLost: This object does not own them any more: the result is refused, not doubled.
            StudiesError: One of them is not RUNNING, though it was not given to anybody: the result is refused too.
        """

        def write(connection: Connection, is_again: bool) -> set[str]:
            study = trials.study_id(connection, name, is_locked=True)
            ids = trials.ids_of(connection, study, [t.number for t in told])
            query = select(RESULTS.c.token, TRIAL.c.state).join(TRIAL, TRIAL.c.trial_id == RESULTS.c.trial_id)
            found = connection.execute(query.where(RESULTS.c.trial_id.in_(ids.values()))).all()
            tokens = {row.token for row in found}
            if is_again and found and tokens <= self._tokens and all(row.state.is_finished() for row in found):
                return _end_finished(connection, tokens)  # it was committed, and the answer got lost
            held = {token for token in tokens if token is not None and leases.cohort_of(connection, token) is not None}
            if not (tokens == held and tokens <= self._tokens):
                raise LeaseLost(f"the trials {sorted(ids)} were given to another process, and this result is refused")
            own = update(STUDIES).where(STUDIES.c.study_id == study)
            connection.execute(own.values(spent_s=STUDIES.c.spent_s + spent_s))
            trials.finish(connection, ids, told)
            return _end_finished(connection, tokens)

        with self._lock:
            self._tokens -= self._surely(write)  # a lease that ended because all is told is none that got lost

    def records(
        self, name: str, numbers: Iterable[int] | None = None, *, has_curves: bool = False
    ) -> list[TrialRecord]:
        """Trials of a study in order of number; all of them, or those named. Curves are read where asked for."""
        with reading(self._engine) as connection:
            return trials.read(connection, trials.study_id(connection, name), numbers, has_curves=has_curves)

    def changes(self, name: str, numbers: Sequence[int], first: int) -> list[TrialRecord]:
        """The trials named, and all from number `first` on, without curves."""
        with reading(self._engine) as connection:
            study = trials.study_id(connection, name)
            return trials.read(connection, study, numbers, first=first, has_curves=False)

    def falsified(self, name: str) -> list[int]:
        """Numbers of the study's finished trials whose rows do not have their checksum, or that have none."""
        with reading(self._engine) as connection:
            return trials.falsified(connection, trials.study_id(connection, name))

    def _claimed(self, token: str, write: Callable[[Connection, bool], int]) -> int:
        with self._lock:
            cohort = self._surely(write)
            self._tokens.add(token)
        return cohort

    def _surely(self, write: Callable[[Connection, bool], _T]) -> _T:
        """One transaction, tried again where the database went away: it is told then that it may have landed."""
        for attempt, wait_s in enumerate(_RETRY_AFTER_S):
            try:
                with writing(self._engine) as connection:
                    return write(connection, attempt > 0)
            except DatabaseGone:
                time.sleep(wait_s)
        with writing(self._engine) as connection:
            return write(connection, True)


def _check_first(connection: Connection, study: int, name: str, first: int) -> None:
    """Whether a study's numbers go on from its stored trials."""
    stored = connection.execute(select(func.count()).where(TRIAL.c.study_id == study)).scalar_one()
    if stored == first:
        return
    ours = select(func.count()).select_from(TRIAL).join(RESULTS, RESULTS.c.trial_id == TRIAL.c.trial_id)
    n_ours = connection.execute(ours.where(TRIAL.c.study_id == study)).scalar_one()
    if n_ours == stored > first:
        raise Overtaken(f"trial {first} of study {name} was claimed by another worker")
    raise UserError(
        f'study "{name}" has {stored} trials, {min(n_ours, first)} of them its own: it cannot go on '
        "with trials that another program added; delete those, or give the spec another name"
    )


def _end_finished(connection: Connection, tokens: Collection[str]) -> set[str]:
    """End the leases of cohorts of which nothing is RUNNING any more; returns their tokens."""
    query = select(RESULTS.c.token).join(TRIAL, TRIAL.c.trial_id == RESULTS.c.trial_id).distinct()
    is_running = and_(RESULTS.c.token.in_(tokens), TRIAL.c.state == TrialState.RUNNING)
    ended = set(tokens) - set(connection.execute(query.where(is_running)).scalars())
    leases.end(connection, ended)
    return ended


def _new_cohort(connection: Connection, study_id: int, numbers: Sequence[int], now: datetime) -> int:
    cohort: int = connection.execute(select(func.count()).where(COHORTS.c.study_id == study_id)).scalar_one()
    row = {"cohort": cohort, "first_number": numbers[0], "n_trials": len(numbers), "claimed_at": now.timestamp()}
    connection.execute(insert(COHORTS).values(study_id=study_id, **row))
    return cohort
