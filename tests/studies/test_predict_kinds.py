"""`studies predict` on columns of every kind, written as people write them."""

import csv
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from dlcore.config import DataConfig, ModelConfig, PreprocessConfig
from dlcore.data import DataSplits, load_splits
from dlcore.errors import DataError
from dlcore.export import export_model
from dlcore.exported import ExportedModel
from dlcore.models import build_model
from studies.predict import predict_file

HEADER = "size;city;is_new;sold;price"
N = 400


def line(i: int) -> str:
    """Decimal commas, the day before the month, yes and no, and holes."""
    sold = date(2023, 1, 1) + timedelta(days=(i * 37) % 700)
    cells = (
        f"{1_000 + (i * 7919) % 997 / 8:.3f}".replace(".", ","),
        ("Rome", "Oslo", "Ä b", "")[i % 4],
        ("yes", "no", "")[i % 3],
        "" if i % 13 == 0 else f"{sold.day}/{sold.month}/{sold.year}",
        str(100 + (i * 31) % 977),
    )
    return ";".join(cells)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DataSplits]:
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "train.csv").write_text("\n".join([HEADER, *map(line, range(N))]), encoding="utf-8")
    config = DataConfig(
        path=str(folder / "train.csv"),
        target=("price",),
        task="regression",
        preprocessing=PreprocessConfig("quantile_normal", target_transform="log"),
    )
    splits = load_splits(config, 0)
    network = ModelConfig(splits.n_features, splits.n_outputs, (8,))
    return export_model(folder / "export", build_model(network, seed=1), network, splits, {}), splits


def predictions(folder: Path, rows: list[str], tmp_path: Path, header: str = HEADER) -> list[float]:
    (tmp_path / "rows.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    predict_file(folder, tmp_path / "rows.csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as stream:
        return [float(row["prediction"]) for row in csv.DictReader(stream)]


def test_rows_of_the_training_table_are_answered_as_the_network_that_was_trained(
    exported: tuple[Path, DataSplits], tmp_path: Path
) -> None:
    folder, splits = exported
    assert [column.kind for column in splits.val.x.columns] == ["numeric", "categorical", "boolean", "date"]
    expected = ExportedModel.load(folder).predict({c.name: c.raw() for c in splits.val.x.columns})["prediction"]
    found = predictions(folder, [line(i) for i in splits.val.rows.tolist()], tmp_path)
    np.testing.assert_array_equal(found, expected)


def test_one_row_is_read_as_the_training_table_was(exported: tuple[Path, DataSplits], tmp_path: Path) -> None:
    """A single 3/4/2024 does not say which is the month, nor 1,234 whether it is a thousand."""
    folder, _ = exported
    model = ExportedModel.load(folder)
    found = predictions(folder, ["1,234;Rome;yes;3/4/2024;"], tmp_path)
    usual = {"size": np.array([1.234]), "city": np.array(["Rome"]), "is_new": np.array(["yes"])}
    april = model.predict({**usual, "sold": np.array(["2024-04-03"])})["prediction"]
    march = model.predict({**usual, "sold": np.array(["2024-03-04"])})["prediction"]
    assert found == april.tolist() != march.tolist()


def test_unseen_and_missing_values_and_other_columns_are_answered(
    exported: tuple[Path, DataSplits], tmp_path: Path
) -> None:
    folder, _ = exported
    rows = ["x;1000,5;Atlantis;no;1/2/2031", "y;;;;", "z;1000000000;Oslo;;31/12/1950"]
    found = predictions(folder, rows, tmp_path, header="id;size;city;is_new;sold")
    assert len(found) == 3 and np.isfinite(found).all()


WRONG = {"size": "many;Rome;yes;3/4/2024", "sold": "1,0;Rome;yes;soon", "is_new": "1,0;Rome;maybe;"}


@pytest.mark.parametrize(("column", "row"), WRONG.items())
def test_a_cell_of_another_kind_is_refused_by_its_column(
    exported: tuple[Path, DataSplits], tmp_path: Path, row: str, column: str
) -> None:
    with pytest.raises(DataError, match=column):
        predictions(exported[0], [row], tmp_path, header="size;city;is_new;sold")
