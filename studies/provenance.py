"""Under what a study was made: versions, machine, threads, the user's git commit. Nothing here is heavy to import."""

import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version

_PACKAGES = ("dlcore", "torch", "numpy", "pandas", "scikit-learn", "optuna", "mlflow", "sqlalchemy")
_DECIDES_BITS = (
    "python",
    "torch",
    "numpy",
    "scikit-learn",
    "optuna",
    "processor",
    "threads",
    "device",
    "dlcore",
    "capability",
    SGD_DECAY := "weight_decay of SGD",
)
"""What the bits of a result depend on beside the spec and the data."""
_BEFORE = {SGD_DECAY: "coupled"}
"""What held when studies did not yet record it."""


def environment(*, threads: int, device: str, capability: str, decays_sgd: bool = False) -> dict[str, str]:
    """Versions of what computes, and the machine: all that the last bits of a result depend on.

    Args:
        threads: CPU threads of one operation.
        device: Name of the device that trains.
        capability: The CPU's instruction set that torch's kernels use.
        decays_sgd: Whether the study may train by SGD with weight decay, which older studies did otherwise.
    """
    own = {SGD_DECAY: "decoupled"} if decays_sgd else {}
    return _installed() | {"threads": str(threads), "device": device, "capability": capability} | own


def mathematics_changed(recorded: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether trials of a study come out otherwise than they were recorded, by more than rounding."""
    return any(now.get(name, old) != recorded.get(name, old) for name, old in _BEFORE.items())


@cache
def _installed() -> dict[str, str]:
    """What stays as it is while a process runs."""
    found = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    return found | {"platform": platform.platform(), "processor": _processor()}


def changed(recorded: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs of those things that the last bits of a result depend on, as "torch 2.12.0 -> 2.13.0"."""
    was = {
        name: recorded.get(name, _BEFORE[name] if name in _BEFORE and name in now else None) for name in _DECIDES_BITS
    }
    return [
        f"{name} {was[name] or '?'} -> {now.get(name, '?')}" for name in _DECIDES_BITS if was[name] != now.get(name)
    ]


def moved(recorded: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """What to tell people who go on with a study under other conditions than it began; None where they are the same."""
    if not (found := changed(recorded, now)):
        return None
    is_other = mathematics_changed(recorded, now)
    return f"warning: the study began under other conditions ({', '.join(found)}); " + (
        "its trials from here on are trained otherwise than the earlier ones: a new study compares better"
        if is_other
        else "its trials from here on equal those of a study that was never stopped up to rounding"
    )


def _processor() -> str:
    """Model name of the CPU: kernels are chosen, and sums ordered, by it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a stream, not a file to read whole
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def git_commit() -> dict[str, str]:
    """Commit of the folder that the command was given in, with "-dirty" where tracked files differ; empty outside a
    repository."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        answer = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git_commit": commit} if (commit := answer.stdout.strip()) else {}
