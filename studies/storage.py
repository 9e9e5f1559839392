"""The study database: Optuna's own schema and our `dlcore_*` tables, written with SQLAlchemy Core, a cohort at a time.

One transaction holds a cohort's claims (RUNNING trials with their hyperparameters), one its results (values, rungs,
attributes, curves). `optuna.load_study` and every other Optuna tool read the same rows as their own. Optuna's
`RDBStorage` is used for one thing: to create its schema and to refuse a schema of another version.

What a kill leaves behind is a whole cohort RUNNING, never half of one; `release` puts it back to WAITING.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from studies import records as r
from studies import rows
from studies.database import (
    COHORTS,
    CURVES,
    RESULTS,
    STUDIES,
    WINNERS,
    database_file,
    migrate,
    open_engine,
    reading,
    writing,
)
from studies.errors import StudiesError, UserError
from studies.records import StudyFacts, Suggestion, TrialRecord, Winner
from studies.rows import (
    DIRECTION,
    PARAM,
    RUNG,
    STUDY,
    SYSTEM_ATTR,
    TRIAL,
    USER_ATTR,
    VALUE,
)
from studies.schema import check_schema, create


class Storage:
    """One study database. Safe to use from several threads; each call is one transaction."""

    def __init__(self, url: str) -> None:
        """Open the database; the first time, create it.

        Raises:
            UserError: It cannot be read or written, is damaged, or of another version.
        """
        self.url = url
        path = database_file(url)
        if path is not None and (not path.exists() or path.stat().st_size == 0):
            create(path)
        self._engine = open_engine(url)
        check_schema(self._engine)
        migrate(self._engine)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    # ---- studies

    def create_study(self, facts: StudyFacts) -> None:
        """Store a new study, in Optuna's tables and ours.

        Raises:
            UserError: The name is taken.
        """
        with writing(self._engine) as connection:
            if connection.execute(select(STUDY).where(STUDY.c.study_name == facts.name)).first():
                raise UserError(f'a study named "{facts.name}" is in the database already, made by another program')
            connection.execute(insert(STUDY).values(study_name=facts.name))
            study_id = _study_id(connection, facts.name)
            _forget(connection, (STUDIES, COHORTS, WINNERS), "study_id", [study_id])
            directions = [StudyDirection[o.direction.upper()] for o in facts.objectives]
            connection.execute(
                insert(DIRECTION),
                [{"study_id": study_id, "objective": i, "direction": d} for i, d in enumerate(directions)],
            )
            connection.execute(insert(STUDIES).values(study_id=study_id, spent_s=0.0, **rows.facts_row(facts)))

    def facts(self, name: str) -> StudyFacts | None:
        """What is fixed of a study; None if there is no such study of ours."""
        query = select(STUDIES, STUDY.c.study_name).join(STUDY, STUDY.c.study_id == STUDIES.c.study_id)
        with reading(self._engine) as connection:
            row = connection.execute(query.where(STUDY.c.study_name == name)).first()
            return None if row is None else rows.facts_of(row)

    def names(self) -> list[str]:
        """Names of all our studies, the newest first."""
        query = select(STUDY.c.study_name).join(STUDIES, STUDY.c.study_id == STUDIES.c.study_id)
        with reading(self._engine) as connection:
            return list(connection.execute(query.order_by(STUDIES.c.created_at.desc())).scalars())

    def store_spec(self, name: str, spec: Mapping[str, object]) -> None:
        """Replace the stored spec (a raised budget)."""
        with writing(self._engine) as connection:
            values = {"spec_json": json.dumps(spec)}
            study_id = _study_id(connection, name)
            connection.execute(update(STUDIES).where(STUDIES.c.study_id == study_id).values(values))

    def spent_s(self, name: str) -> float:
        """Seconds that the study's recorded cohorts took, in all its runs."""
        with reading(self._engine) as connection:
            study_id = _study_id(connection, name)
            return float(
                connection.execute(select(STUDIES.c.spent_s).where(STUDIES.c.study_id == study_id)).scalar_one()
            )

    def store_mirror(self, name: str, tracking_uri: str, experiment_id: str) -> None:
        """Note where the study was mirrored last."""
        with writing(self._engine) as connection:
            own = update(STUDIES).where(STUDIES.c.study_id == _study_id(connection, name))
            connection.execute(own.values(tracking_uri=tracking_uri, experiment_id=experiment_id))

    def mirror(self, name: str) -> tuple[str | None, str | None]:
        """Tracking URI and experiment id of the study's latest mirror; None where there is none yet."""
        with reading(self._engine) as connection:
            own = STUDIES.c.study_id == _study_id(connection, name)
            row = connection.execute(select(STUDIES.c.tracking_uri, STUDIES.c.experiment_id).where(own)).one()
        return row.tracking_uri, row.experiment_id

    # ---- trials

    def claim(
        self,
        name: str,
        suggestions: Sequence[Suggestion],
        n_parameters: Sequence[int],
        distributions: Mapping[str, BaseDistribution],
    ) -> int:
        """Store a cohort's suggestions as RUNNING trials, whole or not at all.

        Args:
            name: The study.
            suggestions: In order of number, which goes on from the last stored trial.
            n_parameters: Parameter count of each.
            distributions: Of every searched hyperparameter.

        Returns:
            The id of the cohort, counting from 0 in the study.

        Raises:
            UserError: The numbers do not go on from the stored trials: another program wrote some.
        """
        with writing(self._engine) as connection:
            study_id = _study_id(connection, name)
            stored = connection.execute(select(func.count()).where(TRIAL.c.study_id == study_id)).scalar_one()
            if stored != suggestions[0].number:
                raise UserError(
                    f'study "{name}" has {stored} trials, {suggestions[0].number} of them its own: it cannot go on '
                    "with trials that another program added; delete those, or give the spec another name"
                )
            now = datetime.now(UTC)
            cohort = _new_cohort(connection, study_id, [s.number for s in suggestions], now)
            start = now.replace(tzinfo=None)
            running = {"study_id": study_id, "state": TrialState.RUNNING, "datetime_start": start}
            connection.execute(insert(TRIAL), [{**running, "number": s.number} for s in suggestions])
            ids = _trial_ids(connection, study_id, [s.number for s in suggestions])
            _forget(connection, (RESULTS, CURVES), "trial_id", ids.values())
            connection.execute(insert(PARAM), rows.param_rows(suggestions, ids, distributions))
            connection.execute(
                insert(RESULTS),
                [
                    {
                        "trial_id": ids[s.number],
                        "cohort": cohort,
                        "hyperparameters_json": json.dumps(dict(s.hyperparameters)),
                        "n_parameters": n,
                    }
                    for s, n in zip(suggestions, n_parameters, strict=True)
                ],
            )
            _insert(connection, SYSTEM_ATTR, rows.attr_rows({ids[s.number]: s.system_attrs for s in suggestions}))
        return cohort

    def take(self, name: str, numbers: Sequence[int]) -> int:
        """Claim WAITING trials of one cohort again; what a time budget left over of it becomes a cohort of its own.

        Returns:
            The id of their cohort.
        """
        with writing(self._engine) as connection:
            study_id = _study_id(connection, name)
            ids = _trial_ids(connection, study_id, numbers)
            now = datetime.now(UTC)
            claimed = {"state": TrialState.RUNNING, "datetime_start": now.replace(tzinfo=None)}
            _move(connection, ids, TrialState.WAITING, claimed)
            own = RESULTS.c.trial_id.in_(ids.values())
            cohort: int = connection.execute(select(RESULTS.c.cohort).where(own)).scalars().first() or 0
            in_cohort = and_(COHORTS.c.study_id == study_id, COHORTS.c.cohort == cohort)
            if connection.execute(select(COHORTS.c.n_trials).where(in_cohort)).scalar_one() != len(numbers):
                cohort = _new_cohort(connection, study_id, numbers, now)
                connection.execute(update(RESULTS).where(own).values(cohort=cohort))
        return cohort

    def release(self, name: str) -> list[int]:
        """Put every RUNNING trial of a study back to WAITING, with the same number and hyperparameters.

        Only the study's driver may call this, while it trains nothing.
        """
        with writing(self._engine) as connection:
            study_id = _study_id(connection, name)
            is_running = and_(TRIAL.c.study_id == study_id, TRIAL.c.state == TrialState.RUNNING)
            running = connection.execute(select(TRIAL.c.trial_id, TRIAL.c.number).where(is_running)).all()
            ids = [row.trial_id for row in running]
            # A second report of a step is ignored, so what an earlier life reported has to go.
            for table in (RUNG, VALUE, USER_ATTR, CURVES):
                connection.execute(delete(table).where(table.c.trial_id.in_(ids)))
            connection.execute(update(TRIAL).where(is_running).values(state=TrialState.WAITING, datetime_start=None))
        return sorted(row.number for row in running)

    def record(self, name: str, trials: Sequence[TrialRecord], spent_s: float) -> None:
        """Store the results of a cohort's trials, whole or not at all.

        Args:
            name: The study.
            trials: Finished ones.
            spent_s: Seconds that they took together; added to what the study has spent.

        Raises:
            StudiesError: One of them is not RUNNING: its result is refused, not doubled.
        """
        with writing(self._engine) as connection:
            study_id = _study_id(connection, name)
            own = update(STUDIES).where(STUDIES.c.study_id == study_id)
            connection.execute(own.values(spent_s=STUDIES.c.spent_s + spent_s))
            ids = _trial_ids(connection, study_id, [t.number for t in trials])
            for state in r.FINISHED_STATES:
                told = {t.number: t for t in trials if t.state == state}
                values = {
                    "state": TrialState[state],
                    "datetime_complete": datetime.now(UTC).replace(tzinfo=None),
                }
                _move(connection, {n: ids[n] for n in told}, TrialState.RUNNING, values)
            _insert(connection, VALUE, [row for t in trials for row in rows.value_rows(ids[t.number], t)])
            _insert(connection, RUNG, [row for t in trials for row in rows.rung_rows(ids[t.number], t)])
            _insert(connection, CURVES, [row for t in trials for row in rows.curve_rows(ids[t.number], t)])
            _insert(connection, USER_ATTR, rows.attr_rows({ids[t.number]: rows.user_attrs(t) for t in trials}))
            results = update(RESULTS).where(RESULTS.c.trial_id == bindparam("id"))
            if trials:
                connection.execute(results, [{"id": ids[t.number], **rows.result_row(t)} for t in trials])

    def records(
        self, name: str, numbers: Iterable[int] | None = None, *, has_curves: bool = False
    ) -> list[TrialRecord]:
        """Trials of a study in order of number; all of them, or those named. Curves are read where asked for."""
        with reading(self._engine) as connection:
            chosen = TRIAL.c.study_id == _study_id(connection, name)
            if numbers is not None:
                chosen = and_(chosen, TRIAL.c.number.in_(list(numbers)))
            trials = connection.execute(
                select(TRIAL.c.number, TRIAL.c.state, RESULTS)
                .join(RESULTS, RESULTS.c.trial_id == TRIAL.c.trial_id)
                .where(chosen)
                .order_by(TRIAL.c.number)
            ).all()
            own = select(TRIAL.c.trial_id).where(chosen)
            related = {table: _by_trial(connection, table, own) for table in (PARAM, VALUE, RUNG, SYSTEM_ATTR)}
            curves = _by_trial(connection, CURVES, own) if has_curves else {}
            return [
                rows.trial_of(
                    t,
                    {table: found.get(t.trial_id, []) for table, found in related.items()},
                    curves.get(t.trial_id, []),
                )
                for t in trials
            ]

    def states(self, name: str) -> dict[str, int]:
        """How many trials of a study are in each state, those in no trial left out."""
        with reading(self._engine) as connection:
            found = connection.execute(
                select(TRIAL.c.state, func.count())
                .where(TRIAL.c.study_id == _study_id(connection, name))
                .group_by(TRIAL.c.state)
            )
            counts = {state.name: n for state, n in found}
        return {state: counts[state] for state in r.STATES if state in counts}

    # ---- winners

    def store_winner(self, name: str, winner: Winner, n_finished: int) -> None:
        """Store the winner among `n_finished` trials; a trial that wins again replaces its earlier row."""
        with writing(self._engine) as connection:
            study_id = _study_id(connection, name)
            trial_id = _trial_ids(connection, study_id, [winner.number])[winner.number]
            connection.execute(delete(WINNERS).where(WINNERS.c.trial_id == trial_id))
            connection.execute(
                insert(WINNERS).values(
                    study_id=study_id,
                    trial_id=trial_id,
                    created_at=datetime.now(UTC).timestamp(),
                    n_finished=n_finished,
                    val_metrics_json=json.dumps(dict(winner.val_metrics)),
                    test_metrics_json=json.dumps(dict(winner.test_metrics)),
                    export_dir=winner.export_dir,
                    onnx_sha256=winner.onnx_sha256,
                )
            )

    def winner(self, name: str) -> tuple[Winner, int] | None:
        """The latest winner, and among how many finished trials it won."""
        with reading(self._engine) as connection:
            row = connection.execute(
                select(WINNERS, TRIAL.c.number)
                .join(TRIAL, TRIAL.c.trial_id == WINNERS.c.trial_id)
                .where(WINNERS.c.study_id == _study_id(connection, name))
                .order_by(WINNERS.c.created_at.desc())
            ).first()
            if row is None:
                return None
            val_metrics, test_metrics = json.loads(row.val_metrics_json), json.loads(row.test_metrics_json)
        trial = self.records(name, [row.number])[0]
        winner = Winner(
            number=row.number,
            values=trial.values or (),
            hyperparameters=trial.hyperparameters,
            n_parameters=trial.n_parameters,
            export_dir=row.export_dir,
            onnx_sha256=row.onnx_sha256,
            val_metrics=val_metrics,
            test_metrics=test_metrics,
        )
        return winner, row.n_finished


def _study_id(connection: Connection, name: str) -> int:
    study_id = connection.execute(select(STUDY.c.study_id).where(STUDY.c.study_name == name)).scalar()
    if study_id is None:
        raise UserError(f'there is no study "{name}" in the database; `studies list` names those there are')
    return int(study_id)


def _new_cohort(connection: Connection, study_id: int, numbers: Sequence[int], now: datetime) -> int:
    cohort: int = connection.execute(select(func.count()).where(COHORTS.c.study_id == study_id)).scalar_one()
    row = {"cohort": cohort, "first_number": numbers[0], "n_trials": len(numbers), "claimed_at": now.timestamp()}
    connection.execute(insert(COHORTS).values(study_id=study_id, **row))
    return cohort


def _trial_ids(connection: Connection, study_id: int, numbers: Sequence[int]) -> dict[int, int]:
    query = select(TRIAL.c.number, TRIAL.c.trial_id).where(TRIAL.c.study_id == study_id)
    found = {int(number): int(i) for number, i in connection.execute(query.where(TRIAL.c.number.in_(numbers)))}
    if missing := set(numbers) - set(found):
        raise StudiesError(f"trial {min(missing)} is not in the study database")
    return found


def _move(connection: Connection, ids: Mapping[int, int], expected: TrialState, values: Mapping[str, object]) -> None:
    """Change trials that are in the expected state, all of them or none."""
    is_expected: ColumnElement[bool] = and_(TRIAL.c.trial_id.in_(ids.values()), TRIAL.c.state == expected)
    changed = connection.execute(update(TRIAL).where(is_expected).values(**values)).rowcount
    if changed != len(ids):
        raise StudiesError(
            f"of the trials {sorted(ids)} only {changed} are {expected.name}: another process changed them, "
            "and this result is refused"
        )


def _forget(connection: Connection, tables: Sequence[Table], key: str, ids: Iterable[int]) -> None:
    """Delete what was left behind under ids that are used again: Optuna deletes studies without foreign keys."""
    for table in tables:
        connection.execute(delete(table).where(table.c[key].in_(list(ids))))


def _insert(connection: Connection, table: Table, new: Sequence[Mapping[str, object]]) -> None:
    if new:
        connection.execute(insert(table), list(new))


def _by_trial(connection: Connection, table: Table, own: Any) -> dict[int, list[rows.AnyRow]]:
    """Rows of a table that belong to the chosen trials, by trial id, in the order of the primary key."""
    found: dict[int, list[rows.AnyRow]] = defaultdict(list)
    query = select(table).where(table.c.trial_id.in_(own)).order_by(*table.primary_key.columns)
    for row in connection.execute(query):
        found[row.trial_id].append(row)
    return found
