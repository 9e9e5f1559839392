"""What is shown while a study runs: a live block on a terminal, plain lines elsewhere, JSON for machines, or nothing.

All of them answer the same calls (`Display`); `studies.tally` counts, `studies.live` and `studies.json_lines` draw.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Protocol, TextIO

from rich.console import Console

from studies import finals
from studies.figures import number
from studies.json_lines import JsonDisplay
from studies.live import LiveDisplay
from studies.records import EpochDone, Objective, TrialRecord, Winner
from studies.tally import Tally

FORMS = ("auto", "json", "quiet")
_PLAIN_EVERY_S = 5.0


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


class QuietDisplay:
    """Nothing but warnings, on standard error."""

    def __init__(self, err: TextIO) -> None:
        """Warn there."""
        self._err = err

    def note(self, line: str) -> None:
        """Say it if it is a warning."""
        if line.startswith("warning: "):
            print(line, file=self._err, flush=True)

    def begin(self, tally: Tally) -> None:
        """Nothing is shown."""

    def epoch(self, event: EpochDone) -> None:
        """Nothing is shown."""

    def trials(self, trials: Sequence[TrialRecord]) -> None:
        """Nothing is shown."""

    def end(self) -> None:
        """Nothing is shown."""


def open_display(form: str = "auto") -> Display:
    """The display of a command.

    Args:
        form: A name in `FORMS`. "auto" is a live block where standard output is a terminal that can draw it, else plain
            lines.
    """
    if form == "json":
        return JsonDisplay(sys.stdout)
    if form == "quiet":
        return QuietDisplay(sys.stderr)
    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console)
    return PlainDisplay(sys.stdout)


def winner_lines(winner: Winner, objective: Objective) -> list[str]:
    """What is known of a winner: on val and test, over fresh seeds and of the exported network, and beside others."""
    over_seeds = winner.final is not None and bool(winner.final.finalists)
    is_ensemble = winner.final is not None and winner.final.is_ensemble
    name = f"exported {'ensemble' if is_ensemble else 'network'}" if over_seeds else ""
    lines = [_scores(f"val   {name}", winner.val_metrics)]
    lines.append(_scores(f"test  {name}", winner.test_metrics) if winner.test_metrics else "  test  none was kept back")
    if winner.final is None:
        return lines
    if over_seeds:
        val = finals.intervals(winner.final.finalists[0].val)[objective.metric]
        test = finals.on_test(winner.final).get(objective.metric)
        over = finals.over(winner.final, objective.metric)
        lines = [
            f"  {objective.metric} of trial {winner.number} over {len(winner.final.finalists[0].val)} fresh seeds "
            f"(mean, 95 %): val {finals.of(val)} over seeds"
            + (
                ""
                if test is None
                else f", test {finals.of(test)} over {over}, gap {number(test.mean - val.mean, has_sign=True)}"
            ),
            *(f"    {line}" for line in finals.finalist_lines(winner.final, objective)),
            *lines,
        ]
    if finals.others(winner.final):
        lines.append(f"  {objective.metric} on test: {finals.table(winner, objective)}")
        lines += [f"    {rival.name}: {rival.remark}" for rival in finals.others(winner.final) if rival.remark]
    if said := finals.ensemble_line(winner.final, objective):
        lines.append(f"  {said}")
    if said := finals.verdict(winner, objective):
        lines.append(f"  {said}")
    return lines


def _scores(name: str, metrics: Mapping[str, float]) -> str:
    return f"  {name:<5} " + ", ".join(f"{key} {number(value)}" for key, value in metrics.items())
