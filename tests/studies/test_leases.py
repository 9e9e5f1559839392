import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from sqlalchemy import text

from studies import database, leases
from studies.database import writing
from studies.errors import DatabaseGone, LeaseLost, Overtaken, StudiesError, StudyBusy
from studies.leases import LEASE_S, Keeper
from studies.records import StudyFacts, TrialRecord
from studies.storage import Storage
from tests.postgres import Cluster

DISTRIBUTIONS = {"learning_rate": FloatDistribution(1e-4, 10.0, log=True)}
CLAIM = """
import sys
from optuna.distributions import FloatDistribution
from studies.records import Suggestion
from studies.storage import Storage
storage = Storage(sys.stdin.readline().strip())
first, n = map(int, sys.argv[1:])
found = [Suggestion(i, {"width": 8, "learning_rate": 0.1}, ("learning_rate",)) for i in range(first, first + n)]
storage.claim("wine", found, [99] * n, {"learning_rate": FloatDistribution(1e-4, 10.0, log=True)})
print("claimed", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def storage(database_url: str, make_facts: Callable[..., StudyFacts]) -> Iterator[Storage]:
    opened = Storage(database_url)
    opened.create_study(make_facts("wine"))
    yield opened
    opened.close()


@pytest.fixture
def trials(make_trial: Callable[..., TrialRecord]) -> list[TrialRecord]:
    changes = {"hyperparameters": {"width": 8, "learning_rate": 0.1}, "searched": ("learning_rate",)}
    return [make_trial(n, **changes) for n in range(4)]


def claim(storage: Storage, trials: list[TrialRecord]) -> int:
    return storage.claim("wine", [t.suggestion for t in trials], [99] * len(trials), DISTRIBUTIONS)


@contextlib.contextmanager
def claimer(url: str, first: int, n: int) -> Iterator["subprocess.Popen[str]"]:
    """A process that has claimed n trials, and trains them."""
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(first), str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{url}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.kill()


def change_leases(storage: Storage, assignments: str) -> None:
    with writing(storage._engine) as connection:
        assert connection.execute(text(f"UPDATE dlcore_leases SET {assignments}")).rowcount


def test_what_another_object_trains_is_left_alone_until_it_is_closed(
    storage: Storage, trials: list[TrialRecord]
) -> None:
    claim(storage, trials[:2])
    other = Storage(storage.url)
    assert other.others("wine") == (1, 0)
    assert other.release("wine") == []
    assert other.others("wine") == (1, 0)
    storage.close()
    assert other.others("wine") == (0, 2)
    assert other.release("wine") == [0, 1]
    other.close()


def test_the_trials_of_a_dead_process_are_released_at_once_with_their_number_and_hyperparameters(
    storage: Storage, trials: list[TrialRecord]
) -> None:
    with claimer(storage.url, 0, 4) as process:
        assert storage.release("wine") == []
        process.kill()
        process.wait()
        assert storage.others("wine") == (0, 4)
        assert storage.release("wine") == [0, 1, 2, 3]
    assert [(t.number, t.state, t.hyperparameters) for t in storage.records("wine")] == [
        (t.number, "WAITING", t.hyperparameters) for t in trials
    ]
    assert storage.take("wine", [0, 1, 2, 3]) == 0


def test_a_dead_process_that_nobody_waited_for_is_dead(storage: Storage) -> None:
    with claimer(storage.url, 0, 2) as process:
        os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while not storage.release("wine"):  # it is a zombie as long as its parent does not ask
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_renewal_between_the_last_result_and_the_release_finds_nothing_lost(
    storage: Storage, trials: list[TrialRecord]
) -> None:
    claim(storage, trials[:2])
    storage.record("wine", trials[:1], 0.0)
    assert storage.renew()
    storage.record("wine", trials[1:2], 0.0)
    assert storage.renew()
    assert storage.release("wine") == [] and storage.renew()


def test_no_clock_takes_a_living_processs_trials(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    with claimer(storage.url, 0, 2):
        for jump_s in (600.0, -600.0, 3600.0, -3600.0, 1e9):
            with monkeypatch.context() as patch:
                patch.setattr(leases, "now", lambda connection, jump=jump_s: database.now(connection) + jump)
                assert storage.release("wine") == []
        change_leases(storage, "expires_at = 0")
        assert storage.release("wine") == []
        assert storage.states("wine") == {"RUNNING": 2}


def test_a_paused_process_keeps_its_trials_for_its_lease(storage: Storage) -> None:
    with claimer(storage.url, 0, 2) as process:
        os.kill(process.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 30
        while leases._process(process.pid)[1] != "T":
            assert time.monotonic() < deadline
        assert storage.release("wine") == []
        change_leases(storage, "expires_at = 0")
        assert storage.release("wine") == [0, 1]
        os.kill(process.pid, signal.SIGCONT)


def test_trials_on_another_machine_come_back_when_their_lease_ends(
    storage: Storage, trials: list[TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Storage(storage.url)
    claim(other, trials[:2])
    other.close()
    change_leases(storage, "machine = 'another boot'")
    with monkeypatch.context() as patch:
        patch.setattr(leases, "now", lambda connection: database.now(connection) + LEASE_S - 5)
        assert storage.release("wine") == []
        patch.setattr(leases, "now", lambda connection: database.now(connection) + LEASE_S + 5)
        assert storage.release("wine") == [0, 1]


def test_who_holds_the_drivers_lock_on_sqlite_believes_no_lease_of_another_boot(
    storage: Storage, trials: list[TrialRecord]
) -> None:
    lost, here = Storage(storage.url), Storage(storage.url)
    claim(lost, trials[:2])
    change_leases(storage, "machine = 'the boot before'")
    claim(here, trials[2:])  # a process of this machine is believed all the same
    is_alone = storage.url.startswith("sqlite")
    assert storage.others("wine") == (2, 0) and storage.release("wine") == []
    assert storage.others("wine", holds_lock=True) == ((1, 2) if is_alone else (2, 0))
    assert storage.release("wine", holds_lock=True) == ([0, 1] if is_alone else [])
    lost.close(), here.close()


@pytest.mark.parametrize("error", [None, MemoryError, KeyboardInterrupt])
def test_what_is_abandoned_is_nobodys_though_its_object_lives_on(
    storage: Storage, trials: list[TrialRecord], monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | None
) -> None:
    failed, other = Storage(storage.url), Storage(storage.url)
    claim(failed, trials[:2])

    def fail(*_: object) -> None:
        assert error is not None
        raise error

    with monkeypatch.context() as patch:
        if error is not None:
            patch.setattr(failed, "_surely", fail)
        is_passed_on = error is KeyboardInterrupt  # a second Ctrl-C ends the call too
        with pytest.raises(KeyboardInterrupt) if is_passed_on else contextlib.nullcontext():
            failed.abandon("wine")
    assert other.release("wine") == ([0, 1] if error is not None else [])
    failed.take("wine", [0, 1])  # it claims as before
    assert other.others("wine") == (1, 0)
    failed.record("wine", trials[:2], 1.0)
    failed.close(), other.close()


def test_a_process_id_that_another_process_got_later_owns_nothing(storage: Storage, trials: list[TrialRecord]) -> None:
    other = Storage(storage.url)
    claim(other, trials[:2])
    change_leases(storage, "process_started = '1', claimer = 'somebody'")
    assert storage.release("wine") == [0, 1]
    other.close()


def test_a_late_result_is_refused_and_not_doubled(storage: Storage, trials: list[TrialRecord]) -> None:
    claim(storage, trials)
    other = Storage(storage.url)
    leases.disown(storage._owner)  # as if it had been paused for longer than its lease
    assert other.release("wine") == [0, 1, 2, 3]
    with pytest.raises(LeaseLost, match="refused"):
        storage.record("wine", trials, 1.0)
    assert other.take("wine", [0, 1, 2, 3]) == 0
    with pytest.raises(LeaseLost, match="refused"):
        storage.record("wine", trials, 1.0)
    assert storage.renew() is False
    other.record("wine", trials, 2.0)
    with pytest.raises(LeaseLost, match="refused"):  # so that the late one goes on with other trials
        storage.record("wine", trials, 1.0)
    assert other.states("wine") == {"COMPLETE": 4}
    assert other.spent_s("wine") == 2.0
    other.close()


def test_of_two_who_take_the_same_trials_one_gets_them(storage: Storage, trials: list[TrialRecord]) -> None:
    claim(storage, trials)
    storage.release("wine")
    other = Storage(storage.url)
    assert other.take("wine", [0, 1, 2, 3]) == 0
    with pytest.raises(Overtaken):
        storage.take("wine", [0, 1, 2, 3])
    other.close()


def test_of_two_who_claim_the_same_numbers_one_gets_them(storage: Storage, trials: list[TrialRecord]) -> None:
    other = Storage(storage.url)
    claim(other, trials[:2])
    with pytest.raises(Overtaken):
        claim(storage, trials[:2])
    assert claim(storage, trials[2:]) == 1
    other.close()


def test_a_lease_ends_with_the_last_of_its_trials(storage: Storage, trials: list[TrialRecord]) -> None:
    claim(storage, trials)
    other = Storage(storage.url)
    storage.record("wine", trials[:3], 1.0)
    assert other.others("wine") == (1, 0)
    storage.record("wine", trials[3:], 1.0)
    assert other.others("wine") == (0, 0)
    other.close()


def test_a_renewal_moves_the_end_of_a_lease(storage: Storage, trials: list[TrialRecord]) -> None:
    assert storage.renew()
    claim(storage, trials)
    change_leases(storage, "expires_at = 0")
    assert storage.renew()
    with writing(storage._engine) as connection:
        ends = connection.execute(text("SELECT expires_at FROM dlcore_leases")).scalar_one()
        assert database.now(connection) < ends <= database.now(connection) + LEASE_S


class Lossy:
    """Loses the database just after, or just before, it was told to commit."""

    def __init__(self, real: Any, is_after: bool, n: int) -> None:
        self.real, self.is_after, self.n_left = real, is_after, n

    @contextlib.contextmanager
    def __call__(self, engine: Any) -> Iterator[Any]:
        if self.n_left and not self.is_after:
            self.n_left -= 1
            raise DatabaseGone("gone")
        with self.real(engine) as connection:
            yield connection
        if self.n_left:
            self.n_left -= 1
            raise DatabaseGone("gone")


@pytest.mark.parametrize("is_after", [True, False])
@pytest.mark.parametrize("n_lost", [1, 2])
def test_a_commit_whose_answer_got_lost_is_neither_lost_nor_doubled(
    storage: Storage, trials: list[TrialRecord], monkeypatch: pytest.MonkeyPatch, is_after: bool, n_lost: int
) -> None:
    monkeypatch.setattr("studies.storage._RETRY_AFTER_S", (0.0, 0.0, 0.0))
    with monkeypatch.context() as patch:
        patch.setattr("studies.storage.writing", Lossy(writing, is_after, n_lost))
        assert claim(storage, trials) == 0
    assert storage.states("wine") == {"RUNNING": 4}
    with monkeypatch.context() as patch:
        patch.setattr("studies.storage.writing", Lossy(writing, is_after, n_lost))
        storage.record("wine", trials, 1.0)
    assert storage.states("wine") == {"COMPLETE": 4}
    assert storage.spent_s("wine") == 1.0
    assert storage.records("wine", has_curves=True) == trials


def test_a_database_that_stays_away_is_said(
    storage: Storage, trials: list[TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studies.storage._RETRY_AFTER_S", (0.0, 0.0))
    monkeypatch.setattr("studies.storage.writing", Lossy(writing, False, 3))
    with pytest.raises(DatabaseGone):
        claim(storage, trials)
    assert storage.states("wine") == {}


def test_a_keeper_renews_says_what_is_lost_and_outlives_a_database_that_is_away() -> None:
    answers: list[bool | Exception] = [True, DatabaseGone("away"), StudiesError("locked"), True, False]
    done = threading.Event()

    def renew() -> bool:
        if not answers:
            done.set()
            return True
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with Keeper(renew, every_s=0.01) as keeper:
        assert done.wait(30)
        assert keeper.lost.is_set()
    assert not [t for t in threading.enumerate() if t.name == "leases"]


def test_one_asks_at_a_time_and_nobody_waits_for_ever(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_ASK_PATIENCE_S", 0.3)
    other = Storage(storage.url)
    with storage.asking("wine"):
        began = time.monotonic()
        with other.asking("wine"):
            assert time.monotonic() - began >= 0.3
    monkeypatch.setattr(leases, "_ASK_PATIENCE_S", 1e9)
    with other.asking("wine"):
        pass
    other.close()


def test_who_waits_to_ask_outlives_the_connection(
    postgres: Cluster, postgres_url: str, make_facts: Callable[..., StudyFacts]
) -> None:
    first, second = Storage(postgres_url), Storage(postgres_url)
    first.create_study(make_facts("wine"))
    database = postgres_url.rpartition("/")[2]
    with first.leading("wine") as is_first, second.leading("wine") as is_second:
        assert is_first() and not is_second()
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
        assert not is_second() and is_second()
    first.close()
    second.close()


def test_of_several_drivers_in_postgresql_one_mirrors(postgres_url: str, make_facts: Callable[..., StudyFacts]) -> None:
    first, second = Storage(postgres_url), Storage(postgres_url)
    first.create_study(make_facts("wine"))
    with first.leading("wine") as is_first, second.leading("wine") as is_second:
        assert is_first() and not is_second() and is_first()
    with second.leading("wine") as is_second:
        assert is_second()
    first.close()
    second.close()


def test_who_wants_a_study_in_postgresql_alone_keeps_drivers_away_and_is_kept_away_by_them(
    postgres_url: str, make_facts: Callable[..., StudyFacts]
) -> None:
    first, second = Storage(postgres_url), Storage(postgres_url)
    first.create_study(make_facts("wine"))
    first.create_study(make_facts("other"))
    assert not second.is_driven("wine")
    with first.leading("wine"), second.leading("wine"):  # drivers, whichever of them mirrors
        assert second.is_driven("wine") and not second.is_driven("other")
        with second.alone("wine") as is_alone:
            assert not is_alone
        with second.alone("other") as is_alone:
            assert is_alone
    with second.alone("wine") as is_alone:
        assert is_alone and first.is_driven("wine")
        with pytest.raises(StudyBusy, match="repaired or deleted"), first.leading("wine"):
            pass
    with first.leading("wine") as is_first:
        assert is_first()
    assert not second.is_driven("wine")
    first.close()
    second.close()


def test_a_process_that_the_system_hides_is_believed_for_its_lease(
    storage: Storage, trials: list[TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's, where /proc has `hidepid`: it is there, and nothing tells when it began."""

    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    with claimer(storage.url, 0, 2), monkeypatch.context() as patch:
        patch.setattr("studies.leases._process", lambda _pid: ("", ""))
        patch.setattr("studies.leases.os.kill", refuse)
        assert storage.release("wine") == []
        change_leases(storage, "expires_at = 1")
        assert storage.release("wine") == [0, 1]


def test_a_database_that_a_reader_keeps_locked_is_written_when_it_is_free(
    tmp_path: Path,
    make_facts: Callable[..., StudyFacts],
    trials: list[TrialRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("studies.database._BUSY_S", 0.05)
    storage = Storage(f"sqlite:///{tmp_path / 'locked.db'}")
    storage.create_study(make_facts("wine"))
    reader = sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM studies").fetchall()
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        reader.close()

    monkeypatch.setattr("studies.storage.time", SimpleNamespace(sleep=wait))
    assert claim(storage, trials) == 0 and len(waited) == 1
    assert storage.states("wine") == {"RUNNING": 4}
    storage.close()
