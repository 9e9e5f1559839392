"""How fast runs get into MLflow, and what that costs a study.

The same runs of about 90 metric points are written by SQL, by REST, and by MLflow's own client run by run (create_run,
one log_batch, update), in turn: to the tracking server of a home, which has one worker, and (but for SQL) to one that
has four, as MLflow starts it. Then the same study runs without a mirror, by SQL, by REST with the server on the same
cores, and towards servers that fail in five ways; the growth is that over the study without a mirror of the same turn.

    python -m benchmarks.tracking
    python -m benchmarks.tracking --repeats 0 --trials 512 --study-repeats 7
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks.record import provenance, record, table
from studies import runs, server
from studies.comparison import compare
from studies.mirrored import MirroredStudy
from studies.mlflow_rest import RestStore
from studies.mlflow_sql import SqlStore
from studies.records import COMPLETE, EpochRecord, Objective, StudyFacts, TrialRecord
from studies.tracking import READ_AT_ONCE
from studies.tracking_store import TrackingStore
from tests.studies.mirror_tools import TcpProxy

EPOCHS = 20
N_REST = 48
"""Runs per turn by REST and by the client, which are slow."""
NOBODY = "http://127.0.0.1:9"
SPEC = """
study = "{name}"
seed = 1
budget = {{ trials = {trials} }}
data = {{ source = "sklearn:digits" }}
training = {{ epochs = 30 }}
"""

UNMIRRORED = """
import contextlib, sys
from studies import cli, storage

@contextlib.contextmanager
def leading(self, study):
    yield lambda: False

storage.Storage.leading = leading
cli.main()
"""

CLIENT = """
import json, sys, time
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
address, name, runs = json.load(sys.stdin)
client = MlflowClient(address)
experiment = client.create_experiment(name)
parent = client.create_run(experiment).info.run_id
began = time.perf_counter()
for run in runs:
    tags = {**run["tags"], "mlflow.parentRunId": parent}
    run_id = client.create_run(experiment, run["start_ms"], tags, run["name"]).info.run_id
    client.log_batch(run_id, [Metric(*m) for m in run["metrics"]], [Param(*p) for p in run["params"].items()], [])
    client.update_run(run_id, run["status"])
print(len(runs) / (time.perf_counter() - began))
"""


def make_facts() -> StudyFacts:
    identity = uuid.uuid4().hex
    return StudyFacts(
        name=f"benchmark-{identity[:8]}",
        uuid=identity,
        spec={"study": "benchmark", "training": {"epochs": EPOCHS}},
        objectives=(Objective("accuracy", "maximize"),),
        task="multiclass",
        curve_metric="accuracy",
        cohort_size=READ_AT_ONCE,
        n_features=64,
        n_outputs=10,
        data_name="digits",
        data_fingerprint="0" * 64,
        environment={},
        created_at=1_700_000_000.0,
    )


def make_records(n: int, study: int) -> list[TrialRecord]:
    """Trials of a second each; a study begins after the one before it, as those of one machine do."""
    names = ("depth", "width", "activation", "initialization", "learning_rate", "momentum", "dropout", "optimizer")
    made = []
    for number in range(n):
        began = 1_700_000_000.0 + 10_000 * study + number
        epochs = range(1, EPOCHS + 1)
        made.append(
            TrialRecord(
                number=number,
                state=COMPLETE,
                hyperparameters={name: number + i / 7 for i, name in enumerate(names)},
                searched=names,
                cohort=number // READ_AT_ONCE,
                n_parameters=4810,
                values=(1 - 1 / (number + 2),),
                curve=tuple(EpochRecord(e, 1 / e, 1.1 / e, 1 - 0.9 / e, 0.1, began + e / 100) for e in epochs),
                best_epoch=EPOCHS,
                best_val_loss=1.1 / EPOCHS,
                started_at=began,
                finished_at=began + 1,
                duration_s=1.0,
                samples_per_s=1e5,
                engine="population",
                population_size=16,
                device="cpu",
                peak_memory_bytes=1 << 28,
            )
        )
    return made


def processor_s(pid: int) -> float:
    """Seconds of processors that a server has used, with its workers."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in family)


def rate(store: TrackingStore, records: Sequence[TrialRecord], pid: int) -> tuple[float, float, float]:
    """Runs per second from records to rows, the server's milliseconds of processors for each, and the seconds of
    comparing them with what was written."""
    facts = make_facts()
    study = MirroredStudy(store, facts, lambda numbers: [records[number] for number in numbers])
    busy, began = processor_s(pid), time.perf_counter()
    for start in range(0, len(records), READ_AT_ONCE):
        written = study.write_trials(records[start : start + READ_AT_ONCE])
        assert all(not one.refused for some in written for one in some)
    study.write_best()
    seconds, busy = time.perf_counter() - began, processor_s(pid) - busy
    study.end("FINISHED")
    began = time.perf_counter()
    found = compare(store, facts, range(len(records)), lambda numbers: [records[number] for number in numbers])
    assert not found, found[0]
    return len(records) / seconds, 1000 * busy / len(records), time.perf_counter() - began


def client_rate(address: str, records: Sequence[TrialRecord]) -> float:
    facts = make_facts()
    wanted = [dataclasses.asdict(runs.trial_run(facts, one)) for one in records]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    answer = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps([address, facts.name, wanted]), capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    return float(answer.stdout.split()[-1])


@contextlib.contextmanager
def usual_server(folder: Path) -> Iterator[tuple[str, int]]:
    """Address and process of a server of four workers, as `mlflow server` starts them, on SQLite."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "4"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'usual.db'}", "--artifacts-destination", str(folder)]
    with subprocess.Popen(
        [*command, "--uvicorn-opts", "--no-access-log"],
        env=os.environ | server.SETTINGS, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(20):  # until every worker has started and imported what it needs
                request = urllib.request.Request(
                    f"{address}/api/2.0/mlflow/experiments/search", b'{"max_results": 1}',
                    {"Content-Type": "application/json"},
                )  # fmt: skip
                while True:
                    with contextlib.suppress(OSError):
                        urllib.request.urlopen(request, timeout=60).close()
                        break
                    if process.poll() is not None:
                        raise SystemExit("mlflow server ended")
                    time.sleep(0.2)
            yield address, process.pid
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def measure_rates(home: Path, n_runs: int, repeats: int) -> str:
    """A table of runs per second."""
    own = server.find_or_start(home, port=0, timeout_s=300)
    n_points = len(runs.trial_run(make_facts(), make_records(1, 0)[0]).metrics)
    begun = itertools.count()
    found: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, usual_server(Path(folder)) as usual:
        servers = {"one worker": (own.address, own.pid), "four workers": usual}
        for _ in range(repeats + 1):
            turn = {}
            stores: dict[str, TrackingStore] = {f"by REST, {name}": RestStore(of[0]) for name, of in servers.items()}
            stores["by SQL, one worker"] = SqlStore(home.resolve() / "mlflow.db", home / "artifacts", own.address)
            for name, store in sorted(stores.items()):
                some = make_records(n_runs if name.startswith("by SQL") else N_REST, next(begun))
                per_s, busy, seconds = rate(store, some, servers[name.partition(", ")[2]][1])
                turn[name] = per_s, busy, 1000 * seconds / len(some)
                store.close()
            for name, (address, pid) in servers.items():
                busy = processor_s(pid)
                per_s = client_rate(address, make_records(N_REST, next(begun)))
                turn[f"MLflow's client run by run, {name}"] = per_s, 1000 * (processor_s(pid) - busy) / N_REST, math.nan
            print(", ".join(f"{name} {per_s:.1f} runs/s" for name, (per_s, *_) in turn.items()), flush=True)
            for name, figures in turn.items():  # a server's first turn is slower, and left out
                found.setdefault(name, []).append(figures)
    rows = []
    for name, figures in found.items():
        rivals = found[f"MLflow's client run by run, {name.partition(', ')[2]}"]
        per_s, busy, compared = zip(*figures[1:], strict=True)
        ratio = statistics.median(v / rival[0] for v, rival in zip(per_s, rivals[1:], strict=True))
        shown = [f"{v:.1f}" for v in (min(per_s), statistics.median(per_s), max(per_s), ratio, statistics.median(busy))]
        reading = statistics.median(compared)
        rows.append([name, *shown, "" if math.isnan(reading) else f"{reading:.1f}"])
    header = [f"runs/s, {n_points} points a run", "min", "median", "max", "against the client of that server"]
    return table([*header, "server's CPU, ms a run", "compared in s per 1,000"], rows)


@contextlib.contextmanager
def failing(upstream: str, fault: str, share: float = 1.0) -> Iterator[str]:
    """Address of a server whose replies get lost, come late, or are errors."""
    rng, proxy = random.Random(0), TcpProxy(upstream)
    proxy.fault = lambda: fault if rng.random() < share else None
    try:
        yield proxy.address
    finally:
        proxy.close()


def study_seconds(home: Path, spec: Path, n_trials: int, address: str | None) -> tuple[float, float, float]:
    """Seconds of the search alone, of the whole command, and of processors for the command without the server.

    The address is that of the tracking server; "" leaves the mirror away, None is the home's own server.
    """
    environment = {**os.environ, "STUDIES_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    for name in ("STUDIES_DB", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    if address:
        environment["MLFLOW_TRACKING_URI"] = address
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    planned = searched = began
    program = ["-c", UNMIRRORED] if address == "" else ["-m", "studies"]
    lines = []
    with subprocess.Popen(
        [sys.executable, *program, "run", str(spec)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("home"):
                planned = time.monotonic()
            if line.startswith(f"{n_trials}/{n_trials} trials"):
                searched = time.monotonic()
    if process.returncode != 0 or searched == began:
        raise SystemExit("".join(lines))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return searched - planned, time.monotonic() - began, busy


def measure_studies(home: Path, n_trials: int, repeats: int) -> str:
    """A table of a study's seconds without a mirror and with one."""
    address = server.find_or_start(home, port=0, timeout_s=300).address
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    with (
        failing(address, "hang") as hanging,
        failing(address, "slow") as slow,
        failing(address, "500") as broken,
        failing(address, "lose", 0.3) as losing,
    ):
        cases = {
            "none": "",
            "by SQL": None,
            "by REST, the server on the same cores": address,
            "server down": NOBODY,
            "server hanging": hanging,
            "server slow, 10 s an answer": slow,
            "server replying with errors": broken,
            "server losing 3 of 10 replies": losing,
        }
        for repeat in range(repeats):
            order = list(cases)[repeat % len(cases) :] + list(cases)[: repeat % len(cases)]
            for name in order:
                spec = home / f"study-{repeat}-{list(cases).index(name)}.toml"
                spec.write_text(SPEC.format(name=spec.stem, trials=n_trials))
                found[name].append(study_seconds(home, spec, n_trials, cases[name]))
            print(", ".join(f"{name} {found[name][-1][0]:.2f} s" for name in cases), flush=True)
    rows = []
    for name in cases:
        search, whole, busy = (statistics.median(one[i] for one in found[name]) for i in range(3))
        growth = [100 * (own[0] / base[0] - 1) for own, base in zip(found[name], found["none"], strict=True)]
        span = f"{min(growth):+.1f} to {max(growth):+.1f} %"
        rows.append([name, f"{search:.2f}", f"{statistics.median(growth):+.1f} %", span, f"{whole:.2f}", f"{busy:.2f}"])
    header = [
        "mirror",
        f"search of {n_trials} trials, s",
        "growth",
        "of single turns",
        "whole command, s",
        "its CPU, s",
    ]
    return table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=512, help="runs per turn by SQL")
    parser.add_argument("--repeats", type=int, default=5, help="of rates; 0 leaves them out")
    parser.add_argument("--trials", type=int, default=512, help="of the study")
    parser.add_argument("--study-repeats", type=int, default=5, help="0 leaves the studies out")
    parser.add_argument("--record", action="store_true", help="put the tables into RESULTS.md")
    arguments = parser.parse_args()
    print(provenance(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            parts = [measure_rates(home, arguments.runs, arguments.repeats)] if arguments.repeats else []
            if arguments.study_repeats:
                parts.append(measure_studies(home, arguments.trials, arguments.study_repeats))
        finally:
            server.stop(home)
    text = "\n\n".join(parts)
    print(f"\n{text}")
    if arguments.record:
        words = (
            f"Medians of {arguments.repeats} turns, both servers on SQLite, {arguments.runs} runs a turn by SQL and "
            f"{N_REST} by REST and by the client. From trial records to rows; the studies: digits, 30 epochs, default "
            f"halving, {arguments.study_repeats} turns, server warm; the search is timed from the plan to the last "
            "trial, the whole command waits for the mirror, or five seconds where no server answers. A run is three "
            "requests by REST and by the client alike. One worker is one interpreter: it writes no more runs than its "
            "milliseconds of processor allow, whoever asks; with several workers, runs are written side by side."
        )
        record("Tracking", f"{words}\n\n{text}")


if __name__ == "__main__":
    main()
