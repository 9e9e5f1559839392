"""Checksums of a study's facts and of its winners: damage that a database does not see is seen when they are read."""

from sqlalchemy import Connection, select, update

from studies.checksums import FACTS, WINNER, row_checksum
from studies.rows import STUDY, TRIAL, AnyRow
from studies.tables import STUDIES, WINNERS


def facts_checksum(row: AnyRow) -> str:
    """The checksum that a study's row of `dlcore_studies`, joined with `studies`, must have."""
    return row_checksum(row.study_name, *(getattr(row, column) for column in FACTS))


def winner_checksum(row: AnyRow) -> str:
    """The checksum that a row of `dlcore_winners`, joined with `trials`, must have."""
    # A winner of version 3 has no finals, and keeps the checksum that it got then: nothing is sealed anew unseen.
    finals = [] if row.final_json is None else [row.final_json]
    return row_checksum(row.number, *(getattr(row, column) for column in WINNER), *finals)


def seal_facts(connection: Connection, study: int) -> None:
    """Store the checksum of a study's facts, of what the database holds of them now."""
    query = select(STUDIES, STUDY.c.study_name).join(STUDY, STUDY.c.study_id == STUDIES.c.study_id)
    row = connection.execute(query.where(STUDIES.c.study_id == study)).one()
    own = update(STUDIES).where(STUDIES.c.study_id == study)
    connection.execute(own.values(sha256=facts_checksum(row)))


def seal_winners(connection: Connection, study: int) -> None:
    """Store the checksums of a study's winners that have none."""
    query = select(WINNERS, TRIAL.c.number).join(TRIAL, TRIAL.c.trial_id == WINNERS.c.trial_id)
    unsealed = query.where(WINNERS.c.study_id == study, WINNERS.c.sha256.is_(None))
    for row in connection.execute(unsealed).all():
        own = update(WINNERS).where(WINNERS.c.study_id == study, WINNERS.c.trial_id == row.trial_id)
        connection.execute(own.values(sha256=winner_checksum(row)))


def seal_all(connection: Connection) -> None:
    """Seal all our studies, after a migration: what is there is taken for right."""
    for study in connection.execute(select(STUDIES.c.study_id)).scalars().all():
        seal_facts(connection, study)
        seal_winners(connection, study)
