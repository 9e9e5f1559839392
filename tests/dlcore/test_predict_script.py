"""The script of an export answers a CSV file as dlcore does, with onnxruntime and numpy alone."""

import csv
import io
import json
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dlcore.cellrules import _PLACES, cell_rules, read_cell
from dlcore.cells import DATE_FORMS, GROUPED, MISSING, meaning
from dlcore.columns import Column
from dlcore.config import DataConfig, ModelConfig, PreprocessConfig
from dlcore.data import load_splits
from dlcore.ensemble import Part
from dlcore.export import Story, export_parts, load_network
from dlcore.exported import ExportedModel
from dlcore.models import build_model
from dlcore.predict_script import PREDICT_SCRIPT
from dlcore.tables import read_features
from tests.dlcore.clean import make_clean, run_clean
from tests.dlcore.column_tools import of_all_kinds, splits_of_all_kinds, with_unseen

SHARED = next((p for up in Path(__file__).parents[3:5] if (p := up / "shared" / "data").is_dir()), Path("nowhere"))
TABLES = {
    "bank_marketing_full": "y",
    "diamonds": "price",
    "letter_recognition": "letter",
    "magic_telescope": "class",
    "online_shoppers": "Revenue",
    "water_potability": "Potability",
    "wine_quality": "quality",
    "zoo": "type",
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clean(tmp_path_factory.mktemp("clean") / "packages")


def an_export(folder, splits, n_parts):
    """Networks as they are drawn: what they answer matters no less than if they had learned."""
    scalings = ("standard", "robust", "quantile_normal")
    parts = []
    for seed in range(n_parts):
        config = ModelConfig(splits.n_features, splits.n_outputs, (16, 8), initialization="kaiming_normal")
        parts.append(Part(build_model(config, seed), config, splits.prepared(scalings[seed % 3]).preprocessor))
    return export_parts(folder, parts, splits, Story())


def by_dlcore(export, path):
    """What dlcore answers to the rows of a file: output -> values."""
    model = ExportedModel.load(export)
    return model.predict({c.name: c.raw() for c in read_features(str(path), model.kinds, model.forms).columns})


def by_torch(export, path, splits):
    """Probabilities, or standardised values, of a file's rows, (N, C): the network that comes back in PyTorch."""
    kinds = {column.name: column.kind for column in splits.train.x.columns}
    forms = {column.name: column.form for column in splits.train.x.columns}
    network, preprocessor, _ = load_network(export)
    with torch.no_grad():
        outputs = network(torch.from_numpy(preprocessor.transform(read_features(str(path), kinds, forms))).float())
    if splits.task == "regression":
        return outputs.numpy()
    found = splits.to_task().predict(outputs).numpy()
    return np.stack([1 - found, found], axis=1) if splits.task == "binary" else found


def assert_alike(printed: str, expected: dict[str, np.ndarray]) -> None:
    header, *rows = csv.reader(io.StringIO(printed))
    assert header == list(expected) and len(rows) == len(next(iter(expected.values())))
    for name, cells in zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True):
        if name == "label":
            assert list(cells) == [str(label) for label in expected[name].tolist()]
        else:
            np.testing.assert_allclose(np.array(cells, dtype=np.float64), expected[name], rtol=1e-5, atol=1e-5)


def written(cells, path, names, separator=","):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(names)
        writer.writerows(zip(*cells, strict=True))
    return path


def as_cells(column: Column) -> list[str]:
    """A column as a person may write it."""
    if column.kind == "categorical":
        return [" NA " if text == "" else f" {text}" for text in column.texts()]
    if column.kind == "date":
        return ["?" if np.isnan(s) else f"{np.datetime64(int(s), 's')}Z" for s in column.values]
    if column.kind == "boolean":
        return ["" if np.isnan(v) else "Yes" if v else "no" for v in column.values]
    return ["nan" if np.isnan(v) else repr(float(v)) for v in column.values]


def test_it_is_short_and_says_how_it_is_used(clean, tmp_path):
    """Its code without imports, docstrings and blank lines; no line of it is longer than ours are."""
    body = PREDICT_SCRIPT.partition("import onnxruntime\n")[2].splitlines()
    code = [line for line in body if line.strip() and not line.strip().startswith('"""')]
    assert len(code) <= 20 and max(map(len, body)) <= 120
    export = an_export(tmp_path / "out", splits_of_all_kinds("binary"), 1)
    answer = run_clean(clean, export / "predict.py")
    assert answer.returncode == 2 and "python predict.py rows.csv > answers.csv" in answer.stderr


CELLS = [
    "2024-2-9", "2024-02-30", "2023-02-29", "0000-01-01", "2024/2/29 7:05", "3.4.2024", "3/4/2024, 17:05:06.25 +0130",
    "13/13/2024", "29 Feb 2024", "3-Sept-2024", "Sept 3, 2024 10:00-05:00", "3 Foo 2024", "20240229", "now", "today",
    "2024-02-29T24:00", "2024-02-29T12:30:05.123456789Z", "2024-02-29T::.", "9999-12-31T23:59:59+23:59", "31 june 2024",
    "1,234.5", "1.234,5", "1 234,5", "1'234", ",5", "-.5", "1_0", "$1.50", "-$3", "$-3", "-$-3", "$ 4", "3", "1,23,4",
    "12.3%", "12,3 %", "%", "1,234 €", "€5", "1.234,50€", "inf", "$nan", "-nan", "1e5", "1,5e3", "$", "+5", "--5",
    "1e400", "-1.8e308", "1.7976931348623157e308", "1.797693134862316E+308", "20e307", "17e307", "9" * 309, "1" * 309,
    "yes", "False", "01", "1.0", "2",
]  # fmt: skip
SIGNS = (("$", ""), ("", ""), ("", "€"), ("", "%"))
WAYS = [
    *(("date", form) for form in ("", *DATE_FORMS)),
    *(("numeric", f"{before}{way}{behind}") for way in ("1234.5", *GROUPED) for before, behind in SIGNS),
    ("numeric", ""),
    ("boolean", ""),
]


@settings(max_examples=1500, deadline=None)
@given(
    st.sampled_from(WAYS),
    st.one_of(
        st.sampled_from(CELLS),
        st.text(alphabet="0123456789,. -/$%€eTZ:+", min_size=1, max_size=14),
        st.from_regex(r"\A[0-9]{1,4}[-/. ][0-9]{1,2}[-/. ][0-9]{1,4}( [0-9]{1,2}:[0-9]{2})?\Z"),
    ),
)
def test_the_rules_in_the_manifest_are_those_of_dlcore(way, text):
    """A cell is worth the same, or refused, in a script that has the rules alone."""
    kind, form = way
    text = text.strip()
    assume(text.lower() not in MISSING)
    expected = meaning(kind, form)(text)
    left = read_cell(text, cell_rules("a,b.\\1", kind, form))
    try:
        found = float(left) if kind != "date" else datetime.fromisoformat(left).timestamp()
    except ValueError:
        found = None
        assert "must hold" in left
    if expected is None or found is None or np.isinf(expected):
        assert (found is None) == (expected is None or np.isinf(expected)), (left, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-15, atol=2e-6)


def test_torch_is_not_where_it_runs(clean):
    answer = run_clean(clean, code="import numpy, onnxruntime, torch")
    assert answer.returncode == 1 and "No module named 'torch'" in answer.stderr


@pytest.mark.parametrize("n_parts", [1, 4])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_rows_of_all_kinds_are_answered_as_by_dlcore(clean, tmp_path, task, n_parts):
    transform = "quantile_normal" if task == "regression" else "none"
    splits = splits_of_all_kinds(task, PreprocessConfig(target_transform=transform))
    export = an_export(tmp_path / "out", splits, n_parts)
    rows = with_unseen(of_all_kinds(300, seed=5, holes=0.3))
    names = [f" {column.name}" for column in rows.columns]
    path = written([*map(as_cells, rows.columns), ["more"] * 300], tmp_path / "rows.csv", [*names, "x"], ";")
    answer = run_clean(clean, export / "predict.py", path)
    assert answer.returncode == 0, answer.stderr
    assert_alike(answer.stdout, by_dlcore(export, path))


FORMS = {"1,234.5": "1,234.5", "1.234,5": "1.234,5", "1 234.5": "1 234.5", "1 234,5": "1 234,5"}
DATES = {
    "year-month-day": "2024/2/29 7:05",
    "day/month/year": "29.2.2024, 17:05:06.25 +0130",
    "month/day/year": "02/29/2024T01:00Z",
    "day month year": "29 Feb 2024",
    "month day year": "February 29, 2024 10:00-05:00",
    "yearmonthday": "20240229",
}


def test_every_way_to_write_numbers_and_dates_is_known():
    assert set(FORMS) == set(GROUPED) and set(DATES) == set(DATE_FORMS) == set(_PLACES)


def test_numbers_and_dates_are_read_as_dlcore_reads_them(clean, tmp_path):
    """A table whose columns are written in every way; each row is another number and another day."""
    rng = np.random.default_rng(0)
    n = 60
    columns: dict[str, list[str]] = {}
    for form, (_, thousands, decimal) in GROUPED.items():
        plain = [f"{value:,.2f}" for value in rng.lognormal(8, 1, n)]
        swapped = [text.replace(",", "_").replace(".", decimal).replace("_", thousands[0]) for text in plain]
        columns[form] = swapped
    kinds = {}
    for form, example in DATES.items():
        years = rng.integers(1960, 2030, n)
        columns[form] = [example.replace("2024", str(year)).replace("29", "28") for year in years]
        kinds[form] = "date"
    columns["y"] = [str(i % 2) for i in range(n)]
    path = written(list(columns.values()), tmp_path / "rows.csv", list(columns), ";")
    splits = load_splits(DataConfig(path=str(path), target=("y",), kinds=kinds), 0)
    forms = {column.name: column.form for column in splits.train.x.columns}
    assert {name: forms[name] for name in DATES} == {name: name for name in DATES}
    assert {forms[name] for name in FORMS} == set(FORMS)
    export = an_export(tmp_path / "out", splits, 1)
    answer = run_clean(clean, export / "predict.py", path)
    assert answer.returncode == 0, answer.stderr
    assert_alike(answer.stdout, by_dlcore(export, path))


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return an_export(tmp_path_factory.mktemp("export") / "out", splits_of_all_kinds("binary"), 1)


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("size", "12_000", "column 'size' must hold numeric cells"),
        ("size", "1e400", "column 'size' must hold finite numbers"),
        ("is_new", "perhaps", "column 'is_new' must hold boolean cells"),
        ("sold", "yesterday", "column 'sold' must hold date cells"),
        ("sold", "2024-02-30", "column 'sold' must hold date cells"),
        (None, "", "shorter than argument 1 (line 5)"),
        ("city", None, "the file must have the columns city, each once (line 1)"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line_below_the_usage(clean, export, tmp_path, column, cell, said):
    rows = {own.name: as_cells(own) for own in of_all_kinds(3).columns}
    if cell is None:
        del rows[column]
    elif column is not None:
        rows[column][1] = cell
    path = written(list(rows.values()), tmp_path / "rows.csv", list(rows))
    if column is None:
        path.write_text(path.read_text() + "1,2\n")
    answer = run_clean(clean, export / "predict.py", path)
    usage, error = answer.stderr.splitlines()
    assert answer.returncode == 2 and answer.stdout == "" and said in error, answer.stderr
    assert cell in (None, "") or error.endswith("(line 3)")
    assert usage.startswith("usage: python predict.py rows.csv > answers.csv")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "the file must have the columns size, year, whole,"),
        (b"\n \r\n", "the file must have the columns size, year, whole,"),
        (b"a,a\n1,2\n", "the file must have the columns size, year, whole,"),
        (b"\xff\xfe", "can't decode byte 0xff"),
        (b'a,b\n1,"2"3\n', "the file must have the columns size"),
        (b'a,"b"c\n1,2\n', "',' expected after '\"' (line 1)"),
    ],
)
def test_what_is_no_table_is_said_in_one_line_below_the_usage(clean, export, tmp_path, content, said):
    if content is not None:
        (tmp_path / "rows.csv").write_bytes(content)
    answer = run_clean(clean, export / "predict.py", tmp_path / "rows.csv")
    assert answer.returncode == 2 and answer.stdout == "", answer.stderr
    assert said in answer.stderr.splitlines()[1] and len(answer.stderr.splitlines()) == 2


def test_a_file_with_a_byte_order_mark_blank_lines_odd_texts_or_a_header_alone_is_answered(clean, export, tmp_path):
    rows = {own.name: as_cells(own) for own in of_all_kinds(4).columns}
    rows["city"] = ['"\u2028 \x85"', "a\vb\x1cc", "  Rome", '"x, ""y""\r\nz"']
    lines = [",".join(rows), *map(",".join, zip(*rows.values(), strict=True))]
    for few in (lines, lines[:1]):
        path = tmp_path / "rows.csv"
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n \r\n\r\n".join(few).encode())
        answer = run_clean(clean, export / "predict.py", path)
        assert answer.returncode == 0, answer.stderr
        assert_alike(answer.stdout, by_dlcore(export, path))


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="there are no such pipes here")
def test_whoever_reads_the_answers_may_have_enough(export, tmp_path):
    rows = {own.name: as_cells(own) for own in of_all_kinds(6_000).columns}
    path = written(list(rows.values()), tmp_path / "rows.csv", list(rows))
    piped = f"({sys.executable} {export / 'predict.py'} {path}; echo $? >&2) | head -n 1"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.startswith("label,") and done.stderr == "141\n"  # what every program says there


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device here")
@pytest.mark.parametrize("n", [1, 600])
def test_answers_for_which_there_is_no_room_are_a_failure(export, tmp_path, n):
    rows = {own.name: as_cells(own) for own in of_all_kinds(n).columns}
    path = written(list(rows.values()), tmp_path / "rows.csv", list(rows))
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, export / "predict.py", path]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and "No space left on device" in done.stderr.splitlines()[1]


def test_a_column_that_is_there_twice_is_refused(clean, export, tmp_path):
    rows = [(own.name, as_cells(own)) for own in of_all_kinds(3).columns]
    names, cells = zip(*rows, ("city", ["Rome"] * 3), strict=True)
    answer = run_clean(clean, export / "predict.py", written(cells, tmp_path / "rows.csv", names))
    assert answer.returncode == 2 and "the file must have the columns city, each once" in answer.stderr


@pytest.mark.parametrize("name", ["model.onnx", "model.json", "README.md", "weights.safetensors"])
def test_a_damaged_file_is_refused_by_name(clean, export, tmp_path, name):
    path = export / name
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        answer = run_clean(clean, export / "predict.py", tmp_path / "rows.csv")
        assert answer.returncode == 2 and f"{name} must be as it was written" in answer.stderr
    finally:
        path.write_bytes(content)


BATCHES = """
import csv, json, runpy
folder, path, out = sys.argv
sys.argv = ["predict.py", path]
script = runpy.run_path(folder + "/predict.py")  # answers all rows
inputs = script["inputs"]
network = script["onnxruntime"].InferenceSession(folder + "/model.onnx", providers=["CPUExecutionProvider"])
with open(out, "w") as file:
    for n in (1, 7, 1000):
        parts = [{k: v[i : i + n] for k, v in inputs.items()} for i in range(0, 1000, n)]
        found = zip(*(network.run(None, part) for part in parts))
        print(json.dumps([[v for part in output for v in part.tolist()] for output in found]), file=file)
"""


def holed(column: Column, rng: np.random.Generator) -> list[str]:
    """Cells of a table, a tenth of them gone, and of texts a twentieth replaced by one that no table has."""
    cells = (
        as_cells(column) if column.kind != "boolean" else ["" if np.isnan(v) else str(int(v)) for v in column.values]
    )
    if column.kind == "categorical":
        cells = [text.strip() for text in column.texts()]
    share = rng.random(len(cells))
    unseen = "nowhere" if column.kind == "categorical" else None
    return ["" if s < 0.1 else unseen if unseen and s > 0.95 else cell for s, cell in zip(share, cells, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_a_thousand_rows_of_a_real_table_are_answered_as_by_dlcore_in_any_batches(clean, tmp_path, name):
    if not SHARED.is_dir():
        pytest.skip("the tables are not beside this checkout")
    splits = load_splits(DataConfig(path=str(SHARED / f"{name}.csv"), target=(TABLES[name],)), 0)
    export = an_export(tmp_path / "out", splits, 3 if name in ("diamonds", "zoo", "bank_marketing_full") else 1)
    rng = np.random.default_rng(1)
    rows = splits.test.x.take(rng.integers(0, len(splits.test.x), 1000))
    cells = [holed(column, rng) for column in rows.columns]
    path = written(cells, tmp_path / "rows.csv", rows.names)
    expected = by_torch(export, path, splits)
    answer = run_clean(clean, export, path, tmp_path / "batches", code=BATCHES)
    assert answer.returncode == 0, answer.stderr
    names, *printed = csv.reader(io.StringIO(answer.stdout))
    batches = [json.loads(line) for line in (tmp_path / "batches").read_text().splitlines()]
    assert len(batches) == 3 and len(printed) == 1000
    for found in (*batches, list(zip(*printed, strict=True))):
        answers = dict(zip(names, found, strict=True))
        labels = answers.pop("label", None)
        values = np.array(list(answers.values()), dtype=np.float64).T
        assert values.shape == expected.shape == (1000, splits.n_outputs + (splits.task == "binary"))
        if splits.task == "regression":
            values = splits.preprocessor.scale_target(values)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
        if labels is not None:
            second, first = np.sort(expected, axis=1)[:, -2:].T
            likeliest = [str(splits.class_labels[i]) for i in expected.argmax(axis=1)]
            assert all(str(a) == b for a, b, gap in zip(labels, likeliest, first - second, strict=True) if gap > 2e-5)
