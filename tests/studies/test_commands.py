"""What commands refuse before they begin, and what a run says to machines."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from studies import best, cli, commands, overview
from studies.best import Export
from studies.database import writing
from studies.errors import StudyBusy, UserError
from studies.home import Home
from studies.records import PRUNED, StudyFacts
from studies.runner import Run
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import NOBODY, SMALL_SPEC, Lines


def test_a_study_that_a_driver_mirrors_is_not_mirrored_by_a_second_one(
    tmp_path: Path, postgres_url: str, make_facts: Callable[..., StudyFacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL no file is locked: two mirrors at once would both make the run of a trial."""
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STUDIES_DB", postgres_url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    driver = Storage(postgres_url)
    driver.create_study(make_facts())
    with driver.leading("wine") as is_leading:
        assert is_leading()
        with pytest.raises(StudyBusy, match='study "wine" is being run, and its driver mirrors it'):
            commands.track("wine")
    driver.close()


@pytest.mark.slow
def test_a_run_tells_machines_every_trial_and_its_result_and_a_quiet_one_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("STUDIES_DB", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    spec = tmp_path / "wine.toml"
    spec.write_text(
        'study = "cellar"\nbudget = { trials = 6 }\nfinal = { seeds = 0, baselines = false }\n'
        "search = { cohort = 3, halving = { first_rung = 2, reduction_factor = 2 } }\n"
        'data = { source = "sklearn:wine" }\ntraining = { epochs = 4 }\n'
    )
    commands.run(commands.Request(str(spec), None, None, None, None, form="json"))
    said = capsys.readouterr()
    events = [json.loads(line) for line in said.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[-1] == "result" and kinds.count("trial") == 6 and kinds.count("progress") == 2
    assert {"note", "began", "epoch", "searched"} <= set(kinds)
    assert sorted(event["number"] for event in events if event["event"] == "trial") == list(range(6))
    overview.print_study("cellar", as_json=True)
    result = {key: value for key, value in events[-1].items() if key not in ("event", "time")}
    assert result == json.loads(capsys.readouterr().out)
    commands.run(commands.Request("cellar", None, None, None, None, form="quiet"))
    again = capsys.readouterr()
    assert again.out == "" and "warning: MLflow lacks 6 trials" in again.err


@pytest.mark.slow
@pytest.mark.parametrize(("is_winner", "said"), [(True, "test: none was kept back"), (False, "test: not measured")])
def test_an_export_without_a_test_says_why(
    is_winner: bool,
    said: str,
    finished_home: Home,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STUDIES_HOME", str(finished_home.root))
    monkeypatch.delenv("STUDIES_DB", raising=False)
    storage = Storage(finished_home.database_url)
    stored = storage.winner("wine")
    storage.close()
    assert stored is not None
    made = Export(replace(stored[0], test_metrics={}), is_winner, None)
    monkeypatch.setattr(commands.Run, "export", lambda self, number, folder: made)
    commands.export("wine", None, None)
    assert capsys.readouterr().out.splitlines()[-2].startswith(said)


@pytest.mark.slow
def test_a_cohort_that_a_pruner_cut_comes_out_again_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path))
    monkeypatch.delenv("STUDIES_DB", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    home = Home(tmp_path, f"sqlite:///{tmp_path / 'studies.db'}", NOBODY)
    changes = {
        "budget": {"trials": 12},
        "search": {"cohort": 6, "pruner": "median"},
        "training": {"epochs": 8, "batch_size": 32},
        "final": {"seeds": 0, "baselines": False},
    }
    storage = Storage(home.database_url)
    outcome = Run(spec_from_dict(SMALL_SPEC | changes), home, storage, Lines()).execute(None)
    cut = [t.number for t in outcome.trials if t.state == PRUNED]
    assert cut and min(cut) >= 6  # the first cohort is what the pruner learns from
    words = ["replay", "wine", str(cut[0]), "--cohort"]
    answer = CliRunner().invoke(cli.app, words)
    assert answer.exit_code == 0 and "cohort 1: all 6 trials came out again, bit for bit" in answer.output
    with writing(storage.engine) as connection:
        forged = "UPDATE dlcore_curves SET val_loss = val_loss + 1e-12 WHERE trial_id = 7 AND epoch = 5"
        connection.execute(text(forged))
    storage.close()
    answer = CliRunner().invoke(cli.app, words)
    assert answer.exit_code == 1 and "cohort 1: 1 of 6 trials differ (trial 6 the first)" in answer.output


def test_a_study_without_trials_has_none_to_export(storage: Storage, make_facts: Callable[..., StudyFacts]) -> None:
    facts = make_facts()
    storage.create_study(facts)
    with pytest.raises(UserError, match='study "wine" has no trials yet; there is no trial 3'):
        best.choose(storage, facts, 3, hold=lambda _trials: pytest.fail("there are no finals"))
    storage.close()
