"""Records as rows of Optuna's tables and of ours, and back: pure functions, no connection.

Optuna's table objects come from its private `models` module: the one place where its columns are written down. Its
schema (head v3.2.0.a) is what optuna-dashboard and `load_study` read, and `RDBStorage` refuses any other.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from sqlalchemy import Row, Table

from studies.records import EpochRecord, Objective, StudyFacts, Suggestion, TrialRecord
from studies.tables import RESULTS


def _table(model: type[Any]) -> Table:
    return cast(Table, model.__table__)


VERSION = _table(models.VersionInfoModel)
STUDY = _table(models.StudyModel)
DIRECTION = _table(models.StudyDirectionModel)
STUDY_USER_ATTR = _table(models.StudyUserAttributeModel)
STUDY_SYSTEM_ATTR = _table(models.StudySystemAttributeModel)
TRIAL = _table(models.TrialModel)
PARAM = _table(models.TrialParamModel)
VALUE = _table(models.TrialValueModel)
RUNG = _table(models.TrialIntermediateValueModel)
USER_ATTR = _table(models.TrialUserAttributeModel)
SYSTEM_ATTR = _table(models.TrialSystemAttributeModel)
HEARTBEAT = _table(models.TrialHeartbeatModel)

AnyRow = Row[Any]
Values = dict[str, object]

_FACT_COLUMNS = (
    "uuid",
    "created_at",
    "task",
    "curve_metric",
    "cohort_size",
    "n_features",
    "n_outputs",
    "data_name",
    "data_fingerprint",
)
_NOT_IN_RECORDS = ("trial_id", "hyperparameters_json", "searched_json", "token", "sha256")
_RESULT_COLUMNS = tuple(c.name for c in RESULTS.c if c.name not in _NOT_IN_RECORDS)


def objectives_json(objectives: Sequence[Objective]) -> str:
    """A study's objectives as its column holds them."""
    return json.dumps([{"metric": o.metric, "direction": o.direction} for o in objectives])


def facts_row(facts: StudyFacts) -> Values:
    """A study's facts as columns of `dlcore_studies`."""
    return {
        **{column: getattr(facts, column) for column in _FACT_COLUMNS},
        "spec_json": json.dumps(facts.spec),
        "objectives_json": objectives_json(facts.objectives),
        "environment_json": json.dumps(dict(facts.environment)),
    }


def facts_of(row: AnyRow) -> StudyFacts:
    """A study's facts from its row of `dlcore_studies` joined with `studies`."""
    return StudyFacts(
        name=row.study_name,
        spec=json.loads(row.spec_json),
        objectives=tuple(Objective(**o) for o in json.loads(row.objectives_json)),
        environment=json.loads(row.environment_json),
        **{column: getattr(row, column) for column in _FACT_COLUMNS},
    )


def param_rows(
    suggestions: Sequence[Suggestion], ids: Mapping[int, int], distributions: Mapping[str, BaseDistribution]
) -> list[Values]:
    """The searched hyperparameters as Optuna stores them: numbers, with choices as their index."""
    texts = {name: distribution_to_json(distribution) for name, distribution in distributions.items()}
    return [
        {
            "trial_id": ids[s.number],
            "param_name": name,
            "param_value": distributions[name].to_internal_repr(s.hyperparameters[name]),
            "distribution_json": texts[name],
        }
        for s in suggestions
        for name in s.searched
    ]


def attr_rows(owners: Mapping[int, Mapping[str, object]]) -> list[Values]:
    """Attributes of trials, by trial id."""
    return [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for trial_id, attrs in owners.items()
        for key, value in attrs.items()
    ]


def values_of(trial_id: int, values: Sequence[float]) -> list[Values]:
    """A trial's values, one row per objective."""
    found = []
    for objective, value in enumerate(values):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        found.append({"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind})
    return cast(list[Values], found)


def rungs_of(trial_id: int, rungs: Mapping[int, float]) -> list[Values]:
    """A trial's values at rungs, as Optuna's intermediate values."""
    found = []
    for step, value in rungs.items():
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        row = {
            "trial_id": trial_id,
            "step": step,
            "intermediate_value": stored,
            "intermediate_value_type": kind,
        }
        found.append(row)
    return cast(list[Values], found)


CURVE_COLUMNS = ("epoch", "train_loss", "val_loss", "val_metric", "learning_rate", "finished_at")


def curve_points(trial: TrialRecord) -> list[tuple[object, ...]]:
    """A trial's curve in the order of `CURVE_COLUMNS`; what is not finite is stored as NULL: SQLite has no NaN."""
    return [
        (e.epoch, *map(_stored, (e.train_loss, e.val_loss, e.val_metric, e.learning_rate, e.finished_at)))
        for e in trial.curve
    ]


def user_attrs(trial: TrialRecord) -> Values:
    """What Optuna's own tools should show beside a trial."""
    attrs: Values = {"n_parameters": trial.n_parameters, "epochs": len(trial.curve), "cohort": trial.cohort}
    if trial.best_epoch is not None:
        attrs["best_epoch"] = trial.best_epoch
    if trial.reason is not None:
        attrs["reason"] = trial.reason
    return attrs


def claim_row(trial_id: int, suggestion: Suggestion, n_parameters: int, cohort: int) -> Values:
    """A claimed trial's columns of `dlcore_results`."""
    return {
        "trial_id": trial_id,
        "cohort": cohort,
        "hyperparameters_json": json.dumps(dict(suggestion.hyperparameters)),
        "searched_json": json.dumps(suggestion.searched),
        "n_parameters": n_parameters,
    }


def result_row(trial: TrialRecord) -> Values:
    """A trial's columns of `dlcore_results`."""
    return {column: getattr(trial, column) for column in _RESULT_COLUMNS}


def trial_of(row: AnyRow, related: Mapping[Table, Sequence[AnyRow]], curve: Sequence[AnyRow]) -> TrialRecord:
    """A trial from its row of `trials` joined with `dlcore_results`, and the rows of the other tables that are its.

    Args:
        row: number, state, and the columns of `dlcore_results`.
        related: Its rows of `VALUE`, `RUNG` and `SYSTEM_ATTR`; of `PARAM` where it is of version 1.
        curve: Its rows of `dlcore_curves`.
    """
    hyperparameters = json.loads(row.hyperparameters_json)
    if row.searched_json is None:
        names = {p.param_name for p in related[PARAM]}
        searched = tuple(name for name in hyperparameters if name in names)
    else:
        searched = tuple(json.loads(row.searched_json))
    values = {v.objective: models.TrialValueModel.stored_repr_to_value(v.value, v.value_type) for v in related[VALUE]}
    to_rung = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    rungs = {v.step: to_rung(v.intermediate_value, v.intermediate_value_type) for v in related[RUNG]}
    return TrialRecord(
        state=row.state.name,
        number=row.number,
        hyperparameters=hyperparameters,
        searched=searched,
        values=tuple(value for _, value in sorted(values.items())) or None,
        rungs=dict(sorted(rungs.items())),
        curve=tuple(_epoch_of(e) for e in curve),
        system_attrs={a.key: json.loads(a.value_json) for a in related[SYSTEM_ATTR]},
        **{column: getattr(row, column) for column in _RESULT_COLUMNS},
    )


def _epoch_of(row: AnyRow) -> EpochRecord:
    return EpochRecord(
        epoch=row.epoch,
        train_loss=_number(row.train_loss),
        val_loss=_number(row.val_loss),
        val_metric=_number(row.val_metric),
        learning_rate=row.learning_rate,
        finished_at=row.finished_at,
    )


def _stored(value: float) -> float | None:
    """A number as every database gives it back: SQLite knows no NaN, and no sign of zero."""
    return value + 0.0 if math.isfinite(value) else None


def _number(stored: float | None) -> float:
    return math.nan if stored is None else stored
