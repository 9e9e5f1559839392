import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcore import csvfile
from dlcore.config import SKLEARN_SETS, DataConfig
from dlcore.errors import DataError
from dlcore.tables import Table, read_features, read_table


def table(folder: Path, text: str, target: tuple[str, ...] = ("y",), drop: tuple[str, ...] = ()) -> Table:
    path = folder / "table.csv"
    path.write_text(text)
    return read_table(DataConfig(path=str(path), target=target, drop=drop))


@pytest.mark.parametrize("name", SKLEARN_SETS)
def test_every_bundled_set_is_read(name: str) -> None:
    read = read_table(DataConfig(source=f"sklearn:{name}"))
    assert read.name == name and list(read.targets) == ["target"]
    assert read.features.numbers().shape == (len(read.targets["target"]), len(read.features.names))
    assert np.isfinite(read.features.numbers()).all()


def test_bundled_classes_have_their_names_and_digits_their_numbers() -> None:
    def classes(name: str) -> list[object]:
        return sorted(set(read_table(DataConfig(source=f"sklearn:{name}")).targets["target"].tolist()))

    assert classes("iris") == ["setosa", "versicolor", "virginica"]
    assert classes("digits") == list(range(10))


def test_diabetes_is_in_its_own_units() -> None:
    read = read_table(DataConfig(source="sklearn:diabetes"))
    assert read.features.numbers()[:, read.features.names.index("age")].max() == 79


def test_columns_of_a_bundled_set_can_be_dropped() -> None:
    read = read_table(DataConfig(source="sklearn:wine", drop=("alcohol", "hue")))
    assert len(read.features.columns) == len(read.features.names) == 11 and "hue" not in read.features.names


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig(source="sklearn:digit"), "data.source must be one of sklearn:digits, .*; got 'sklearn:digit'"),
        (DataConfig(source="wine"), "got 'wine'"),
        (DataConfig(source="sklearn:wine", target=("hue",)), "has its own target: leave it out"),
        (DataConfig(source="sklearn:wine", drop=("alcool",)), r"'alcool'; did you mean 'alcohol'\?"),
        (
            DataConfig(source="sklearn:iris", drop=read_table(DataConfig(source="sklearn:iris")).features.names),
            "must keep a feature",
        ),
    ],
)
def test_a_wrong_bundled_set_is_refused(config: DataConfig, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(config)


def test_numbers_truth_and_missing_cells_become_features(tmp_path: Path) -> None:
    read = table(tmp_path, "a,t,y\n1.5,True,0\n,false,1\n NaN ,TRUE,0\n-2e3,,1\n?,FALSE,0\nn/a,true,1\n")
    np.testing.assert_array_equal(
        read.features.numbers(),
        [[1.5, 1], [math.nan, 0], [math.nan, 1], [-2000, math.nan], [math.nan, 0], [math.nan, 1]],
    )
    assert read.name == "table" and read.features.names == ("a", "t")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_every_number_is_read_exactly(tmp_path_factory: pytest.TempPathFactory, numbers: list[float]) -> None:
    text = "a,y\n" + "".join(f"{number!r},{number!r}\n" for number in numbers)
    read = table(tmp_path_factory.mktemp("csv"), text)
    assert read.features.numbers()[:, 0].tolist() == read.targets["y"].tolist() == numbers


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2.5", "-3"], np.float64),
        (["True", "false", "TRUE"], np.bool_),
        (["a", "2", "none"], np.str_),
        (["1_000", "2", "3"], np.str_),
    ],
)
def test_a_target_is_numbers_or_truth_or_text(tmp_path: Path, cells: list[str], kind: type) -> None:
    read = table(tmp_path, "a,y\n" + "".join(f"0, {cell} \n" for cell in cells)).targets["y"]
    assert issubclass(read.dtype.type, kind)
    if kind is np.str_:
        assert read.tolist() == cells


def test_targets_and_dropped_columns_are_no_features(tmp_path: Path) -> None:
    read = table(tmp_path, "id,a,y,b,z\nq,1,2,3,4\nr,5,6,7,8\n", target=("z", "y"), drop=("id",))
    assert read.features.names == ("a", "b") and read.features.numbers().tolist() == [[1, 3], [5, 7]]
    assert {name: values.tolist() for name, values in read.targets.items()} == {"z": [4, 8], "y": [2, 6]}


def test_a_row_index_without_a_name_can_be_dropped(tmp_path: Path) -> None:
    text = ",a,y\n0,1,2\n1,3,4\n"
    assert table(tmp_path, text, drop=("",)).features.names == ("a",)
    with pytest.raises(DataError, match=re.escape("column 1 has none (a row index?): name it, or leave it out")):
        table(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "target", "drop", "message"),
    [
        ("a,y\n", ("y",), (), "must have rows to learn from; it has only a header"),
        ("a,y\n1,2\n", ("x",), (), "must have the target column 'x'"),
        ("a,y\n1,2\n", ("y",), ("b",), "must have the dropped column 'b'"),
        ("a,y\n1,2\n", ("y",), ("y",), r"none that data.drop names; got target = \['y'\], drop = \['y'\]"),
        ("a,y\n1,2\n", ("y", "y"), (), "data.target must name each column once"),
        ("y\n2\n", ("y",), (), "must have a feature beside its target"),
        ("a,y\n1,2\n", ("y",), ("a",), "must have a feature beside its target"),
        ("a,y\n1,2\n1_0,3\n", ("y",), (), r"text is in 'a' \('1_0' in line 3\): leave text columns out with drop"),
        ("a,y\n1,2\n1e400,3\n", ("y",), (), "features must be finite; column 'a' is infinite in line 3"),
        ("a,y\n1,2\n-inf,3\n", ("y",), (), "column 'a' is infinite in line 3"),
        ("a,y\n1,2\n1,\n\n1,\n", ("y",), (), r"it is missing in 2 rows \(lines 3, 5\)"),
        ("a,y\n1,2\n1,nan\n", ("y",), (), r"the target 'y' .* is missing in 1 rows \(lines 3\)"),
        ("a,y\n1,x\n1,\n", ("y",), (), r"is missing in 1 rows \(lines 3\)"),
        ("a,y\n1,2\n1,inf\n", ("y",), (), r"is infinite in 1 rows \(lines 3\)"),
    ],
)
def test_a_table_that_cannot_be_learned_from_is_refused(
    tmp_path: Path, text: str, target: tuple[str, ...], drop: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        table(tmp_path, text, target, drop)


def test_all_text_columns_are_named_at_once_wherever_their_text_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csvfile, "_CHUNK_CELLS", 8)
    rows = "1,2,3,0\n" * 4 + "1,red,3,1\n" + "1,2,3,0\n" * 4 + "big,2,3,0\n" * 2
    with pytest.raises(DataError) as caught:
        table(tmp_path, "a,b,c,y\n" + rows)
    assert "text is in 'a' ('big' in line 11), 'b' ('red' in line 6): " in str(caught.value)
    assert str(caught.value).endswith("leave text columns out with drop = ['a', 'b']")


def test_features_to_predict_from_are_read_in_the_order_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("b,extra,a\n1,hello,2\n,world,4\n")
    np.testing.assert_array_equal(read_features(str(path), ("a", "b")), [[2, 1], [4, math.nan]])
    assert read_features(str(path), ()).shape == (2, 0)
    with pytest.raises(DataError, match="columns of the training; missing: 'c'"):
        read_features(str(path), ("a", "c"))
