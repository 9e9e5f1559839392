"""A whole study that searches how numbers are scaled, with folds and without."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dlcore.export import load_network
from dlcore.exported import ExportedModel
from studies import finals
from studies.home import Home
from studies.records import Objective
from studies.replay import replay_cohort, replay_trial
from studies.runner import Run
from studies.space import preprocess
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import NOBODY, SMALL_SPEC, Lines

pytestmark = pytest.mark.slow  # a whole study runs


@pytest.fixture(scope="module", params=[0, 3], ids=["one split", "three folds"])
def searched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("searched")
    home = Home(root, f"sqlite:///{root / 'studies.db'}", NOBODY)
    changes = {
        "search_space": {
            "preprocess": ["standard", "robust", "quantile_normal"],
            "width": [8, 16],
            "learning_rate": {"low": 0.01, "high": 0.1, "log": True},
        },
        "data": {"source": "sklearn:wine", "split": {"folds": request.param} if request.param else {}},
        "final": {"candidates": 3, "seeds": 2, "ensemble": True, "baselines": False},
    }
    run = Run(spec_from_dict({**SMALL_SPEC, **changes}), home, Storage(home.database_url), Lines())
    run.execute(None)
    return run


def test_trials_of_every_scaling_come_out_again_alone_and_with_their_cohort(searched: Run) -> None:
    trials = searched.storage.records("wine", has_curves=True)
    assert len({preprocess(trial.hyperparameters) for trial in trials}) > 1
    assert all("preprocess" in trial.searched for trial in trials)
    assert replay_cohort(trials[0], trials, searched.facts, searched.trainer).is_equal
    for trial in trials:
        assert replay_trial(trial, searched.trainer).is_equal


def test_the_winner_is_exported_with_its_own_scaling(searched: Run) -> None:
    stored = searched.storage.winner("wine")
    assert stored is not None
    winner = stored[0]
    assert winner.final is not None and len(winner.final.test) == 2
    if not winner.final.is_ensemble:
        _, preprocessor, _ = load_network(Path(winner.export_dir))
        assert preprocessor == searched.trainer.splits_of(winner.hyperparameters).preprocessor
    assert winner.final.finalists[0].val[0]["accuracy"] > 0.5
    if not searched.trainer.has_folds:
        assert winner.final.ensemble is not None and winner.final.ensemble.val["accuracy"] > 0.5
    assert not (searched.trainer.has_folds and winner.final.is_ensemble)


def test_the_ensemble_is_exported_where_val_says_so_and_its_test_is_what_the_finals_read(
    searched: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if searched.trainer.has_folds:
        pytest.skip("with folds there is no ensemble")
    accuracy = Objective("accuracy", "maximize")
    stored = searched.storage.winner("wine")
    assert stored is not None and stored[0].final is not None and stored[0].final.ensemble is not None
    final = stored[0].final
    assert final.is_ensemble == finals.ensemble_wins(final, accuracy)
    # Whichever won: the other way round is exported too, by finals that say so.
    said = replace(stored[0], final=replace(final, is_ensemble=True))
    searched.storage.store_winner("wine", said, stored[1])
    try:
        searched.trainer._last_fresh = None  # as in another process: they are trained again
        made = searched.export(None, tmp_path / "together")
        assert made.warning is None and made.winner.final is not None and made.winner.final.is_ensemble
        assert made.winner.test_metrics == final.ensemble.test and made.winner.val_metrics == final.ensemble.val
        network, preprocessors, manifest = load_network(tmp_path / "together")
        assert len(manifest["members"]) == 6 and manifest["facts"]["final"]["is_ensemble"]  # type: ignore[index,arg-type,call-overload]
        split = searched.splits.test
        with torch.no_grad():
            outputs = network(torch.from_numpy(preprocessors.transform(split.x)).float())
        found = (outputs.argmax(1).numpy() == split.y).mean()
        assert found == pytest.approx(final.ensemble.test["accuracy"], abs=1e-6)
        answers = ExportedModel.load(tmp_path / "together").predict({c.name: c.raw() for c in split.x.columns})
        labels = np.array(searched.splits.class_labels)[outputs.argmax(1).numpy()]
        assert answers["label"].tolist() == labels.tolist()
        card = (tmp_path / "together" / "README.md").read_text()
        for part in ("the mean of the probabilities of 6 networks", "## Rivals", "The ensemble is exported: on val"):
            assert part in card, part
        monkeypatch.setattr(searched.trainer, "train_fresh", lambda *_: pytest.fail("a trial alone needs no ensemble"))
        alone = searched.export(made.winner.number, tmp_path / "alone")
        assert not alone.is_winner and alone.winner.test_metrics == {}
        assert "members" not in load_network(tmp_path / "alone")[2]
    finally:
        searched.storage.store_winner("wine", stored[0], stored[1])
