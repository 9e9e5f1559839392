"""What an ensemble of the finals' networks brings on test, beside one network: all of them, and greedily chosen ones.

One study per table and kind of ensemble, with the same spec, seed and budget, so that trials, finalists and their
networks are the same. One network is the winner's mean over its fresh seeds.

    python -m benchmarks.ensembles wine_quality.csv:quality water_potability.csv:Potability --rows 2000
    python -m benchmarks.ensembles wine_quality.csv:quality --seeds 0 1 2 --record
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import provenance, record, table
from benchmarks.table_space import parser_of, shown, some_rows

KINDS = {"all": "true", "greedy": '"greedy"'}
SPEC = """
study = "together"
seed = {seed}
budget = {{ trials = {trials} }}
[data]
path = {path}
target = {target}
[final]
ensemble = {kind}
baselines = false
"""
HEADER = ["table", "on test", "one network", "all", "greedy", "all better", "greedy better", "networks of greedy"]


def run_study(path: Path, target: str, kind: str, seed: int, trials: int) -> dict[str, Any]:
    """What `studies show --json` says of one study."""
    values = {"path": json.dumps(str(path)), "target": json.dumps(target), "kind": KINDS[kind]}
    with tempfile.TemporaryDirectory() as name:
        return shown("together", SPEC.format(seed=seed, trials=trials, **values), Path(name))


def read(found: dict[str, Any]) -> tuple[str, float, float, str]:
    """Metric, one network and the ensemble on test, and what the ensemble is."""
    metric = found["metric"]
    rival = next(r for r in found["final"]["rivals"] if r["name"] == "ensemble")
    return metric, found["best"]["test"][metric]["mean"], rival["test"][metric], rival["remark"]


def line_of(path: Path, target: str, seeds: list[int], trials: int) -> list[str]:
    """One table's row: means over the seeds of the studies, and how often the ensemble is better."""
    metric, one, sizes = "", [], []
    together: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for seed in seeds:
        for kind, values in together.items():
            metric, alone, ensemble, remark = read(run_study(path, target, kind, seed, trials))
            values.append(ensemble)
        one.append(alone)
        sizes.append("1" if remark.startswith("one network") else remark.removeprefix("the mean of ").partition(" ")[0])
    sign = -1.0 if metric in ("rmse", "mae", "loss", "log_loss") else 1.0
    better = {k: sum(sign * e > sign * o for e, o in zip(v, one, strict=True)) for k, v in together.items()}
    return [
        path.stem,
        metric,
        *(f"{statistics.fmean(values):.4f}" for values in (one, *together.values())),
        *(f"{better[kind]} of {len(seeds)}" for kind in KINDS),
        ", ".join(sizes),
    ]


def main() -> None:
    arguments = parser_of(__doc__, 32, [0, 1, 2]).parse_args()
    print(provenance(), flush=True)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for given in arguments.tables:
            path, _, target = given.rpartition(":")
            own = some_rows(Path(path), arguments.rows, Path(folder))
            lines.append(line_of(own, target, arguments.seeds, arguments.trials))
            print(" | ".join(lines[-1]), flush=True)
    words = (
        f"{arguments.trials} trials, {arguments.rows or 'all'} rows of each table, study seeds {arguments.seeds}, 4 "
        "finalists on 5 fresh seeds. One network: the winner's mean over its seeds. All, greedy: the finals' networks "
        "together, and those chosen one by one on val; how often each is better on test than one network."
    )
    text = f"{words}\n\n{table(HEADER, lines)}"
    print(f"\n{text}")
    if arguments.record:
        record("Ensembles", text)


if __name__ == "__main__":
    main()
