"""One contract, over a database and over memory."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from studies.errors import StudiesError, UserError
from studies.home import Home
from studies.ledger import Ledger
from studies.memory import MemoryStorage
from studies.records import PRUNED, StudyFacts, Suggestion, TrialRecord, Winner
from studies.runner import Run, Ways
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import SMALL_SPEC, Lines

DISTRIBUTIONS = {"learning_rate": FloatDistribution(1e-4, 10.0, log=True)}


@pytest.fixture(params=["memory", "database"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "memory":
        yield MemoryStorage()
        return
    opened = Storage(f"sqlite:///{tmp_path / 'studies.db'}")
    yield opened
    opened.close()


@pytest.fixture
def study(ledger: Ledger, make_facts: Callable[..., StudyFacts]) -> StudyFacts:
    facts = make_facts()
    ledger.create_study(facts)
    return facts


@pytest.fixture
def trials(make_trial: Callable[..., TrialRecord]) -> list[TrialRecord]:
    own = {"searched": ("learning_rate",)}
    return [
        make_trial(0, 0.25, **own),
        make_trial(1, 0.5, PRUNED, rungs={2: 0.5}, reason="not among the best", system_attrs={"a": [1]}, **own),
        make_trial(2, 0.75, **own),
    ]


def claim(ledger: Ledger, trials: list[TrialRecord]) -> int:
    suggestions = [Suggestion(t.number, t.hyperparameters, t.searched, t.system_attrs) for t in trials]
    return ledger.claim("wine", suggestions, [t.n_parameters for t in trials], DISTRIBUTIONS)


def states(ledger: Ledger) -> list[tuple[int, int, str]]:
    return [(t.number, t.cohort, t.state) for t in ledger.records("wine")]


def test_a_study_reads_back_equal_and_its_name_is_taken(ledger: Ledger, study: StudyFacts) -> None:
    assert ledger.facts("wine") == ledger.known("wine") == study
    with pytest.raises(UserError, match='"wine"'):
        ledger.create_study(study)
    ledger.store_spec("wine", {"study": "wine", "budget": {"trials": 9}})
    assert ledger.known("wine").spec == {"study": "wine", "budget": {"trials": 9}}


def test_a_study_that_is_not_there_is_said_by_name(ledger: Ledger) -> None:
    assert ledger.facts("nothing") is None
    for call in (ledger.known, ledger.records, ledger.states, ledger.spent_s, ledger.release):
        with pytest.raises(UserError, match='no study "nothing"'):
            call("nothing")


def test_results_read_back_equal(ledger: Ledger, study: StudyFacts, trials: list[TrialRecord]) -> None:
    assert claim(ledger, trials) == 0
    assert states(ledger) == [(0, 0, "RUNNING"), (1, 0, "RUNNING"), (2, 0, "RUNNING")]
    ledger.record("wine", trials, 7.5)
    assert ledger.records("wine", has_curves=True) == trials
    assert ledger.records("wine", [1]) == [replace(trials[1], curve=())]
    assert ledger.changes("wine", [0], 2) == [replace(trials[n], curve=()) for n in (0, 2)]
    assert ledger.states("wine") == {"COMPLETE": 2, "PRUNED": 1}
    assert ledger.spent_s("wine") == 7.5
    assert ledger.others("wine") == (0, 0) and ledger.renew()


def test_what_is_claimed_and_not_told_waits_and_is_taken_again(
    ledger: Ledger, study: StudyFacts, trials: list[TrialRecord]
) -> None:
    claim(ledger, trials)
    ledger.record("wine", trials[:1], 1.0)
    assert ledger.release("wine") == [1, 2]
    assert [t.state for t in ledger.records("wine")] == ["COMPLETE", "WAITING", "WAITING"]
    assert ledger.take("wine", [1, 2]) == 1
    assert states(ledger) == [(0, 0, "COMPLETE"), (1, 1, "RUNNING"), (2, 1, "RUNNING")]
    assert ledger.release("wine") == [1, 2]
    assert ledger.take("wine", [1, 2]) == 1


def test_a_result_is_stored_once(ledger: Ledger, study: StudyFacts, trials: list[TrialRecord]) -> None:
    claim(ledger, trials[:2])
    ledger.record("wine", trials[:1], 1.0)
    with pytest.raises(StudiesError, match="refused"):
        ledger.record("wine", trials[:2], 1.0)
    assert ledger.states("wine") == {"RUNNING": 1, "COMPLETE": 1} and ledger.spent_s("wine") == 1.0


def test_numbers_go_on_from_what_is_there(ledger: Ledger, study: StudyFacts, trials: list[TrialRecord]) -> None:
    with pytest.raises(UserError, match="0 trials"):
        claim(ledger, trials[1:])
    assert claim(ledger, trials[:2]) == 0
    assert claim(ledger, trials[2:]) == 1


def test_the_latest_winner_is_known(ledger: Ledger, study: StudyFacts, trials: list[TrialRecord]) -> None:
    assert ledger.winner("wine") is None
    claim(ledger, trials)
    ledger.record("wine", trials, 1.0)
    best = trials[2]
    won = Winner(2, (0.75,), best.hyperparameters, 99, {"loss": 0.1}, {}, "somewhere", "f" * 64)
    ledger.store_winner("wine", won, 3)
    assert ledger.winner("wine", must_be_sealed=True) == (won, 3)


def test_a_study_in_memory_is_the_study_in_a_database(tmp_path: Path, finished_home: Home) -> None:
    storage = MemoryStorage()
    home = Home(tmp_path, "", None)
    run = Run(spec_from_dict(SMALL_SPEC), home, storage, Lines(), ways=Ways(is_mirrored=False, is_kept=False))
    outcome = run.execute(None)
    kept = Storage(finished_home.database_url)

    def bits(ledger: Ledger) -> list[object]:
        return [
            (
                t.number,
                t.state,
                t.cohort,
                t.hyperparameters,
                t.values,
                t.rungs,
                [e.val_loss for e in t.curve],
            )
            for t in ledger.records("wine", has_curves=True)
        ]

    assert bits(storage) == bits(kept)
    found = kept.winner("wine")
    assert found is not None and outcome.export.winner.final == found[0].final
    assert outcome.export.winner.onnx_sha256 == found[0].onnx_sha256
    kept.close()


def test_a_study_without_a_test_names_its_winner_by_val(tmp_path: Path) -> None:
    data = {"source": "sklearn:wine", "test_fraction": 0.0}
    spec = spec_from_dict(SMALL_SPEC | {"data": data, "final": {"baselines": False, "seeds": 2, "candidates": 2}})
    run = Run(spec, Home(tmp_path, "", None), MemoryStorage(), Lines(), ways=Ways(is_mirrored=False, is_kept=False))
    assert len(run.splits.test.x) == 0 and len(run.splits.train.x) + len(run.splits.val.x) == 178
    winner = run.execute(None).export.winner
    assert winner.test_metrics == {} and winner.val_metrics["accuracy"] > 0.5
    assert winner.final is not None and winner.final.test == () and len(winner.final.finalists[0].val) == 2
