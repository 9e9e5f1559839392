"""What is shown in a notebook while a study runs: one block under the cell, drawn again in place.

IPython is there wherever a kernel runs; nothing else imports it.
"""

import html
import sys
import time
from collections.abc import Sequence
from typing import Any

from studies.display import Display, open_display
from studies.records import EpochDone, TrialRecord
from studies.tally import Tally

_EVERY_S = 0.5
"""Pause between two drawings: each is a message to the page."""


def open_python_display() -> Display:
    """A block under the cell in a notebook, what `studies run` shows elsewhere."""
    return NotebookDisplay() if _is_kernel() else open_display()


def _is_kernel() -> bool:
    """Whether this process is a notebook's kernel; IPython is looked for only where it is loaded."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


class NotebookDisplay:
    """Notes, a bar, how the study stands, the latest epoch; stored with the notebook as it stood at the end."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self._notes: list[str] = []
        self._tally: Tally | None = None
        self._drawn = float("-inf")
        self._handle: Any = None

    def note(self, line: str) -> None:
        """Say one line, above the bar."""
        self._notes.append(line)
        self._draw()

    def begin(self, tally: Tally) -> None:
        """Show the bar."""
        self._tally = tally
        self._draw()

    def epoch(self, event: EpochDone) -> None:
        """Count the epoch; it is drawn now and then."""
        assert self._tally is not None
        self._tally.add_epoch(event)
        if time.monotonic() - self._drawn >= _EVERY_S:
            self._draw()

    def trials(self, trials: Sequence[TrialRecord]) -> None:
        """Say how the study stands."""
        assert self._tally is not None
        self._tally.add_trials(trials)
        self._draw()

    def end(self) -> None:
        """Leave the block as it stands."""
        self._draw()

    def lines(self) -> list[str]:
        """What is shown, as text."""
        return [*self._notes, *([] if self._tally is None else [self._tally.line()])]

    def _draw(self) -> None:
        from IPython import display as ipython

        self._drawn = time.monotonic()
        text = "\n".join(self.lines())
        bar = ""
        if self._tally is not None and self._tally.n_trials is not None:
            bar = f'<progress value="{self._tally.n_done}" max="{self._tally.n_trials}" style="width: 100%"></progress>'
        data = {"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>{bar}"}
        if self._handle is None:
            self._handle = ipython.display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(data, raw=True)
