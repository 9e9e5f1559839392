"""benchmarks.quality: the same rows for all, and values in the target's own unit."""

import argparse
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import HEADER, RIVAL_SEEDS, measured, rival_scores, rivals, spec_text
from dlcore.config import DataConfig
from dlcore.data import load_splits
from studies.spec import parse_spec


@pytest.mark.parametrize(("source", "task"), [("sklearn:iris", "multiclass"), ("sklearn:diabetes", "regression")])
def test_rivals_learn_from_train_and_are_measured_on_test(source: str, task: str) -> None:
    splits = load_splits(DataConfig(source), 0)
    for make in rivals(task).values():
        scores = rival_scores(splits, make)
        assert len(scores.values) == RIVAL_SEEDS and scores.seconds > 0
        if task == "multiclass":
            assert all(0.5 < value <= 1 for value in scores.values)
        else:
            deviation = float(np.std(splits.test.y))  # what a constant reaches, in the target's unit
            assert all(0.2 * deviation < value < 2.5 * deviation for value in scores.values)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_table_is_searched_as_a_person_would_and_stands_beside_its_rivals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    lines = []
    for size, side in draw.random((120, 2)).round(3).tolist():
        lines.append(f"{size},{'north' if side < 0.5 else 'south'},{size + 2 * (side < 0.5):.3f}")
    (tmp_path / "rents 1.csv").write_text("size,side,rent\n" + "\n".join(lines) + "\n")
    asked = argparse.Namespace(split=None, trials=2, seeds=2, seed=0)
    spec = parse_spec(spec_text(tmp_path / "rents 1.csv", "rent", asked), "t.toml", tmp_path)
    assert (spec.study, spec.budget.trials, spec.final.seeds) == ("rents_1", 2, 2)
    monkeypatch.setattr("benchmarks.quality.KEPT", tmp_path / "kept.json")
    line = measured(tmp_path / "rents 1.csv", "rent", asked)
    found = dict(zip(HEADER, line, strict=True))
    assert (found["train rows"], found["test"]) == ("72", "rmse")
    assert math.isfinite(float(found["network"].split()[0]))
    monkeypatch.setattr("benchmarks.quality.row", None)  # it is kept, and is not measured again
    assert measured(tmp_path / "rents 1.csv", "rent", asked) == line
