"""The tracking server is killed and started again, its replies get lost, or it is away, while whole studies run.

Afterwards the doctor finds nothing, and `studies track` changes no row of MLflow's database: once more, or twice.
"""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from studies import server, tracking
from studies.doctor import examine
from studies.errors import UserError
from studies.home import Home
from studies.mirroring import bring_in_line
from studies.records import FINISHED_STATES, EpochDone, StudyFacts
from studies.runner import Run
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import Lines
from tests.studies.mirror_tools import (
    PATIENCE_S,
    TRANSPORTS,
    TcpProxy,
    assert_equal_and_quiet,
    connecting,
    contents,
    make_facts,
    mirrored,
)
from tests.torture.forms import FORM
from tests.torture.ledger import Faults
from tests.torture.summary import Row, counting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(FORM.timeout_s)]

PORT = 20_000 + FORM.seed % 10_000
"""Where a server is not that of other tests, which could take its place while it is down."""
RESTARTS_PER_STUDY = 5 if FORM.is_long else 2
LOSS_RATE = 0.3 if FORM.is_long else 0.5
N_TRIALS = 40 if FORM.is_long else 12


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("mirrors") / "mlruns"
    server.find_or_start(folder, port=PORT, timeout_s=PATIENCE_S)
    yield folder
    server.stop(folder)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits half a minute before trying again."""
    monkeypatch.setattr(tracking, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(tracking, "LONGEST_WAIT_S", 0.1)


def start(root: Path, port: int = PORT) -> server.Server:
    return server.find_or_start(root, port=port, timeout_s=PATIENCE_S)


class Study:
    """One study in a home whose tracking server is tortured."""

    def __init__(self, name: str, root: Path, address: str | None, seed: int) -> None:
        """`address` is that of the server as the user names it; None is the home's own, written to by SQL."""
        self.home = Home(root, f"sqlite:///{root / f'{name}.db'}", address)
        self.name, self.display = name, Lines()
        self.storage = Storage(self.home.database_url)
        self.spec = spec_from_dict(
            {
                "study": name,
                "seed": seed,
                "budget": {"trials": N_TRIALS},
                "data": {"source": "sklearn:wine"},
                "search": {"sampler": "random", "cohort": 4, "halving": {"first_rung": 1, "reduction_factor": 2}},
                "training": {"epochs": 2, "batch_size": 32},
                "search_space": {"width": {"low": 4, "high": 16}},
            }
        )

    def run(self) -> None:
        outcome = Run(self.spec, self.home, self.storage, self.display).execute(None)
        assert [t.number for t in outcome.trials] == list(range(N_TRIALS))

    def track(self) -> None:
        """`studies track`, as often as it needs."""
        ends = time.monotonic() + 10 * PATIENCE_S
        while True:
            try:
                bring_in_line(self.home, self.storage, self.storage.known(self.name), self.display)
                return
            except UserError as error:
                assert "tracking server must answer" in str(error) and time.monotonic() < ends

    def end(self, faults: Faults) -> None:
        """Bring MLflow in line where the run said that it is not; then it is, and stays as it is."""
        if any(line.startswith("warning: MLflow lacks") for line in self.display.said):
            self.track()
        self._ask_doctor(faults)
        for _ in range(2 if FORM.is_long else 1):
            before = contents(self.home.root)
            self.track()
            if contents(self.home.root) != before:
                faults.differences.append(f"{self.name}: tracking once more changed rows")
        self._ask_doctor(faults)
        found = self.storage.states(self.name)
        if sum(n for state, n in found.items() if state in FINISHED_STATES) != N_TRIALS:
            faults.lost.append(f"{self.name}: {found}")
        self.storage.close()

    def _ask_doctor(self, faults: Faults) -> None:
        diagnosis = examine(self.home, self.storage, self.name)
        faults.differences += [f"{self.name}: {f.kind}: {f.text}" for f in diagnosis.findings]
        faults.differences += [f"{self.name}: {note}" for note in diagnosis.notes]


def test_restarts_of_the_server(root: Path) -> None:
    rng = random.Random(FORM.seed)
    with counting("restarts of the tracking server") as (row, faults):
        index = 0
        while row.n_made < FORM.restarts:
            if index % 2 and start(root).port != PORT:  # a mirror started it, where a study looks first
                server.stop(root)
            address = start(root).address if index % 2 else None
            study = Study(f"restarts-{index}", root, address, rng.randrange(1000))
            n = min(RESTARTS_PER_STUDY, FORM.restarts - row.n_made)
            _kill_during(study, n, rng, row)
            study.run()
            start(root)
            study.end(faults)
            index += 1
        row.more = f"{index} studies, by SQL and REST in turn"


def _kill_during(study: Study, n: int, rng: random.Random, row: Row) -> None:
    """Let so many trials' first epochs be moments at which the server is killed, and comes back soon or late."""
    moments = sorted(rng.sample(range(N_TRIALS), n))

    def epoch(event: EpochDone) -> None:
        if not moments or event.number < moments[0]:
            return
        moments.pop(0)
        address = start(study.home.root).address
        time.sleep(rng.uniform(0, 0.3))  # the mirror may be writing what was told before
        found = server._processes(study.home.root.resolve())
        for process in found:
            process.kill()
        psutil.wait_procs(found, timeout=PATIENCE_S)  # until then its port is its own
        row.n_made += 1
        if rng.random() < 0.5 or study.home.tracking_uri is not None:
            assert start(study.home.root, int(address.rpartition(":")[2])).address == address

    study.display.on_epoch = epoch


def test_replies_that_get_lost(root: Path) -> None:
    rng, n_lost = random.Random(FORM.seed), FORM.lost_replies
    proxy = TcpProxy(start(root).address)
    is_lossy = True

    def fault() -> str | None:
        # Registering a model costs seconds a try.
        rate = 0.1 if b"model" in proxy.asked or b"artifacts" in proxy.asked else LOSS_RATE
        return "lose" if is_lossy and proxy.n_faults < n_lost and rng.random() < rate else None

    proxy.fault = fault
    with counting("lost replies of the tracking server") as (row, faults):
        index = 0
        while proxy.n_faults < n_lost:
            study = Study(f"lossy-{index}", root, proxy.address, rng.randrange(1000))
            is_lossy = True
            study.run()
            while proxy.n_faults < n_lost and rng.random() < 0.5:
                study.track()
            is_lossy = False
            study.end(faults)
            row.n_made, index = proxy.n_faults, index + 1
        row.more = f"{index} studies"
    proxy.close()


def test_a_server_that_is_away(root: Path) -> None:
    """For a whole study."""
    with counting("whole studies without a tracking server") as (row, faults):
        for index in range(max(1, FORM.restarts // 10)):
            address = start(root).address
            server.stop(root)
            study = Study(f"away-{index}", root, address, index)
            study.run()
            assert any(f"MLflow lacks {N_TRIALS} trials" in line for line in study.display.said), study.display.said
            assert start(root, int(address.rpartition(":")[2])).address == address
            study.end(faults)
            row.n_made += 1


MIRRORING = """
import sys
from pathlib import Path
from tests.studies.mirror_tools import connecting, make_facts, mirrored
home, name, transport, n_trials = sys.argv[1:]
print("begun", flush=True)
mirrored(connecting(Path(home), transport), make_facts(name), int(n_trials))
"""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_mirror_that_is_killed_anywhere_leaves_what_the_next_one_mends(root: Path, transport: str) -> None:
    rng, name = random.Random(FORM.seed), f"killed-{transport}"
    facts: StudyFacts = make_facts(name)
    with counting(f"kills of a mirror by {transport.upper()}") as (row, _):
        n_trials = 0
        for _ in range(FORM.mirror_kills):
            n_trials += 8
            words = [str(root), name, transport, str(n_trials)]
            with subprocess.Popen([sys.executable, "-c", MIRRORING, *words], stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                child.stdout.readline()
                time.sleep(rng.uniform(0, 0.6 if transport == "rest" else 0.1))
                child.kill()
            row.n_made += 1
        connect = connecting(root, transport)
        mirrored(connect, facts, n_trials)
        assert_equal_and_quiet(root, facts, n_trials, connect)
