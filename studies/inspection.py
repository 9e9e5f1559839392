"""What is wrong with a study inside the database: every check of `studies doctor` that needs nothing but its rows.

Rows are looked at as they stand, without making records of them, so that one that makes no sense is found and not
stumbled over. Nothing is changed here; `mending` and `restoring` do that.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import json_to_distribution
from sqlalchemy import Connection, String, cast, select
from sqlalchemy.exc import DBAPIError, NoResultFound

from studies import seals, trials
from studies.checksums import checksum
from studies.database import is_sqlite
from studies.findings import FROM_COPY, Finding
from studies.records import FINISHED_STATES, STATES, StudyFacts
from studies.rows import DIRECTION, PARAM, RUNG, STUDY, SYSTEM_ATTR, TRIAL, VALUE, facts_of
from studies.tables import COHORTS, CURVES, LEASES, RESULTS, STUDIES, WINNERS

NO_SENSE = (ValueError, TypeError, LookupError, AttributeError, DBAPIError, NoResultFound)
"""What reading a damaged row may raise."""
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Trial:
    """A row of `trials`, and what of `dlcore_results` tells how to look at it."""

    id: int
    number: int
    state: str
    cohort: int | None
    """None where it has no row in `dlcore_results`."""
    sha256: str | None

    @property
    def is_finished(self) -> bool:
        """Whether it must have a checksum: its state may be what is falsified."""
        return self.state in FINISHED_STATES or self.state not in STATES or self.sha256 is not None


@dataclass(frozen=True, slots=True)
class Cohort:
    """A row of `dlcore_cohorts`."""

    id: int
    first: int
    n: int


def facts(connection: Connection, study: int, name: str) -> tuple[StudyFacts | None, list[Finding]]:
    """What is fixed of a study, if it can be trusted; else what is wrong with it."""
    query = select(STUDIES, STUDY.c.study_name).join(STUDY, STUDY.c.study_id == STUDIES.c.study_id)
    try:
        row = connection.execute(query.where(STUDIES.c.study_id == study)).one()
        found = facts_of(row)
        if row.sha256 == seals.facts_checksum(row):
            return found, []
    except NO_SENSE:
        pass
    text = "its row of dlcore_studies, or its name, does not have its checksum"
    return None, [Finding("falsified study", text, name, FROM_COPY)]


def directions(connection: Connection, study: int, known: StudyFacts) -> list[Finding]:
    """Whether Optuna's tools would take better for worse."""
    query = select(cast(DIRECTION.c.direction, String)).where(DIRECTION.c.study_id == study)
    found = list(connection.execute(query.order_by(DIRECTION.c.objective)).scalars())
    wanted = [o.direction.upper() for o in known.objectives]
    text = f"Optuna's table says {', '.join(map(str, found)) or 'nothing'}; it must be {', '.join(wanted)}"
    return [] if found == wanted else [Finding("wrong direction", text, known.name)]


def trials_of(connection: Connection, study: int) -> list[Trial]:
    """The trials of a study in order of number, then of id."""
    query = select(
        TRIAL.c.trial_id, TRIAL.c.number, cast(TRIAL.c.state, String), RESULTS.c.cohort, RESULTS.c.sha256
    ).outerjoin(RESULTS, RESULTS.c.trial_id == TRIAL.c.trial_id)
    own = query.where(TRIAL.c.study_id == study).order_by(TRIAL.c.number, TRIAL.c.trial_id)
    return [Trial(*row) for row in connection.execute(own)]


def cohorts_of(connection: Connection, study: int) -> list[Cohort]:
    """The cohorts of a study in their order."""
    query = select(COHORTS.c.cohort, COHORTS.c.first_number, COHORTS.c.n_trials)
    own = query.where(COHORTS.c.study_id == study).order_by(COHORTS.c.cohort)
    return [Cohort(*row) for row in connection.execute(own)]


def falsified(connection: Connection, found: Iterable[Trial]) -> list[Trial]:
    """Finished trials whose rows do not have their checksum, or make no sense."""
    finished = [t for t in found if t.is_finished and t.cohort is not None]
    wrong = []
    for begin in range(0, len(finished), _CHUNK):
        chunk = finished[begin : begin + _CHUNK]
        try:
            sums = _sums(connection, chunk)
        except NO_SENSE:
            if not is_sqlite(connection):
                raise  # an error ends PostgreSQL's transaction
            sums = {}
            for trial in chunk:
                try:
                    sums |= _sums(connection, [trial])
                except NO_SENSE:
                    continue
        wrong += [t for t in chunk if t.sha256 is None or sums.get(t.id) != t.sha256]
    return wrong


def _sums(connection: Connection, found: Sequence[Trial]) -> dict[int, str]:
    return {i: checksum(own) for i, own in trials.stored(connection, [t.id for t in found]).items()}


def doubled(connection: Connection, found: Sequence[Trial]) -> dict[int, tuple[list[Trial], list[Trial]]]:
    """Numbers that several trials have -> those that are what was recorded, and the others."""
    counts = Counter(t.number for t in found)
    several = [t for t in found if counts[t.number] > 1]
    wrong = {t.id for t in falsified(connection, several)}
    sides: dict[int, tuple[list[Trial], list[Trial]]] = {}
    for trial in several:
        right, others = sides.setdefault(trial.number, ([], []))
        (others if trial.cohort is None or trial.id in wrong else right).append(trial)
    return sides


def unclear(connection: Connection, found: Sequence[Trial]) -> list[Trial]:
    """Trials that are to be trained yet, whose hyperparameters our table and Optuna's do not agree on."""
    return [t for t in found if not t.is_finished and t.cohort is not None and not _agree(connection, t)]


def _agree(connection: Connection, trial: Trial) -> bool:
    try:
        chosen, searched = claimed(connection, trial.id)
        return searched == optunas(connection, trial.id) and searched.items() <= chosen.items()
    except NO_SENSE:
        return False


def claimed(connection: Connection, trial_id: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The hyperparameters of a trial by `dlcore_results`: all, and those that were searched.

    Raises:
        Exception: One of `NO_SENSE`.
    """
    query = select(RESULTS.c.hyperparameters_json, RESULTS.c.searched_json).where(RESULTS.c.trial_id == trial_id)
    row = connection.execute(query).one()
    chosen = json.loads(row.hyperparameters_json)
    names = [*optunas(connection, trial_id)] if row.searched_json is None else json.loads(row.searched_json)
    return chosen, {name: chosen[name] for name in names}


def optunas(connection: Connection, trial_id: int) -> dict[str, Any]:
    """The searched hyperparameters of a trial by Optuna's table.

    Raises:
        Exception: One of `NO_SENSE`.
    """
    query = select(PARAM.c.param_name, PARAM.c.param_value, PARAM.c.distribution_json)
    return {
        name: json_to_distribution(text).to_external_repr(value)
        for name, value, text in connection.execute(query.where(PARAM.c.trial_id == trial_id))
    }


def notes(connection: Connection, trial_id: int) -> dict[str, Any]:
    """What the sampler noted with a trial.

    Raises:
        Exception: One of `NO_SENSE`.
    """
    query = select(SYSTEM_ATTR.c.key, SYSTEM_ATTR.c.value_json).where(SYSTEM_ATTR.c.trial_id == trial_id)
    return {key: json.loads(text) for key, text in connection.execute(query)}


def leftovers(connection: Connection, found: Sequence[Trial]) -> list[Trial]:
    """Trials that have no result yet, and rows of one."""
    unfinished = {t.id: t for t in found if not t.is_finished}
    ids: set[int] = set()
    for table in (VALUE, RUNG, CURVES):
        query = select(table.c.trial_id).where(table.c.trial_id.in_(list(unfinished))).distinct()
        ids |= set(connection.execute(query).scalars())
    return [unfinished[i] for i in sorted(ids)]


def gaps(connection: Connection, found: Sequence[Trial]) -> dict[int, str]:
    """What is wrong with the epochs of curves, by trial id: one is not there, or there is one too many."""
    epochs: dict[int, list[int]] = defaultdict(list)
    ids = [t.id for t in found]
    for begin in range(0, len(ids), _CHUNK):
        query = select(CURVES.c.trial_id, CURVES.c.epoch).where(CURVES.c.trial_id.in_(ids[begin : begin + _CHUNK]))
        for trial_id, epoch in connection.execute(query.order_by(CURVES.c.trial_id, CURVES.c.epoch)):
            epochs[trial_id].append(epoch)
    wrong = {}
    for trial_id, own in epochs.items():
        # A falsified epoch may be any number: nobody counts up to it.
        known, n_missing = set(own), max(own) - sum(epoch > 0 for epoch in own)
        if n_missing > 0:
            first = next(epoch for epoch in range(1, len(own) + 2) if epoch not in known)
            wrong[trial_id] = f"epoch {first} is not there" + (f", nor are {n_missing - 1} more" * (n_missing > 1))
    return wrong


def holes(found: Sequence[Trial], cohorts: Sequence[Cohort], known: StudyFacts) -> list[int]:
    """Numbers that no trial has: between others, or claimed by a cohort that is as it should be."""
    numbers = {t.number for t in found}
    asked = claims(cohorts)
    # A falsified number may be any: nobody counts up to it.
    most = len(numbers) + sum(min(max(c.n, 0), known.cohort_size) for c in asked)
    end = max((n for n in numbers if n < most), default=-1) + 1
    if not misplaced(found, cohorts, known):
        end = max(end, sum(c.n for c in asked))
    return sorted(set(range(end)) - numbers)


def claims(cohorts: Sequence[Cohort]) -> list[Cohort]:
    """Cohorts that were asked; the others are what a time budget left over of those."""
    asked, end = [], 0
    for cohort in cohorts:
        if cohort.first >= end:
            asked.append(cohort)
            end = cohort.first + cohort.n
    return asked


def misplaced(found: Sequence[Trial], cohorts: Sequence[Cohort], known: StudyFacts) -> list[str]:
    """How cohorts disagree: with each other, with the trials that say they belong to them, with the spec."""
    wrong, end = [], 0
    if [c.id for c in cohorts] != list(range(len(cohorts))):
        wrong.append(f"cohorts must be 0 to {len(cohorts) - 1}; they are {', '.join(str(c.id) for c in cohorts)}")
    asked = claims(cohorts)
    for cohort in asked:
        room = known.cohort_size - cohort.first % known.cohort_size
        if cohort.first != end or not 1 <= cohort.n <= room:
            wrong.append(f"cohort {cohort.id} is of {cohort.n} trials from {cohort.first} on; {end} must come next")
        end = cohort.first + cohort.n
    last = max((t.number for t in found if t.cohort is not None), default=-1)
    if last >= end:
        wrong.append(f"trials {end} to {last} belong to no cohort that was asked")
    budget = known.spec.get("budget")
    total = budget.get("trials") if isinstance(budget, dict) else None
    if total is not None and end > max(total, last + 1):
        wrong.append(f"cohort {asked[-1].id} ends at trial {end - 1}; the budget is of {total} trials")
    by_id = {c.id: c for c in cohorts}
    members: dict[int, list[int]] = defaultdict(list)
    for trial in found:
        if trial.cohort is not None:
            members[trial.cohort].append(trial.number)
    for i, numbers in sorted(members.items()):
        own = by_id.get(i)
        if own is None:
            wrong.append(f"trials {_few(numbers)} belong to cohort {i}, which is not there")
        elif own in asked and not own.first <= min(numbers) <= max(numbers) < own.first + own.n:
            wrong.append(f"trials {_few(numbers)} belong to cohort {i}, which is of {own.n} from {own.first} on")
        elif own not in asked and (own.first > min(numbers) or len(numbers) > own.n):
            wrong.append(f"trials {_few(numbers)} belong to cohort {i}, which has {own.n} from {own.first} on")
    return wrong


def foreign(found: Sequence[Trial], cohorts: Sequence[Cohort]) -> list[Trial]:
    """Trials behind the last of ours: another program added them."""
    end = max([t.number + 1 for t in found if t.cohort is not None] + [c.first + c.n for c in cohorts], default=0)
    return [t for t in found if t.cohort is None and t.number >= end]


def idle_leases(connection: Connection, study: int, living: Iterable[int]) -> list[int]:
    """Cohorts that a dead owner has a lease of, and nothing of which is RUNNING."""
    own = select(RESULTS.c.cohort).join(TRIAL, TRIAL.c.trial_id == RESULTS.c.trial_id)
    busy = own.where(TRIAL.c.study_id == study, cast(TRIAL.c.state, String) == "RUNNING")
    query = select(LEASES.c.cohort).where(LEASES.c.study_id == study, LEASES.c.cohort.not_in(busy))
    return sorted(set(connection.execute(query).scalars()) - set(living))


def winners(connection: Connection, study: int, name: str) -> list[Finding]:
    """Rows of winners that are not as they were stored."""
    query = select(WINNERS, TRIAL.c.number).join(TRIAL, TRIAL.c.trial_id == WINNERS.c.trial_id)
    found = []
    for row in connection.execute(query.where(WINNERS.c.study_id == study)).all():
        if row.sha256 != seals.winner_checksum(row):
            text = f"the row of trial {row.number} in dlcore_winners does not have its checksum"
            found.append(Finding("falsified winner", text, name))
    return found


def study(
    connection: Connection,
    number: int,
    known: StudyFacts,
    wrong: Sequence[Trial],
    owned: tuple[Iterable[int], Sequence[int]],
) -> Iterator[Finding]:
    """Everything that is wrong with the rows of one study whose facts can be trusted.

    Args:
        connection: In one transaction.
        number: The study's id.
        known: Its facts.
        wrong: Its trials that are `falsified`.
        owned: Cohorts that somebody trains, and numbers of RUNNING trials that nobody trains.
    """
    living, nobodys = owned
    found, cohorts = trials_of(connection, number), cohorts_of(connection, number)
    others = foreign(found, cohorts)
    own = [t for t in found if t not in others]

    def finding(kind: str, text: str, cure: str | None = None) -> Finding:
        return Finding(kind, text, known.name, cure)

    yield from directions(connection, number, known)
    yield from (finding("cohorts disagree", text) for text in misplaced(own, cohorts, known))
    yield from (finding("missing trial", f"trial {n} is not there") for n in holes(own, cohorts, known))
    several = doubled(connection, own)
    yield from (finding("doubled trial", f"{len(a) + len(b)} trials are number {n}") for n, (a, b) in several.items())
    for trial in own:
        if trial.cohort is None and trial.number not in several:
            yield finding("missing row", f"trial {trial.number} has none in dlcore_results")
    broken = gaps(connection, own)
    for trial in [t for t in wrong if t.number not in several]:
        more = f"; of its curve {broken[trial.id]}" if trial.id in broken else ""
        what = "it has no checksum" if trial.sha256 is None else "its rows do not have their checksum"
        yield finding("falsified trial", f"trial {trial.number}: {what}{more}")
    for trial in unclear(connection, own):
        text = f"trial {trial.number}, which is {trial.state}: dlcore_results and trial_params disagree"
        yield finding("falsified trial", text)
    for trial in leftovers(connection, own):
        yield finding("half a result", f"trial {trial.number} is {trial.state}, and has rows of a result")
    yield from (finding("zombie", f"trial {n} is RUNNING, and nobody trains it") for n in nobodys)
    for cohort in idle_leases(connection, number, living):
        yield finding("idle lease", f"cohort {cohort} is leased to an owner that is dead, and nothing of it is RUNNING")
    yield from winners(connection, number, known.name)
    for trial in others:
        text = f"trial {trial.number} was added by another program"
        yield finding("foreign trial", text, "no doctor deletes what others made; the study cannot go on beside it")


def _few(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
