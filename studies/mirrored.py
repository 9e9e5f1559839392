"""One study as it stands in MLflow: finds its experiment and runs, and writes what is missing.

Every call may be repeated after it failed: nothing is created without looking for it first wherever an earlier
request may have been carried out, and everything else is an upsert. For one thread.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from studies import runs
from studies.comparison import MENDABLE, experiment_names, parent_differences, run_differences, trial_number
from studies.errors import TrackingError
from studies.records import FINISHED_STATES, StudyFacts, TrialRecord, Winner
from studies.runs import KEY, MARK, NOW, PARENT, STUDY, Metric, TrialRun
from studies.tracking_store import FoundRun, Refused, TrackingStore, Work, Written


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

    def __init__(self, store: TrackingStore, facts: StudyFacts, *, is_thorough: bool = False) -> None:
        """Find or make the experiment and the parent run, and learn which trials are there already.

        Args:
            store: Where they are kept.
            facts: The study.
            is_thorough: Believe no mark, and compare each run with its record.
        """
        self.store, self.facts, self._is_thorough = store, facts, is_thorough
        self._trials: dict[int, _Known] = {}
        self._strays: list[_Known] = []
        """Runs that are neither a trial's nor the study's."""
        self._best = runs.RunningBest(facts.objectives)
        self._best_points: list[Metric] = []
        self.experiment_id = self._experiment()
        self._parent = self._read()

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
        """Show the winner on the parent run: its metrics on val and test, and which trial it is."""
        measured = {f"val_{name}": value for name, value in winner.val_metrics.items()}
        measured |= {f"test_{name}": value for name, value in winner.test_metrics.items()}
        at = self._end_ms()
        points = [Metric(runs.to_key(name), value, at, 0) for name, value in measured.items()]
        tags = {
            "dlcore.winner": str(winner.number),
            "dlcore.winner_hyperparameters": json.dumps(dict(winner.hyperparameters))[: runs.TAG_LENGTH],
            "dlcore.winner_onnx_sha256": winner.onnx_sha256,
        }
        self.store.log(self.parent_run_id, [point for point in points if runs.is_finite(point)], tags=tags)

    def end(self, status: str, *, look_again: bool = False, only: Collection[int] | None = None) -> None:
        """Close the parent run.

        Args:
            status: Of the run.
            look_again: Read everything first, and so remove what late requests doubled.
            only: The trials that there are; runs of others are deleted. None deletes none.
        """
        if look_again:
            self._parent = self._read()
        if only is not None:
            strays = [run for run in self._strays if run.parent_id == self.parent_run_id]
            for run in [*strays, *(run for number, run in self._trials.items() if number not in only)]:
                self._discard(run.run_id)
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
        """Id of the study's experiment; one of that name that is not ours is left alone."""
        for name in experiment_names(self.facts):
            for _ in range(2):  # the second time after somebody else made it
                found = self.store.experiment(name)
                if found is None:
                    created = self.store.create_experiment(name, {STUDY: self.facts.uuid})
                    if created is not None:
                        return created
                elif found.tags.get(STUDY) != self.facts.uuid:
                    break
                else:
                    if found.is_deleted:
                        self.store.restore_experiment(found.experiment_id)
                    return found.experiment_id
        first, second = experiment_names(self.facts)
        raise TrackingError(
            f'MLflow must have room for an experiment "{first}", and others have taken that name and '
            f'"{second}"; rename one of them at {self.store.where}'
        )

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
                trials.setdefault(number, []).append(known)
            elif run.tags.get(STUDY) == self.facts.uuid:
                parents.append(known)
            elif not run.is_deleted:
                self._strays.append(known)
        parent = self._refreshed(self._only_parent(parents, trials))
        self._trials = {number: kept for number, found in trials.items() if (kept := self._only(found))}
        for number, known in self._trials.items():
            if known.is_marked and known.outcome and not self._is_thorough:
                self._best.add(number, known.outcome)
        return parent

    def _only_parent(self, found: list[_Known], trials: Mapping[int, list[_Known]]) -> FoundRun:
        """The study's run with the most children; others are deleted. It is made where there is none."""
        children = Counter(run.parent_id for runs_of_trial in trials.values() for run in runs_of_trial)
        kept = self._only(sorted(found, key=lambda run: (-children[run.run_id], run.run_id)))
        if kept is not None:
            (parent,) = self.store.runs(self.experiment_id, [kept.run_id])
            return parent
        at = runs.milliseconds(self.facts.created_at)
        return self.store.create_run(self.experiment_id, self.facts.name, at, {STUDY: self.facts.uuid})

    def _only(self, found: Sequence[_Known]) -> _Known | None:
        """Keep the best of several runs for the same thing, and delete the others; None if none can be kept."""
        # A trial's run that was deleted without its mark was given up: it differs from the record.
        usable = [run for run in found if not run.is_deleted or run.is_marked]
        usable.sort(key=lambda run: (run.is_deleted, not run.is_marked))
        for run in usable[1:]:
            if not run.is_deleted:
                self.store.delete_run(run.run_id)
        if not usable:
            return None
        kept = usable[0]
        if kept.is_deleted:
            self.store.restore_run(kept.run_id)
        return kept

    # --- writing ---

    def _planned(self, wanted: Sequence[TrialRun]) -> dict[int, Work]:
        """What has to be written, by number of the trial; a run that cannot be mended is given up."""
        work = {run.number: Work(run, None) for run in wanted}
        known = {run.number: self._trials[run.number].run_id for run in wanted if run.number in self._trials}
        found = {run.run_id: run for run in self.store.runs(self.experiment_id, list(known.values()))} if known else {}
        keys = {key for run in found.values() for key in run.latest}
        points = self.store.points(list(found), keys) if found else {}
        for number, run_id in known.items():
            run, should = found.get(run_id), work[number].wanted
            if run is None or run.is_deleted:
                continue
            kinds = {difference.kind for difference in run_differences(should, run, points.get(run_id, set()))}
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
