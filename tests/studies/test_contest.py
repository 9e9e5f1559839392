from collections.abc import Sequence
from pathlib import Path

import pytest

from studies import contest
from studies.contest import Rules
from studies.home import Home
from studies.networks import Fresh
from studies.records import Final, Objective, TrialRecord
from studies.runner import Run
from studies.sections import FinalSection
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import SMALL_SPEC, Lines

pytestmark = pytest.mark.slow  # a whole study runs before them


@pytest.fixture
def run(finished_home: Home, display: Lines) -> Run:
    return Run(spec_from_dict(SMALL_SPEC), finished_home, Storage(finished_home.database_url), display)


def hold(run: Run, trials: Sequence[TrialRecord] | None = None, **section: object) -> Final:
    rules = Rules(FinalSection(**({"baselines": False} | section)), (Objective("accuracy", "maximize"),))  # type: ignore[arg-type]
    return contest.hold(trials or run.storage.records("wine"), rules, run.trainer, run.display.note)


def test_the_same_finals_come_out_however_often_they_are_held(run: Run) -> None:
    first = hold(run)
    run.trainer._last_fresh = None  # else the second would be the first one's networks
    assert hold(run) == first


def test_each_seed_gives_another_network_and_none_is_the_recorded_one(run: Run) -> None:
    won = hold(run, seeds=3).finalists[0]
    losses = [m["loss"] for m in won.val]
    recorded = next(t for t in run.storage.records("wine") if t.number == won.number)
    assert len({*losses, recorded.best_val_loss}) == 4


def test_a_finalist_does_not_feel_the_others(run: Run) -> None:
    together, first = hold(run, candidates=2, seeds=2), hold(run, candidates=1, seeds=2).finalists[0]
    beside = next(f for f in together.finalists if f.number == first.number)
    for left, right in zip(beside.val, first.val, strict=True):
        assert left == pytest.approx(right, rel=1e-4)


def test_the_loop_holds_the_same_finals(run: Run, finished_home: Home, display: Lines) -> None:
    loop = spec_from_dict(
        {**SMALL_SPEC, "training": {"epochs": 4, "batch_size": 32, "engine": "loop"}, "study": "loop"}
    )
    other = Run(loop, finished_home, run.storage, display)
    rules = Rules(FinalSection(baselines=False), (Objective("accuracy", "maximize"),))
    trials = run.storage.records("wine")
    alone = contest.hold(trials, rules, other.trainer, display.note)
    together = contest.hold(trials, rules, run.trainer, display.note)
    assert [f.number for f in alone.finalists] == [f.number for f in together.finalists]
    for left, right in zip(
        (*alone.finalists[0].val, *alone.test), (*together.finalists[0].val, *together.test), strict=True
    ):
        assert left == pytest.approx(right, rel=1e-4)


def test_a_greedy_ensemble_is_made_of_what_is_best_on_val_and_comes_out_again(run: Run) -> None:
    every, greedy = hold(run, seeds=2, ensemble=True), hold(run, seeds=2, ensemble="greedy")
    assert every.ensemble is not None and greedy.ensemble is not None
    alone = max(m["accuracy"] for f in greedy.finalists for m in f.val)
    assert greedy.ensemble.val["accuracy"] >= max(alone, every.ensemble.val["accuracy"]) - 1e-9
    members = contest.members(run.storage.records("wine"), greedy, run.facts.objectives, run.trainer)
    assert repr(run.trainer.measure_together(members, "val")) == repr(dict(greedy.ensemble.val))
    different = len({id(network) for network, _ in members})
    assert greedy.ensemble.remark.startswith(f"the mean of {different} networks with ")
    run.trainer._last_fresh = None
    assert hold(run, seeds=2, ensemble="greedy") == greedy


def test_no_finals_are_held_where_none_are_asked_for_or_nobody_trained_to_the_end(run: Run) -> None:
    assert hold(run, seeds=0).finalists == ()
    pruned = [t for t in run.storage.records("wine") if t.state != "COMPLETE"]
    assert hold(run, pruned).finalists == ()


def test_the_finals_say_how_far_they_are_and_never_go_back(
    run: Run, display: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest, "_SAY_EVERY_S", 0.0)
    hold(run, candidates=2, seeds=2)
    said = [line.split() for line in display.said if line.startswith("finals: ") and " of at most " in line]
    most = 4 * run.trainer.epochs
    assert {tuple(words[2:]) for words in said} == {("of", "at", "most", f"{most:,}", "epochs", "of", "4", "networks")}
    assert [int(words[1].replace(",", "")) for words in said] == list(range(1, len(said) + 1))
    assert len(said) <= most


def test_where_all_diverge_no_finalist_wins(run: Run, display: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        run.trainer, "train_fresh", lambda suggestions, n, watch: [[Fresh(None, None)] * n for _ in suggestions]
    )
    assert hold(run).finalists == ()
    assert any("of every finalist a fresh seed diverged" in line for line in display.said)


def test_a_kill_during_the_finals_and_a_new_start_give_the_same_rows(
    finished_home: Home, tmp_path: Path, display: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path, f"sqlite:///{tmp_path / 'studies.db'}", finished_home.tracking_uri)
    storage = Storage(home.database_url)
    with monkeypatch.context() as patch:

        def die(*args: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("studies.cohort.Trainer.train_fresh", die)
        with pytest.raises(KeyboardInterrupt):
            Run(spec_from_dict(SMALL_SPEC), home, storage, display).execute(None)
    assert storage.winner("wine") is None
    Run(spec_from_dict(SMALL_SPEC), home, storage, display).execute(None)
    again, never = storage.winner("wine"), Storage(finished_home.database_url).winner("wine")
    assert again is not None and never is not None and again[0].final == never[0].final
    assert again[0].onnx_sha256 == never[0].onnx_sha256
