"""`studies report` on a study of 1,000 trials: seconds of the whole command, and the size of its one page.

python -m benchmarks.report                  # prints
python -m benchmarks.report --record         # and writes RESULTS.md
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import provenance, record, table

SPEC = """
study = "many"
seed = 5
budget = {{ trials = {trials} }}
search = {{ sampler = "random", cohort = 250, halving = {{ first_rung = 2, reduction_factor = 3 }} }}
final = {{ candidates = 2, seeds = 2 }}
data = {{ source = "sklearn:wine" }}
training = {{ epochs = 8, batch_size = 64 }}

[search_space]
depth = {{ low = 1, high = 2 }}
width = {{ low = 4, high = 32, log = true }}
activation = ["relu", "tanh"]
learning_rate = {{ low = 1e-3, high = 0.5, log = true }}
momentum = {{ low = 0.0, high = 0.95 }}
"""
"""Many trials, each of them cheap: what is measured comes after them."""
STUDY = "many"
NOBODY = "http://127.0.0.1:9"
"""A tracking server that never answers: the discard port."""


def command(words: Sequence[str], folder: Path, **environment: str) -> float:
    """Seconds that `studies WORDS...` takes, from its start to its end, in the home `home` of a folder."""
    kept = {k: v for k, v in os.environ.items() if k not in ("STUDIES_DB", "MLFLOW_TRACKING_URI")}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "studies", *words],
        cwd=folder, capture_output=True, text=True, check=False,
        env=kept | {"STUDIES_HOME": str(folder / "home")} | environment,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"studies {' '.join(words)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - began


def make_study(folder: Path, trials: int, **environment: str) -> None:
    """Run the study of so many trials in a folder."""
    (folder / "many.toml").write_text(SPEC.format(trials=trials))
    command(("run", "many.toml", "--quiet"), folder, **environment)


def measure(trials: int, turns: int) -> tuple[list[float], int, list[int]]:
    """Seconds of each turn; bytes of the page, and of each picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_study(folder, trials, MLFLOW_TRACKING_URI=NOBODY)
        nobody = {"MLFLOW_TRACKING_URI": NOBODY}
        seconds = [command(("report", STUDY, "--to", f"report-{turn}"), folder, **nobody) for turn in range(turns)]
        pictures = sorted(path.stat().st_size for path in (folder / "report-0").rglob("*.png"))
        return seconds, (folder / "report-0" / "report.html").stat().st_size, pictures


def body(trials: int, seconds: Sequence[float], page_bytes: int, pictures: Sequence[int]) -> str:
    rows = [
        ["`studies report`, the whole command, s (median)", f"{statistics.median(seconds):.2f}"],
        ["least and most, s", f"{min(seconds):.2f} to {max(seconds):.2f}"],
        ["report.html, MB", f"{page_bytes / 1e6:.2f}"],
        [f"its {len(pictures)} pictures as PNG beside it, MB", f"{sum(pictures) / 1e6:.2f}"],
    ]
    words = f"A study of {trials:,} trials of at most 8 epochs on wine; {len(seconds)} turns."
    return f"{words}\n\n{table(('figure', 'measured'), rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    text = body(given.trials, *measure(given.trials, given.turns))
    print(f"{provenance()}\n\n{text}")
    if given.record:
        record("The report", text)


if __name__ == "__main__":
    main()
