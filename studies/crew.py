"""The driver's side of `studies run --workers`: starts the worker processes, hears them, and ends them with itself."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

from studies.home import Home

Message = Mapping[str, Any]
"""What a worker said: its `kind`, and what belongs to it; see `worker`."""

_GRACE_S = 2.0
"""How long a worker has to end when its pipe is closed."""


class Crew:
    """Worker processes of one study."""

    def __init__(self, home: Home, study: str, n_workers: int, deadline: float | None) -> None:
        """Start them; each trains cohorts until nothing is left.

        Args:
            home: Where the study lies.
            study: Its name; it must be stored.
            n_workers: How many.
            deadline: `time.monotonic()` at which training ends.
        """
        self._heard: queue.Queue[Message] = queue.Queue()
        self._workers: list[subprocess.Popen[str]] = []
        self._errors: list[IO[bytes]] = []
        # The password of a database is not for `ps` to show: the environment carries it.
        environment = {**os.environ, "STUDIES_HOME": str(home.root), "STUDIES_DB": home.database_url}
        order = {"study": study, "driver": os.getpid(), "share": 1 / n_workers}
        for _ in range(n_workers):
            errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
            worker = subprocess.Popen(
                [sys.executable, "-m", "studies.worker"], env=environment, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8",
            )  # fmt: skip
            self._errors.append(errors)
            self._workers.append(worker)
            assert worker.stdin is not None
            seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
            with contextlib.suppress(BrokenPipeError):  # it ended at once: its last word says why
                worker.stdin.write(json.dumps({**order, "seconds": seconds}) + "\n")
                worker.stdin.flush()
            threading.Thread(target=self._listen, args=(worker, errors), daemon=True).start()

    def messages(self) -> Iterator[Message]:
        """What the workers say, until the last one has ended; the last word of each is `ended`."""
        n_left = len(self._workers)
        while n_left:
            message = self._heard.get()
            n_left -= message["kind"] == "ended"
            yield message

    def close(self) -> None:
        """End all workers; what they were training is nobody's then."""
        for worker in self._workers:
            assert worker.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it ended first
                worker.stdin.close()
        ends = time.monotonic() + _GRACE_S
        for worker in self._workers:
            try:
                worker.wait(max(0.0, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        for errors in self._errors:
            errors.close()

    def _listen(self, worker: "subprocess.Popen[str]", errors: IO[bytes]) -> None:
        assert worker.stdout is not None
        with worker.stdout:
            for line in worker.stdout:
                with contextlib.suppress(ValueError):  # cut off by its end, or a library's word
                    self._heard.put(json.loads(line))
        code = worker.wait()
        self._heard.put({"kind": "ended", "code": code, "why": _why(code, errors)})


def _why(code: int, errors: IO[bytes]) -> str:
    """Why a worker ended, in a few words."""
    if code < 0:
        killed = f"was killed by signal {-code}"
        return f"{killed}; the machine may lack memory for so many workers" if code == -9 else killed
    try:
        errors.seek(0)
        lines = errors.read().decode("utf-8", "replace").strip().splitlines()
    except ValueError:
        return "ended"  # with the driver
    return lines[-1] if code and lines else f"ended with exit code {code}"
