import math
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from sqlalchemy import delete, select, text

from studies import trials
from studies.database import writing
from studies.errors import StudiesError, UserError
from studies.records import (
    COMPLETE,
    FAIL,
    PRUNED,
    EpochRecord,
    Objective,
    StudyFacts,
    Suggestion,
    TrialRecord,
    Winner,
)
from studies.rows import CURVE_COLUMNS, curve_points
from studies.storage import Storage
from studies.tables import CURVES, WINNERS

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-4, 10.0, log=True),
    "activation": CategoricalDistribution(["relu", "tanh"]),
}


def claim(storage: Storage, trials: list[TrialRecord]) -> int:
    suggestions = [Suggestion(t.number, t.hyperparameters, t.searched, t.system_attrs) for t in trials]
    return storage.claim("wine", suggestions, [t.n_parameters for t in trials], DISTRIBUTIONS)


@pytest.fixture
def storage(database_url: str) -> Iterator[Storage]:
    opened = Storage(database_url)
    yield opened
    opened.close()


@pytest.fixture
def study(storage: Storage, make_facts: Callable[..., StudyFacts]) -> StudyFacts:
    facts = make_facts()
    storage.create_study(facts)
    return facts


def test_what_is_fixed_of_a_study_reads_back_equal_after_reopening(storage: Storage, study: StudyFacts) -> None:
    storage.close()
    assert Storage(storage.url).facts("wine") == study


def test_an_unknown_study_is_none_or_said_by_name(storage: Storage) -> None:
    assert storage.facts("nothing") is None
    with pytest.raises(UserError, match='no study "nothing"'):
        storage.records("nothing")


def test_a_name_that_another_program_took_is_refused(storage: Storage, make_facts: Callable[..., StudyFacts]) -> None:
    optuna.create_study(storage=storage.url, study_name="wine")
    with pytest.raises(UserError, match="made by another program"):
        storage.create_study(make_facts("wine"))
    assert storage.facts("wine") is None


def test_records_read_back_equal_after_reopening(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord]
) -> None:
    trials = [
        make_trial(0, 0.1 + 0.2),
        make_trial(1, 1 / 3, PRUNED, rungs={5: 1 / 3}, reason="not among the best", system_attrs={"a": [1, 2]}),
        make_trial(2, None, FAIL, curve=(), best_epoch=None, best_val_loss=None, reason="diverged"),
    ]
    claim(storage, trials)
    storage.record("wine", trials, 7.5)
    storage.close()
    reopened = Storage(storage.url)
    assert reopened.records("wine", has_curves=True) == trials
    assert reopened.spent_s("wine") == 7.5


def test_the_winner_stored_last_is_the_winner_though_the_clock_went_back(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord]
) -> None:
    trials = [make_trial(n) for n in range(3)]
    claim(storage, trials)
    storage.record("wine", trials, 1.0)
    for number in (0, 1, 2, 0):
        won = Winner(number, (0.5,), trials[number].hyperparameters, 99, {}, {}, "somewhere", "f" * 64)
        storage.store_winner("wine", won, 3)
        assert storage.winner("wine", must_be_sealed=True) == (won, 3)
        with writing(storage.engine) as connection:
            connection.exec_driver_sql("UPDATE dlcore_winners SET created_at = created_at + 3600")


def test_optuna_reads_what_was_written_here(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord]
) -> None:
    trials = [make_trial(0, 0.25), make_trial(1, 0.75), make_trial(2, 0.5, PRUNED, rungs={5: 0.5})]
    claim(storage, trials)
    storage.record("wine", trials, 1.0)
    loaded = optuna.load_study(study_name="wine", storage=storage.url)
    assert loaded.direction is optuna.study.StudyDirection.MAXIMIZE
    assert loaded.best_trial.number == 1
    assert loaded.best_params == {"learning_rate": trials[1].hyperparameters["learning_rate"], "activation": "tanh"}
    assert [t.state.name for t in loaded.trials] == [COMPLETE, COMPLETE, PRUNED]
    assert loaded.trials[2].intermediate_values == {5: 0.5}
    assert loaded.trials[2].value == 0.5
    assert loaded.trials[0].user_attrs["n_parameters"] == 99
    loaded.sampler = optuna.samplers.RandomSampler(seed=0)
    loaded.optimize(lambda t: t.suggest_float("learning_rate", 1e-4, 10.0, log=True), n_trials=1)
    assert loaded.trials[3].number == 3


def test_a_curve_point_that_is_not_finite_reads_back_as_nan(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord]
) -> None:
    trial = make_trial(0, curve=(EpochRecord(1, math.inf, math.nan, 0.1, 0.05, 1.0),))
    claim(storage, [trial])
    storage.record("wine", [trial], 1.0)
    (point,) = storage.records("wine", has_curves=True)[0].curve
    assert math.isnan(point.val_loss) and math.isnan(point.train_loss) and point.val_metric == 0.1


def test_a_cohort_is_claimed_whole_or_not_at_all(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord]
) -> None:
    with pytest.raises(StudiesError, match="another program added"):
        claim(storage, [make_trial(1), make_trial(2)])
    broken = make_trial(1, hyperparameters={"learning_rate": 0.1, "activation": object()})
    with pytest.raises((TypeError, ValueError)):
        claim(storage, [make_trial(0), broken])
    assert storage.records("wine") == []
    assert storage.states("wine") == {}


def test_the_numbers_of_cohorts_go_on(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord]
) -> None:
    assert claim(storage, [make_trial(0), make_trial(1)]) == 0
    assert claim(storage, [make_trial(2)]) == 1
    assert [(t.number, t.cohort, t.state) for t in storage.records("wine")] == [
        (0, 0, "RUNNING"),
        (1, 0, "RUNNING"),
        (2, 1, "RUNNING"),
    ]


def test_a_result_is_refused_where_the_trial_is_not_running(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord]
) -> None:
    trials = [make_trial(0), make_trial(1)]
    claim(storage, trials)
    storage.record("wine", trials[:1], 1.0)
    with pytest.raises(StudiesError, match="refused"):
        storage.record("wine", trials, 1.0)
    assert storage.states("wine") == {"RUNNING": 1, "COMPLETE": 1}
    assert storage.spent_s("wine") == 1.0


def test_released_trials_wait_with_their_hyperparameters_and_nothing_else(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord]
) -> None:
    trials = [make_trial(0), make_trial(1), make_trial(2)]
    claim(storage, trials)
    storage.record("wine", trials[:1], 1.0)
    loaded = optuna.load_study(study_name="wine", storage=storage.url)
    loaded._storage.set_trial_intermediate_value(loaded.trials[1]._trial_id, 5, 0.3)
    assert storage.release("wine") == [1, 2]
    assert storage.release("wine") == []
    waiting = storage.records("wine")[1]
    assert (waiting.state, waiting.hyperparameters, waiting.rungs) == ("WAITING", trials[1].hyperparameters, {})
    assert storage.take("wine", [1, 2]) == 1  # what is left over is a cohort of its own
    storage.release("wine")
    assert storage.take("wine", [1, 2]) == 1
    assert storage.states("wine") == {"RUNNING": 2, "COMPLETE": 1}
    with pytest.raises(StudiesError):
        storage.take("wine", [0])


def test_a_winner_is_replaced_by_its_later_self_and_followed_by_the_next(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord]
) -> None:
    trials = [make_trial(0), make_trial(1)]
    claim(storage, trials)
    storage.record("wine", trials, 1.0)
    assert storage.winner("wine") is None
    for number, n_finished in ((0, 1), (0, 2), (1, 2)):
        trial = trials[number]
        winner = Winner(number, (0.5,), trial.hyperparameters, 99, {"accuracy": 1.0}, {"accuracy": 0.9}, "e", "a" * 64)
        storage.store_winner("wine", winner, n_finished)
        assert storage.winner("wine") == (winner, n_finished)


def test_two_drivers_that_store_a_winner_at_once_leave_one_row_of_each_and_a_newest(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord]
) -> None:
    trials = [make_trial(0), make_trial(1)]
    claim(storage, trials)
    storage.record("wine", trials, 1.0)
    drivers, together = [Storage(storage.url), Storage(storage.url)], threading.Barrier(2)
    failures: list[BaseException] = []

    def store(driver: Storage, numbers: tuple[int, ...]) -> None:
        try:
            for number in numbers:
                won = Winner(number, (0.5,), trials[number].hyperparameters, 99, {}, {}, "somewhere", "f" * 64)
                together.wait(60)
                driver.store_winner("wine", won, 2)
        except BaseException as error:
            failures.append(error)
            together.abort()

    rounds = [(0, 0, 1, 0, 1, 1), (0, 1, 0, 0, 1, 0)]  # both the same trial, or each another
    threads = [threading.Thread(target=store, args=own) for own in zip(drivers, rounds, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with writing(storage.engine) as connection:
        rows = connection.execute(select(WINNERS.c.trial_id, WINNERS.c.created_at, WINNERS.c.sha256)).all()
    assert len(rows) == len({row.trial_id for row in rows}) == len({row.created_at for row in rows}) == 2
    assert all(row.sha256 for row in rows)
    assert storage.winner("wine", must_be_sealed=True) is not None
    for driver in drivers:
        driver.close()


def test_several_objectives_are_stored_in_their_order(
    storage: Storage, make_facts: Callable[..., StudyFacts], make_trial: Callable[..., TrialRecord]
) -> None:
    objectives = (Objective("accuracy", "maximize"), Objective("n_parameters", "minimize"))
    storage.create_study(make_facts(objectives=objectives))
    trials = [make_trial(0, values=(0.9, 99.0)), make_trial(1, values=(0.8, 50.0))]
    claim(storage, trials)
    storage.record("wine", trials, 1.0)
    assert [t.values for t in storage.records("wine")] == [(0.9, 99.0), (0.8, 50.0)]
    assert len(optuna.load_study(study_name="wine", storage=storage.url).best_trials) == 2


def test_trials_that_another_program_added_are_named_and_nothing_is_claimed(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord]
) -> None:
    claim(storage, [make_trial(0)])
    optuna.load_study(study_name="wine", storage=storage.url).enqueue_trial({"learning_rate": 0.1})
    with pytest.raises(UserError, match="has 2 trials, 1 of them its own"):
        claim(storage, [make_trial(1)])
    assert len(storage.records("wine")) == 1


def test_what_a_study_that_optuna_deleted_left_behind_is_nobodys(
    storage: Storage, make_facts: Callable[..., StudyFacts], make_trial: Callable[..., TrialRecord]
) -> None:
    storage.create_study(make_facts("old"))
    suggestion = make_trial(0).suggestion
    storage.claim("old", [suggestion], [1], DISTRIBUTIONS)
    optuna.delete_study(study_name="old", storage=storage.url)
    storage.create_study(make_facts("wine"))
    claim(storage, [make_trial(0), make_trial(1)])
    assert [t.number for t in storage.records("wine", has_curves=True)] == [0, 1]


ONLY_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@ONLY_SQLITE
@pytest.mark.parametrize("column", ["hyperparameters_json", "engine"])
def test_a_damaged_row_is_said_with_the_file(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord], tmp_path: Path, column: str
) -> None:
    claim(storage, [make_trial(0)])
    with sqlite3.connect(tmp_path / "studies.db") as connection:
        connection.execute(f"UPDATE dlcore_results SET {column} = CAST(X'ff7b' AS TEXT)")
    connection.close()
    with pytest.raises(StudiesError, match=r"studies\.db"):
        storage.records("wine")


@ONLY_SQLITE
def test_deleting_the_study_in_optuna_leaves_no_orphans(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord], tmp_path: Path
) -> None:
    trials = [make_trial(0)]
    claim(storage, trials)
    storage.record("wine", trials, 1.0)
    storage.close()
    with sqlite3.connect(tmp_path / "studies.db") as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for table in (
            "trial_params",
            "trial_values",
            "trial_intermediate_values",
            "trial_user_attributes",
            "trial_system_attributes",
            "trials",
            "study_directions",
            "study_system_attributes",
            "studies",
        ):
            connection.execute(f"DELETE FROM {table}")
        for table in ("dlcore_studies", "dlcore_cohorts", "dlcore_results", "dlcore_curves"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    connection.close()


FALSE = {
    "trials": "datetime_complete = '2020-01-01 00:00:00'",
    "trial_params": "param_value = param_value + 1e-12",
    "trial_values": "value = value + 1e-12",
    "trial_intermediate_values": "intermediate_value = 0.25",
    "trial_user_attributes": "value_json = '98'",
    "trial_system_attributes": "value_json = '[1, 3]'",
    "dlcore_results": "n_parameters = 98",
    "dlcore_curves": "train_loss = train_loss + 1e-12",
}


@pytest.mark.parametrize("table", FALSE)
def test_a_falsified_trial_is_found(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord], table: str
) -> None:
    told = [make_trial(n, 0.5, rungs={5: 0.5}, system_attrs={"a": [1, 2]}) for n in range(3)]
    claim(storage, told)
    storage.record("wine", told, 1.0)
    assert storage.falsified("wine") == []
    with writing(storage._engine) as connection:
        where = "trial_id = (SELECT trial_id FROM trials WHERE number = 1)"
        connection.execute(text(f"UPDATE {table} SET {FALSE[table]} WHERE {where}"))
    assert storage.falsified("wine") == [1]
    with writing(storage._engine) as connection:
        connection.execute(text("UPDATE dlcore_results SET sha256 = NULL"))
    assert storage.falsified("wine") == [0, 1, 2]


def test_a_transaction_that_holds_a_study_keeps_others_out(storage: Storage, study: StudyFacts) -> None:
    """What it reads stays true until it commits, as another process's claim shows."""
    began = threading.Event()
    done: list[str] = []

    def other() -> None:
        began.wait()
        storage.store_mirror("wine", "http://127.0.0.1:1", "7")
        done.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    with writing(storage._engine) as connection:
        trials.study_id(connection, "wine", is_locked=True)
        began.set()
        thread.join(0.3)
        done.append("first")
    thread.join(30)
    assert done == ["first", "other"]


def test_curves_that_are_copied_are_those_that_are_inserted_row_by_row(
    storage: Storage, study: StudyFacts, make_trial: Callable[..., TrialRecord]
) -> None:
    points = (
        EpochRecord(1, math.inf, math.nan, 0.1 + 0.2, 5e-324, 1.0),
        EpochRecord(2, 1e308, -0.0, 1 / 3, 0.1, 1.7e9),
    )
    told = [make_trial(0, curve=points), make_trial(1, curve=points[:1])]
    claim(storage, told)
    storage.record("wine", told, 1.0)
    with writing(storage._engine) as connection:
        fast = [tuple(row) for row in connection.execute(select(CURVES).order_by(CURVES.c.trial_id, CURVES.c.epoch))]
        connection.execute(delete(CURVES))
        ids = trials.ids_of(connection, trials.study_id(connection, "wine"), [0, 1])
        slow_rows = [
            {"trial_id": ids[t.number], **dict(zip(CURVE_COLUMNS, point, strict=True))}
            for t in told
            for point in curve_points(t)
        ]
        trials.insert_rows(connection, {CURVES: slow_rows})
        slow = [tuple(row) for row in connection.execute(select(CURVES).order_by(CURVES.c.trial_id, CURVES.c.epoch))]
    assert repr(fast) == repr(slow) and len(fast) == 3
    assert storage.falsified("wine") == []
