"""A whole study as scikit-learn's estimators are used: `fit` searches, and what won answers.

`dlcore.estimators` trains one network whose architecture you name. Equal data, parameters, random_state, versions,
processor and n_jobs give the same trials, the same winner and the same network, to the bit, unless time limits it.
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlcore.data import split_table
from dlcore.device import using_threads
from dlcore.tables import read_frame
from dlcore.tabular import Carried, Given, TableClassifier, TableEstimator, TableRegressor, n_threads, seed_of
from studies import frames
from studies.display import Display, QuietDisplay
from studies.home import Home
from studies.memory import MemoryStorage
from studies.notebook import open_python_display
from studies.runner import Outcome, Run, Ways
from studies.sampler import recorded_study
from studies.sections import FRAME
from studies.spec import StudySpec, spec_from_dict
from studies.transfer import kinds_of, open_source, resolved


class _Study(TableEstimator):
    """A hyperparameter study of feed-forward networks on a table.

    A share of the rows is val: what the search sees. The network that won answers; it is trained on the other rows
    (with `spec={"data": {"split": {"folds": 5}}}` on all). No test is kept back: who measures, as `cross_val_score`
    does, has rows of their own. There is no `sample_weight`: every row counts the same.

    Args:
        n_trials: Networks that are tried, in all.
        epochs: Passes over the rows at most, of each.
        timeout: Seconds after which nothing more is trained; None is no limit. What it gives depends on the machine.
        metric: accuracy, roc_auc, log_loss, rmse, ... or loss; None is accuracy, or rmse of numbers.
        search_space: Hyperparameter -> {"low": .., "high": ..}, a list, or a value; None is the default space.
        spec: Any other keys of a spec, table by table: {"search": {"sampler": "random"}, "data": {"kinds": {..}}}.
        final_seeds: Fresh seeds on which the best four trials are trained again before one wins; 0: the best one wins
            by what was recorded of it.
        validation_fraction: Share of the rows that is val.
        device: auto, cpu, cuda or mps.
        n_jobs: Cores of the CPU; None is one, -1 all.
        random_state: A number, from which all chance follows; None draws one.
        study: Name under which the study is kept in STUDIES_HOME: interrupted, the same fit goes on with it, and the
            command line knows it. None keeps nothing.
        home: Another folder for that.
        verbose: 1 shows the search.

    Attributes:
        best_params_: Hyperparameters of the network that won, those that were searched.
        best_score_: Its metric on val.
        best_number_: Of its trial.
        n_parameters_: Its weights and biases.
        study_: All trials, as an Optuna study in memory.
    """

    def __init__(  # noqa: PLR0913 - scikit-learn's way: each hyperparameter is an argument
        self,
        *,
        n_trials: int = 64,
        epochs: int = 40,
        timeout: float | None = None,
        metric: str | None = None,
        search_space: Mapping[str, Any] | None = None,
        spec: Mapping[str, Any] | None = None,
        final_seeds: int = 5,
        validation_fraction: float = 0.2,
        device: str = "cpu",
        n_jobs: int | None = None,
        random_state: Any = 0,
        study: str | None = None,
        home: str | Path | None = None,
        verbose: int = 0,
    ) -> None:
        """Keep the parameters; they are checked by `fit`."""
        self.n_trials = n_trials
        self.epochs = epochs
        self.timeout = timeout
        self.metric = metric
        self.search_space = search_space
        self.spec = spec
        self.final_seeds = final_seeds
        self.validation_fraction = validation_fraction
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.study = study
        self.home = home
        self.verbose = verbose

    def _learn(self, given: Given) -> None:
        display = open_python_display() if self.verbose else QuietDisplay(sys.stderr)
        with using_threads(n_threads(self.n_jobs, os.cpu_count() or 1)):
            run, outcome = self._temporary(given, display) if self.study is None else self._kept(given, display)
        winner = outcome.export.winner
        trials = run.storage.records(run.spec.study)
        searched = next(t for t in trials if t.number == winner.number).searched
        self.best_params_ = {name: winner.hyperparameters[name] for name in searched}
        self.best_score_, self.best_number_ = winner.values[0], winner.number
        self.n_parameters_ = winner.n_parameters
        self.study_ = recorded_study(run.spec, run.facts.objectives, trials)

    def _temporary(self, given: Given, display: Display) -> tuple[Run, Outcome]:
        """Nothing is left of it but this object."""
        spec = self._spec(given, "study", {"source": FRAME})
        source = open_source(spec)
        config = resolved(spec, source).data_config()
        splits = split_table(read_frame(given.frame, config, kinds_of(source)), config, spec.seed)
        with tempfile.TemporaryDirectory(prefix="studies-") as root:
            ways = Ways(splits, is_mirrored=False, is_kept=False)
            run = Run(spec, Home(Path(root), "", None), MemoryStorage(), display, ways=ways)
            outcome = run.execute(run.deadline(None))
            self.model_ = Carried.of_folder(Path(outcome.export.winner.export_dir))
        return run, outcome

    def _kept(self, given: Given, display: Display) -> tuple[Run, Outcome]:
        """The study of that name, begun or gone on with."""
        assert self.study is not None
        home = frames.home_at(self.home)
        spec = self._spec(given, self.study, {"path": str(frames.place(home, self.study))})
        run = frames.begin(spec, given.frame, home, display)
        outcome = run.execute(run.deadline(None))
        self.model_ = Carried.of_folder(Path(outcome.export.winner.export_dir))
        return run, outcome

    def _spec(self, given: Given, name: str, source: Mapping[str, object]) -> StudySpec:
        raw: dict[str, Any] = {
            "study": name,
            "seed": seed_of(self.random_state),
            "budget": {"trials": self.n_trials},
            "data": {
                **source,
                "target": list(given.targets),
                "task": given.task,
                "kinds": dict(given.kinds),
                "val_fraction": self.validation_fraction,
                "test_fraction": 0.0,
            },
            "training": {"epochs": self.epochs, "device": self.device},
            "final": {"seeds": self.final_seeds, "baselines": False},
        }
        if self.timeout is not None:
            raw["budget"]["seconds"] = float(self.timeout)
        if self.metric is not None:
            raw["objective"] = self.metric
        if self.search_space is not None:
            raw["search_space"] = self.search_space
        return spec_from_dict(plain(merged(raw, self.spec or {})), type(self).__name__)


class StudyClassifier(TableClassifier, _Study):  # noqa: D101 - below
    __doc__ = _Study.__doc__


class StudyRegressor(TableRegressor, _Study):  # noqa: D101 - below
    __doc__ = _Study.__doc__


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two specs as one: a table of the second adds to that of the first, key by key; anything else replaces it."""
    found = dict(base)
    for key, value in over.items():
        is_table = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = {**found[key], **value} if is_table else value
    return found


def plain(value: Any) -> Any:
    """A spec as TOML would give it: NumPy's numbers as Python's, tuples as lists."""
    if isinstance(value, Mapping):
        return {key: plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [plain(own) for own in value]
    return value.item() if isinstance(value, np.generic) else value
