import contextlib
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution
from sqlalchemy import text

from studies import inspection, migrations
from studies.database import open_engine, reading
from studies.errors import StudiesError
from studies.migrations import migrate
from studies.records import FAIL, StudyFacts, TrialRecord
from studies.search import Search
from studies.spec import spec_from_dict
from studies.storage import Storage

VERSION_1 = (Path(__file__).parent / "assets" / "version_1.sql").read_text()
VERSION_3 = (Path(__file__).parent / "assets" / "version_3.sql").read_text()
VERSION_4 = (Path(__file__).parent / "assets" / "version_4.sql").read_text()
NEWEST = len(migrations._MIGRATIONS)


@pytest.fixture
def old_database(tmp_path: Path) -> Path:
    """A database of version 1: three finished trials, two that its writer never finished, a winner."""
    path = tmp_path / "studies.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
    return path


def test_a_database_of_version_1_opens_with_all_that_it_holds(old_database: Path) -> None:
    storage = Storage(f"sqlite:///{old_database}")
    facts = storage.facts("wine")
    assert facts is not None and facts.uuid == "0123456789abcdef0123456789abcdef"
    first, second, third, *running = storage.records("wine", has_curves=True)
    assert (first.values, first.rungs, len(first.curve)) == ((0.1 + 0.2,), {1: 0.25}, 2)
    assert first.searched == ("width", "activation", "learning_rate")
    assert first.hyperparameters["learning_rate"] == 0.1 / 3
    assert (second.state, second.reason) == ("PRUNED", "not among the best 2 of 3 at epoch 1")
    assert second.system_attrs == {"note": [1, 2]}
    assert (third.state, third.values, third.curve) == (FAIL, None, ())
    assert [t.state for t in running] == ["RUNNING", "RUNNING"]
    won = storage.winner("wine")
    assert won is not None and won[0].number == 0
    assert storage.mirror("wine") == ("http://127.0.0.1:5000", "1")
    storage.close()


def test_a_study_of_version_1_goes_on(old_database: Path, make_trial: Callable[..., TrialRecord]) -> None:
    storage = Storage(f"sqlite:///{old_database}")
    assert storage.release("wine") == [3, 4]
    assert storage.take("wine", [3, 4]) == 1
    storage.record("wine", [make_trial(3, cohort=1), make_trial(4, cohort=1)], 1.0)
    assert storage.states("wine") == {"COMPLETE": 3, "PRUNED": 1, "FAIL": 1}
    assert storage.falsified("wine") == []
    storage.close()


def test_an_upgrade_seals_what_is_finished(old_database: Path) -> None:
    storage = Storage(f"sqlite:///{old_database}")
    assert storage.falsified("wine") == []
    with contextlib.closing(sqlite3.connect(old_database)) as connection:
        sums = connection.execute("SELECT sha256 FROM dlcore_results ORDER BY trial_id").fetchall()
        assert [found is not None for (found,) in sums] == [True, True, True, False, False]
        connection.execute("UPDATE dlcore_curves SET val_loss = 0.4 WHERE trial_id = 2 AND epoch = 1")
        connection.commit()
    assert storage.falsified("wine") == [1]
    storage.close()


def test_an_upgrade_from_version_3_keeps_its_winner_and_seals_nothing_anew(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.db", tmp_path / "wrong.db"
    for path in (right, wrong):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(VERSION_3)
            if path is wrong:
                connection.execute("UPDATE dlcore_winners SET test_metrics_json = '{}'")
                connection.commit()
    for path, n_findings in ((right, 0), (wrong, 1)):
        storage = Storage(f"sqlite:///{path}")
        won = storage.winner("wine")
        assert won is not None and won[0].number == 0 and won[0].final is None
        assert storage.falsified("wine") == []
        with reading(storage.engine) as connection:
            assert connection.execute(text("SELECT max(version) FROM dlcore_migrations")).scalar() == NEWEST
            assert len(inspection.winners(connection, 1, "wine")) == n_findings
        storage.close()


def test_a_study_of_version_4_opens_reports_the_same_and_goes_on(
    tmp_path: Path, make_trial: Callable[..., TrialRecord]
) -> None:
    """Written by `studies run`: five trials of wine in cohorts of three, with finals and rivals."""
    path = tmp_path / "studies.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_4)
    storage = Storage(f"sqlite:///{path}")
    facts, trials = storage.known("wine"), storage.records("wine", has_curves=True)
    found = [(t.number, t.state, t.cohort, len(t.curve)) for t in trials]
    cut = [(1, "PRUNED", 0, 2), (2, "PRUNED", 0, 1), (3, "PRUNED", 1, 1)]
    assert found == [(0, "COMPLETE", 0, 3), *cut, (4, "COMPLETE", 1, 3)]
    assert storage.falsified("wine") == []
    won = storage.winner("wine", must_be_sealed=True)
    assert won is not None and won[0].final is not None and won[1] == 5
    assert (won[0].number, won[0].values) == (0, (0.9444444444444444,))
    assert [(f.number, len(f.val)) for f in won[0].final.finalists] == [(0, 2), (4, 2)]
    assert [rival.name for rival in won[0].final.rivals] == ["gradient boosting", "logistic regression", "majority"]
    with reading(storage.engine) as connection:
        assert inspection.winners(connection, 1, "wine") == []
        assert len(connection.execute(text("SELECT * FROM dlcore_trials")).all()) == 5
    raised = spec_from_dict({**facts.spec, "budget": {"trials": 8}})
    storage.store_spec("wine", raised.to_dict())
    cohort = Search(storage, raised, facts, lambda _: 99).next_cohort(None)
    assert cohort is not None and [s.number for s in cohort.suggestions] == [5]
    storage.record("wine", [make_trial(5, cohort=cohort.id)], 1.0)
    assert storage.falsified("wine") == []
    storage.close()


def test_an_upgrade_that_fails_leaves_the_old_version(old_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(f"sqlite:///{old_database}")
    with monkeypatch.context() as patch:
        broken = (*migrations._MIGRATIONS, lambda connection: connection.execute(text("SELECT * FROM nothing")))
        patch.setattr(migrations, "_MIGRATIONS", broken)
        with pytest.raises(StudiesError):
            migrate(engine)
    with reading(engine) as connection:
        assert connection.execute(text("SELECT max(version) FROM dlcore_migrations")).scalar() == 1
        columns = connection.execute(text("SELECT * FROM dlcore_results")).keys()
    assert "sha256" not in columns
    migrate(engine)
    with reading(engine) as connection:
        assert connection.execute(text("SELECT max(version) FROM dlcore_migrations")).scalar() == NEWEST
    engine.dispose()


def test_a_view_is_made_again_by_a_migration(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Storage(database_url).close()
    engine = open_engine(database_url)

    def retype(connection: object) -> None:
        connection.execute(text("ALTER TABLE dlcore_results DROP COLUMN samples_per_s"))  # type: ignore[attr-defined]

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "_MIGRATIONS", (*migrations._MIGRATIONS, retype))
        migrate(engine)
    with reading(engine) as connection:
        assert connection.execute(text("SELECT * FROM dlcore_trials")).all() == []
    engine.dispose()


def test_the_view_has_a_row_per_trial(
    database_url: str, make_facts: Callable[..., StudyFacts], make_trial: Callable[..., TrialRecord]
) -> None:
    storage = Storage(database_url)
    storage.create_study(make_facts("wine"))
    chosen = {
        "depth": 2,
        "width": 8,
        "activation": "tanh",
        "learning_rate": 1e-05,
        "momentum": 0.9,
        "initialization": "default",
        "dropout": 0.25,
    }
    trials = [
        make_trial(0, 1 / 3, hyperparameters=chosen, searched=("learning_rate",)),
        make_trial(1, None, FAIL, hyperparameters={"width": 4}, searched=(), reason="diverged"),
        make_trial(2, math.inf, hyperparameters={"learning_rate": 0.1}, searched=()),
        make_trial(3, -math.inf, hyperparameters={"learning_rate": 1.0}, searched=()),
    ]
    distributions = {"learning_rate": FloatDistribution(1e-6, 1.0)}
    storage.claim("wine", [t.suggestion for t in trials], [99] * 4, distributions)
    storage.record("wine", trials, 1.0)
    storage.close()
    engine = open_engine(database_url)
    with reading(engine) as connection:
        first, second, third, fourth = connection.execute(text("SELECT * FROM dlcore_trials ORDER BY number")).all()
    engine.dispose()
    assert (first.study, first.number, first.state, first.value) == ("wine", 0, "COMPLETE", 1 / 3)
    assert (first.n_parameters, first.seconds, first.cohort, first.best_epoch) == (99, 3.0, 0, 3)
    for name in ("depth", "width", "activation", "learning_rate", "momentum", "initialization"):
        assert getattr(first, name) == chosen[name], name
    assert first.other_hyperparameters.replace(" ", "") == '{"dropout":0.25}'
    assert (second.state, second.value, second.depth, second.reason) == ("FAIL", None, None, "diverged")
    assert (third.value, fourth.value) == (math.inf, -math.inf)
