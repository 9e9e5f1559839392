import re
from pathlib import Path

import numpy as np
import pytest

from dlcore.config import DataConfig
from dlcore.errors import DataError
from dlcore.tables import Table, read_table

N = 40
COLUMNS = {
    "height": [f"{i**2 / 8}" for i in range(N)],
    "price": [f'"{1000 + i**2:,}"' for i in range(N)],
    "is_new": [("yes", "no", "")[i % 3] for i in range(N)],
    "flag": [f"{i % 2}" for i in range(N)],
    "city": [("Rome", " Oslo ", "n/a", "Bern")[i % 4] for i in range(N)],
    "sold": [f"2024-01-{1 + i % 28:02d}" for i in range(N)],
    "when": [f"{1 + i % 12}/{1 + i % 9}/2024" for i in range(N)],
    "name": [f"person {i - i % 20 // 19}" for i in range(N)],
    "row": [f"{i + 1}" for i in range(N)],
    "patient_id": [f"{(i * 7) % 41 + 100}" for i in range(N)],
    "same": ["x"] * N,
    "sparse": ["x"] + [""] * (N - 1),
    "empty": ["NA"] * N,
    "odd": [f"{i / 8}" if i != 7 else "unknown" for i in range(N)],
    "y": [f"{i % 3 / 2}" for i in range(N)],
}
KINDS = {
    "height": "numeric", "price": "numeric", "is_new": "boolean", "flag": "numeric", "city": "categorical",
    "sold": "date", "when": "categorical", "name": "identifier", "row": "identifier", "patient_id": "identifier",
    "same": "constant", "sparse": "categorical", "empty": "constant", "odd": "categorical", "y": "target",
}  # fmt: skip


def table(folder: Path, columns: dict[str, list[str]], kinds: dict[str, str] | None = None) -> Table:
    path = folder / "table.csv"
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(row) for row in rows)]))
    return read_table(DataConfig(path=str(path), target=("y",), kinds=kinds or {}))


def test_kinds_are_found_from_the_cells(tmp_path: Path) -> None:
    read = table(tmp_path, COLUMNS)
    findings = {finding.name: finding for finding in read.findings}
    assert {name: finding.kind for name, finding in findings.items()} == KINDS
    assert list(findings) == list(COLUMNS)
    assert read.features.names == ("height", "price", "is_new", "flag", "city", "sold", "when", "sparse", "odd")
    assert (findings["city"].n_missing, findings["city"].n_distinct, findings["city"].example) == (10, 3, "Rome")
    assert (findings["is_new"].n_missing, findings["sold"].example) == (13, "2024-01-01")
    assert findings["price"].why == "written as 1,234.5"
    assert "'unknown' in line 9 is none" in findings["odd"].why
    assert "day and month cannot be told apart" in findings["when"].why
    assert read.notes == (
        "left out as identifiers 'name', 'row', 'patient_id'; as constants 'same', 'empty': [data] kinds corrects it",
    )


def test_values_are_what_the_cells_say(tmp_path: Path) -> None:
    columns = {column.name: column for column in table(tmp_path, COLUMNS).features.columns}
    assert columns["price"].values.tolist() == [1000 + i**2 for i in range(N)]
    np.testing.assert_array_equal(columns["is_new"].values[:3], [1, 0, np.nan])
    assert columns["city"].categories == ("Bern", "Oslo", "Rome")
    assert columns["city"].texts()[:4].tolist() == ["Rome", "Oslo", "", "Bern"]
    assert columns["sold"].values[1] - columns["sold"].values[0] == 86_400
    assert columns["sparse"].is_missing.sum() == N - 1


def test_a_person_corrects_kinds(tmp_path: Path) -> None:
    kinds = {
        "flag": "boolean", "height": "categorical", "when": "date", "name": "categorical", "row": "numeric",
        "odd": "numeric", "city": "identifier", "price": "constant", "is_new": "categorical",
    }  # fmt: skip
    read = table(tmp_path, COLUMNS, kinds)
    columns = {column.name: column for column in read.features.columns}
    assert {name: columns[name].kind for name in kinds if name in columns} == {
        name: kind for name, kind in kinds.items() if kind not in ("identifier", "constant")
    }
    assert "city" not in columns and "price" not in columns
    assert columns["height"].categories[:2] == ("0.0", "0.125") and columns["name"].texts()[1] == "person 1"
    assert columns["odd"].is_missing.sum() == 1 and columns["row"].values[-1] == N
    assert columns["is_new"].categories == ("no", "yes")
    whys = {finding.name: finding.why for finding in read.findings}
    assert whys["odd"] == "1 cells are no number and count as missing, such as 'unknown'"
    assert read.notes == (
        "left out as identifiers 'patient_id'; as constants 'same', 'empty': [data] kinds corrects it",
    )


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        ("city", "numeric", "column 'city' must hold numbers to be numeric; line 5 has 'Bern'"),
        ("city", "date", "column 'city' must hold dates, all written in one way"),
        ("city", "boolean", "must hold true or false, yes or no, or 1 and 0 to be boolean; line 5 has 'Bern'"),
        ("truth", "boolean", "to be boolean; line 4 has 'maybe'"),
        ("height", "boolean", "to be boolean; line 3 has '0.125'"),
        ("heigth", "numeric", r"must have the kinds column 'heigth'; did you mean 'height'\?"),
        ("y", "numeric", "data.kinds is for features; 'y' is a target"),
    ],
)
def test_a_kind_that_cells_cannot_have_is_refused(tmp_path: Path, column: str, kind: str, message: str) -> None:
    truth = {"truth": [("false", "true", "maybe", "1")[i % 4] for i in range(N)]}
    with pytest.raises(DataError, match=message):
        table(tmp_path, COLUMNS | truth, {column: kind})


def test_a_column_that_counts_rows_is_kept_where_there_is_no_other_feature(tmp_path: Path) -> None:
    read = table(tmp_path, {name: COLUMNS[name] for name in ("row", "same", "y")})
    assert read.features.names == ("row",)
    assert read.findings[0].why == "counts the rows; kept, since there is no other feature"
    assert read.notes == ("left out as constants 'same': [data] kinds corrects it",)
    named = table(tmp_path, {name: COLUMNS[name] for name in ("patient_id", "y")})
    assert named.findings[0].why.startswith("is called like an identifier") and named.features.names == ("patient_id",)


def test_of_few_rows_nobody_knows_what_names_them(tmp_path: Path) -> None:
    few = {name: cells[:9] for name, cells in COLUMNS.items() if name in ("name", "row", "y")}
    assert table(tmp_path, few).features.names == ("name", "row")


def test_an_infinite_number_is_refused_however_it_is_written(tmp_path: Path) -> None:
    for cells in (["1e400", "1"], ["1", "-inf"], ["1", "1e999"]):
        with pytest.raises(DataError, match=re.escape("column 'a' is infinite in line")):
            table(tmp_path, {"a": cells * 5, "b": ["1", "2"] * 5, "y": ["0", "1"] * 5})
