"""A home with a real tracking server, and the console script run in it as a person would."""

import itertools
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studies import server
from studies.storage import Storage
from tests.postgres import Cluster, cluster, required_binaries

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

Studies = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def served_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose tracking server is started by the first study that runs in it, and ended with the tests."""
    home = tmp_path_factory.mktemp("home")
    yield home
    server.stop(home)


@pytest.fixture
def studies(request: pytest.FixtureRequest, tmp_path: Path) -> Studies:
    """`studies WORDS...` in an empty folder, with the home given by name or none beside it."""

    def call(*words: object, home: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "studies", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=studies_environment(home or tmp_path / "home") | environment,
            timeout=600,
        )

    return call


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server for all tests; what needs it is skipped where it is not installed."""
    with cluster(required_binaries()) as made:
        Storage(made.create_database("template_dlcore")).close()
        yield made


_databases = itertools.count()


@pytest.fixture
def postgres_url(postgres: Cluster) -> str:
    """URL of an empty study database in PostgreSQL, the test's own."""
    return postgres.create_database(f"test_{next(_databases)}", "template_dlcore")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a study database, the test's own: in a file, then in PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'studies.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


def studies_environment(home: Path) -> dict[str, str]:
    """The environment of a command: this one's, but for what would lead it elsewhere."""
    kept = {k: v for k, v in os.environ.items() if k not in ("STUDIES_DB", "MLFLOW_TRACKING_URI")}
    return kept | {"STUDIES_HOME": str(home), "PYTHONUNBUFFERED": "1"}


_seconds: dict[str, float] = defaultdict(float)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the seconds of each folder."""
    folder = report.nodeid.split("::")[0].rpartition("/")[0]
    _seconds[folder] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where the time went, so that nobody is surprised when the suite grows slow."""
    for folder, seconds in sorted(_seconds.items()):
        terminalreporter.write_line(f"{seconds:7.1f} s  {folder}")
