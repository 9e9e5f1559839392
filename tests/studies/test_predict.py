import csv
import io
from pathlib import Path

import numpy as np
import pytest

from dlcore.errors import DataError
from dlcore.exported import ExportedModel
from studies.errors import UserError
from studies.home import Home
from studies.predict import predict_file

pytestmark = pytest.mark.slow  # a whole study runs before them


@pytest.fixture
def export(finished_home: Home) -> Path:
    return finished_home.exports / "wine"


@pytest.fixture
def rows(export: Path, tmp_path: Path) -> Path:
    """25,000 rows, more than are answered at once, with a column that the network does not know."""
    names = ExportedModel.load(export).feature_names
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", *reversed(names)])
        writer.writerows([i, *([0.001 * i] * len(names))] for i in range(25_000))
    return path


def test_every_row_is_answered_in_order(export: Path, rows: Path, tmp_path: Path) -> None:
    predict_file(export, rows, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as stream:
        answers = list(csv.DictReader(stream))
    assert len(answers) == 25_000
    model = ExportedModel.load(export)
    added = ["label", *(f"probability_{label}" for label in model.class_labels)]
    assert list(answers[0]) == ["id", *reversed(model.feature_names), *added]
    assert [row["id"] for row in answers] == [str(i) for i in range(25_000)]
    last = model.predict({name: _column(24.999) for name in model.feature_names})
    assert answers[-1]["label"] == last["label"][0]
    assert [np.float32(answers[-1][name]) for name in added[1:]] == [last[name][0] for name in added[1:]]


def _column(value: float) -> object:
    return np.array([value])


def test_without_a_file_to_write_answers_go_to_standard_output(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ExportedModel.load(export).feature_names
    (tmp_path / "one.csv").write_text(",".join(f'"{n}"' for n in names) + "\n" + ",".join(["1"] * len(names)) + "\n")
    predict_file(export, tmp_path / "one.csv", None)
    header, answer = csv.reader(io.StringIO(capsys.readouterr().out))
    assert answer[header.index("label")] in ExportedModel.load(export).class_labels


def test_a_table_with_a_header_alone_has_a_header_alone_as_its_answer(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ExportedModel.load(export).feature_names
    (tmp_path / "none.csv").write_text(",".join(f'"{n}"' for n in names) + "\n")
    predict_file(export, tmp_path / "none.csv", None)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_missing_column_is_named_and_nothing_is_written(export: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("alcohol\n1\n")
    with pytest.raises(DataError, match="malic_acid"):
        predict_file(export, tmp_path / "bad.csv", tmp_path / "out.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.csv"]


def test_a_folder_that_is_no_whole_export_is_refused_by_name(export: Path, rows: Path, tmp_path: Path) -> None:
    copy = tmp_path / "export"
    copy.mkdir()
    for file in export.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    damaged = bytearray((copy / "model.onnx").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (copy / "model.onnx").write_bytes(damaged)
    with pytest.raises(UserError, match=r"model\.onnx"):
        predict_file(copy, rows, None)
    with pytest.raises(UserError, match="nowhere"):
        predict_file(tmp_path / "nowhere", rows, None)


def test_a_place_that_cannot_be_written_is_refused(export: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be a file that can be written"):
        predict_file(export, rows, tmp_path / "no" / "folder.csv")
