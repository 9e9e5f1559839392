"""Does MLflow show what the study database holds? Every difference, run by run.

What MLflow shows besides is nobody's business here: runs of other people, and tags without our prefix.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from studies import runs
from studies.records import FINISHED_STATES, StudyFacts, TrialRecord
from studies.runs import KEY, NOW, PARENT, STUDY, Metric, TrialRun
from studies.tracking_store import Experiment, FoundRun, TrackingStore

AT_ONCE = 100
"""Runs that are compared at a time, with their curves."""
MENDABLE = frozenset({"missing param", "missing tag", "wrong tag", "missing points", "wrong state"})
"""What writing a run again mends; for anything else it is replaced, since MLflow takes back no param and no point."""
_OURS = ("dlcore.", "mlflow.parentRunId")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that MLflow shows differently, or not at all."""

    kind: str
    """"missing ...", "doubled ...", "orphan run", "wrong ..." or "extra ..."."""
    number: int | None
    """Of the trial; None is the study's own run, or its experiment."""
    text: str
    """What should be and what is, for people."""
    run_id: str | None = None

    def __str__(self) -> str:
        """One line."""
        whose = "the study" if self.number is None else f"trial {self.number}"
        return f"{whose}: {self.kind}: {self.text}" if self.text else f"{whose}: {self.kind}"


def compare(
    store: TrackingStore,
    facts: StudyFacts,
    numbers: Sequence[int],
    read: Callable[[Sequence[int]], Iterable[TrialRecord]],
) -> list[Difference]:
    """Hold what MLflow shows of a study against the study database; nothing is changed.

    Args:
        store: Where the study is mirrored.
        facts: The study.
        numbers: Of its finished trials.
        read: Gives their records, with curves, at most 100 at a time.

    Returns:
        The differences in order of trials, those of the study as a whole first; none if all is equal.

    Raises:
        TrackingError: MLflow cannot be read.
    """
    found = own_experiments(store, facts)
    living = [experiment.experiment_id for experiment in found if not experiment.is_deleted]
    if not living:
        return [Difference("missing experiment", None, "it is deleted" if found else "there is none")]
    doubled = [Difference("doubled experiment", None, ", ".join(living))] if len(living) > 1 else []
    return [*doubled, *_Comparison(store, facts, living[0], numbers, read).differences()]


def own_experiment(store: TrackingStore, facts: StudyFacts) -> Experiment | None:
    """The experiment of a study, deleted or not, whatever people call it."""
    return next(iter(own_experiments(store, facts)), None)


def own_experiments(store: TrackingStore, facts: StudyFacts) -> list[Experiment]:
    """All experiments that say they are a study's, its own first: the oldest of those that are not deleted."""
    found = store.experiments(STUDY, facts.uuid)
    return sorted(found, key=lambda experiment: (experiment.is_deleted, int(experiment.experiment_id)))


def experiment_names(facts: StudyFacts) -> tuple[str, str]:
    """Names of a study's experiment: the second where others have taken the first."""
    return facts.name, f"{facts.name}-{facts.uuid[:8]}"


def trial_number(facts: StudyFacts, run: FoundRun) -> int | None:
    """Number of the trial that a run belongs to; None if it is no trial's."""
    uuid, _, number = run.tags.get(KEY, "").partition(":")
    return int(number) if uuid == facts.uuid and number.isdecimal() else None


class _Comparison:
    """One pass over the runs of an experiment, a page at a time."""

    def __init__(
        self,
        store: TrackingStore,
        facts: StudyFacts,
        experiment_id: str,
        numbers: Sequence[int],
        read: Callable[[Sequence[int]], Iterable[TrialRecord]],
    ) -> None:
        self._store, self._facts, self._read = store, facts, read
        self._experiment_id, self._numbers = experiment_id, set(numbers)
        self._best = runs.RunningBest(facts.objectives)
        self._seen: dict[int, list[str]] = defaultdict(list)
        self._parents: list[FoundRun] = []
        self._claimed: list[tuple[int | None, str, str | None]] = []
        """Trial, run and the run that it says it belongs to."""
        self._found: list[Difference] = []

    def differences(self) -> Iterator[Difference]:
        page: list[FoundRun] = []
        for run in self._store.runs(self._experiment_id):
            if run.is_deleted:
                continue
            number = trial_number(self._facts, run)
            if number is not None:
                # While others write, a server's next page may begin with what the last one ended with.
                if run.run_id not in self._seen[number] and all(run.run_id != other.run_id for other in page):
                    page.append(run)
            elif run.tags.get(STUDY) == self._facts.uuid:
                if all(run.run_id != other.run_id for other in self._parents):
                    self._parents.append(run)
            else:
                self._claimed.append((None, run.run_id, run.tags.get(PARENT)))
            if len(page) == AT_ONCE:
                self._compare_page(page)
                page = []
        self._compare_page(page)
        self._count()
        yield from sorted(self._parent(), key=lambda difference: difference.kind)
        yield from sorted(self._found, key=lambda found: (found.number is None, found.number, found.kind, found.text))

    def _compare_page(self, page: Sequence[FoundRun]) -> None:
        """Compare the runs of trials with their records."""
        found = [(number, run) for run in page if (number := trial_number(self._facts, run)) is not None]
        records = self._records([number for number, _ in found if number in self._numbers])
        points = self._store.points([run.run_id for _, run in found], {key for _, run in found for key in run.latest})
        for number, run in found:
            self._seen[number].append(run.run_id)
            if number not in records:
                self._found.append(Difference("orphan run", number, "no finished trial has that number", run.run_id))
                continue
            self._claimed.append((number, run.run_id, run.tags.get(PARENT)))
            self._found += run_differences(records[number], run, points.get(run.run_id, set()))

    def _records(self, numbers: Sequence[int]) -> dict[int, TrialRun]:
        """What MLflow should show of some trials; their outcomes count for the running best."""
        wanted = {}
        for record in self._read(numbers) if numbers else ():
            if record.state in FINISHED_STATES:
                wanted[record.number] = runs.trial_run(self._facts, record)
                self._best.add(record.number, runs.outcome(record, wanted[record.number].end_ms))
        return wanted

    def _count(self) -> None:
        """Find trials without a run, and with several."""
        missing = sorted(self._numbers - self._seen.keys())
        self._found += [Difference("missing run", number, "") for number in missing]
        for start in range(0, len(missing), AT_ONCE):
            self._records(missing[start : start + AT_ONCE])
        for number, run_ids in self._seen.items():
            if len(run_ids) > 1:
                self._found.append(Difference("doubled run", number, ", ".join(sorted(run_ids))))

    def _parent(self) -> Iterator[Difference]:
        """Compare the study's own run, and whose children the others are."""
        if not self._parents:
            yield Difference("missing run", None, "the study has no run of its own")
        if len(self._parents) > 1:
            ids = sorted(run.run_id for run in self._parents)
            yield Difference("doubled run", None, ", ".join(ids))
        best = set(self._best.points())
        for parent in self._parents:
            points = self._store.points([parent.run_id], parent.latest).get(parent.run_id, set())
            yield from parent_differences(self._facts, parent, points, best)
        own = {run.run_id for run in self._parents}
        for number, run_id, claimed in self._claimed:
            if number is not None and claimed not in own:
                text = f"{PARENT} must name the study's run; it is {claimed}"
                self._found.append(Difference("wrong tag", number, text, run_id))
            elif number is None and claimed in own:
                self._found.append(Difference("orphan run", None, f"run {run_id} is of no trial", run_id))


def run_differences(wanted: TrialRun, run: FoundRun, points: set[Metric]) -> Iterator[Difference]:
    """Hold one run against what it should show, but for the run that it belongs to.

    Args:
        wanted: What it should show.
        run: What it shows.
        points: The whole history of its metrics.
    """

    def differs(kind: str, text: str) -> Difference:
        return Difference(kind, wanted.number, text, run.run_id)

    if (run.status, run.end_ms) != (wanted.status, wanted.end_ms):
        yield differs("wrong state", f"{wanted.status} at {wanted.end_ms}; it is {run.status} at {run.end_ms}")
    if (run.name, run.start_ms) != (wanted.name, wanted.start_ms):
        yield differs("wrong run", f"{wanted.name} began at {wanted.start_ms}; it is {run.name} at {run.start_ms}")
    tags = {key: text for key, text in run.tags.items() if key.startswith(_OURS) and key != PARENT}
    expected = {key: text for key, text in wanted.all_tags("").items() if key != PARENT}
    for kind, text in [*_texts("param", wanted.params, run.params), *_texts("tag", expected, tags)]:
        yield differs(kind, text)
    for kind, text in _points(set(wanted.metrics), points, run.latest):
        yield differs(kind, text)


def parent_differences(
    facts: StudyFacts, run: FoundRun, points: set[Metric], best: set[Metric]
) -> Iterator[Difference]:
    """Hold a study's own run against what it should show; what the winner adds to it is left out.

    Args:
        facts: The study.
        run: What it shows.
        points: The whole history of its metrics.
        best: The running best of its trials.
    """
    own = {runs.value_key(objective.metric) for objective in facts.objectives}
    tags = runs.study_tags(facts)
    shown = {key: text for key, text in run.tags.items() if key in tags}
    found = [*_texts("param", runs.study_params(facts), run.params), *_texts("tag", tags, shown)]
    if run.status != "RUNNING":
        found += [("extra tag", key) for key in run.tags if key.startswith(NOW)]
    latest = {key: point for key, point in run.latest.items() if key in own}
    found += _points(best, {point for point in points if point.key in own}, latest)
    if run.name != facts.name:
        found.append(("wrong run", f"its name must be {facts.name}; it is {run.name}"))
    for kind, text in found:
        yield Difference(kind, None, text, run.run_id)


def _texts(what: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key in wanted.keys() | found.keys():
        if key not in found:
            yield f"missing {what}", key
        elif key not in wanted:
            yield f"extra {what}", key
        elif wanted[key] != found[key]:
            yield f"wrong {what}", f"{key} must be {wanted[key][:60]!r}; it is {found[key][:60]!r}"


def _points(wanted: set[Metric], found: set[Metric], latest: Mapping[str, Metric]) -> Iterator[tuple[str, str]]:
    if wanted != found:
        for kind, points in (("missing points", wanted - found), ("extra points", found - wanted)):
            steps = defaultdict(list)
            for point in points:
                steps[point.key].append(point.step)
            yield from ((kind, f"{key} at {', '.join(map(str, sorted(at)))}") for key, at in steps.items())
    expected = runs.latest(found)
    if expected != latest:
        differing = [key for key in expected.keys() | latest.keys() if expected.get(key) != latest.get(key)]
        yield "wrong latest", f"the table must show the last points of {', '.join(sorted(differing))}"
