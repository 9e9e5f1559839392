"""What a person sees while a study runs: one live block on a terminal, plain lines anywhere else.

`Tally` counts, `LiveDisplay` and `PlainDisplay` show; both answer the same calls.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from studies import finals
from studies.ranking import best_trial
from studies.records import FINISHED_STATES, EpochDone, Objective, StudyFacts, TrialRecord, Value, Winner

_PLAIN_EVERY_S = 5.0


class Tally:
    """Numbers of a running study: trials by state, the best, the rate, the time left."""

    def __init__(self, facts: StudyFacts, n_trials: int | None, epochs: int, done: Sequence[TrialRecord]) -> None:
        """Begin with the trials that earlier runs finished; `n_trials` is None where only time limits the study."""
        self.facts, self.n_trials, self.epochs = facts, n_trials, epochs
        self.trials = {t.number: t for t in done if t.state in FINISHED_STATES}
        self._n_before = len(self.trials)
        self._started = time.monotonic()
        self.epoch: EpochDone | None = None
        self._members: dict[int, int] = {}

    def add_epoch(self, event: EpochDone) -> None:
        """A trial finished an epoch."""
        self.epoch = event
        self._members[event.number] = event.epoch.epoch

    def add_trials(self, trials: Sequence[TrialRecord]) -> None:
        """A cohort's results."""
        self.trials.update((t.number, t) for t in trials)
        self._members.clear()

    @property
    def n_done(self) -> int:
        """Finished trials."""
        return len(self.trials)

    @property
    def trials_per_s(self) -> float:
        """Trials finished per second since this run began."""
        return (self.n_done - self._n_before) / (time.monotonic() - self._started)

    def line(self) -> str:
        """Counts, best, rate and time left in one line."""
        states = Counter(t.state for t in self.trials.values())
        parts = [f"{self.n_done} trials" if self.n_trials is None else f"{self.n_done}/{self.n_trials} trials"]
        parts += [f"{states['PRUNED']} pruned", f"{states['FAIL']} failed"]
        objective = self.facts.objectives[0]
        best = best_trial(list(self.trials.values()), self.facts.objectives)
        if best is not None:
            parts.append(f"best {objective.metric} {best.value:.4f} (trial {best.number})")
        if self.trials_per_s > 0:
            parts.append(f"{self.trials_per_s:.1f} trials/s")
            if self.n_trials is not None:
                parts.append(f"{_minutes((self.n_trials - self.n_done) / self.trials_per_s)} left")
        return ", ".join(parts)

    def epoch_line(self) -> str:
        """The latest epoch in one line."""
        if self.epoch is None:
            return "getting ready"
        e = self.epoch.epoch
        return (
            f"trial {self.epoch.number}, epoch {e.epoch}/{self.epochs}: train loss {e.train_loss:.4f}, "
            f"val loss {e.val_loss:.4f}, val {self.facts.curve_metric} {e.val_metric:.4f}"
        )


class Display(Protocol):
    """What the runner tells whoever watches."""

    def note(self, line: str) -> None:
        """Say one line."""

    def begin(self, tally: Tally) -> None:
        """Training begins."""

    def epoch(self, event: EpochDone) -> None:
        """A trial finished an epoch."""

    def trials(self, trials: Sequence[TrialRecord]) -> None:
        """A cohort was stored."""

    def end(self) -> None:
        """Training is over, for whatever reason."""


class PlainDisplay:
    """Lines: the first epoch at once, then one every five seconds, and one a cohort."""

    def __init__(self, out: TextIO) -> None:
        """Write to `out`."""
        self._out = out
        self._tally: Tally | None = None
        self._said = float("-inf")

    def note(self, line: str) -> None:
        """Say one line."""
        print(line, file=self._out, flush=True)

    def begin(self, tally: Tally) -> None:
        """Training begins."""
        self._tally = tally

    def epoch(self, event: EpochDone) -> None:
        """Say the epoch, unless something was said a moment ago."""
        assert self._tally is not None
        self._tally.add_epoch(event)
        if time.monotonic() - self._said >= _PLAIN_EVERY_S:
            self._said = time.monotonic()
            self.note(self._tally.epoch_line())

    def trials(self, trials: Sequence[TrialRecord]) -> None:
        """Say how the study stands."""
        assert self._tally is not None
        self._tally.add_trials(trials)
        self._said = time.monotonic()
        self.note(self._tally.line())

    def end(self) -> None:
        """Nothing is left on the screen to be put away."""


class LiveDisplay:
    """One block that is drawn again in place: a bar, how the study stands, the latest epoch."""

    def __init__(self, console: Console) -> None:
        """Draw on a terminal."""
        self._console = console
        self._tally: Tally | None = None
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console, auto_refresh=False
        )
        self._live: Live | None = None

    def note(self, line: str) -> None:
        """Say one line, above the block."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def begin(self, tally: Tally) -> None:
        """Show the block."""
        self._tally = tally
        self._task = self._bar.add_task(tally.facts.name, total=tally.n_trials, completed=tally.n_done)
        self._live = Live(
            get_renderable=self._block, console=self._console, refresh_per_second=5, redirect_stderr=False
        )
        self._live.start()

    def epoch(self, event: EpochDone) -> None:
        """Remember the epoch; the block is drawn five times a second, whatever happens."""
        assert self._tally is not None
        self._tally.add_epoch(event)

    def trials(self, trials: Sequence[TrialRecord]) -> None:
        """Count the trials."""
        assert self._tally is not None
        self._tally.add_trials(trials)
        self._bar.update(self._task, completed=self._tally.n_done)

    def end(self) -> None:
        """Leave the block as it stands."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _block(self) -> Group:
        assert self._tally is not None
        return Group(
            self._bar, Text(f"  {self._tally.line()}"), Text(f"  {self._tally.epoch_line()}", style="dim", no_wrap=True)
        )


def open_display() -> Display:
    """A live block where standard output is a terminal that can draw it, else plain lines."""
    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console)
    return PlainDisplay(sys.stdout)


def hyperparameters_line(hyperparameters: Mapping[str, Value], names: Iterable[str] | None = None) -> str:
    """Hyperparameters in one line, numbers short; all of them, or those named."""
    chosen = hyperparameters if names is None else names
    return ", ".join(f"{name} {format_value(hyperparameters[name])}" for name in chosen)


def format_value(value: Value) -> str:
    """A hyperparameter as people write it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def winner_lines(winner: Winner, objective: Objective) -> list[str]:
    """What is known of a winner: on val and test, over fresh seeds and of the exported network, and beside others."""
    over_seeds = winner.final is not None and bool(winner.final.finalists)
    name = "exported network" if over_seeds else ""
    lines = [_scores(f"val   {name}", winner.val_metrics), _scores(f"test  {name}", winner.test_metrics)]
    if winner.final is None:
        return lines
    if over_seeds:
        val, test = (finals.intervals(m)[objective.metric] for m in (winner.final.finalists[0].val, winner.final.test))
        head = f"  {objective.metric} of trial {winner.number} over {len(winner.final.test)} fresh seeds (mean, 95 %)"
        lines = [
            f"{head}: val {finals.of(val)}, test {finals.of(test)}, gap {test.mean - val.mean:+.4f}",
            *(f"    {line}" for line in finals.finalist_lines(winner.final, objective)),
            *lines,
        ]
    if finals.others(winner.final):
        lines.append(f"  {objective.metric} on test: {finals.table(winner, objective)}")
        lines += [f"    {rival.name}: {rival.remark}" for rival in finals.others(winner.final) if rival.remark]
    if said := finals.verdict(winner, objective):
        lines.append(f"  {said}")
    return lines


def _scores(name: str, metrics: Mapping[str, float]) -> str:
    return f"  {name:<5} " + ", ".join(f"{key} {value:.4f}" for key, value in metrics.items())


def study_page(tracking_uri: str, experiment_id: str) -> str:
    """Address of a study's page in the MLflow UI."""
    return f"{tracking_uri}/#/experiments/{experiment_id}/runs"


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 90 else f"{whole // 60}:{whole % 60:02d} min"
