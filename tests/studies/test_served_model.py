"""The registered model answers raw rows as the export does; loaded by MLflow, in this process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import mlflow
import numpy as np
import pandas as pd
import pytest
from fastapi import HTTPException

from dlcore.config import DataConfig, ModelConfig
from dlcore.data import DataSplits, load_splits
from dlcore.export import export_model
from dlcore.exported import ExportedModel
from dlcore.models import build_model
from studies import registry
from studies.predict import predict_file
from studies.serving import answer_rows
from tests.dlcore.clean import make_clean, run_clean
from tests.dlcore.column_tools import of_all_kinds, raw, splits_of_all_kinds

pytestmark = [
    pytest.mark.slow,  # MLflow's import, and the check that it makes of its example
    pytest.mark.filterwarnings("ignore"),  # of MLflow's own code
]


def put_model(home: Path, splits: DataSplits) -> None:
    """A network of a table, as an export and as it is registered."""
    config = ModelConfig(splits.n_features, splits.n_outputs, (8,))
    export_model(home / "export", build_model(config, seed=1), config, splits, {})
    registry.save_model(home / "model", home / "export", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a table with columns of every kind, and beside it the model that is registered."""
    home = tmp_path_factory.mktemp("served")
    put_model(home, splits_of_all_kinds("binary"))
    return home


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    return raw(of_all_kinds(40, holes=0.3))


def as_people_have_it(rows: dict[str, np.ndarray]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    frame["sold"] = pd.to_datetime(frame["sold"], unit="s")
    frame["day"] = pd.to_datetime(frame["day"], unit="s").dt.strftime("%Y-%m-%d")
    frame["city"] = frame["city"].replace("", None)
    frame["is_new"] = frame["is_new"].map({1.0: "yes", 0.0: "no"})
    return frame


def test_frames_and_json_are_answered_as_by_the_export(folder: Path, rows: dict[str, np.ndarray]) -> None:
    expected = ExportedModel.load(folder / "export").predict(rows)
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    frame = as_people_have_it(rows)
    texts = frame.assign(sold=frame["sold"].dt.strftime("%Y-%m-%dT%H:%M:%S"))
    for given in (pd.DataFrame(rows), frame, pd.DataFrame(json.loads(texts.to_json(orient="records")))):
        answers = model.predict(given)
        for name, values in expected.items():
            assert answers[name].tolist() == values.tolist()


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a table whose dates have the day first, as registered too."""
    home, rng = tmp_path_factory.mktemp("dated"), np.random.default_rng(0)
    days = [
        f"{d:02}.{m:02}.{y} 7:05"
        for d, m, y in zip(*(rng.integers(*k, 80) for k in ((1, 29), (1, 13), (1990, 2030))), strict=True)
    ]
    pd.DataFrame({"day": days, "x": rng.normal(size=80), "y": rng.integers(0, 2, 80)}).to_csv(
        home / "t.csv", index=False
    )
    put_model(home, load_splits(DataConfig(path=str(home / "t.csv"), target=("y",)), 0))
    return home


def test_dates_are_read_as_the_table_had_them_by_all_who_answer(dated: Path) -> None:
    model = ExportedModel.load(dated / "export")
    assert model.forms["day"] == "day/month/year"
    seconds = np.array([1709190300.0, 1709164800.0, 1709190300.0, np.nan])
    expected = model.predict({"day": seconds, "x": np.zeros(4)})
    texts = ["29.02.2024 7:05", "29.02.2024", "2024-02-29T07:05:00Z", None]
    by_json = answer_rows(model, [[text, 0.0] for text in texts])
    by_mlflow = mlflow.pyfunc.load_model(str(dated / "model")).predict(pd.DataFrame({"day": texts, "x": np.zeros(4)}))
    (dated / "rows.csv").write_text("\n".join(["day,x", *(f"{text or ''},0" for text in texts)]))
    script = run_clean(make_clean(dated / "packages"), dated / "export" / "predict.py", dated / "rows.csv")
    assert script.returncode == 0, script.stderr
    by_script = pd.read_csv(StringIO(script.stdout))
    for name, values in expected.items():
        assert [answer[name] for answer in by_json] == pytest.approx(values.tolist())
        assert by_mlflow[name].tolist() == values.tolist()
        assert by_script[name].tolist() == pytest.approx(values.tolist())
    assert "date, written as day/month/year" in (dated / "export" / "README.md").read_text()


@pytest.mark.parametrize("text", ["now", "today", "30.02.2024", "2024-13-01", "soon"])
def test_what_is_no_date_in_the_table_is_none_for_a_server(dated: Path, text: str) -> None:
    model = ExportedModel.load(dated / "export")
    with pytest.raises(HTTPException) as refused:
        answer_rows(model, [[text, 0.0]])
    assert refused.value.status_code == 422 and "or written as day/month/year" in str(refused.value.detail)
    with pytest.raises(ValueError, match=r"'day' must hold date cells, written as day/month/year"):
        mlflow.pyfunc.load_model(str(dated / "model")).predict(pd.DataFrame({"day": [text], "x": [0.0]}))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a table with decimal commas and postal codes, as registered too."""
    home, rng = tmp_path_factory.mktemp("written"), np.random.default_rng(0)
    lines = ["price;share;zip;is_new;city;y"]
    for i in range(120):
        price = f"{1 + i % 7}.{rng.integers(100, 1000)},50"
        cells = (price, f"{i % 90},5 %", 10115 + i % 5, ("yes", "no")[i % 2], ("Rome", "Oslo", "NA")[i % 3], i % 3 % 2)
        lines.append(";".join(map(str, cells)))
    (home / "t.csv").write_text("\n".join(lines))
    config = DataConfig(path=str(home / "t.csv"), target=("y",), kinds={"zip": "categorical"})
    put_model(home, load_splits(config, 0))
    return home


def test_cells_are_read_as_the_table_had_them_by_all_who_answer(written: Path) -> None:
    model = ExportedModel.load(written / "export")
    assert model.forms["price"] == "1.234,5" and model.forms["share"] == "1.234,5%"
    expected = model.predict(
        {
            "price": np.array([1234.0, 1234.5, 0.5, np.nan]),
            "share": np.array([5.0, 7.5, np.nan, 1.0]),
            "zip": np.array(["10115", "10116", "", "10117"], dtype=object),
            "is_new": np.array([1.0, 0.0, np.nan, 1.0]),
            "city": np.array(["Rome", "Oslo", "", ""], dtype=object),
        }
    )
    texts = {
        "price": ["1.234", "1.234,50", "0,5", "n/a"],
        "share": ["5%", "7,5 %", "", "1%"],
        "zip": ["10115", "10116", "?", " 10117"],
        "is_new": ["yes", "0", "NA", "TRUE"],
        "city": [" Rome", "Oslo", "NA", "none"],
    }
    (written / "rows.csv").write_text(csv := pd.DataFrame(texts).to_csv(index=False, sep=";"))
    predict_file(written / "export", written / "rows.csv", written / "answers.csv")
    script = run_clean(make_clean(written / "packages"), written / "export" / "predict.py", written / "rows.csv")
    assert script.returncode == 0, script.stderr
    served = mlflow.pyfunc.load_model(str(written / "model"))
    typed = pd.DataFrame(texts).assign(
        price=[1234, 1234.5, 0.5, None],
        zip=pd.Series([10115, 10116, None, 10117]).astype(object),  # as MLflow's server makes them of numbers in JSON
        is_new=[True, False, None, True],
    )
    by_http = answer_rows(
        model,
        [
            [1234.0, 5.0, 10115, True, " Rome"],
            [1234.5, 7.5, "10116 ", "no", "Oslo"],
            [0.5, None, "?", None, "NA"],
            [None, 1.0, 10117, "true", "none"],
        ],
    )
    found = {
        "MLflow, texts": served.predict(pd.DataFrame(texts)),
        "MLflow, a CSV": served.predict(pd.read_csv(StringIO(csv), sep=";", dtype=str)),
        "MLflow, types": served.predict(typed),
        "the export, texts": pd.DataFrame(model.predict({name: np.array(own) for name, own in texts.items()})),
        "HTTP": pd.DataFrame(by_http),
        "studies predict": pd.read_csv(written / "answers.csv", sep=";", decimal=","),
        "predict.py": pd.read_csv(StringIO(script.stdout)),
    }
    for way, answers in found.items():
        for name, values in expected.items():
            assert answers[name].tolist() == pytest.approx(values.tolist(), abs=1e-6), way


@pytest.mark.parametrize(("column", "text"), [("price", "12.34"), ("share", "5"), ("price", "dear"), ("is_new", "2")])
def test_a_cell_that_the_table_could_not_have_is_refused_by_the_registered_model(
    written: Path, column: str, text: str
) -> None:
    row = {"price": "1.234", "share": "5%", "zip": "10115", "is_new": "yes", "city": "Rome"} | {column: text}
    with pytest.raises(ValueError, match=rf"column '{column}' must hold .*, not {text}"):
        mlflow.pyfunc.load_model(str(written / "model")).predict(pd.DataFrame([row]))


def test_the_signature_tells_texts_from_all_else_and_has_a_usual_row(folder: Path) -> None:
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    types = {column.name: str(column.type) for column in model.metadata.signature.inputs.inputs}
    assert {name for name, type_ in types.items() if "string" in type_} == {"city", "full", "zip", "nothing"}
    assert model.input_example["city"].tolist() == ["Rome"]
    assert model.input_example["sold"][0].endswith("Z")
    assert len(model.predict(model.input_example)) == 1


def test_a_column_that_is_no_truth_is_refused(folder: Path, rows: dict[str, np.ndarray]) -> None:
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    with pytest.raises(ValueError, match="column 'is_new' must hold boolean cells, not Perhaps"):
        model.predict(pd.DataFrame(rows).assign(is_new="Perhaps"))


def test_a_damaged_file_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder / "model", tmp_path / "model")
    graph = tmp_path / "model" / "artifacts" / "export" / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.onnx must be as it was written"):
        mlflow.pyfunc.load_model(str(tmp_path / "model"))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """`mlflow models serve`, as a person starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        "models",
        "serve",
        "-m",
        str(folder / "model"),
        "--env-manager",
        "local",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "NO_PROXY": "127.0.0.1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words], stdout=log, stderr=log, env=environment, start_new_session=True
        ) as process,
    ):
        try:
            for _ in range(600):
                try:
                    urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                    break
                except URLError:
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def asked(address: str, kind: str, body: str) -> pd.DataFrame:
    request = Request(address, body.encode(), {"Content-Type": kind})
    try:
        with urlopen(request, timeout=60) as reply:
            return pd.DataFrame(json.load(reply)["predictions"])
    except HTTPError as error:
        raise AssertionError(error.read().decode()[:2000]) from error


def test_mlflow_models_serve_answers_csv_and_json_as_the_export_and_its_script_do(
    folder: Path, server: str, rows: dict[str, np.ndarray], tmp_path: Path
) -> None:
    expected = pd.DataFrame(ExportedModel.load(folder / "export").predict(rows))
    frame = as_people_have_it(rows)
    frame["sold"] = frame["sold"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    frame["zip"] = frame["zip"].map(lambda text: text or "NA")
    csv = frame.assign(more="x").to_csv(index=False)
    (tmp_path / "rows.csv").write_text(csv)
    script = run_clean(make_clean(tmp_path / "packages"), folder / "export" / "predict.py", tmp_path / "rows.csv")
    (tmp_path / "answers.csv").write_text(script.stdout)
    found = {
        "CSV": asked(server, "text/csv", csv),
        "split": asked(
            server, "application/json", json.dumps({"dataframe_split": json.loads(frame.to_json(orient="split"))})
        ),
        "records": asked(
            server, "application/json", json.dumps({"dataframe_records": json.loads(frame.to_json(orient="records"))})
        ),
        "predict.py": pd.read_csv(tmp_path / "answers.csv"),
    }
    for way, answers in found.items():
        assert list(answers) == list(expected) and answers["label"].tolist() == expected["label"].tolist(), way
        for name in expected.columns[1:]:
            np.testing.assert_allclose(answers[name], expected[name], rtol=0, atol=1e-5, err_msg=way)
