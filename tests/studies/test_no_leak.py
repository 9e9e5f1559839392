"""Nothing that a study sees helps on test unless it holds there: with a shuffled target, all is chance."""

from pathlib import Path

import numpy as np
import pytest

from studies.home import Home
from studies.runner import Run
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import NOBODY, SMALL_SPEC, Lines

pytestmark = pytest.mark.slow

N = 1500


def table(path: Path, *, is_shuffled: bool) -> None:
    """Numbers with holes, dates, few categories, and so many of another column that each has some five rows."""
    rng = np.random.default_rng(0)
    x, city, shop = rng.normal(size=N), rng.integers(0, 4, N), rng.integers(0, 300, N)
    day = np.datetime64("2024-01-01") + rng.integers(0, 700, N)
    taste = rng.normal(size=300)
    y = (x + 0.7 * city + taste[shop] > 1).astype(int)
    if is_shuffled:
        y = rng.permutation(y)
    rows = [
        f"{x[i]:.4f},{'' if i % 9 == 0 else round(x[i] ** 2, 3)},city {city[i]},shop {shop[i]},{day[i]},{y[i]}"
        for i in range(N)
    ]
    path.write_text("\n".join(["x,square,city,shop,day,y", *rows]))


def score(folder: Path, **changes: object) -> float:
    """Balanced accuracy of the winner on test."""
    spec = SMALL_SPEC | {
        "study": "leak",
        "data": {"path": str(folder / "t.csv"), "target": "y"},
        "training": {"epochs": 8, "batch_size": 64},
    }
    (home := folder / "home").mkdir()
    at = Home(home, f"sqlite:///{home / 'studies.db'}", NOBODY)
    outcome = Run(spec_from_dict(spec | changes), at, Storage(at.database_url), Lines()).execute(None)
    return outcome.export.winner.test_metrics["balanced_accuracy"]


def test_with_a_shuffled_target_the_test_score_is_chance(tmp_path: Path) -> None:
    table(tmp_path / "t.csv", is_shuffled=True)
    assert score(tmp_path) == pytest.approx(0.5, abs=0.09)  # three deviations of 300 rows


def test_with_the_target_itself_it_is_not(tmp_path: Path) -> None:
    table(tmp_path / "t.csv", is_shuffled=False)
    assert score(tmp_path) > 0.7
