"""A whole study that searches how numbers are scaled, with folds and without."""

from pathlib import Path

import pytest

from dlcore.export import load_network
from studies.home import Home
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
    _, preprocessor, _ = load_network(Path(winner.export_dir))
    assert preprocessor == searched.trainer.splits_of(winner.hyperparameters).preprocessor
    assert winner.final is not None and len(winner.final.test) == 2
    assert winner.final.finalists[0].val[0]["accuracy"] > 0.5
    if not searched.trainer.has_folds:
        assert winner.final.ensemble is not None and winner.final.ensemble.val["accuracy"] > 0.5
