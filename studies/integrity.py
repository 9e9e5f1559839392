"""What is wrong with a study database as a whole: its file, its schema, rows that belong to nobody."""

from collections.abc import Mapping

from sqlalchemy import Connection, Table, func, inspect, select

from studies import migrations
from studies.database import is_sqlite
from studies.findings import FROM_COPY, Finding
from studies.rows import (
    DIRECTION,
    HEARTBEAT,
    PARAM,
    RUNG,
    STUDY,
    STUDY_SYSTEM_ATTR,
    STUDY_USER_ATTR,
    SYSTEM_ATTR,
    TRIAL,
    USER_ATTR,
    VALUE,
)
from studies.tables import COHORTS, CURVES, LEASES, RESULTS, STUDIES, WINNERS

_OF_TRIALS = (PARAM, VALUE, RUNG, USER_ATTR, SYSTEM_ATTR, HEARTBEAT, RESULTS, CURVES)
_OF_STUDIES = (DIRECTION, STUDY_USER_ATTR, STUDY_SYSTEM_ATTR, STUDIES, COHORTS, LEASES)
PARENTS: Mapping[Table, tuple[tuple[str, Table], ...]] = {
    TRIAL: (("study_id", STUDY),),
    **dict.fromkeys(_OF_TRIALS, (("trial_id", TRIAL),)),
    **dict.fromkeys(_OF_STUDIES, (("study_id", STUDY),)),
    WINNERS: (("study_id", STUDY), ("trial_id", TRIAL)),
}
"""Whose rows the rows of a table belong to, the parents first."""


def damage(connection: Connection) -> list[Finding]:
    """What SQLite finds wrong with its own file; PostgreSQL looks after its files itself."""
    if not is_sqlite(connection):
        return []
    found = connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars().all()
    return [
        Finding("damaged index" if _is_of_index(text) else "damaged database", text, cure=None)
        for text in found
        if text != "ok"
    ]


def _is_of_index(text: str) -> bool:
    """Whether SQLite complains of an index alone, which can be made again."""
    return text.startswith(("wrong # of entries in index", "row ")) and "index" in text


def schema(connection: Connection) -> list[Finding]:
    """Tables, columns and the view that are not there."""
    known = inspect(connection)
    tables, found = set(known.get_table_names()), []
    for table in (STUDY, *PARENTS):
        if table.name not in tables:
            found.append(Finding("missing table", table.name, cure=FROM_COPY))
            continue
        columns = {str(column["name"]) for column in known.get_columns(table.name)}
        found += [
            Finding("missing column", f"{table.name}.{column.name}", cure=FROM_COPY)
            for column in table.columns
            if column.name not in columns
        ]
    if migrations.VIEW not in known.get_view_names():
        found.append(Finding("missing view", migrations.VIEW))
    return found


def orphans(connection: Connection) -> list[Finding]:
    """Rows that belong to a study or a trial that is not there."""
    found = []
    for table, parents in PARENTS.items():
        for key, parent in parents:
            query = select(func.count()).select_from(table).where(table.c[key].not_in(select(parent.c[key])))
            if n := connection.execute(query).scalar_one():
                what = "study" if parent is STUDY else "trial"
                found.append(Finding("orphan rows", f"{n} of {table.name} belong to no {what}"))
    return found


def studies(connection: Connection) -> list[tuple[int, str]]:
    """Ids and names of our studies, the oldest first."""
    query = select(STUDIES.c.study_id, STUDY.c.study_name).join(STUDY, STUDY.c.study_id == STUDIES.c.study_id)
    return [(int(i), str(name)) for i, name in connection.execute(query.order_by(STUDIES.c.study_id))]


def lost_studies(connection: Connection) -> list[Finding]:
    """Studies that have trials of ours and no row in `dlcore_studies`."""
    ours = select(TRIAL.c.study_id).join(RESULTS, RESULTS.c.trial_id == TRIAL.c.trial_id)
    lost = select(STUDY.c.study_name).where(
        STUDY.c.study_id.in_(ours), STUDY.c.study_id.not_in(select(STUDIES.c.study_id))
    )
    text = "it has trials, and no row in dlcore_studies"
    return [Finding("lost study", text, str(name), FROM_COPY) for name in connection.execute(lost).scalars()]
