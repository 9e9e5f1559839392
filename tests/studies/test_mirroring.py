"""A real tracking server beside real studies."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from studies import server
from tests.conftest import Studies
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
