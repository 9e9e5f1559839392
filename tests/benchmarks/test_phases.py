"""benchmarks.phases: every second of the main thread belongs to one phase."""

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import phases
from benchmarks.phases import NAMES, Clock, Course, run_study


class Ticking:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Ticking:
    clock = Ticking()
    monkeypatch.setattr(phases.time, "monotonic", clock)
    monkeypatch.setattr(phases.psutil, "Process", lambda: SimpleNamespace(create_time=time.time))
    return clock


def test_a_second_belongs_to_the_innermost_phase_and_none_is_lost(ticking: Ticking) -> None:
    def spend(seconds: float) -> None:
        ticking.now += seconds

    def export(seconds: float) -> str:
        spend(seconds)
        product.store(3.0)
        return "done"

    product = SimpleNamespace(ask=spend, store=spend, export=export)
    clock = Clock()
    for name, phase in (("ask", "asking"), ("store", "storage"), ("export", "export")):
        clock.wrap(product, name, phase)
    spend(5.0)
    product.ask(1.0)
    spend(0.5)
    assert product.export(2.0) == "done"

    assert clock.stop() == pytest.approx(11.5, abs=0.01)
    assert clock.seconds == pytest.approx(
        {"start-up": 5.0, "asking": 1.0, "rest": 0.5, "export": 2.0, "storage": 3.0}, abs=0.01
    )
    assert clock.first_ask == pytest.approx(5.0, abs=0.01)


def test_a_generator_is_not_charged_for_what_its_caller_does(ticking: Ticking) -> None:
    def train() -> Iterator[int]:
        for i in range(3):
            ticking.now += 1.0
            yield i
        ticking.now += 4.0

    product = SimpleNamespace(train=train)
    clock = Clock()
    clock.wrap_generator(product, "train", "training")
    for _ in product.train():
        ticking.now += 10.0
    clock.stop()

    assert clock.seconds["training"] == 7.0
    assert clock.seconds["start-up"] == pytest.approx(30.0, abs=0.01)


def test_other_threads_are_not_counted(ticking: Ticking) -> None:
    def read() -> None:
        ticking.now += 1.0

    product = SimpleNamespace(read=read)
    clock = Clock()
    clock.wrap(product, "read", "storage")
    thread = threading.Thread(target=product.read)
    thread.start()
    thread.join()
    clock.stop()

    assert "storage" not in clock.seconds


def test_a_phase_ends_with_an_error_too(ticking: Ticking) -> None:
    def fail() -> None:
        ticking.now += 1.0
        raise ValueError

    product = SimpleNamespace(fail=fail)
    clock = Clock()
    clock.wrap(product, "fail", "storage")
    with pytest.raises(ValueError):
        product.fail()
    ticking.now += 2.0
    clock.stop()

    assert clock.seconds == pytest.approx({"start-up": 2.0, "storage": 1.0}, abs=0.01)


def test_the_last_record_counts_when_nothing_is_missing_any_more() -> None:
    class Mirror:
        def __init__(self) -> None:
            self.pending = 0

        def put(self, numbers: list[int]) -> None:
            self.pending += len(numbers)

    clock = Clock()
    clock.watch(Mirror)
    mirror = Mirror()
    mirror.put([0, 1])
    mirror.put([1, 2])
    time.sleep(0.1)
    assert math.isnan(clock.last_mirrored)
    mirror.pending = 0
    deadline = time.monotonic() + 30
    while math.isnan(clock.last_mirrored):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    assert clock.numbers == {0, 1, 2}
    assert clock.last_mirrored <= clock.now()


def test_the_search_runs_from_the_first_ask_to_the_last_record() -> None:
    assert Course({}, first_ask=2.0, last_mirrored=12.0, end=15.0, n_trials=5).searched_s == 10.0


@pytest.mark.slow
def test_a_whole_study_is_told_apart(tmp_path: Path) -> None:
    spec = 'study = "wine"\nbudget = { trials = 6 }\n[data]\nsource = "sklearn:wine"\n[training]\nepochs = 4\n'
    nobody = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    course = run_study(spec, tmp_path / "home", env=nobody)

    assert sum(course.phases.values()) == pytest.approx(course.end, abs=0.1)
    assert all(course.phases[name] > 0 for name in NAMES)
    assert 0 < course.first_ask < course.end
    assert course.n_trials == 6
    assert math.isnan(course.searched_s)  # no server, no record
    with pytest.raises(SystemExit, match="search"):
        run_study(spec.replace("[data]", "[serach]\n[data]"), tmp_path / "home", env=nobody)
