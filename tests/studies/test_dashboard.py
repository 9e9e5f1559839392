"""optuna-dashboard over a study database: what its API answers, to whom, and that nothing is changed."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.study import StudyDirection

from studies import dashboard
from studies.dashboard import CurveStorage, make_dashboard
from studies.errors import StudiesError, UserError
from studies.optuna_storage import StudyStorage
from studies.records import COMPLETE, Objective, StudyFacts, Suggestion, TrialRecord
from studies.space import distributions
from studies.spec import spec_from_dict
from studies.storage import Storage

Facts = Callable[..., StudyFacts]
Make = Callable[..., TrialRecord]


def stored(url: str, facts: StudyFacts, trials: list[TrialRecord]) -> None:
    """A study with finished trials."""
    storage = Storage(url)
    storage.create_study(facts)
    spec = spec_from_dict({"study": facts.name, "data": {"source": "sklearn:wine"}})
    suggestions = [Suggestion(t.number, t.hyperparameters, t.searched) for t in trials]
    storage.claim(facts.name, suggestions, [99] * len(trials), distributions(spec))
    storage.record(facts.name, trials, 1.0)
    storage.close()


@pytest.fixture
def url(tmp_path: Path, make_facts: Facts, make_trial: Make) -> str:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    stored(url, make_facts(), [make_trial(n, 0.5, COMPLETE, rungs={2: 0.85}) for n in range(2)])
    return url


@pytest.fixture
def address(url: str) -> Iterator[str]:
    server, address = make_dashboard(url, 18080)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


def ask(address: str, host: str | None = None, method: str = "GET") -> Any:
    request = urllib.request.Request(address, headers={"Host": host} if host else {}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer) if "json" in answer.headers["Content-Type"] else answer.read()


def test_a_curve_has_every_epoch_and_the_database_its_rungs_alone(url: str, make_trial: Make) -> None:
    curves, plain = CurveStorage(url), StudyStorage(url)
    study = plain.get_study_id_from_name("wine")
    curve = {e.epoch: e.val_metric for e in make_trial(0).curve}
    for trial in (*curves.get_all_trials(study), curves.get_trial(1)):
        assert trial.intermediate_values == curve
    assert [t.intermediate_values for t in plain.get_all_trials(study)] == [{2: 0.85}] * 2
    curves.close()
    plain.close()


def test_where_the_loss_is_the_objective_the_curve_is_of_the_loss(
    tmp_path: Path, make_facts: Facts, make_trial: Make
) -> None:
    url = f"sqlite:///{tmp_path / 'loss.db'}"
    stored(url, make_facts(objectives=(Objective("loss", "minimize"),)), [make_trial(0, 0.2)])
    storage = CurveStorage(url)
    (trial,) = storage.get_all_trials(storage.get_study_id_from_name("wine"))
    assert trial.intermediate_values == {e.epoch: e.val_loss for e in make_trial(0).curve}
    storage.close()


def test_a_study_of_another_program_keeps_the_names_that_it_gave(url: str) -> None:
    plain = StudyStorage(url)
    theirs = plain.create_new_study([StudyDirection.MAXIMIZE], "theirs")
    plain.set_study_system_attr(theirs, "study:metric_names", ["speed"])
    plain.close()
    storage = CurveStorage(url)
    names = {study.study_name: study.system_attrs["study:metric_names"] for study in storage.get_all_studies()}
    assert names == {"wine": ["accuracy"], "theirs": ["speed"]}
    storage.close()


def test_nothing_can_be_written_through_it(url: str) -> None:
    storage = CurveStorage(url)
    study = storage.get_study_id_from_name("wine")
    for write in (
        lambda: storage.delete_study(study),
        lambda: storage.create_new_study([], "new"),
        lambda: storage.create_new_trial(study),
        lambda: storage.set_study_system_attr(study, "note", "x"),
        lambda: storage.set_trial_user_attr(1, "note", "x"),
    ):
        with pytest.raises(StudiesError, match="changes nothing"):
            write()
    storage.close()


def test_the_dashboard_shows_the_study_with_its_curves_and_deletes_nothing(address: str, url: str) -> None:
    (study,) = ask(f"{address}/api/studies")["study_summaries"]
    assert study["study_name"] == "wine"
    detail = ask(f"{address}/api/studies/{study['study_id']}?after=0")
    assert [len(t["intermediate_values"]) for t in detail["trials"]] == [3, 3]
    assert detail["objective_names"] == ["accuracy"]
    assert b"<html" in ask(f"{address}/dashboard").lower()
    with pytest.raises(urllib.error.HTTPError):
        ask(f"{address}/api/studies/{study['study_id']}", method="DELETE")
    storage = Storage(url)
    assert storage.names() == ["wine"]
    storage.close()


def test_only_who_asks_by_a_loopback_name_is_answered(address: str) -> None:
    port = address.rpartition(":")[2]
    assert ask(f"{address}/api/studies", f"localhost:{port}")
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"10.evil.example:{port}"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(f"{address}/api/studies", host)


def test_a_port_that_is_taken_is_passed_over(address: str, url: str) -> None:
    server, other = make_dashboard(url, int(address.rpartition(":")[2]))
    server.server_close()
    assert other != address and other.startswith("http://127.0.0.1:")


def test_mistakes_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert dashboard.main(["eighty"]) == 2
    assert "port must be a number" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "optuna_dashboard", None)
    with pytest.raises(UserError, match=r"pip install 'dlcore\[dashboard\]'"):
        make_dashboard(url, 18080)
