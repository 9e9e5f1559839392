from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlcore import frames
from dlcore.config import DataConfig
from dlcore.errors import DataError
from dlcore.tables import Table, frame_features, read_frame, read_table

N = 12
MOMENT = datetime(2024, 2, 29, 12, tzinfo=UTC)
EAST = timezone(timedelta(hours=2))
FRAME = pd.DataFrame(
    {
        "whole": np.arange(N) ** 2,
        "nullable": pd.array([None, *range(N - 1)], dtype="Int64"),
        "real": np.where(np.arange(N) == 3, np.nan, np.arange(N) / 8),
        "truth": np.arange(N) % 2 == 0,
        "maybe": pd.array([None, True, False] * 4, dtype="boolean"),
        "city": ["Rome", " Oslo", None, "Rome"] * 3,
        "code": pd.Categorical(["b", "a", None, "b"] * 3, categories=["b", "a", "unused"]),
        "sold": pd.to_datetime(["2024-02-29", None, "2024-03-01", "2024-03-02"] * 3),
        "zoned": pd.Series([MOMENT] * 6 + [MOMENT + timedelta(days=1)] * 6).dt.tz_convert(EAST),
        "priced": [f"{1000 + i**2:,}" for i in range(N)],
        "y": ["b", "a", "a"] * 4,
    }
)
KINDS = ("numeric", "numeric", "numeric", "boolean", "boolean", "categorical", "categorical", "date", "date", "numeric")


def from_frame(frame: pd.DataFrame, **fields: object) -> Table:
    return read_frame(frame, DataConfig(target=("y",), **fields))  # type: ignore[arg-type]


def from_parquet(folder: Path, frame: pd.DataFrame, **fields: object) -> Table:
    frame.to_parquet(folder / "t.parquet", row_group_size=5)
    return read_table(DataConfig(path=str(folder / "t.parquet"), target=("y",), **fields))  # type: ignore[arg-type]


def test_a_frame_and_its_parquet_file_are_the_same_table(tmp_path: Path) -> None:
    one, two = from_frame(FRAME), from_parquet(tmp_path, FRAME)
    assert one.findings == two.findings and one.notes == two.notes == ()
    for read in (one, two):
        columns = {column.name: column for column in read.features.columns}
        assert tuple(column.kind for column in columns.values()) == KINDS
        assert columns["whole"].values.tolist() == [i**2 for i in range(N)]
        assert columns["nullable"].is_missing.tolist() == [True] + [False] * (N - 1)
        assert columns["real"].is_missing.sum() == 1 and columns["real"].values[5] == 0.625
        np.testing.assert_array_equal(columns["maybe"].values[:3], [np.nan, 1, 0])
        assert columns["city"].texts()[:3].tolist() == ["Rome", "Oslo", ""]
        assert columns["code"].categories == ("a", "b") and columns["code"].texts()[:3].tolist() == ["b", "a", ""]
        assert columns["sold"].values[2] - columns["sold"].values[0] == 86_400 and columns["sold"].is_missing[1]
        assert columns["zoned"].values[0] == MOMENT.timestamp()
        assert columns["priced"].values[2] == 1004
        assert read.targets["y"].tolist() == ["b", "a", "a"] * 4
    assert (one.name, two.name) == ("frame", "t")


def test_a_csv_file_of_the_frame_is_the_same_table_where_it_can_be(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    read = read_table(DataConfig(path=str(tmp_path / "t.csv"), target=("y",)))
    for one, two in zip(read.features.columns, from_frame(FRAME).features.columns, strict=True):
        assert (one.name, one.kind, one.categories) == (two.name, two.kind, two.categories)
        np.testing.assert_array_equal(one.values, two.values)


def test_kinds_correct_typed_columns(tmp_path: Path) -> None:
    kinds = {
        "whole": "categorical",
        "truth": "categorical",
        "real": "categorical",
        "sold": "identifier",
        "maybe": "numeric",
    }
    for read in (from_frame(FRAME, kinds=kinds), from_parquet(tmp_path, FRAME, kinds=kinds)):
        columns = {column.name: column for column in read.features.columns}
        assert columns["whole"].texts()[:3].tolist() == ["0", "1", "4"]
        assert columns["truth"].categories == ("false", "true")
        assert columns["real"].texts()[1:4].tolist() == ["0.125", "0.25", ""]
        assert "sold" not in columns and columns["maybe"].kind == "numeric"
    with pytest.raises(DataError, match=r"column 'whole' must hold true or false, .* to be boolean; row 3 has '4'"):
        from_frame(FRAME, kinds={"whole": "boolean"})


def test_kinds_may_say_of_dates_that_they_are_dates(tmp_path: Path) -> None:
    plain = from_frame(FRAME).features.columns
    kinds = {"sold": "date", "zoned": "date"}
    for read in (from_frame(FRAME, kinds=kinds), from_parquet(tmp_path, FRAME, kinds=kinds)):
        for one, two in zip(plain, read.features.columns, strict=True):
            assert (one.name, one.kind) == (two.name, two.kind)
            np.testing.assert_array_equal(one.values, two.values)
    kinds = {"sold": "categorical"}
    for read in (from_frame(FRAME, kinds=kinds), from_parquet(tmp_path, FRAME, kinds=kinds)):
        sold = next(column for column in read.features.columns if column.name == "sold")
        assert sold.texts()[:2].tolist() == ["1709164800", ""]


def test_a_frame_to_predict_from_has_its_numbers_and_dates_whatever_the_training_was_written_like() -> None:
    frame = pd.DataFrame({"price": [1.234, 1.5], "sold": pd.to_datetime(["2024-02-29", None]), "text": ["1.234", "2"]})
    kinds = {"price": "numeric", "sold": "date", "text": "numeric"}
    forms = {"price": "1.234,5", "sold": "day/month/year", "text": "1.234,5"}
    price, sold, text = frame_features(frame, kinds, forms).columns
    assert price.values.tolist() == [1.234, 1.5] and text.values.tolist() == [1234, 2]
    assert sold.values[0] == datetime(2024, 2, 29, tzinfo=UTC).timestamp() and np.isnan(sold.values[1])


def test_whole_numbers_that_are_categories_keep_all_their_digits(tmp_path: Path) -> None:
    ids = [2**60 + i for i in (0, 1, 2, 0)] * 3
    wanted = [str(own) for own in ids]
    for column in (pd.Series(ids), pd.Series([*ids[:-1], None], dtype="Int64")):
        frame = FRAME.assign(id=column)
        kinds = {"id": "categorical"}
        for read in (from_frame(frame, kinds=kinds), from_parquet(tmp_path, frame, kinds=kinds)):
            found = next(own for own in read.features.columns if own.name == "id").texts().tolist()
            assert found[:-1] == wanted[:-1] and found[-1] == ("" if column.isna().any() else wanted[-1])


def test_mixed_objects_are_read_as_their_texts() -> None:
    mixed = [1, "two", 3.5, None, True, date(2024, 1, 2)] * 2
    read = from_frame(FRAME.assign(mixed=pd.Series(mixed, dtype=object)))
    assert read.features.columns[-1].categories == ("1", "2024-01-02", "3.5", "True", "two")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"odd": [[1]] * N}, r"must hold numbers, true/false, dates or text; 'odd' holds list: leave it out with drop"),
        ({"odd": [b"x"] * N}, "'odd' holds bytes"),
        ({"odd": np.ones(N) * 1j}, "'odd' holds complex numbers"),
        ({"odd": pd.to_timedelta(np.arange(N), "D")}, "'odd' holds timedelta64"),
        ({"whole": np.where(np.arange(N) == 4, np.inf, 1)}, "column 'whole' is infinite in row 5"),
        ({"y": [None, *"ab" * 5, "a"]}, r"the target 'y' .* is missing in 1 rows \(rows 1\)"),
        ({" whole": 1}, "more than once there is 'whole'"),
    ],
)
def test_a_frame_that_is_no_table_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_frame(FRAME.assign(**change))


def test_a_frame_of_odd_shape_is_refused() -> None:
    with pytest.raises(DataError, match="must have one row of column names; it has 2"):
        from_frame(pd.concat({"a": FRAME}, axis=1))
    with pytest.raises(DataError, match="the frame must have rows to learn from"):
        from_frame(FRAME.iloc[:0])
    with pytest.raises(DataError, match="the frame must have the target column 'y'"):
        from_frame(FRAME.drop(columns="y"))
    with pytest.raises(DataError, match="must have neither path nor source"):
        read_frame(FRAME, DataConfig(source="sklearn:wine"))


@pytest.mark.parametrize("column", [pa.array([[1]] * 3), pa.array([b"x"] * 3), pa.array([{"a": 1}] * 3)])
def test_parquet_columns_that_are_no_cells_are_refused(tmp_path: Path, column: pa.Array) -> None:
    path = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"odd": column, "a": [1, 2, 4], "y": [0.5, 1, 2]}), path)
    with pytest.raises(DataError, match=r"'odd' holds .*: leave it out with drop"):
        read_table(DataConfig(path=path, target=("y",)))
    assert read_table(DataConfig(path=path, target=("y",), drop=("odd",))).features.names == ("a",)


def test_a_broken_or_large_parquet_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    FRAME.to_parquet(path)
    whole = path.read_bytes()
    for broken in (b"PAR1", whole[:-9], whole[:40] + bytes(60) + whole[100:], whole[:4] + whole[-200:]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"t\.parquet must be a Parquet file that can be read; ") as caught:
            read_table(DataConfig(path=str(path), target=("y",)))
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    for limit, message in (("MAX_CELLS", "at most 5 cells; it has 132"), ("MAX_COLUMNS", "1 to 5 columns; it has 11")):
        with monkeypatch.context() as patch, pytest.raises(DataError, match=message):
            patch.setattr(frames, limit, 5)
            read_table(DataConfig(path=str(path), target=("y",)))
