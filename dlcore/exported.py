"""An export as whoever uses it needs it: verified, loaded, and asked for answers. No torch.

What is answered comes from onnxruntime alone; `dlcore.export` writes such a folder.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# From its import on, onnxruntime would keep a mark of this machine, and might report to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx.external_data_helper import uses_external_data

from dlcore.errors import ExportError
from dlcore.files import read_sealed
from dlcore.manifest import Interface, what_is_wrong
from dlcore.raw import to_input
from dlcore.targets import Label

GRAPH_FILE, WEIGHTS_FILE, MANIFEST_FILE = _NETWORK = ("model.onnx", "weights.safetensors", "model.json")
CARD_FILE, SCRIPT_FILE = "README.md", "predict.py"
FILES = (GRAPH_FILE, WEIGHTS_FILE, CARD_FILE, SCRIPT_FILE, MANIFEST_FILE)
"""What an export holds beside the sums."""
FORMAT_VERSION = 3
_WITHOUT_CARD = 2
"""The version before card and script, which is read still."""
VECTOR_ROWS = 16
"""Numbers in the largest vector of a CPU: 512 bits of float32."""

Columns = Mapping[str, NDArray[Any]]


class ExportedModel:
    """An export, loaded from disk and verified; answers through onnxruntime alone."""

    def __init__(self, graph: bytes, manifest: Mapping[str, object]) -> None:
        """Use `load`, which verifies the files first.

        Args:
            graph: Content of `model.onnx`.
            manifest: Content of `model.json`.
        """
        self.manifest = manifest
        self.task = str(manifest["task"])
        columns: list[dict[str, str]] = manifest["columns"]  # type: ignore[assignment]
        self.kinds: dict[str, str] = {column["name"]: column["kind"] for column in columns}
        """Column -> its kind, in the order of the table."""
        self.forms: dict[str, str] = {column["name"]: column["form"] for column in columns}
        """Column -> how its numbers or dates were written in the training, where they were texts."""
        self.feature_names: tuple[str, ...] = tuple(self.kinds)
        self.class_labels: tuple[Label, ...] = tuple(
            manifest["class_labels"]  # type: ignore[arg-type]
        )
        self._interface = Interface(manifest["inputs"], manifest["outputs"])  # type: ignore[arg-type]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    @classmethod
    def load(cls, folder: Path) -> "ExportedModel":
        """Load an export.

        Raises:
            ExportError: If a file is missing or is not the one that was written; it names the file.
        """
        files, manifest = read_export(folder)
        try:
            graph = onnx.ModelProto.FromString(files[GRAPH_FILE])
            if any(uses_external_data(tensor) for tensor in graph.graph.initializer):
                raise ExportError(f"{folder / GRAPH_FILE} must hold all its numbers itself")
            model = cls(files[GRAPH_FILE], manifest)
        except ExportError:
            raise
        except Exception as error:  # those of protobuf and of onnxruntime share no other base
            raise ExportError(f"{folder / GRAPH_FILE} must be a graph written by dlcore; {error!r}") from error
        if not model.has_its_graph():
            raise ExportError(f"{folder / MANIFEST_FILE} must describe the graph beside it; its columns are others")
        return model

    def has_its_graph(self) -> bool:
        """Whether the graph has the inputs and outputs that the manifest tells of."""
        texts = {self._interface.inputs[name] for name, kind in self.kinds.items() if kind == "categorical"}
        inputs = {node.name: node.type == "tensor(string)" for node in self._session.get_inputs()}
        outputs = [node.name for node in self._session.get_outputs()]
        return (
            inputs == {name: name in texts for name in self._interface.inputs.values()}
            and list(self._interface.outputs.values()) == outputs
        )

    def predict(self, columns: Columns) -> dict[str, NDArray[np.generic]]:
        """Answer raw rows.

        Args:
            columns: Column -> its values (N,), as `dlcore.raw.to_input` takes them: numbers, texts, dates; None
                or NaN where missing. Columns that the network does not know are not read.

        Returns:
            Classification: "label" (N,) and one "probability_<class>" (N,) each; regression: "prediction"
            (N,), or one "prediction_<target>" (N,) each.

        Raises:
            ExportError: If a column is missing, holds something else than its kind, or has another length than the
                others.
        """
        missing = [name for name in self.feature_names if name not in columns]
        if missing:
            raise ExportError(
                f"predict needs the columns {', '.join(self.feature_names)}; missing: {', '.join(missing)}"
            )
        rows = {name: to_input(name, kind, columns[name], self.forms[name]) for name, kind in self.kinds.items()}
        lengths = {len(values) for values in rows.values()}
        if len(lengths) > 1:
            raise ExportError(f"all columns must be equally long; got lengths {sorted(lengths)}")
        return self.answer(rows)

    def answer(self, rows: Columns) -> dict[str, NDArray[np.generic]]:
        """Answer rows that are as the graph takes them, each column (N,) as `dlcore.raw.to_input` makes it; any thread.

        A row gets the same bits whatever stands beside it: the last rows of a batch that fill no vector of the CPU
        would be computed by other code, and differ in the last digit, so batches are filled up with their last row.

        Returns:
            As `predict`.
        """
        n_rows = len(next(iter(rows.values())))
        if n_rows % VECTOR_ROWS:
            places = np.minimum(np.arange(-(-n_rows // VECTOR_ROWS) * VECTOR_ROWS), n_rows - 1)
            rows = {name: values[places] for name, values in rows.items()}
        answers = self._session.run(
            list(self._interface.outputs.values()),
            {self._interface.inputs[name]: values for name, values in rows.items()},
        )
        return {name: answer[:n_rows] for name, answer in zip(self._interface.outputs, answers, strict=True)}


def read_export(folder: Path) -> tuple[dict[str, bytes], dict[str, object]]:
    """The files of an export, verified, and its manifest.

    Raises:
        ExportError: If a file is missing or is not the one that was written, or another version wrote them.
    """
    files = read_sealed(folder, _NETWORK, (CARD_FILE, SCRIPT_FILE))
    try:
        manifest = json.loads(files[MANIFEST_FILE])
    except ValueError as error:
        raise ExportError(f"{folder / MANIFEST_FILE} must be JSON; {error}") from error
    found = manifest.get("format_version") if isinstance(manifest, dict) else None
    if found not in (_WITHOUT_CARD, FORMAT_VERSION):
        raise ExportError(
            f"{folder / MANIFEST_FILE} must have format_version {_WITHOUT_CARD} or {FORMAT_VERSION}, not {found}: "
            "export it again with this version of dlcore, or read it with the one that wrote it"
        )
    if wrong := what_is_wrong(manifest):
        raise ExportError(f"{folder / MANIFEST_FILE} must describe a network; {wrong}")
    if found == FORMAT_VERSION and (missing := [name for name in FILES if name not in files]):
        raise ExportError(f"{folder / missing[0]} must be there; copy the export again, whole")
    return files, manifest
