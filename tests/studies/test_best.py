import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from studies import best, contest
from studies.errors import StudyFailed, UserError
from studies.home import Home
from studies.records import FAIL, Final, TrialRecord
from studies.runner import Run
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import NOBODY, SMALL_SPEC, Lines

pytestmark = pytest.mark.slow  # a whole study runs before them


@pytest.fixture
def run(finished_home: Home, display: Lines) -> Run:
    return Run(spec_from_dict(SMALL_SPEC), finished_home, Storage(finished_home.database_url), display)


def nobody(trials: Sequence[TrialRecord]) -> Final:
    raise AssertionError("the finals are stored, and must not be held again")


def winner_of(run: Run) -> TrialRecord:
    return best.choose(run.storage, run.facts, None, nobody).trial


def test_the_manifest_says_where_the_network_comes_from(run: Run, tmp_path: Path) -> None:
    made = run.export(None, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "model.json").read_text())["facts"]
    assert facts["study"] == "wine" and facts["trial"] == made.winner.number
    assert facts["spec"]["seed"] == 1 and facts["environment"]["torch"]
    assert facts["test_metrics"] == made.winner.test_metrics
    assert made.is_winner and made.warning is None


def test_exporting_twice_gives_the_same_bytes_of_weights(run: Run, tmp_path: Path) -> None:
    first, second = (run.export(None, tmp_path / name) for name in ("a", "b"))
    assert first.winner.onnx_sha256 == second.winner.onnx_sha256
    assert (tmp_path / "a" / "weights.safetensors").read_bytes() == (
        tmp_path / "b" / "weights.safetensors"
    ).read_bytes()


def test_the_finals_are_told_in_the_manifest_and_held_again_only_where_something_changed(
    run: Run, tmp_path: Path
) -> None:
    stored = run.storage.winner("wine")
    assert stored is not None and stored[0].final is not None
    final = stored[0].final
    assert final.asked == {"candidates": 4, "seeds": 5, "baselines": True, "ensemble": False}
    assert stored[0].number == final.finalists[0].number and len(final.test) == 5
    assert best.standing(run.storage, run.facts, 6) == stored[0]
    made = run.export(None, tmp_path / "out")  # by what is stored
    assert made.winner.final == final
    facts = json.loads((tmp_path / "out" / "model.json").read_text())["facts"]
    assert facts["final"]["finalists"][0]["number"] == stored[0].number
    with run.storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE dlcore_winners SET test_metrics_json = '{}'")
    assert best.standing(run.storage, run.facts, 6) is None  # what is falsified is not believed
    run.storage.store_winner("wine", stored[0], stored[1] - 1)
    assert best.standing(run.storage, run.facts, 6) is None  # a trial was finished since
    assert run.export(None, None).winner.final == final  # held again: the same rows


def test_a_winner_is_stored_among_the_trials_that_its_finals_saw(
    finished_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished_home.root, tmp_path / "home")
    home = Home(tmp_path / "home", f"sqlite:///{tmp_path / 'home' / 'studies.db'}", NOBODY)
    storage = Storage(home.database_url)
    run = Run(spec_from_dict(SMALL_SPEC), home, storage, Lines())
    stored, seen = storage.winner("wine"), []
    assert stored is not None
    storage.store_winner("wine", stored[0], 5)
    held, written = contest.hold, best.export

    def hold(trials: Sequence[TrialRecord], *others: Any) -> Final:
        final = held(trials, *others)
        monkeypatch.setattr(contest, "hold", held)
        raised = spec_from_dict(SMALL_SPEC | {"budget": {"trials": 9}})
        Run(raised, home, Storage(home.database_url), Lines()).execute(None)  # another driver, meanwhile
        monkeypatch.setattr(best, "export", export)
        return final

    def export(trial: TrialRecord, trials: Sequence[TrialRecord], *others: Any) -> best.Export:
        seen.append(len(trials))
        return written(trial, trials, *others)

    monkeypatch.setattr(contest, "hold", hold)
    run.export(None, None)
    assert len(storage.records("wine")) == 9
    found = storage.winner("wine")
    assert found is not None and found[1] == 6 and seen == [6]
    assert best.standing(storage, run.facts, 9) is None  # the next one holds finals of all


def test_another_trial_than_the_best_is_not_measured_on_test(run: Run, tmp_path: Path) -> None:
    other = next(t for t in run.storage.records("wine") if t.number != winner_of(run).number)
    made = run.export(other.number, tmp_path / "other")
    assert not made.is_winner and made.winner.test_metrics == {} and made.winner.number == other.number
    stored = run.storage.winner("wine")
    assert stored is not None and stored[0].number == winner_of(run).number


def test_a_trial_that_is_not_there_or_has_no_network_is_refused(run: Run) -> None:
    with pytest.raises(UserError, match="trials 0 to 5; there is no trial 9"):
        run.export(9, None)


def test_a_study_without_a_value_fails_and_says_why(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = TrialRecord(0, FAIL, {}, (), 0, 1, reason="diverged in epoch 1: the loss became nan")
    monkeypatch.setattr(run.storage, "records", lambda *args, **options: [failed])
    with pytest.raises(StudyFailed, match="the loss became nan"):
        best.choose(run.storage, run.facts, None, nobody)
    with pytest.raises(UserError, match="no network to export: diverged"):
        best.choose(run.storage, run.facts, 0, nobody)


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_curve_that_does_not_come_out_again_stops_the_export_or_is_explained(
    run: Run, tmp_path: Path, is_elsewhere: bool
) -> None:
    from dataclasses import replace

    trial = winner_of(run)
    last = trial.curve[-1]
    forged = replace(trial, curve=(*trial.curve[:-1], replace(last, train_loss=last.train_loss * 1.001)))
    facts = replace(run.facts, environment={**run.facts.environment, "torch": "1.0"}) if is_elsewhere else run.facts
    trials = run.storage.records("wine")
    target = best.Target(tmp_path / "out", Final({}, (), ()))
    if is_elsewhere:
        made = best.export(forged, trials, facts, run.trainer, target)
        assert made.warning is not None and "torch 1.0 ->" in made.warning
    else:
        with pytest.raises(StudyFailed, match="does not"):
            best.export(forged, trials, facts, run.trainer, target)
        assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_never_replaced(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        run.export(None, tmp_path)
    with pytest.raises(UserError, match="something else"):
        run.export(None, tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    run.export(None, tmp_path / "export")
    (tmp_path / "export" / "answers.csv").write_text("mine")
    trained = run.trainer.retrain_network
    monkeypatch.setattr(run.trainer, "retrain_network", lambda *_: pytest.fail("it was trained before"))
    with pytest.raises(UserError, match=r"holds other files: answers\.csv"):
        run.export(None, tmp_path / "export")
    monkeypatch.setattr(run.trainer, "retrain_network", trained)
