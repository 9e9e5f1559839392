"""studies.networks with folds; without them `test_cohort`, `test_contest` and `test_replay` hold them to account."""

import json
from pathlib import Path

import pytest

from dlcore.config import DataConfig, SplitConfig
from dlcore.data import load_splits
from studies import runner
from studies.errors import UserError
from studies.home import Home
from studies.replay import replay_cohort, replay_trial
from studies.runner import Run
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import NOBODY, SMALL_SPEC, Lines

pytestmark = pytest.mark.slow  # a whole study runs

FOLDS = DataConfig("sklearn:wine", split=SplitConfig(folds=3))


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("folded")
    home = Home(root, f"sqlite:///{root / 'studies.db'}", NOBODY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "load_splits", lambda config, seed, known=None: load_splits(FOLDS, seed))
        run = Run(spec_from_dict(SMALL_SPEC), home, Storage(home.database_url), Lines())
        run.execute(None)
    return run


def test_a_study_with_folds_is_told_the_mean_of_its_folds(folded: Run) -> None:
    trials = folded.storage.records("wine", has_curves=True)
    complete = [t for t in trials if t.state == "COMPLETE"]
    assert complete and {t.state for t in trials} <= {"COMPLETE", "PRUNED"}
    for trial in complete:
        assert trial.best is not None and trial.value == trial.best.val_metric
    assert any(t.state == "PRUNED" and len(t.curve) == 2 for t in trials)  # rungs compare means


def test_each_trial_comes_out_again_alone_and_with_its_cohort(folded: Run) -> None:
    trials = folded.storage.records("wine", has_curves=True)
    assert replay_cohort(trials[0], trials, folded.facts, folded.trainer).is_equal
    for trial in trials:
        assert replay_trial(trial, folded.trainer).is_equal


def test_its_winner_has_learned_from_all_rows_but_test(folded: Run) -> None:
    stored = folded.storage.winner("wine")
    assert stored is not None
    winner = stored[0]
    trial = folded.storage.records("wine", [winner.number], has_curves=True)[0]
    assert trial.best is not None
    assert winner.val_metrics == {"loss": trial.best.val_loss, "accuracy": trial.best.val_metric}
    assert {"accuracy", "f1", "roc_auc"} < set(winner.test_metrics)
    assert winner.final is not None and len(winner.final.test) == 5
    assert set(winner.final.finalists[0].val[0]) == {"loss", "accuracy"}
    facts = json.loads((Path(winner.export_dir) / "model.json").read_text())["facts"]
    assert facts["best_epoch"] == trial.best_epoch


def test_an_objective_that_no_fold_keeps_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "load_splits", lambda config, seed, known=None: load_splits(FOLDS, seed))
    home = Home(tmp_path, f"sqlite:///{tmp_path / 'studies.db'}", NOBODY)
    spec = spec_from_dict({**SMALL_SPEC, "objective": ["accuracy", "f1"]})
    with pytest.raises(UserError, match="with folds an objective must be one of loss, accuracy, n_parameters; got f1"):
        Run(spec, home, Storage(home.database_url), Lines())
