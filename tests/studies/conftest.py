"""Records and studies that tests are made of."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from studies import mirroring, server
from studies.home import Home
from studies.records import COMPLETE, EpochDone, EpochRecord, Objective, StudyFacts, TrialRecord
from studies.runner import Run
from studies.spec import spec_from_dict
from studies.storage import Storage
from studies.tally import Tally
from studies.tracking_store import TrackingStore
from tests.studies import mirror_tools
from tests.studies.mirror_tools import PATIENCE_S, PORT, TRANSPORTS, Connect


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"sqlite:///{tmp_path / 'studies.db'}")


@pytest.fixture
def make_facts() -> Callable[..., StudyFacts]:
    def make(name: str = "wine", **changes: object) -> StudyFacts:
        values: dict[str, object] = {
            "uuid": f"{abs(hash(name)):032x}"[:32],
            "spec": {"study": name, "budget": {"trials": 4}},
            "objectives": (Objective("accuracy", "maximize"),),
            "task": "multiclass",
            "curve_metric": "accuracy",
            "cohort_size": 16,
            "n_features": 13,
            "n_outputs": 3,
            "data_name": "wine",
            "data_fingerprint": "f" * 64,
            "environment": {"torch": "2.13.0"},
            "created_at": time.time(),
        }
        return StudyFacts(name=name, **(values | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_trial() -> Callable[..., TrialRecord]:
    def make(number: int, value: float | None = 0.5, state: str = COMPLETE, **changes: object) -> TrialRecord:
        curve = tuple(EpochRecord(e, 1 / e, 0.5 / e, 0.9 - 0.1 / e, 0.05, 1_700_000_000.0 + e) for e in (1, 2, 3))
        values: dict[str, object] = {
            "hyperparameters": {"width": 8, "learning_rate": 0.1 * (number + 1) / 3, "activation": "tanh"},
            "searched": ("learning_rate", "activation"),
            "cohort": 0,
            "n_parameters": 99,
            "values": None if value is None else (value,),
            "curve": curve,
            "best_epoch": 3,
            "best_val_loss": 0.5 / 3,
            "started_at": 1_700_000_000.0,
            "finished_at": 1_700_000_003.0,
            "duration_s": 3.0,
            "samples_per_s": 1000.0,
            "device": "a processor",
            "peak_memory_bytes": 1 << 20,
        }
        return TrialRecord(number=number, state=state, **(values | changes))  # type: ignore[arg-type]

    return make


NOBODY = "http://127.0.0.1:9"
"""A tracking server that never answers: the discard port, which nothing listens on."""

SMALL_SPEC: dict[str, object] = {
    "study": "wine",
    "seed": 1,
    "budget": {"trials": 6},
    "data": {"source": "sklearn:wine"},
    "search": {"cohort": 3, "halving": {"first_rung": 2, "reduction_factor": 2}},
    "training": {"epochs": 4, "batch_size": 32},
}


@pytest.fixture(autouse=True, scope="session")
def hurried() -> Iterator[None]:
    """Nobody waits five seconds for a tracking server that is known not to be there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirroring, "PATIENCE_S", 0.2)
        yield


class Lines:
    """A display that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.epochs: list[EpochDone] = []
        self.on_epoch: Callable[[EpochDone], None] = lambda event: None

    def note(self, line: str) -> None:
        self.said.append(line)

    def begin(self, tally: Tally) -> None:
        self.tally = tally

    def epoch(self, event: EpochDone) -> None:
        self.epochs.append(event)
        self.on_epoch(event)

    def trials(self, trials: Sequence[TrialRecord]) -> None:
        self.tally.add_trials(trials)

    def end(self) -> None:
        pass


@pytest.fixture
def display() -> Lines:
    return Lines()


@pytest.fixture(scope="module")
def finished_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home in which the small study has run, with no tracking server."""
    root = tmp_path_factory.mktemp("finished")
    home = Home(root, f"sqlite:///{root / 'studies.db'}", NOBODY)
    storage = Storage(home.database_url)
    Run(spec_from_dict(SMALL_SPEC), home, storage, Lines()).execute(None)
    storage.close()
    return home


# --- of the mirror; a module that needs other ones than these has its own under their names ---


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose tracking server answers."""
    folder = tmp_path_factory.mktemp("served") / "mlruns"
    server.find_or_start(folder, port=PORT, timeout_s=PATIENCE_S)
    yield folder
    server.stop(folder)


@pytest.fixture
def facts(request: pytest.FixtureRequest) -> StudyFacts:
    """A study that is the test's alone."""
    return mirror_tools.make_facts(request.node.name)


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """The way to MLflow."""
    return str(request.param)


@pytest.fixture
def connect(home: Path, transport: str) -> Connect:
    """Opens the tracking store of the home."""
    return mirror_tools.connecting(home, transport)


@pytest.fixture
def store(connect: Connect) -> Iterator[TrackingStore]:
    """The tracking store of the home."""
    store = connect()
    yield store
    store.close()
