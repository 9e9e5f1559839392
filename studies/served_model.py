"""The code of a registered model: MLflow copies this file beside the export, and runs it to load the model.

So it stands alone: it needs mlflow, numpy, onnxruntime and pandas, and nothing of this project. No pickle.
"""

import hashlib
import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime would report to its maker, from its import on

import numpy as np
import onnxruntime
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import DataType, Schema

MISSING = ("", "?", "na", "n/a", "nan", "null", "none")
"""Texts that stand for no value, in lower case, as where the network learned."""


class ExportedNetwork(PythonModel):
    """Raw rows -> labels and probabilities, or predictions, by onnxruntime."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the graph of the export folder."""
        folder = Path(context.artifacts["export"])
        _check(folder)
        manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._types = {node.name: node.type for node in self._session.get_inputs()}
        self._kinds = {column["name"]: column["kind"] for column in manifest["columns"]}
        self._rules = {column["name"]: column.get("cells") for column in manifest["columns"]}
        # Names in the graph differ from people's only where ONNX needs it.
        self._inputs = manifest.get("inputs") or {name: name for name in self._types}
        self._outputs = manifest.get("outputs") or {node.name: node.name for node in self._session.get_outputs()}

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answer N raw rows, missing values as NaN or None, with N rows of one column per output.

        Texts are read as the table's cells were. Dates may be ISO texts, datetimes, or seconds since 1970-01-01 UTC,
        too.
        """
        columns = {}
        for column, name in self._inputs.items():
            values = _told(model_input[column])
            is_written = not pd.api.types.is_numeric_dtype(values.dtype)
            if self._types[name] == "tensor(string)":
                columns[name] = values.astype(object).where(values.notna(), "").map(_category).to_numpy(dtype=object)
            elif is_written and self._kinds[column] == "date":
                columns[name] = _seconds(values, self._rules[column])
            elif is_written:
                columns[name] = _numbers(values, self._rules[column])
            else:
                columns[name] = values.to_numpy(dtype=np.float64, na_value=np.nan)
        answers = self._session.run(list(self._outputs.values()), columns)
        return pd.DataFrame(dict(zip(self._outputs, answers, strict=True)))


def _check(folder: Path) -> None:
    """Refuse files that are not as they were written."""
    for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        if hashlib.sha256((folder / line[66:]).read_bytes()).hexdigest() != line[:64]:
            raise ValueError(f"{folder / line[66:]} must be as it was written, and is not: register the model again")


def _told(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """The same, but texts without blanks around them, and those that stand for no value as None."""
    if pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_datetime64_any_dtype(values.dtype):
        return values
    texts = values.astype(object).map(lambda value: value.strip() if isinstance(value, str) else value)
    is_missing = texts.map(lambda value: isinstance(value, str) and value.lower() in MISSING).astype(bool)
    return texts.where(~is_missing, None)


_fixed_types = Schema.pandas_types


def _pandas_types(schema: Schema) -> "list[np.dtype[Any]]":
    """What MLflow's server reads the columns of a CSV as: text where the signature leaves the type open.

    MLflow itself refuses every CSV for such a signature; with fixed types it would refuse whole numbers, holes in
    true-or-false columns and dates in frames and in JSON.
    """
    if schema.is_tensor_spec() or all(isinstance(column.type, DataType) for column in schema.inputs):
        return list(_fixed_types(schema))
    return [c.type.to_pandas() if isinstance(c.type, DataType) else np.dtype(object) for c in schema.inputs]


Schema.pandas_types = _pandas_types  # type: ignore[method-assign,assignment]


def _category(value: object) -> str:
    """A category's text; pandas makes whole numbers beside a missing one 10115.0, and the table had 10115."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


_WORDS = {"true": "1", "yes": "1", "false": "0", "no": "0"}


def _numbers(
    values: "pd.Series[Any]", rules: "list[list[str]] | None"
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Texts, numbers or booleans (N,) -> numbers.

    Args:
        values: (N,); None is missing.
        rules: Patterns and what takes their place, one after the other, until a text is a number as Python writes it;
            exports of earlier versions have none.
    """

    def number(value: object) -> object:
        if not isinstance(value, str):
            return value
        left = _left_of(value, rules) if rules else _WORDS.get(value.lower(), value)
        try:
            return float(left)
        except ValueError:
            raise ValueError(left if rules else f"a column must hold numbers, or true and false, not {value}") from None

    return values.astype(object).map(number).to_numpy(dtype=np.float64, na_value=np.nan)


def _left_of(cell: str, rules: "list[list[str]] | None") -> str:
    """What the rules of a column leave of a cell: a number or an ISO date, or a sentence that says what it must be."""
    for pattern, new in rules or ():
        cell = re.sub(pattern, new, cell)
    return cell


def _seconds(
    dates: "pd.Series[Any]", rules: "list[list[str]] | None"
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Texts or datetimes (N,) -> seconds since 1970-01-01 UTC.

    Args:
        dates: (N,); None is missing.
        rules: As of `_numbers`, until a text is ISO's.
    """

    def iso(value: object) -> object:
        if isinstance(value, str):
            value = _left_of(value, rules)
            if rules and value != "nan":  # refuses what is a date to pandas alone, such as "now"
                datetime.fromisoformat(value)
        return None if value == "nan" else value

    if not pd.api.types.is_datetime64_any_dtype(dates.dtype):
        dates = dates.map(iso)
    moments = pd.to_datetime(dates, utc=True, format="ISO8601").to_numpy(dtype="datetime64[us]")
    return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 1e6)


set_model(ExportedNetwork())
