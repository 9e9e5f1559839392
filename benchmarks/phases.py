"""One study, run as `studies run` runs it, with the seconds of its main thread told apart.

The product's functions are wrapped from outside and then called as ever: every second belongs to the innermost wrapped
function that the main thread is in. The mirror works beside it in a thread of its own; "tracking" is what the end of
the run waits for it.

    python -m benchmarks.phases SPEC.toml OUT.json       # a process of its own; `run_study` starts it
"""

import functools
import json
import math
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from studies import server

NAMES = ("start-up", "asking", "training", "storage", "export", "tracking", "rest")


@dataclass(frozen=True)
class Course:
    """Where the seconds of one study went."""

    phases: dict[str, float]
    """Seconds of the main thread by `NAMES`, from the start of the process to the end of the command."""
    first_ask: float
    """Seconds since the process began."""
    last_mirrored: float
    """When the last trial's run stood in MLflow, by the same clock; NaN if one is missing."""
    end: float
    """When the command was done, by the same clock."""
    n_trials: int

    @property
    def searched_s(self) -> float:
        """From the first ask to the last mirrored record."""
        return self.last_mirrored - self.first_ask


class Clock:
    """Gives every second of the main thread to one phase."""

    def __init__(self) -> None:
        self._began = time.monotonic() - (time.time() - psutil.Process().create_time())
        self.seconds: dict[str, float] = defaultdict(float)
        self.first_ask = self.last_mirrored = math.nan
        self.numbers: set[int] = set()
        self._stack = ["start-up"]
        self._since = self._began
        self._main = threading.get_ident()

    def now(self) -> float:
        """Seconds since the process began."""
        return time.monotonic() - self._began

    def _switch(self) -> None:
        now = time.monotonic()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def _enter(self, phase: str) -> None:
        self._switch()
        if phase == "asking" and self._stack[0] == "start-up":
            self.first_ask, self._stack[0] = self.now(), "rest"
        self._stack.append(phase)

    def _leave(self) -> None:
        self._switch()
        self._stack.pop()

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        """Count the seconds of a function or method, called by the main thread, to a phase."""
        call = getattr(owner, name)

        @functools.wraps(call)
        def timed(*arguments: object, **named: object) -> object:
            if threading.get_ident() != self._main:
                return call(*arguments, **named)
            self._enter(phase)
            try:
                return call(*arguments, **named)
            finally:
                self._leave()

        setattr(owner, name, timed)

    def wrap_generator(self, owner: Any, name: str, phase: str) -> None:
        """Likewise, for one that yields: what its caller does between two of its items is not its own."""
        call: Callable[..., Iterator[object]] = getattr(owner, name)

        @functools.wraps(call)
        def timed(*arguments: object, **named: object) -> Iterator[object]:
            items = call(*arguments, **named)
            while True:
                self._enter(phase)
                try:
                    item = next(items)
                except StopIteration:
                    return
                finally:
                    self._leave()
                yield item

        setattr(owner, name, timed)

    def watch(self, mirror: Any) -> None:
        """Note when MLflow came to lack nothing that a mirror was handed: looked at a hundred times a second."""
        put = mirror.put

        @functools.wraps(put)
        def watched(own: Any, numbers: Sequence[int]) -> None:
            put(own, numbers)
            self.last_mirrored = math.nan
            if not self.numbers:
                threading.Thread(target=self._watch, args=(own,), daemon=True).start()
            self.numbers.update(numbers)

        mirror.put = watched

    def _watch(self, mirror: Any) -> None:
        while True:
            if mirror.pending:
                self.last_mirrored = math.nan
            elif math.isnan(self.last_mirrored):
                self.last_mirrored = self.now()
            time.sleep(0.01)

    def stop(self) -> float:
        """End the counting; returns the seconds since the process began."""
        self._switch()
        return self.now()


def measured(spec: Path) -> Course:
    """Run a study in this process, and say where its seconds went."""
    clock = Clock()
    from studies import commands, mirroring, runner, search
    from studies.cohort import Trainer
    from studies.storage import Storage
    from studies.tracking import Mirror

    clock.wrap(search, "ask_cohort", "asking")
    clock.wrap_generator(Trainer, "train", "training")
    for name in [name for name, found in vars(Storage).items() if callable(found) and not name.startswith("_")]:
        clock.wrap(Storage, name, "storage")
    clock.wrap(runner.Run, "export", "export")
    clock.wrap(mirroring, "hand_over", "tracking")
    clock.watch(Mirror)
    commands.run(commands.Request(str(spec), None, None, None, None))
    end = clock.stop()
    phases = {name: clock.seconds[name] for name in NAMES}
    return Course(phases, clock.first_ask, clock.last_mirrored, end, len(clock.numbers))


def warm_server(home: Path) -> str:
    """Start the home's tracking server and let it answer a question to its database; returns its address."""
    home.mkdir(parents=True, exist_ok=True)
    address = server.find_or_start(home, timeout_s=300).address
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/experiments/search", b'{"max_results": 1}', {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=60).close()
    return address


def run_study(spec: str, home: Path, *, env: Mapping[str, str] | None = None) -> Course:
    """Run a spec's text in a process of its own; the home may hold a warm server.

    Raises:
        SystemExit: The study failed; with what it printed.
    """
    folder = home.parent
    (folder / "spec.toml").write_text(spec)
    kept = {k: v for k, v in os.environ.items() if k not in ("STUDIES_DB", "MLFLOW_TRACKING_URI")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.phases", folder / "spec.toml", folder / "course.json"],
        capture_output=True, text=True, env=kept | {"STUDIES_HOME": str(home)} | dict(env or {}),
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    return Course(**json.loads((folder / "course.json").read_text()))


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(asdict(measured(Path(sys.argv[1])))))
