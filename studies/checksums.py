"""Checksums of what a database holds of a finished trial, of a study's facts and of a winner, in one canonical text.

Damage that a database does not see (a bit that fell over in a value) shows here. Ids are left out, since a copied
database may count otherwise; so is the lease's token, which says nothing of the trial.
"""

import enum
import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "trials": ("number", "state", "datetime_start", "datetime_complete"),
    "trial_params": ("param_name", "param_value", "distribution_json"),
    "trial_values": ("objective", "value", "value_type"),
    "trial_intermediate_values": ("step", "intermediate_value", "intermediate_value_type"),
    "trial_user_attributes": ("key", "value_json"),
    "trial_system_attributes": ("key", "value_json"),
    "dlcore_results": (
        "cohort",
        "hyperparameters_json",
        "n_parameters",
        "reason",
        "best_epoch",
        "best_val_loss",
        "started_at",
        "finished_at",
        "duration_s",
        "samples_per_s",
        "engine",
        "population_size",
        "device",
        "peak_memory_bytes",
        "searched_json",
    ),
    "dlcore_curves": ("epoch", "train_loss", "val_loss", "val_metric", "learning_rate", "finished_at"),
}
"""The columns that count, by table; the first of each tells a trial's rows apart."""

FACTS = (
    "uuid",
    "created_at",
    "spec_json",
    "objectives_json",
    "task",
    "curve_metric",
    "cohort_size",
    "n_features",
    "n_outputs",
    "data_name",
    "data_fingerprint",
    "environment_json",
)
"""The columns of `dlcore_studies` that say what is fixed of a study."""
WINNER = ("created_at", "n_finished", "val_metrics_json", "test_metrics_json", "export_dir", "onnx_sha256")
"""The columns of `dlcore_winners` beside the ids and `final_json`."""

Rows = Mapping[str, Iterable[tuple[object, ...]]]
"""A trial's rows by table, each a tuple in the order of `COLUMNS`."""


def checksum(rows: Rows) -> str:
    """sha256 of a trial's rows, in hexadecimal digits; the order of rows does not matter.

    Numbers count as JSON writes them, which tells any two of them apart.
    """
    return _sha256(
        [[table, sorted((list(row) for row in rows.get(table, ())), key=lambda row: str(row[0]))] for table in COLUMNS]
    )


def row_checksum(*columns: object) -> str:
    """sha256 of one row's columns in their order, in hexadecimal digits."""
    return _sha256(columns)


def _sha256(data: object) -> str:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: object) -> str:
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no column of a trial")
