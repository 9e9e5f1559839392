"""What is stored of studies as such: their facts, their specs, where they were mirrored, their winners."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from optuna.study import StudyDirection
from sqlalchemy import Engine, delete, func, insert, select, update

from studies import finals, rows, seals, trials
from studies import records as r
from studies.database import lock_schema, reading, shown, writing
from studies.errors import StudiesError, UserError
from studies.records import StudyFacts, Winner
from studies.rows import STUDY, TRIAL
from studies.tables import COHORTS, STUDIES, WINNERS

_TICK_S = 1e-3
"""How much later than the one before a winner is stored at least."""


class Catalogue:
    """The studies of one database. Each call is one transaction."""

    def __init__(self, engine: Engine) -> None:
        """Over a database of the newest version."""
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """For whoever looks at rows as they stand, or mends them."""
        return self._engine

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
            seals.seal_facts(connection, study_id)

    def facts(self, name: str) -> StudyFacts | None:
        """What is fixed of a study; None if there is no such study of ours.

        Raises:
            StudiesError: It is not what was stored: the row does not have its checksum.
        """
        query = select(STUDIES, STUDY.c.study_name).join(STUDY, STUDY.c.study_id == STUDIES.c.study_id)
        with reading(self._engine) as connection:
            row = connection.execute(query.where(STUDY.c.study_name == name)).first()
            if row is None:
                return None
            if row.sha256 != seals.facts_checksum(row):
                raise StudiesError(
                    f'{shown(self._engine)} holds a damaged row: that of study "{name}" in dlcore_studies does not '
                    "have its checksum; restore the database from a copy"
                )
            return rows.facts_of(row)

    def known(self, name: str) -> StudyFacts:
        """What is fixed of a study that a person named.

        Raises:
            UserError: There is no such study.
        """
        facts = self.facts(name)
        if facts is None:
            raise UserError(f'there is no study "{name}" in the database; `studies list` names those there are')
        return facts

    def names(self) -> list[str]:
        """Names of all our studies, the newest first."""
        query = select(STUDY.c.study_name).join(STUDIES, STUDY.c.study_id == STUDIES.c.study_id)
        with reading(self._engine) as connection:
            return list(connection.execute(query.order_by(STUDIES.c.created_at.desc())).scalars())

    def store_spec(self, name: str, spec: Mapping[str, object]) -> None:
        """Replace the stored spec (a raised budget)."""
        self.known(name)  # what is damaged must not be sealed anew
        with writing(self._engine) as connection:
            values = {"spec_json": json.dumps(spec)}
            study_id = trials.study_id(connection, name, is_locked=True)
            connection.execute(update(STUDIES).where(STUDIES.c.study_id == study_id).values(values))
            seals.seal_facts(connection, study_id)

    def spent_s(self, name: str) -> float:
        """Seconds that the study's recorded cohorts took, in all its runs."""
        with reading(self._engine) as connection:
            study_id = trials.study_id(connection, name)
            return float(
                connection.execute(select(STUDIES.c.spent_s).where(STUDIES.c.study_id == study_id)).scalar_one()
            )

    def claims(self, name: str) -> dict[int, float]:
        """When each cohort of a study was claimed, by its id; seconds since 1970."""
        with reading(self._engine) as connection:
            own = COHORTS.c.study_id == trials.study_id(connection, name)
            found = connection.execute(select(COHORTS.c.cohort, COHORTS.c.claimed_at).where(own))
            return {row.cohort: row.claimed_at for row in found}

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

    def store_winner(self, name: str, winner: Winner, n_finished: int) -> None:
        """Store the winner among `n_finished` trials; a trial that wins again replaces its earlier row."""
        with writing(self._engine) as connection:
            study_id = trials.study_id(connection, name, is_locked=True)
            trial_id = trials.ids_of(connection, study_id, [winner.number])[winner.number]
            connection.execute(delete(WINNERS).where(WINNERS.c.trial_id == trial_id))
            newest = select(func.max(WINNERS.c.created_at)).where(WINNERS.c.study_id == study_id)
            # Behind all earlier ones, whatever became of the clock: the newest is the winner.
            earliest = (connection.execute(newest).scalar() or 0.0) + _TICK_S
            connection.execute(
                insert(WINNERS).values(
                    study_id=study_id,
                    trial_id=trial_id,
                    created_at=max(datetime.now(UTC).timestamp(), earliest),
                    n_finished=n_finished,
                    val_metrics_json=json.dumps(dict(winner.val_metrics)),
                    test_metrics_json=json.dumps(dict(winner.test_metrics)),
                    export_dir=winner.export_dir,
                    onnx_sha256=winner.onnx_sha256,
                    final_json=None if winner.final is None else finals.to_json(winner.final),
                )
            )
            seals.seal_winners(connection, study_id)

    def winner(self, name: str, *, must_be_sealed: bool = False) -> tuple[Winner, int] | None:
        """The latest winner, and among how many finished trials it won.

        Args:
            name: The study.
            must_be_sealed: Whether one whose row does not have its checksum is none.
        """
        with reading(self._engine) as connection:
            row = connection.execute(
                select(WINNERS, TRIAL.c.number)
                .join(TRIAL, TRIAL.c.trial_id == WINNERS.c.trial_id)
                .where(WINNERS.c.study_id == trials.study_id(connection, name))
                .order_by(WINNERS.c.created_at.desc())
            ).first()
            if row is None or (must_be_sealed and row.sha256 != seals.winner_checksum(row)):
                return None
            val_metrics, test_metrics = json.loads(row.val_metrics_json), json.loads(row.test_metrics_json)
        with reading(self._engine) as connection:
            study = trials.study_id(connection, name)
            trial = trials.read(connection, study, [row.number], has_curves=False)[0]
        winner = Winner(
            number=row.number,
            values=trial.values or (),
            hyperparameters=trial.hyperparameters,
            n_parameters=trial.n_parameters,
            export_dir=row.export_dir,
            onnx_sha256=row.onnx_sha256,
            val_metrics=val_metrics,
            test_metrics=test_metrics,
            final=None if row.final_json is None else finals.from_json(row.final_json),
        )
        return winner, row.n_finished
