"""The mirror: a thread that brings MLflow in line with the study database, and is never waited for.

The study hands over numbers of finished trials; the thread reads their records from the database, a few at a time,
and writes their runs. The server may be slow, gone or not there yet: the thread tries again, and what it has not
written when the study ends is left to `studies track`. MLflow itself is never imported into this process.

A server on this machine that writes for us takes its time from the training: while that goes on, it is asked so little
that the study loses no more than `SERVER_SHARE` of the cores; the rest is written when the study waits for it.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from studies import registry
from studies.closing import Backlog
from studies.errors import StudiesError, TrackingError
from studies.finals import judged
from studies.mirrored import MirroredStudy
from studies.records import StudyFacts, TrialRecord, Winner
from studies.report_process import ReportProcess
from studies.tracking_store import Refused, TrackingStore, Unreachable

READ_AT_ONCE = 64
"""Records held in memory at a time, each with its curves."""
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
PROGRESS_EVERY_S = 2.0
"""The state of the running cohort is written no more often; nor is the running best while trials wait."""
SERVER_SHARE = 0.04
"""Of this machine's cores, for a server on it while a study trains."""
LONGEST_PAUSE_S = 1.0
"""Between two runs; a server that needs longer for one is slow for other reasons than work."""


class Mirror:
    """Copies one study to MLflow in the background."""

    def __init__(
        self,
        connect: Callable[[], TrackingStore],
        facts: StudyFacts,
        read: Callable[[Sequence[int]], list[TrialRecord]],
        *,
        is_thorough: bool = False,
        report: ReportProcess | None = None,
    ) -> None:
        """Remember where to read and write; nothing happens before `start`.

        Args:
            connect: opens the place to write to; may wait until it is there; called in the mirror's thread, again
                after each failure.
            facts: the study.
            read: gives the records of trials, with their curves; called in the mirror's thread.
            is_thorough: believe no mark: compare every run with its record, and at the end delete the runs of
                trials that were not handed over.
            report: makes what `report` lets MLflow have.
        """
        self._connect, self._facts, self._read = connect, facts, read
        self._report = report
        self._is_thorough = is_thorough
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        # Guarded by `_changed`.
        self._todo: dict[int, None] = {}
        """Trials in the order in which they came; a set that remembers it."""
        self._done: set[int] = set()
        self._refused: dict[int | str, str] = {}
        self._progress: Mapping[str, float | str] | None = None
        self._winner: tuple[Winner, Mapping[str, list[float | str]] | None] | None = None
        self._is_winner_near = False
        self._is_report_due = False
        self._ending: str | None = None
        self._is_closed = False
        self._n_written, self._writing_s = 0, 0.0
        self._share = 1.0
        self.error: str | None = None
        """What went wrong last; None while the server answers."""
        self.said = ""
        """What people should know of the registration."""
        self.address: str | None = None
        self.connected_at: float | None = None
        """By `time.monotonic()`, the first time."""
        self.experiment_id: str | None = None
        self.parent_run_id: str | None = None
        # Of the thread alone.
        self._store: TrackingStore | None = None
        self._study: MirroredStudy | None = None
        self._is_shaken = False
        self._had_trouble = False
        self._declined: set[int | str] = set()
        self._registrar: subprocess.Popen[str] | None = None
        """Begun for the winner that comes."""
        self._next_best_at = 0.0
        self._next_progress_at = 0.0

    @property
    def pending(self) -> int:
        """How many trials MLflow lacks, as far as they were handed over."""
        with self._changed:
            return len(self._todo) + sum(isinstance(what, int) for what in self._refused)

    def backlog(self) -> Backlog:
        """What trials MLflow is still to get, and how fast it takes them."""
        with self._changed:
            each_s = self._writing_s / self._n_written if self._n_written else None
            return Backlog(len(self._todo), each_s, self._share)

    def start(self) -> None:
        """Begin to work. A daemon: it never keeps a process alive."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"mirror-{self._facts.name}", daemon=True)
            self._thread.start()

    def put(self, numbers: Sequence[int]) -> None:
        """Hand over finished trials; never waits."""
        with self._changed:
            self._todo |= dict.fromkeys(n for n in numbers if n not in self._done and n not in self._refused)
            self._changed.notify_all()

    def show(self, progress: Mapping[str, float | str]) -> None:
        """Show the running cohort on the study's run; only the newest state is kept; never waits."""
        with self._changed:
            self._progress = dict(progress)
            self._changed.notify_all()

    def expect_winner(self) -> None:
        """Let what registers a winner get ready, which takes seconds; never waits."""
        with self._changed:
            self._is_winner_near = True
            self._changed.notify_all()

    def register(self, winner: Winner, input_example: Mapping[str, list[float | str]] | None = None) -> None:
        """Hand over the winner, to be registered once all trials are there, and then the report; never waits.

        Args:
            winner: with the folder of its export.
            input_example: some rows as columns; without it, one row of usual values.
        """
        with self._changed:
            self._winner = (winner, input_example)
            self._is_report_due = self._report is not None
            self._changed.notify_all()

    def report(self) -> None:
        """Let MLflow have the study's report and story, of what the database holds once all trials are there."""
        with self._changed:
            self._is_report_due = self._report is not None
            self._changed.notify_all()

    def finish(self, status: str, timeout_s: float | None = None) -> bool:
        """Wait until everything is written, and close the study's run; may be called again to wait on.

        Args:
            status: of the study's run: "FINISHED", "FAILED", or "KILLED" when it was interrupted.
            timeout_s: None waits as long as it takes.

        Returns:
            Whether MLflow shows all that was handed over.
        """
        with self._changed:
            self._ending = status
            self._progress = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ending is None or self._is_closed, timeout_s)
            return self._ending is None and not self._refused

    def close(self) -> None:
        """End the thread after its present call at most; what is not written is left to `studies track`."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=1)

    # --- the thread ---

    def _work(self) -> None:
        wait_s = 0.0
        while self._wait_for_work(wait_s):
            try:
                study = self._connected()
                if study is None:
                    break
                self._step(study)
                self.error = next(iter(self._refused.values()), None)
                wait_s = 0.0
            except Exception as error:  # a copy: whatever is wrong with it must neither end nor hold up a study
                is_plain = isinstance(error, TrackingError | StudiesError)
                self.error = str(error) if is_plain else f"{type(error).__name__}: {error}"
                self._is_shaken = self._had_trouble = True
                if not isinstance(error, Unreachable):
                    self._forget()  # the server may have lost what we know of it: look again
                wait_s = min(max(FIRST_WAIT_S, 2 * wait_s), LONGEST_WAIT_S)
        self._forget()
        if self._report is not None:
            self._report.close()

    def _forget(self) -> None:
        if self._store is not None:
            self._store.close()
        if self._registrar is not None:
            registry.give_up(self._registrar)
        self._study = self._store = self._registrar = None

    def _wait_for_work(self, wait_s: float) -> bool:
        """Wait after a failure, then until there is something to do; False when the mirror is closed."""
        with self._changed:
            was_ending = self._ending is not None
            if wait_s:  # somebody who waits for the end is not kept waiting for long
                self._changed.wait_for(
                    lambda: self._is_closed or (self._ending is not None and not was_ending),
                    min(wait_s, FIRST_WAIT_S) if was_ending else wait_s,
                )
            while not (self._is_closed or self._has_work()):
                self._changed.wait(PROGRESS_EVERY_S if self._progress is not None else None)
            return not self._is_closed

    def _has_work(self) -> bool:
        is_due = self._todo or self._winner or self._is_report_due or self._ending or self._is_winner_near
        return bool(is_due) or self._is_progress_due()

    def _is_progress_due(self) -> bool:
        return self._progress is not None and time.monotonic() >= self._next_progress_at

    def _connected(self) -> MirroredStudy | None:
        """The study in MLflow; after a failure, in the MLflow that is there now. None for a mirror that is closed."""
        if self._study is not None and not self._is_shaken:
            return self._study
        store = self._connect()
        with self._changed:
            is_closed = self._is_closed
        if is_closed:  # while a server started: by now another mirror may write, and what both write is there twice
            store.close()
            return None
        if self._study is None or self._store is None or store.identity != self._store.identity:
            self._forget()
            self.address, self._store = store.where, store
            self.connected_at = self.connected_at or time.monotonic()
            self._share = min(1.0, SERVER_SHARE * (os.cpu_count() or 1)) if store.is_neighbour else 1.0
            study = MirroredStudy(store, self._facts, self._read, is_thorough=self._is_thorough)
            self.experiment_id, self.parent_run_id = study.experiment_id, study.parent_run_id
            self._take_back(study)
            self._study = study
        self._is_shaken = False
        return self._study

    def _take_back(self, study: MirroredStudy) -> bool:
        """Write trials again that were written, and are not there; returns whether there are any."""
        with self._changed:
            lost = sorted(number for number in self._done if not study.has(number))
            self._done.difference_update(lost)
            self._todo = dict.fromkeys([*lost, *self._todo])
        return bool(lost)

    def _step(self, study: MirroredStudy) -> None:
        """Do the most urgent thing."""
        with self._changed:
            progress = self._progress if self._is_progress_due() else None
            todo, winner, ending = list(islice(self._todo, READ_AT_ONCE)), self._winner, self._ending
            is_report_due = self._is_report_due
            is_winner_near, self._is_winner_near = self._is_winner_near, False
        if is_winner_near and self._registrar is None:
            self._registrar = registry.begin(study.store.credentials())
        if progress is not None:
            self._next_progress_at = time.monotonic() + PROGRESS_EVERY_S
            study.write_progress(progress)
            with self._changed:
                self._progress = None if self._progress is progress else self._progress
        elif todo:
            self._write_trials(study, todo)
        elif winner is not None:
            if is_report_due and self._report is not None:
                self._report.start()  # it is made while the winner is being registered
            self._write_winner(study, *winner)
            with self._changed:
                self._winner = None if self._winner is winner else self._winner
        elif is_report_due:
            self._write_report(study)
            with self._changed:
                self._is_report_due = False
        elif ending is not None:
            if self._had_trouble:
                study.look_again()
                self._had_trouble = False
                if self._take_back(study):
                    return
            study.end(ending, only=self._known() if self._is_thorough else None)
            self.parent_run_id = study.parent_run_id
            with self._changed:
                self._ending = None if self._ending == ending else self._ending
                self._changed.notify_all()

    def _write_trials(self, study: MirroredStudy, todo: Sequence[int]) -> None:
        whole = [] if self._is_thorough else [number for number in todo if study.has(number)]
        self._finish_trials(whole)
        numbers = [number for number in todo if number not in whole]
        records = self._read(numbers) if numbers else []
        for number in set(numbers) - {record.number for record in records}:
            self._decline(number, Refused("NOT_FOUND", f"trial {number} must be in the study database to be mirrored"))
        while records:
            n_now = 1 if self._is_sparing(study) else len(records)
            if not self._write_some(study, records[:n_now]):
                return
            records = records[n_now:]
        with self._changed:
            is_behind = bool(self._todo)
        if not is_behind or time.monotonic() >= self._next_best_at:  # a write of its own, which trials wait for
            study.write_best()
            self._next_best_at = time.monotonic() + PROGRESS_EVERY_S

    def _write_some(self, study: MirroredStudy, records: Sequence[TrialRecord]) -> bool:
        """Write runs at once; returns False where something else has to be done first."""
        began = since = time.monotonic()
        for written in study.write_trials(records):
            self._finish_trials([one.number for one in written if one.refused is None])
            for one in written:
                if one.refused is not None:
                    self._decline(one.number, one.refused)
            with self._changed:
                now = time.monotonic()
                self._n_written, self._writing_s = self._n_written + len(written), self._writing_s + now - since
                since = now
                if self._is_closed or self._is_progress_due():
                    return False
        if self._is_sparing(study):
            pause_s = min(LONGEST_PAUSE_S, (time.monotonic() - began) * (1 / self._share - 1))
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._ending is not None, pause_s)
        return True

    def _is_sparing(self, study: MirroredStudy) -> bool:
        """Whether the server's work would be missed by the training."""
        with self._changed:
            return study.store.is_neighbour and self._ending is None

    def _known(self) -> set[int]:
        """All trials that were handed over and are not waiting."""
        with self._changed:
            return self._done | {what for what in self._refused if isinstance(what, int)}

    def _finish_trials(self, numbers: Sequence[int]) -> None:
        with self._changed:
            self._done.update(numbers)
            for number in numbers:
                self._todo.pop(number, None)

    def _write_winner(
        self, study: MirroredStudy, winner: Winner, example: Mapping[str, list[float | str]] | None
    ) -> None:
        try:
            study.write_winner(winner)
            name, uuid = self._facts.name, self._facts.uuid
            request = registry.Request(
                study.store.where, name, uuid, winner, study.parent_run_id, example, **self._judged(winner)
            )
            begun, self._registrar = self._registrar, None
            self.said = registry.register_elsewhere(request, study.store.credentials(), lambda: self._is_closed, begun)
        except Refused as error:
            self._decline("winner", error)

    def _judged(self, winner: Winner) -> dict[str, Any]:
        """By what a winner is held against the champion."""
        objective = self._facts.objectives[0]
        return {
            "fingerprint": self._facts.data_fingerprint,
            "metric": objective.metric,
            "direction": objective.direction,
            "value": judged(winner, objective),
        }

    def _write_report(self, study: MirroredStudy) -> None:
        assert self._report is not None
        try:
            study.write_report(self._report.files(is_cancelled=lambda: self._is_closed))
        except Refused as error:
            self._decline("report", error)

    def _decline(self, what: int | str, error: Refused) -> None:
        """Give a request that was declined one more try, on a fresh look at the server; then leave it out."""
        if what not in self._declined:
            self._declined.add(what)
            raise error
        with self._changed:
            self._refused[what] = str(error)
            if isinstance(what, int):
                self._todo.pop(what, None)
