import math
import re
import socket
from pathlib import Path

import numpy as np
import pandas as pd
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
    text = "a,b,y\n" + "".join(f"{number!r},{i**2},{number!r}\n" for i, number in enumerate([*numbers, 0.5, 1.5]))
    read = table(tmp_path_factory.mktemp("csv"), text)
    assert read.features.numbers()[:, 0].tolist() == read.targets["y"].tolist() == [*numbers, 0.5, 1.5]


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
    read = table(tmp_path, "a,y\n" + "".join(f"{i}, {cell} \n" for i, cell in enumerate(cells))).targets["y"]
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
    with pytest.raises(DataError, match=re.escape("one has none (a row index?): name it, or leave it out")):
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
        ("a,b,y\n1,3,2\n1,3,3\n", ("y",), (), "its columns are identifiers or never change: .* kinds says"),
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


@pytest.mark.parametrize("text", ["red", "1_0", "0x1", "1e", "--", "1.2.3"])
def test_text_that_comes_after_many_numbers_is_read_with_all_cells_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(csvfile, "_CHUNK_CELLS", 8)
    rows = "".join(f"0{i % 3}.50,{i**2},{i}\n" for i in range(20))
    read = table(tmp_path, "a,b,y\n" + rows + f"{text},2,3\n")
    assert [column.kind for column in read.features.columns] == ["categorical", "numeric"]
    assert set(read.features.columns[0].categories) == {"00.50", "01.50", "02.50", text}
    assert read.features.columns[1].values.tolist() == [*(i**2 for i in range(20)), 2]


def test_decimal_commas_are_read_where_semicolons_separate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvfile, "_CHUNK_CELLS", 8)
    numbers = [i**2 / 8 for i in range(30)]
    text = "".join(f"{n:.3f};{1000 * i**2:,};{i}\n".replace(",", "_").replace(".", ",") for i, n in enumerate(numbers))
    read = table(tmp_path, "a;b;y\n" + text.replace("_", "."))
    assert [column.kind for column in read.features.columns] == ["numeric", "numeric"]
    np.testing.assert_array_equal(read.features.numbers(), [[n, 1000 * i**2] for i, n in enumerate(numbers)])
    assert {finding.name: finding.why for finding in read.findings} == {
        "a": "written as 1.234,5", "b": "written as 1.234,5", "y": "",
    }  # fmt: skip


def test_features_to_predict_from_are_read_in_the_order_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("b,extra,a,city,sold\n1,hello,2,Rome,3/4/2024\n,world,4,n/a,\n")
    kinds = {"sold": "date", "a": "numeric", "city": "categorical", "b": "numeric"}
    read = read_features(str(path), kinds, {"sold": "month/day/year"})
    assert read.names == tuple(kinds)
    sold, a, city, b = read.columns
    assert sold.values[0] == np.datetime64("2024-03-04").astype("datetime64[s]").astype(int) and sold.is_missing[1]
    assert a.values.tolist() == [2, 4] and b.values[0] == 1 and b.is_missing[1]
    assert city.texts().tolist() == ["Rome", ""]
    with pytest.raises(DataError, match="columns of the training; missing: 'c'"):
        read_features(str(path), {"a": "numeric", "c": "numeric"})
    with pytest.raises(DataError, match="'extra' must hold numbers to be numeric; line 2 has 'hello'"):
        read_features(str(path), {"extra": "numeric"})


def test_numbers_are_read_to_predict_from_as_they_were_written_in_the_training(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("a\n1.234\n2\n")
    for form, number in (("", 1.234), ("1234.5", 1.234), ("1.234,5", 1234)):
        assert read_features(str(path), {"a": "numeric"}, {"a": form}).columns[0].values.tolist() == [number, 2]


def test_a_file_without_rows_can_be_predicted_from(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("a,city,sold,is\n")
    kinds = {"a": "numeric", "city": "categorical", "sold": "date", "is": "boolean"}
    assert len(read_features(str(path), kinds)) == 0


def test_an_address_in_a_file_is_text_and_nobody_is_asked(tmp_path: Path) -> None:
    """Names, cells and classes that are addresses, as pandas and Parquet would follow them in a path."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        here = f"http://127.0.0.1:{server.getsockname()[1]}"
        cells = [f"{here}/{i % 3}.csv,=WEBSERVICE({here}/{i % 5}),file:///{i % 4},{here}/{i % 2}" for i in range(30)]
        path = tmp_path / "table.csv"
        path.write_text("\n".join([f"{here}/a.csv,b,c,y", *cells]))
        by_csv = read_table(DataConfig(path=str(path), target=("y",)))
        pd.read_csv(path).to_parquet(tmp_path / "table.parquet")
        by_parquet = read_table(DataConfig(path=str(tmp_path / "table.parquet"), target=("y",)))
        with pytest.raises(TimeoutError):
            server.accept()
    for table in (by_csv, by_parquet):
        assert table.features.columns[0].categories == tuple(f"{here}/{i}.csv" for i in range(3))
        assert set(table.targets["y"].tolist()) == {f"{here}/0", f"{here}/1"}
