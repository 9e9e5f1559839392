"""Optuna's own tests of a storage, over both databases; and again with the database opened anew for every reading."""

import multiprocessing
import pickle
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from studies.optuna_storage import StudyStorage
from tests.postgres import PASSWORD


class TestStudyStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseStorage]:
        monkeypatch.setenv("PGPASSWORD", PASSWORD.replace("%25", "%"))  # a pickled storage does not hold it
        opened = StudyStorage(database_url)
        yield opened
        opened.close()


class Reopening(StudyStorage):
    """Forgets all it knows before every reading."""

    def __init__(self, url: str) -> None:
        self.secret_url = url
        super().__init__(url)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("get_"):
            self.close()
            self.__dict__.update(StudyStorage(self.secret_url).__dict__)
        return super().__getattribute__(name)


@pytest.mark.slow
class TestStudyStorageFromDisk(StorageTestCase):
    @pytest.fixture
    def storage(self, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseStorage]:
        monkeypatch.setenv("PGPASSWORD", PASSWORD.replace("%25", "%"))  # a pickled storage does not hold it
        opened = Reopening(database_url)
        yield opened
        opened.close()


def test_optuna_runs_a_study_on_it_and_reads_it_without_it(database_url: str) -> None:
    study = optuna.create_study(storage=StudyStorage(database_url), study_name="theirs", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
    loaded = optuna.load_study(study_name="theirs", storage=database_url)
    assert [t.params for t in loaded.trials] == [t.params for t in study.trials]
    assert loaded.best_value == study.best_value


def test_a_pickle_holds_no_password(postgres_url: str) -> None:
    storage = StudyStorage(postgres_url)
    assert PASSWORD.encode() not in pickle.dumps(storage)
    assert PASSWORD not in f"{storage.url} {storage.engine}"
    storage.close()


def claim_all(url: str, start: Any, claimed: Any) -> None:
    storage = StudyStorage(url)
    study_id = storage.get_study_id_from_name("shared")
    waiting = [t._trial_id for t in storage.get_all_trials(study_id)]
    start.wait()
    claimed.put([i for i in waiting if storage.set_trial_state_values(i, TrialState.RUNNING)])
    storage.close()


@pytest.mark.slow
def test_of_several_processes_one_claims_a_waiting_trial(database_url: str) -> None:
    study = optuna.create_study(storage=StudyStorage(database_url), study_name="shared")
    for i in range(40):
        study.enqueue_trial({"x": i})
    context = multiprocessing.get_context("spawn")
    start, claimed = context.Barrier(4), context.Queue()
    children = [context.Process(target=claim_all, args=(database_url, start, claimed)) for _ in range(4)]
    for child in children:
        child.start()
    found = [claimed.get(timeout=120) for _ in children]
    for child in children:
        child.join()
    assert sorted(i for own in found for i in own) == sorted(t._trial_id for t in study.trials)
