"""Does an exported network answer the same wherever it is asked? Largest differences from PyTorch, by table and way.

A tiny study learns each table. 1,000 of its rows, a tenth of their cells emptied, others unlike all that the table
has, are answered by the export's `predict.py` where onnxruntime and numpy are all there is, by `studies predict`,
`studies serve` and `mlflow models serve`: alone, in sevens, and all at once. What they must answer is what the network
does that is loaded back from `weights.safetensors`.

    python -m benchmarks.answers houses.csv:price wine.csv:quality
    python -m benchmarks.answers houses.csv:price --record

Differences are of probabilities, or of values in standard deviations of the target, relative to max(1, |value|).
"""

import argparse
import csv
import functools
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.record import provenance, record, table
from benchmarks.serving import free_port, mlflow_words, running, serve_words
from dlcore.export import load_network
from dlcore.exported import ExportedModel
from dlcore.preprocess import Preprocessor
from dlcore.tables import read_features
from studies import registry

SPEC = """
study = "table"
seed = 1
budget = {{ trials = 4 }}
data = {{ path = {path}, target = {target} }}
training = {{ epochs = 3 }}
final = {{ seeds = 0, baselines = false }}
"""
BATCHES = (1, 7, 1000)
SCRIPT = """
import json, runpy, sys
folder, sizes = sys.argv[2], json.loads(sys.argv[3])
script = runpy.run_path(folder + "/predict.py")  # reads sys.argv[1], and prints answers to all rows
assert not {"torch", "pandas", "dlcore", "sklearn"} & set(sys.modules)
network = script["onnxruntime"].InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
n = len(next(iter(script["inputs"].values())))
for size in sizes:
    parts = [{k: v[i : i + size] for k, v in script["inputs"].items()} for i in range(0, n, size)]
    found = zip(*(network.run(None, part) for part in parts))
    print(json.dumps([[v for part in output for v in part.tolist()] for output in found]), file=sys.stderr)
"""
Answers = dict[str, list[Any]]
"""Output -> what is answered to each row."""
Asked = Callable[[list[dict[str, Any]]], Any]


@dataclass(frozen=True)
class Truth:
    """What PyTorch answers."""

    values: NDArray[np.float64]
    """Probabilities, or standardised values, (N, C)."""
    labels: tuple[str, ...]
    """Of the classes; none for a regression."""
    preprocessor: Preprocessor

    def gap(self, found: Answers) -> float:
        """The largest difference of answers.

        Raises:
            ValueError: A row has no answer, or a label is not that of the likeliest class, where rounding cannot
                decide it.
        """
        found = dict(found)
        named = found.pop("label", None)
        values = np.array([[float(v) for v in column] for column in found.values()]).T
        if values.shape != self.values.shape:
            raise ValueError(f"answers must have shape {self.values.shape}, not {values.shape}")
        if not self.labels:
            values = self.preprocessor.scale_target(values)
        elif named is not None:
            second, first = np.sort(self.values, axis=1)[:, -2:].T
            for row in np.flatnonzero(first - second > 2e-5):
                if str(named[row]).lower() != self.labels[int(self.values[row].argmax())].lower():
                    raise ValueError(f"row {row} must not be {named[row]}")
        return float(np.max(np.abs(values - self.values) / np.maximum(1, np.abs(self.values))))


def by_torch(export: Path, rows: Path) -> Truth:
    """Let the network that comes back in PyTorch answer the rows of a CSV file."""
    network, preprocessor, manifest = load_network(export)
    assert isinstance(preprocessor, Preprocessor), "no ensembles here"
    model = ExportedModel.load(export)
    prepared = preprocessor.transform(read_features(str(rows), model.kinds, model.forms))
    with torch.no_grad():
        outputs = network(torch.from_numpy(prepared).float()).double()
    if manifest["task"] == "binary":
        outputs = torch.cat([torch.sigmoid(-outputs), torch.sigmoid(outputs)], dim=1)
    elif manifest["task"] == "multiclass":
        outputs = torch.softmax(outputs, dim=1)
    values: NDArray[np.float64] = outputs.numpy()
    if manifest["task"] == "regression":  # what is answered stays in the range of train
        values = preprocessor.scale_target(preprocessor.unscale_target(values, is_prediction=True))
    return Truth(values, tuple(map(str, model.class_labels)), preprocessor)


def spoil(source: Path, target: Path, kinds: dict[str, str], n: int) -> None:
    """Write n rows of a CSV file by chance, with cells that are missing, and others that no row of it has."""
    rng = np.random.default_rng(1)
    with source.open(newline="", encoding="utf-8-sig") as stream:
        first = stream.readline()
        stream.seek(0)
        separator = max(",;\t|", key=first.count)
        header, *rows = [row for row in csv.reader(stream, delimiter=separator) if row]

    def spoilt(name: str, cell: str) -> str:
        share = rng.random()
        if share < 0.1 or not cell:
            return ""
        if share > 0.95 and kinds.get(name) == "categorical":
            return "no such thing"
        return f"{cell}9" if share > 0.95 and kinds.get(name) == "numeric" and cell[-1:].isdigit() else cell

    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=separator)
        writer.writerow(header)
        for i in rng.integers(0, len(rows), n):
            writer.writerow([spoilt(*pair) for pair in zip(header, rows[i], strict=True)])


def as_json(rows: Path, kinds: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of a CSV file as one would put them into JSON; whatever stands for no value is null."""
    read: dict[str, Callable[[str], Any]] = {
        "numeric": float, "boolean": lambda cell: cell.lower() in ("true", "yes", "1"), "date": str, "categorical": str
    }  # fmt: skip
    with rows.open(newline="", encoding="utf-8") as stream:
        header = stream.readline()
        stream.seek(0)
        found = csv.DictReader(stream, delimiter=max(",;\t|", key=header.count))
        return [{name: read[kind](row[name]) if row[name] else None for name, kind in kinds.items()} for row in found]


def by_script(python: Sequence[str], export: Path, rows: Path) -> dict[int, Answers]:
    """The script in an export, in batches; `python` begins the command of a clean Python."""
    words = [*python, str(rows), str(export), json.dumps(BATCHES)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    whole = _columns(done.stdout, ",", [])
    batches = [dict(zip(whole, json.loads(line), strict=True)) for line in done.stderr.splitlines()]
    return {0: whole, **dict(zip(BATCHES, batches, strict=True))}


def by_file(export: Path, rows: Path) -> dict[int, Answers]:
    """`studies predict`, which decides itself about batches."""
    words = [sys.executable, "-m", "studies", "predict", str(export), str(rows)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    first = rows.read_text().partition("\n")[0]
    separator = max(",;\t|", key=first.count)
    own = next(csv.reader([first.strip()], delimiter=separator))
    return {0: _columns(done.stdout, separator, own)}


def _columns(text: str, separator: str, own: list[str]) -> Answers:
    """Columns of a CSV text behind those that the file had itself."""
    header, *rows = csv.reader(io.StringIO(text), delimiter=separator)
    columns = dict(zip(header[len(own) :], list(zip(*rows, strict=True))[len(own) :], strict=True))
    return {name.rstrip("_"): list(values) for name, values in columns.items()}


def by_post(port: int, path: str, rows: list[dict[str, Any]], wrap: Asked) -> dict[int, Answers]:
    """A service that is asked in batches over one connection; `wrap` makes a body of rows."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    answers: dict[int, Answers] = {}
    for size in BATCHES:
        found: list[dict[str, Any]] = []
        for start in range(0, len(rows), size):
            body = json.dumps(wrap(rows[start : start + size]))
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            content = reply.read()
            if reply.status != 200:
                raise SystemExit(f"{path} answers {reply.status} to {body[:200]}: {content[:500]!r}")
            given = json.loads(content)
            found += given if isinstance(given, list) else given["predictions"]
        answers[size] = {name: [one[name] for one in found] for name in found[0]}
    connection.close()
    return answers


def ask_all(export: Path, rows: Path, python: Sequence[str], scratch: Path) -> dict[str, float]:
    """Way of asking -> its largest difference from PyTorch, over all sizes of batches.

    Args:
        export: Folder of an export.
        rows: CSV file.
        python: Words that begin the command of a Python with `SCRIPT`, where onnxruntime and numpy are all there is.
        scratch: An empty folder.
    """
    truth, kinds = by_torch(export, rows), dict(ExportedModel.load(export).kinds)
    found = {"predict.py": by_script(python, export, rows), "studies predict": by_file(export, rows)}
    given = as_json(rows, kinds)
    registry.save_model(scratch / "model", export, None)
    services: list[tuple[str, Callable[[int], list[str]], str, str, Asked]] = [
        ("studies serve", functools.partial(serve_words, str(export)), "/health", "/predict", list),
        ("mlflow models serve", functools.partial(mlflow_words, str(scratch / "model")), "/ping", "/invocations",
         lambda part: {"dataframe_records": part}),
    ]  # fmt: skip
    for way, words, health, path, wrap in services:
        port = free_port()
        with running(words(port), port, health):
            found[way] = by_post(port, path, given, wrap)
    # np.max() keeps a NaN.
    return {way: float(np.max([truth.gap(one) for one in batches.values()])) for way, batches in found.items()}


def clean_python(folder: Path) -> Path:
    """A new environment with onnxruntime and numpy alone, from the package index."""
    venv.create(folder, with_pip=True)
    pins = [f"{name}=={version(name)}" for name in ("numpy", "onnxruntime")]
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", *pins], check=True)
    return folder / "bin" / "python"


def learn(path: Path, target: str, folder: Path) -> Path:
    """Run a tiny study of a table; returns its export."""
    (folder / "table.toml").write_text(SPEC.format(path=json.dumps(str(path.resolve())), target=json.dumps(target)))
    environment = {k: v for k, v in os.environ.items() if k != "STUDIES_DB"}
    environment |= {"STUDIES_HOME": str(folder / "home"), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}  # nobody's
    words = [sys.executable, "-m", "studies", "run", "table.toml", "--quiet"]
    subprocess.run(words, cwd=folder, env=environment, check=True)
    return folder / "home" / "exports" / "table"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", metavar="FILE.csv:TARGET")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    lines: list[list[str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        python = [str(clean_python(Path(scratch) / "clean")), "-c", SCRIPT]
        for number, word in enumerate(options.tables):
            name, _, target = word.rpartition(":")
            folder = Path(scratch) / str(number)
            folder.mkdir()
            export = learn(Path(name), target, folder)
            model = ExportedModel.load(export)
            spoil(Path(name), folder / "rows.csv", model.kinds, options.rows)
            gaps = ask_all(export, folder / "rows.csv", python, folder)
            lines.append([Path(name).stem, model.task, str(len(model.kinds)), *(f"{gap:.1e}" for gap in gaps.values())])
            print(provenance(), lines[-1], flush=True)
    body = table(["table", "task", "columns", *gaps], lines)
    print(body)
    if options.record:
        said = f"{options.rows:,} rows of each table, in batches of {', '.join(f'{n:,}' for n in BATCHES)}."
        record("Answers of an export", f"{said} Largest differences from PyTorch; all labels agree.\n\n{body}")


if __name__ == "__main__":
    main()
