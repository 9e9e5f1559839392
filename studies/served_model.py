"""The code of a registered model: MLflow copies this file beside the export, and runs it to load the model.

So it stands alone: it needs mlflow, numpy, onnxruntime and pandas, and nothing of this project. No pickle.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class ExportedNetwork(PythonModel):
    """Raw rows -> labels and probabilities, or predictions, by onnxruntime."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the graph of the export folder."""
        folder = Path(context.artifacts["export"])
        manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._types = {node.name: node.type for node in self._session.get_inputs()}
        self._dates = {column["name"] for column in manifest["columns"] if column["kind"] == "date"}
        # Names in the graph differ from people's only where ONNX needs it.
        self._inputs = manifest.get("inputs") or {name: name for name in self._types}
        self._outputs = manifest.get("outputs") or {node.name: node.name for node in self._session.get_outputs()}

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answer N raw rows, missing values as NaN or None, with N rows of one column per output.

        Dates are ISO texts, datetimes, or seconds since 1970-01-01 UTC.
        """
        columns = {}
        for column, name in self._inputs.items():
            if self._types[name] == "tensor(string)":
                columns[name] = model_input[column].fillna("").astype(str).to_numpy(dtype=object)
            elif column in self._dates and not pd.api.types.is_numeric_dtype(model_input[column].dtype):
                columns[name] = _seconds(model_input[column])
            else:
                columns[name] = model_input[column].to_numpy(dtype=np.float64, na_value=np.nan)
        answers = self._session.run(list(self._outputs.values()), columns)
        return pd.DataFrame(dict(zip(self._outputs, answers, strict=True)))


def _seconds(dates: "pd.Series[Any]") -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """ISO texts or datetimes (N,) -> seconds since 1970-01-01 UTC."""
    moments = pd.to_datetime(dates, utc=True, format="ISO8601").to_numpy(dtype="datetime64[us]")
    return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 1e6)


set_model(ExportedNetwork())
