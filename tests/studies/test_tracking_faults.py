"""Whatever happens to the server, the network or the mirror: training never waits, and MLflow is right in the end.

`TORTURE=1` makes 50 restarts of 3, 1,000 lost replies of 50, and 50 kills of the mirror of 5.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from studies import server, tracking
from studies.comparison import compare
from studies.mlflow_rest import RestStore
from studies.records import StudyFacts, TrialRecord
from studies.tracking import Mirror
from studies.tracking_store import TrackingStore
from tests.studies.mirror_tools import (
    IS_LONG,
    PATIENCE_S,
    PORT,
    TRANSPORTS,
    Connect,
    TcpProxy,
    assert_complete,
    connecting,
    contents,
    make_facts,
    mirrored,
    mirroring,
    read,
    wait_until,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("faults") / "mlruns"
    server.find_or_start(folder, port=PORT, timeout_s=PATIENCE_S)
    yield folder
    server.stop(folder)


@pytest.fixture
def facts(request: pytest.FixtureRequest) -> StudyFacts:
    return make_facts(request.node.name)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits half a minute before trying again."""
    monkeypatch.setattr(tracking, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(tracking, "LONGEST_WAIT_S", 0.1)


@pytest.fixture
def proxy(home: Path) -> Iterator[TcpProxy]:
    proxy = TcpProxy(server.find_or_start(home, port=PORT, timeout_s=PATIENCE_S).address)
    yield proxy
    proxy.close()


def assert_equal_and_quiet(home: Path, facts: StudyFacts, n_trials: int, connect: Connect) -> None:
    """A comparison finds nothing, and neither a run of the mirror nor a thorough one has anything to do."""
    store = connect()
    assert compare(store, facts, range(n_trials), read) == []
    store.close()
    assert_complete(home, facts, n_trials)
    before = contents(home)
    mirrored(connect, facts, n_trials)
    mirrored(connect, facts, n_trials, is_thorough=True)
    assert contents(home) == before


def test_handing_over_never_waits_and_holds_numbers_only(facts: StudyFacts) -> None:
    is_free, n_read = threading.Event(), []

    def connect() -> TrackingStore:
        is_free.wait()  # as long as a server may need
        return RestStore("http://127.0.0.1:9")

    def reading(numbers: Sequence[int]) -> list[TrialRecord]:
        n_read.append(len(numbers))
        return read(numbers)

    mirror = Mirror(connect, facts, reading)
    mirror.start()
    mirror.put(range(100_000))  # would never come back if it waited
    mirror.show({"cohort": 1})
    mirror.put(range(100_000))
    assert mirror.pending == 100_000
    assert not mirror.finish("FINISHED", 0)
    assert not n_read
    is_free.set()
    wait_until(lambda: mirror.error is not None)
    mirror.close()
    assert all(n <= tracking.READ_AT_ONCE for n in n_read)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["slow", "hang", "drip", "500", "lose"])
def test_a_server_that_fails_during_a_whole_study_is_caught_up_with(
    home: Path, facts: StudyFacts, proxy: TcpProxy, fault: str
) -> None:
    proxy.fault, proxy.delay_s = (lambda: fault), 1.0
    with mirroring(lambda: RestStore(proxy.address, timeout_s=0.5), facts) as mirror:
        for number in range(8):
            mirror.show({"cohort": number})
            mirror.put([number])
        assert not mirror.finish("KILLED", 0.1)
        wait_until(lambda: mirror.error is not None)
        assert mirror.pending == 8
        wait_until(lambda: proxy.n_faults >= 3)
    proxy.fault = lambda: None
    mirrored(lambda: RestStore(proxy.address), facts, 8)
    assert_equal_and_quiet(home, facts, 8, connecting(home, "rest"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["slow", "hang", "drip", "500"])
def test_a_server_that_recovers_during_a_study_is_caught_up_with(
    home: Path, facts: StudyFacts, proxy: TcpProxy, fault: str
) -> None:
    with mirroring(lambda: RestStore(proxy.address, timeout_s=20), facts) as mirror:
        mirror.put(range(4))
        wait_until(lambda: mirror.pending == 0, PATIENCE_S)
    proxy.fault, proxy.delay_s = (lambda: fault), 1.0
    with mirroring(lambda: RestStore(proxy.address, timeout_s=0.5), facts) as mirror:
        mirror.put(range(8))
        wait_until(lambda: mirror.error is not None)
        proxy.fault = lambda: None
        assert mirror.finish("FINISHED", PATIENCE_S), mirror.error
    assert_equal_and_quiet(home, facts, 8, connecting(home, "rest"))


@pytest.mark.slow
@pytest.mark.timeout(7200 if IS_LONG else 300)
def test_lost_replies_double_nothing(home: Path, facts: StudyFacts, proxy: TcpProxy) -> None:
    n_lost, n_trials = (1000, 250) if IS_LONG else (50, 20)
    rng = random.Random(7)
    proxy.fault = lambda: "lose" if proxy.n_faults < n_lost and rng.random() < 0.7 else None
    with mirroring(lambda: RestStore(proxy.address), facts) as mirror:
        mirror.put(range(n_trials))
        assert mirror.finish("FINISHED", 7000 if IS_LONG else PATIENCE_S), mirror.error
        while proxy.n_faults < n_lost:  # the rest of them, as often as the study goes on
            mirror.show({"cohort": proxy.n_faults})
            assert mirror.finish("FINISHED", PATIENCE_S), mirror.error
    assert proxy.n_faults == n_lost
    assert_equal_and_quiet(home, facts, n_trials, connecting(home, "rest"))


@pytest.mark.slow
@pytest.mark.timeout(14_400 if IS_LONG else 900)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_restarts_of_the_server_cost_nothing(tmp_path: Path, facts: StudyFacts, transport: str) -> None:
    n_restarts, home = 50 if IS_LONG else 3, tmp_path / "mlruns"
    connect, per_restart = connecting(home, transport), 6
    n_trials = per_restart * n_restarts
    try:
        connect().close()
        with mirroring(connect, facts) as mirror:
            for i in range(n_restarts):
                left = mirror.pending
                mirror.put(range(per_restart * i, per_restart * (i + 1)))
                wait_until(lambda: mirror.pending < left + per_restart, PATIENCE_S)  # noqa: B023
                for process in server._processes(home.resolve()):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
                server.find_or_start(home, port=PORT, timeout_s=PATIENCE_S)
            assert mirror.finish("FINISHED", PATIENCE_S), mirror.error
        assert_equal_and_quiet(home, facts, n_trials, connect)
    finally:
        server.stop(home)


MIRRORING = """
import sys
from pathlib import Path
from tests.studies.mirror_tools import connecting, make_facts, mirrored
home, name, transport, n_trials = sys.argv[1:]
print("begun", flush=True)
mirrored(connecting(Path(home), transport), make_facts(name), int(n_trials))
"""


@pytest.mark.slow
@pytest.mark.timeout(7200 if IS_LONG else 900)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_mirror_that_is_killed_anywhere_leaves_what_the_next_one_mends(
    home: Path, facts: StudyFacts, transport: str, request: pytest.FixtureRequest
) -> None:
    n_kills, rng = 50 if IS_LONG else 5, random.Random(3)
    n_trials = 0
    for _ in range(n_kills):
        n_trials += 8
        words = [str(home), request.node.name, transport, str(n_trials)]
        with subprocess.Popen([sys.executable, "-c", MIRRORING, *words], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(rng.uniform(0, 0.6 if transport == "rest" else 0.1))
            child.kill()
    connect = connecting(home, transport)
    mirrored(connect, facts, n_trials)
    assert_equal_and_quiet(home, facts, n_trials, connect)


@pytest.mark.slow
def test_the_way_may_change_in_the_middle(home: Path, facts: StudyFacts) -> None:
    ways: list[Callable[[], TrackingStore]] = [connecting(home, transport) for transport in TRANSPORTS]

    class Moody:
        """Opens another way each time."""

        n_opened = 0

        def __call__(self) -> TrackingStore:
            self.n_opened += 1
            return ways[self.n_opened % 2]()

    moody, is_failing = Moody(), threading.Event()

    def reading(numbers: Sequence[int]) -> list[TrialRecord]:
        if is_failing.is_set():
            is_failing.clear()
            raise RuntimeError("once")
        return read(numbers)

    mirror = Mirror(moody, facts, reading)
    mirror.start()
    for i in range(6):
        is_failing.set()
        mirror.put(range(4 * i, 4 * i + 4))
        wait_until(lambda: mirror.pending == 0, PATIENCE_S)
    assert mirror.finish("FINISHED", PATIENCE_S), mirror.error
    mirror.close()
    assert moody.n_opened == 7
    assert_equal_and_quiet(home, facts, 24, ways[0])
