"""How good the winner is on tables of one's own, beside scikit-learn's defaults on the same rows.

Each table is given to `studies run` as a person would, with a budget of trials; the winner's networks on fresh seeds
are measured on test. scikit-learn's MLP and gradient boosting, with their defaults but for the seed, learn from the
same preprocessed train rows, each on as many seeds as is sensible.

    python -m benchmarks.quality houses.csv:price wine.csv:quality            # 100 trials, 15 seeds
    python -m benchmarks.quality houses.csv:price --split split --trials 100  # a column says train, val, test
    python -m benchmarks.quality houses.csv:price wine.csv:quality --record

A table that was measured is not measured again by the same command on the same commit, so that it can be stopped and
goes on; `--record` puts all rows that are kept into RESULTS.md, each with its own commit.

Accuracy for classes, RMSE for quantities. Seconds are of the whole command, start-up, finals and export included; of a
rival, of one training.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.record import provenance, record, table
from dlcore.config import DEFAULT_METRIC
from dlcore.data import DataSplits, load_splits, split_tensors
from studies import server
from studies.spec import StudySpec, parse_spec

SPEC = """
study = {name}
seed = {seed}
budget = {{ trials = {trials} }}
[data]
path = {path}
target = {target}
{split}
[final]
seeds = {seeds}
"""
RIVAL_SEEDS = 3
KEPT = Path(__file__).parent / ".quality.json"


@dataclass(frozen=True)
class Scores:
    """Values on test of one kind of model, one per seed, and what it took."""

    values: list[float]
    seconds: float

    def __str__(self) -> str:
        spread = f" +- {statistics.stdev(self.values):.4f}" if len(self.values) > 1 else ""
        return f"{statistics.fmean(self.values):.4f}{spread}"


def spec_text(path: Path, target: str, arguments: argparse.Namespace) -> str:
    """The spec of a table."""
    name = "".join(letter if letter.isalnum() else "_" for letter in path.stem)
    split = f"split = {{ column = {json.dumps(arguments.split)} }}" if arguments.split else ""
    return SPEC.format(
        name=json.dumps(name),
        seed=arguments.seed,
        trials=arguments.trials,
        path=json.dumps(str(path.absolute())),
        target=json.dumps(target),
        split=split,
        seeds=arguments.seeds,
    )


def our_scores(text: str, metric: str) -> Scores:
    """Run the study; returns the winner's values on test, one per fresh seed."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        (Path(folder) / "table.toml").write_text(text)
        environment = {**os.environ, "STUDIES_HOME": str(home)}
        for name in ("STUDIES_DB", "MLFLOW_TRACKING_URI"):
            environment.pop(name, None)

        command = [sys.executable, "-m", "studies", "run", "table.toml"]
        try:
            began = time.monotonic()
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            seconds = time.monotonic() - began
        finally:
            server.stop(home)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        (manifest,) = (home / "exports").glob("*/model.json")
        facts = json.loads(manifest.read_text())["facts"]
    return Scores([measured[metric] for measured in facts["final"]["test"]], seconds)


def rival_scores(splits: DataSplits, make: Callable[[int], Any]) -> Scores:
    """Train a model of scikit-learn on train alone, on a few seeds, and measure it on test."""
    x, y = _rows(splits, "train")
    asked, truth = _rows(splits, "test")
    values, seconds = [], []
    for seed in range(RIVAL_SEEDS):
        model = make(seed)
        began = time.monotonic()
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")  # that its default number of iterations was too small
            model.fit(x, y)
        seconds.append(time.monotonic() - began)
        answer = np.asarray(model.predict(asked))
        if splits.task == "regression":
            answer, wanted = (splits.preprocessor.unscale_target(v.reshape(-1, 1)) for v in (answer, truth))
            values.append(math.sqrt(float(np.mean((answer - wanted) ** 2))))
        else:
            values.append(float(np.mean(answer == truth)))
    return Scores(values, statistics.median(seconds))


def _rows(splits: DataSplits, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = split_tensors(splits, name, "cpu")
    return x.double().numpy(), y.double().numpy().squeeze()


def rivals(task: str) -> dict[str, Callable[[int], Any]]:
    """scikit-learn's models for a task, by name."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    mlp, boosting = (
        (MLPRegressor, HistGradientBoostingRegressor)
        if task == "regression"
        else (MLPClassifier, HistGradientBoostingClassifier)
    )
    return {
        "scikit-learn's MLP": lambda seed: mlp(random_state=seed),
        "gradient boosting": lambda seed: boosting(random_state=seed),
    }


def row(path: Path, target: str, arguments: argparse.Namespace) -> list[str]:
    """One table's line."""
    text = spec_text(path, target, arguments)
    spec: StudySpec = parse_spec(text, "table.toml", Path())
    splits = load_splits(spec.data_config(), spec.seed)
    metric = DEFAULT_METRIC[splits.task]
    theirs = {name: rival_scores(splits, make) for name, make in rivals(splits.task).items()}
    ours = our_scores(text, metric)
    sign = -1 if splits.task == "regression" else 1
    mlp, boosting = theirs.values()
    mean = statistics.fmean(ours.values)
    ahead = {name: sign * (mean - statistics.fmean(s.values)) for name, s in theirs.items()}
    return [
        path.stem,
        f"{len(splits.train.y):,}",
        metric,
        str(ours),
        str(mlp),
        str(boosting),
        *(f"{value:+.4f}" for value in ahead.values()),
        f"{ours.seconds:.0f}",
        f"{mlp.seconds:.1f}",
        f"{boosting.seconds:.1f}",
    ]


def kept() -> dict[str, list[str]]:
    """Rows that were measured, by what they are of."""
    found: dict[str, list[str]] = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    return found


def measured(path: Path, target: str, arguments: argparse.Namespace) -> list[str]:
    """One table's line, kept of an earlier time or measured now."""
    asked = [str(path), target, arguments.split, arguments.trials, arguments.seeds, arguments.seed]
    commit = provenance().split(", ")[1].removeprefix("commit ")
    key = json.dumps([*asked, commit])
    rows = kept()
    if key not in rows:
        rows = {k: line for k, line in rows.items() if json.loads(k)[: len(asked)] != asked}
        rows[key] = [*row(path, target, arguments), commit]
        KEPT.write_text(json.dumps(rows))
    return rows[key]


HEADER = [
    "table", "train rows", "test", "network", "scikit-learn's MLP", "gradient boosting", "ahead of the MLP",
    "ahead of boosting", "study, s", "MLP, s", "boosting, s", "commit",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", metavar="FILE:TARGET")
    parser.add_argument("--split", metavar="COLUMN", help="says train, val or test of each row")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=15, help="on which the winner is measured")
    parser.add_argument("--seed", type=int, default=0, help="of the study")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--remark", default="", help="recorded below the table, such as what else the machine did")
    arguments = parser.parse_args()
    print(provenance(), flush=True)
    lines = []
    for given in arguments.tables:
        path, _, target = given.rpartition(":")
        lines.append(measured(Path(path), target, arguments))
        print(" | ".join(lines[-1]), flush=True)
    words = (
        f"{arguments.trials} trials with the defaults for a table of one's own; the winner on {arguments.seeds} fresh "
        f"seeds, the rivals on {RIVAL_SEEDS}, mean and deviation on test. Ahead is better, whatever the metric."
    )
    print(f"\n{words}\n\n{table(HEADER, lines)}")
    if arguments.record:
        record("Quality on tables", f"{words}\n\n{table(HEADER, lines)}\n\n{arguments.remark}")


if __name__ == "__main__":
    main()
