"""Bad input, the long form: generated files and specs are read, or refused in one line, in little time and memory.

The generators and what must hold are those of `tests/dlcore/test_bad_input.py`, which tries the first 500 of each. This
goes on where it was stopped: what was tried is kept beside the results, so that it can run in pieces.

    python -m benchmarks.bad_input --n 50000                 # or `make bad-inputs`
    python -m benchmarks.bad_input --n 50000 --seconds 200   # a piece of it
    python -m benchmarks.bad_input --n 50000 --record
"""

import argparse
import json
import re
import tempfile
import time
from pathlib import Path

from benchmarks.record import provenance, record, table
from tests.dlcore.test_bad_input import try_file, try_spec

STATE = Path(__file__).parent / ".bad_input.json"
KINDS = {"files": try_file, "specs": try_spec}


def peak_mb() -> int:
    """Most memory that this process ever had, MB; Linux alone tells."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) // 1000 if found else 0


def go_on(state: dict[str, dict[str, float]], n: int, until: float, folder: Path) -> bool:
    """Try what is left, until a time; returns whether all were tried.

    Raises:
        AssertionError: An input was answered wrongly; its number is in the message.
    """
    for kind, attempt in KINDS.items():
        own = state.setdefault(kind, {"tried": 0, "read": 0, "slowest": 0.0, "peak": 0})
        while own["tried"] < n:
            if time.monotonic() >= until:
                return False
            began = time.process_time()
            own["read"] += attempt(int(own["tried"]), folder)
            own["tried"] += 1
            own["slowest"] = max(own["slowest"], time.process_time() - began)
            own["peak"] = max(own["peak"], peak_mb())
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which the rest is left for later")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    state = json.loads(STATE.read_text()) if STATE.is_file() else {}
    if state.get("provenance", "").partition(", ")[2] != provenance().partition(", ")[2]:
        state = {"provenance": provenance(), "kinds": {}}  # another commit: what was tried says nothing of this one
    try:
        with tempfile.TemporaryDirectory() as folder:
            is_done = go_on(state["kinds"], arguments.n, time.monotonic() + arguments.seconds, Path(folder))
    finally:
        STATE.write_text(json.dumps(state))
    header = ["generated", "tried", "read", "refused in one line", "anything else", "slowest, CPU s", "peak, MB"]
    rows = []
    for kind, own in state["kinds"].items():
        n_refused = own["tried"] - own["read"]
        counts = [f"{count:,}" for count in (own["tried"], own["read"], n_refused)]
        rows.append([kind, *counts, 0, f"{own['slowest']:.2f}", own["peak"]])
    text = table(header, rows)
    print(f"{state['provenance']}\n\n{text}")
    if not is_done:
        print("\nnot all: the same command goes on")
    elif arguments.record:
        record("Bad input", f"Files of every kind of damage, and specs, each by one process.\n\n{text}")


if __name__ == "__main__":
    main()
