import time
import uuid

import pytest

from studies import mlflow_tables


def test_ids_of_later_runs_come_behind_and_no_two_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for now_ms in (1_800_000_000_000, 1_800_000_000_001, 1_900_000_000_000):
        monkeypatch.setattr(time, "time_ns", lambda now_ms=now_ms: now_ms * 1_000_000)
        found.append({mlflow_tables.new_run_id() for _ in range(1_000)})
    assert all(len(own) == 1_000 for own in found)
    assert max(found[0]) < min(found[1]) and max(found[1]) < min(found[2])
    for run_id in (min(found[0]), max(found[2])):
        own = uuid.UUID(run_id)
        assert own.hex == run_id and own.version == 7 and own.variant == uuid.RFC_4122
    assert uuid.UUID(min(found[0])).int >> 80 == 1_800_000_000_000


def test_a_row_of_a_run_names_its_own_folder() -> None:
    row = mlflow_tables.new_run("7", "trial-3", "FINISHED", 10, 20)
    assert row["artifact_uri"] == f"{mlflow_tables.ROOT}7/{row['run_uuid']}/artifacts" and row["experiment_id"] == 7
