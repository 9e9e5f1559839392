import contextlib
import dataclasses
import hashlib
import http.client
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from studies import runs, server
from studies.records import COMPLETE, FAIL, PRUNED, EpochRecord, Objective, StudyFacts, TrialRecord, Winner
from studies.tracking import Mirror

N_EPOCHS = 5


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tracking") / "mlruns"
    server.find_or_start(folder, port=5400)
    yield folder
    server.stop(folder)


@pytest.fixture
def facts(request: pytest.FixtureRequest) -> StudyFacts:
    digest = hashlib.sha256(request.node.name.encode()).hexdigest()
    return StudyFacts(
        name=f"study.{digest[:8]}",
        uuid=digest[:32],
        spec={"study": "x", "budget": {"trials": 8}, "training": {"epochs": N_EPOCHS}},
        objectives=(Objective("accuracy", "maximize"),),
        task="binary",
        curve_metric="accuracy",
        cohort_size=4,
        n_features=2,
        n_outputs=1,
        data_name="csv",
        data_fingerprint="0" * 64,
        environment={"torch": "2.13.0"},
        created_at=1_700_000_000.0,
    )


def a_record(number: int) -> TrialRecord:
    began = 1_700_000_000.0 + 100 * number
    state = (COMPLETE, PRUNED, COMPLETE, FAIL)[number % 4]
    curve = [EpochRecord(e, 1 / e, 1.5 / e, 1 - 0.5 / e, 0.1, began + e) for e in range(1, N_EPOCHS + 1)]
    if state == FAIL:
        curve[-1] = dataclasses.replace(curve[-1], train_loss=math.nan)
    return TrialRecord(
        number=number,
        state=state,
        hyperparameters={"depth": number, "activation": "relu"},
        searched=("depth",),
        cohort=number // 4,
        n_parameters=10 + number,
        values=None if state == FAIL else (0.5 + number / 1000,),
        reason="diverged" if state == FAIL else None,
        curve=tuple(curve),
        best_epoch=None if state == FAIL else N_EPOCHS,
        started_at=began,
        finished_at=began + 50,
        duration_s=50.0,
    )


def read(numbers: Sequence[int]) -> list[TrialRecord]:
    return [a_record(number) for number in numbers]


def address_of(home: Path) -> Callable[[], str]:
    return lambda: server.find_or_start(home, port=5400).address


@contextlib.contextmanager
def mirroring(address: Callable[[], str], facts: StudyFacts, **how: bool) -> Iterator[Mirror]:
    mirror = Mirror(address, facts, read, **how)
    mirror.start()
    try:
        yield mirror
    finally:
        mirror.close()


def rows(home: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(home / "mlflow.db")) as database:
        return database.execute(query, values).fetchall()


def contents(home: Path) -> str:
    """sha256 over every row of every table."""
    tables = [name for (name,) in rows(home, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    text = [(table, sorted(map(repr, rows(home, f'SELECT * FROM "{table}"')))) for table in tables]
    return hashlib.sha256(repr(text).encode()).hexdigest()


def trial_runs(home: Path, facts: StudyFacts) -> dict[str, list[str]]:
    """Key of each trial -> ids of its runs that are not deleted."""
    found: dict[str, list[str]] = {}
    query = """SELECT t.value, t.run_uuid FROM tags t JOIN runs r USING (run_uuid)
               WHERE t.key = 'dlcore.key' AND t.value LIKE ? AND r.lifecycle_stage = 'active'"""
    for key, run_id in rows(home, query, f"{facts.uuid}:%"):
        found.setdefault(str(key), []).append(str(run_id))
    return found


def parents(home: Path, facts: StudyFacts) -> list[str]:
    query = """SELECT r.run_uuid FROM tags t JOIN runs r USING (run_uuid)
               WHERE t.key = 'dlcore.study' AND t.value = ? AND r.lifecycle_stage = 'active'"""
    return [str(run_id) for (run_id,) in rows(home, query, facts.uuid)]


def assert_complete(home: Path, facts: StudyFacts, n_trials: int) -> None:
    """Every trial has one run, with its status and every point of its curves once; the study has one run."""
    found = trial_runs(home, facts)
    assert set(found) == {f"{facts.uuid}:{number}" for number in range(n_trials)}
    (parent,) = parents(home, facts)
    for number in range(n_trials):
        (run_id,) = found[f"{facts.uuid}:{number}"]
        wanted = runs.trial_run(facts, a_record(number))
        points = rows(home, "SELECT key, value, timestamp, step FROM metrics WHERE run_uuid = ?", run_id)
        assert sorted(points) == sorted((p.key, p.value, p.timestamp, p.step) for p in wanted.metrics)
        assert dict(rows(home, "SELECT key, value FROM params WHERE run_uuid = ?", run_id)) == wanted.params
        tags = dict(rows(home, "SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
        expected = {"mlflow.parentRunId": parent, "mlflow.runName": wanted.name, "dlcore.mirrored": wanted.checksum}
        assert tags == {**wanted.tags, **expected}
        (row,) = rows(home, "SELECT status, start_time, end_time FROM runs WHERE run_uuid = ?", run_id)
        assert row == (wanted.status, wanted.start_ms, wanted.end_ms)


# --- without a server ---


def test_a_dead_server_holds_nobody_up_and_is_said(facts: StudyFacts) -> None:
    with mirroring(lambda: "http://127.0.0.1:9", facts) as mirror:
        began = time.monotonic()
        mirror.put(range(1000))
        mirror.show({"epoch": 1})
        assert time.monotonic() - began < 0.1
        assert not mirror.finish("FINISHED", timeout_s=0.3)
        assert time.monotonic() - began < 2
        assert mirror.pending == 1000
        assert mirror.error is not None and "does not answer" in mirror.error


def test_an_address_that_cannot_be_had_ends_no_study(facts: StudyFacts) -> None:
    def address() -> str:
        raise RuntimeError("no server")

    with mirroring(address, facts) as mirror:
        mirror.put([0])
        assert not mirror.finish("FINISHED", timeout_s=0.2)
        assert mirror.error == "RuntimeError: no server"


def test_a_closed_mirror_and_an_idle_one_end_at_once(facts: StudyFacts) -> None:
    mirror = Mirror(lambda: "http://127.0.0.1:9", facts, read)
    mirror.start()
    mirror.close()
    assert mirror._thread is not None and not mirror._thread.is_alive()
    assert not mirror.finish("KILLED", timeout_s=None)


def test_ctrl_c_ends_the_waiting(facts: StudyFacts) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with mirroring(lambda: "http://127.0.0.1:9", facts) as mirror:
            mirror.put([0])
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                mirror.finish("FINISHED", timeout_s=None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_importing_it_imports_no_mlflow() -> None:
    code = "import sys, studies.tracking; sys.exit(bool({'mlflow', 'onnxruntime', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- with one ---


@pytest.mark.slow
def test_every_trial_has_one_run_and_writing_twice_changes_no_row(home: Path, facts: StudyFacts) -> None:
    with mirroring(address_of(home), facts) as mirror:
        mirror.show({"cohort": 1, "epoch": 3})
        mirror.put(range(20))
        assert mirror.finish("FINISHED", 60), mirror.error
        assert (mirror.pending, mirror.error) == (0, None)
    assert_complete(home, facts, 20)
    (parent,) = parents(home, facts)
    best = rows(
        home, "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = 'best_accuracy' ORDER BY step", parent
    )
    assert [step for step, _ in best] == list(range(1, 21))
    assert best[-1] == (20, 0.518)
    tags = dict(rows(home, "SELECT key, value FROM tags WHERE run_uuid = ?", parent))
    assert not any(str(key).startswith("dlcore.now.") for key in tags)
    assert {str(key) for key in tags if str(key).startswith("mlflow.")} == {"mlflow.runName"}
    before = contents(home)
    for is_thorough in (False, True):
        with mirroring(address_of(home), facts, is_thorough=is_thorough) as mirror:
            mirror.put(range(20))
            assert mirror.finish("FINISHED", 60), mirror.error
        assert contents(home) == before


@pytest.mark.slow
def test_a_study_that_goes_on_adds_only_what_is_new(home: Path, facts: StudyFacts) -> None:
    for n_trials in (3, 6):
        with mirroring(address_of(home), facts) as mirror:
            mirror.put(range(n_trials))
            assert mirror.finish("FINISHED", 60), mirror.error
        assert_complete(home, facts, n_trials)


@pytest.mark.slow
def test_what_was_half_written_doubled_deleted_or_changed_is_mended(home: Path, facts: StudyFacts) -> None:
    with mirroring(address_of(home), facts) as mirror:
        mirror.put(range(6))
        assert mirror.finish("FINISHED", 60), mirror.error
        address, experiment, parent = mirror.address, mirror.experiment_id, mirror.parent_run_id
    ids = {number: trial_runs(home, facts)[f"{facts.uuid}:{number}"][0] for number in range(6)}
    assert address is not None
    post(address, "runs/delete-tag", run_id=ids[0], key="dlcore.mirrored")
    post(address, "runs/delete", run_id=ids[1])
    post(address, "runs/set-tag", run_id=ids[2], key="mlflow.parentRunId", value="lost")
    post(address, "runs/set-tag", run_id=ids[3], key="dlcore.mirrored", value="other contents")
    tags = [{"key": "dlcore.key", "value": f"{facts.uuid}:4"}, {"key": "mlflow.parentRunId", "value": parent}]
    post(address, "runs/create", experiment_id=experiment, start_time=1, tags=tags)
    post(address, "runs/create", experiment_id=experiment, tags=[{"key": "dlcore.study", "value": facts.uuid}])
    with mirroring(address_of(home), facts, is_thorough=True) as mirror:
        mirror.put(range(6))
        assert mirror.finish("FINISHED", 60), mirror.error
        assert mirror.parent_run_id == parent
    assert_complete(home, facts, 6)


def post(address: str, path: str, **body: object) -> dict[str, object]:
    host = address.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(host, timeout=20)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), headers)
        reply = connection.getresponse()
        text = reply.read()
        assert reply.status == 200, text
        return dict(json.loads(text))


@pytest.mark.slow
def test_a_name_that_others_have_is_left_to_them_and_a_deleted_experiment_comes_back(
    home: Path, facts: StudyFacts
) -> None:
    address = address_of(home)()
    post(address, "experiments/create", name=facts.name)
    for _ in range(2):
        with mirroring(lambda: address, facts) as mirror:
            mirror.put([0])
            assert mirror.finish("FINISHED", 60), mirror.error
            experiment = mirror.experiment_id
        (row,) = rows(home, "SELECT name, lifecycle_stage FROM experiments WHERE experiment_id = ?", experiment)
        assert row == (f"{facts.name}-{facts.uuid[:8]}", "active")
        assert_complete(home, facts, 1)
        post(address, "experiments/delete", experiment_id=experiment)


@pytest.mark.slow
def test_a_trial_that_cannot_be_shown_is_left_out_and_said(home: Path, facts: StudyFacts) -> None:
    def without_one(numbers: Sequence[int]) -> list[TrialRecord]:
        return [a_record(number) for number in numbers if number != 1]

    mirror = Mirror(address_of(home), facts, without_one)
    mirror.start()
    mirror.put(range(3))
    assert not mirror.finish("FINISHED", 30)
    assert mirror.pending == 1
    assert mirror.error is not None and "trial 1 must be in the study database" in mirror.error
    mirror.close()
    assert len(trial_runs(home, facts)) == 2


class LossyProxy:
    """Passes requests on to a server, and loses some replies after the server has done its work."""

    def __init__(self, upstream: str, lost: Mapping[str, int]) -> None:
        self.lost = dict(lost)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                host = upstream.removeprefix("http://")
                with contextlib.closing(http.client.HTTPConnection(host, timeout=20)) as connection:
                    headers = {"Content-Type": "application/json"}
                    connection.request(self.command, self.path, body, headers)
                    reply = connection.getresponse()
                    text = reply.read()
                name = self.path.rpartition("mlflow/")[2]
                if outer.lost.get(name, 0) > 0:
                    outer.lost[name] -= 1
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = pass_on

            def log_message(self, *_: object) -> None:
                pass

        self.listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=lambda: self.listener.serve_forever(poll_interval=0.02))
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.listener.server_port}"

    def close(self) -> None:
        self.listener.shutdown()
        self.listener.server_close()
        self.thread.join()


@pytest.mark.slow
def test_lost_replies_double_nothing(home: Path, facts: StudyFacts) -> None:
    lost = {"runs/create": 3, "experiments/create": 1, "runs/log-batch": 2, "runs/update": 1, "runs/set-tag": 1}
    proxy = LossyProxy(address_of(home)(), lost)
    try:
        with mirroring(lambda: proxy.address, facts) as mirror:
            mirror.put(range(4))
            assert mirror.finish("FINISHED", 90), mirror.error
    finally:
        proxy.close()
    assert set(proxy.lost.values()) == {0}
    assert_complete(home, facts, 4)


@pytest.mark.slow
def test_a_server_killed_in_the_middle_costs_nothing(tmp_path: Path, facts: StudyFacts) -> None:
    home = tmp_path / "mlruns"
    address = address_of(home)
    try:
        with mirroring(address, facts) as mirror:
            mirror.put(range(40))
            deadline = time.monotonic() + 60
            while mirror.pending > 30:
                assert time.monotonic() < deadline, mirror.error
                time.sleep(0.01)
            for process in server._processes(home.resolve()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            assert mirror.finish("FINISHED", 120), mirror.error
        assert_complete(home, facts, 40)
    finally:
        server.stop(home)


BY_THE_CLIENT = """
import json, sys
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
run, parent, experiment, address = json.load(sys.stdin)
client = MlflowClient(address)
tags = {"mlflow.parentRunId": parent, "dlcore.key": run["key"]}
run_id = client.create_run(experiment, run["start_ms"], tags, run["name"]).info.run_id
metrics = [Metric(m["key"], m["value"], m["timestamp"], m["step"]) for m in run["metrics"]]
params = [Param(*item) for item in run["params"].items()]
client.log_batch(run_id, metrics, params, [RunTag(*item) for item in run["tags"].items()])
client.set_terminated(run_id, run["status"], run["end_ms"])
client.set_tag(run_id, "dlcore.mirrored", run["checksum"])
print("run", run_id)
"""


def in_python(code: str, data: object) -> str:
    """Standard output of a program that imports mlflow, whose warnings and settings so stay out of here."""
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, input=json.dumps(data), capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_the_rows_are_those_that_mlflows_own_client_writes(home: Path, facts: StudyFacts) -> None:
    with mirroring(address_of(home), facts) as mirror:
        mirror.put([0])
        assert mirror.finish("FINISHED", 60), mirror.error
        experiment, parent, address = mirror.experiment_id, mirror.parent_run_id, mirror.address
    ((ours,),) = trial_runs(home, facts).values()
    wanted = dataclasses.asdict(runs.trial_run(facts, a_record(0)))
    theirs = in_python(BY_THE_CLIENT, [wanted, parent, experiment, address]).split()[-1]

    def all_rows(run_id: str) -> list[str]:
        tables = ("runs", "params", "tags", "metrics", "latest_metrics")
        found = [
            repr(row) for table in tables for row in rows(home, f"SELECT * FROM {table} WHERE run_uuid = ?", run_id)
        ]
        return sorted(row.replace(run_id, "RUN") for row in found)

    assert all_rows(ours) == all_rows(theirs)


def an_export(folder: Path, bias: float) -> Winner:
    """A network that says 1 where a + b + bias > 0."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["ab"]),
        helper.make_node("Add", ["ab", "bias"], ["z"]),
        helper.make_node("Cast", ["z"], ["zf"], to=TensorProto.FLOAT),
        helper.make_node("Sigmoid", ["zf"], ["probability_1"]),
        helper.make_node("Sub", ["one", "probability_1"], ["probability_0"]),
        helper.make_node("Greater", ["probability_1", "probability_0"], ["is_one"]),
        helper.make_node("Cast", ["is_one"], ["label"], to=TensorProto.INT64),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["N"]) for name in ("a", "b")],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])]
        + [helper.make_tensor_value_info(f"probability_{i}", TensorProto.FLOAT, ["N"]) for i in (0, 1)],
        [
            helper.make_tensor("bias", TensorProto.DOUBLE, [1], [bias]),
            helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    manifest = {"feature_names": ["a", "b"], "preprocessing": {"fill": [0.5, 1.5]}}
    (folder / "model.json").write_text(json.dumps(manifest))
    sha256 = hashlib.sha256(model).hexdigest()
    return Winner(0, (0.9,), {"depth": 1}, 3, {"accuracy": 0.9}, {"accuracy": 0.8}, str(folder), sha256)


PREDICTED = """
import json, os, sys
address, name, tables = json.load(sys.stdin)
os.environ["MLFLOW_TRACKING_URI"] = address
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
answers = [model.predict(pd.DataFrame(table)).to_dict("list") for table in tables]
example = model.input_example.to_dict("list")
print(json.dumps([answers, example, model.metadata.signature.inputs.input_names()]))
"""


@pytest.mark.slow
def test_the_winner_is_registered_once_and_answers_as_champion(home: Path, facts: StudyFacts, tmp_path: Path) -> None:
    versions = "SELECT version FROM model_versions WHERE name = ? ORDER BY version"
    alias = "SELECT alias, version FROM registered_model_aliases WHERE name = ?"
    for bias, n_versions in ((-1.0, 1), (-1.0, 1), (5.0, 2)):
        winner = an_export(tmp_path / "export", bias)
        with mirroring(address_of(home), facts) as mirror:
            mirror.put([0])
            mirror.register(winner)
            assert mirror.finish("FINISHED", 120), mirror.error
        assert [version for (version,) in rows(home, versions, facts.name)] == list(range(1, n_versions + 1))
        assert rows(home, alias, facts.name) == [("champion", n_versions)]
    tables = [{"a": [1.0, -9.0], "b": [1.0, -9.0]}, {"a": [7], "b": [True]}, {"b": [math.nan], "a": [0.0], "c": ["?"]}]
    said = in_python(PREDICTED, [address_of(home)(), facts.name, tables])
    answers, example, names = json.loads(said.splitlines()[-1])
    assert answers[0]["label"] == [1, 0]
    assert answers[0]["probability_1"][0] == pytest.approx(1 / (1 + math.exp(-7)), abs=1e-6)
    assert set(answers[0]) == {"label", "probability_0", "probability_1"}
    assert answers[1]["label"] == [1]
    assert len(answers[2]["label"]) == 1
    assert example == {"a": [0.5], "b": [1.5]}
    assert names == ["a", "b"]
    (parent,) = parents(home, facts)
    tags = dict(rows(home, "SELECT key, value FROM tags WHERE run_uuid = ?", parent))
    assert tags["dlcore.winner"] == "0"
    latest = dict(rows(home, "SELECT key, value FROM latest_metrics WHERE run_uuid = ?", parent))
    assert (latest["val_accuracy"], latest["test_accuracy"]) == (0.9, 0.8)
    stored = [path.name for path in (home / "artifacts").rglob("*") if path.is_file()]
    assert not [name for name in stored if name.endswith((".pkl", ".pickle"))]


@pytest.mark.slow
def test_a_winner_whose_files_are_gone_is_said(home: Path, facts: StudyFacts, tmp_path: Path) -> None:
    winner = an_export(tmp_path / "export", 0.0)
    (tmp_path / "export" / "model.json").unlink()
    with mirroring(address_of(home), facts) as mirror:
        mirror.put([0])
        mirror.register(winner)
        assert not mirror.finish("FINISHED", 60)
        assert mirror.error is not None and "model.json" in mirror.error
    assert_complete(home, facts, 1)
