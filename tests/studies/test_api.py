import os
import pickle
from pathlib import Path

import pandas as pd
import pytest
from sklearn.datasets import load_iris

from dlcore.exported import ExportedModel
from studies import api, frames
from studies.api import run_study
from studies.errors import UserError
from studies.records import EpochDone
from studies.storage import Storage
from tests.studies.conftest import Lines

SPEC = {"training": {"epochs": 6, "device": "cpu"}, "final": {"seeds": 0, "baselines": False}}


@pytest.fixture
def frame() -> pd.DataFrame:
    return load_iris(as_frame=True).frame


def test_a_study_of_a_frame_leaves_a_board_a_winner_and_an_export(frame: pd.DataFrame, tmp_path: Path) -> None:
    result = run_study(frame, "target", trials=4, spec=SPEC, display=Lines())
    assert len(result.leaderboard) == len(result.trials) == len(result.study.trials) == 4
    assert result.leaderboard["accuracy"].is_monotonic_decreasing
    assert result.best["number"] == result.winner.number and result.best["test"]["accuracy"] > 0.3
    model = ExportedModel.load(result.export(tmp_path / "model"))
    assert len(model.predict({name: frame[name].to_numpy() for name in frame.columns[:-1]})["label"]) == 150
    assert pickle.loads(pickle.dumps(result)).best == result.best


def test_an_interrupted_call_goes_on_where_it_was_and_a_finished_one_is_read_again(frame: pd.DataFrame) -> None:
    class Impatient(Lines):
        def epoch(self, event: EpochDone) -> None:
            raise KeyboardInterrupt

    asked = {"trials": 4, "spec": SPEC | {"seed": 5}}
    with pytest.raises(KeyboardInterrupt):
        run_study(frame, "target", **asked, display=Impatient())
    storage = Storage(api._own_home().database_url)
    [begun] = [name for name in storage.names() if storage.states(name) == {"WAITING": 4}]
    storage.close()
    result = run_study(frame, "target", **asked, display=Lines())
    assert result.name == begun and len(result.leaderboard) == 4
    again = run_study(frame, "target", **asked, display=(quiet := Lines()))
    assert not quiet.epochs and again.winner.number == result.winner.number
    other = run_study(frame, "target", trials=4, spec=SPEC | {"seed": 6}, display=Lines())
    assert other.name != result.name == again.name


def test_a_named_study_is_kept_and_a_file_is_read(frame: pd.DataFrame, tmp_path: Path) -> None:
    file = tmp_path / "iris.csv"
    frame.to_csv(file, index=False)
    result = run_study(file, "target", trials=3, spec=SPEC, study="iris", home=tmp_path / "home", display=Lines())
    storage = Storage(f"sqlite:///{tmp_path / 'home' / 'studies.db'}")
    assert result.home == tmp_path / "home" and len(storage.records("iris")) == 3
    storage.close()
    with pytest.raises(UserError, match="another spec"):
        run_study(frame, "target", trials=3, spec=SPEC, study="iris", home=tmp_path / "home", display=Lines())


def test_columns_may_be_called_by_numbers() -> None:
    stored = frames.storable(pd.DataFrame({0: ["a", None], 1: [1, 2], "y": pd.Categorical([3, 4])}))
    assert stored.columns.tolist() == ["0", "1", "y"] and stored["y"].tolist() == ["3", "4"]
    assert stored["0"].isna().tolist() == [False, True]


def test_a_home_that_nobody_named_is_the_process_s_own(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIES_HOME", "/nowhere")
    home = api._own_home()
    assert home.root.is_dir() and home.root.stat().st_uid == os.getuid() and not home.root.stat().st_mode & 0o077
