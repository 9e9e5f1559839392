"""What the default search space of a person's own table should hold: studies with one change of it each, by val.

Each study searches as `studies run` does; what counts is the mean on val of its winner over fresh seeds. Test is not
looked at, so that what is chosen here may be measured there (`benchmarks.quality`).

    python -m benchmarks.table_space wine.csv:quality letters.csv:letter --rows 5000 --seeds 0 1 2
    python -m benchmarks.table_space wine.csv:quality --variants base scalings --record

A study that was run is not run again: the same command goes on where it was stopped.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import provenance, record, table
from studies.hyperparameters import Range, plain, table_space

KEPT = Path(__file__).parent / ".table_space.json"
VARIANTS: dict[str, dict[str, dict[str, object]]] = {
    "base": {"search_space": {"preprocess": "standard"}},
    "scalings": {"search_space": {"preprocess": ("standard", "quantile_normal")}},
    "quantile_normal": {"search_space": {"preprocess": "quantile_normal"}},
    "100 epochs": {"training": {"epochs": 100}},
    "cosine": {"training": {"schedule": "cosine"}},
    "batches of 256": {"training": {"batch_size": 256}},
    "width to 1024": {"search_space": {"width": Range(32, 1024, log=True)}},
    "depth to 6": {"search_space": {"depth": Range(1, 6)}},
}
"""One change of the space of today, or of the training, each."""
SPEC = """
study = "space"
seed = {seed}
budget = {{ trials = {trials} }}
[data]
path = {path}
target = {target}
[final]
baselines = false
"""


def toml(value: object) -> str:
    """A setting as TOML."""
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {toml(item)}" for key, item in value.items() if item is not None)
        return f"{{ {inner} }}"
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def spec_text(path: Path, target: str, variant: str, seed: int, trials: int) -> str:
    """The spec of one study."""
    change = VARIANTS[variant]
    space = {**table_space({}), **change.get("search_space", {})}
    sections = {"training": change.get("training", {}), "search_space": {k: plain(v) for k, v in space.items()}}  # type: ignore[arg-type]
    text = SPEC.format(seed=seed, trials=trials, path=json.dumps(str(path)), target=json.dumps(target))
    for name, keys in sections.items():
        text += f"[{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in keys.items())
    return text


def some_rows(path: Path, n: int | None, folder: Path) -> Path:
    """The table with n of its rows, drawn by chance; itself where n is None."""
    if n is None:
        return path.absolute()
    header, *lines = path.read_text().splitlines()
    random.Random(0).shuffle(lines)
    (folder / path.name).write_text("\n".join([header, *lines[:n]]) + "\n")
    return folder / path.name


def shown(name: str, text: str, folder: Path) -> dict[str, Any]:
    """Run the study of a spec, mirrored to nobody; what `studies show NAME --json` then says."""
    (folder / f"{name}.toml").write_text(text)
    environment = {**os.environ, "STUDIES_HOME": str(folder / "home"), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    environment.pop("STUDIES_DB", None)
    said = ""
    for words in (["run", f"{name}.toml", "--quiet"], ["show", name, "--json"]):
        command = [sys.executable, "-m", "studies", *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        said = done.stdout
    found: dict[str, Any] = json.loads(said)
    return found


def parser_of(description: str | None, trials: int, seeds: list[int]) -> argparse.ArgumentParser:
    """The arguments of benchmarks that search tables on several seeds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", metavar="FILE:TARGET")
    parser.add_argument("--rows", type=int, help="of each table; all of them otherwise")
    parser.add_argument("--trials", type=int, default=trials)
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds, help="of the studies")
    parser.add_argument("--record", action="store_true")
    return parser


def run_study(path: Path, target: str, variant: str, seed: int, arguments: argparse.Namespace) -> list[object]:
    """Metric, and the winner's mean on val over fresh seeds."""
    with tempfile.TemporaryDirectory() as name:
        own = some_rows(path, arguments.rows, Path(name))
        found = shown("space", spec_text(own, target, variant, seed, arguments.trials), Path(name))
        return [found["metric"], found["final"]["finalists"][0]["val"][found["metric"]]["mean"]]


def measured(path: Path, target: str, variant: str, seed: int, arguments: argparse.Namespace) -> list[object]:
    """The same, kept of an earlier time or found now."""
    rows: dict[str, list[object]] = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    key = json.dumps([path.stem, target, arguments.rows, arguments.trials, variant, seed])
    if key not in rows:
        rows[key] = run_study(path, target, variant, seed, arguments)
        KEPT.write_text(json.dumps(rows))
        print(key, rows[key], flush=True)
    return rows[key]


def main() -> None:
    parser = parser_of(__doc__, 48, [0])
    parser.add_argument("--variants", nargs="+", default=["base", "scalings"], choices=VARIANTS)
    arguments = parser.parse_args()
    print(provenance(), flush=True)
    lines = []
    for given in arguments.tables:
        path, _, target = given.rpartition(":")
        cells, metric = [], ""
        for variant in arguments.variants:
            found = [measured(Path(path), target, variant, seed, arguments) for seed in arguments.seeds]
            metric, values = str(found[0][0]), [float(str(value)) for _, value in found]
            cells.append(f"{statistics.fmean(values):.4f} ({', '.join(f'{value:.4f}' for value in values)})")
        lines.append([Path(path).stem, metric, *cells])
        print(" | ".join(lines[-1]), flush=True)
    words = (
        f"{arguments.trials} trials, {arguments.rows or 'all'} rows of each table, study seeds {arguments.seeds}: "
        "the winner's mean on val over 5 fresh seeds; their mean, and each."
    )
    text = f"{words}\n\n{table(['table', 'on val', *arguments.variants], lines)}"
    print(f"\n{text}")
    if arguments.record:
        record("The space for tables", text)


if __name__ == "__main__":
    main()
