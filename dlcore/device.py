"""Choose the device once, and say what it is and how much memory was used on it."""

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dlcore.errors import DeviceError

if sys.platform != "win32":  # which has no such module
    import resource

DEVICES = ("auto", "cpu", "cuda", "mps")


@contextmanager
def one_thread() -> Iterator[None]:
    """For many small steps: on a busy machine threads wait for each other (measured: 4.7 s where one takes 0.2)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(name: str = "auto") -> torch.device:
    """The device to train on.

    Args:
        name: one of `DEVICES`; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        DeviceError: the name is unknown, or the device is not there.
    """
    if name not in DEVICES:
        raise DeviceError(f"device must be one of {', '.join(DEVICES)}; got {name!r}")
    there = [kind for kind in ("cuda", "mps", "cpu") if _is_there(kind)]
    if name == "auto":
        return torch.device(there[0])
    if name not in there:
        raise DeviceError(
            f"device {name!r} must be there to be used; torch {torch.__version__} sees only "
            f"{', '.join(there)}: take one of these or 'auto'"
        )
    return torch.device(name)


def _is_there(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_available()
    return kind == "cpu" or torch.backends.mps.is_available()


def device_name(device: torch.device) -> str:
    """The device's name as its maker gives it, for the record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = _processor_name()
    return f"{processor} (MPS)" if device.type == "mps" else processor


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux; platform.processor() is often empty there
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "CPU"


@contextmanager
def using_threads(n_threads: int) -> Iterator[None]:
    """So many threads of the CPU for one operation, in this whole process, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reset_peak_memory(device: torch.device) -> None:
    """Let the next `peak_memory_bytes` count from here; on CUDA only, elsewhere it cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int | None:
    """Memory used at most, in bytes; None where nobody knows.

    CUDA: tensors since the last reset. MPS: what the driver holds now, for want of a peak. CPU: the largest
    resident size of the whole process since it started.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return _peak_resident_bytes()


def _peak_resident_bytes() -> int | None:
    if sys.platform == "win32":
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB (getrusage(2))
