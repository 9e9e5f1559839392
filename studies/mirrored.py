"""One study as it stands at one tracking server: finds its experiment and runs, and writes what is missing.

Every call may be repeated after it failed: nothing is created without looking for it first wherever an earlier
request may have been carried out, and everything else is an upsert. For one thread.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from studies import runs
from studies.errors import TrackingError
from studies.mlflow_rest import Json, Refused, Rest, Unreachable, pairs
from studies.records import FINISHED_STATES, StudyFacts, TrialRecord, Winner

NOW = "dlcore.now."
"""Tags with the state of the running cohort; gone when the study is not running."""
MARK = "dlcore.mirrored"
"""Tag with the checksum of a run; written last, so that it says that all the rest is there."""
# MLflow takes 1,000 metrics, 100 params, 100 tags and 1 MB, and 1,000 of all together.
METRICS_PER_CALL = 800
TEXTS_PER_CALL = 50


@dataclass(slots=True)
class _Run:
    run_id: str
    is_deleted: bool
    status: str
    end_ms: int
    artifact_uri: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, tuple[float, int]]
    """Latest value and its step."""


class MirroredStudy:
    """The experiment, the parent run and the runs of the trials of one study."""

    def __init__(self, rest: Rest, facts: StudyFacts) -> None:
        """Find or make the experiment and the parent run, and learn which trials are there already."""
        self.rest, self.facts = rest, facts
        self._outcomes: dict[int, runs.Outcome] = {}
        self._trials: dict[int, _Run] = {}
        self._doubtful: set[int] = set()
        self._had_doubt = False
        self.experiment_id = self._experiment()
        self._parent = self._read()

    @property
    def parent_run_id(self) -> str:
        """Id of the study's run."""
        return self._parent.run_id

    def has(self, number: int) -> bool:
        """Whether the trial's run is there, and whole."""
        run = self._trials.get(number)
        return run is not None and MARK in run.tags and run.tags.get("mlflow.parentRunId") == self.parent_run_id

    def write_trial(self, record: TrialRecord) -> None:
        """Make the trial's run equal to its record."""
        if record.state not in FINISHED_STATES:
            raise Refused("NOT_FINISHED", f"trial {record.number} must be finished; it is {record.state}")
        wanted = runs.trial_run(self.facts, record)
        run = self._trials.get(record.number)
        if not (run and self.has(record.number) and run.tags[MARK] == wanted.checksum):
            self._set_running()
            if run is not None and run.tags.get(MARK, wanted.checksum) != wanted.checksum:
                self._delete(run)  # params can never change
                run = None
            self._fill(run or self._found_or_created(wanted), wanted)
        is_complete = wanted.status == "FINISHED"
        self._outcomes[record.number] = runs.Outcome(is_complete, record.values or (), wanted.end_ms)

    def write_best(self) -> None:
        """Add the points of the running best that the finished trials give."""
        latest = {name: step for name, (_, step) in self._parent.metrics.items()}
        points = runs.running_best(self.facts.objectives, self._outcomes)
        missing = [point for point in points if point.step > latest.get(point.key, 0)]
        self._log(self.parent_run_id, missing)
        self._parent.metrics |= {point.key: (point.value, point.step) for point in missing}

    def write_progress(self, progress: Mapping[str, float | str]) -> None:
        """Show the running cohort on the parent run."""
        self._set_running()
        tags = {runs.to_key(NOW + key): str(value)[: runs.TAG_LENGTH] for key, value in progress.items()}
        self._log(self.parent_run_id, tags=tags)
        self._parent.tags |= tags

    def write_winner(self, winner: Winner) -> None:
        """Show the winner on the parent run: its metrics on val and test, and which trial it is."""
        measured = {f"val_{name}": value for name, value in winner.val_metrics.items()}
        measured |= {f"test_{name}": value for name, value in winner.test_metrics.items()}
        at = self._end_ms()
        points = [runs.Metric(runs.to_key(name), value, at, 0) for name, value in measured.items()]
        tags = {
            "dlcore.winner": str(winner.number),
            "dlcore.winner_hyperparameters": json.dumps(dict(winner.hyperparameters))[: runs.TAG_LENGTH],
            "dlcore.winner_onnx_sha256": winner.onnx_sha256,
        }
        self._log(self.parent_run_id, [point for point in points if runs.is_finite(point)], tags=tags)

    def end(self, status: str) -> None:
        """Close the parent run; runs that a late request doubled are removed first."""
        if self._had_doubt:
            self._parent = self._read()
            self._had_doubt = False
        self.write_best()
        for key in [key for key in self._parent.tags if key.startswith(NOW)]:
            self._ignoring("RESOURCE_DOES_NOT_EXIST", "runs/delete-tag", run_id=self.parent_run_id, key=key)
            del self._parent.tags[key]
        self._post("runs/update", run_id=self.parent_run_id, status=status, end_time=self._end_ms())
        self._parent.status = status

    def _end_ms(self) -> int:
        """When the last trial ended, whatever the clock says now."""
        ends = [outcome.end_ms for outcome in self._outcomes.values()]
        return max(ends, default=runs.milliseconds(self.facts.created_at))

    def _set_running(self) -> None:
        if self._parent.status != "RUNNING":
            self._post("runs/update", run_id=self.parent_run_id, status="RUNNING")
            self._parent.status = "RUNNING"

    # --- finding ---

    def _experiment(self) -> str:
        """Id of the study's experiment; one of that name that is not ours is left alone."""
        for name in (self.facts.name, f"{self.facts.name}-{self.facts.uuid[:8]}"):
            for _ in range(2):  # the second time after somebody else made it
                try:
                    found = self.rest.call("GET", "experiments/get-by-name?experiment_name=" + name)["experiment"]
                except Refused as error:
                    if error.code != "RESOURCE_DOES_NOT_EXIST":
                        raise
                    tags = pairs({"dlcore.study": self.facts.uuid})
                    created = self._ignoring("RESOURCE_ALREADY_EXISTS", "experiments/create", name=name, tags=tags)
                    if created:
                        return str(created["experiment_id"])
                    continue
                if _texts(found.get("tags", [])).get("dlcore.study") != self.facts.uuid:
                    break
                if found["lifecycle_stage"] == "deleted":
                    self._post("experiments/restore", experiment_id=found["experiment_id"])
                return str(found["experiment_id"])
        raise TrackingError(
            f'MLflow must have room for an experiment "{self.facts.name}", and others have taken that name and '
            f'"{self.facts.name}-{self.facts.uuid[:8]}"; rename one of them at {self.rest.where}'
        )

    def _read(self) -> _Run:
        """Read all runs of the experiment, remove doubles, and return the parent run, up to date."""
        parents: list[_Run] = []
        trials: dict[int, list[_Run]] = {}
        for run in map(_parsed, self.rest.search_runs(self.experiment_id)):
            uuid, _, number = run.tags.get("dlcore.key", "").partition(":")
            if uuid == self.facts.uuid and number.isdecimal():
                trials.setdefault(int(number), []).append(run)
            elif run.tags.get("dlcore.study") == self.facts.uuid:
                parents.append(run)
        parent = self._only(parents) if parents else self._created_parent()
        self._trials = {number: self._only(found) for number, found in trials.items()}
        self._outcomes = {number: self._outcome(run) for number, run in self._trials.items() if MARK in run.tags}
        self._refresh(parent)
        return parent

    def _outcome(self, run: _Run) -> runs.Outcome:
        values = [run.metrics[goal.metric][0] for goal in self.facts.objectives if goal.metric in run.metrics]
        return runs.Outcome(run.status == "FINISHED", tuple(values), run.end_ms)

    def _only(self, found: Sequence[_Run]) -> _Run:
        """Keep the best of several runs for the same thing, and delete the others."""
        # The last two rules only make the choice the same for everyone.
        kept, *others = sorted(
            found, key=lambda run: (run.is_deleted, MARK not in run.tags, -len(run.tags), run.run_id)
        )
        for run in others:
            if not run.is_deleted:
                self._delete(run)
        if kept.is_deleted:
            self._post("runs/restore", run_id=kept.run_id)
            kept.is_deleted = False
        return kept

    def _delete(self, run: _Run) -> None:
        self._ignoring("INVALID_PARAMETER_VALUE", "runs/delete", run_id=run.run_id)  # deleted already

    # --- writing ---

    def _created_parent(self) -> _Run:
        tags = {"dlcore.study": self.facts.uuid}
        return self._create(self.facts.name, runs.milliseconds(self.facts.created_at), tags)

    def _refresh(self, parent: _Run) -> None:
        """Write what the parent run lacks of the spec and the tags."""
        params = {key: text for key, text in runs.study_params(self.facts).items() if key not in parent.params}
        tags = {key: text for key, text in runs.study_tags(self.facts).items() if parent.tags.get(key) != text}
        if params or tags:
            text = json.dumps(self.facts.spec, indent=2, default=str)
            self.rest.put_artifact(parent.artifact_uri, "spec.json", text.encode())
        self._log(parent.run_id, params=params, tags=tags)
        parent.params |= params
        parent.tags |= tags

    def _found_or_created(self, wanted: runs.TrialRun) -> _Run:
        if wanted.number in self._doubtful:
            found = [
                _parsed(run) for run in self.rest.search_runs(self.experiment_id, f"tags.`dlcore.key` = '{wanted.key}'")
            ]
            if found:
                self._doubtful.discard(wanted.number)
                return self._only(found)
        tags = {"mlflow.parentRunId": self.parent_run_id, "dlcore.key": wanted.key}
        self._doubtful.add(wanted.number)
        try:
            run = self._create(wanted.name, wanted.start_ms, tags)
        except Unreachable:
            self._had_doubt = True
            raise
        self._doubtful.discard(wanted.number)
        return run

    def _fill(self, run: _Run, wanted: runs.TrialRun) -> None:
        """Write the contents, then the end, then the mark that says that all is there."""
        self._trials[wanted.number] = run
        tags = {**wanted.tags, "mlflow.parentRunId": self.parent_run_id}
        self._log(run.run_id, wanted.metrics, wanted.params, tags)
        self._post("runs/update", run_id=run.run_id, status=wanted.status, end_time=wanted.end_ms)
        self._post("runs/set-tag", run_id=run.run_id, key=MARK, value=wanted.checksum)
        run.tags |= {**tags, MARK: wanted.checksum}

    def _create(self, name: str, start_ms: int, tags: Mapping[str, str]) -> _Run:
        body: Json = {"experiment_id": self.experiment_id, "run_name": name, "start_time": start_ms}
        # MLflow's own client says "unknown" here as well; the name of the account is nobody's business.
        return _parsed(self._post("runs/create", user_id="unknown", tags=pairs(tags), **body)["run"])

    def _log(
        self,
        run_id: str,
        metrics: Sequence[runs.Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        for points, texts, labels in itertools.zip_longest(
            _chunks([_point(metric) for metric in metrics], METRICS_PER_CALL),
            _chunks(pairs(params or {}), TEXTS_PER_CALL),
            _chunks(pairs(tags or {}), TEXTS_PER_CALL),
            fillvalue=(),
        ):
            self._post("runs/log-batch", run_id=run_id, metrics=points, params=texts, tags=labels)

    def _post(self, path: str, **body: object) -> Json:
        return self.rest.call("POST", path, body)

    def _ignoring(self, code: str, path: str, **body: object) -> Json:
        """Post; an empty reply where the server declines with this code, because it is so already."""
        try:
            return self._post(path, **body)
        except Refused as error:
            if error.code != code:
                raise
            return {}


def _point(metric: runs.Metric) -> Json:
    return {"key": metric.key, "value": metric.value, "timestamp": metric.timestamp, "step": metric.step}


def _chunks(items: Sequence[Json], size: int) -> Iterator[Sequence[Json]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _texts(found: Sequence[Json]) -> dict[str, str]:
    return {str(item["key"]): str(item.get("value", "")) for item in found}


def _parsed(run: Json) -> _Run:
    info, data = run["info"], run.get("data", {})
    latest = {m["key"]: (float(m["value"]), int(m.get("step", 0))) for m in data.get("metrics", [])}
    return _Run(
        run_id=info["run_id"],
        is_deleted=info.get("lifecycle_stage") == "deleted",
        status=info["status"],
        end_ms=int(info.get("end_time") or 0),
        artifact_uri=info.get("artifact_uri", ""),
        tags=_texts(data.get("tags", [])),
        params=_texts(data.get("params", [])),
        metrics=latest,
    )
