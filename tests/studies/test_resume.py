"""Resume equals never stopped: studies whose process is killed while a cohort trains, held against an unbroken one."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studies import runner
from studies.home import Home
from studies.records import EpochDone, TrialRecord
from studies.runner import Run
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import NOBODY, Lines

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


def live(root: str, url: str, spec: dict[str, Any], kill_at: tuple[int, int] | None) -> None:
    """Run a study, to its end or to its death."""
    runner._PATIENCE_S = 0.1
    display = Lines()

    def kill(event: EpochDone) -> None:
        if kill_at is not None and event.number // 4 >= kill_at[0] and event.epoch.epoch >= kill_at[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    display.on_epoch = kill
    home = Home(Path(root), url, NOBODY)
    Run(spec_from_dict(spec), home, Storage(url), display).execute(None)


def in_process(root: Path, url: str, spec: dict[str, object], kill_at: tuple[int, int] | None) -> int | None:
    """Exit code of a life in a process of its own."""
    root.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["studies.runner"])  # torch is read once, and has no threads yet
    process = context.Process(target=live, args=(str(root), url, spec, kill_at))
    process.start()
    process.join()
    return process.exitcode


def bits(trials: list[TrialRecord]) -> list[str]:
    """All of the trials but times and memory, as text, in which a NaN equals a NaN."""
    forgotten: dict[str, Any] = dict.fromkeys(
        ("started_at", "finished_at", "duration_s", "samples_per_s", "peak_memory_bytes")
    )
    return [repr(replace(t, curve=tuple(replace(e, finished_at=0.0) for e in t.curve), **forgotten)) for t in trials]


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
