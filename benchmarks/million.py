"""A million rows of fifty columns of every kind: read, prepared and searched by one command, and what that takes.

The table is generated: numbers, some with holes or long tails, text of few and of very many categories, dates,
true/false, an identifier, a column that never changes, the target and the split. `studies run` searches it with a small
budget; beside it stands what people write today: pandas, a scikit-learn pipeline and its MLP, on a sample of train that
it can learn from in bearable time, measured on all test rows.

    python -m benchmarks.million                 # about fifteen minutes on two cores
    python -m benchmarks.million --rows 100000
    python -m benchmarks.million --record

Memory is of the whole family of processes, shared pages counted once (PSS), looked at twice a second; of reading and
preparing, the peak of a process that does nothing else.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from pyarrow import csv

from benchmarks.record import provenance, record, table

SPEC = """
study = "million"
budget = {{ trials = {trials} }}
search = {{ cohort = {trials}, halving = {{ first_rung = 1 }} }}
[data]
path = "{path}"
target = "y"
split = {{ column = "split" }}
[training]
epochs = {epochs}
batch_size = 1024
[final]
candidates = 1
seeds = 2
"""
_ROWS_AT_ONCE = 100_000

_PREPARE = """
import re, sys, time
from pathlib import Path
began = time.monotonic()
from dlcore.data import split_table, to_tensors
from dlcore.config import DataConfig, SplitConfig
from dlcore.tables import read_table
config = DataConfig(path=sys.argv[1], target=("y",), split=SplitConfig(column="split"))
imported = time.monotonic()
table = read_table(config)
read = time.monotonic()
splits = split_table(table, config, 0)
tensors = to_tensors(splits, "cpu")
prepared = time.monotonic()
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(imported - began, read - imported, prepared - read, int(peak) * 1024, splits.n_features)
"""

_SKLEARN = """
import re, sys, time
from pathlib import Path
began = time.monotonic()
import numpy as np, pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
imported = time.monotonic()
frame = pd.read_csv(sys.argv[1])
read = time.monotonic()
dates = [name for name in frame if name.startswith("date")]
frame[dates] = frame[dates].apply(lambda column: pd.to_datetime(column).astype("int64"))
train, test = (frame[frame["split"] == part].drop(columns=["split", "key"]) for part in ("train", "test"))
train = train.sample(min(len(train), int(sys.argv[2])), random_state=0)
numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
texts = OneHotEncoder(max_categories=32, handle_unknown="infrequent_if_exist", sparse_output=False)
columns = make_column_transformer(
    (numbers, make_column_selector(dtype_include=["number", "bool"])),
    (texts, make_column_selector(dtype_exclude=["number", "bool"])),
)
x, y = columns.fit_transform(train.drop(columns="y")), train["y"]
asked = columns.transform(test.drop(columns="y"))
prepared = time.monotonic()
model = MLPClassifier(random_state=0).fit(x, y)
trained = time.monotonic()
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(imported - began, read - imported, prepared - read, trained - prepared, int(peak) * 1024, len(x),
      model.score(asked, test["y"]))
"""


def columns(n: int, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Some rows of the table: 50 columns."""
    numbers = {f"number{i}": rng.normal(size=n) for i in range(20)}
    tails = {f"amount{i}": np.exp(rng.normal(3, 1.5, size=n)) for i in range(6)}
    counts = {f"count{i}": rng.poisson(3 + i, size=n) for i in range(4)}
    codes = {f"kind{i}": rng.integers(0, 3 + 4 * i, size=n) for i in range(8)}
    shops = {f"shop{i}": (rng.pareto(1.0, size=n) * 50).astype(np.int64) % 5_000 for i in range(2)}
    flags = {f"flag{i}": rng.random(n) < 0.1 + 0.2 * i for i in range(3)}
    days = {f"date{i}": rng.integers(17_000, 20_500, size=n) for i in range(3)}
    wave = np.sin(2 * numbers["number0"]) + numbers["number1"] * numbers["number2"] + 0.5 * numbers["number3"]
    effect = np.sin(12.9898 * np.arange(5_000)) * 0.8
    wave += 0.4 * np.log(tails["amount0"]) + (codes["kind1"] % 2) + effect[shops["shop0"]] - 0.3 * counts["count0"]
    wave += np.where(flags["flag1"], numbers["number4"], 0) + 0.7 * np.sin(days["date0"] * 2 * np.pi / 365.25)
    y = wave + rng.normal(size=n) > 0.8

    def with_holes(values: np.ndarray, share: float) -> pa.Array:
        return pa.array(values, mask=rng.random(n) < share)

    found = {name: with_holes(values.round(5), 0.05 * (i % 4 == 0)) for i, (name, values) in enumerate(numbers.items())}
    found |= {name: with_holes(values.round(2), 0.03 * (i % 2)) for i, (name, values) in enumerate(tails.items())}
    found |= {name: pa.array(values) for name, values in (counts | flags).items()}
    found |= {name: pa.array(np.char.add("k", values.astype(str))) for name, values in codes.items()}
    found |= {name: pa.array(np.char.add("s", values.astype(str))) for name, values in shops.items()}
    found |= {name: pa.array(values.astype("datetime64[D]")) for name, values in days.items()}
    found["constant"] = pa.array(np.ones(n, dtype=np.int64))
    found["key"] = pa.array(np.char.add("row", rng.permutation(n).astype(str)))
    found["y"] = pa.array(np.where(y, "yes", "no"))
    split = rng.random(n)
    found["split"] = pa.array(np.where(split < 0.6, "train", np.where(split < 0.8, "val", "test")))
    return found


def write_table(path: Path, n_rows: int) -> None:
    """Write the table, some rows at a time."""
    rng, writer = np.random.default_rng(0), None
    for begin in range(0, n_rows, _ROWS_AT_ONCE):
        part = columns(min(_ROWS_AT_ONCE, n_rows - begin), rng)
        part["key"] = pa.array(np.char.add("row", (begin + np.arange(len(part["key"]))).astype(str)))
        batch = pa.table(part)
        assert batch.num_columns == 50
        writer = writer or csv.CSVWriter(path, batch.schema)
        writer.write_table(batch)
    assert writer is not None
    writer.close()


class Memory(threading.Thread):
    """Looks twice a second at what a process and its children have in memory."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self.peak_bytes = self.alone_bytes = 0
        self.by_phase: dict[str, int] = {}
        self.phase = "reading"

    def run(self) -> None:
        while True:
            try:
                process = psutil.Process(self._pid)
                if process.status() == psutil.STATUS_ZOMBIE:
                    return
                family = [process, *process.children(recursive=True)]
                found = sum(_pss(own) for own in family)
                self.alone_bytes = max(self.alone_bytes, process.memory_info().rss)
            except psutil.NoSuchProcess:
                return
            self.peak_bytes = max(self.peak_bytes, found)
            self.by_phase[self.phase] = max(self.by_phase.get(self.phase, 0), found)
            time.sleep(0.5)


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0  # it ended between two looks


@dataclass
class Ours:
    """What the command took."""

    seconds: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    output: str = ""
    peak_bytes: int = 0


_PHASES = {"study ": "search", "finals:": "finals", "rivals:": "rivals", "all ": "report", "MLflow ": "end"}
"""How a line of `studies run` begins -> the phase that begins with it."""


def search(folder: Path, path: Path, arguments: argparse.Namespace) -> Ours:
    """Run the study; returns seconds and peaks by phase."""
    (folder / "million.toml").write_text(SPEC.format(path=path, trials=arguments.trials, epochs=arguments.epochs))
    environment = {
        **os.environ, "STUDIES_HOME": str(folder / "home"), "PYTHONUNBUFFERED": "1", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }  # fmt: skip
    environment.pop("STUDIES_DB", None)
    command = [sys.executable, "-m", "studies", "run", "million.toml"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    memory, ours, began = Memory(process.pid), Ours(), time.monotonic()
    memory.start()
    assert process.stdout is not None
    for line in process.stdout:
        ours.output += line
        if (phase := next((name for start, name in _PHASES.items() if line.startswith(start)), None)) is not None:
            ours.seconds[memory.phase] = time.monotonic() - began
            memory.phase, began = phase, time.monotonic()
    if process.wait() != 0:
        raise SystemExit(ours.output)
    ours.seconds[memory.phase] = time.monotonic() - began
    ours.memory, ours.peak_bytes = memory.by_phase, memory.peak_bytes
    return ours


def answer(code: str, *words: str) -> list[float]:
    """The numbers that a Python process of its own prints."""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return [float(word) for word in done.stdout.split()]


def measure(folder: Path, arguments: argparse.Namespace) -> str:
    """All of it; returns what RESULTS.md says."""
    path = folder / "million.csv"
    write_table(path, arguments.rows)
    size = path.stat().st_size / 1e6
    print(f"{arguments.rows:,} rows of 50 columns, {size:.0f} MB", flush=True)
    _, read, prepared, peak, n_features = answer(_PREPARE, str(path))
    rows = [
        ["ours: reading", f"{read:.0f}", ""],
        ["ours: preparing", f"{prepared:.0f}", f"{peak / 1e6:,.0f} (both)"],
    ]
    print(rows, flush=True)
    ours = search(folder, path, arguments)
    print(ours.output, flush=True)
    total = sum(ours.seconds.values())
    for phase, seconds in ours.seconds.items():
        named = {
            "reading": "command: start, reading, preparing",
            "search": f"command: search of {arguments.trials} trials",
        }
        peak_mb = f"{ours.memory.get(phase, 0) / 1e6:,.0f}"
        rows.append([named.get(phase, f"command: {phase}"), f"{seconds:.0f}", peak_mb])
    rows.append(["command: all", f"{total:.0f}", f"{ours.peak_bytes / 1e6:,.0f}"])
    _, read, prepared, trained, peak, n_train, score = answer(_SKLEARN, str(path), str(arguments.sample))
    rows += [
        ["pandas.read_csv", f"{read:.0f}", ""],
        ["scikit-learn's pipeline", f"{prepared:.0f}", ""],
        [f"scikit-learn's MLP on {n_train:,.0f} of the train rows", f"{trained:.0f}", f"{peak / 1e6:,.0f} (all three)"],
    ]
    said = re.findall(r"^  accuracy of .*|^  accuracy on test.*", ours.output, re.M)
    words = (
        f"{arguments.rows:,} rows of 50 columns, {size:.0f} MB of CSV, {n_features:.0f} inputs; "
        f"{arguments.trials} trials of {arguments.epochs} epochs at most, batches of 1,024, one finalist, 2 seeds.\n\n"
        f"Ours: {'; '.join(line.strip() for line in said)}. scikit-learn's MLP on test: {score:.4f}."
    )
    return f"{words}\n\n{table(['what', 's', 'peak memory, MB'], rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--sample", type=int, default=100_000, help="train rows of scikit-learn's MLP")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    print(provenance(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        text = measure(Path(folder), arguments)
    print(f"\n{text}")
    if arguments.record:
        record("A million rows", text)


if __name__ == "__main__":
    main()
