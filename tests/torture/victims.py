"""Processes that work on a study database until they are killed. They import no torch: a fork of one is cheap."""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.distributions import FloatDistribution
from sqlalchemy import Engine, event

from studies.errors import LeaseLost, Overtaken, StudiesError, UserError
from studies.leases import Keeper
from studies.records import WAITING, Objective, StudyFacts
from studies.storage import Storage
from tests.torture.ledger import Ledger, result, suggestion

NAME = "victims"
DISTRIBUTIONS = {"x": FloatDistribution(0.0, 1.0)}
ENDED = 3
"""Exit code of a victim whose database went away: it said so, and stopped."""
_COHORT = 6


@dataclass(frozen=True, slots=True)
class Fuse:
    """When a victim kills itself; one without a fuse is killed by others."""

    kind: str
    """The SQLAlchemy event that is counted: "before_cursor_execute" or "commit"."""
    count: int
    delay_s: float
    """From that event on: a commit that has begun is cut somewhere within."""


def facts() -> StudyFacts:
    return StudyFacts(
        name=NAME, uuid="5" * 32, spec={"study": NAME}, objectives=(Objective("accuracy", "maximize"),), task="binary",
        curve_metric="accuracy", cohort_size=_COHORT, n_features=1, n_outputs=1, data_name="none",
        data_fingerprint="0" * 64, environment={}, created_at=1.7e9,
    )  # fmt: skip


def live(url: str, path: Path, life: int, seed: int, fuse: Fuse | None) -> None:
    """Claim, take, tell and renew without end."""
    ledger = Ledger(path)
    try:
        storage = Storage(url)
        if fuse is not None:
            _light(storage.engine, fuse)
        _make_study(storage, ledger)
        ledger.write("released", numbers=storage.release(NAME))
        with Keeper(storage.renew, every_s=0.05) as keeper:
            rng = random.Random(seed)
            while True:
                _do_something(storage, ledger, life, rng)
                if keeper.lost.is_set():
                    ledger.write("lost", why="a renewal found a lease gone")
                    keeper.lost.clear()
    except LeaseLost as error:
        ledger.write("lost", why=str(error))
        sys.exit(ENDED)
    except StudiesError as error:
        ledger.write("ended", why=f"{type(error).__name__}: {error}")
        sys.exit(ENDED)


def claim(storage: Storage, ledger: Ledger, life: int, n: int) -> tuple[int, list[int]]:
    """Ask n trials that follow the stored ones, fewer where a cohort ends; returns their cohort and numbers."""
    first = sum(storage.states(NAME).values())
    numbers = list(range(first, first + min(n, _COHORT - first % _COHORT)))
    ledger.write("claiming", numbers=numbers)
    cohort = storage.claim(NAME, [suggestion(i, life) for i in numbers], [9] * len(numbers), DISTRIBUTIONS)
    ledger.write("claimed", numbers=numbers, cohort=cohort)
    return cohort, numbers


def tell(storage: Storage, ledger: Ledger, life: int, numbers: Sequence[int]) -> None:
    """Store the results of trials that this life holds."""
    told = [result(t.suggestion, t.cohort, life) for t in storage.records(NAME, numbers)]
    ledger.write("telling", numbers=list(numbers))
    storage.record(NAME, told, 1.0)
    ledger.write("told", numbers=list(numbers))


def _make_study(storage: Storage, ledger: Ledger) -> None:
    if storage.facts(NAME) is None:
        try:
            storage.create_study(facts())
        except UserError:  # another victim was faster
            if storage.facts(NAME) is None:
                raise
    ledger.write("made")


def _do_something(storage: Storage, ledger: Ledger, life: int, rng: random.Random) -> None:
    if rng.random() < 0.2:
        storage.store_mirror(NAME, f"http://127.0.0.1:{life}", str(life))
    _, n_free = storage.others(NAME)
    if n_free:
        ledger.write("released", numbers=storage.release(NAME))
    try:
        numbers = take(storage, ledger) or claim(storage, ledger, life, rng.randint(1, _COHORT))[1]
    except Overtaken:
        return
    time.sleep(rng.uniform(0, 0.01))  # it trains
    cut = rng.randint(0, len(numbers))
    for part in (numbers[:cut], numbers[cut:]):
        if part:
            tell(storage, ledger, life, part)


def take(storage: Storage, ledger: Ledger) -> list[int]:
    """Claim a cohort that waits again, if there is one."""
    waiting = [t for t in storage.records(NAME) if t.state == WAITING]
    if not waiting:
        return []
    cohort = min(t.cohort for t in waiting)
    numbers = [t.number for t in waiting if t.cohort == cohort]
    storage.take(NAME, numbers)
    ledger.write("taken", numbers=numbers)
    return numbers


def _light(engine: Engine, fuse: Fuse) -> None:
    left = fuse.count

    def burn() -> None:
        time.sleep(fuse.delay_s)
        os.kill(os.getpid(), signal.SIGKILL)

    def count(*_event: object) -> None:
        nonlocal left
        left -= 1
        if left == 0 and fuse.delay_s:
            threading.Thread(target=burn, daemon=True).start()
        elif left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(engine, fuse.kind, count)
