"""What the live display costs the default study: seconds of CPU that drawing and counting take, of all its seconds.

The study runs in a pseudo-terminal of 120 columns, mirrored to nobody. Whatever the display does is timed by the clock
of the thread that does it: the block that is drawn four times a second, each epoch and each cohort that it is told of.

    python -m benchmarks.display                 # prints
    python -m benchmarks.display --record        # and writes RESULTS.md
"""

import argparse
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.record import provenance, record, table

COLUMNS = 120


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--record", action="store_true")
    arguments.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child is not None:
        _run_study(given.child)
        return
    rows = []
    for _ in range(given.repeats):
        found = measure()
        share = f"{found['display_s'] / found['study_s']:.2%}"
        rows.append((f"{found['study_s']:.2f}", f"{found['display_s']:.3f}", f"{found['drawn']:.0f}", share))
    body = table(("study, s", "display, s of CPU", "times drawn", "share"), rows)
    print(provenance(), body, sep="\n\n")
    if given.record:
        record("Display", f"The default study on a terminal of {COLUMNS} columns.\n\n{body}")


def measure() -> dict[str, float]:
    """One study in a pseudo-terminal of its own."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        out = Path(folder) / "found.json"
        nobody = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "TERM": "xterm-256color"}
        program = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.display", "--child", str(out)],
            stdin=theirs, stdout=theirs, stderr=theirs,
            env=os.environ | {"STUDIES_HOME": str(Path(folder) / "home")} | nobody,
        )  # fmt: skip
        os.close(theirs)
        try:
            while os.read(ours, 65536):
                pass
        except OSError:  # the study ended, and with it the terminal
            pass
        os.close(ours)
        if program.wait() != 0:
            raise RuntimeError("the study failed")
        found: dict[str, float] = json.loads(out.read_text())
        return found


def _run_study(out: Path) -> None:
    """The default study, with what the display does timed."""
    from rich.live import Live

    from studies import commands
    from studies.display import LiveDisplay

    spent: dict[str, float] = {"display_s": 0.0, "drawn": 0.0}

    def timed(owner: Any, name: str, count: str | None = None) -> None:
        call: Callable[..., object] = getattr(owner, name)

        def wrapped(*arguments: object, **named: object) -> object:
            began = time.thread_time()
            try:
                return call(*arguments, **named)
            finally:
                spent["display_s"] += time.thread_time() - began
                if count is not None:
                    spent[count] += 1

        setattr(owner, name, wrapped)

    timed(Live, "refresh", "drawn")
    for name in ("begin", "epoch", "trials"):
        timed(LiveDisplay, name)
    began = time.monotonic()
    commands.run(commands.Request("digits", None, None, None, None))
    out.write_text(json.dumps(spent | {"study_s": time.monotonic() - began}))


if __name__ == "__main__":
    main()
