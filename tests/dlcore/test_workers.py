import dataclasses
import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor

from dlcore import workers
from dlcore.config import DataConfig, ModelConfig, TrainConfig
from dlcore.data import load_splits, to_tensors
from dlcore.errors import ConfigError
from dlcore.packing import Member
from dlcore.population import MemberState, Population, first_states
from dlcore.rows import TensorData
from dlcore.tasks import Task
from dlcore.workers import Done, Job, Points, Worker, WorkerLost, can_have_workers, carried_of, crew, dismiss
from tests.dlcore.conftest import trapped

pytestmark = pytest.mark.skipif(not can_have_workers(), reason="needs a POSIX system")
ORDER_SEED = 4
PATIENCE_S = 120


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def worker() -> Worker:
    """One that waits for a job."""
    return crew(1)[0]


@pytest.fixture(scope="module")
def data() -> TensorData:
    return rows(torch.float32)


def rows(dtype: torch.dtype) -> TensorData:
    return to_tensors(load_splits(DataConfig(source="sklearn:wine"), 0), "cpu", dtype)


def members_of(data: TensorData, n: int, epochs: int, **training: object) -> list[Member]:
    kinds = ["relu", "gelu", "sigmoid"]
    shape = (data.x_train.shape[1], data.task.n_outputs)
    config = TrainConfig(epochs, batch_size=32, learning_rate=0.02, **training)  # type: ignore[arg-type]
    return [
        Member(ModelConfig(*shape, (3 + i,) * (i % 3), activation=kinds[i % 3], dropout=0.2 * (i % 2)), config, seed=i)
        for i in range(n)
    ]


def job_of(data: TensorData, n: int = 3, epochs: int = 3, **training: object) -> Job:
    states = first_states(members_of(data, n, epochs, **training), data)
    return Job([(state, None) for state in states], ORDER_SEED, epochs)


def finish(worker: Worker) -> tuple[Done, list[Points]]:
    told: list[Points] = []
    while isinstance(answer := worker.receive(), dict):
        told.append(answer)
    return answer, told


def trained(worker: Worker, job: Job, data: TensorData) -> tuple[Done, list[Points]]:
    worker.begin(job, data)
    return finish(worker)


def without_times(state: MemberState) -> list[object]:
    return [dataclasses.replace(epoch, finished_at=0.0) for epoch in state.curve]


def tensors(population: Sequence[workers.Carried]) -> Iterator[Tensor]:
    """All that the members know: best weights, parameters, what the optimizer keeps."""
    for state, network in population:
        yield from state.best_weights.values()
        if network is not None:
            for linears in (network.parameters, *network.states):
                for weight, bias in linears:
                    yield from (weight, bias)


def check_equal(left: Sequence[workers.Carried], right: Sequence[workers.Carried]) -> None:
    assert [without_times(state) for state, _ in left] == [without_times(state) for state, _ in right]
    assert all(state.curve for state, _ in left)
    for mine, other in zip(tensors(left), tensors(right), strict=True):
        assert mine.dtype == other.dtype and torch.equal(mine, other)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped yet has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def open_files(*others: Worker) -> list[int]:
    """How many files this process and others have open."""
    gc.collect()
    return [psutil.Process(pid).num_fds() for pid in (os.getpid(), *(worker.pid for worker in others))]


# What a worker does


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_worker_gives_the_same_bits_as_training_here(worker: Worker, optimizer: str, dtype: torch.dtype) -> None:
    data = rows(dtype)
    job = dataclasses.replace(job_of(data, 6, 5, optimizer=optimizer), to_epoch=3)
    members = [state.member for state, _ in job.carried]
    done, told = trained(worker, job, data)
    here = Population(members, data, order_seed=ORDER_SEED)
    list(here.advance(3))
    check_equal(done.carried, carried_of(here))
    assert all(network is not None for _, network in done.carried)
    assert [points.keys() for points in told] == [dict.fromkeys(range(6)).keys()] * 3
    for place, (state, _) in enumerate(done.carried):
        assert state.curve == [points[place] for points in told]
    # and on from there, each with what the other gave
    on, _ = trained(worker, Job(carried_of(here), ORDER_SEED, 5), data)
    continued = workers.population_of(Job(done.carried, ORDER_SEED, 5), data)
    list(continued.advance(5))
    check_equal(on.carried, carried_of(continued))
    assert all(state.is_finished for state, _ in on.carried)


def test_a_finished_member_comes_back_without_a_network(worker: Worker, data: TensorData) -> None:
    done, _ = trained(worker, job_of(data, 2, 2), data)
    assert [(state.is_finished, network) for state, network in done.carried] == [(True, None)] * 2


def test_stop_ends_a_job_after_the_epoch_it_is_in(worker: Worker, data: TensorData) -> None:
    worker.begin(job_of(data, 2, 5000), data)
    first = worker.receive()
    assert isinstance(first, dict) and worker.is_busy
    worker.stop()
    done, told = finish(worker)
    assert 1 <= len(done.carried[0][0].curve) < 5000
    for place, (state, network) in enumerate(done.carried):
        assert state.curve == [points[place] for points in (first, *told)]
        assert network is not None and not state.is_finished
    assert not worker.is_busy


def test_a_stop_that_comes_too_late_changes_nothing(worker: Worker, data: TensorData) -> None:
    worker.begin(job_of(data), data)
    wait_until(lambda: worker._receiver.poll() and not psutil.Process(worker.pid).cpu_percent(0.1))
    worker.stop()
    first, _ = finish(worker)
    second, told = trained(worker, job_of(data), data)
    check_equal(first.carried, second.carried)
    assert len(told) == 3


def test_a_worker_has_one_thread(worker: Worker, data: TensorData) -> None:
    action = "raise MemoryError(__import__('torch').get_num_threads())"
    with pytest.raises(MemoryError, match=r"^1$"):
        trained(worker, trapped(job_of(data), action, 0), data)


# Rows


def odd_rows() -> TensorData:
    """In single precision, an odd number of them, so that nothing lies at a multiple of 8 bytes by itself."""
    stream = torch.Generator().manual_seed(1)
    x, y = torch.randn(24, 3, generator=stream), torch.arange(24) % 3
    return TensorData(Task("multiclass", 3), x[:15], y[:15], x[15:].T.contiguous().T, y[15:])


def check_rows(found: TensorData, data: TensorData) -> None:
    assert found.task == data.task
    for name in ("x_train", "y_train", "x_val", "y_val"):
        mine, other = getattr(found, name), getattr(data, name)
        assert mine.dtype == other.dtype and torch.equal(mine, other)


@pytest.mark.parametrize("make", [odd_rows, lambda: rows(torch.float32), lambda: rows(torch.float64)])
@pytest.mark.parametrize("has_file", [True, False])
def test_rows_arrive_as_they_are(make: Callable[[], TensorData], has_file: bool, monkeypatch) -> None:
    if has_file and not hasattr(os, "memfd_create"):
        pytest.skip("this system has no files without a name")
    if not has_file:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    data = make()
    packed = workers._packed(data)
    assert (packed.path is not None) is has_file
    # What is mapped need not travel.
    assert all(content.numel() == 0 for content in packed.content) is has_file
    ours, theirs = workers._pipes()
    sender = workers.Connection(ours[1], readable=False)
    receiver = workers.Connection(theirs[0], writable=False)
    try:
        workers._send(sender, packed)
        check_rows(workers._receive(receiver).unpacked(), data)
    finally:
        sender.close(), receiver.close(), os.close(ours[0]), os.close(theirs[1])


@pytest.mark.parametrize("has_file", [True, False])
def test_training_is_the_same_however_rows_arrive(worker: Worker, has_file: bool, monkeypatch) -> None:
    if not has_file:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    data = odd_rows()
    done, _ = trained(worker, job_of(data), data)
    here = workers.population_of(job_of(data), data)
    list(here.advance(3))
    check_equal(done.carried, carried_of(here))


def test_rows_are_sent_once(data: TensorData, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    send = workers._send
    monkeypatch.setattr(workers, "_send", lambda connection, thing: (sent.append(thing), send(connection, thing)))
    one, two = crew(2)
    other = rows(torch.float32)
    for which in (data, data, other, other, data):
        for worker in (one, two):
            trained(worker, job_of(which, 1, 1), which)
    packed = [thing for thing in sent if isinstance(thing, workers._Packed)]
    jobs = [thing for thing in sent if isinstance(thing, Job)]
    assert len(jobs) == 10 and 4 <= len(packed) <= 6  # one of them may have had the first rows before
    for left, right in zip(packed[-4::2], packed[-3::2], strict=True):
        assert left is right, "both map one file"


# What goes wrong


def test_a_mistake_is_told_by_its_name_and_the_worker_goes_on(worker: Worker, data: TensorData) -> None:
    job = job_of(data, 2)
    other = dataclasses.replace(job.carried[1][0].member.train_config, optimizer="adamw")
    job.carried[1][0].member = dataclasses.replace(job.carried[1][0].member, train_config=other)
    with pytest.raises(ConfigError, match="optimizer must be equal for all members"):
        trained(worker, job, data)
    assert worker.is_alive and not worker.is_busy
    done, _ = trained(worker, job_of(data), data)
    assert all(state.is_finished for state, _ in done.carried)


@pytest.mark.parametrize("error", [MemoryError("too little"), RuntimeError("shapes"), torch.OutOfMemoryError("all")])
def test_an_exception_in_a_job_reaches_the_caller_with_its_type(
    worker: Worker, data: TensorData, error: Exception
) -> None:
    name = "__import__('torch').OutOfMemoryError" if isinstance(error, torch.OutOfMemoryError) else type(error).__name__
    worker.begin(trapped(job_of(data), f"raise {name}({str(error)!r})", 2), data)
    assert isinstance(worker.receive(), dict) and isinstance(worker.receive(), dict)
    with pytest.raises(type(error), match=str(error)) as caught:
        worker.receive()
    assert type(caught.value) is type(error)
    done, _ = trained(worker, job_of(data), data)
    assert all(state.is_finished for state, _ in done.carried)


def test_a_killed_worker_is_lost_and_replaced(data: TensorData) -> None:
    one, two = crew(2)
    trained(two, job_of(data, 1, 1), data)
    one.begin(job_of(data, 2, 5000), data)
    assert isinstance(one.receive(), dict)
    os.kill(one.pid, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="a worker process ended before its work was done"):
        finish(one)
    assert issubclass(WorkerLost, MemoryError)
    wait_until(lambda: not one.is_alive)
    with pytest.raises(WorkerLost):
        one.stop()
    with pytest.raises(WorkerLost):
        one.begin(job_of(data), data)
    assert one not in crew(2) and two in crew(2)
    done, _ = trained(crew(2)[1], job_of(data), data)
    assert all(state.is_finished for state, _ in done.carried)


def test_a_worker_that_is_busy_is_given_to_nobody_else(data: TensorData) -> None:
    (one,) = crew(1)
    one.begin(job_of(data, 1, 5000), data)
    (two,) = crew(1)
    assert two is not one
    done, _ = trained(two, job_of(data), data)
    assert len(done.carried) == 3
    one.stop()
    finish(one)
    assert {w.pid for w in crew(2)} == {one.pid, two.pid}


def test_an_answer_that_is_cut_off_is_a_worker_lost() -> None:
    worker = Worker.__new__(Worker)
    ours, theirs = workers._pipes()
    worker._receiver, worker._sender = (
        workers.Connection(ours[0], writable=False),
        workers.Connection(ours[1], readable=False),
    )
    writer = workers.Connection(theirs[1], readable=False)
    writer.send_bytes(pickle.dumps({0: "point"})[:-4])
    os.close(theirs[0])
    with pytest.raises(WorkerLost):
        worker.receive()
    writer._send(b"\0\0\1")  # type: ignore[attr-defined]  # not even a whole length
    writer.close()
    with pytest.raises(WorkerLost):
        worker.receive()
    worker._receiver.close(), worker._sender.close()


def test_a_system_that_starts_no_more_processes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_named: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = open_files()
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(WorkerLost, match=r"could not be started: .*Resource temporarily unavailable"):
        Worker()
    assert open_files() == before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


# Life and death


def test_ctrl_c_does_not_reach_a_worker_from_its_first_moment(data: TensorData) -> None:
    worker = Worker()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    os.kill(worker.pid, signal.SIGINT)  # while it imports torch
    worker.begin(job_of(data, 2, 40), data)
    for _ in range(3):
        assert isinstance(worker.receive(), dict)
        os.kill(worker.pid, signal.SIGINT)
    done, _ = finish(worker)
    os.kill(worker.pid, signal.SIGINT)  # while it waits
    again, _ = trained(worker, job_of(data, 2, 40), data)
    check_equal(done.carried, again.carried)
    worker.kill()


def test_dismissed_workers_leave_nothing_behind() -> None:
    one, two = crew(2)
    os.kill(one.pid, signal.SIGKILL)
    wait_until(lambda: not one.is_alive)
    assert one not in crew(1)
    dismiss()
    for worker in (one, two):
        assert not psutil.pid_exists(worker.pid), "not even a zombie"
    assert not workers._crew
    dismiss()


def test_fifty_jobs_leave_no_file_open(worker: Worker, data: TensorData) -> None:
    trained(worker, job_of(data, 1, 1), data)
    before = open_files(worker)
    for turn in range(50):
        own = odd_rows() if turn % 5 == 0 else data
        trained(worker, job_of(own, 1, 1), own)
    assert open_files(worker) == before


PARENT = """
import json, time, torch
from dlcore.workers import crew
from tests.dlcore.test_workers import job_of, rows, trained
data = rows(torch.float32)
busy, idle = crew(2)
trained(idle, job_of(data, 1, 1), data)
busy.begin(job_of(data, 1, 50_000), data)
busy.receive()
print(json.dumps([busy.pid, idle.pid]), flush=True)
time.sleep(600)
"""


def test_workers_end_with_the_process_that_started_them() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as parent:
        assert parent.stdout is not None and parent.stderr is not None
        line = parent.stdout.readline()
        parent.kill()
        # Workers hold its other end: it ends when the last of them does.
        assert not parent.stderr.read(), "they end without a word"
    pids = json.loads(line)
    assert len(set(pids)) == 2
    wait_until(lambda: all(is_gone(pid) for pid in pids))


KILLED_AT_ONCE = """
import os, signal, torch
from dlcore.workers import crew
from tests.dlcore.test_workers import job_of, rows
data = rows(torch.float32)
crew(1)[0].begin(job_of(data), data)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_whose_process_is_killed_before_it_has_its_rows_ends_without_a_word() -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    words = [sys.executable, "-c", KILLED_AT_ONCE]
    ran = subprocess.run(words, capture_output=True, text=True, cwd=root, env=environment, check=False)
    assert (ran.returncode, ran.stderr) == (-signal.SIGKILL, "")  # the worker held the pipe until its own end
