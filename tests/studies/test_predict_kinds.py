"""`studies predict` on columns of every kind, written as people write them."""

import csv
import fcntl
import gzip
import io
import os
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlcore.config import DataConfig, ModelConfig, PreprocessConfig
from dlcore.data import DataSplits, load_splits
from dlcore.errors import DataError
from dlcore.export import export_model
from dlcore.exported import ExportedModel
from dlcore.models import build_model
from dlcore.rowblocks import RowBlock
from studies.answers import CsvSink
from studies.errors import UserError
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
    outcome = predict_file(folder, tmp_path / "rows.csv", tmp_path / "out.csv")
    assert outcome.n_rows == len(rows) and outcome.sentences() == []
    with (tmp_path / "out.csv").open() as stream:  # as the rows are written: semicolons, and decimal commas
        return [float(row["prediction"].replace(",", ".")) for row in csv.DictReader(stream, delimiter=";")]


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


def one_answer(folder: Path, size: float, city: str, is_new: float, sold: float) -> float:
    columns = {"size": np.array([size]), "city": np.array([city], dtype=object)}
    columns |= {"is_new": np.array([is_new]), "sold": np.array([sold])}
    return float(ExportedModel.load(folder).predict(columns)["prediction"][0])


NOTHING = float("nan")


def test_a_row_of_holes_is_answered_however_a_hole_is_written(
    exported: tuple[Path, DataSplits], tmp_path: Path
) -> None:
    folder, _ = exported
    expected = one_answer(folder, NOTHING, "", NOTHING, NOTHING)
    assert np.isfinite(expected)
    rows = [";;;", "NA;n/a;nan;NULL", "?;?;?;?", " ; NaN ;none;", "nan;;NA;N/A"]
    assert predictions(folder, rows, tmp_path, header="size;city;is_new;sold") == [expected] * len(rows)
    holes: dict[str, list[object]] = {
        "null": [pa.nulls(3)] * 4,
        "typed": [pa.nulls(3, t) for t in (pa.float32(), pa.string(), pa.bool_(), pa.timestamp("us"))],
        "nan": [pa.array([NOTHING] * 3)] * 4,
        "texts": [pa.array(["", "NA", None])] * 4,
        "categories": [pa.array(["", "NA", None]).dictionary_encode()] * 4,
        "large": [pa.array([None, "NA", ""], pa.large_string())] * 4,
    }
    for form, columns in holes.items():
        pq.write_table(pa.table(columns, names=["size", "city", "is_new", "sold"]), tmp_path / "rows.parquet")
        assert predict_file(folder, tmp_path / "rows.parquet", tmp_path / "out.parquet").sentences() == [], form
        assert pq.read_table(tmp_path / "out.parquet")["prediction"].to_pylist() == [expected] * 3, form


def test_true_and_false_are_understood_however_they_are_written(
    exported: tuple[Path, DataSplits], tmp_path: Path
) -> None:
    folder, _ = exported
    yes, no, unknown = (one_answer(folder, 1.5, "Rome", truth, NOTHING) for truth in (1.0, 0.0, NOTHING))
    assert len({yes, no, unknown}) == 3
    cells = {
        "true": yes,
        "TRUE": yes,
        " Yes ": yes,
        "1": yes,
        "False": no,
        "NO": no,
        "0": no,
        "": unknown,
        "NA": unknown,
    }
    rows = [f"1,5;Rome;{cell};" for cell in cells]
    assert predictions(folder, rows, tmp_path, header="size;city;is_new;sold") == list(cells.values())
    for truths in ([True, False, None], [1, 0, None], [1.0, 0.0, NOTHING], ["yes", "False", ""]):
        columns = {"size": [1.5] * 3, "city": ["Rome"] * 3, "is_new": truths, "sold": pa.nulls(3)}
        pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
        assert predict_file(folder, tmp_path / "rows.parquet", tmp_path / "out.parquet").sentences() == []
        assert pq.read_table(tmp_path / "out.parquet")["prediction"].to_pylist() == [yes, no, unknown], truths


@pytest.mark.parametrize("cell", ["2", "-1", "0.5", "y", "wahr", "inf"])
def test_what_is_neither_true_nor_false_has_no_answer(
    exported: tuple[Path, DataSplits], tmp_path: Path, cell: str
) -> None:
    (tmp_path / "rows.csv").write_text(f"size;city;is_new;sold\n1,5;Rome;{cell};\n1,5;Rome;yes;\n")
    outcome = predict_file(exported[0], tmp_path / "rows.csv", tmp_path / "out.csv")
    assert (outcome.n_rows, outcome.n_unanswered) == (2, 1) and f"line 2 has {cell!r}" in outcome.sentences()[1]


WRONG = {
    "size": ("many;Rome;yes;3/4/2024", "column 'size' must hold finite numbers, written as 1.234,5; line 3 has 'many'"),
    "sold": ("1,0;Rome;yes;soon", "column 'sold' must hold dates, written as day/month/year; line 3 has 'soon'"),
    "is_new": ("1,0;Rome;maybe;", "column 'is_new' must hold true or false, yes or no, or 1 and 0; line 3 has 'maybe'"),
    "ragged": ("1,0;Rome;yes", "a row must have 4 cells, as the header has; line 3 has 3"),
    "open": ('1,0;"Ro"me;yes;', "separated by semicolons; line 3 has an error: ';' expected after"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_row_that_cannot_be_used_keeps_its_place_without_an_answer(
    exported: tuple[Path, DataSplits], tmp_path: Path, case: str
) -> None:
    row, said = WRONG[case]
    usual = "1,5;Rome;yes;3/4/2024"
    (tmp_path / "rows.csv").write_text("\n".join(["size;city;is_new;sold", usual, row, usual]))
    outcome = predict_file(exported[0], tmp_path / "rows.csv", tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert len(lines) == 4 and lines[1] == lines[3] and lines[1].startswith(f"{usual};")
    assert lines[2].endswith(";") and lines[1].count(";") == lines[2].count(";")
    assert (outcome.n_rows, outcome.n_unanswered) == (3, 1)
    first, second = outcome.sentences()
    assert first == "1 of 3 rows cannot be used; their answers are empty:" and said in second


def test_parquet_is_answered_as_parquet_with_all_that_it_holds(
    exported: tuple[Path, DataSplits], tmp_path: Path
) -> None:
    """Dates are dates there, big numbers keep their digits, and lists go through."""
    folder, splits = exported
    columns = {column.name: column.raw() for column in splits.val.x.columns}
    big = 2**60 + np.arange(len(splits.val.rows))
    frame = pd.DataFrame({"id": big, **columns})
    frame["sold"] = pd.to_datetime(frame["sold"], unit="s")
    frame["is_new"] = frame["is_new"].map({1.0: True, 0.0: False}).astype("boolean")
    frame["words"] = [["a", "b"]] * len(frame)
    frame.to_parquet(tmp_path / "rows.parquet", row_group_size=7)
    assert predict_file(folder, tmp_path / "rows.parquet", tmp_path / "out.parquet").sentences() == []
    out = pq.read_table(tmp_path / "out.parquet")
    expected = ExportedModel.load(folder).predict(columns)["prediction"]
    np.testing.assert_array_equal(out["prediction"].to_numpy(), expected)
    assert out.drop(["prediction"]).equals(pq.read_table(tmp_path / "rows.parquet"))
    with pytest.raises(UserError, match=r"'words' holds list.*ends with \.parquet"):
        predict_file(folder, tmp_path / "rows.parquet", tmp_path / "out.csv")
    frame.drop(columns="words").to_parquet(tmp_path / "rows.parquet")
    predict_file(folder, tmp_path / "rows.parquet", tmp_path / "out.csv")
    text = pd.read_csv(tmp_path / "out.csv")
    assert text["id"].tolist() == big.tolist() and text["prediction"].tolist() == expected.tolist()


def test_packed_rows_are_answered_packed_and_as_parquet_their_cells_are_texts(
    exported: tuple[Path, DataSplits], tmp_path: Path
) -> None:
    rows = [f'{i:05};{line(i)};"say ""x;y"""' for i in range(50)]
    text = "\n".join([f"id;{HEADER};prediction", *rows]) + "\n"
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(text.encode()))
    outcome = predict_file(exported[0], tmp_path / "rows.csv.gz", tmp_path / "out.csv.gz")
    assert outcome.sentences() == ["the file has a column 'prediction' of its own: the answer is in 'prediction_'"]
    with gzip.open(tmp_path / "out.csv.gz", "rt") as stream:
        answered = list(csv.DictReader(stream, delimiter=";"))
    assert [row["id"] for row in answered] == [f"{i:05}" for i in range(50)]
    assert {row["prediction"] for row in answered} == {'say "x;y"'}
    predict_file(exported[0], tmp_path / "rows.csv.gz", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in table] == [f"{i:05}" for i in range(50)]
    assert [row["prediction_"] for row in table] == [float(row["prediction_"].replace(",", ".")) for row in answered]
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(text.encode())[:-20])
    with pytest.raises(DataError, match="must be a whole gzip file"):
        predict_file(exported[0], tmp_path / "rows.csv.gz", tmp_path / "cut.csv")
    assert not list(tmp_path.glob("*cut*"))


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "out.parquet"])
def test_a_full_disk_is_said_and_what_was_there_stays(
    exported: tuple[Path, DataSplits], tmp_path: Path, name: str
) -> None:
    (tmp_path / "rows.csv").write_text("\n".join([HEADER, *map(line, range(N * 50))]))
    (tmp_path / name).write_text("old")
    code = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from studies.cli import main\nsys.argv[0] = 'studies'\nmain()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, "predict", exported[0], tmp_path / "rows.csv", "--out", tmp_path / name],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.endswith("must be a file that can be written; File too large\n")
    assert (tmp_path / name).read_text() == "old" and len(list(tmp_path.glob(f"*{name}*"))) == 1


def test_a_kill_leaves_what_was_there_and_the_next_command_clears_up(
    exported: tuple[Path, DataSplits], tmp_path: Path
) -> None:
    out, rows = tmp_path / "out.csv", tmp_path / "rows.csv"
    rows.write_text("\n".join([HEADER, *[*map(line, range(N))] * 1_500]))
    out.write_text("old")
    words = [sys.executable, "-m", "studies", "predict", exported[0], rows, "--out", out]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as killed:
        while not any(path.stat().st_size for path in tmp_path.glob(f".out.csv.{killed.pid}.*")):
            assert killed.poll() is None
            time.sleep(0.001)
        killed.kill()
    [draft] = tmp_path.glob(".out.csv.*")
    assert killed.returncode == -signal.SIGKILL
    assert out.read_text() == "old" and 0 < draft.stat().st_size < rows.stat().st_size
    rows.write_text("\n".join([HEADER, *map(line, range(N))]))
    written, earlier, foreign = (tmp_path / f".out.csv.{end}" for end in ("1.0123abcd", "17", "bak"))
    earlier.write_text("of a version that wrote no random part")
    foreign.write_text("mine")
    with written.open("w") as file:  # of another command, which still goes on
        fcntl.flock(file, fcntl.LOCK_EX)
        for path in (draft, written, earlier, foreign):
            os.utime(path, (time.time() - 90,) * 2)
        predict_file(exported[0], rows, out)
    assert out.read_text().count("\n") == N + 1
    names = [".out.csv.1.0123abcd", ".out.csv.bak", "out.csv", "rows.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_labels_that_a_spreadsheet_would_run_are_made_text() -> None:
    stream = io.BytesIO()
    sink = CsvSink(stream, ["a", "label"], ",", has_decimal_comma=False)
    labels = ["=1+1", "+x", "-y", "@z", "plain", None, 'with "quotes", too']
    block = RowBlock(range(7), {}, pa.array(["=own"] * 7))
    sink.write(sink.render(block, {"label": pa.array(labels)}))
    found = [row[1] for row in csv.reader(io.StringIO(stream.getvalue().decode()))]
    assert found == ["label", "'=1+1", "'+x", "'-y", "'@z", "plain", "", 'with "quotes", too']


PEAK = """
import re, sys
from pathlib import Path
from studies.predict import predict_file
predict_file(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
print(re.search(r"VmHWM: *\\t* *([0-9]+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process alone is read from /proc")
def test_four_times_the_rows_need_no_more_memory(exported: tuple[Path, DataSplits], tmp_path: Path) -> None:
    block = "\n".join(map(line, range(20_000))) + "\n"
    peaks = []
    for n in (30, 120):  # 20 MB, which is all blocks that may be in flight, and four times as many
        with (tmp_path / "rows.csv").open("w") as stream:
            stream.write(HEADER + "\n")
            stream.writelines(block for _ in range(n))
        words = [sys.executable, "-c", PEAK, exported[0], tmp_path / "rows.csv", tmp_path / "out.csv"]
        peaks.append(int(subprocess.run(words, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] < 1.2 * peaks[0]
