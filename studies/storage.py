"""The study database: Optuna's own schema and our `dlcore_*` tables, written with SQLAlchemy Core, a cohort at a time.

One transaction holds a cohort's claims (RUNNING trials with their hyperparameters), one its results (values, rungs,
attributes, curves, checksums). `optuna.load_study` and every other Optuna tool read the same rows as their own.

What a kill leaves behind is a whole cohort RUNNING, never half of one; `release` puts it back to WAITING.
"""

import json
import weakref
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import Connection, and_, delete, func, insert, select, update

from studies import records as r
from studies import rows, trials
from studies.database import lock_schema, reading, writing
from studies.errors import UserError
from studies.records import StudyFacts, Suggestion, TrialRecord, Winner
from studies.rows import PARAM, STUDY, SYSTEM_ATTR, TRIAL
from studies.schema import open_database
from studies.tables import COHORTS, RESULTS, STUDIES, WINNERS


class Storage:
    """One study database. Safe to use from several threads; each call is one transaction."""

    def __init__(self, url: str) -> None:
        """Open the database; the first time, create it.

        Raises:
            UserError: It cannot be read or written, is damaged, or of another version.
        """
        self.url = url
        self._engine = open_database(url)
        weakref.finalize(self, self._engine.dispose)

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
            lock_schema(connection)
            if connection.execute(select(STUDY).where(STUDY.c.study_name == facts.name)).first():
                raise UserError(f'a study named "{facts.name}" is in the database already, made by another program')
            directions = [StudyDirection[o.direction.upper()] for o in facts.objectives]
            study_id = trials.add_study(connection, facts.name, directions)
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
            study_id = trials.study_id(connection, name, is_locked=True)
            connection.execute(update(STUDIES).where(STUDIES.c.study_id == study_id).values(values))

    def spent_s(self, name: str) -> float:
        """Seconds that the study's recorded cohorts took, in all its runs."""
        with reading(self._engine) as connection:
            study_id = trials.study_id(connection, name)
            return float(
                connection.execute(select(STUDIES.c.spent_s).where(STUDIES.c.study_id == study_id)).scalar_one()
            )

    def store_mirror(self, name: str, tracking_uri: str, experiment_id: str) -> None:
        """Note where the study was mirrored last."""
        with writing(self._engine) as connection:
            own = update(STUDIES).where(STUDIES.c.study_id == trials.study_id(connection, name, is_locked=True))
            connection.execute(own.values(tracking_uri=tracking_uri, experiment_id=experiment_id))

    def mirror(self, name: str) -> tuple[str | None, str | None]:
        """Tracking URI and experiment id of the study's latest mirror; None where there is none yet."""
        with reading(self._engine) as connection:
            own = STUDIES.c.study_id == trials.study_id(connection, name)
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
            study = trials.study_id(connection, name, is_locked=True)
            stored = connection.execute(select(func.count()).where(TRIAL.c.study_id == study)).scalar_one()
            if stored != suggestions[0].number:
                raise UserError(
                    f'study "{name}" has {stored} trials, {suggestions[0].number} of them its own: it cannot go on '
                    "with trials that another program added; delete those, or give the spec another name"
                )
            now = datetime.now(UTC)
            numbers = [s.number for s in suggestions]
            cohort = _new_cohort(connection, study, numbers, now)
            running = {"state": TrialState.RUNNING, "datetime_start": now.replace(tzinfo=None)}
            ids = trials.add(connection, study, numbers, running)
            new = {
                PARAM: rows.param_rows(suggestions, ids, distributions),
                RESULTS: [
                    rows.claim_row(ids[s.number], s, n, cohort) for s, n in zip(suggestions, n_parameters, strict=True)
                ],
                SYSTEM_ATTR: rows.attr_rows({ids[s.number]: s.system_attrs for s in suggestions}),
            }
            trials.insert_rows(connection, new)
        return cohort

    def take(self, name: str, numbers: Sequence[int]) -> int:
        """Claim WAITING trials of one cohort again; what a time budget left over of it becomes a cohort of its own.

        Returns:
            The id of their cohort.
        """
        with writing(self._engine) as connection:
            study_id = trials.study_id(connection, name)
            ids = trials.ids_of(connection, study_id, numbers)
            now = datetime.now(UTC)
            claimed = {"state": TrialState.RUNNING, "datetime_start": now.replace(tzinfo=None)}
            trials.move(connection, ids, TrialState.WAITING, claimed)
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
            study = trials.study_id(connection, name, is_locked=True)
            is_running = and_(TRIAL.c.study_id == study, TRIAL.c.state == TrialState.RUNNING)
            running = connection.execute(select(TRIAL.c.trial_id, TRIAL.c.number).where(is_running)).all()
            trials.put_back(connection, [row.trial_id for row in running])
        return sorted(row.number for row in running)

    def record(self, name: str, told: Sequence[TrialRecord], spent_s: float) -> None:
        """Store the results of a cohort's trials, whole or not at all.

        Args:
            name: The study.
            told: Finished trials.
            spent_s: Seconds that they took together; added to what the study has spent.

        Raises:
            StudiesError: One of them is not RUNNING: its result is refused, not doubled.
        """
        with writing(self._engine) as connection:
            study = trials.study_id(connection, name, is_locked=True)
            own = update(STUDIES).where(STUDIES.c.study_id == study)
            connection.execute(own.values(spent_s=STUDIES.c.spent_s + spent_s))
            trials.finish(connection, trials.ids_of(connection, study, [t.number for t in told]), told)

    def records(
        self, name: str, numbers: Iterable[int] | None = None, *, has_curves: bool = False
    ) -> list[TrialRecord]:
        """Trials of a study in order of number; all of them, or those named. Curves are read where asked for."""
        with reading(self._engine) as connection:
            return trials.read(connection, trials.study_id(connection, name), numbers, has_curves=has_curves)

    def falsified(self, name: str) -> list[int]:
        """Numbers of the study's finished trials whose rows do not have their checksum, or that have none."""
        with reading(self._engine) as connection:
            return trials.falsified(connection, trials.study_id(connection, name))

    def states(self, name: str) -> dict[str, int]:
        """How many trials of a study are in each state, those in no trial left out."""
        with reading(self._engine) as connection:
            found = connection.execute(
                select(TRIAL.c.state, func.count())
                .where(TRIAL.c.study_id == trials.study_id(connection, name))
                .group_by(TRIAL.c.state)
            )
            counts = {state.name: n for state, n in found}
        return {state: counts[state] for state in r.STATES if state in counts}

    # ---- winners

    def store_winner(self, name: str, winner: Winner, n_finished: int) -> None:
        """Store the winner among `n_finished` trials; a trial that wins again replaces its earlier row."""
        with writing(self._engine) as connection:
            study_id = trials.study_id(connection, name)
            trial_id = trials.ids_of(connection, study_id, [winner.number])[winner.number]
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
                .where(WINNERS.c.study_id == trials.study_id(connection, name))
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


def _new_cohort(connection: Connection, study_id: int, numbers: Sequence[int], now: datetime) -> int:
    cohort: int = connection.execute(select(func.count()).where(COHORTS.c.study_id == study_id)).scalar_one()
    row = {"cohort": cohort, "first_number": numbers[0], "n_trials": len(numbers), "claimed_at": now.timestamp()}
    connection.execute(insert(COHORTS).values(study_id=study_id, **row))
    return cohort
