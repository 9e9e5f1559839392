"""benchmarks.answers: an export answers the same wherever it is asked, on a table with columns of every kind."""

import csv
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.answers import SCRIPT, Truth, as_json, ask_all, by_torch, spoil
from dlcore.config import DataConfig, ModelConfig
from dlcore.data import load_splits
from dlcore.export import export_model
from dlcore.exported import ExportedModel
from dlcore.models import build_model
from dlcore.preprocess import Preprocessor
from tests.dlcore.clean import make_clean

KINDS = {"size": "numeric", "rooms": "numeric", "city": "categorical", "is_new": "boolean", "sold": "date"}


def made(folder: Path, task: str) -> Path:
    """An export that was made of a CSV table, `folder / "table.csv"`."""
    rng = np.random.default_rng(0)
    with (folder / "table.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*KINDS, "y"])
        for _ in range(400):
            cells: list[object] = [
                f"{rng.lognormal(3, 1):.3f}",
                rng.integers(1, 9),
                rng.choice(["Rome", "Ä b", "x, y"]),
            ]
            cells += [rng.choice(["yes", "no"]), date(2020, 1, 1) + timedelta(days=int(rng.integers(0, 900)))]
            holed = ["" if rng.random() < 0.1 else cell for cell in cells]
            y = rng.choice(["low", "high"]) if task == "binary" else f"{rng.lognormal(8, 1):.1f}"
            writer.writerow([*holed, y])
    splits = load_splits(DataConfig(path=str(folder / "table.csv"), target=("y",)), 0)
    assert {c.name: c.kind for c in splits.train.x.columns} == KINDS and splits.task == task
    config = ModelConfig(splits.n_features, splits.n_outputs, (16, 8))
    return export_model(folder / "export", build_model(config, seed=1), config, splits, {})


@pytest.mark.slow  # MLflow serves
@pytest.mark.filterwarnings("ignore")  # of MLflow's own code
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_all_ways_to_ask_agree_with_pytorch(tmp_path: Path, task: str) -> None:
    export = made(tmp_path, task)
    spoil(tmp_path / "table.csv", tmp_path / "rows.csv", KINDS, 150)
    packages = make_clean(tmp_path / "packages")
    python = [sys.executable, "-I", "-S", "-c", f"import sys\nsys.path.append({str(packages)!r})\n{SCRIPT}"]
    gaps = ask_all(export, tmp_path / "rows.csv", python, tmp_path)
    assert list(gaps) == ["predict.py", "studies predict", "studies serve", "mlflow models serve"]
    assert max(gaps.values()) <= 1e-5


def test_rows_that_are_asked_have_holes_and_what_no_row_of_the_table_has(tmp_path: Path) -> None:
    export = made(tmp_path, "binary")
    spoil(tmp_path / "table.csv", tmp_path / "rows.csv", KINDS, 300)
    rows = as_json(tmp_path / "rows.csv", KINDS)
    assert len(rows) == 300 and by_torch(export, tmp_path / "rows.csv").values.shape == (300, 2)
    for name in KINDS:
        assert 10 < sum(row[name] is None for row in rows) < 100
    assert any(row["city"] == "no such thing" for row in rows) and max(row["rooms"] or 0 for row in rows) > 9
    assert {row["is_new"] for row in rows} == {True, False, None}


def test_a_difference_is_seen_however_it_comes(tmp_path: Path) -> None:
    export = made(tmp_path, "binary")
    truth = by_torch(export, tmp_path / "table.csv")
    model = ExportedModel.load(export)
    assert truth.labels == ("high", "low") == model.class_labels
    right = {f"probability_{label}": truth.values[:, i].tolist() for i, label in enumerate(truth.labels)}
    labels = [truth.labels[i] for i in truth.values.argmax(axis=1)]
    assert truth.gap({"label": labels, **right}) == 0
    moved = {**right, "probability_low": [v + 2e-5 for v in right["probability_low"]]}
    assert truth.gap(moved) == pytest.approx(2e-5)
    surest = int(np.abs(truth.values[:, 0] - 0.5).argmax())
    false = [*labels[:surest], "low" if labels[surest] == "high" else "high", *labels[surest + 1 :]]
    with pytest.raises(ValueError, match=f"row {surest} must not be"):
        truth.gap({"label": false, **right})
    with pytest.raises(ValueError, match="must have shape"):
        truth.gap({name: values[:-1] for name, values in right.items()})
    assert np.isnan(truth.gap({**right, "probability_low": [float("nan")] * len(labels)}))


def test_quantities_are_compared_in_deviations_of_the_target(tmp_path: Path) -> None:
    export = made(tmp_path, "regression")
    truth = by_torch(export, tmp_path / "table.csv")
    assert isinstance(truth, Truth) and isinstance(truth.preprocessor, Preprocessor)
    own = truth.preprocessor.unscale_target(truth.values)[:, 0]
    deviation = float(np.ravel(truth.preprocessor.target_scale)[0])
    assert truth.gap({"prediction": own.tolist()}) < 1e-12
    assert truth.gap({"prediction": (own + 0.01 * deviation).tolist()}) == pytest.approx(0.01, rel=0.5)
