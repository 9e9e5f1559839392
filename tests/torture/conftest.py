"""A PostgreSQL server that may be killed; the seed and the outcome are said at the end."""

from collections.abc import Iterator

import pytest

from studies import mirroring
from tests.postgres import Cluster, cluster, required_binaries
from tests.torture.forms import FORM
from tests.torture.summary import as_table, keep, rows


@pytest.fixture(scope="session")
def own_cluster() -> Iterator[Cluster]:
    """Not that of the other tests, whose connections would end with it."""
    with cluster(required_binaries()) as made:
        yield made


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of studies hurry where no server is; here one comes back."""
    monkeypatch.setattr(mirroring, "PATIENCE_S", 5.0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was broken and what came of it."""
    if rows:
        terminalreporter.section(f"torture, TORTURE_SEED={FORM.seed}")
        terminalreporter.write_line(as_table(rows))


def pytest_sessionfinish() -> None:
    """Keep the outcome of a long form."""
    if rows and FORM.is_long:
        keep()
