"""Worker processes: real ones, on small studies, with both databases."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from studies.crew import Crew
from studies.errors import StudiesError
from studies.home import Home
from studies.records import FINISHED_STATES, EpochDone
from studies.runner import Run
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.conftest import studies_environment
from tests.postgres import PASSWORD
from tests.studies.conftest import NOBODY, SMALL_SPEC, Lines

pytestmark = pytest.mark.slow

SPEC = SMALL_SPEC | {"budget": {"trials": 12}}
LONG = SPEC | {"training": {"epochs": 3000, "batch_size": 8, "patience": False}}


def home_at(root: Path, url: str) -> Home:
    root.mkdir(exist_ok=True)
    return Home(root, url, NOBODY)


def start(home: Home, display: Lines, spec: dict[str, object] = SPEC, n_workers: int = 3) -> Run:
    return Run(spec_from_dict(spec), home, Storage(home.database_url), display, n_workers=n_workers)


def family() -> list[psutil.Process]:
    """The living workers of this process; one that ends while it is looked at is none of them."""
    living = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # also a zombie, whose command line is gone
            if "studies.worker" in child.cmdline():
                living.append(child)
    return living


def wait_for(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def commanded(tmp_path: Path, url: str, spec: str, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """`studies run` in a process of its own."""
    (tmp_path / "wine.toml").write_text(spec)
    environment = studies_environment(tmp_path / "home") | {"STUDIES_DB": url, "MLFLOW_TRACKING_URI": NOBODY}
    with subprocess.Popen(
        [sys.executable, "-m", "studies", "run", "wine.toml", *words], cwd=tmp_path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


TOML = 'study = "wine"\nseed = 1\nbudget = {{ trials = 12 }}\n[data]\nsource = "sklearn:wine"\n[search]\ncohort = 3\n'
TOML += "halving = {{ first_rung = 2, reduction_factor = 2 }}\n[training]\nepochs = {epochs}\nbatch_size = {batch}\n"
TOML += "patience = false\n"


def test_workers_finish_a_study_and_each_trials_curve_is_what_it_would_have_been(
    tmp_path: Path, database_url: str, display: Lines
) -> None:
    home = home_at(tmp_path / "home", database_url)
    run = start(home, display)
    outcome = run.execute(None)
    assert outcome.n_new == 12 and [t.number for t in outcome.trials] == list(range(12))
    assert all(t.state in FINISHED_STATES for t in outcome.trials)
    assert outcome.export.winner.number in range(12)
    trials = run.storage.records("wine", has_curves=True)
    assert {t.cohort for t in trials} == {0, 1, 2, 3}
    assert run.storage.falsified("wine") == [] and run.storage.others("wine") == (0, 0)
    for trial in trials:
        alone = run.trainer.retrain(trial)
        assert [e.val_loss for e in alone] == pytest.approx([e.val_loss for e in trial.curve], rel=1e-4)
    assert family() == []


def test_interrupted_workers_end_and_leave_a_study_that_goes_on(tmp_path: Path, database_url: str) -> None:
    home = home_at(tmp_path / "home", database_url)
    display = Lines()

    def interrupt(_event: EpochDone) -> None:
        display.on_epoch = lambda event: None
        os.kill(os.getpid(), signal.SIGINT)

    display.on_epoch = interrupt
    spec = SPEC | {"training": {"epochs": 300, "batch_size": 16, "patience": False}}
    run = start(home, display, spec)
    with pytest.raises(KeyboardInterrupt):
        run.execute(None)
    assert family() == []
    states = run.storage.states("wine")
    assert set(states) <= {"WAITING", "COMPLETE", "PRUNED", "FAIL"} and states["WAITING"] >= 3
    outcome = start(home, Lines(), spec).execute(None)
    assert [t.number for t in outcome.trials] == list(range(12))
    assert all(t.state in FINISHED_STATES for t in outcome.trials)


def test_a_killed_workers_cohort_is_trained_by_another(tmp_path: Path, database_url: str) -> None:
    home = home_at(tmp_path / "home", database_url)
    display = Lines()
    killed: list[int] = []

    def kill(_event: EpochDone) -> None:
        if not killed and (living := family()):
            killed.append(living[0].pid)
            living[0].kill()

    display.on_epoch = kill
    spec = SPEC | {"training": {"epochs": 300, "batch_size": 16, "patience": False}}
    outcome = start(home, display, spec).execute(None)
    assert killed and any("a worker was killed by signal 9" in line for line in display.said)
    assert [t.number for t in outcome.trials] == list(range(12))
    assert all(t.state in FINISHED_STATES for t in outcome.trials)


def test_workers_that_all_die_are_said(tmp_path: Path, database_url: str) -> None:
    home = home_at(tmp_path / "home", database_url)
    display = Lines()
    display.on_epoch = lambda event: [worker.kill() for worker in family()] and None
    run = start(home, display, LONG, n_workers=2)
    with pytest.raises(StudiesError, match="all 2 workers ended"):
        run.execute(None)
    assert "RUNNING" not in run.storage.states("wine")


def test_workers_end_with_a_driver_that_is_killed(tmp_path: Path, database_url: str) -> None:
    with commanded(tmp_path, database_url, TOML.format(epochs=100000, batch=1), "--workers", "2") as process:
        driver = psutil.Process(process.pid)
        wait_for(lambda: len(driver.children()) >= 2)
        workers = driver.children()
        storage = Storage(database_url)
        wait_for(lambda: storage.facts("wine") is not None and storage.states("wine").get("RUNNING", 0) >= 6)
        workers[0].suspend()  # a paused one cannot watch its pipe
        assert storage.release("wine") == []
        process.kill()
        process.wait()
        psutil.wait_procs(workers, timeout=30)
        assert not [w for w in workers if w.is_running() and w.status() != psutil.STATUS_ZOMBIE]
        assert len(storage.release("wine")) >= 6
        storage.close()


def test_a_second_command_in_sqlite_is_refused_in_one_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    spec = TOML.format(epochs=100000, batch=1)
    with commanded(tmp_path, url, spec, "--workers", "2") as first:
        storage = Storage(url)
        wait_for(lambda: storage.facts("wine") is not None and "RUNNING" in storage.states("wine"))
        with commanded(tmp_path, url, spec, "--workers", "2") as second:
            output = second.communicate(timeout=120)[0]
        assert second.returncode == 2
        assert output.splitlines()[-1].startswith(f'error: study "wine" is being run by process {first.pid}')
        first.send_signal(signal.SIGINT)
        output = first.communicate(timeout=60)[0]
        assert first.returncode == 130 and "interrupted; the same command goes on" in output
        assert set(storage.states("wine")) == {"WAITING"}
        storage.close()


def test_two_commands_in_postgresql_share_a_study(tmp_path: Path, postgres_url: str) -> None:
    spec = TOML.format(epochs=60, batch=16).replace("trials = 12", "trials = 36")
    (tmp_path / "other").mkdir()
    with (
        commanded(tmp_path, postgres_url, spec, "--workers", "2") as first,
        commanded(tmp_path / "other", postgres_url, spec) as second,
    ):
        outputs = [process.communicate(timeout=240)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert not [output for output in outputs if PASSWORD in output]
    storage = Storage(postgres_url)
    trials = storage.records("wine")
    assert [t.number for t in trials] == list(range(36))
    assert all(t.state in FINISHED_STATES for t in trials) and storage.falsified("wine") == []
    assert (tmp_path / "home" / "exports" / "wine" / "model.onnx").is_file()
    storage.close()


def test_no_password_is_in_any_argument(tmp_path: Path, postgres_url: str) -> None:
    with commanded(tmp_path, postgres_url, TOML.format(epochs=100000, batch=1), "--workers", "2") as process:
        driver = psutil.Process(process.pid)
        wait_for(lambda: len(driver.children()) >= 2)
        seen = [word for p in (driver, *driver.children(recursive=True)) for word in p.cmdline()]
        assert not [word for word in seen if "canary" in word]


def test_a_worker_that_cannot_begin_says_why(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_at(tmp_path / "home", database_url)
    table = tmp_path / "t.csv"
    table.write_text("a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(60)))
    run = start(home, Lines(), SPEC | {"data": {"path": str(table), "target": "y"}}, n_workers=2)
    table.unlink()
    with pytest.raises(StudiesError, match=r"all 2 workers ended.*t\.csv"):
        run.execute(None)


def test_cores_are_shared_among_workers() -> None:
    code = (
        "import sys, os; sys.argv = ['studies', 'run', 'nothing', '--workers', '4']\n"
        "from studies import cli\ncli._n_cores = lambda: 5\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    import torch; print('THREADS', torch.get_num_threads())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.splitlines()[-1] == "THREADS 1"


def test_a_worker_that_ends_before_it_hears_its_order_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen

    def ended(_words: list[str], **more: Any) -> "subprocess.Popen[str]":
        process: subprocess.Popen[str] = real([sys.executable, "-c", "raise SystemExit('no memory')"], **more)
        process.wait()
        return process

    with monkeypatch.context() as patch:
        patch.setattr("studies.crew.subprocess.Popen", ended)
        crew = Crew(Home(tmp_path, "", None), "wine", 1, None)
    assert list(crew.messages()) == [{"kind": "ended", "code": 1, "why": "no memory"}]
    crew.close()
