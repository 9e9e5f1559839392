"""Any order of claims, results, losses and releases keeps what is promised, on both databases, beside a small model."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from optuna.distributions import FloatDistribution
from sqlalchemy import select

from studies import leases
from studies.database import reading
from studies.errors import LeaseLost, Overtaken, StudiesError
from studies.records import COMPLETE, FAIL, PRUNED, EpochRecord, Objective, StudyFacts, Suggestion, TrialRecord
from studies.storage import Storage
from studies.tables import LEASES
from studies.trials import study_id

pytestmark = pytest.mark.slow

DISTRIBUTIONS = {"x": FloatDistribution(0.0, 1.0)}
_names = (f"study-{i}" for i in itertools.count())
WORKERS = st.integers(0, 2)
STATES = st.sampled_from([COMPLETE, PRUNED, FAIL])


@dataclass
class Trial:
    """What the model knows of a trial."""

    suggestion: Suggestion
    state: str
    owner: int | None = None
    record: TrialRecord | None = None


@dataclass
class Worker:
    storage: Storage
    life: int
    is_alive: bool = True
    late: list[list[int]] = field(default_factory=list)
    """Numbers that it trained and that were given to others."""


def result(suggestion: Suggestion, cohort: int, state: str, value: float) -> TrialRecord:
    return TrialRecord(
        number=suggestion.number,
        state=state,
        hyperparameters=suggestion.hyperparameters,
        searched=suggestion.searched,
        cohort=cohort,
        n_parameters=9,
        values=None if state == FAIL else (value,),
        rungs={} if state == FAIL else {1: value},
        curve=(EpochRecord(1, value, value / 3, value / 7, 0.1, 1.0),),
    )


class Study(RuleBasedStateMachine):
    url: ClassVar[str]

    @initialize()
    def begin(self) -> None:
        self.name = next(_names)
        self.lives = itertools.count()
        self.workers = [Worker(Storage(self.url), next(self.lives)) for _ in range(3)]
        self.trials: list[Trial] = []
        facts: dict[str, Any] = dict.fromkeys(("task", "curve_metric", "data_name", "data_fingerprint"), "x")
        objectives = (Objective("accuracy", "maximize"),)
        self.workers[0].storage.create_study(
            StudyFacts(
                name=self.name, uuid=self.name, spec={}, objectives=objectives, cohort_size=3, n_features=1,
                n_outputs=1, environment={}, created_at=0.0, **facts,
            )
        )  # fmt: skip

    def teardown(self) -> None:
        for worker in getattr(self, "workers", []):
            worker.storage.close()

    def owned(self, life: int) -> list[Trial]:
        return [t for t in self.trials if t.state == "RUNNING" and t.owner == life]

    def alive(self, life: int | None) -> bool:
        return any(w.life == life and w.is_alive for w in self.workers)

    @rule(index=WORKERS, n=st.integers(1, 3), x=st.floats(0, 1))
    def claim(self, index: int, n: int, x: float) -> None:
        worker = self.workers[index]
        first = len(self.trials)
        new = [Suggestion(first + i, {"x": x, "depth": i}, ("x",)) for i in range(n)]
        worker.storage.claim(self.name, new, [9] * n, DISTRIBUTIONS)
        self.trials += [Trial(s, "RUNNING", worker.life) for s in new]

    @precondition(lambda self: self.trials)
    @rule(index=WORKERS)
    def claim_numbers_that_are_taken(self, index: int) -> None:
        with pytest.raises(Overtaken):
            self.workers[index].storage.claim(self.name, [Suggestion(0, {"x": 0.5}, ("x",))], [9], DISTRIBUTIONS)

    @rule(index=WORKERS)
    def take(self, index: int) -> None:
        worker = self.workers[index]
        stored = {t.number: t.cohort for t in worker.storage.records(self.name)}
        waiting = [t for t in self.trials if t.state == "WAITING"]
        if not waiting:
            return
        cohort = min(stored[t.suggestion.number] for t in waiting)
        own = [t for t in waiting if stored[t.suggestion.number] == cohort]
        worker.storage.take(self.name, [t.suggestion.number for t in own])
        for trial in own:
            trial.state, trial.owner = "RUNNING", worker.life

    @rule(
        index=WORKERS, state=st.sampled_from([COMPLETE, PRUNED, FAIL]), value=st.floats(-1e6, 1e6), part=st.booleans()
    )
    def record(self, index: int, state: str, value: float, part: bool) -> None:
        worker = self.workers[index]
        own = self.owned(worker.life)[: 1 if part else None]
        stored = {t.number: t.cohort for t in worker.storage.records(self.name)}
        told = [result(t.suggestion, stored[t.suggestion.number], state, value) for t in own]
        worker.storage.record(self.name, told, 1.0)
        for trial, record in zip(own, told, strict=True):
            trial.state, trial.owner, trial.record = state, None, record

    @precondition(lambda self: any(t.record for t in self.trials))
    @rule(index=WORKERS)
    def record_what_is_finished(self, index: int) -> None:
        done = next(t.record for t in self.trials if t.record)
        with pytest.raises(StudiesError, match="refused"):
            self.workers[index].storage.record(self.name, [replace(done, values=(7.0,), state=COMPLETE)], 1.0)

    @rule(index=WORKERS)
    def record_late(self, index: int) -> None:
        worker = self.workers[index]
        for numbers in worker.late:
            told = [result(self.trials[n].suggestion, 0, COMPLETE, 7.0) for n in numbers]
            if all(self.trials[n].owner != worker.life for n in numbers):
                with pytest.raises(StudiesError, match="refused"):
                    worker.storage.record(self.name, told, 1.0)

    @rule(index=WORKERS)
    def release(self, index: int) -> None:
        worker = self.workers[index]
        free = [t for t in self.trials if t.state == "RUNNING" and (t.owner == worker.life or not self.alive(t.owner))]
        assert worker.storage.release(self.name) == [t.suggestion.number for t in free]
        for trial in free:
            for other in self.workers:
                if other.life == trial.owner and other is not worker:
                    other.late.append([trial.suggestion.number])
            trial.state, trial.owner = "WAITING", None

    @rule(index=WORKERS)
    def renew(self, index: int) -> None:
        try:
            self.workers[index].storage.renew()
        except LeaseLost:
            raise AssertionError("a renewal only says so") from None

    @rule(index=WORKERS)
    def kill(self, index: int) -> None:
        self.workers[index].storage.close()
        self.workers[index] = Worker(Storage(self.url), next(self.lives))

    @rule(index=WORKERS)
    def pause_for_longer_than_a_lease(self, index: int) -> None:
        self.workers[index].is_alive = False
        leases.disown(self.workers[index].storage._owner)

    @rule(index=WORKERS)
    def reopen_the_database(self, index: int) -> None:
        other = Storage(self.url)
        assert len(other.records(self.name)) == len(self.trials)
        other.close()

    @invariant()
    def the_database_holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "name"):
            return
        storage = self.workers[0].storage
        found = storage.records(self.name, has_curves=True)
        assert [t.number for t in found] == list(range(len(self.trials)))
        assert [t.state for t in found] == [t.state for t in self.trials]
        for trial, expected in zip(found, self.trials, strict=True):
            assert trial.suggestion == expected.suggestion
            if expected.record is not None:
                assert trial == expected.record
            else:
                assert (trial.values, trial.rungs, trial.curve) == (None, {}, ())
        assert storage.falsified(self.name) == []
        with reading(storage._engine) as connection:
            study = study_id(connection, self.name)
            leased = set(connection.execute(select(LEASES.c.cohort).where(LEASES.c.study_id == study)).scalars())
        assert leased == {t.cohort for t in found if t.state == "RUNNING"}


@pytest.fixture
def machine(database_url: str) -> Iterator[type[Study]]:
    Storage(database_url).close()
    yield type("Study", (Study,), {"url": database_url})


def test_no_order_of_events_loses_or_doubles_a_trial(machine: type[Study]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
