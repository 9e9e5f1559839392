"""A real tracking server beside real studies."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from studies import mirroring, server
from studies.home import Home
from studies.storage import Storage
from tests.conftest import Studies
from tests.studies.conftest import Lines
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
