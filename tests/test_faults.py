"""What machines do to a study: a full disk, a home that cannot be written, a database server or a worker that dies.

Each ends in one clear message and its exit code, or in none at all; what was told is there, and the same command goes
on to the study that nothing ever happened to.
"""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from studies.records import FINISHED_STATES, TrialRecord
from studies.replay import bits
from studies.storage import Storage
from tests.conftest import Studies, studies_environment
from tests.postgres import PASSWORD, bin_folder, cluster
from tests.studies.conftest import NOBODY

Whole = Callable[[int, int], list[str]]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SPEC = """
study = "wine"
seed = 5
budget = {{ trials = {trials} }}
data = {{ source = "sklearn:wine" }}
search = {{ cohort = 4, halving = {halving} }}
training = {{ epochs = {epochs}, batch_size = 8, patience = false }}
final = {{ candidates = 1, seeds = 2 }}
"""


HALVING = "{ first_rung = 4, reduction_factor = 2 }"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 160 MB, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a disk cannot be mounted here, which only root may: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextlib.contextmanager
def running(
    folder: Path, home: Path, trials: int, epochs: int, *, halving: str = HALVING, workers: str = "1", **more: str
) -> Iterator["subprocess.Popen[str]"]:
    """`studies run` in a process of its own, with no tracking server."""
    (folder / "wine.toml").write_text(SPEC.format(trials=trials, epochs=epochs, halving=halving))
    environment = studies_environment(home) | {"MLFLOW_TRACKING_URI": NOBODY} | more
    with subprocess.Popen(
        [sys.executable, "-m", "studies", "run", "wine.toml", "--workers", workers],
        cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]", timeout_s: float = 400.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def n_finished(url: str) -> int:
    storage = Storage(url)
    try:
        states = storage.states("wine") if storage.facts("wine") is not None else {}
    finally:
        storage.close()
    return sum(n for state, n in states.items() if state in FINISHED_STATES)


def records(url: str) -> list[TrialRecord]:
    storage = Storage(url)
    found = storage.records("wine", has_curves=True)
    assert storage.falsified("wine") == []
    storage.close()
    return found


def results(found: list[TrialRecord]) -> list[str]:
    return [f"{t.number} {t.hyperparameters} {bits(t)}" for t in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Gives the results of a study of so many trials and epochs that nothing happens to."""

    @functools.cache
    def found(trials: int, epochs: int) -> list[str]:
        folder = tmp_path_factory.mktemp("whole")
        gone_on(folder, folder / "home", trials, epochs)
        return results(records(f"sqlite:///{folder / 'home' / 'studies.db'}"))

    return found


def limited(folder: Path, home: Path, limit: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """`studies WORDS...` under a limit that the shell sets."""
    command = ["sh", "-c", f'ulimit {limit} && exec "$@"', "sh", sys.executable, "-m", "studies", *words]
    environment = studies_environment(home) | {"MLFLOW_TRACKING_URI": NOBODY}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def gone_on(folder: Path, home: Path, trials: int, epochs: int, **more: str) -> None:
    with running(folder, home, trials, epochs, **more) as process:
        output = process.communicate(timeout=600)[0]
        assert process.returncode == 0, output


def test_a_disk_that_fills_up_ends_a_study_with_its_name_and_room_lets_it_go_on(
    small_disk: Path, tmp_path: Path, whole: Whole
) -> None:
    home, url = small_disk / "home", f"sqlite:///{small_disk / 'home' / 'studies.db'}"
    with running(tmp_path, home, 16, 60) as process:
        wait_for(lambda: (home / "studies.db").exists() and n_finished(url) >= 4, process)
        with (small_disk / "balloon").open("wb") as balloon, contextlib.suppress(OSError):
            while True:
                balloon.write(bytes(1 << 16))
                balloon.flush()
        output = process.communicate(timeout=300)[0]
    message = output.splitlines()[-1]
    assert process.returncode == 1, output
    assert message.startswith(f"error: the study database {home / 'studies.db'} cannot be written: ")
    assert "full" in message or "disk I/O error" in message
    assert "Traceback" not in output
    (small_disk / "balloon").unlink()
    told = records(url)
    before = [bits(t) for t in told if t.state in FINISHED_STATES]
    assert len(before) >= 4
    gone_on(tmp_path, home, 16, 60)
    after = records(url)
    assert [bits(t) for t in after][: len(before)] == before
    assert results(after) == whole(16, 60)


def test_a_file_that_must_not_grow_ends_a_study_with_its_name_and_is_as_it_was(tmp_path: Path, whole: Whole) -> None:
    """As a full disk does, for those who may not mount one: the system refuses to write more."""
    home = tmp_path / "home"
    database = home / "studies.db"
    gone_on(tmp_path, home, 4, 60)
    before = results(records(f"sqlite:///{database}"))
    (tmp_path / "wine.toml").write_text(SPEC.format(trials=16, epochs=60, halving=HALVING))
    # In blocks of 512 bytes, or of 1,024 in some shells: room for none of the next cohorts, or for one.
    n_blocks = database.stat().st_size // 512 // 2 + 8
    answer = limited(tmp_path, home, f"-f {n_blocks}", "run", "wine.toml")
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert answer.stderr.splitlines()[-1].startswith(f"error: the study database {database} cannot be ")
    assert "Traceback" not in answer.stderr
    assert results(records(f"sqlite:///{database}"))[:4] == before
    gone_on(tmp_path, home, 16, 60)
    assert results(records(f"sqlite:///{database}")) == whole(16, 60)


def test_a_home_on_a_disk_that_cannot_be_written_is_refused_in_one_line(small_disk: Path, studies: Studies) -> None:
    home = small_disk / "home"
    assert studies("list", home=home).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for words in (["run", "wine"], ["list"], ["doctor"], ["show", "wine"]):
        answer = studies(*words, home=home)
        assert answer.returncode == 2, (words, answer.stdout, answer.stderr)
        (line,) = answer.stderr.splitlines()
        assert line.startswith(f"error: the home {home} must be a folder that you can write to; Read-only file system")


def test_a_database_that_cannot_be_written_is_read_and_not_run(
    small_disk: Path, tmp_path: Path, studies: Studies
) -> None:
    home, place = tmp_path / "home", small_disk / "studies.db"
    environment = {"STUDIES_DB": f"sqlite:///{place}", "MLFLOW_TRACKING_URI": NOBODY}
    gone_on(tmp_path, home, 4, 6, **environment)
    before = records(environment["STUDIES_DB"])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for words in (["list"], ["show", "wine"], ["doctor"]):
        answer = studies(*words, home=home, **environment)
        assert answer.returncode == 0, (words, answer.stderr)
    for words in (["run", "wine.toml", "--trials", "8"], ["delete", "wine", "--yes"]):
        answer = studies(*words, home=home, **environment)
        (line,) = [text for text in answer.stderr.splitlines() if text.startswith("error: ")]
        assert answer.returncode == 1 and str(small_disk) in line and "Read-only file system" in line
        assert "Traceback" not in answer.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert records(environment["STUDIES_DB"]) == before
    gone_on(tmp_path, home, 8, 6, **environment)
    assert len(records(environment["STUDIES_DB"])) == 8


def test_a_database_server_that_dies_ends_a_study_in_one_line_and_the_same_command_goes_on(
    tmp_path: Path, whole: Whole
) -> None:
    binaries = bin_folder()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (initdb and pg_ctl are not there)")
    with cluster(binaries) as server:
        url = server.create_database("faults")
        Storage(url).close()
        with running(tmp_path, tmp_path / "home", 16, 60, STUDIES_DB=url) as process:
            wait_for(lambda: n_finished(url) >= 4, process)
            server.stop("immediate")
            output = process.communicate(timeout=300)[0]
        assert process.returncode == 1, output
        assert output.splitlines()[-1].startswith("error: the study database postgresql+psycopg://dlcore:***@127.0.0.1")
        assert PASSWORD not in output and "Traceback" not in output
        server.start()
        before = [bits(t) for t in records(url) if t.state in FINISHED_STATES]
        gone_on(tmp_path, tmp_path / "home", 16, 60, STUDIES_DB=url)
        after = records(url)
        assert len(before) >= 4 and [bits(t) for t in after][: len(before)] == before
        assert results(after) == whole(16, 60)


def test_a_training_process_that_is_killed_for_want_of_memory_costs_nothing(tmp_path: Path) -> None:
    """The kernel's way to make room is SIGKILL; the population is trained again in smaller parts."""
    home = tmp_path / "home"
    url = f"sqlite:///{home / 'studies.db'}"

    def in_training(process: "subprocess.Popen[str]") -> int | None:
        """Id of a process that trains a part of a population, and has done so for a while."""
        children: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(process.pid).children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.Error):
                if "dlcore.workers" in str(child.cmdline()) and child.cpu_times().user > 3:
                    return child.pid
        return None

    # Nobody is pruned: with a member or two left, no other process would have anything to do.
    with running(tmp_path, home, 4, 1000, halving="false", OMP_NUM_THREADS="2") as process:
        wait_for(lambda: in_training(process) is not None, process)
        found_pid = in_training(process)
        assert found_pid is not None
        os.kill(found_pid, signal.SIGKILL)
        output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "Traceback" not in output
    found = records(url)
    assert [t.number for t in found] == list(range(4)) and {t.state for t in found} <= set(FINISHED_STATES)


def test_a_driver_that_is_killed_leaves_a_study_that_goes_on_and_nothing_to_mend(
    tmp_path: Path, studies: Studies, whole: Whole
) -> None:
    home = tmp_path / "home"
    url = f"sqlite:///{home / 'studies.db'}"
    with running(tmp_path, home, 12, 60) as process:
        wait_for(lambda: (home / "studies.db").exists() and n_finished(url) >= 4, process)
        process.kill()
    answer = studies("doctor", "wine", "--repair", home=home, MLFLOW_TRACKING_URI=NOBODY)
    assert answer.returncode == 0, answer.stdout
    told = [t for t in records(url) if t.state in FINISHED_STATES]
    gone_on(tmp_path, home, 12, 60)
    assert [replace(t) for t in records(url)][: len(told)] == told
    assert results(records(url)) == whole(12, 60)


# ---- too little memory, where nobody is killed for it

HUGE = """
study = "huge"
budget = { trials = 4 }
data = { source = "sklearn:wine" }
search = { cohort = 4 }
training = { epochs = 2 }
search_space = { width = 40000, depth = 2, learning_rate = { low = 1e-3, high = 1e-2, log = true } }
"""


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=["driver", "workers"])
def test_networks_that_do_not_fit_are_said_in_one_line_and_nothing_is_wrong(
    tmp_path: Path, studies: Studies, more: tuple[str, ...]
) -> None:
    (tmp_path / "huge.toml").write_text(HUGE)
    home = tmp_path / "home"
    answer = limited(tmp_path, home, "-v 7000000", "run", "huge.toml", *more)  # one matrix takes 6.4 GB
    assert answer.returncode == 1, answer.stdout + answer.stderr
    line = answer.stderr.splitlines()[-1]
    assert line.startswith("error: ") and "there is too little memory (6400000000 bytes were asked for)" in line
    assert "Traceback" not in answer.stderr
    looked = studies("doctor", "huge", "--repair", home=home, MLFLOW_TRACKING_URI=NOBODY)
    assert looked.returncode == 0, looked.stdout


SHORT = """
from studies import cohort
from studies.cli import main
train = cohort.Trainer.train

def short(self, suggestions, cohort, *rest):
    if cohort == 1:
        raise MemoryError
    yield from train(self, suggestions, cohort, *rest)

cohort.Trainer.train = short
main()
"""


def test_memory_that_runs_short_in_the_middle_loses_nothing(tmp_path: Path, whole: Whole) -> None:
    home, url = tmp_path / "home", f"sqlite:///{tmp_path / 'home' / 'studies.db'}"
    (tmp_path / "wine.toml").write_text(SPEC.format(trials=8, epochs=60, halving=HALVING))
    environment = studies_environment(home) | {"MLFLOW_TRACKING_URI": NOBODY}
    command = [sys.executable, "-c", SHORT, "run", "wine.toml"]
    answer = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert answer.returncode == 1, answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("error: there is too little memory; nothing that was recorded")
    assert "Traceback" not in answer.stderr
    told = [bits(t) for t in records(url) if t.state in FINISHED_STATES]
    assert len(told) == 4
    gone_on(tmp_path, home, 8, 60)
    assert [bits(t) for t in records(url)][:4] == told
    assert results(records(url)) == whole(8, 60)


# ---- clocks that jump

FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


@pytest.mark.parametrize(("jump", "workers"), [("+1h", "1"), ("-1h", "1"), ("+400d", "2"), ("-1h", "2")])
def test_a_clock_that_jumps_neither_ends_nor_doubles_nor_changes_a_study(
    tmp_path: Path, jump: str, workers: str, whole: Whole
) -> None:
    """The clock of the machine, and so of SQLite; the one that counts seconds since the start is nobody's to set."""
    if not FAKETIME:
        pytest.skip("libfaketime is not installed, by which a process alone can be shown another clock")
    home, url, clock = tmp_path / "home", f"sqlite:///{tmp_path / 'home' / 'studies.db'}", tmp_path / "clock"
    clock.write_text("+0\n")
    faked = {
        "LD_PRELOAD": str(FAKETIME[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with running(tmp_path, home, 16, 60, workers=workers, **faked) as process:
        wait_for(lambda: (home / "studies.db").exists() and n_finished(url) >= 4, process)
        clock.write_text(f"{jump}\n")
        output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "was given to another" not in output
    found = records(url)
    assert [t.number for t in found] == list(range(16)) and {t.state for t in found} <= set(FINISHED_STATES)
    seconds = [t.started_at for t in found if t.started_at is not None]
    assert max(seconds) - min(seconds) > 3000  # it did jump
    if workers == "1":
        assert results(found) == whole(16, 60)
