"""Whatever happens to the server, the network or the mirror: training never waits, and MLflow is right in the end.

`tests/torture` does worse, more often, and to whole studies.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from studies import server, tracking
from studies.mlflow_rest import RestStore
from studies.records import StudyFacts, TrialRecord
from studies.tracking import Mirror
from studies.tracking_store import TrackingStore
from tests.studies.mirror_tools import (
    PATIENCE_S,
    PORT,
    TRANSPORTS,
    TcpProxy,
    assert_equal_and_quiet,
    connecting,
    mirrored,
    mirroring,
    read,
    wait_until,
)


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
