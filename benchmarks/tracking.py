"""How fast runs get into MLflow, and what that costs a study.

The same runs of about 90 metric points are written by SQL, by REST, and by MLflow's own client run by run (create_run,
one log_batch, update), in turn, to one tracking server of a home of its own. Then the same study runs with tracking
off, by SQL, by REST, and towards a server that accepts and never answers.

    python -m benchmarks.tracking
    python -m benchmarks.tracking --runs 256 --repeats 5 --study-repeats 7 --record
"""

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.record import provenance, record, table
from studies import runs, server
from studies.comparison import compare
from studies.mirrored import MirroredStudy
from studies.mlflow_rest import RestStore
from studies.mlflow_sql import SqlStore
from studies.records import COMPLETE, EpochRecord, Objective, StudyFacts, TrialRecord
from studies.tracking import READ_AT_ONCE
from studies.tracking_store import TrackingStore

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


def make_records(n: int) -> list[TrialRecord]:
    names = ("depth", "width", "activation", "initialization", "learning_rate", "momentum", "dropout", "optimizer")
    made = []
    for number in range(n):
        began = 1_700_000_000.0 + number
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


def rate(store: TrackingStore, records: Sequence[TrialRecord]) -> tuple[float, float]:
    """Runs per second from records to rows, and seconds of comparing them with what was written."""
    facts = make_facts()
    study = MirroredStudy(store, facts, lambda numbers: [records[number] for number in numbers])
    began = time.perf_counter()
    for start in range(0, len(records), READ_AT_ONCE):
        written = study.write_trials(records[start : start + READ_AT_ONCE])
        assert all(not one.refused for some in written for one in some)
        study.write_best()
    seconds = time.perf_counter() - began
    study.end("FINISHED")
    began = time.perf_counter()
    found = compare(store, facts, range(len(records)), lambda numbers: [records[number] for number in numbers])
    assert not found, found[0]
    return len(records) / seconds, time.perf_counter() - began


def client_rate(address: str, records: Sequence[TrialRecord]) -> float:
    facts = make_facts()
    wanted = [dataclasses.asdict(runs.trial_run(facts, one)) for one in records]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    answer = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps([address, facts.name, wanted]), capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    return float(answer.stdout.split()[-1])


def measure_rates(home: Path, n_runs: int, repeats: int) -> str:
    """A table of runs per second."""
    address = server.find_or_start(home, port=0).address
    records = make_records(n_runs)
    n_points = len(runs.trial_run(make_facts(), records[0]).metrics)
    found: dict[str, list[float]] = {"sql": [], "rest": [], "client": []}
    compared: dict[str, list[float]] = {"sql": [], "rest": []}
    for _ in range(repeats):
        stores: dict[str, TrackingStore] = {
            "sql": SqlStore(home.resolve() / "mlflow.db", home / "artifacts", address),
            "rest": RestStore(address),
        }
        for name, store in stores.items():
            own = records if name == "sql" else records[:N_REST]
            per_s, seconds = rate(store, own)
            found[name].append(per_s)
            compared[name].append(1000 * seconds / len(own))
            store.close()
        found["client"].append(client_rate(address, records[:N_REST]))
        print(", ".join(f"{name} {values[-1]:.1f} runs/s" for name, values in found.items()), flush=True)
    usual = statistics.median(found["client"])
    names = {"sql": "by SQL", "rest": "by REST", "client": "MLflow's client, run by run"}
    rows = []
    for name, values in found.items():
        middle = statistics.median(values)
        reading = f"{statistics.median(compared[name]):.1f}" if name in compared else ""
        rows.append(
            [names[name], *(f"{v:.1f}" for v in (min(values), middle, max(values))), f"{middle / usual:.1f}", reading]
        )
    header = [
        f"runs/s, {n_points} points a run",
        "min",
        "median",
        "max",
        "against the client",
        "compared in s per 1,000",
    ]
    return table(header, rows)


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """Address of a server that accepts every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def study_seconds(home: Path, spec: Path, n_trials: int, address: str | None) -> tuple[float, float, float]:
    """Seconds of the search alone, of the whole command, and of processors for the command without the server."""
    environment = {**os.environ, "STUDIES_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    for name in ("STUDIES_DB", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    if address is not None:
        environment["MLFLOW_TRACKING_URI"] = address
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    planned = searched = began
    command = [sys.executable, "-m", "studies", "run", str(spec)]
    lines = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
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
    """A table of a study's seconds with tracking off and on."""
    address = server.find_or_start(home, port=0).address
    with black_hole() as hole:
        cases = {"off": NOBODY, "by SQL": None, "by REST": address, "to a server that never answers": hole}
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in cases}
        for repeat in range(repeats):
            for i, (name, where) in enumerate(cases.items()):
                spec = home / f"study-{repeat}-{i}.toml"
                spec.write_text(SPEC.format(name=f"study-{repeat}-{i}", trials=n_trials))
                found[name].append(study_seconds(home, spec, n_trials, where))
            print(", ".join(f"{name} {seconds[-1][0]:.2f} s" for name, seconds in found.items()), flush=True)
    rows = []
    base = statistics.median(search for search, *_ in found["off"])
    for name, seconds in found.items():
        search, whole, busy = (statistics.median(one[i] for one in seconds) for i in range(3))
        rows.append([name, f"{search:.2f}", f"{100 * (search / base - 1):+.1f} %", f"{whole:.2f}", f"{busy:.2f}"])
    return table(["tracking", f"search of {n_trials} trials, s", "growth", "whole command, s", "its CPU, s"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=512, help="runs per turn by SQL")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trials", type=int, default=128, help="of the study")
    parser.add_argument("--study-repeats", type=int, default=5, help="0 leaves the studies out")
    parser.add_argument("--record", action="store_true", help="put the tables into RESULTS.md")
    arguments = parser.parse_args()
    print(provenance(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            parts = [measure_rates(home, arguments.runs, arguments.repeats)]
            if arguments.study_repeats:
                parts.append(measure_studies(home, arguments.trials, arguments.study_repeats))
        finally:
            server.stop(home)
    text = "\n\n".join(parts)
    print(f"\n{text}")
    if arguments.record:
        words = (
            f"Medians of {arguments.repeats} turns, one server with one worker process on SQLite, "
            f"{arguments.runs} runs a turn by SQL and {N_REST} by REST and by the client. From trial records to rows; "
            f"the studies: digits, 30 epochs, default halving, {arguments.study_repeats} turns, server warm; the "
            "search is timed from the plan to the last trial, the whole command waits for the mirror."
        )
        record("Tracking", f"{words}\n\n{text}")


if __name__ == "__main__":
    main()
