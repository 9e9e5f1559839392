"""Networks as files that are usable without this code, and the check that they answer as those do.

An export is a folder: `model.onnx` (raw rows in, answers out), `weights.safetensors`, `model.json` (the manifest),
`README.md` (the model card), `predict.py` and `SHA256SUMS`. Several networks are exported as one that answers with the
mean of their predictions. The answers are checked before anything is written; the folder appears as a whole
(`dlcore.files`). Nothing here executes what it reads: no pickle, no code, no other file.
"""

import copy
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlcore.card import Sections, model_card
from dlcore.cellrules import cell_rules
from dlcore.checkpoint import (
    config_from_dict,
    config_to_dict,
    ensemble_from_bytes,
    ensemble_to_bytes,
    network_from_bytes,
    weights_to_bytes,
)
from dlcore.columns import Column, Features
from dlcore.config import ModelConfig
from dlcore.data import SPLITS, DataSplits
from dlcore.ensemble import Ensemble, Part, Preprocessors, as_one, different_preprocessors, each_once
from dlcore.errors import ConfigError, DataError, ExportError
from dlcore.evaluation import forward_rows
from dlcore.exported import (
    CARD_FILE,
    FORMAT_VERSION,
    GRAPH_FILE,
    MANIFEST_FILE,
    SCRIPT_FILE,
    WEIGHTS_FILE,
    ExportedModel,
    read_export,
)
from dlcore.files import sha256, write_sealed
from dlcore.manifest import Interface, name_interface
from dlcore.onnx_graph import build_graph
from dlcore.onnx_nodes import OPSET
from dlcore.predict_script import PREDICT_SCRIPT
from dlcore.preprocess import Preprocessor
from dlcore.targets import Label

TOLERANCE = 1e-5
"""Largest difference of answers: of probabilities, or of standardised values relative to max(1, |value|)."""
CHECKED_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Story:
    """What an export says of itself beside what dlcore knows."""

    facts: Mapping[str, object] = field(default_factory=dict)
    """For the manifest (spec, trial, metrics, ...), as plain data."""
    title: str = ""
    """Of the model card; "" takes the table's name."""
    sections: Sections = field(default_factory=dict)
    """For the model card: title -> Markdown."""


def export_model(
    folder: Path, model: nn.Sequential, model_config: ModelConfig, splits: DataSplits, facts: Mapping[str, object]
) -> Path:
    """Write a network and its preprocessing to a folder, whole or not at all.

    Args:
        folder: Where to; an older export there is replaced.
        model: From preprocessed rows (N, F) to (N, C), on any device; exported in float32.
        model_config: Its architecture.
        splits: The data that it was trained on: names, labels, preprocessing, and val rows for the check.
        facts: What else the manifest should say (spec, trial, metrics, ...), as plain data.

    Returns:
        The folder, absolute.

    Raises:
        ExportError: If the files would not answer as the network does, or cannot be written. What was in
            the folder is still there then.
    """
    return export_parts(folder, [Part(model, model_config, splits.preprocessor)], splits, Story(facts))


def export_parts(folder: Path, parts: Sequence[Part], splits: DataSplits, story: Story) -> Path:
    """Write networks that answer together, with the mean of their predictions; see `export_model`.

    Args:
        folder: Where to; an older export there is replaced.
        parts: At least one; their preprocessors were fitted on the rows of `splits`, and differ in features alone.
        splits: The data that they were trained on.
        story: What else manifest and card should say.
    """
    folder = folder.resolve()
    parts = [replace(part, network=_plain_network(part.network)) for part in each_once(parts)]
    interface = name_interface(splits.feature_names, splits.target_names, splits.class_labels)
    graph = build_graph(parts, interface, splits.class_labels).SerializeToString()
    manifest = _describe(parts, splits, interface)
    module, preprocessors = as_one(splits.task, parts)
    if len(parts) == 1:
        weights = weights_to_bytes(parts[0].network, parts[0].config)
        whole: nn.Module = parts[0].network
    else:
        weights = ensemble_to_bytes(module, [part.config for part in parts])
        whole = module.eval()
    manifest["check"] = check_answers(ExportedModel(graph, manifest), whole, preprocessors, splits)
    card = model_card(manifest, parts, splits, story.title or splits.name, story.sections)
    files = {
        GRAPH_FILE: graph,
        WEIGHTS_FILE: weights,
        CARD_FILE: card.encode(),
        SCRIPT_FILE: PREDICT_SCRIPT.encode(),
    }
    manifest["files"] = {name: sha256(content) for name, content in files.items()}
    manifest["facts"] = _plain("facts", story.facts)
    files[MANIFEST_FILE] = (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode()
    write_sealed(folder, files)
    return folder


def _plain_network(network: nn.Sequential) -> nn.Sequential:
    return copy.deepcopy(network).to(device="cpu", dtype=torch.float32).eval()


def load_network(folder: Path) -> tuple[nn.Sequential | Ensemble, Preprocessor | Preprocessors, dict[str, object]]:
    """The exported network back in PyTorch, in eval mode, what prepares its rows, and the manifest.

    An ensemble is one network too: from prepared rows to outputs of which its task makes the mean of the predictions.

    Raises:
        ExportError: As `ExportedModel.load`.
    """
    files, manifest = read_export(folder)
    place = str(folder / WEIGHTS_FILE)
    try:
        if "members" in manifest:
            ensemble = ensemble_from_bytes(files[WEIGHTS_FILE], str(manifest["task"]), _members(manifest), place)
            _try_out(*ensemble, manifest)
            return *ensemble, manifest
        config = config_from_dict(manifest["architecture"])  # type: ignore[arg-type]
        preprocessor = Preprocessor.from_dict(manifest["preprocessing"])  # type: ignore[arg-type]
        network = network_from_bytes(files[WEIGHTS_FILE], config, place)
        _try_out(network, preprocessor, manifest)
    except (ConfigError, DataError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ExportError(f"{folder / MANIFEST_FILE} must describe a network; {error}") from error
    return network, preprocessor, manifest


def _try_out(network: nn.Module, preprocessor: Preprocessor | Preprocessors, manifest: Mapping[str, Any]) -> None:
    """Let a loaded network answer a row without values, so that what cannot be used is found now."""
    columns = []
    for name, kind in ((column["name"], column["kind"]) for column in manifest["columns"]):
        nothing = np.full(1, -1, np.int32) if kind == "categorical" else np.full(1, np.nan)
        columns.append(Column(name, kind, nothing))
    prepared = preprocessor.transform(Features(tuple(columns)))
    with torch.no_grad():
        network(torch.from_numpy(prepared).float())


def _members(manifest: Mapping[str, Any]) -> list[tuple[ModelConfig, Preprocessor, int]]:
    """The configs of an ensemble's members, what prepares the rows of each, and for how many it counts."""
    preprocessors = [Preprocessor.from_dict(own) for own in manifest["preprocessings"]]
    return [
        (config_from_dict(m["architecture"]), preprocessors[m["preprocessing"]], int(m.get("weight", 1)))
        for m in manifest["members"]
    ]


def check_answers(
    exported: ExportedModel, network: nn.Module, preprocessors: Preprocessors, splits: DataSplits
) -> dict[str, float]:
    """Compare onnxruntime with PyTorch on val rows, on rows with missing values, and in other batch sizes.

    Args:
        exported: Answers by onnxruntime.
        network: From prepared rows to outputs (N, C).
        preprocessors: Prepare its rows.
        splits: The data, whose val rows are asked.

    Returns:
        For the manifest: "rows" compared, "largest_difference" found, "tolerance" allowed.

    Raises:
        ExportError: If an answer differs by more than the tolerance, or a label is not the likeliest class.
    """
    x = _rows_to_check(splits)
    expected = _answers_of(network, torch.from_numpy(preprocessors.transform(x)), splits)
    largest = 0.0
    for n in (len(x), 7, 1):
        answers = exported.predict({column.name: column.take(slice(n)).raw() for column in x.columns})
        labels = answers.pop("label", None)
        found = np.stack(list(answers.values()), axis=1).astype(np.float64)
        if splits.task == "regression":
            found = splits.preprocessor.scale_target(found)
        # np.max() keeps a NaN, and NaN is not <= anything: what cannot be compared is refused.
        largest = float(np.max([largest, _largest_gap(found, expected[:n])]))
        if labels is not None:
            _check_labels(labels, splits.class_labels, expected[:n])
    if not largest <= TOLERANCE:
        raise ExportError(
            f"the exported graph must answer as the network does, to {TOLERANCE:g}; on {len(x)} rows they "
            f"differ by {largest:.3g}. Nothing was written"
        )
    return {"rows": len(x), "largest_difference": largest, "tolerance": TOLERANCE}


def _check_labels(
    labels: NDArray[np.generic],
    class_labels: Sequence[Label],
    probabilities: NDArray[np.float64],
) -> None:
    """Labels (N,) must be the likeliest class of probabilities (N, C), wherever rounding cannot decide it."""
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    for row in np.flatnonzero(first - second > 2 * TOLERANCE):
        wanted = class_labels[int(probabilities[row].argmax())]
        if labels[row] != wanted:
            raise ExportError(
                f"the exported graph must call the likeliest class {wanted!r}, not {labels[row]!r}. Nothing was written"
            )


def _largest_gap(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Largest difference of answers (N, C), relative to max(1, |expected|); NaN if one of them is NaN."""
    return float(np.max(np.abs(found - expected) / np.maximum(1, np.abs(expected))))


def _rows_to_check(splits: DataSplits) -> Features:
    """Raw rows: val, the first of them again with a third of the values missing or unseen, and an empty row."""
    rng = np.random.default_rng(0)
    n_rows = min(len(splits.val.x), CHECKED_ROWS)
    n_holed = min(n_rows, 100)
    rows = np.concatenate([np.arange(n_rows), np.arange(n_holed), [0]])
    columns = []
    for column in splits.val.x.columns:
        taken = column.take(rows)
        values, categories = taken.values.copy(), taken.categories
        share = rng.random(n_holed)
        nothing = -1 if column.kind == "categorical" else np.nan
        values[n_rows:-1][share < 1 / 3] = nothing
        values[-1] = nothing
        if column.kind == "categorical":
            unseen = _unseen(categories)
            categories = (*categories, unseen)
            values[n_rows:-1][share > 2 / 3] = len(categories) - 1
        columns.append(replace(taken, values=values, categories=categories))
    return Features(tuple(columns))


def _unseen(categories: Sequence[str]) -> str:
    """A text that is none of the categories."""
    return max(categories, default="") + "?"


def _answers_of(network: nn.Module, rows: Tensor, splits: DataSplits) -> NDArray[np.float64]:
    """PyTorch's probabilities of all classes, or standardised values (N, C), for prepared rows (N, F)."""
    dtype = next(network.parameters()).dtype
    outputs = forward_rows(network, rows.to(dtype)).double()
    if splits.task == "binary":
        outputs = torch.cat([torch.sigmoid(-outputs), torch.sigmoid(outputs)], dim=1)
    elif splits.task == "multiclass":
        outputs = torch.softmax(outputs, dim=1)
    answers: NDArray[np.float64] = outputs.numpy()
    fitted = splits.preprocessor
    if fitted.target_transform is not None:  # what is answered stays in the range of train
        return fitted.scale_target(fitted.unscale_target(answers, is_prediction=True))
    return answers


def _describe(parts: Sequence[Part], splits: DataSplits, interface: Interface) -> dict[str, Any]:
    """The manifest, without what is known only after the check."""
    preprocessors = different_preprocessors(parts)
    members = [
        {"architecture": config_to_dict(p.config), "preprocessing": preprocessors.index(p.preprocessor)}
        | ({} if p.weight == 1 else {"weight": p.weight})
        for p in parts
    ]
    network: dict[str, object]
    if len(parts) == 1:
        network = {"architecture": members[0]["architecture"], "preprocessing": preprocessors[0].to_dict()}
    else:
        network = {"members": members, "preprocessings": [own.to_dict() for own in preprocessors]}
    return {
        "format_version": FORMAT_VERSION,
        "task": splits.task,
        "columns": [
            {
                "name": column.name,
                "kind": column.kind,
                "form": column.form,
                "cells": cell_rules(column.name, column.kind, column.form),
                "dtype": "str" if column.kind == "categorical" else "float64",
                "example": encoder.example,
            }
            for column, encoder in zip(splits.train.x.columns, preprocessors[0].encoders, strict=True)
        ],
        "target_names": list(splits.target_names),
        "class_labels": list(splits.class_labels),
        "inputs": interface.inputs,
        "outputs": interface.outputs,
        **network,
        "data": {
            "name": splits.name,
            "fingerprint": splits.fingerprint,
            "rows": {name: len(splits.split(name).x) for name in SPLITS},
        },
        "opset": OPSET,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "onnx", "onnxruntime", "safetensors")},
    }


def _plain(where: str, value: object) -> object:
    """Facts as JSON can hold them: numpy's numbers as Python's, NaN and infinities as null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{where}.{key}", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(f"{where}[{i}]", item) for i, item in enumerate(value)]
    raise ExportError(f"{where} must be plain data (text, numbers, lists, mappings); got {value!r}")
