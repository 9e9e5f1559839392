"""One study as it stands in MLflow: finds its experiment and runs, and writes what is missing.

Every call may be repeated after it failed: nothing is created without looking for it first wherever an earlier
request may have been carried out, and everything else is an upsert. For one thread.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from studies import runs, view
from studies.comparison import (
    AT_ONCE,
    MENDABLE,
    experiment_names,
    own_experiments,
    parent_differences,
    run_differences,
    trial_number,
)
from studies.errors import TrackingError
from studies.finals import shown_metrics, shown_tags
from studies.records import FINISHED_STATES, StudyFacts, TrialRecord, Winner
from studies.runs import KEY, MARK, NOTE, NOW, PARENT, SIGN, STORY, STUDY, Metric, TrialRun
from studies.tracking_store import FoundRun, Refused, TrackingStore, Work, Written

_SETTLED_AT_ONCE = 25
"""Trials with several runs that are looked at together, with their records."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of a run: little, since a study may have a hundred thousand."""

    run_id: str
    is_deleted: bool = False
    parent_id: str | None = None
    is_marked: bool = True
    """Whether it is ended and says that all is there."""
    outcome: runs.Outcome | None = None


class MirroredStudy:
    """The experiment, the parent run and the runs of the trials of one study."""

    def __init__(
        self,
        store: TrackingStore,
        facts: StudyFacts,
        read: Callable[[Sequence[int]], Iterable[TrialRecord]],
        *,
        is_thorough: bool = False,
    ) -> None:
        """Find or make the experiment and the parent run, and learn which trials are there already.

        Args:
            store: Where they are kept.
            facts: The study.
            read: Gives the records of trials, with curves, by which one of several runs is chosen.
            is_thorough: Believe no mark, and compare each run with its record.
        """
        self.store, self.facts, self._read_records, self._is_thorough = store, facts, read, is_thorough
        self._trials: dict[int, _Known] = {}
        self._strays: list[_Known] = []
        """Runs that are neither a trial's nor the study's."""
        self._best = runs.RunningBest(facts.objectives)
        self._best_points: list[Metric] = []
        self._report: Mapping[str, bytes] = {}
        self.experiment_id = self._experiment()
        self._parent = self._read()
        self._dress()

    @property
    def parent_run_id(self) -> str:
        """Id of the study's run."""
        return self._parent.run_id

    def has(self, number: int) -> bool:
        """Whether the trial's run is there and whole, as far as its mark says."""
        known = self._trials.get(number)
        return known is not None and known.is_marked and known.parent_id == self.parent_run_id

    def write_trials(self, records: Sequence[TrialRecord]) -> Iterator[list[Written]]:
        """Make the runs of at most 100 trials equal to their records; yields them as soon as they are there to stay."""
        wanted = []
        for record in records:
            if record.state in FINISHED_STATES:
                run = runs.trial_run(self.facts, record)
                self._best.add(record.number, runs.outcome(record, run.end_ms))
                wanted.append(run)
            else:
                text = f"trial {record.number} must be finished; it is {record.state}"
                yield [Written(record.number, None, Refused("NOT_FINISHED", text))]
        work = self._planned(wanted)
        if whole := [run.number for run in wanted if run.number not in work]:
            yield [self._noted(Written(number, self._trials[number].run_id)) for number in whole]
        if work:
            self._set_running()
            for written in self.store.write_trials(self.experiment_id, self.parent_run_id, list(work.values())):
                yield [self._noted(one) for one in written]

    def write_best(self) -> None:
        """Add the points of the running best that the finished trials give."""
        points = list(self._best.points())
        known = {key: point.step for key, point in self._parent.latest.items()}
        missing = [point for point in points if point.step > known.get(point.key, 0)]
        if missing:
            self.store.log(self.parent_run_id, missing)
        self._parent.latest |= runs.latest(missing)
        if self._is_thorough:
            self._best_points += points

    def write_progress(self, progress: Mapping[str, float | str]) -> None:
        """Show the running cohort on the parent run."""
        self._set_running()
        tags = {runs.to_key(NOW + key): str(value)[: runs.TAG_LENGTH] for key, value in progress.items()}
        self.store.log(self.parent_run_id, tags=tags)
        self._parent.tags |= tags

    def write_winner(self, winner: Winner) -> None:
        """Show the winner on the parent run: which trial it is, what it reached, and what its rivals did."""
        shown = {runs.to_key(name): value for name, value in shown_metrics(winner, self.facts.objectives).items()}
        points = [point for key, value in shown.items() if runs.is_finite(point := self._only_point(key, value))]
        tags = {key: text[: runs.TAG_LENGTH] for key, text in shown_tags(winner, self.facts.objectives[0]).items()}
        self.store.log(self.parent_run_id, points, tags=tags)
        self._parent.latest |= runs.latest(points)

    def _only_point(self, key: str, value: float) -> Metric:
        """A number of the study's run that is no curve, such that tables show it whatever was written before.

        Of step 0, of which MLflow draws a bar, unless an earlier version wrote a later one.
        """
        at, known = self._end_ms(), self._parent.latest.get(key)
        if known is None:
            return Metric(key, value, at, 0)
        return Metric(key, value, known.timestamp if known.value == value else max(at, known.timestamp + 1), known.step)

    def write_report(self, files: Mapping[str, bytes]) -> None:
        """Store the study's report with its run, and its story as the run's description, unless somebody wrote one."""
        for name, content in files.items():
            if name != STORY:
                self.store.put_artifact(self._parent, name, content)
        self._report = dict(files)
        told, known = files.get(STORY, b"").decode()[: runs.TAG_LENGTH], self._parent.tags.get(NOTE, "")
        if told and told != known and (not known or known.endswith(SIGN)):
            self.store.log(self.parent_run_id, tags={NOTE: told})
            self._parent.tags[NOTE] = told

    def look_again(self) -> None:
        """Read everything anew, and so remove what late requests doubled."""
        self._parent = self._read()
        self._dress()

    def end(self, status: str, *, only: Collection[int] | None = None) -> None:
        """Close the parent run.

        Args:
            status: Of the run.
            only: The trials that there are; runs of others are deleted, and other experiments that say they are the
                study's. None deletes none.
        """
        if only is not None:
            strays = [run for run in self._strays if run.parent_id == self.parent_run_id]
            for run in [*strays, *(run for number, run in self._trials.items() if number not in only)]:
                self._discard(run.run_id)
            for other in own_experiments(self.store, self.facts):
                if other.experiment_id != self.experiment_id and not other.is_deleted:
                    self.store.delete_experiment(other.experiment_id)
        self.write_best()
        if self._is_thorough:
            self._mend_parent()
        for key in [key for key in self._parent.tags if key.startswith(NOW)]:
            self.store.delete_tag(self.parent_run_id, key)
            del self._parent.tags[key]
        self.store.update(self.parent_run_id, status, self._end_ms())
        self._parent.status = status

    def _end_ms(self) -> int:
        """When the last trial ended, whatever the clock says now."""
        return self._best.end_ms or runs.milliseconds(self.facts.created_at)

    def _set_running(self) -> None:
        if self._parent.status != "RUNNING":
            self.store.update(self.parent_run_id, "RUNNING")
            self._parent.status = "RUNNING"

    # --- finding ---

    def _experiment(self) -> str:
        """Id of the study's experiment, whatever its name is now; one of that name that is not ours is left alone."""
        for name in (None, *experiment_names(self.facts)):
            if name is not None:
                created = self.store.create_experiment(name, {STUDY: self.facts.uuid})
                if created is not None:
                    return created
            # Also after a name was taken: another mirror of the study may have been faster.
            for found in own_experiments(self.store, self.facts):
                if found.is_deleted:
                    self.store.restore_experiment(found.experiment_id)
                return found.experiment_id
        first, second = experiment_names(self.facts)
        raise TrackingError(
            f'MLflow must have room for an experiment "{first}", and others have taken that name and '
            f'"{second}"; rename one of them at {self.store.where}'
        )

    def _dress(self) -> None:
        """Let MLflow show the experiment as a training, and its table with columns; see `view`."""
        wanted = view.experiment_tags(self.facts, self.parent_run_id)
        tags = next(e.tags for e in own_experiments(self.store, self.facts) if e.experiment_id == self.experiment_id)
        if missing := {key: text for key, text in wanted.items() if tags.get(key) != text}:
            self.store.tag_experiment(self.experiment_id, missing)

    def _read(self) -> FoundRun:
        """Read all runs of the experiment, remove doubles, and return the parent run, up to date."""
        values = [runs.value_key(objective.metric) for objective in self.facts.objectives]
        parents: list[_Known] = []
        trials: dict[int, list[_Known]] = {}
        self._strays = []
        for run in self.store.runs(self.experiment_id, needed={KEY, MARK, PARENT, STUDY, *values}):
            is_ended = run.status in runs.STATUS.values()
            found = [run.latest[key].value for key in values if key in run.latest]
            outcome = runs.Outcome(run.status == "FINISHED", tuple(found), run.end_ms)
            is_marked = is_ended and MARK in run.tags
            known = _Known(run.run_id, run.is_deleted, run.tags.get(PARENT), is_marked, outcome)
            number = trial_number(self.facts, run)
            if number is not None:
                _add(trials.setdefault(number, []), known)
            elif run.tags.get(STUDY) == self.facts.uuid:
                _add(parents, known)
            elif not run.is_deleted:
                self._strays.append(known)
        parent = self._refreshed(self._only_parent(parents, trials))
        usable = {number: kept for number, found_runs in trials.items() if (kept := _usable(found_runs))}
        several = {number: found_runs for number, found_runs in usable.items() if len(found_runs) > 1}
        self._trials = {number: found_runs[0] for number, found_runs in usable.items()} | self._settled(
            several, parent.run_id
        )
        for number, known in self._trials.items():
            if known.is_deleted:
                self.store.restore_run(known.run_id)
            if known.is_marked and known.outcome and not self._is_thorough:
                self._best.add(number, known.outcome)
        return parent

    def _only_parent(self, found: list[_Known], trials: Mapping[int, list[_Known]]) -> FoundRun:
        """The study's run with the most children; others are deleted. It is made where there is none."""
        children = Counter(run.parent_id for runs_of_trial in trials.values() for run in runs_of_trial)
        living = sorted(
            (run for run in found if not run.is_deleted), key=lambda run: (-children[run.run_id], run.run_id)
        )
        for run in living[1:]:
            self.store.delete_run(run.run_id)
        if living:
            (parent,) = self.store.runs(self.experiment_id, [living[0].run_id])
            return parent
        at = runs.milliseconds(self.facts.created_at)
        return self.store.create_run(self.experiment_id, self.facts.name, at, {STUDY: self.facts.uuid})

    def _settled(self, several: Mapping[int, Sequence[_Known]], parent_id: str) -> dict[int, _Known]:
        """Of several runs of a trial the one that shows its record best; the others are deleted for good.

        Their marks are not believed: who copies a run copies its mark, and may leave out its points.
        """
        kept: dict[int, _Known] = {}
        numbers = sorted(several)
        for start in range(0, len(numbers), _SETTLED_AT_ONCE):
            some = numbers[start : start + _SETTLED_AT_ONCE]
            records = {record.number: record for record in self._read_records(some)}
            whole = self._whole([run.run_id for number in some for run in several[number]])
            for number in some:
                record = records.get(number)
                is_finished = record is not None and record.state in FINISHED_STATES
                wanted = runs.trial_run(self.facts, record) if record is not None and is_finished else None
                ranked = sorted(_ranked(run, wanted, parent_id, whole) for run in several[number])
                by_id = {run.run_id: run for run in several[number]}
                best = by_id[ranked[0][-1]]
                kept[number] = replace(best, is_marked=best.is_marked and not ranked[0][1])
                for run in by_id.values():
                    if run is not best and not run.is_deleted:
                        self._discard(run.run_id)
        return kept

    def _whole(self, run_ids: Sequence[str]) -> dict[str, tuple[FoundRun, set[Metric]]]:
        """Runs with the whole history of their metrics."""
        found: dict[str, tuple[FoundRun, set[Metric]]] = {}
        for start in range(0, len(run_ids), AT_ONCE):
            some = list(self.store.runs(self.experiment_id, run_ids[start : start + AT_ONCE]))
            points = self.store.points([run.run_id for run in some], {key for run in some for key in run.latest})
            found |= {run.run_id: (run, points.get(run.run_id, set())) for run in some}
        return found

    # --- writing ---

    def _planned(self, wanted: Sequence[TrialRun]) -> dict[int, Work]:
        """What has to be written, by number of the trial; a run that cannot be mended is given up."""
        work = {run.number: Work(run, None) for run in wanted}
        known = {run.number: self._trials[run.number].run_id for run in wanted if run.number in self._trials}
        whole = self._whole(list(known.values()))
        for number, run_id in known.items():
            if run_id not in whole or whole[run_id][0].is_deleted:
                continue
            (run, points), should = whole[run_id], work[number].wanted
            kinds = {difference.kind for difference in run_differences(should, run, points)}
            if kinds <= MENDABLE:
                work[number] = Work(should, run_id)
                if not kinds and run.tags.get(PARENT) == self.parent_run_id:
                    del work[number]
            else:
                self._discard(run_id)
                notes = {key: text for key, text in run.tags.items() if not key.startswith("dlcore.")}
                work[number] = Work(should, None, notes)
        return work

    def _noted(self, written: Written) -> Written:
        if written.run_id is not None:
            self._trials[written.number] = _Known(written.run_id, parent_id=self.parent_run_id)
        return written

    def _discard(self, run_id: str) -> None:
        """Delete a run that must never come back: without its marks nobody restores it."""
        for key in (MARK, STUDY):
            self.store.delete_tag(run_id, key)
        self.store.delete_run(run_id)

    def _refreshed(self, parent: FoundRun) -> FoundRun:
        """Write what the parent run lacks of the spec and the tags."""
        params = {key: text for key, text in runs.study_params(self.facts).items() if key not in parent.params}
        tags = {key: text for key, text in runs.study_tags(self.facts).items() if parent.tags.get(key) != text}
        if params or tags:
            text = json.dumps(self.facts.spec, indent=2, default=str)
            self.store.put_artifact(parent, "spec.json", text.encode())
            self.store.log(parent.run_id, params=params, tags=tags)
        parent.params |= params
        parent.tags |= tags
        return parent

    def _mend_parent(self) -> None:
        """Make the study's run what it should be; it is replaced where MLflow takes nothing back."""
        (run,) = self.store.runs(self.experiment_id, [self.parent_run_id])
        points = self.store.points([run.run_id], run.latest).get(run.run_id, set())
        wanted = set(self._best_points)
        kinds = {found.kind for found in parent_differences(self.facts, run, points, wanted)}
        if kinds <= MENDABLE | {"extra tag"}:
            if missing := sorted(wanted - points):
                self.store.log(run.run_id, missing)
            return
        own = {point.key for point in wanted}
        others = [point for point in points if point.key not in own and runs.is_finite(point)]
        tags = {key: text for key, text in run.tags.items() if key != "mlflow.runName"}
        new = self.store.create_run(self.experiment_id, self.facts.name, run.start_ms, tags)
        new = self._refreshed(new)
        text = json.dumps(self.facts.spec, indent=2, default=str)
        self.store.put_artifact(new, "spec.json", text.encode())
        self.store.log(new.run_id, sorted(wanted) + others)
        for number, known in self._trials.items():
            self.store.log(known.run_id, tags={PARENT: new.run_id})
            self._trials[number] = _Known(known.run_id, parent_id=new.run_id)
        self._discard(run.run_id)
        self._parent = new
        self._dress()
        self.write_report(self._report)


def _add(known: list[_Known], run: _Known) -> None:
    """Add a run, once: while others write, a server's next page may begin with what the last one ended with."""
    if all(run.run_id != other.run_id for other in known):
        known.append(run)


def _usable(found: Sequence[_Known]) -> list[_Known]:
    """Those of a trial's runs that may be the one that is kept."""
    living = [run for run in found if not run.is_deleted]
    # A run that was deleted without its mark was given up: it differs from the record.
    return living or [run for run in found if run.is_marked]


def _ranked(
    known: _Known, wanted: TrialRun | None, parent_id: str, whole: Mapping[str, tuple[FoundRun, set[Metric]]]
) -> tuple[bool, int, bool, int, str]:
    """What a run is sorted by among others of its trial, the best first; its id is the last.

    The second is the number of differences to the record. Of runs that are alike, one that is the study's child and
    has tags of people is kept.
    """
    if wanted is None or known.run_id not in whole:
        return known.run_id not in whole, 1, known.parent_id != parent_id, 0, known.run_id
    run, points = whole[known.run_id]
    kinds = [difference.kind for difference in run_differences(wanted, run, points)]
    return not set(kinds) <= MENDABLE, len(kinds), known.parent_id != parent_id, -len(run.tags), known.run_id
