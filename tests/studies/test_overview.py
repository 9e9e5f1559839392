import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from studies import overview, server
from studies.errors import UserError
from studies.home import Home, drive
from studies.importance import importances
from studies.ranking import ranking
from studies.records import StudyFacts, TrialRecord
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.terminals import COLOUR, CONTROL, piped, terminal

pytestmark = pytest.mark.slow  # a whole study runs before them


@pytest.fixture(autouse=True)
def at_home(finished_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIES_HOME", str(finished_home.root))
    monkeypatch.delenv("STUDIES_DB", raising=False)


def test_the_json_of_a_study_holds_what_the_contract_names(
    finished_home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    overview.print_study("wine", as_json=True)
    shown = json.loads(capsys.readouterr().out)
    documented = {"study", "direction", "metric", "states", "best", "final", "tracking_uri", "experiment_id"}
    assert set(shown) == documented | {"state", "importances", "gaps", "next"}
    assert shown["state"] == "finished" and shown["next"][0]["kind"] == "few_trials"
    assert shown["importances"] == {}  # six trials tell nothing of it
    assert (shown["study"], shown["direction"], shown["metric"]) == ("wine", "maximize", "accuracy")
    assert sum(shown["states"].values()) == 6
    best = shown["best"]
    trial = Storage(finished_home.database_url).records("wine", [best["number"]])[0]
    assert best["value"] == trial.value and best["hyperparameters"] == trial.hyperparameters
    assert set(best) == {"number", "value", "hyperparameters", "n_parameters", "test"}
    accuracy = best["test"]["accuracy"]
    assert accuracy["low"] <= accuracy["mean"] <= accuracy["high"]
    final = shown["final"]
    assert final["number"] == best["number"] == final["finalists"][0]["number"]
    assert 0 <= final["exported"]["test"]["accuracy"] <= 1


def test_a_winner_stays_the_best_until_another_trial_is_finished(finished_home: Home) -> None:
    storage = Storage(finished_home.database_url)
    stored = storage.winner("wine")
    assert stored is not None
    first, second = ranking(storage.records("wine"), storage.known("wine").objectives)[:2]
    try:
        for number, n_finished, best in ((second.number, stored[1], second), (second.number, stored[1] - 1, first)):
            storage.store_winner("wine", replace(stored[0], number=number), n_finished)
            found = overview.summarize(storage, "wine").best
            assert found is not None and found.number == best.number
    finally:
        storage.store_winner("wine", *stored)


def test_the_text_of_a_study_names_its_winner_and_its_export(
    finished_home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    overview.print_study("wine", as_json=False)
    shown = capsys.readouterr().out
    for text in ("maximize accuracy on wine", "the best trials:", "winner  trial", "  test ", "exports/wine"):
        assert text in shown
    for text in (
        "state   finished\n",
        "  train to val: ",
        "  val to test: ",
        "worth trying next:\n  only 6 ",
    ):
        assert text in shown


def test_the_page_of_a_study_is_where_its_server_listens_now(
    finished_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished_home.root, tmp_path / "home")
    home = Home(tmp_path / "home", f"sqlite:///{tmp_path / 'home' / 'studies.db'}", None)
    (home.root / "mlflow.db").touch()
    storage = Storage(home.database_url)
    storage.store_mirror("wine", "http://127.0.0.1:5000", "7")
    monkeypatch.setenv("STUDIES_HOME", str(home.root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it for its children, in this process too
    for port, page in (
        (5003, "http://127.0.0.1:5003/#/experiments/7/runs?view"),
        (None, "`studies ui wine` starts its"),
    ):
        found = None if port is None else server.Server(f"http://127.0.0.1:{port}", 1, port)
        monkeypatch.setattr(server, "find", lambda _home, found=found: found)
        overview.print_study("wine", as_json=False)
        assert f"\nMLflow  {page}" in capsys.readouterr().out
        assert overview.study_as_json(home, storage, "wine")["tracking_uri"] == f"http://127.0.0.1:{port or 5000}"
    assert overview.address_now(home, "http://example.org") == "http://example.org"
    elsewhere = replace(home, tracking_uri="http://127.0.0.1:8000")
    assert overview.address_now(elsewhere, "http://127.0.0.1:8000") == "http://127.0.0.1:8000"
    storage.close()


def test_what_mattered_is_one_line_with_the_largest_share_first() -> None:
    shares = {"learning_rate": 0.6149, "width": 0.2, "depth": 0.1851, "activation": 0.00004}
    assert overview.what_mattered(shares) == "what mattered: learning_rate 0.61, width 0.2, depth 0.19"
    assert overview.what_mattered({}) == ""


def test_a_study_of_enough_trials_tells_what_mattered(
    finished_home: Home, make_trial: Callable[..., TrialRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    storage = Storage(finished_home.database_url)
    summary = overview.summarize(storage, "wine")
    storage.close()
    made = [
        make_trial(
            i,
            1 - abs(i - 20) / 40,
            hyperparameters={"learning_rate": 0.01 * 1.1**i, "momentum": 0.9 * (i * 17 % 40) / 40},
            searched=("learning_rate", "momentum"),
        )
        for i in range(40)
    ]
    overview._print_text(summary, made, "finished")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("what mattered: ")]
    shares = importances(spec_from_dict(summary.facts.spec), summary.facts.objectives, made)
    assert line.startswith(f"what mattered: learning_rate {shares['learning_rate']:.2g}")
    assert sum(shares.values()) == pytest.approx(1) and next(iter(shares)) == "learning_rate"


def test_the_list_has_a_line_for_each_study(capsys: pytest.CaptureFixture[str]) -> None:
    overview.print_list()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "wine" in line]
    assert "6/6" in line and "accuracy" in line and "finished" in line


BOTH = """
from studies import overview
overview.print_list()
print("----")
overview.print_study("wine", as_json=False)
"""


@pytest.fixture(scope="module")
def in_pipe(finished_home: Home) -> str:
    written = piped(BOTH, STUDIES_HOME=str(finished_home.root))
    assert "\x1b" not in written
    return written


@pytest.mark.parametrize(("columns", "environment"), [(80, {}), (120, {"NO_COLOR": "1"}), (80, {"TERM": "dumb"})])
def test_a_terminal_shows_what_a_pipe_does_within_its_columns(
    columns: int, environment: dict[str, str], in_pipe: str
) -> None:
    written = terminal(BOTH, columns, **environment).replace("\r\n", "\n")
    if environment:
        assert ("\x1b" not in written) if "TERM" in environment else (COLOUR.search(written) is None)
    listed, shown = CONTROL.sub("", written).split("----\n")
    assert all(cell_len(line) <= columns for line in listed.splitlines())
    (line,) = [line for line in listed.splitlines() if line.split()[:1] == ["wine"]]
    assert "finished" in line and "6/6" in line
    assert shown == in_pipe.partition("----\n")[2]


def test_a_pipe_has_one_line_for_a_study_however_long_its_name_is(
    finished_home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = Storage(finished_home.database_url)
    found = overview.summarize(storage, "wine")
    storage.close()
    long = replace(found, facts=replace(found.facts, data_name="rows-of-" + "many-" * 30 + "wines"))
    monkeypatch.setattr(overview, "summarize", lambda _storage, _name: long)
    overview.print_list()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["wine"]]
    assert long.facts.data_name in line and "6/6" in line


def test_the_state_of_a_study_follows_from_its_trials_and_its_driver(
    finished_home: Home,
) -> None:
    storage = Storage(finished_home.database_url)
    summary = overview.summarize(storage, "wine")

    def state(**changes: object) -> str:
        return overview.state_of(finished_home, storage, replace(summary, **changes))  # type: ignore[arg-type]

    assert state() == "finished"
    assert state(states={}) == "new"
    assert state(states={"COMPLETE": 5, "WAITING": 1}) == state(states={"COMPLETE": 5}) == "stopped"
    assert state(winner=None) == "stopped"
    for seconds, expected in ((1e-9, "finished"), (1e9, "stopped")):
        facts = replace(summary.facts, spec={**summary.facts.spec, "budget": {"trials": None, "seconds": seconds}})
        assert state(facts=facts) == expected
        facts = replace(summary.facts, spec={**summary.facts.spec, "budget": {"trials": 9, "seconds": seconds}})
        assert state(facts=facts) == expected
    own = summary.facts.spec
    points: dict[str, object] = {"depth": [1, 2, 3], "width": [8, 16]}
    for space, expected in ((points, "finished"), (points | {"momentum": [0.0, 0.5]}, "stopped")):
        search = {**own["search"], "sampler": "grid"}  # type: ignore[dict-item]
        grid = {**own, "budget": {"trials": 64, "seconds": None}, "search": search, "search_space": space}
        assert state(facts=replace(summary.facts, spec=grid)) == expected
    with drive(finished_home, "wine"):
        assert state() == "running"
    storage.close()


def test_a_study_whose_driver_in_postgresql_holds_its_finals_is_running(
    tmp_path: Path, postgres_url: str, make_facts: Callable[..., StudyFacts]
) -> None:
    home, storage, driver = Home(tmp_path, postgres_url, None), Storage(postgres_url), Storage(postgres_url)
    storage.create_study(make_facts())
    summary = overview.summarize(storage, "wine")
    assert overview.state_of(home, storage, summary) == "new"
    with driver.leading("wine"):  # nothing is claimed
        assert overview.state_of(home, storage, summary) == "running"
    storage.close(), driver.close()


def test_an_unknown_study_is_said_by_name() -> None:
    with pytest.raises(UserError, match='no study "zoo"'):
        overview.print_study("zoo", as_json=True)
