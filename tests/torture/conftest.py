"""The seed and the outcome are said at the end."""

import pytest

from tests.torture.forms import FORM
from tests.torture.summary import as_table, keep, rows


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was broken and what came of it."""
    if rows:
        terminalreporter.section(f"torture, TORTURE_SEED={FORM.seed}")
        terminalreporter.write_line(as_table(rows))


def pytest_sessionfinish() -> None:
    """Keep the outcome of a long form."""
    if rows and FORM.is_long:
        keep()
