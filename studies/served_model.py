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
        self._kinds = {column["name"]: column["kind"] for column in manifest["columns"]}
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
            values = model_input[column]
            is_written = not pd.api.types.is_numeric_dtype(values.dtype)
            if self._types[name] == "tensor(string)":
                columns[name] = values.astype(object).where(values.notna(), "").map(str).to_numpy(dtype=object)
            elif is_written and self._kinds[column] == "boolean":
                columns[name] = values.map(_truth).to_numpy(dtype=np.float64, na_value=np.nan)
            elif is_written and self._kinds[column] == "date":
                columns[name] = _seconds(values)
            else:
                columns[name] = values.to_numpy(dtype=np.float64, na_value=np.nan)
        answers = self._session.run(list(self._outputs.values()), columns)
        return pd.DataFrame(dict(zip(self._outputs, answers, strict=True)))


def _truth(value: object) -> object:
    """What a cell of a true-or-false column says in words, as a number."""
    known = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0, "1": 1.0, "0": 0.0}
    return known[value.strip().lower()] if isinstance(value, str) else value


def _seconds(dates: "pd.Series[Any]") -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """ISO texts or datetimes (N,) -> seconds since 1970-01-01 UTC."""
    moments = pd.to_datetime(dates, utc=True, format="ISO8601").to_numpy(dtype="datetime64[us]")
    return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 1e6)


set_model(ExportedNetwork())
