"""benchmarks.table_space: every variant is a spec, and changes what it says."""

from pathlib import Path

import pytest

from benchmarks.table_space import VARIANTS, some_rows, spec_text
from studies.hyperparameters import Range, table_space
from studies.spec import StudySpec, parse_spec


def parsed(variant: str, folder: Path) -> StudySpec:
    (folder / "t.csv").write_text("a,y\n1,2\n")
    return parse_spec(spec_text(folder / "t.csv", "y", variant, 3, 48), "space.toml", folder)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_a_spec_that_differs_by_its_change_alone(variant: str, tmp_path: Path) -> None:
    spec = parsed(variant, tmp_path)
    assert (spec.seed, spec.budget.trials, spec.final.baselines) == (3, 48, False)
    changed = {k: v for k, v in spec.search_space.items() if table_space({}).get(k) != v}
    assert set(changed) == set(VARIANTS[variant].get("search_space", {})) - (
        {"preprocess"} if variant == "scalings" else set()
    )


def test_the_changes_arrive(tmp_path: Path) -> None:
    assert parsed("base", tmp_path).scalings == ("standard",)
    assert parsed("scalings", tmp_path).scalings == ("standard", "quantile_normal")
    assert parsed("100 epochs", tmp_path).training.epochs == 100
    assert parsed("width to 1024", tmp_path).search_space["width"] == Range(32, 1024, log=True)


def test_some_rows_are_the_same_ones_each_time(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a\n" + "\n".join(map(str, range(50))) + "\n")
    (tmp_path / "x").mkdir()
    drawn = [some_rows(path, 10, tmp_path / "x").read_text() for _ in range(2)]
    assert drawn[0] == drawn[1] and len(drawn[0].splitlines()) == 11
    assert some_rows(path, None, tmp_path) == path
