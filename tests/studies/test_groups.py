"""A study whose rows belong together: its finals count groups of test rows, or say that these are too few."""

from pathlib import Path

import numpy as np
import pytest

from studies import finals
from studies.display import winner_lines
from studies.home import Home
from studies.records import Objective, Winner
from studies.runner import Run
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import NOBODY, SMALL_SPEC, Lines

pytestmark = pytest.mark.slow

ACCURACY = Objective("accuracy", "maximize")


def winner_of(folder: Path, n_patients: int) -> Winner:
    """Of a study on 300 rows, as many of each patient, as the study database holds it."""
    rng = np.random.default_rng(0)
    patient = np.arange(300) % n_patients
    x = rng.normal(size=n_patients)[patient] + 0.1 * rng.normal(size=300)
    y = (x + rng.normal(size=n_patients)[patient] > 0).astype(int)
    rows = [f"{a:.4f},{b:.4f},patient {p},{c}" for a, b, p, c in zip(x, rng.normal(size=300), patient, y, strict=True)]
    (folder / "t.csv").write_text("\n".join(["x,noise,patient,y", *rows]))
    data = {"path": str(folder / "t.csv"), "target": "y", "split": {"group": "patient"}}
    home = Home(folder, f"sqlite:///{folder / 'studies.db'}", NOBODY)
    run = Run(spec_from_dict(SMALL_SPEC | {"study": "g", "data": data}), home, Storage(home.database_url), Lines())
    run.execute(None)
    stored = run.storage.winner("g")
    assert stored is not None
    return stored[0]


def test_groups_of_test_widen_the_interval_and_the_verdict_counts_them(tmp_path: Path) -> None:
    winner = winner_of(tmp_path, 100)
    final = winner.final
    assert final is not None and final.n_groups == 20
    assert " over seeds and groups of rows, gap " in "\n".join(winner_lines(winner, ACCURACY))
    seeds, groups = finals.intervals(final.test)["accuracy"], final.over_rows["accuracy"]
    assert groups.high - groups.low > seeds.high - seeds.low
    assert all("accuracy" in rival.lead for rival in final.rivals)
    assert "not measured" not in finals.verdict(winner, ACCURACY)


def test_too_few_groups_are_over_seeds_alone_and_the_verdict_says_so(tmp_path: Path) -> None:
    winner = winner_of(tmp_path, 20)
    assert winner.final is not None and winner.final.n_groups == 4 and not winner.final.over_rows
    assert " over seeds, gap " in "\n".join(winner_lines(winner, ACCURACY))
    assert finals.verdict(winner, ACCURACY).endswith("whether other seeds and rows would say so was not measured")
