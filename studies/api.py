"""A study from Python, in a program or a notebook: the same steps as `studies run`, and what came out as an object.

from studies.api import run_study
result = run_study("houses.csv", target="price", trials=64)
result.leaderboard
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from optuna import Study

from dlcore.files import read_sealed, write_sealed
from studies import frames
from studies.display import Display
from studies.estimators import merged, plain
from studies.exports import FILES
from studies.finals import json_of_test
from studies.home import Home
from studies.notebook import open_python_display
from studies.ranking import ranking
from studies.records import TrialRecord, Winner
from studies.runner import Outcome, Run, Ways
from studies.sampler import recorded_study
from studies.spec import spec_from_dict
from studies.storage import Storage


@dataclass(frozen=True, slots=True)
class Result:
    """What a study found."""

    name: str
    """Of the study in its home."""
    home: Path
    """Where it is kept; a home that nobody named ends with this process."""
    winner: Winner
    trials: tuple[TrialRecord, ...]
    study: Study
    """All trials, as an Optuna study in memory."""
    leaderboard: pd.DataFrame
    """The trials that have a value, the best first: number, state, value, n_parameters, and a column for each
    hyperparameter that was searched."""

    @property
    def best(self) -> dict[str, Any]:
        """The winner: number, hyperparameters, and how good it is on val and on test."""
        winner = self.winner
        return {
            "number": winner.number,
            "hyperparameters": dict(winner.hyperparameters),
            "n_parameters": winner.n_parameters,
            "val": dict(winner.val_metrics),
            "test": json_of_test(winner),
        }

    def export(self, folder: str | Path) -> Path:
        """Copy the winner's export to a folder, whole or not at all; an earlier export there is replaced."""
        source, target = Path(self.winner.export_dir), Path(folder).resolve()
        read_sealed(source, FILES)
        write_sealed(target, {path.name: path.read_bytes() for path in source.iterdir() if path.name != "SHA256SUMS"})
        return target


def run_study(  # noqa: PLR0913 - a person's call, each argument by its name
    data: pd.DataFrame | str | Path,
    target: str | list[str],
    *,
    trials: int = 64,
    timeout: float | None = None,
    spec: Mapping[str, Any] | None = None,
    study: str | None = None,
    home: str | Path | None = None,
    is_mirrored: bool = False,
    display: Display | None = None,
) -> Result:
    """Search for the best network for a table.

    Ctrl-C, or a kernel that is interrupted, leaves a study that the same call goes on with; with equal data and
    arguments a finished one is only read again.

    Args:
        data: A DataFrame, or the path of a CSV or Parquet file.
        target: Its column to predict, or several.
        trials: Networks that are tried, in all.
        timeout: Seconds after which this call searches no more; finals and export follow.
        spec: Any other keys of a spec, table by table: {"training": {"epochs": 20}, "objective": "roc_auc"}.
        study: Name under which it is kept in the home: STUDIES_HOME, or mlruns/. None keeps it as long as this process,
            in a home of its own.
        home: Another folder for that.
        is_mirrored: Whether MLflow shows it, at a server that is started if need be; `studies track` does so later.
        display: What is told what happens; None is a block under the cell in a notebook, else as in a terminal.

    Raises:
        UserError: A mistake in the arguments; a study of that name has other data or another spec.
        DlcoreError: Nothing can be learned from the data.
    """
    shown = open_python_display() if display is None else display
    place = frames.home_at(home) if study is not None or home is not None else _own_home()
    names = [target] if isinstance(target, str) else list(target)
    raw = {"study": "study", "budget": {"trials": trials}, "data": {"target": names}}
    asked = plain(merged(raw, spec or {}))
    name = study or f"study-{_digest(data, asked)}"
    path = frames.place(place, name) if isinstance(data, pd.DataFrame) else Path(data).absolute()
    checked = spec_from_dict(merged(asked, {"study": name, "data": {"path": str(path)}}), name)
    if isinstance(data, pd.DataFrame):
        run = frames.begin(checked, data, place, shown, is_mirrored=is_mirrored)
    else:
        run = Run(checked, place, Storage(place.database_url), shown, ways=Ways(is_mirrored=is_mirrored))
    shown.note(run.plan())
    return _result(run, run.execute(run.deadline(timeout)))


def _result(run: Run, outcome: Outcome) -> Result:
    objectives = run.facts.objectives
    ranked = ranking(outcome.trials, objectives)
    rows = [
        {"number": t.number, "state": t.state, objectives[0].metric: t.value, "n_parameters": t.n_parameters}
        | {name: t.hyperparameters[name] for name in run.spec.searched if name in t.searched}
        for t in ranked
    ]
    study = recorded_study(run.spec, objectives, outcome.trials)
    return Result(run.spec.study, run.home.root, outcome.export.winner, outcome.trials, study, pd.DataFrame(rows))


def _digest(data: pd.DataFrame | str | Path, asked: Mapping[str, Any]) -> str:
    """Names a study that nobody named: equal data and arguments, but for the budget, find it again."""
    digest = sha256(repr({key: value for key, value in asked.items() if key != "budget"}).encode())
    if isinstance(data, pd.DataFrame):
        texts = frames.storable(data)
        digest.update(repr([(str(name), str(kind)) for name, kind in texts.dtypes.items()]).encode())
        digest.update(pd.util.hash_pandas_object(texts, index=False).to_numpy().tobytes())
    else:
        digest.update(str(Path(data).absolute()).encode())
    return digest.hexdigest()[:12]


@cache
def _own_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="studies-")


def _own_home() -> Home:
    """A home that ends with this process: two kernels never drive the same studies."""
    root = Path(_own_folder().name)
    return Home(root, f"sqlite:///{root / 'studies.db'}", None)
