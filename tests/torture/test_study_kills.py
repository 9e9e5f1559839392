"""Real `studies run`, with a real tracking server: driver, worker, server or PostgreSQL are killed at any moment.

The same command goes on until the study is done. It is then the study that was never touched: bit for bit with one
driver, to rounding with several workers; MLflow shows it so, and the doctor finds nothing.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from studies import server
from studies.doctor import examine
from studies.home import Home
from studies.mirroring import bring_in_line
from studies.records import FINISHED_STATES, RUNNING, TrialRecord
from studies.storage import Storage
from tests.conftest import studies_environment
from tests.postgres import Cluster
from tests.studies.conftest import Lines
from tests.studies.lives import bits, in_process
from tests.studies.mirror_tools import rows
from tests.torture.forms import FORM
from tests.torture.ledger import Faults
from tests.torture.summary import Row, counting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(FORM.timeout_s)]

TRIALS, COHORT = 10, 4
SAMPLERS = ("tpe", "random", "qmc", "grid", "gp", "nsga2")
UNTAUGHT = ("random", "qmc", "grid")
"""What these ask does not depend on which trials were told first, as it may with several workers."""
GRID = {"width": [4, 8, 16], "activation": ["relu", "leaky_relu", "tanh"], "learning_rate": [0.1, 0.02]}
SPACE = {
    "width": {"low": 4, "high": 32, "log": True},
    "activation": ["relu", "leaky_relu", "tanh"],
    "learning_rate": {"low": 1e-3, "high": 0.1, "log": True},
}
DECKS = {  # by whether it is in PostgreSQL, and has workers
    (False, False): ("driver", "driver", "driver", "server"),
    (True, True): ("driver", "driver", "worker", "postgres"),
    (True, False): ("driver", "driver", "server", "postgres"),
    (False, True): ("driver", "driver", "worker", "worker"),
}
PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("kills") / "home"
    folder.mkdir(mode=0o700)
    yield folder
    server.stop(folder)


@dataclass
class Broken:
    """A study that is killed, and run again."""

    spec: dict[str, Any]
    root: Path
    url: str
    n_workers: int
    cluster: Cluster | None
    rng: random.Random
    process: "subprocess.Popen[bytes] | None" = None
    has_excuse: bool = False
    """Whether this run may end with an error: its database, or a worker of it, was killed."""
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = str(self.spec["study"])
        self.storage = Storage(self.url)

    def begin(self) -> "subprocess.Popen[bytes]":
        words = ["--workers", str(self.n_workers)] if self.n_workers > 1 else []
        environment = studies_environment(self.root) | {"STUDIES_DB": self.url}
        self.has_excuse = False
        with (self.root.parent / f"{self.name}.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "studies", "run", f"{self.name}.toml", *words],
                cwd=self.root.parent, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return self.process

    def living(self) -> "subprocess.Popen[bytes]":
        """The run that goes on; a new one where it has ended."""
        if self.process is not None and self.process.poll() is None:
            return self.process
        self.hear()
        return self.begin()

    def hear(self) -> None:
        """What the last run said, which must be no surprise."""
        if self.process is None:
            return
        code = self.process.wait(PATIENCE_S)
        said = (self.root.parent / f"{self.name}.log").read_text()
        assert "Traceback" not in said, said
        assert code in (0, -9) or (code == 1 and self.has_excuse and "error: " in said), f"{code}: {said}"
        self.said.append(said)
        self.process = None

    def states(self) -> tuple[int, bool]:
        """How many trials are finished, and whether any is RUNNING."""
        found = self.storage.states(self.name) if self.storage.facts(self.name) else {}
        return sum(n for state, n in found.items() if state in FINISHED_STATES), RUNNING in found

    def await_moment(self, run: "subprocess.Popen[bytes]") -> None:
        """Wait until so many trials are told, and a while; or until the run has ended."""
        n_finished, _ = self.states()
        if n_finished == TRIALS:  # what is left is done again: export, mirror, registration
            delay_s = self.rng.uniform(2, 8)
        else:
            target, is_training = self.rng.randint(n_finished, TRIALS), False
            while run.poll() is None and not (n_finished >= target and (is_training or n_finished == TRIALS)):
                time.sleep(0.03)  # a look costs the run something
                n_finished, is_training = self.states()
            delay_s = self.rng.uniform(0, 4 if n_finished == TRIALS else 0.3)
        ends = time.monotonic() + delay_s
        while run.poll() is None and time.monotonic() < ends:
            time.sleep(min(0.01, max(0.0, ends - time.monotonic())))

    def kill(self, what: str) -> bool:
        """Kill something of a run at a random moment; returns whether it was there."""
        run = self.living()
        self.await_moment(run)
        if run.poll() is not None:
            return False
        if what == "server":
            return _kill_server(self.root, self.rng)
        if what == "postgres":
            assert self.cluster is not None
            self.has_excuse = True
            self.cluster.stop("immediate")
            self.cluster.start()
            return True
        if what == "worker":
            self.has_excuse = True
            return _kill_worker(run.pid, self.rng)
        run.kill()
        return run.wait() == -9

    def finish(self) -> None:
        """Run until it is done, and leave nothing running."""
        for _ in range(5):
            run = self.living()
            if run.wait(PATIENCE_S) == 0:
                self.hear()
                return
        raise AssertionError(self.said)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.storage.close()


def _kill_server(root: Path, rng: random.Random) -> bool:
    """All processes of the tracking server, or its leader alone, which leaves another one on the port."""
    found = server._processes(root.resolve())
    if found and rng.random() < 0.5:
        found = [p for p in found if p.pid == os.getpgid(p.pid)]
    for process in found:
        process.kill()
    return bool(found)


def _kill_worker(driver: int, rng: random.Random) -> bool:
    try:
        children = [c for c in psutil.Process(driver).children() if "studies.worker" in c.cmdline()]
        if children:
            rng.choice(children).kill()
        return bool(children)
    except psutil.NoSuchProcess:
        return False


def test_whole_studies(root: Path, own_cluster: Cluster) -> None:
    rng = random.Random(FORM.seed)
    kinds: dict[str, int] = {}
    with counting("whole studies") as (row, faults):
        n_studies = 0
        while row.n_made < FORM.study_kills:
            _torture(n_studies, root, own_cluster, rng, row, faults, kinds)
            n_studies += 1
            row.more = ", ".join(f"{what} {n}" for what, n in sorted(kinds.items()))
        row.more += f"; {n_studies} studies"


def _torture(
    index: int, root: Path, cluster: Cluster, rng: random.Random, row: Row, faults: Faults, kinds: dict[str, int]
) -> None:
    is_postgresql, has_workers = [(False, False), (True, True), (True, False), (False, True)][index % 4]
    name = f"broken-{index}"
    sampler = rng.choice(UNTAUGHT if has_workers else SAMPLERS)
    halving = rng.choice([False, {"first_rung": 2, "reduction_factor": 2}])
    spec = _spec(name, sampler, halving, rng.randrange(1000))
    (root.parent / f"{name}.toml").write_text(_toml(spec))
    url = cluster.create_database(name) if is_postgresql else f"sqlite:///{root / f'{name}.db'}"
    broken = Broken(spec, root, url, 2 if has_workers else 1, cluster if is_postgresql else None, rng)
    deck = list(DECKS[is_postgresql, has_workers]) * (2 if FORM.is_long else 1)
    rng.shuffle(deck)
    try:
        while deck and row.n_made < FORM.study_kills:
            if broken.kill(deck[-1]):
                what = deck.pop()
                kinds[what] = kinds.get(what, 0) + 1
                row.n_made += 1
        broken.finish()
        _compare(broken, faults)
    finally:
        broken.close()


def _spec(name: str, sampler: str, halving: object, seed: int) -> dict[str, Any]:
    return {
        "study": name,
        "seed": seed,
        "budget": {"trials": TRIALS},
        "data": {"source": "sklearn:wine"},
        "search": {"sampler": sampler, "cohort": COHORT, "halving": halving},
        "training": {"epochs": 6, "batch_size": 8},
        "search_space": GRID if sampler == "grid" else SPACE,
    }


def _toml(spec: dict[str, Any]) -> str:
    def text(value: object) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{key} = {text(own)}" for key, own in value.items()) + " }"
        if isinstance(value, list):
            return "[" + ", ".join(map(text, value)) + "]"
        return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)

    return "".join(f"{key} = {text(value)}\n" for key, value in spec.items())


def _compare(broken: Broken, faults: Faults) -> None:
    """Hold the study that was killed against one that never was, and ask the doctor."""
    name, folder = broken.name, broken.root.parent / f"{broken.name}-whole"
    url = f"sqlite:///{folder / 'studies.db'}"
    assert in_process(folder, url, broken.spec, None) == 0
    whole = Storage(url)
    expected, found = (s.records(name, has_curves=True) for s in (whole, broken.storage))
    numbers = [t.number for t in found]
    faults.lost += [f"{name}: trial {n}" for n in range(TRIALS) if n not in numbers]
    faults.doubled += [f"{name}: trial {n}" for n in set(numbers) if numbers.count(n) > 1]
    faults.zombies += [f"{name}: trial {t.number} is {t.state}" for t in found if t.state not in FINISHED_STATES]
    if broken.n_workers == 1:
        is_same = [left == right for left, right in zip(bits(expected), bits(found), strict=True)]
    else:
        is_same = [_is_close(left, right) for left, right in zip(expected, found, strict=True)]
    faults.differences += [f"{name}: trial {n}: {broken.spec}" for n, same in enumerate(is_same) if not same]
    said = "".join(broken.said)
    faults.false_reaps += [f"{name}: {line}" for line in said.splitlines() if "was given to another worker" in line]
    winners = [storage.winner(name) for storage in (whole, broken.storage)]
    if None in winners or len({won[0].number for won in winners if won is not None}) != 1:
        faults.differences.append(f"{name}: winners {winners}")
    home = Home(broken.root, broken.url, None)
    if "warning: MLflow lacks" in broken.said[-1]:
        facts = broken.storage.known(name)
        bring_in_line(home, broken.storage, facts, Lines())
    diagnosis = examine(home, broken.storage, name)
    faults.differences += [f"{f.kind}: {f.text}" for f in diagnosis.findings] + list(diagnosis.notes)
    query = """SELECT value, count(*) FROM model_version_tags WHERE key = 'dlcore.onnx_sha256' AND name = ?
               GROUP BY value HAVING count(*) > 1"""
    faults.doubled += [f"{name}: model {sha} has {n} versions" for sha, n in rows(broken.root, query, name)]
    whole.close()


def _is_close(left: TrialRecord, right: TrialRecord) -> bool:
    def numbers(trial: TrialRecord) -> Sequence[float]:
        return [x for e in trial.curve for x in (e.train_loss, e.val_loss)] + list(trial.values or ())

    facts = [(t.number, t.state, t.hyperparameters, t.searched, t.cohort, t.best_epoch) for t in (left, right)]
    return facts[0] == facts[1] and numbers(left) == pytest.approx(numbers(right), rel=1e-4, nan_ok=True)
