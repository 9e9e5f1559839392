"""`studies predict` on many rows, beside a plain loop of pandas and onnxruntime: rows/s and peak memory, in one run.

A table of five numbers, a text and an identifier; a regression network of two hidden layers. Each side is a process of
its own that reads one CSV file and writes another; peaks are those that the system saw.

    python -m benchmarks.predicting
    python -m benchmarks.predicting --rows 1000000 10000000 --repeats 3 --record
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.record import provenance, record, table
from dlcore.config import DataConfig, ModelConfig
from dlcore.data import load_splits
from dlcore.export import export_model
from dlcore.models import build_model

LOOP = """
import sys
import numpy as np, onnxruntime, pandas as pd
folder, source, target = sys.argv[1:]
session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
types = {i.name: i.type for i in session.get_inputs()}
names = [o.name for o in session.get_outputs()]
with open(target, "w") as out:
    for n, chunk in enumerate(pd.read_csv(source, chunksize=50_000)):
        rows = {
            name: chunk[name].fillna("").to_numpy(object) if kind == "tensor(string)" else chunk[name].to_numpy(float)
            for name, kind in types.items()
        }
        answers = session.run(names, rows)
        chunk.assign(**dict(zip(names, answers))).to_csv(out, index=False, header=n == 0)
"""


def write_rows(path: Path, n: int, *, has_target: bool = False) -> None:
    rng = np.random.default_rng(0)
    with path.open("w") as stream:
        for start in range(0, n, 100_000):
            k = min(100_000, n - start)
            frame = pd.DataFrame({"id": np.arange(start, start + k)})
            for i in range(5):
                frame[f"x{i}"] = rng.normal(size=k).round(4)
            frame["city"] = rng.choice(["Rome", "Oslo", "Lima", ""], k)
            if has_target:
                frame["y"] = frame["x0"] * frame["x1"] + (frame["city"] == "Rome")
            frame.to_csv(stream, index=False, header=start == 0)


def make_export(folder: Path) -> Path:
    write_rows(folder / "train.csv", 5000, has_target=True)
    config = DataConfig(path=str(folder / "train.csv"), target=("y",), drop=("id",), task="regression")
    splits = load_splits(config, 0)
    network = ModelConfig(splits.n_features, splits.n_outputs, (64, 64))
    return export_model(folder / "export", build_model(network, seed=0), network, splits, {})


def measure(words: list[str]) -> tuple[float, float]:
    """Seconds, and peak memory in MB: of /proc, since what rusage says may be of the process that started it."""
    began, peak = time.perf_counter(), 0
    process = subprocess.Popen(words)
    while process.poll() is None:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        peak = max(peak, int(found[1]) if found else 0)
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{words[:4]} ended with {process.returncode}")
    return time.perf_counter() - began, peak / 1e3


def compare(folder: Path, n: int) -> None:
    """Both sides must have answered alike."""
    for ours, theirs in zip(
        pd.read_csv(folder / "ours.csv", chunksize=500_000), pd.read_csv(folder / "theirs.csv", chunksize=500_000),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(ours["prediction"], theirs["prediction"], rtol=1e-4, atol=1e-5)
        assert ours["id"].equals(theirs["id"])
        n -= len(ours)
    assert n == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export = str(make_export(folder))
        for n in options.rows:
            source = folder / "rows.csv"
            write_rows(source, n)
            ours = [sys.executable, "-m", "studies", "predict", export, str(source), "--out", str(folder / "ours.csv")]
            theirs = [sys.executable, "-c", LOOP, export, str(source), str(folder / "theirs.csv")]
            found = [(measure(ours), measure(theirs)) for _ in range(options.repeats)]  # in turn
            compare(folder, n)
            for i, side in enumerate(("studies predict", "pandas and onnxruntime")):
                seconds = statistics.median(pair[i][0] for pair in found)
                peak = max(pair[i][1] for pair in found)
                lines.append([side, f"{n:,}", f"{n / seconds:,.0f}", f"{seconds:.1f}", f"{peak:,.0f}"])
                print(provenance(), lines[-1], flush=True)
    body = table(["side", "rows", "rows/s", "seconds", "peak memory, MB"], lines)
    print(body)
    if options.record:
        record("Rows of a file", f"Median of {options.repeats}, each side in turn; CSV to CSV.\n\n{body}")


if __name__ == "__main__":
    main()
