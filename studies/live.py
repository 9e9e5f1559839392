"""The block that a terminal shows while a study runs: a bar, the best so far and its course, rungs, the latest epoch.

It is written by hand as a few lines of text, not laid out anew: drawing it must not take what training could use.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from studies.figures import number
from studies.records import EpochDone, TrialRecord
from studies.tally import Tally, hyperparameters_line, minutes

_PER_SECOND = 4
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-~=+*#"
_LABEL = 8
"""Columns of the words at the left."""
_LEAST_ROOM = 30
"""Columns of hyperparameters, however narrow the terminal."""


class LiveDisplay:
    """One block that is drawn again in place, four times a second."""

    def __init__(self, console: Console) -> None:
        """Draw on a terminal."""
        self._console = console
        self._tally: Tally | None = None
        self._live: Live | None = None

    def note(self, line: str) -> None:
        """Say one line, above the block."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def begin(self, tally: Tally) -> None:
        """Show the block."""
        self._tally = tally
        self._live = Live(
            get_renderable=self._block, console=self._console, refresh_per_second=_PER_SECOND, redirect_stderr=False
        )
        self._live.start()

    def epoch(self, event: EpochDone) -> None:
        """Remember the epoch; the block is drawn at its own times, whatever happens."""
        assert self._tally is not None
        self._tally.add_epoch(event)

    def trials(self, trials: Sequence[TrialRecord]) -> None:
        """Count the trials."""
        assert self._tally is not None
        self._tally.add_trials(trials)

    def end(self) -> None:
        """Leave the block as it stands."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()  # which draws it once more

    def _block(self) -> Text:
        assert self._tally is not None
        is_ascii = self._console.options.ascii_only
        # One column less: some terminals begin a new line when the last column is filled.
        return block(self._tally, self._console.width - 1, is_ascii=is_ascii, is_over=self._live is None)


def block(tally: Tally, width: int, *, is_ascii: bool = False, is_over: bool = False) -> Text:
    """The lines that are shown of a running study.

    Args:
        tally: Its numbers.
        width: Columns of the terminal.
        is_ascii: Whether the terminal can show nothing else.
        is_over: Whether no time is left to be told.
    """
    lines = [_bar_line(tally, width, is_ascii=is_ascii, is_over=is_over)]
    if tally.best is not None and tally.best.value is not None:
        lines += _best_lines(tally, tally.best, width)
    if tally.path:
        first = f"{tally.path[0]:.4g} "
        room = max(8, min(60, width - _LABEL - len(first) - 8))
        course = Text(first, style="dim")
        course.append(sparkline(tally.path, room, is_ascii=is_ascii), style="green")
        lines.append(_labelled("course", course.append(f" {tally.path[-1]:.4g}", style="dim")))
    if tally.n_done:
        lines.append(_labelled("rungs", Text(tally.rungs_line())))
    if not is_over:
        lines.append(_labelled("now", Text(tally.epoch_line(width - _LABEL), style="dim")))
    for line in lines:
        line.truncate(width, overflow="crop" if is_ascii else "ellipsis")
    return Text("\n", no_wrap=True).join(lines)


def _best_lines(tally: Tally, best: TrialRecord, width: int) -> list[Text]:
    """The best trial with its hyperparameters, none of them cut: in more lines where columns are few."""
    assert best.value is not None
    said = f"{tally.facts.objectives[0].metric} {number(best.value)}"
    room = max(_LEAST_ROOM, width - _LABEL)
    rows = [f"{said}  trial {best.number}  "]
    for name in best.searched:
        part = hyperparameters_line(best.hyperparameters, [name]) + ("" if name == best.searched[-1] else ", ")
        if len(rows[-1] + part.rstrip()) > room:
            rows.append("")
        rows[-1] += part
    lines = [_labelled("" if i else "best", Text(row.rstrip())) for i, row in enumerate(rows)]
    lines[0].stylize("bold green", _LABEL, _LABEL + len(said))
    return lines


def sparkline(values: Sequence[float], width: int, *, is_ascii: bool = False) -> str:
    """A course of values as a row of bars from the least to the greatest; at most `width` of them."""
    bars = _ASCII_BARS if is_ascii else _BARS
    n = min(width, len(values))
    shown = [values[(i + 1) * len(values) // n - 1] for i in range(n)]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    if high == low:
        return bars[-1] * n
    return "".join(bars[round((v - low) / (high - low) * (len(bars) - 1))] for v in shown)


def _labelled(label: str, text: Text) -> Text:
    return Text(f"{label:<{_LABEL}}", style="cyan").append_text(Text(style="default").append_text(text))


def _bar_line(tally: Tally, width: int, *, is_ascii: bool, is_over: bool) -> Text:
    """Name, bar, trials, rate, time left."""
    parts = [f"{tally.n_done} trials" if tally.n_trials is None else f"{tally.n_done}/{tally.n_trials} trials"]
    if tally.trials_per_s > 0:
        parts.append(f"{tally.trials_per_s:.1f}/s" if tally.trials_per_s >= 1 else f"{60 * tally.trials_per_s:.1f}/min")
    left = None if is_over else tally.seconds_left
    if left is not None and tally.n_done + (tally.epoch is not None):
        parts.append(f"{minutes(left)} left")
    said = "  ".join(parts)
    line = Text(f"{tally.facts.name[:24]}  ", style="bold")
    room = width - line.cell_len - len(said) - 2
    if tally.n_trials and room >= 8:
        full = min(room, room * tally.n_done // tally.n_trials)
        done, rest = ("#", "-") if is_ascii else ("━", "─")
        line.append(done * full, style="not bold green").append(f"{rest * (room - full)}", style="not bold dim")
        line.append("  ")
    return line.append(said, style="not bold")
