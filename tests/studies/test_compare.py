"""studies.compare: three studies and a picture, and nothing twice."""

from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from studies import compare
from studies.compare import Comparison
from studies.errors import UserError
from studies.records import StudyFacts, TrialRecord
from studies.storage import Storage
from tests.studies.conftest import NOBODY

SPEC = """
study = "cellar"
budget = { trials = 6 }
search = { cohort = 3, halving = { first_rung = 2, reduction_factor = 2 } }
data = { source = "sklearn:wine" }
training = { epochs = 4 }
final = { candidates = 1, seeds = 2 }
"""


@pytest.mark.slow
def test_samplers_are_compared_as_studies_of_their_own_that_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("STUDIES_DB", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    spec = tmp_path / "cellar.toml"
    spec.write_text(SPEC)
    asked = Comparison(str(spec), "grid,tpe", None, 1)
    picture = compare.compare(asked)
    first = capsys.readouterr().out
    storage = Storage(f"sqlite:///{tmp_path / 'home' / 'studies.db'}")
    assert {name: len(storage.records(name)) for name in storage.names()} == {"cellar-grid": 6, "cellar-tpe": 6}
    assert picture.name == "samplers.png" and picture.read_bytes()[:4] == b"\x89PNG"
    assert "Stepped lines of the best value" in picture.with_suffix(".txt").read_text()
    table = first[first.index("sampler  ") :].splitlines()
    assert [line.split()[0] for line in table[1:3]] == ["grid", "tpe"] and "another seed may turn the order" in first
    drawn = picture.read_bytes()
    compare.compare(asked)  # again: nothing is trained, and the same comes out
    again = capsys.readouterr().out
    assert again[again.index("sampler  ") :] == first[first.index("sampler  ") :]
    assert picture.read_bytes() == drawn and "epoch 1/4" not in again
    with pytest.raises(UserError, match="at least two"):
        compare.compare(Comparison(str(spec), "tpe"))
    storage.close()


def test_samplers_are_not_compared_on_unequal_budgets(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_facts: Callable[..., StudyFacts],
    make_trial: Callable[..., TrialRecord],
) -> None:
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path))
    monkeypatch.delenv("STUDIES_DB", raising=False)
    spec = tmp_path / "cellar.toml"
    spec.write_text(SPEC)
    storage = Storage(f"sqlite:///{tmp_path / 'studies.db'}")
    storage.create_study(make_facts("cellar-tpe"))
    known = {"learning_rate": FloatDistribution(1e-4, 10.0, log=True)}
    asked = [make_trial(n, searched=("learning_rate",)).suggestion for n in range(7)]
    storage.claim("cellar-tpe", asked, [1] * 7, known)
    storage.close()
    with pytest.raises(UserError, match='study "cellar-tpe" has 7 trials already: give --trials 7 or more'):
        compare.compare(Comparison(str(spec), "random,tpe"))
