"""Makes the rows of a study database right again, as far as other rows tell how: functions in a caller's transaction.

What is deleted is ours and wrong: rows that no trial and no study reaches, a second trial under a number that is taken
by one that has its checksum, leases of the dead. What needs training is `restoring`'s.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import Connection, Update, delete, insert, inspect, select, update

from studies import inspection, integrity, migrations, rows, seals, trials
from studies.checksums import FACTS, checksum, row_checksum
from studies.database import is_sqlite
from studies.inspection import NO_SENSE, Cohort, Trial
from studies.records import FINISHED_STATES, StudyFacts, Suggestion, TrialRecord
from studies.rows import DIRECTION, PARAM, RUNG, STUDY, SYSTEM_ATTR, TRIAL, USER_ATTR, VALUE, Values
from studies.tables import COHORTS, CURVES, RESULTS, STUDIES, WINNERS

_OF_RESULT = (PARAM, VALUE, RUNG, USER_ATTR, SYSTEM_ATTR, CURVES, RESULTS)


def whole(connection: Connection) -> None:
    """Make indexes and the view again, and delete rows that belong to nobody."""
    if is_sqlite(connection):
        connection.exec_driver_sql("REINDEX")
    if migrations.VIEW not in inspect(connection).get_view_names():
        migrations.create_view(connection)
    for table, parents in integrity.PARENTS.items():
        for key, parent in parents:
            connection.execute(delete(table).where(table.c[key].not_in(select(parent.c[key]))))


def facts(connection: Connection, study_id: int, told: Mapping[str, object]) -> bool:
    """Give a study the facts that its checksum is of; returns whether that is so.

    Args:
        connection: In the caller's transaction.
        study_id: Of the study.
        told: Columns of `dlcore_studies`, and `study_name`, as another witness has them: one of them, or all, are
            taken in the place of what is stored.
    """
    query = select(STUDIES, STUDY.c.study_name).join(STUDY, STUDY.c.study_id == STUDIES.c.study_id)
    stored = connection.execute(query.where(STUDIES.c.study_id == study_id)).one()._mapping
    told = _with_place_of_source(told, stored["spec_json"])
    for columns in ({}, told, *({name: value} for name, value in told.items())):
        row = {**stored, **columns}
        if row_checksum(row["study_name"], *(row[name] for name in FACTS)) == stored["sha256"]:
            named = update(STUDY).where(STUDY.c.study_id == study_id)
            connection.execute(named.values(study_name=row["study_name"]))
            own = update(STUDIES).where(STUDIES.c.study_id == study_id)
            connection.execute(own.values({name: row[name] for name in FACTS}))
            return True
    return False


def _with_place_of_source(told: Mapping[str, object], stored: object) -> Mapping[str, object]:
    """What is told of a study, its spec with the place of a [transfer]'s source, which the stored row alone knows."""
    place = re.search(r'"transfer": \{"from": ("(?:[^"\\]|\\.)*")', str(stored))
    spec = json.loads(str(told.get("spec_json", "{}")))
    if place is None or "transfer" not in spec:
        return told
    try:
        spec["transfer"]["from"] = json.loads(place[1])
    except ValueError:
        return told
    return {**told, "spec_json": json.dumps(spec)}


def study(connection: Connection, known: StudyFacts) -> None:
    """Mend what rows alone tell of one study that nobody drives."""
    number = trials.study_id(connection, known.name, is_locked=True)
    _false_winners(connection, number)
    _directions(connection, number, known)
    _numbers(connection, number, known)
    _doubles(connection, number)
    _cohort_of_trials(connection, number)
    _cohorts(connection, number, known)
    found = inspection.trials_of(connection, number)
    trials.put_back(connection, [t.id for t in inspection.leftovers(connection, found)])


def _false_winners(connection: Connection, study_id: int) -> None:
    """Delete the rows of winners that are not as they were stored; the export that is left gets a new one."""
    query = select(WINNERS, TRIAL.c.number).join(TRIAL, TRIAL.c.trial_id == WINNERS.c.trial_id)
    found = connection.execute(query.where(WINNERS.c.study_id == study_id)).all()
    false = [row.trial_id for row in found if row.sha256 != seals.winner_checksum(row)]
    connection.execute(delete(WINNERS).where(WINNERS.c.study_id == study_id, WINNERS.c.trial_id.in_(false)))


def _directions(connection: Connection, study_id: int, known: StudyFacts) -> None:
    if not inspection.directions(connection, study_id, known):
        return
    connection.execute(delete(DIRECTION).where(DIRECTION.c.study_id == study_id))
    wanted = [StudyDirection[o.direction.upper()] for o in known.objectives]
    new = [{"study_id": study_id, "objective": i, "direction": d} for i, d in enumerate(wanted)]
    connection.execute(insert(DIRECTION), new)


def _numbers(connection: Connection, study_id: int, known: StudyFacts) -> None:
    """A finished trial whose rows are right but for the number gets the missing one that its checksum is of."""
    found, cohorts = inspection.trials_of(connection, study_id), inspection.cohorts_of(connection, study_id)
    others = inspection.foreign(found, cohorts)
    own = [t for t in found if t not in others]
    if not (missing := inspection.holes(own, cohorts, known)):
        return
    for trial in inspection.falsified(connection, own):
        own_row = update(TRIAL).where(TRIAL.c.trial_id == trial.id)
        _set_right(connection, trial, (own_row.values(number=number) for number in missing))


def _doubles(connection: Connection, study_id: int) -> None:
    """Of trials that have one number, keep one that is what was recorded, if there is one."""
    found = inspection.trials_of(connection, study_id)
    for right, others in inspection.doubled(connection, found).values():
        if not right:
            continue
        kept = min(right, key=lambda t: t.id)
        # Equal in all that counts; unequal ones that both have a checksum are for a person to choose from.
        copies = [t for t in right if t.id != kept.id and t.sha256 == kept.sha256]
        gone = [t.id for t in (*others, *copies)]
        for table in (*_OF_RESULT, rows.HEARTBEAT, TRIAL):
            connection.execute(delete(table).where(table.c.trial_id.in_(gone)))


def _cohort_of_trials(connection: Connection, study_id: int) -> None:
    """A finished trial whose rows are right but for the cohort gets the one that its checksum is of."""
    found = inspection.trials_of(connection, study_id)
    ids = sorted({c.id for c in inspection.cohorts_of(connection, study_id)} | {t.cohort or 0 for t in found})
    for trial in inspection.falsified(connection, found):
        own_row = update(RESULTS).where(RESULTS.c.trial_id == trial.id)
        _set_right(connection, trial, (own_row.values(cohort=cohort) for cohort in ids))


def _cohorts(connection: Connection, study_id: int, known: StudyFacts) -> None:
    """Make the rows of cohorts again from the trials that belong to them, where that gives a whole."""
    found = inspection.trials_of(connection, study_id)
    stored = inspection.cohorts_of(connection, study_id)
    if not inspection.misplaced(found, stored, known):
        return
    members: dict[int, list[int]] = defaultdict(list)
    for trial in found:
        if trial.cohort is not None:
            members[trial.cohort].append(trial.number)
    old = {c.id: c for c in stored}
    made = [Cohort(i, min(numbers), len(numbers)) for i, numbers in sorted(members.items())]
    # As few changes as possible: a cohort that lost a trial still says how many it had.
    for candidate in (_nearest(old, made), made):
        if not inspection.misplaced(found, candidate, known):
            break
    else:
        return
    begun = {t.id: t for t in found}
    connection.execute(delete(COHORTS).where(COHORTS.c.study_id == study_id))
    for cohort in candidate:
        row = {"study_id": study_id, "cohort": cohort.id, "first_number": cohort.first, "n_trials": cohort.n}
        ids = [t.id for t in begun.values() if t.cohort == cohort.id]
        connection.execute(insert(COHORTS).values(**row, claimed_at=_begun_at(connection, ids, known)))


def _nearest(old: Mapping[int, Cohort], made: Sequence[Cohort]) -> list[Cohort]:
    """The stored cohorts, with those replaced that do not hold their trials or are not followed by the next."""
    nearest: list[Cohort] = []
    for cohort, following in zip(made, [*made[1:], None], strict=True):
        kept = old.get(cohort.id, cohort)
        fits = kept.first <= cohort.first and cohort.first + cohort.n <= kept.first + kept.n
        is_followed = following is None or kept.first + kept.n == following.first
        nearest.append(kept if fits and is_followed else cohort)
    return nearest


def _begun_at(connection: Connection, ids: Sequence[int], known: StudyFacts) -> float:
    """When a cohort was claimed, as far as its trials tell."""
    query = select(TRIAL.c.datetime_start).where(TRIAL.c.trial_id.in_(ids), TRIAL.c.datetime_start.is_not(None))
    times = list(connection.execute(query).scalars())
    return min(times).replace(tzinfo=UTC).timestamp() if times else known.created_at


# ---- for `restoring`


def _set_right(connection: Connection, trial: Trial, changes: Iterable[Update]) -> None:
    """Keep the first of these changes that makes a trial what its checksum is of; none where none does."""
    for change in changes:
        with connection.begin_nested() as attempt:
            connection.execute(change)
            if _is_right(connection, trial):
                return
            attempt.rollback()


def _is_right(connection: Connection, trial: Trial) -> bool:
    try:
        return checksum(trials.stored(connection, [trial.id])[trial.id]) == trial.sha256
    except NO_SENSE:
        return False


def as_recorded(connection: Connection, trial: Trial, again: TrialRecord) -> list[TrialRecord]:
    """What a trial that was trained again may have been before it was falsified: with the times that are stored.

    The second candidate also takes from the stored row on what it was trained.
    """
    row = connection.execute(select(RESULTS).where(RESULTS.c.trial_id == trial.id)).one()
    points = connection.execute(select(CURVES.c.epoch, CURVES.c.finished_at).where(CURVES.c.trial_id == trial.id))
    ends: dict[int, float] = {row.epoch: row.finished_at for row in points}
    curve = tuple(replace(e, finished_at=ends.get(e.epoch, e.finished_at)) for e in again.curve)
    times = {name: getattr(row, name) for name in ("started_at", "finished_at", "duration_s", "samples_per_s")}
    times |= {"curve": curve, "peak_memory_bytes": row.peak_memory_bytes, "cohort": again.cohort}
    place = {name: getattr(row, name) for name in ("engine", "device", "population_size")}
    return [replace(again, **times), replace(again, **times, **place)]


def write_exactly(
    connection: Connection, trial: Trial, record: TrialRecord, known: Mapping[str, BaseDistribution]
) -> bool:
    """Write a record in the place of a trial's rows if it has the checksum that was stored; returns whether it has."""
    try:
        times = connection.execute(
            select(TRIAL.c.datetime_start, TRIAL.c.datetime_complete).where(TRIAL.c.trial_id == trial.id)
        ).one()
    except NO_SENSE:
        return False
    with connection.begin_nested() as attempt:
        _replace(connection, trial.id, record, known, (times.datetime_start, times.datetime_complete))
        if _is_right(connection, trial):
            connection.execute(update(RESULTS).where(RESULTS.c.trial_id == trial.id).values(sha256=trial.sha256))
            return True
        attempt.rollback()
    return False


def write_anew(
    connection: Connection, study_id: int, trial_id: int | None, record: TrialRecord,
    known: Mapping[str, BaseDistribution],
) -> None:  # fmt: skip
    """Write a finished record in the place of a trial's rows, or of one that is not there, and seal it."""
    trial_id = _row_of(connection, study_id, trial_id, record.number)
    times = (_when(record.started_at), _when(record.finished_at))
    _replace(connection, trial_id, record, known, times)
    trials.seal(connection, [trial_id])


def write_waiting(
    connection: Connection, study_id: int, trial_id: int | None, claim: tuple[Suggestion, int, int],
    known: Mapping[str, BaseDistribution],
) -> None:  # fmt: skip
    """Let a trial wait to be trained: with a suggestion, its parameter count, and its cohort."""
    suggestion, n_parameters, cohort = claim
    trial_id = _row_of(connection, study_id, trial_id, suggestion.number)
    _clear(connection, trial_id)
    state = {"state": TrialState.WAITING, "datetime_start": None, "datetime_complete": None}
    connection.execute(update(TRIAL).where(TRIAL.c.trial_id == trial_id).values(state))
    _insert_claim(connection, trial_id, suggestion, rows.claim_row(trial_id, suggestion, n_parameters, cohort), known)


def _row_of(connection: Connection, study_id: int, trial_id: int | None, number: int) -> int:
    if trial_id is not None:
        return trial_id
    return trials.add(connection, study_id, [number], {"state": TrialState.WAITING})[number]


def _clear(connection: Connection, trial_id: int) -> None:
    for table in _OF_RESULT:
        connection.execute(delete(table).where(table.c.trial_id == trial_id))


def _insert_claim(
    connection: Connection, trial_id: int, suggestion: Suggestion, row: Values, known: Mapping[str, BaseDistribution]
) -> None:
    new: dict[Any, Sequence[Values]] = {
        PARAM: rows.param_rows([suggestion], {suggestion.number: trial_id}, known),
        SYSTEM_ATTR: rows.attr_rows({trial_id: suggestion.system_attrs}),
        RESULTS: [row],
    }
    trials.insert_rows(connection, new)


def _replace(
    connection: Connection,
    trial_id: int,
    record: TrialRecord,
    known: Mapping[str, BaseDistribution],
    times: tuple[datetime | None, datetime | None],
) -> None:
    """Write all rows of a finished trial anew, but for its checksum."""
    assert record.state in FINISHED_STATES
    _clear(connection, trial_id)
    state = {"state": TrialState[record.state], "datetime_start": times[0], "datetime_complete": times[1]}
    connection.execute(update(TRIAL).where(TRIAL.c.trial_id == trial_id).values(state | {"number": record.number}))
    row = rows.claim_row(trial_id, record.suggestion, record.n_parameters, record.cohort)
    _insert_claim(connection, trial_id, record.suggestion, row | rows.result_row(record), known)
    new: dict[Any, Sequence[Values]] = {
        VALUE: rows.values_of(trial_id, record.values or ()),
        RUNG: rows.rungs_of(trial_id, record.rungs),
        USER_ATTR: rows.attr_rows({trial_id: rows.user_attrs(record)}),
    }
    trials.insert_rows(connection, new)
    trials.insert_curves(connection, {trial_id: rows.curve_points(record)})


def _when(seconds: float | None) -> datetime:
    """A time as Optuna's table holds it: UTC, without saying so."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.replace(tzinfo=None)
