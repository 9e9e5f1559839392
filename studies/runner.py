"""A study from its spec to its export: the seven steps, in order.

1 spec, 2 data, 3 ask, 4 train, 5 record, 6 mirror, 7 export. Steps 3 to 6 repeat until the budget is spent. The mirror
works in a thread of its own: nobody waits for the tracking server until everything else is done.
"""

import contextlib
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dlcore.data import DataSplits, load_splits
from dlcore.tasks import curve_metric
from studies import best, contest, exports, mirroring
from studies.closing import Backlog, Closing, calibrate
from studies.cohort import Trainer
from studies.crew import Crew
from studies.display import Display
from studies.errors import StudiesError, UserError
from studies.home import Home, drive, writing_export
from studies.ledger import Ledger
from studies.preview import column_table
from studies.provenance import git_commit, moved
from studies.recipe import prove
from studies.records import FINISHED_STATES, EpochDone, EpochRecord, Objective, StudyFacts, TrialRecord, Winner
from studies.search import Search
from studies.space import check_smallest, most_trials
from studies.spec import StudySpec, cohort_size, resolved_objectives
from studies.spec_changes import refuse_changes
from studies.tally import Prospect, Tally, minutes
from studies.tracking import Mirror
from studies.transfer import fitted, kinds_of, open_source, resolved, source_line
from studies.watcher import MirroringWatcher
from studies.work import train_all

_FREE_BYTES = 100 * 2**20
"""Room that the home's disk must have before a study starts: its databases, artifacts and export."""
_TIME_IS_UP = "the time is up; trials that it cut are PRUNED, and the same command goes on when it is granted more"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run leaves behind, for the summary."""

    facts: StudyFacts
    trials: tuple[TrialRecord, ...]
    """All trials of the study, without curves."""
    n_new: int
    """Trials that this run finished."""
    seconds: float
    export: best.Export
    ended: str
    """Why no more trials were trained."""
    page: str | None
    """Address of the study's page in MLflow; None where no server answered."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How a study is run that was not begun at the command line."""

    splits: DataSplits | None = None
    """Its data, where the spec does not say where they lie."""
    is_mirrored: bool = True
    """Whether MLflow shows it meanwhile; `studies track` does so afterwards."""
    is_kept: bool = True
    """Whether anything of it outlives this process."""


DEFAULT_WAYS = Ways()


class Run:
    """One study, driven by this process."""

    def __init__(
        self,
        spec: StudySpec,
        home: Home,
        storage: Ledger,
        display: Display,
        *,
        n_workers: int = 1,
        ways: Ways = DEFAULT_WAYS,
    ) -> None:
        """Load the data and check all that can fail early; nothing is written yet.

        Args:
            spec: What is searched.
            home: Where everything lies.
            storage: Holds the study, or will.
            display: Is told what happens.
            n_workers: Processes that train; with several of them this one trains nothing itself but the winner.
            ways: Of a study that was not begun at the command line.

        Raises:
            DlcoreError: The data cannot be read, or the device is not there.
            UserError: The spec differs from the stored one, its metric does not fit the task, the disk is full.
        """
        self.home, self.storage, self.display, self.n_workers, self.ways = home, storage, display, n_workers, ways
        if (free := shutil.disk_usage(home.root).free) < _FREE_BYTES:
            raise UserError(f"{home.root} must have {_FREE_BYTES // 2**20} MB free; it has {free // 2**20} MB")
        stored = storage.facts(spec.study)
        source = open_source(spec)
        self.spec = spec = resolved(spec, source)
        if stored is not None:
            refuse_changes(stored, spec)
        splits = ways.splits or load_splits(spec.data_config(), spec.seed, kinds_of(source))
        self.splits, self.transfer = fitted(splits, source)
        objectives = resolved_objectives(spec, self.splits.task)
        self.trainer = Trainer(spec, objectives, self.splits, self.transfer)
        check_smallest(spec, self.trainer.count_parameters)
        self.trainer.check_objectives()
        self.facts = stored or self._new_facts(objectives)
        if self.facts.data_fingerprint != self.splits.fingerprint:
            raise UserError(
                f'the data of study "{spec.study}" changed since it began ({self.splits.name}); '
                "put the old file back, or give the spec another name"
            )
        self._granted_until: float | None = None
        """When the seconds that the spec grants are over, as `time.monotonic()`; None where it grants none."""
        self._tally: Tally | None = None
        """Of the search that this run made."""
        self._mirror: Mirror | None = None
        """Of this run; None where another driver of the study mirrors it, or nobody."""
        self.is_new = stored is None
        """Whether the home had no study of this name."""

    @property
    def spent_s(self) -> float:
        """Seconds of training that earlier runs of the study took."""
        return 0.0 if self.storage.facts(self.facts.name) is None else self.storage.spent_s(self.facts.name)

    def plan(self) -> str:
        """What is about to happen, in a few lines."""
        spec, splits = self.spec, self.splits
        budget = [f"{spec.budget.trials} trials"] if spec.budget.trials is not None else []
        budget += [f"{spec.budget.seconds:g} s"] if spec.budget.seconds is not None else []
        rungs = self.trainer.rungs
        stops = f", rungs at {', '.join(map(str, rungs))}" if rungs else ""
        rows = ", ".join(f"{name} {len(getattr(splits, name).x):,}" for name in ("train", "val", "test"))
        lines = [
            f"study   {spec.study}: {' or '.join(budget)}, {spec.search.sampler} in cohorts of "
            f"{self.facts.cohort_size}, {spec.training.epochs} epochs{stops}",
            f"data    {splits.name}: {splits.task}, {splits.n_features} features, rows {rows}",
            f"device  {self.trainer.device_name}{self._precision()}",
            f"home    {self.home.root}",
        ]
        columns = [f"        {line}" for line in column_table(splits.findings)]
        columns += [] if self.transfer is None else [f"source  {source_line(self.transfer)}"]
        return "\n".join([*lines[:2], *columns, *lines[2:], *(f"note    {note}" for note in splits.notes)])

    def _precision(self) -> str:
        """What the plan says of it; nothing where it is the default."""
        precision = self.spec.training.precision
        if precision == "fp32":
            return ""
        return f", products in {precision}" + (" (slower than fp32 here)" if self.trainer.device.type == "cpu" else "")

    def execute(self, deadline: float | None) -> Outcome:
        """Search until the budget is spent, then export the winner and wait for the mirror.

        Args:
            deadline: `time.monotonic()` at which no training goes on; None is no limit.
        """
        started = time.monotonic()
        with drive(self.home, self.facts.name):
            self._place(None)
            if self.is_new:
                prove(self.spec, self.trainer, self.facts.cohort_size, self.display.note)
                self._create()
            else:
                self._store_spec()
            with self.storage.leading(self.facts.name) as is_leading:
                try:
                    if self.ways.is_mirrored and is_leading():
                        self._begin_mirror()
                    return self._execute(is_leading, started, deadline)
                except BaseException as error:
                    self.storage.abandon(self.facts.name)  # a notebook lives on, and its next call asks for the same
                    if not isinstance(error, (KeyboardInterrupt, BrokenPipeError)):
                        raise
                    # Who read our lines may go away: `studies run | head -1`.
                    with contextlib.suppress(BrokenPipeError):
                        self.display.end()
                    if self._mirror is not None:
                        self._mirror.finish("KILLED", min(2.0, mirroring.PATIENCE_S))
                    raise
                finally:
                    if self._mirror is not None:
                        self._mirror.close()
                        self._mirror = None

    def _begin_mirror(self) -> None:
        self._mirror = mirroring.open_mirror(self.home, self.storage, self.facts, self.display)
        self._mirror.start()

    def deadline(self, timeout_s: float | None) -> float | None:
        """When a run that begins now must train no more, as `time.monotonic()`; None is no limit.

        Args:
            timeout_s: Seconds that are granted to this run, beside what the spec grants to the study.
        """
        limits = [] if timeout_s is None else [timeout_s]
        if self.spec.budget.seconds is not None:
            limits.append(max(0.0, self.spec.budget.seconds - self.spent_s))
            self._granted_until = time.monotonic() + limits[-1]
        return time.monotonic() + min(limits) if limits else None

    def _create(self) -> None:
        """Store the study; where another driver of it was faster, go on with what that one stored.

        Raises:
            UserError: Another program took the name.
        """
        try:
            self.storage.create_study(self.facts)
        except UserError:
            stored = self.storage.facts(self.facts.name)
            if stored is None or stored.data_fingerprint != self.facts.data_fingerprint:
                raise
            refuse_changes(stored, self.spec)
            self.facts = stored
            self._store_spec()

    def _store_spec(self) -> None:
        """Store what this run's spec changes in the study, its budget, for all who are told of it from now on."""
        self.facts = replace(self.facts, spec=self.spec.to_dict())
        self.storage.store_spec(self.facts.name, self.facts.spec)

    def _execute(self, is_leading: Callable[[], bool], started: float, deadline: float | None) -> Outcome:
        search = Search(self.storage, self.spec, self.facts, self.trainer.count_parameters, is_driver=True)
        if (said := moved(self.facts.environment, self.trainer.environment)) is not None:
            self.display.note(said)
        if search.released:
            numbers = ", ".join(map(str, search.released))
            self.display.note(f"trials {numbers} were cut off when the study was last stopped; they are trained again")
        before = sum(t.state in FINISHED_STATES for t in search.trials)
        n_trials = most_trials(self.spec, self.trainer.count_parameters)
        prospect = self._prospect(deadline)
        tally = Tally(self.facts, n_trials, self.spec.training.epochs, search.trials, prospect)
        watcher = MirroringWatcher(self.display, self._mirror, tally)
        watcher.mirror([t.number for t in search.trials if t.state in FINISHED_STATES])
        self.display.begin(tally)
        try:
            if self.n_workers > 1:
                is_done = self._lead(search, watcher, deadline)
            else:
                is_done = train_all(search, self.storage, self.trainer, watcher, deadline)
        finally:
            tally.searched()
            self.display.end()
        self._tally = tally
        # Beside those it was told of: what other drivers trained, and a worker that was killed before it told.
        watcher.mirror([t.number for t in search.trials if t.state in FINISHED_STATES])
        if not is_done and self._granted_until is not None and time.monotonic() >= self._granted_until:
            # What the search took beside training counts, too: else the same command would go on for that long.
            self.storage.record(self.facts.name, [], max(0.0, (self.spec.budget.seconds or 0.0) - self.spent_s))
        ended = search.ended if is_done else _TIME_IS_UP
        trials = tuple(search.trials)
        n_new = sum(t.state in FINISHED_STATES for t in trials) - before
        if self._mirror is not None:
            self._mirror.expect_winner()
        export = self.export(None, None, is_cut=not is_done)
        page = self._hand_over(search, is_leading, export.winner) if self.ways.is_mirrored else None
        return Outcome(self.facts, trials, n_new, time.monotonic() - started, export, ended, page)

    def _hand_over(self, search: Search, is_leading: Callable[[], bool], winner: Winner) -> str | None:
        """Let MLflow have the winner, and wait for it; returns the page of the study, if there is one."""
        if self._mirror is None:
            if not is_leading():
                track = f"studies track {self.facts.name}"
                self.display.note(f"another driver of this study mirrors it; `{track}` does so if it ends early")
                return None
            self._begin_mirror()  # the driver that mirrored it has ended
        assert self._mirror is not None
        search.refresh()  # other drivers trained while this one held its finals
        self._mirror.put([t.number for t in search.trials if t.state in FINISHED_STATES])
        return mirroring.hand_over(self._mirror, winner, self.home, self.storage, self.facts.name, self.display)

    def _prospect(self, deadline: float | None) -> Prospect:
        """What the time left is told from, beside the trials."""
        final, splits, mirror = self.spec.final, self.splits, self._mirror
        closing = Closing(
            n_candidates=final.candidates,
            n_seeds=final.seeds,
            has_rivals=final.baselines and bool(len(splits.test.x)),
            n_rows=len(splits.train.x),
            n_columns=splits.n_features,
            n_models=1 if splits.task == "binary" else splits.n_outputs,
            is_mirrored=mirror is not None,
            unit_s=calibrate(),
        )
        slowdown = 2 / (os.cpu_count() or 1) if self.trainer.device.type == "cpu" else 0.0

        def up_at() -> float | None:
            if mirror is None or self.home.tracking_uri is not None:  # people's own server is nobody's to start
                return -math.inf
            return -math.inf if mirror.connected_at is None and mirror.error else mirror.connected_at

        backlog = Backlog if mirror is None else mirror.backlog
        return Prospect(deadline, self.trainer.epoch_flops, closing, up_at, slowdown, self.spent_s, backlog)

    def _lead(self, search: Search, watcher: MirroringWatcher, deadline: float | None) -> bool:
        """Let worker processes train, and tell what they do; returns whether nothing is left to train.

        Raises:
            StudiesError: Workers ended before their time, and trials are left.
        """
        crew = Crew(self.home, self.facts.name, self.n_workers, deadline)
        failures: list[str] = []
        try:
            for message in crew.messages():
                kind = message["kind"]
                if kind == "began":
                    watcher.show(message["cohort"], message["numbers"])
                elif kind == "epoch":
                    watcher.epoch(EpochDone(message["number"], EpochRecord(**message["epoch"])))
                elif kind == "told":
                    watcher.told(self.storage.records(self.facts.name, message["numbers"]))
                elif kind == "note":
                    self.display.note(message["text"])
                elif kind == "error":
                    failures.append(message["text"])
                elif kind == "ended" and message["code"] != 0:
                    failures.append(f"a worker {message['why']}")
                    self.display.note(f"warning: {failures[-1]}; the others train its trials")
        finally:
            crew.close()
        search.give_up()
        is_timely = deadline is None or time.monotonic() < deadline
        if failures and is_timely and not search.is_complete:
            raise StudiesError(f"all {self.n_workers} workers ended, and trials are left: {failures[0]}")
        return is_timely or search.is_complete

    def export(self, number: int | None, folder: Path | None, *, is_cut: bool = False) -> best.Export:
        """Export a trial, or hold the finals and export the winner.

        Args:
            number: Of the trial; None is the winner.
            folder: Where to; None is its place in the home.
            is_cut: Whether time ended the study, and must not be spent on long finals.
        """
        if number is None and folder is None:
            self._place(None)  # refused before the finals, which take long
        rules = contest.Rules(self.spec.final, self.facts.objectives, self.spent_s if is_cut else None)
        chosen = best.choose(
            self.storage,
            self.facts,
            number,
            lambda trials: contest.hold(trials, rules, self.trainer, self._say),
        )
        trial = chosen.trial
        folder = folder or self._place(None if chosen.final is not None else trial.number)
        with writing_export(self.home, folder):
            export = best.export(trial, chosen.finished, self.facts, self.trainer, best.Target(folder, chosen.final))
            if export.is_winner:
                self.storage.store_winner(self.facts.name, export.winner, len(chosen.finished))
        if export.warning:
            self.display.note(f"warning: {export.warning}")
        return export

    def _place(self, number: int | None) -> Path:
        """Where a trial's export lies in the home; None is the winner's.

        Raises:
            UserError: The export of another study lies there.
        """
        name = self.facts.name if number is None else f"{self.facts.name}-trial-{number}"
        exports.refuse_other(self.home.exports / name, self.facts)
        return self.home.exports / name

    def _say(self, line: str) -> None:
        """Say what comes after the search, with the time left where that is known."""
        left = None if self._tally is None or line.startswith("warning: ") else self._tally.seconds_left
        self.display.note(line if left is None else f"{line}; {minutes(left)} left")

    def _new_facts(self, objectives: tuple[Objective, ...]) -> StudyFacts:
        return StudyFacts(
            name=self.spec.study,
            uuid=uuid.uuid4().hex,
            spec=self.spec.to_dict(),
            objectives=objectives,
            task=self.splits.task,
            curve_metric=curve_metric(self.splits.task, objectives[0].metric),
            cohort_size=cohort_size(self.spec),
            n_features=self.splits.n_features,
            n_outputs=self.splits.n_outputs,
            data_name=self.splits.name,
            data_fingerprint=self.splits.fingerprint,
            environment=self.trainer.environment | (git_commit() if self.ways.is_kept else {}),
            created_at=time.time(),
        )
