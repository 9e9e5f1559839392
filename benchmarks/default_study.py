"""What `make study` costs: seconds, first epoch, accuracy, memory, each seed in a home of its own with a cold server.

Run: python -m benchmarks.default_study [--seeds 5] [--rival PROGRAM] [--record]

`--rival PROGRAM` is timed beside it, after each seed: a Python program that trains as many trials of as many epochs one
after the other and takes the arguments `TRIALS EPOCHS none`; without it only our own figures are printed.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.record import record, table
from studies import server

TRIALS = 256
SPEC = 'study = "digits"\nseed = {seed}\nbudget = {{ trials = {trials} }}\n[data]\nsource = "sklearn:digits"\n'


class Watch(threading.Thread):
    """Samples the memory of a study's process and of its tracking server, ten times a second."""

    def __init__(self, pid: int, home: Path) -> None:
        super().__init__(daemon=True)
        self.pid, self.home = pid, home
        self.study_bytes = self.server_bytes = self.server_processes = 0

    def run(self) -> None:
        while psutil.pid_exists(self.pid):
            try:
                process = psutil.Process(self.pid)
                if process.status() == psutil.STATUS_ZOMBIE:
                    return
                self.study_bytes = max(self.study_bytes, process.memory_info().rss)
                found = server.find(self.home)
                if found is not None and found.pid is not None:
                    leader = psutil.Process(found.pid)
                    family = [leader, *leader.children(recursive=True)]
                    self.server_bytes = max(self.server_bytes, sum(p.memory_info().rss for p in family))
                    self.server_processes = max(self.server_processes, len(family))
            except psutil.Error:
                pass  # it ended between two looks
            time.sleep(0.1)


def run_study(seed: int, folder: Path) -> dict[str, float]:
    """Run the default study with another seed; returns its figures."""
    home = folder / "home"
    (folder / "digits.toml").write_text(SPEC.format(seed=seed, trials=TRIALS))
    environment = {**os.environ, "STUDIES_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    for name in ("STUDIES_DB", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "studies", "run", "digits.toml"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    watch = Watch(process.pid, home)
    watch.start()
    first_epoch, lines = 0.0, []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if not first_epoch and "epoch 1/" in line:
            first_epoch = time.monotonic() - began
    if process.wait() != 0:
        raise SystemExit("".join(lines))
    seconds = time.monotonic() - began
    server.stop(home)
    output = "".join(lines)
    accuracies = [re.search(rf"^  {split} .*?accuracy ([\d.]+)", output, re.M) for split in ("val ", "test")]
    assert all(accuracies)
    val, test = (float(found[1]) for found in accuracies if found)
    return {
        "seconds": seconds,
        "first epoch, s": first_epoch,
        "val accuracy": val,
        "test accuracy": test,
        "study, MB": watch.study_bytes / 1e6,
        "server, MB": watch.server_bytes / 1e6,
        "server processes": watch.server_processes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rival", type=Path)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    runs = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            figures = run_study(seed, Path(folder))
        if arguments.rival is not None:
            began = time.monotonic()
            command = [sys.executable, arguments.rival, str(TRIALS), "40", "none"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            figures["rival, s"] = time.monotonic() - began
            figures["rival / ours"] = figures["rival, s"] / figures["seconds"]
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)
        runs.append(figures)
    names = list(runs[0])
    rows = [
        [name, *(f"{pick([r[name] for r in runs]):.4g}" for pick in (min, statistics.median, max))] for name in names
    ]
    text = table(["figure", "min", "median", "max"], rows)
    print(f"\n{text}")
    if arguments.record:
        words = (
            f"{TRIALS} trials of digits, 40 epochs, halving, {arguments.seeds} seeds, each with an empty home and a "
            "cold tracking server; all recorded and mirrored, the winner exported. MB are peaks of resident memory."
        )
        if arguments.rival is not None:
            words += (
                f" The rival is Optuna with a plain loop: {TRIALS} trials of 40 epochs without halving, tracking or "
                "storage."
            )
        record("The default study", f"{words}\n\n{text}")


if __name__ == "__main__":
    main()
