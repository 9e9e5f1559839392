"""A real tracking server beside real studies."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from studies import mirroring, server
from studies.database import writing
from studies.home import Home
from studies.records import StudyFacts, TrialRecord, Winner
from studies.storage import Storage
from studies.tables import WINNERS
from tests.conftest import Studies
from tests.studies.conftest import NOBODY, Lines
from tests.studies.mirror_tools import PATIENCE_S, PORT

pytestmark = pytest.mark.slow
TOML = """
study = "wine"
budget = { trials = 3 }
data = { source = "sklearn:wine" }
training = { epochs = 2 }
final = { seeds = 0, baselines = false }
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "served"
    server.find_or_start(folder, port=PORT, timeout_s=PATIENCE_S)
    yield folder
    server.stop(folder)


def test_a_raised_budget_is_what_mlflow_shows(served: Path, studies: Studies, tmp_path: Path) -> None:
    (tmp_path / "wine.toml").write_text(TOML)
    for words in ((), ("--trials", 6)):
        ran = studies("run", "wine.toml", *words, home=served)
        assert ran.returncode == 0, ran.stderr
    checked = studies("doctor", home=served)
    assert (checked.returncode, checked.stdout) == (0, "1 study is sound: 6 trials\n"), checked.stdout


class Refusing:
    """A mirror whose server has the trials, and takes no winner."""

    pending, error, said, address, experiment_id = 0, "the winner could not be registered: no", "", None, None

    def register(self, winner: object) -> None:
        pass

    def finish(self, status: str, timeout_s: float) -> bool:
        return False


def test_a_winner_that_mlflow_does_not_take_is_what_it_lacks(tmp_path: Path, storage: Storage) -> None:
    display, home = Lines(), Home(tmp_path, "", None)
    mirror: Any = Refusing()
    winner: Any = None
    assert mirroring.hand_over(mirror, winner, home, storage, "wine", display) is None
    assert display.said == [
        "warning: MLflow lacks the winner or its report (the winner could not be registered: no); "
        "`studies track wine` brings it in line"
    ]


class Silent:
    """A mirror that says how it stands, and remembers which winner it was given."""

    address, experiment_id, said, error, pending = "http://127.0.0.1:9", "7", "", None, 0

    def __init__(self, *, is_done: bool) -> None:
        self.is_done, self.registered = is_done, list[int]()

    def register(self, winner: Winner) -> None:
        self.registered.append(winner.number)

    def finish(self, _status: str, _timeout_s: float) -> bool:
        return self.is_done

    def put(self, _numbers: list[int]) -> None:
        """Trials."""

    def start(self) -> None:
        """Nothing to do."""

    report = close = start


def stored_winner(storage: Storage, facts: StudyFacts, trial: TrialRecord, folder: Path) -> Winner:
    storage.create_study(facts)
    storage.claim("wine", [replace(trial.suggestion, searched=())], [1], {})
    storage.record("wine", [replace(trial, searched=())], 1.0)
    won = Winner(0, (0.5,), trial.hyperparameters, 1, {}, {"accuracy": 0.5}, str(folder), "f" * 64)
    storage.store_winner("wine", won, 1)
    return won


def test_a_falsified_winner_is_not_registered(
    storage: Storage,
    make_facts: Callable[..., StudyFacts],
    make_trial: Callable[..., TrialRecord],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home, facts, mirror = Home(tmp_path, storage.url, NOBODY), make_facts(), Silent(is_done=True)
    stored_winner(storage, facts, make_trial(0), tmp_path)
    monkeypatch.setattr(mirroring, "open_mirror", lambda *_args, **_more: mirror)
    mirroring.bring_in_line(home, storage, facts, Lines())
    assert mirror.registered == [0]
    with writing(storage.engine) as connection:
        connection.execute(update(WINNERS).values(test_metrics_json='{"accuracy": 0.9}'))
    mirroring.bring_in_line(home, storage, facts, Lines())
    assert mirror.registered == [0]
