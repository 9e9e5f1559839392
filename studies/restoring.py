"""Trials whose rows are wrong or gone are asked and trained again, with their cohort, and are what they were.

Three witnesses tell a trial's hyperparameters: our table, Optuna's, and the sampler, which asked for them from the
trials of earlier cohorts and does so again. Training repeats to the bit on the machine and versions of the record. The
proof is the checksum: with the times that are still stored, the rows must have the one that was stored with them. Where
a time or the checksum itself is lost there is no such proof; then the trials of the cohort that are right must come out
again bit for bit, and the trial is stored as it was trained now.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from studies import inspection, mending, trials
from studies.cohort import Trainer
from studies.database import reading, writing
from studies.inspection import NO_SENSE, Cohort, Trial
from studies.provenance import changed
from studies.records import CUT, FINISHED_STATES, StudyFacts, Suggestion, TrialRecord
from studies.replay import bits
from studies.sampler import ask_cohort
from studies.space import distributions
from studies.spec import StudySpec
from studies.storage import Storage

Asked = Mapping[int, Suggestion]


@dataclass(frozen=True, slots=True)
class _Wrong:
    """A trial whose rows are wrong or gone."""

    number: int
    cohort: int
    row: Trial | None
    """Its row of `trials`, if there is one."""
    told: tuple[Suggestion, ...]
    """Its hyperparameters by our table and by Optuna's, as far as they make sense; one where both agree."""


class Restorer:
    """One study, whose cohorts can be trained again."""

    def __init__(self, storage: Storage, spec: StudySpec, facts: StudyFacts, trainer: Trainer) -> None:
        """Nothing is done yet; the caller holds the study's lock."""
        self._storage, self._spec, self._facts, self._trainer = storage, spec, facts, trainer
        self._distributions = distributions(spec)

    def restore(self, say: Callable[[str], None]) -> None:
        """Restore what can be, cohort by cohort: what a later one asked for depends on the earlier ones.

        Args:
            say: Is told which cohorts are trained.
        """
        done: set[int] = set()
        while wrong := [w for w in self._wrong() if w.cohort not in done]:
            cohort = min(w.cohort for w in wrong)
            done.add(cohort)
            self._restore_cohort(cohort, [w for w in wrong if w.cohort == cohort], say)

    def _wrong(self) -> list[_Wrong]:
        with reading(self._storage.engine) as connection:
            study = trials.study_id(connection, self._facts.name)
            rows, cohorts = inspection.trials_of(connection, study), inspection.cohorts_of(connection, study)
            others = inspection.foreign(rows, cohorts)
            own = [t for t in rows if t not in others]
            several = inspection.doubled(connection, own)
            found: dict[int, Trial | None] = dict.fromkeys(inspection.holes(own, cohorts, self._facts))
            suspects = [*inspection.falsified(connection, own), *inspection.unclear(connection, own)]
            suspects += [t for t in own if t.cohort is None]
            found |= {t.number: t for t in suspects if t.number not in several}
            return [
                _Wrong(number, cohort, row, tuple(_told(connection, row)) if row else ())
                for number, row in found.items()
                if (cohort := _cohort_of(number, row, cohorts)) is not None
            ]

    def _restore_cohort(self, cohort: int, wrong: Sequence[_Wrong], say: Callable[[str], None]) -> None:
        numbers = {w.number for w in wrong}
        with reading(self._storage.engine) as connection:
            study = trials.study_id(connection, self._facts.name)
            sound = [t.number for t in inspection.trials_of(connection, study) if t.number not in numbers]
            records = trials.read(connection, study, sound, has_curves=False)
            beside = [t.number for t in records if t.cohort == cohort]
            mates = trials.read(connection, study, beside, has_curves=True)
        asked = self._asked_again(numbers, records)
        if any(t.state not in FINISHED_STATES for t in mates) or not self._was_finished(wrong, mates):
            self._let_wait(study, cohort, wrong, asked)
            return
        left = {w.number: w for w in wrong}
        outcomes: list[dict[int, TrialRecord]] = []
        for suggestions in _readings(wrong, asked):
            if not left or len(suggestions) < len(wrong):
                break
            say(f"cohort {cohort} of study {self._facts.name} is trained again")
            outcomes.append(self._trained(cohort, mates, suggestions, records))
            for number in [n for n in left if self._is_proven(left[n], outcomes[-1])]:
                del left[number]
        certain = {n for n, w in left.items() if n in asked or len(w.told) == 1}
        if outcomes and self._comes_out_again(mates, outcomes[0]):
            with writing(self._storage.engine) as connection:
                for number in sorted(certain & outcomes[0].keys()):
                    row = left[number].row
                    row_id = None if row is None else row.id
                    mending.write_anew(connection, study, row_id, outcomes[0][number], self._distributions)

    def _asked_again(self, numbers: set[int], records: Sequence[TrialRecord]) -> dict[int, Suggestion]:
        """What the sampler suggests for trials, where it suggests for those beside them what is stored of those."""
        by_number = {t.number: t for t in records}
        size = self._facts.cohort_size
        found: dict[int, Suggestion] = {}
        for begin in sorted({n - n % size for n in numbers}):
            earlier = [trial for n, trial in sorted(by_number.items()) if 0 <= n < begin]
            if len(earlier) < begin:
                continue
            asked = ask_cohort(self._spec, self._facts.objectives, earlier, begin, size, self._trainer.count_parameters)
            beside = [s for s in asked if s.number in by_number]
            is_certain = beside or not changed(self._facts.environment, self._trainer.environment)
            if is_certain and all(_is_equal(s, by_number[s.number].suggestion) for s in beside):
                found |= {s.number: s for s in asked if s.number in numbers}
        return found

    def _was_finished(self, wrong: Sequence[_Wrong], mates: Sequence[TrialRecord]) -> bool:
        """Whether a cohort had its results, which come all at once."""
        return bool(mates) or any(w.row is not None and w.row.is_finished for w in wrong)

    def _let_wait(self, study: int, cohort: int, wrong: Sequence[_Wrong], asked: Asked) -> None:
        """A trial of a cohort that is to be trained yet gets its hyperparameters back, and waits."""
        with writing(self._storage.engine) as connection:
            for w in wrong:
                suggestion = asked.get(w.number) or (w.told[0] if len(w.told) == 1 else None)
                if suggestion is not None:
                    n = self._trainer.count_parameters(suggestion.hyperparameters)
                    row_id = None if w.row is None else w.row.id
                    mending.write_waiting(connection, study, row_id, (suggestion, n, cohort), self._distributions)

    def _trained(
        self, cohort: int, mates: Sequence[TrialRecord], suggestions: Asked, records: Sequence[TrialRecord]
    ) -> dict[int, TrialRecord]:
        together = {t.number: t.suggestion for t in mates} | dict(suggestions)
        earlier = [t for t in records if t.cohort < cohort and t.state in FINISHED_STATES]
        events = self._trainer.train([together[n] for n in sorted(together)], cohort, earlier, None, mates)
        return {e.number: e for e in events if isinstance(e, TrialRecord)}

    def _is_proven(self, wrong: _Wrong, outcome: Mapping[int, TrialRecord]) -> bool:
        """Whether a trial has its stored checksum with what was trained now; then it is stored so."""
        again, row = outcome.get(wrong.number), wrong.row
        if again is None or row is None or row.sha256 is None or row.cohort is None:
            return False
        with writing(self._storage.engine) as connection:
            try:
                candidates = mending.as_recorded(connection, row, again)
            except NO_SENSE:
                return False
            return any(mending.write_exactly(connection, row, found, self._distributions) for found in candidates)

    def _comes_out_again(self, mates: Sequence[TrialRecord], outcome: Mapping[int, TrialRecord]) -> bool:
        """Whether what is trained now is what was recorded, as far as the trials beside the wrong ones tell."""
        if any(t.reason == CUT for t in mates):
            return False
        if any(t.number not in outcome or bits(t) != bits(outcome[t.number]) for t in mates):
            return False
        return bool(mates) or not changed(self._facts.environment, self._trainer.environment)


def _cohort_of(number: int, row: Trial | None, cohorts: Sequence[Cohort]) -> int | None:
    """The cohort that a trial was trained with: the one it names, else the one that was asked with its number.

    None for a number that nobody asked: that is what is wrong, and nothing is made of it.
    """
    asked = [c.id for c in inspection.claims(cohorts) if c.first <= number < c.first + c.n]
    if asked and row is not None and row.cohort is not None and row.cohort in {c.id for c in cohorts}:
        return row.cohort
    return asked[0] if asked else None


def _told(connection: Connection, row: Trial) -> Iterator[Suggestion]:
    """A trial's hyperparameters by our table, and by Optuna's where they are others."""
    try:
        chosen, searched = inspection.claimed(connection, row.id)
        ours = Suggestion(row.number, chosen, tuple(searched), inspection.notes(connection, row.id))
        yield ours
        theirs = inspection.optunas(connection, row.id)
    except NO_SENSE:
        return
    if theirs.keys() == searched.keys() and theirs != searched:
        yield replace(ours, hyperparameters=chosen | theirs)


def _readings(wrong: Sequence[_Wrong], asked: Asked) -> Iterator[dict[int, Suggestion]]:
    """What the wrong trials of a cohort may have been asked to be, the likeliest first; no reading twice."""
    seen: list[dict[int, Suggestion]] = []
    ours = {w.number: w.told[0] for w in wrong if w.told}
    theirs = {w.number: w.told[-1] for w in wrong if w.told}
    for likely in (ours | dict(asked), ours, theirs):
        if likely not in seen:
            seen.append(likely)
            yield likely


def _is_equal(left: Suggestion, right: Suggestion) -> bool:
    return (dict(left.hyperparameters), left.searched) == (dict(right.hyperparameters), right.searched)
