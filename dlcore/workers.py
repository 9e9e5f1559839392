"""Processes that train on the other cores of a CPU, one each.

Not threads: a step is a few dozen short calls from Python, and threads that make them side by side wait for the
interpreter's lock more than for arithmetic. A worker keeps nothing between two jobs but the rows of the data, so any
of them may be replaced. It ends when its pipe does, so it cannot outlive the process that started it.
"""

import atexit
import io
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection, wait
from typing import Any, cast

import torch
from torch import Tensor

from dlcore.curve import Epoch
from dlcore.population import MemberState, Population
from dlcore.rows import TensorData
from dlcore.stack import Network

Carried = tuple[MemberState, Network | None]
"""A member on its way: how far it is, and its network (None before the first epoch)."""

_STOP = "stop"


@dataclass(frozen=True, slots=True)
class Job:
    """Members to be trained on."""

    carried: Sequence[Carried]
    order_seed: int
    to_epoch: int


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a job: its members, in the order given."""

    carried: Sequence[Carried]


Points = dict[int, Epoch]
"""Place of a member in its job -> its new epoch."""


def population_of(job: Job, data: TensorData) -> Population:
    """A job's members, ready to be trained on; their states are changed in place."""
    members = [state.member for state, _ in job.carried]
    return Population(members, data, order_seed=job.order_seed, begun=job.carried)


def carried_of(population: Population) -> list[Carried]:
    """Its members, to be sent away."""
    networks = population.networks()
    return [(state, networks.get(i)) for i, state in enumerate(population.states)]


class WorkerLost(MemoryError):
    """A worker ended by itself. Nothing but a lack of memory is known to end one."""


class Worker:
    """One process, from this side of its pipe."""

    def __init__(self) -> None:
        """Start it; it is ready when it has imported torch, and may be given a job at once.

        Raises:
            WorkerLost: The system starts no more processes.
        """
        ours, theirs = _pipes()
        code = f"import sys; sys.path[:] = {sys.path!r}; from dlcore.workers import serve; serve{theirs!r}"
        # Ctrl-C goes to every process of a terminal; the one that started it decides, from its first moment on.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            for end in ours:
                os.close(end)
            raise WorkerLost(f"a worker process could not be started: {error}") from error
        finally:
            for end in theirs:
                os.close(end)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._receiver, self._sender = Connection(ours[0], writable=False), Connection(ours[1], readable=False)
        self._data: TensorData | None = None
        self.is_busy = False
        """Whether it has a job whose end was not received."""

    def begin(self, job: Job, data: TensorData) -> None:
        """Give it a job, and the rows if they are others than last time.

        Raises:
            WorkerLost: It is gone.
        """
        self.is_busy = True
        try:
            if self._data is not data:
                _send(self._sender, _packed(data))
                self._data = data
            _send(self._sender, job)
        except OSError as error:
            raise WorkerLost(_LOST) from error

    def stop(self) -> None:
        """Ask it to end its job after the epoch it is in; it answers with `Done` all the same."""
        try:
            _send(self._sender, _STOP)
        except OSError as error:
            raise WorkerLost(_LOST) from error

    def receive(self) -> Points | Done:
        """Wait for the next answer.

        Raises:
            WorkerLost: It is gone.
        """
        try:
            answer = _receive(self._receiver)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise WorkerLost(_LOST) from error
        self.is_busy = isinstance(answer, dict)
        if isinstance(answer, BaseException):
            raise answer
        return cast(Points | Done, answer)

    @property
    def is_alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._receiver.close()
        self._sender.close()

    @staticmethod
    def ready(workers: Sequence["Worker"], timeout: float | None) -> list["Worker"]:
        """Those of the workers that have an answer, waiting for the first of them at most that many seconds."""
        found = wait([worker._receiver for worker in workers], timeout)
        return [worker for worker in workers if worker._receiver in found]


_LOST = "a worker process ended before its work was done; it was killed, or the machine has too little memory"
_crew: list[Worker] = []


def crew(n: int) -> list[Worker]:
    """n workers without a job, started as far as there are fewer; the same ones for all that asks in this process."""
    _crew[:] = [worker for worker in _crew if worker.is_alive]
    free = [worker for worker in _crew if not worker.is_busy]
    while len(free) < n:
        free.append(Worker())
        _crew.append(free[-1])
    return free[:n]


def can_have_workers() -> bool:
    """Whether this system can start them."""
    return os.name == "posix"


@atexit.register
def dismiss() -> None:
    """End all workers."""
    while _crew:
        _crew.pop().kill()


# ---- the worker's side


def serve(reading: int, writing: int) -> None:
    """What a worker does: jobs, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is blocked until now
    torch.set_num_threads(1)
    receiver, sender = Connection(reading, writable=False), Connection(writing, readable=False)
    data: TensorData | None = None

    def told(points: Points) -> bool:
        _send(sender, points)
        return not receiver.poll()

    while True:
        try:
            message = _receive(receiver)
            if isinstance(message, _Packed):
                data = message.unpacked()
            elif isinstance(message, Job):
                assert data is not None
                _send(sender, _answer(message, data, told))
        except (EOFError, OSError):
            return


def _answer(job: Job, data: TensorData, told: Callable[[Points], bool]) -> Done | Exception:
    try:
        population = population_of(job, data)
        while (points := population.train_epoch(job.to_epoch)) is not None and told(points):
            pass
        return Done(carried_of(population))
    except OSError:
        raise
    except Exception as error:  # whoever gave the job must know
        return error


# ---- messages


class _Pickler(pickle.Pickler):
    """Tensors travel as numpy's arrays: PyTorch's own way costs a file (an archive or shared memory) for each."""

    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, Tensor):
            return torch.from_numpy, (obj.numpy(),)
        return NotImplemented


def _send(connection: Connection, message: object) -> None:
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(message)
    connection.send_bytes(buffer.getbuffer())


def _receive(connection: Connection) -> Any:
    return pickle.loads(connection.recv_bytes())  # from a process of our own, through a pipe without a name


# ---- rows


@dataclass(frozen=True, slots=True)
class _Packed:
    """Rows on their way: in a file without a name that both sides map, where there is such a thing."""

    task: object
    shapes: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    path: str | None
    content: tuple[Tensor, ...]

    def unpacked(self) -> TensorData:
        if self.path is None:
            return TensorData(self.task, *self.content)  # type: ignore[arg-type]
        found, offset = [], 0
        size = sum(_room(_bytes(shape, dtype)) for shape, dtype in self.shapes)
        try:
            storage = torch.from_file(self.path, shared=True, size=size, dtype=torch.uint8)
        except RuntimeError as error:
            raise OSError(f"the rows went with the process that sent them: {error}") from error
        for shape, dtype in self.shapes:
            n = _bytes(shape, dtype)
            found.append(storage[offset : offset + n].view(dtype).view(shape))
            offset += _room(n)
        return TensorData(self.task, *found)  # type: ignore[arg-type]


_files: dict[int, tuple[TensorData, _Packed, int]] = {}
"""What was packed last, so that all workers map one file."""


def _packed(data: TensorData) -> _Packed:
    """Rows in the form in which they travel."""
    known = _files.get(id(data))
    if known is not None and known[0] is data:
        return known[1]
    tensors = tuple(getattr(data, field.name) for field in fields(data) if field.name != "task")
    if not hasattr(os, "memfd_create"):
        return _Packed(data.task, (), None, tensors)
    while _files:
        os.close(_files.popitem()[1][2])
    file = os.memfd_create("dlcore-rows")
    with open(file, "wb", closefd=False) as stream:
        for tensor in tensors:
            content = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            stream.write(content.ljust(_room(len(content)), b"\0"))
    packed = _Packed(data.task, tuple((tuple(t.shape), t.dtype) for t in tensors), f"/proc/{os.getpid()}/fd/{file}", ())
    _files[id(data)] = (data, packed, file)
    return packed


def _bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return torch.Size(shape).numel() * dtype.itemsize


def _room(n: int) -> int:
    """Bytes for n of them, so that the next tensor begins where numbers of any kind may."""
    return -(-n // 64) * 64


def _pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    """Two pipes: (where we read, where we write), (where the worker reads, where it writes)."""
    ours_read, theirs_write = os.pipe()
    theirs_read, ours_write = os.pipe()
    return (ours_read, ours_write), (theirs_read, theirs_write)
