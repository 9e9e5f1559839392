"""Two processes claim and tell on one study; they are killed anywhere, over and over, and so is PostgreSQL itself.

After each kill all that was acknowledged is in the database, once and unaltered; nothing of the dead is RUNNING once
somebody looked, and whoever lives keeps what it has.
"""

import contextlib
import multiprocessing
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from sqlalchemy import select

from studies.database import database_file, reading
from studies.doctor import examine
from studies.errors import Overtaken
from studies.home import Home
from studies.leases import Keeper
from studies.records import FINISHED_STATES, RUNNING
from studies.rows import TRIAL
from studies.storage import Storage
from studies.tables import LEASES, RESULTS
from studies.trials import study_id
from tests.postgres import Cluster
from tests.studies.conftest import NOBODY
from tests.torture import victims
from tests.torture.forms import FORM
from tests.torture.ledger import Faults, Ledger, compare, lines
from tests.torture.summary import Row, counting
from tests.torture.victims import NAME, Fuse

pytestmark = [pytest.mark.slow, pytest.mark.timeout(FORM.timeout_s)]

N_VICTIMS = 2
KILLS_PER_DATABASE = 25
"""Then an empty one takes its place: how they are made is tortured too."""
STOP_EVERY = 20
"""Of so many kills in PostgreSQL one is that of the server."""
WITNESS, LAST = 1_000_000, 1_000_001
"""Lives of those who are not killed: one holds trials all along, one finishes what is left."""
PATIENCE_S = 600.0

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.torture.victims"])


@dataclass
class Victim:
    life: int
    process: BaseProcess
    fuse: Fuse | None
    kill_at: float


@dataclass
class Ground:
    """One database, those who work in it, and what they said."""

    url: str
    folder: Path
    rng: random.Random
    faults: Faults
    n_lives: int = 0
    victims: list[Victim] = field(default_factory=list)

    def path(self, life: int) -> Path:
        return self.folder / f"{life}.jsonl"

    def ledgers(self) -> dict[int, list[dict[str, object]]]:
        return {int(path.stem): lines(path) for path in self.folder.glob("*.jsonl")}

    def begin(self) -> Victim:
        life, self.n_lives = self.n_lives, self.n_lives + 1
        fuse = _fuse(self.rng)
        words = (self.url, self.path(life), life, self.rng.randrange(2**32), fuse)
        process = _context.Process(target=victims.live, args=words, daemon=True)
        process.start()
        victim = Victim(life, process, fuse, time.monotonic() + self.rng.uniform(0, 0.4))
        self.victims.append(victim)
        return victim

    def kill(self, victim: Victim) -> bool:
        """End a victim in its own way; returns whether it was killed, and did not end by itself."""
        if victim.fuse is None:
            time.sleep(max(0.0, victim.kill_at - time.monotonic()))
            victim.process.kill()
        victim.process.join(PATIENCE_S)
        assert victim.process.exitcode is not None, f"life {victim.life} hangs: {lines(self.path(victim.life))[-3:]}"
        return self.bury(victim)

    def bury(self, victim: Victim) -> bool:
        code = victim.process.exitcode
        self.victims.remove(victim)
        assert code in (-9, victims.ENDED), (
            f"life {victim.life} ended with {code}: {lines(self.path(victim.life))[-3:]}"
        )
        own = lines(self.path(victim.life))
        self.faults.false_reaps += [f"life {victim.life}: {line['why']}" for line in own if line["what"] == "lost"]
        return code == -9


def _fuse(rng: random.Random) -> Fuse | None:
    """Half of the victims are killed from outside, the others within a statement or a commit."""
    kind = rng.choice(("", "", "before_cursor_execute", "commit"))
    if not kind:
        return None
    delay_s = 0.0 if rng.random() < 0.3 else rng.uniform(0, 0.008)
    return Fuse(kind, rng.randint(1, 30) if kind == "commit" else rng.randint(1, 150), delay_s)


def test_sqlite(tmp_path: Path) -> None:
    with counting("storage calls, SQLite") as (row, faults):
        _torture(row, faults, tmp_path, lambda i: f"sqlite:///{tmp_path / str(i)}.db", None)


def test_postgresql(tmp_path: Path, own_cluster: Cluster) -> None:
    with counting("storage calls, PostgreSQL") as (row, faults):
        _torture(row, faults, tmp_path, lambda i: own_cluster.create_database(f"torture_{i}"), own_cluster)


def _torture(row: Row, faults: Faults, root: Path, new_url: Callable[[int], str], server: Cluster | None) -> None:
    rng = random.Random(FORM.seed)
    n_stops = 0
    for index in range(-(-FORM.storage_kills // KILLS_PER_DATABASE)):
        folder = root / f"lives-{index}"
        folder.mkdir(mode=0o700)
        ground = Ground(new_url(index), folder, rng, faults)
        n = min(KILLS_PER_DATABASE, FORM.storage_kills - row.n_made)
        try:
            n_stops += _kill_all(ground, n, row, server)
        finally:
            for victim in ground.victims:
                victim.process.kill()
    if server is not None:
        row.more = f"{n_stops} of them the server"


def _kill_all(ground: Ground, n_kills: int, row: Row, server: Cluster | None) -> int:
    """Kill so many, and look at the database after each; returns how often the server was killed."""
    n_stops, ends_at = 0, row.n_made + n_kills
    for _ in range(N_VICTIMS):
        ground.begin()
    while not any(line["what"] == "made" for own in ground.ledgers().values() for line in own):
        for victim in [v for v in ground.victims if not v.process.is_alive()]:
            row.n_made += ground.kill(victim)
            ground.begin()
        time.sleep(0.005)
    with contextlib.closing(Storage(ground.url)) as witness, Keeper(witness.renew, every_s=0.2) as keeper:
        held = _hold(witness, ground)
        while row.n_made < ends_at:
            if server is not None and ground.rng.random() < 1 / STOP_EVERY:
                server.stop("immediate")
                server.start()
                n_stops, row.n_made = n_stops + 1, row.n_made + 1
            else:
                victim = ground.rng.choice(ground.victims)
                row.n_made += ground.kill(victim)
                ground.begin()
            for victim in [v for v in ground.victims if v.process.exitcode == victims.ENDED]:
                ground.bury(victim)
                ground.begin()
            _look(ground, held)
        _finish(ground, witness, held)
        if keeper.lost.is_set():
            ground.faults.false_reaps.append("the witness found a lease gone")
    return n_stops


def _hold(witness: Storage, ground: Ground) -> list[int]:
    """Claim a cohort that is told at the end of all."""
    ledger = Ledger(ground.path(WITNESS))
    while True:
        with contextlib.suppress(Overtaken):  # a victim was faster
            return victims.claim(witness, ledger, WITNESS, 3)[1]


def _look(ground: Ground, held: list[int]) -> None:
    """Put back what is nobody's; then nothing of the dead is RUNNING, and what the living have is theirs."""
    reaper = Storage(ground.url)
    living = {victim.process.pid for victim in ground.victims} | {multiprocessing.current_process().pid}
    released = reaper.release(NAME)
    with reading(reaper.engine) as connection:
        query = select(TRIAL.c.number, LEASES.c.pid).join(RESULTS, RESULTS.c.trial_id == TRIAL.c.trial_id)
        query = query.join(LEASES, LEASES.c.token == RESULTS.c.token, isouter=True)
        own = query.where(TRIAL.c.study_id == study_id(connection, NAME), TRIAL.c.state == RUNNING)
        found = {int(row.number): row.pid for row in connection.execute(own)}
    reaper.close()
    ground.faults.zombies += [f"trial {n} of process {pid}" for n, pid in found.items() if pid not in living]
    reaped = [n for n in held if n in released or n not in found]
    ground.faults.false_reaps += [f"trial {n} of the witness" for n in reaped]


def _finish(ground: Ground, witness: Storage, held: list[int]) -> None:
    """Kill who is left, train what is left, and look at everything."""
    for victim in list(ground.victims):
        victim.process.kill()
        victim.process.join(PATIENCE_S)
        ground.bury(victim)
    victims.tell(witness, Ledger(ground.path(WITNESS)), WITNESS, held)
    last, ledger = Storage(ground.url), Ledger(ground.path(LAST))
    last.release(NAME)
    while numbers := victims.take(last, ledger):
        victims.tell(last, ledger, LAST, numbers)
    trials = last.records(NAME, has_curves=True)
    compare(ground.ledgers(), trials, ground.faults)
    ground.faults.zombies += [f"trial {t.number} is {t.state}" for t in trials if t.state not in FINISHED_STATES]
    ground.faults.differences += [f"trial {n} has not its checksum" for n in last.falsified(NAME)]
    file = database_file(ground.url)
    if file is not None:
        file.chmod(0o600)
    diagnosis = examine(Home(ground.folder, ground.url, NOBODY), last, None)
    ground.faults.differences += [f"{f.kind}: {f.text}" for f in diagnosis.findings]
    last.close()
