import contextlib
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from dlcore.errors import DeviceError
from studies import runner
from studies.errors import SpecChanged, StudyBusy, UserError
from studies.home import Home, drive
from studies.records import EpochDone, TrialRecord
from studies.runner import Run
from studies.sampler import ask_cohort
from studies.space import distributions, widths
from studies.spec import spec_from_dict
from studies.storage import Storage
from studies.watcher import MirroringWatcher
from tests.studies.conftest import NOBODY, SMALL_SPEC, Lines

pytestmark = pytest.mark.slow  # whole studies, small as they are


def home_at(root: Path) -> Home:
    root.mkdir(exist_ok=True)
    return Home(root, f"sqlite:///{root / 'studies.db'}", NOBODY)


def start(home: Home, display: Lines, **changes: object) -> Run:
    return Run(spec_from_dict(SMALL_SPEC | changes), home, Storage(home.database_url), display)


def bits(home: Home) -> list[object]:
    """All of a study's trials that must not depend on when it was stopped."""
    trials = Storage(home.database_url).records("wine", has_curves=True)
    return [
        (
            t.number,
            t.state,
            t.cohort,
            t.hyperparameters,
            t.values,
            t.rungs,
            [replace(e, finished_at=0) for e in t.curve],
        )
        for t in trials
    ]


def test_a_study_ends_with_its_budget_spent_and_its_winner_on_disk(finished_home: Home) -> None:
    storage = Storage(finished_home.database_url)
    trials = storage.records("wine", has_curves=True)
    assert [t.number for t in trials] == list(range(6))
    found = storage.winner("wine")
    assert found is not None
    winner, n_finished = found
    assert n_finished == 6
    assert winner.export_dir == str(finished_home.exports / "wine")
    assert {p.name for p in (finished_home.exports / "wine").iterdir()} == {
        "model.onnx", "weights.safetensors", "model.json", "README.md", "predict.py", "SHA256SUMS",
    }  # fmt: skip
    best = next(t for t in trials if t.number == winner.number)
    assert winner.val_metrics["accuracy"] == best.value
    assert storage.spent_s("wine") > 0


def test_a_call_that_failed_is_made_again_though_what_it_held_is_kept(
    tmp_path: Path, display: Lines, finished_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_at(tmp_path / "home")
    failed = start(home, display)  # a notebook keeps it in the traceback of the last error

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(failed.trainer, "train", fail)
        with pytest.raises(MemoryError):
            failed.execute(None)
    again = start(home, display)
    assert again.storage.states("wine") == {"WAITING": 3} and again.storage.others("wine") == (0, 0)
    again.execute(None)
    assert bits(home) == bits(finished_home)


def test_a_server_that_does_not_answer_costs_one_warning(tmp_path: Path, display: Lines) -> None:
    outcome = start(home_at(tmp_path / "home"), display).execute(None)
    assert outcome.page is None and outcome.n_new == 6
    warnings = [line for line in display.said if line.startswith("warning")]
    assert len(warnings) == 1 and "6 trials" in warnings[0] and "studies track wine" in warnings[0]


@pytest.mark.parametrize("at", [(0, 1), (0, 3), (1, 2)])
def test_a_study_interrupted_in_an_epoch_ends_as_one_that_never_was(
    at: tuple[int, int], tmp_path: Path, display: Lines, finished_home: Home
) -> None:
    home = home_at(tmp_path / "home")

    def interrupt(event: EpochDone) -> None:
        if (event.number // 3, event.epoch.epoch) == at:
            os.kill(os.getpid(), signal.SIGINT)

    display.on_epoch = interrupt
    with pytest.raises(KeyboardInterrupt):
        start(home, display).execute(None)
    states = Storage(home.database_url).states("wine")
    assert "RUNNING" not in states and states["WAITING"] == 3
    again = Lines()
    assert start(home, again).execute(None).n_new == 6 - 3 * at[0]
    assert bits(home) == bits(finished_home)


def test_what_a_killed_driver_left_running_is_trained_again_and_said(
    tmp_path: Path, display: Lines, finished_home: Home
) -> None:
    home = home_at(tmp_path / "home")
    run = start(home, display)
    run.storage.create_study(run.facts)
    from studies.search import Search

    Search(run.storage, run.spec, run.facts, run.trainer.count_parameters).next_cohort()
    assert run.storage.states("wine") == {"RUNNING": 3}
    run.storage.close()
    start(home, display).execute(None)
    assert any(line.startswith("trials 0, 1, 2 were cut off") for line in display.said)
    assert bits(home) == bits(finished_home)


def test_a_study_whose_seconds_are_over_does_not_go_on(tmp_path: Path, display: Lines) -> None:
    home, final = home_at(tmp_path / "home"), {"seeds": 0, "baselines": False}
    run = start(home, display, budget={"seconds": 2.0}, final=final)
    deadline = run.deadline(None)
    time.sleep(0.3)  # as a slow disk would take beside training
    run.execute(deadline)
    assert run.spent_s == pytest.approx(2.0, abs=1e-6)
    again = start(home, Lines(), budget={"seconds": 2.0}, final=final)
    assert again.execute(again.deadline(None)).n_new == 0
    longer = start(home, Lines(), budget={"seconds": 1e6}, final=final)
    longer.execute(longer.deadline(0.1))
    assert longer.spent_s < 1e3, "a run that --timeout ends has not spent what the spec grants"


def test_a_raised_budget_goes_on(tmp_path: Path, finished_home: Home, display: Lines) -> None:
    shutil.copytree(finished_home.root, tmp_path / "home")
    home = home_at(tmp_path / "home")
    outcome = start(home, display, budget={"trials": 9}).execute(None)
    assert outcome.n_new == 3 and len(outcome.trials) == 9
    assert bits(home)[:6] == bits(finished_home)


def test_mlflow_gets_finished_trials_that_nobody_told_of(
    tmp_path: Path, display: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So it is where a worker is killed once its record is stored, and where another driver trains.
    monkeypatch.setattr(MirroringWatcher, "told", lambda self, trials: None)
    start(home_at(tmp_path / "home"), display).execute(None)
    assert any("MLflow lacks 6 trials" in line for line in display.said)


class Waiting(Lines):
    """Does something when the finals begin."""

    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__()
        self.do = do

    def note(self, line: str) -> None:
        super().note(line)
        if line.startswith("finals: "):
            self.do()


def test_mlflow_gets_what_another_driver_finished_while_this_one_held_its_finals(
    tmp_path: Path, make_trial: Callable[..., TrialRecord]
) -> None:
    home = home_at(tmp_path / "home")

    def train() -> None:
        other, spec = Storage(home.database_url), spec_from_dict(SMALL_SPEC)
        asked = ask_cohort(spec, other.known("wine").objectives, other.records("wine"), 6, 3, lambda _: 1)
        other.claim("wine", asked, [1] * 3, distributions(spec))
        told = [make_trial(s.number, hyperparameters=s.hyperparameters, searched=s.searched) for s in asked]
        other.record("wine", told, 1.0)
        other.close()

    display = Waiting(train)
    outcome = start(home, display).execute(None)
    assert any("MLflow lacks 9 trials" in line for line in display.said), display.said
    assert len(outcome.trials) == outcome.n_new == 6  # what the winner was chosen from


@pytest.mark.parametrize("ends_early", [True, False])
def test_a_driver_in_postgresql_mirrors_the_study_where_the_one_that_did_has_ended(
    tmp_path: Path, postgres_url: str, ends_early: bool
) -> None:
    home, first = Home(tmp_path, postgres_url, NOBODY), Storage(postgres_url)
    with contextlib.ExitStack() as leading:
        display = Waiting(leading.close if ends_early else lambda: None)
        second = start(home, display)
        first.create_study(second.facts)
        assert leading.enter_context(first.leading("wine"))()
        second.execute(None)
    said = "\n".join(display.said)
    assert ("MLflow lacks 6 trials" in said) == ends_early
    assert ("another driver of this study mirrors it" in said) != ends_early
    first.close()


def test_a_driver_that_another_was_faster_than_stores_its_budget(
    tmp_path: Path, display: Lines, finished_home: Home
) -> None:
    home = home_at(tmp_path / "home")
    slower = start(home, display, budget={"trials": 9})
    start(home, Lines(), budget={"trials": 3}).execute(None)
    assert len(slower.execute(None).trials) == 9
    stored = slower.storage.known("wine")
    assert stored.spec["budget"]["trials"] == 9 and stored == slower.facts  # type: ignore[index]


def test_the_export_of_another_study_is_not_replaced(tmp_path: Path, finished_home: Home, display: Lines) -> None:
    shutil.copytree(finished_home.root, tmp_path / "home")
    home = home_at(tmp_path / "home")
    other = start(home, display, study="wine-trial-1", budget={"trials": 3})
    other.execute(None)
    place = home.exports / "wine-trial-1"
    before = (place / "model.json").read_bytes()
    wine = start(home, display)
    with pytest.raises(UserError, match=r'wine-trial-1 is the export of study "wine-trial-1"; .*--to'):
        wine.export(1, None)
    assert (place / "model.json").read_bytes() == before
    wine.export(1, tmp_path / "out")
    shutil.rmtree(home.exports / "wine-trial-1")
    wine.export(2, None)
    late = start(home, display, study="wine-trial-2", budget={"trials": 3})
    with pytest.raises(UserError, match='wine-trial-2 is the export of study "wine"'):
        late.execute(None)
    assert "wine-trial-2" not in late.storage.names()
    other.export(None, None)  # its own place is free


def test_a_study_from_before_there_were_funnels_goes_on(tmp_path: Path, finished_home: Home, display: Lines) -> None:
    shutil.copytree(finished_home.root, tmp_path / "home")
    home = home_at(tmp_path / "home")
    path = home.database_url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "UPDATE dlcore_results SET hyperparameters_json = json_remove(hyperparameters_json, '$.funnel')"
        )
    before = Storage(home.database_url)
    assert all("funnel" not in trial.hyperparameters for trial in before.records("wine"))
    stored = before.facts("wine")
    outcome = start(home, display, budget={"trials": 9}).execute(None)
    assert [t.hyperparameters.get("funnel") for t in outcome.trials] == [None] * 6 + [1.0] * 3
    after = Storage(home.database_url).facts("wine")
    assert stored is not None and after is not None
    assert {**after.spec, "budget": None} == {**stored.spec, "budget": None}


def test_a_study_from_before_there_was_a_choice_of_precision_goes_on(
    tmp_path: Path, finished_home: Home, display: Lines
) -> None:
    shutil.copytree(finished_home.root, tmp_path / "home")
    home = home_at(tmp_path / "home")
    storage = Storage(home.database_url)
    stored = storage.facts("wine")
    assert stored is not None
    training = {key: value for key, value in dict(stored.spec["training"]).items() if key != "precision"}  # type: ignore[call-overload]
    storage.store_spec("wine", {**stored.spec, "training": training})
    assert start(home, display).execute(None).n_new == 0
    with pytest.raises(SpecChanged, match=r'training\.precision: "fp32" -> "bf16"'):
        start(home, display, training={"epochs": 4, "batch_size": 32, "precision": "bf16"})


def test_a_precision_is_said_in_the_plan_and_refused_where_the_device_lacks_it(tmp_path: Path, display: Lines) -> None:
    training = {"epochs": 4, "batch_size": 32, "device": "cpu"}
    run = start(home_at(tmp_path / "home"), display, training={**training, "precision": "bf16"})
    assert "products in bf16 (slower than fp32 here)" in run.plan()
    assert run.facts.spec["training"]["precision"] == "bf16"  # type: ignore[index]
    with pytest.raises(DeviceError, match='"tf32"'):
        start(home_at(tmp_path / "home"), display, training={**training, "precision": "tf32"})


def test_a_searched_funnel_is_recorded_and_trained(tmp_path: Path, display: Lines) -> None:
    home = home_at(tmp_path / "home")
    space = {"width": 16, "depth": 3, "funnel": {"low": 0.3, "high": 0.9}}
    outcome = start(home, display, search_space=space, budget={"trials": 3}).execute(None)
    assert all("funnel" in trial.searched for trial in outcome.trials)
    for trial in outcome.trials:
        sizes = [13, *widths(trial.hyperparameters), 3]
        assert trial.n_parameters == sum((a + 1) * b for a, b in pairwise(sizes))
    assert len({trial.n_parameters for trial in outcome.trials}) == 3


def test_a_changed_spec_is_refused_with_its_differences(finished_home: Home, display: Lines) -> None:
    with pytest.raises(SpecChanged) as caught:
        start(finished_home, display, seed=2, training={"epochs": 5, "batch_size": 32})
    assert "seed: 1 -> 2" in str(caught.value) and "training.epochs: 4 -> 5" in str(caught.value)


def test_changed_data_are_refused(tmp_path: Path, display: Lines) -> None:
    table = tmp_path / "t.csv"
    text = "a,city,y\n" + "".join(f"{i},{('Rome', 'Oslo')[i % 2]},{i % 3 % 2}\n" for i in range(60))
    table.write_text(text)
    changes = {"data": {"path": str(table), "target": "y"}, "budget": {"trials": 3}}
    home = home_at(tmp_path / "home")
    start(home, display, **changes).execute(None)
    for old, new in (("\n7,Oslo", "\n7,Rome"), ("\n7,Oslo", "\n7,"), ("Oslo", "Bern"), ("\n7,Oslo,1", "\n7,Oslo,0")):
        assert old in text
        table.write_text(text.replace(old, new))
        with pytest.raises(UserError, match='data of study "wine" changed'):
            start(home, display, **changes)
    table.write_text(text + "7,Rome,1\n")
    with pytest.raises(UserError, match='data of study "wine" changed'):
        start(home, display, **changes)
    table.write_text(text)
    start(home, display, **changes)


def test_a_second_driver_of_the_same_study_is_refused(finished_home: Home, display: Lines) -> None:
    run = start(finished_home, display)
    with drive(finished_home, "wine"), pytest.raises(StudyBusy):
        run.execute(None)


def test_a_full_disk_is_refused_before_any_work(
    tmp_path: Path, display: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_FREE_BYTES", 2**60)
    with pytest.raises(UserError, match="MB free"):
        start(home_at(tmp_path / "home"), display)


def test_time_that_is_spent_ends_a_study_with_what_it_has(tmp_path: Path, display: Lines) -> None:
    home = home_at(tmp_path / "home")
    deadlines: list[float] = []
    display.on_epoch = lambda event: deadlines.append(time.monotonic())
    run = start(home, display, training={"epochs": 4000, "batch_size": 8, "patience": False})
    outcome = run.execute(time.monotonic() + 1.5)
    assert 1 <= outcome.n_new <= 3
    assert outcome.export.winner.number in {t.number for t in outcome.trials}
    assert "RUNNING" not in Storage(home.database_url).states("wine")


def test_the_plan_says_what_is_about_to_happen(finished_home: Home, display: Lines) -> None:
    plan = start(finished_home, display).plan()
    for text in ("wine: 6 trials", "cohorts of 3", "4 epochs", "rungs at 2", "train 106", "multiclass"):
        assert text in plan


def test_several_objectives_give_a_front(tmp_path: Path, display: Lines) -> None:
    home = home_at(tmp_path / "home")
    objective = [{"metric": "accuracy"}, {"metric": "n_parameters"}]
    outcome = start(home, display, objective=objective).execute(None)
    complete: list[TrialRecord] = [t for t in outcome.trials if t.state == "COMPLETE"]
    assert complete and all(t.values is not None and t.values[1] == t.n_parameters for t in complete)
