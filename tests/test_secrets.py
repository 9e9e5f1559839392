"""A password in the address of a tracking server, or of the study database, is found nowhere afterwards."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from studies import server
from tests.conftest import studies_environment
from tests.postgres import PASSWORD as POSTGRES_PASSWORD
from tests.postgres import Cluster
from tests.studies.mirror_tools import PATIENCE_S, TcpProxy

PASSWORD = "c4n4ry%2Fsl4sh"
TRACES = (b"c4n4ry", b"sl4sh")
SPEC = """
study = "secrets"
budget = { trials = 4 }
search = { cohort = 4 }
data = { source = "sklearn:wine" }
training = { epochs = 2 }
"""


@pytest.fixture(scope="module")
def tracking_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("tracking") / "mlruns"
    server.find_or_start(home, port=5450, timeout_s=PATIENCE_S)
    yield home
    server.stop(home)


class Arguments(threading.Thread):
    """Collects the arguments of all processes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[str] = set()
        self.is_over = threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.05):
            self.seen |= {" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])}


def with_traces(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(trace in path.read_bytes() for trace in TRACES)]


@pytest.mark.slow
@pytest.mark.parametrize("is_up", [True, False])
def test_the_password_of_a_tracking_server_stays_in_the_environment(
    tracking_home: Path, tmp_path: Path, is_up: bool
) -> None:
    proxy = TcpProxy(server.find_or_start(tracking_home, port=5450).address)
    address = proxy.address if is_up else "http://127.0.0.1:9"
    home = tmp_path / "home"
    environment = studies_environment(home)
    environment["MLFLOW_TRACKING_URI"] = address.replace("http://", f"http://ann:{PASSWORD}@")
    (tmp_path / "spec.toml").write_text(SPEC)
    watch = Arguments()
    watch.start()
    said = b""
    commands = (["run", "spec.toml"], ["track", "secrets"], ["show", "secrets", "--json"], ["ui"])
    for words in commands:
        command = [sys.executable, "-m", "studies", *words]
        answer = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, timeout=600, check=False)
        said += answer.stdout + answer.stderr
        assert (answer.returncode == 0) == (is_up or words[0] != "track"), said.decode()
    watch.is_over.set()
    watch.join()
    proxy.close()
    assert b"studies track" in said or is_up
    assert not any(trace in said for trace in TRACES), said.decode()
    assert not any(trace.decode() in line for trace in TRACES for line in watch.seen)
    assert with_traces(home) == []
    assert with_traces(tracking_home) == []


def test_a_wrong_address_is_said_without_its_password(tmp_path: Path) -> None:
    for uri in (f"http://ann:{PASSWORD}@host:port", f"ftp://ann:{PASSWORD}@host", "http://ann:c4n4ry/sl4sh@host"):
        environment = studies_environment(tmp_path / "home") | {"MLFLOW_TRACKING_URI": uri}
        command = [sys.executable, "-m", "studies", "list"]
        answer = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, check=False)
        assert answer.returncode == 2
        said = answer.stdout + answer.stderr
        assert b"MLFLOW_TRACKING_URI" in said and b"Traceback" not in said
        assert not any(trace in said for trace in TRACES), said.decode()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_password_of_the_study_database_stays_in_the_environment(
    tracking_home: Path, tmp_path: Path, postgres: Cluster, postgres_url: str
) -> None:
    """Nor is it in what fails: a database that is not there, a wrong password, a server that is gone."""
    home = tmp_path / "home"
    address = server.find_or_start(tracking_home, port=5450).address
    (tmp_path / "spec.toml").write_text(SPEC)
    wrong = [
        postgres_url.rpartition("/")[0] + "/nowhere",
        postgres_url.replace(POSTGRES_PASSWORD, "canary-5f1d-wrong"),
        postgres_url.replace(f":{postgres.port}/", ":9/"),
        postgres_url.replace(POSTGRES_PASSWORD, "canary-5f1d-{x}"),
        postgres_url.replace("postgresql+psycopg", "mysql"),
        postgres_url.replace(f":{postgres.port}/", ":no/"),
    ]
    good = [
        ["run", "spec.toml"], ["run", "spec.toml", "--trials", "6", "--workers", "2"], ["export", "secrets"],
        ["track", "secrets"], ["doctor", "--repair"], ["delete", "secrets", "--yes"],
    ]  # fmt: skip
    watch = Arguments()
    watch.start()
    said: list[str] = []
    calls = [(url, ["list"]) for url in wrong] + [(wrong[0], good[0])] + [(postgres_url, words) for words in good]
    for url, words in calls:
        environment = studies_environment(home) | {"STUDIES_DB": url, "MLFLOW_TRACKING_URI": address}
        command = [sys.executable, "-m", "studies", *words]
        answer = subprocess.run(
            command, capture_output=True, cwd=tmp_path, env=environment, timeout=600, check=False, text=True
        )
        said.append(answer.stdout + answer.stderr)
        assert (answer.returncode == 0) == (url == postgres_url), said[-1]
        assert answer.returncode in (0, 1, 2) and "Traceback" not in said[-1], said[-1]
    watch.is_over.set()
    watch.join()
    traces = ("canary", "5f1d-and", "percent%")  # no few hex digits alone: ids have them by chance
    assert not [text for text in said if any(trace in text for trace in traces)]
    assert not [line for line in watch.seen if any(trace in line for trace in traces)]
    files = [path for folder in (tmp_path, tracking_home) for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if any(trace.encode() in path.read_bytes() for trace in traces)]
