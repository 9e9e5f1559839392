"""Records and studies that tests are made of."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from studies.records import COMPLETE, EpochRecord, Objective, StudyFacts, TrialRecord
from studies.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(f"sqlite:///{tmp_path / 'studies.db'}")


@pytest.fixture
def make_facts() -> Callable[..., StudyFacts]:
    def make(name: str = "wine", **changes: object) -> StudyFacts:
        values: dict[str, object] = {
            "uuid": f"{abs(hash(name)):032x}"[:32],
            "spec": {"study": name, "budget": {"trials": 4}},
            "objectives": (Objective("accuracy", "maximize"),),
            "task": "multiclass",
            "curve_metric": "accuracy",
            "cohort_size": 16,
            "n_features": 13,
            "n_outputs": 3,
            "data_name": "wine",
            "data_fingerprint": "f" * 64,
            "environment": {"torch": "2.13.0"},
            "created_at": time.time(),
        }
        return StudyFacts(name=name, **(values | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_trial() -> Callable[..., TrialRecord]:
    def make(number: int, value: float | None = 0.5, state: str = COMPLETE, **changes: object) -> TrialRecord:
        curve = tuple(EpochRecord(e, 1 / e, 0.5 / e, 0.9 - 0.1 / e, 0.05, 1_700_000_000.0 + e) for e in (1, 2, 3))
        values: dict[str, object] = {
            "hyperparameters": {"width": 8, "learning_rate": 0.1 * (number + 1) / 3, "activation": "tanh"},
            "searched": ("learning_rate", "activation"),
            "cohort": 0,
            "n_parameters": 99,
            "values": None if value is None else (value,),
            "curve": curve,
            "best_epoch": 3,
            "best_val_loss": 0.5 / 3,
            "started_at": 1_700_000_000.0,
            "finished_at": 1_700_000_003.0,
            "duration_s": 3.0,
            "samples_per_s": 1000.0,
            "device": "a processor",
            "peak_memory_bytes": 1 << 20,
        }
        return TrialRecord(number=number, state=state, **(values | changes))  # type: ignore[arg-type]

    return make
