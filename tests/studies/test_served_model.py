"""The registered model answers raw rows as the export does; loaded by MLflow, in this process."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from dlcore.config import ModelConfig
from dlcore.export import export_model
from dlcore.exported import ExportedModel
from dlcore.models import build_model
from studies import registry
from tests.dlcore.column_tools import of_all_kinds, raw, splits_of_all_kinds

pytestmark = [
    pytest.mark.slow,  # MLflow's import, and the check that it makes of its example
    pytest.mark.filterwarnings("ignore"),  # of MLflow's own code
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a table with columns of every kind, and beside it the model that is registered."""
    home, splits = tmp_path_factory.mktemp("served"), splits_of_all_kinds("binary")
    config = ModelConfig(splits.n_features, splits.n_outputs, (8,))
    export_model(home / "export", build_model(config, seed=1), config, splits, {})
    registry._save_model(home / "model", home / "export", None)
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


def test_the_signature_tells_texts_from_all_else_and_has_a_usual_row(folder: Path) -> None:
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    types = {column.name: str(column.type) for column in model.metadata.signature.inputs.inputs}
    assert {name for name, type_ in types.items() if "string" in type_} == {"city", "full", "zip", "nothing"}
    assert model.input_example["city"].tolist() == ["Rome"]
    assert model.input_example["sold"][0].endswith("Z")
    assert len(model.predict(model.input_example)) == 1


def test_a_column_that_is_no_truth_is_refused(folder: Path, rows: dict[str, np.ndarray]) -> None:
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    with pytest.raises(KeyError, match="perhaps"):
        model.predict(pd.DataFrame(rows).assign(is_new="Perhaps"))
