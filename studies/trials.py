"""Trials in the study database, many at a time: functions over a connection, in the transaction of the caller.

`storage` and `optuna_storage` write trials through these alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import Connection, Table, and_, bindparam, delete, insert, or_, select, update

from studies import records as r
from studies import rows
from studies.checksums import COLUMNS, checksum
from studies.database import is_sqlite
from studies.errors import StudiesError, UserError
from studies.records import TrialRecord
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
    Values,
)
from studies.tables import COHORTS, CURVES, LEASES, RESULTS, STUDIES, WINNERS

_SEALED = (TRIAL, PARAM, VALUE, RUNG, USER_ATTR, SYSTEM_ATTR, RESULTS, CURVES)
"""Tables that a trial's checksum is of."""
_OF_RECORD = tuple(column for column in RESULTS.c if column.name not in ("token", "sha256"))
"""Columns that records are made of: what is wrong with the others keeps nobody from reading."""
Curves = Mapping[int, list[tuple[object, ...]]]
"""Points of curves by trial id, in the order of `rows.CURVE_COLUMNS`."""
_CHUNK = 500
"""Trials that are sealed or read back at once."""


def study_id(connection: Connection, name: str, *, is_locked: bool = False) -> int:
    """Id of a study; where it is locked, nobody else writes trials of it until the transaction ends."""
    query = select(STUDY.c.study_id).where(STUDY.c.study_name == name)
    found = connection.execute(query.with_for_update() if is_locked else query).scalar()
    if found is None:
        raise UserError(f'there is no study "{name}" in the database; `studies list` names those there are')
    return int(found)


def add_study(connection: Connection, name: str, directions: Sequence[StudyDirection]) -> int:
    """Insert a study under a name that is free; returns its id."""
    connection.execute(insert(STUDY).values(study_name=name))
    study = study_id(connection, name)
    # Optuna deletes studies without SQLite's foreign keys: under an id that is used again old rows may lie.
    for table in (STUDIES, COHORTS, LEASES, WINNERS):
        connection.execute(delete(table).where(table.c.study_id == study))
    new = [{"study_id": study, "objective": i, "direction": d} for i, d in enumerate(directions)]
    connection.execute(insert(DIRECTION), new)
    return study


def delete_study(connection: Connection, study: int) -> None:
    """Delete a study and all that belongs to it, in Optuna's tables and ours."""
    own = select(TRIAL.c.trial_id).where(TRIAL.c.study_id == study)
    for table in (PARAM, VALUE, RUNG, USER_ATTR, SYSTEM_ATTR, HEARTBEAT, RESULTS, CURVES):
        connection.execute(delete(table).where(table.c.trial_id.in_(own)))
    for table in (WINNERS, LEASES, COHORTS, STUDIES, TRIAL, DIRECTION, STUDY_USER_ATTR, STUDY_SYSTEM_ATTR, STUDY):
        connection.execute(delete(table).where(table.c.study_id == study))


def ids_of(connection: Connection, study: int, numbers: Sequence[int]) -> dict[int, int]:
    """Ids of a study's trials by their numbers."""
    query = select(TRIAL.c.number, TRIAL.c.trial_id).where(TRIAL.c.study_id == study)
    found = {int(number): int(i) for number, i in connection.execute(query.where(TRIAL.c.number.in_(numbers)))}
    if missing := set(numbers) - set(found):
        raise StudiesError(f"trial {min(missing)} is not in the study database")
    return found


def add(connection: Connection, study: int, numbers: Sequence[int], values: Values) -> dict[int, int]:
    """Insert trials that have the same state and times; returns their ids by number."""
    connection.execute(insert(TRIAL), [{**values, "study_id": study, "number": n} for n in numbers])
    ids = ids_of(connection, study, numbers)
    # Optuna deletes studies without SQLite's foreign keys: under an id that is used again old rows may lie.
    for table in (RESULTS, CURVES):
        connection.execute(delete(table).where(table.c.trial_id.in_(ids.values())))
    return ids


def insert_rows(connection: Connection, new: Mapping[Table, Sequence[Values]]) -> None:
    """Insert rows into several tables, one statement each."""
    for table, found in new.items():
        if found:
            connection.execute(insert(table), list(found))


def insert_curves(connection: Connection, curves: Curves) -> None:
    """Insert points of curves, of which there are more than of all other rows: as `insert_rows` does, but faster."""
    points = [(trial_id, *point) for trial_id, curve in curves.items() for point in curve]
    if not points:
        return
    columns = ", ".join(("trial_id", *rows.CURVE_COLUMNS))
    if is_sqlite(connection):
        places = ", ".join("?" * len(points[0]))
        connection.exec_driver_sql(f"INSERT INTO {CURVES.name} ({columns}) VALUES ({places})", points)
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {CURVES.name} ({columns}) FROM STDIN") as copy:
        for point in points:
            copy.write_row(point)


def move(connection: Connection, ids: Mapping[int, int], expected: TrialState, values: Values) -> None:
    """Change trials that are in the expected state, all of them or none.

    Raises:
        StudiesError: One of them is not; the caller's transaction must not be committed.
    """
    is_expected = and_(TRIAL.c.trial_id.in_(ids.values()), TRIAL.c.state == expected)
    changed = connection.execute(update(TRIAL).where(is_expected).values(**values)).rowcount
    if changed != len(ids):
        raise StudiesError(
            f"of the trials {sorted(ids)} only {changed} are {expected.name}: another process changed them, "
            "and this result is refused"
        )


def finish(connection: Connection, ids: Mapping[int, int], trials: Sequence[TrialRecord]) -> None:
    """Store the results of RUNNING trials, and seal them.

    Args:
        connection: In a transaction that holds the study's lock.
        ids: Of the trials, by number.
        trials: Finished ones.
    """
    done = datetime.now(UTC).replace(tzinfo=None)
    for state in r.FINISHED_STATES:
        told = {t.number: ids[t.number] for t in trials if t.state == state}
        if told:
            move(connection, told, TrialState.RUNNING, {"state": TrialState[state], "datetime_complete": done})
    if not trials:
        return
    new = {
        VALUE: [row for t in trials for row in rows.values_of(ids[t.number], t.values or ())],
        RUNG: [row for t in trials for row in rows.rungs_of(ids[t.number], t.rungs)],
        USER_ATTR: rows.attr_rows({ids[t.number]: rows.user_attrs(t) for t in trials}),
    }
    insert_rows(connection, new)
    curves = {ids[t.number]: rows.curve_points(t) for t in trials}
    insert_curves(connection, curves)
    results = update(RESULTS).where(RESULTS.c.trial_id == bindparam("id"))
    connection.execute(results, [{"id": ids[t.number], **rows.result_row(t)} for t in trials])
    seal(connection, list(ids.values()), curves)


def put_back(connection: Connection, ids: Sequence[int]) -> None:
    """RUNNING trials wait again, with the same number and hyperparameters and nothing that an earlier life left."""
    # A second report of a step is ignored, so what was reported has to go.
    for table in (RUNG, VALUE, USER_ATTR, CURVES):
        connection.execute(delete(table).where(table.c.trial_id.in_(ids)))
    is_own = and_(TRIAL.c.trial_id.in_(ids), TRIAL.c.state == TrialState.RUNNING)
    connection.execute(update(TRIAL).where(is_own).values(state=TrialState.WAITING, datetime_start=None))


def stored(
    connection: Connection, ids: Sequence[int], curves: Curves | None = None
) -> dict[int, dict[str, list[tuple[object, ...]]]]:
    """What the tables hold of some trials, as `checksums.checksum` takes it, by trial id.

    Curves that the caller has just written need not be read again.
    """
    found: dict[int, dict[str, list[tuple[object, ...]]]] = {i: defaultdict(list) for i in ids}
    for table in _SEALED if curves is None else _SEALED[:-1]:
        columns = [table.c.trial_id, *(table.c[name] for name in COLUMNS[table.name])]
        for trial_id, *values in connection.execute(select(*columns).where(table.c.trial_id.in_(ids))):
            found[trial_id][table.name].append(tuple(values))
    for trial_id, points in (curves or {}).items():
        found[trial_id][CURVES.name] = points
    return found


def seal(connection: Connection, ids: Sequence[int], curves: Curves | None = None) -> None:
    """Store the checksums of finished trials, of what the database holds of them now."""
    statement = update(RESULTS).where(RESULTS.c.trial_id == bindparam("id")).values(sha256=bindparam("sum"))
    found = stored(connection, ids, curves)
    connection.execute(statement, [{"id": i, "sum": checksum(own)} for i, own in found.items()])


def seal_all(connection: Connection) -> None:
    """Seal all finished trials of all our studies, after a migration: what is there is taken for right."""
    is_finished = TRIAL.c.state.in_([TrialState[state] for state in r.FINISHED_STATES])
    ours = select(TRIAL.c.trial_id).join(RESULTS, RESULTS.c.trial_id == TRIAL.c.trial_id).where(is_finished)
    ids = list(connection.execute(ours).scalars())
    for begin in range(0, len(ids), _CHUNK):
        seal(connection, ids[begin : begin + _CHUNK])


def falsified(connection: Connection, study: int) -> list[int]:
    """Numbers of the finished trials of a study whose rows do not have their checksum, or that have none."""
    is_finished = TRIAL.c.state.in_([TrialState[state] for state in r.FINISHED_STATES])
    query = select(TRIAL.c.trial_id, TRIAL.c.number, RESULTS.c.sha256)
    query = query.join(RESULTS, RESULTS.c.trial_id == TRIAL.c.trial_id)
    found = connection.execute(query.where(TRIAL.c.study_id == study, is_finished).order_by(TRIAL.c.number)).all()
    wrong = []
    for begin in range(0, len(found), _CHUNK):
        chunk = found[begin : begin + _CHUNK]
        sums = {i: checksum(own) for i, own in stored(connection, [row.trial_id for row in chunk]).items()}
        wrong += [row.number for row in chunk if sums[row.trial_id] != row.sha256]
    return wrong


def read(
    connection: Connection, study: int, numbers: Iterable[int] | None, *, first: int | None = None, has_curves: bool
) -> list[TrialRecord]:
    """Trials of a study in order of number; all of them, or those named and those from `first` on."""
    chosen = TRIAL.c.study_id == study
    if numbers is not None:
        named = TRIAL.c.number.in_(list(numbers))
        chosen = and_(chosen, named if first is None else or_(named, TRIAL.c.number >= first))
    found = connection.execute(
        select(TRIAL.c.number, TRIAL.c.state, *_OF_RECORD)
        .join(RESULTS, RESULTS.c.trial_id == TRIAL.c.trial_id)
        .where(chosen)
        .order_by(TRIAL.c.number)
    ).all()
    own = select(TRIAL.c.trial_id).where(chosen)
    related = {table: _by_trial(connection, table, own) for table in (VALUE, RUNG, SYSTEM_ATTR)}
    # Trials of version 1 do not say themselves what of them was searched.
    related[PARAM] = _by_trial(connection, PARAM, own) if any(t.searched_json is None for t in found) else {}
    curves = _by_trial(connection, CURVES, own) if has_curves else {}
    return [
        rows.trial_of(
            t, {table: by_id.get(t.trial_id, []) for table, by_id in related.items()}, curves.get(t.trial_id, [])
        )
        for t in found
    ]


def _by_trial(connection: Connection, table: Table, own: Any) -> dict[int, list[rows.AnyRow]]:
    """Rows of a table that belong to the chosen trials, by trial id, in the order of the primary key."""
    found: dict[int, list[rows.AnyRow]] = defaultdict(list)
    query = select(table).where(table.c.trial_id.in_(own)).order_by(*table.primary_key.columns)
    for row in connection.execute(query):
        found[row.trial_id].append(row)
    return found
