from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dlcore.config import DataConfig, SplitConfig
from dlcore.errors import DataError
from dlcore.tables import Table, read_table


def table(folder: Path, cells: list[str], kinds: dict[str, str] | None = None, **split: str) -> Table:
    path = folder / "table.csv"
    rows = [f"{i**2},{cell},{i % 2}" for i, cell in enumerate(cells)]
    path.write_text("\n".join(["a,s,y", *rows]))
    return read_table(
        DataConfig(path=str(path), target=("y",), split=SplitConfig(**split), kinds=kinds or {})  # type: ignore[arg-type]
    )


def test_the_column_that_divides_is_no_feature(tmp_path: Path) -> None:
    read = table(tmp_path, ["train", "Val", " TEST ", "validation", "test"] * 3, column="s")
    assert read.features.names == ("a",) and read.divider is not None
    assert read.divider.values[:5].tolist() == [0, 1, 2, 1, 2]
    assert [finding.kind for finding in read.findings] == ["numeric", "split", "target"]


def test_groups_are_numbered_by_what_the_cells_say(tmp_path: Path) -> None:
    read = table(tmp_path, ["7", "b", "7", "07", "b"], group="s")
    assert read.divider is not None and read.features.names == ("a",)
    assert len(set(read.divider.values.tolist())) == 3 and read.divider.values[0] == read.divider.values[2]


def test_time_is_dates_or_numbers_and_a_feature_only_where_kinds_names_it(tmp_path: Path) -> None:
    days = [f"2024-01-{i + 1:02d}" for i in range(20)]
    for cells, kinds in ((days, {}), ([str(i) for i in range(20)], {}), (days, {"s": "date"})):
        read = table(tmp_path, cells, kinds, time="s")
        assert read.divider is not None and (np.diff(read.divider.values) > 0).all()
        assert ("s" in read.features.names) == bool(kinds)


def test_a_column_to_split_by_may_be_the_only_feature(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("s,y\n" + "".join(f"{i},{i * i % 7}\n" for i in range(20)))
    config = DataConfig(
        path=str(tmp_path / "t.csv"), target=("y",), split=SplitConfig(time="s"), kinds={"s": "numeric"}
    )
    assert read_table(config).features.names == ("s",)
    with pytest.raises(DataError, match="no column is left for one"):
        read_table(replace(config, kinds={}))


@pytest.mark.parametrize(
    ("cells", "split", "message"),
    [
        (["train", "test", "maybe"], "column", "must say train, val or test in every row; line 4 has 'maybe'"),
        (
            ["train", "test", ""],
            "column",
            "'s' must be known in every row; it is missing in 1 rows, the first is line 4",
        ),
        (["train", "val"], "column", "must have rows of train and of test; it has 'train', 'val'"),
        (["a", "", "b"], "group", "'s' must be known in every row; it is missing in 1 rows, the first is line 3"),
        (["2024-01-01", "", "2024-01-02"], "time", "it is missing in 1 rows, the first is line 3"),
        (["long ago", "soon"], "time", "the time column 's' must hold dates or numbers; it has 'long ago'"),
        (["1", "inf"], "time", "column 's' is infinite in line 3"),
    ],
)
def test_a_column_that_cannot_divide_is_refused(tmp_path: Path, cells: list[str], split: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(tmp_path, cells, **{split: "s"})


def test_a_class_with_an_endless_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n1,b\n2," + "c" * 201 + "\n")
    with pytest.raises(DataError, match="at most 200 characters; the target 'y' has one of 201, 'cccc"):
        read_table(DataConfig(path=str(path), target=("y",)))


def test_yes_and_no_are_classes_by_their_names_and_true_and_false_are_truth(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for words, kind in ((("yes", "no"), "U"), (("True", "false"), "b"), (("1.000,5", "2"), "f")):
        path.write_text("a;y\n" + "".join(f"{i**2};{words[i % 2]}\n" for i in range(6)))
        assert read_table(DataConfig(path=str(path), target=("y",))).targets["y"].dtype.kind == kind
