"""A table whose column says train, val or test, by a whole study: published splits are used as they are, and whatever
stands in the rows of test moves nothing but what is said of test."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from studies.home import Home
from studies.runner import Run
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import NOBODY, SMALL_SPEC, Lines

pytestmark = pytest.mark.slow

N, SIZES = 400, {"train": 240, "val": 80, "test": 80}


def write(path: Path, *, is_test_rubbish: bool) -> None:
    """Numbers with holes, dates, text and a target that follows from them; in test, if asked for, none of it does."""
    rng = np.random.default_rng(0)
    split = rng.permutation([name for name, n in SIZES.items() for _ in range(n)])
    x, square, city = rng.normal(size=N), rng.normal(size=N) ** 2, rng.integers(0, 4, N)
    day = np.datetime64("2024-01-01") + rng.integers(0, 700, N)
    y = np.where(x + 0.7 * city + 0.3 * square > 1, "yes", "no")
    rows = [
        [f"{x[i]:.4f}", "" if i % 9 == 0 else f"{square[i]:.3f}", f"city {city[i]}", day[i], y[i], split[i]]
        for i in range(N)
    ]
    if is_test_rubbish:
        for row in (row for row in rows if row[-1] == "test"):
            other = "no" if row[4] == "yes" else "yes"
            row[:5] = [f"{rng.normal() * 1e3:.1f}", "", f"town {rng.integers(50)}", "1999-12-31", other]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["x", "square", "city", "day", "y", "split"], *rows])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Homes of the study on the table as it is, and on the one with rubbish in test."""
    homes = []
    for is_rubbish in (False, True):
        root = tmp_path_factory.mktemp("rubbish" if is_rubbish else "clean")
        write(root / "t.csv", is_test_rubbish=is_rubbish)
        spec = SMALL_SPEC | {
            "study": "said",
            "data": {"path": str(root / "t.csv"), "target": "y", "split": {"column": "split"}},
            "training": {"epochs": 8, "batch_size": 64},
            "final": {"candidates": 3, "seeds": 2, "ensemble": "greedy"},
        }
        home = Home(root, f"sqlite:///{root / 'studies.db'}", NOBODY)
        Run(spec_from_dict(spec), home, Storage(home.database_url), Lines()).execute(None)
        homes.append(root)
    return homes


def test_rows_go_where_the_column_says_and_it_is_no_feature(both: list[Path]) -> None:
    (folder,) = (both[0] / "exports").iterdir()
    manifest = json.loads((folder / "model.json").read_text())
    assert manifest["data"]["rows"] == SIZES
    assert [column["name"] for column in manifest["columns"]] == ["x", "square", "city", "day"]


def test_what_stands_in_test_chooses_nothing(both: list[Path]) -> None:
    clean, rubbish = (Storage(f"sqlite:///{root / 'studies.db'}") for root in both)
    left, right = (storage.records("said", has_curves=True) for storage in (clean, rubbish))
    assert [t.hyperparameters for t in left] == [t.hyperparameters for t in right]
    assert [[e.val_loss for e in t.curve] for t in left] == [[e.val_loss for e in t.curve] for t in right]
    assert [t.state for t in left] == [t.state for t in right]
    won, other = (storage.winner("said") for storage in (clean, rubbish))
    assert won is not None and other is not None
    mine, theirs = won[0], other[0]
    assert (mine.number, mine.val_metrics) == (theirs.number, theirs.val_metrics)
    assert mine.final is not None and theirs.final is not None
    assert mine.final.finalists == theirs.final.finalists
    assert mine.final.is_ensemble == theirs.final.is_ensemble
    weights = [next((root / "exports").glob("*/weights.safetensors")).read_bytes() for root in both]
    assert weights[0] == weights[1]
    # The rubbish was read at last, and its targets are the opposite of what can be learnt.
    assert mine.test_metrics["accuracy"] > 0.75
    assert theirs.test_metrics["accuracy"] < 0.7
