"""Resume equals never stopped: studies whose process is killed while a cohort trains, held against an unbroken one."""

import signal
from pathlib import Path

import pytest

from studies.storage import Storage
from tests.studies.lives import bits, in_process

pytestmark = pytest.mark.slow

HALVING = {"first_rung": 2, "reduction_factor": 2}
GRID = {"width": [4, 8, 16], "activation": ["relu", "leaky_relu", "tanh"], "slope": [0.1, 0.2]}
KILLS = [(0, 1), (0, 3), (2, 2)]
"""The cohort and the epoch in which each life of the broken study ends; the last life has no such end."""


def spec_of(sampler: str, halving: object) -> dict[str, object]:
    spec: dict[str, object] = {
        "study": "wine",
        "seed": 11,
        "budget": {"trials": 10},
        "data": {"source": "sklearn:wine"},
        "search": {"sampler": sampler, "cohort": 4, "halving": halving},
        "training": {"epochs": 4, "batch_size": 32},
    }
    return spec | ({"search_space": GRID} if sampler == "grid" else {})


@pytest.mark.parametrize("halving", [HALVING, False], ids=["halving", "whole"])
@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "grid", "gp", "nsga2"])
def test_a_study_killed_in_training_ends_as_one_that_never_was(
    sampler: str, halving: object, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    spec = spec_of(sampler, halving)
    # Both databases hold the same; PostgreSQL with one sampler each way shows that they do.
    whole_url = f"sqlite:///{tmp_path / 'whole.db'}"
    url = request.getfixturevalue("postgres_url") if sampler == "tpe" else f"sqlite:///{tmp_path / 'killed.db'}"
    assert in_process(tmp_path / "whole", whole_url, spec, None) == 0
    for kill_at in KILLS:
        assert in_process(tmp_path / "killed", url, spec, kill_at) == -signal.SIGKILL
        storage = Storage(url)
        assert storage.states("wine").get("RUNNING", 0) > 0
        storage.close()
    assert in_process(tmp_path / "killed", url, spec, None) == 0
    whole, killed = Storage(whole_url), Storage(url)
    expected = whole.records("wine", has_curves=True)
    assert len(expected) == 10 and {t.engine for t in expected} == {"population"}
    assert bits(killed.records("wine", has_curves=True)) == bits(expected)
    assert killed.falsified("wine") == [] and killed.others("wine") == (0, 0)
    whole.close()
    killed.close()
