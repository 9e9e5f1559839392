"""Optuna's storage over a study database, for programs that write trials with Optuna itself.

`optuna.load_study(study_name="wine", storage=StudyStorage(url))` reads and writes the same rows as `RDBStorage` does.
What it writes goes through the functions that `storage` writes with, one transaction each, under the locks that they
need: two SQLite programs never claim the same trial, which `RDBStorage` lets happen. Reading is Optuna's own.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.storages._base import DEFAULT_STUDY_NAME_PREFIX
from optuna.storages._rdb.storage import _VersionManager
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Table, and_, delete, func, insert, orm, select

from studies import rows, trials
from studies.database import address, lock_schema, writing
from studies.rows import PARAM, RUNG, STUDY, STUDY_SYSTEM_ATTR, STUDY_USER_ATTR, SYSTEM_ATTR, TRIAL, USER_ATTR, VALUE
from studies.schema import open_database


class StudyStorage(RDBStorage):
    """One study database as Optuna sees it."""

    def __init__(self, url: str) -> None:
        """Open the database; the first time, create it.

        Raises:
            UserError: It cannot be reached, read or written, is damaged, or of another version.
        """
        # Not RDBStorage's own: it would open another engine, without our locks.
        self.engine = open_database(url)
        self.url = address(self.engine)
        self.engine_kwargs: dict[str, Any] = {}
        self.skip_compatibility_check = False
        self.heartbeat_interval = self.grace_period = None
        self.heartbeat_stale_trial_callback = self.failed_trial_callback = None
        self.scoped_session = orm.scoped_session(orm.sessionmaker(bind=self.engine))
        self._version_manager = _VersionManager(self.url, self.engine, self.scoped_session)

    def __getstate__(self) -> dict[Any, Any]:
        """An address without a password: who unpickles it takes that from its own environment, as libpq does."""
        return {"url": self.url}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Open the database again."""
        self.__init__(state["url"])  # type: ignore[misc]

    def close(self) -> None:
        """Give the connections back."""
        self.remove_session()
        self.engine.dispose()

    # ---- studies

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """A new study; without a name it gets one that nobody has."""
        name = study_name if study_name is not None else f"{DEFAULT_STUDY_NAME_PREFIX}{uuid4()}"
        with writing(self.engine) as connection:
            lock_schema(connection)
            if connection.execute(select(STUDY.c.study_id).where(STUDY.c.study_name == name)).first():
                raise DuplicatedStudyError(f'a study named "{name}" is in the database already')
            return trials.add_study(connection, name, directions)

    def delete_study(self, study_id: int) -> None:
        """Delete a study, whoever made it, with all its trials."""
        with writing(self.engine) as connection:
            _lock_study(connection, study_id)
            trials.delete_study(connection, study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set or replace an attribute."""
        with writing(self.engine) as connection:
            _lock_study(connection, study_id)
            _replace(connection, STUDY_USER_ATTR, {"study_id": study_id, "key": key}, {"value_json": json.dumps(value)})

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set or replace an attribute of Optuna's own."""
        with writing(self.engine) as connection:
            _lock_study(connection, study_id)
            new = {"value_json": json.dumps(value)}
            _replace(connection, STUDY_SYSTEM_ATTR, {"study_id": study_id, "key": key}, new)

    # ---- trials

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        with writing(self.engine) as connection:
            _lock_study(connection, study_id)
            number = connection.execute(select(func.count()).where(TRIAL.c.study_id == study_id)).scalar_one()
            if template_trial is None:
                head: rows.Values = {"state": TrialState.RUNNING, "datetime_start": _utc(datetime.now())}
            else:
                head = {
                    "state": template_trial.state,
                    "datetime_start": _utc(template_trial.datetime_start),
                    "datetime_complete": _utc(template_trial.datetime_complete),
                }
            trial_id = trials.add(connection, study_id, [number], head)[number]
            if template_trial is not None:
                for name, distribution in template_trial.distributions.items():
                    _check_distribution(connection, study_id, name, distribution)
                trials.insert_rows(connection, _rows_of(trial_id, template_trial))
        return self.get_trial(trial_id)

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        with writing(self.engine) as connection:
            study_id = _lock_trial(connection, trial_id).study_id
            if previous_distribution is not None:
                check_distribution_compatibility(previous_distribution, distribution)
            else:
                _check_distribution(connection, study_id, param_name, distribution)
            new = {"param_value": param_value_internal, "distribution_json": distribution_to_json(distribution)}
            _replace(connection, PARAM, {"trial_id": trial_id, "param_name": param_name}, new)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Change a trial's state; returns whether it did: of several who claim a WAITING trial, one."""
        now = _utc(datetime.now())
        with writing(self.engine) as connection:
            trial = _lock_trial(connection, trial_id)
            if state == TrialState.RUNNING and trial.state != TrialState.WAITING:
                return False
            if values is not None:
                connection.execute(delete(VALUE).where(VALUE.c.trial_id == trial_id))
                trials.insert_rows(connection, {VALUE: rows.values_of(trial_id, values)})
            changes: rows.Values = {"state": state}
            changes |= {"datetime_start": now} if state == TrialState.RUNNING else {}
            changes |= {"datetime_complete": now} if state.is_finished() else {}
            trials.move(connection, {trial.number: trial_id}, trial.state, changes)
            if state.is_finished():
                trials.seal(connection, [trial_id])
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set or replace the value of a step."""
        with writing(self.engine) as connection:
            _lock_trial(connection, trial_id)
            connection.execute(delete(RUNG).where(and_(RUNG.c.trial_id == trial_id, RUNG.c.step == step)))
            trials.insert_rows(connection, {RUNG: rows.rungs_of(trial_id, {step: intermediate_value})})

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set or replace an attribute."""
        self._set_trial_attr(USER_ATTR, trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set or replace an attribute of Optuna's own."""
        self._set_trial_attr(SYSTEM_ATTR, trial_id, key, value)

    def _set_trial_attr(self, table: Table, trial_id: int, key: str, value: Any) -> None:
        with writing(self.engine) as connection:
            _lock_trial(connection, trial_id)
            _replace(connection, table, {"trial_id": trial_id, "key": key}, {"value_json": json.dumps(value)})


def _rows_of(trial_id: int, trial: FrozenTrial) -> dict[Table, list[rows.Values]]:
    """All of a trial but its head."""
    return {
        PARAM: [
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": trial.distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(trial.distributions[name]),
            }
            for name, value in trial.params.items()
        ],
        VALUE: rows.values_of(trial_id, trial.values or ()),
        RUNG: rows.rungs_of(trial_id, trial.intermediate_values),
        USER_ATTR: rows.attr_rows({trial_id: trial.user_attrs}),
        SYSTEM_ATTR: rows.attr_rows({trial_id: trial.system_attrs}),
    }


def _lock_study(connection: Connection, study_id: int) -> None:
    locked = select(STUDY.c.study_id).where(STUDY.c.study_id == study_id).with_for_update()
    if connection.execute(locked).first() is None:
        raise KeyError(f"there is no study with the id {study_id}")


def _lock_trial(connection: Connection, trial_id: int) -> Any:
    """A trial that may still change; nobody else changes it until the transaction ends."""
    columns = select(TRIAL.c.study_id, TRIAL.c.number, TRIAL.c.state)
    trial = connection.execute(columns.where(TRIAL.c.trial_id == trial_id).with_for_update()).first()
    if trial is None:
        raise KeyError(f"there is no trial with the id {trial_id}")
    if trial.state.is_finished():
        raise UpdateFinishedTrialError(f"trial {trial.number} is finished, and cannot be changed")
    return trial


def _check_distribution(connection: Connection, study_id: int, name: str, distribution: BaseDistribution) -> None:
    """Whether the study's other trials have a distribution of this kind."""
    query = select(PARAM.c.distribution_json).join(TRIAL, TRIAL.c.trial_id == PARAM.c.trial_id)
    of_study = query.where(TRIAL.c.study_id == study_id, PARAM.c.param_name == name)
    earlier = connection.execute(of_study.limit(1)).scalar()
    if earlier is not None:
        check_distribution_compatibility(json_to_distribution(earlier), distribution)


def _replace(connection: Connection, table: Table, key: Mapping[str, object], values: Mapping[str, object]) -> None:
    """Insert a row in the place of an older one; the caller holds the lock of what it belongs to."""
    connection.execute(delete(table).where(and_(*(table.c[name] == value for name, value in key.items()))))
    connection.execute(insert(table).values(**key, **values))


def _utc(local: datetime | None) -> datetime | None:
    """As Optuna stores times: in UTC, without saying so."""
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)
