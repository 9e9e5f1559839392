"""A trained network as the start of others: read from its export, and fitted to the columns of another table.

Columns are matched by name. One that both tables have is prepared by the numbers that the source was trained with, so
that the kept weights see what they know. One that only the new table has is fitted there; its weights start at 0, as if
it were not there. One that only the source has is missing in every row: what a missing value of it adds to the first
layer is the same in all rows, and goes into that layer's bias (over batches: into the running mean).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlcore.backbone import Backbone, backbone_of
from dlcore.checkpoint import config_from_dict, network_from_bytes
from dlcore.columns import NUMBER_KINDS, Column, Features
from dlcore.data import DataSplits, Split, check_learnable
from dlcore.encoders import Encoder, NumberEncoder
from dlcore.errors import ConfigError, DataError, ExportError
from dlcore.exported import MANIFEST_FILE, WEIGHTS_FILE, read_export
from dlcore.files import sha256
from dlcore.inputfile import listed
from dlcore.preprocess import Preprocessor
from dlcore.scaling import SCALERS

_NAMED = 5
"""Columns that a line names; of more it says how many."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An export of one network, to start others from."""

    name: str
    """Of its folder."""
    backbone: Backbone
    """Its hidden layers, for the rows that its own preprocessing gives."""
    preprocessor: Preprocessor
    kinds: Mapping[str, str]
    """Column -> its kind, in the order of its table."""
    weights_sha256: str
    """Of its `weights.safetensors`."""
    facts: Mapping[str, Any]
    """What its manifest says beside the network: of its study, say."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights, the hidden layers' form and the preprocessing, in hex."""
        own = self.backbone
        form = [own.widths, own.activation, own.slope, own.normalization, dict(self.kinds), self.preprocessor.to_dict()]
        return hashlib.sha256(f"{self.weights_sha256} {json.dumps(form)}".encode()).hexdigest()

    @property
    def scaling(self) -> str | None:
        """How its numeric columns are scaled, a name in `dlcore.config.SCALINGS`; None where it has none."""
        numeric = [e for e in self.preprocessor.encoders if isinstance(e, NumberEncoder) and e.kind == "numeric"]
        return next((name for name, kind in SCALERS.items() if numeric and isinstance(numeric[0].scaler, kind)), None)


@dataclass(frozen=True, slots=True, eq=False)
class Transfer:
    """A source, fitted to a table."""

    source: Source
    backbone: Backbone
    """Its hidden layers, for the rows that the table's preprocessing gives."""
    matched: tuple[str, ...]
    """Columns that both have."""
    new: tuple[str, ...]
    """Columns that only the table has."""
    missing: tuple[str, ...]
    """Columns that only the source has."""

    @property
    def text(self) -> str:
        """How the columns meet, in one line."""
        parts = [f"{len(self.matched):,} of the source's {len(self.matched) + len(self.missing):,} columns matched"]
        if self.new:
            parts.append(f"new here, with weights that start at 0: {_some(self.new)}")
        if self.missing:
            parts.append(f"not here, and taken for missing in every row: {_some(self.missing)}")
        return "; ".join(parts)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def read_source(folder: Path) -> Source:
    """Read an export that others may start from; its files are held against their sums.

    Raises:
        ExportError: It is none, is damaged, is an ensemble, or has no hidden layer.
    """
    if not folder.is_dir():
        raise ExportError(f"[transfer] from must be the folder of an export; there is none at {folder}")
    files, manifest = read_export(folder)
    if "members" in manifest:
        n_members = len(manifest["members"])  # type: ignore[arg-type]
        raise ExportError(
            f"[transfer] from must be the export of one network; {folder} is an ensemble of {n_members}: export one "
            "trial of its study (studies export STUDY --trial N --to FOLDER), and name that folder"
        )
    try:
        config = config_from_dict(manifest["architecture"])  # type: ignore[arg-type]
        preprocessor = Preprocessor.from_dict(manifest["preprocessing"])  # type: ignore[arg-type]
        columns: list[dict[str, str]] = manifest["columns"]  # type: ignore[assignment]
        kinds = {column["name"]: column["kind"] for column in columns}
    except (ConfigError, DataError, KeyError, TypeError) as error:
        raise ExportError(f"{folder / MANIFEST_FILE} must describe a network; {error}") from error
    if not config.widths:
        raise ExportError(
            f"[transfer] from must be a network with hidden layers; {folder} is a linear model, of which nothing but "
            "the head could be kept: take the export of another trial"
        )
    network = network_from_bytes(files[WEIGHTS_FILE], config, str(folder / WEIGHTS_FILE))
    facts = manifest.get("facts")
    return Source(
        folder.resolve().name,
        backbone_of(config, network.state_dict()),
        preprocessor,
        kinds,
        sha256(files[WEIGHTS_FILE]),
        facts if isinstance(facts, Mapping) else {},
    )


def transferred(splits: DataSplits, source: Source) -> tuple[DataSplits, Transfer]:
    """Fit a source to a table.

    Args:
        splits: The table, prepared by itself, read with the source's kinds as `known`.
        source: The network.

    Returns:
        The same rows, prepared as the source knows them, and the source for those.

    Raises:
        DataError: No column is in both, or one is of another kind.
    """
    own = {encoder.name: encoder for encoder in source.preprocessor.encoders}
    matched = tuple(name for name in splits.feature_names if name in own)
    new = tuple(name for name in splits.feature_names if name not in own)
    missing = tuple(name for name in own if name not in splits.feature_names)
    if not matched:
        raise DataError(
            f"[transfer] needs columns that the table and {source.name} both have, by name; the table has "
            f"{listed(splits.feature_names)}, the source {listed(tuple(own))}"
        )
    splits = _as_in(splits, own)
    _refuse_other_kinds(splits.train.x, source)
    encoders = tuple(own.get(encoder.name, encoder) for encoder in splits.preprocessor.encoders)
    fitted = replace(splits.preprocessor, encoders=encoders, kept=matched)
    backbone = _fitted_backbone(source, encoders)
    made = Transfer(source, backbone, matched, new, missing)
    found = replace(splits, preprocessor=fitted, notes=(*splits.notes, f"transfer: {made.text}"))
    check_learnable(found)
    return found, made


def _as_in(splits: DataSplits, own: Mapping[str, Encoder]) -> DataSplits:
    """Numbers that are all 0 and 1 as truths where the source has truths: sets of scikit-learn have no kinds."""
    parts = (splits.train, splits.val, splits.test)
    truths = set()
    for i, column in enumerate(splits.train.x.columns):
        if column.kind == "numeric" and column.name in own and own[column.name].kind == "boolean":
            values = np.concatenate([part.x.columns[i].values for part in parts])
            if (np.isnan(values) | np.isin(values, (0.0, 1.0))).all():
                truths.add(column.name)
    if not truths:
        return splits

    def told(part: Split) -> Split:
        columns = (replace(c, kind="boolean") if c.name in truths else c for c in part.x.columns)
        return replace(part, x=Features(tuple(columns)))

    return replace(splits, train=told(parts[0]), val=told(parts[1]), test=told(parts[2]))


def _refuse_other_kinds(features: Features, source: Source) -> None:
    """Every column that both have must be of one kind.

    Raises:
        DataError: One is not; it names all of them, and what would mend it.
    """
    other = [c for c in features.columns if c.name in source.kinds and c.kind != source.kinds[c.name]]
    if not other:
        return
    said = ", ".join(f"{c.name!r} is {c.kind} and was {source.kinds[c.name]}" for c in other[:_NAMED])
    more = f", and {len(other) - _NAMED} more" if len(other) > _NAMED else ""
    kinds = ", ".join(f"{json.dumps(c.name)} = {json.dumps(source.kinds[c.name])}" for c in other[:_NAMED])
    raise DataError(
        f"[transfer] needs columns that are of the same kind as in {source.name}: {said}{more}; say what they are "
        f"([data] kinds = {{ {kinds} }}), rename them, or leave them out (drop)"
    )


def _fitted_backbone(source: Source, encoders: Sequence[Encoder]) -> Backbone:
    """The source's hidden layers for other rows: a first layer whose inputs are those of these encoders."""
    own = source.preprocessor
    ends = np.cumsum(own.widths).tolist()
    weight, *rest = source.backbone.layers[0]
    blocks = {e.name: weight[:, end - n : end] for e, end, n in zip(own.encoders, ends, own.widths, strict=True)}
    columns = [
        blocks[encoder.name] if encoder.name in blocks else torch.zeros(len(weight), len(encoder.output_names))
        for encoder in encoders
    ]
    kept = {encoder.name for encoder in encoders}
    always = torch.zeros(len(weight), dtype=torch.float64)  # what the missing columns add in every row
    for encoder in own.encoders:
        if encoder.name not in kept:
            always += blocks[encoder.name].double() @ torch.from_numpy(encoder.encode(_nothing(encoder))[0])
    statistics = source.backbone.statistics
    if not always.any():
        pass
    elif source.backbone.normalization == "batch":  # no bias: what is added to all rows is taken away with their mean
        mean, variance = statistics[0]
        statistics = ((mean.double() - always).float(), variance), *statistics[1:]
    else:
        rest[0] = (rest[0].double() + always).float()
    first = torch.cat(columns, dim=1).contiguous()
    layers = ((first, *rest), *source.backbone.layers[1:])
    return replace(source.backbone, n_features=first.shape[1], layers=layers, statistics=statistics)


def _nothing(encoder: Encoder) -> Column:
    """One row without a value."""
    if encoder.kind in NUMBER_KINDS:
        return Column(encoder.name, encoder.kind, np.array([np.nan]))
    return Column(encoder.name, encoder.kind, np.array([-1], dtype=np.int32))
