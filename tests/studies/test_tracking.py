import hashlib
import json
import math
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock, call

import onnx
import pytest
from onnx import TensorProto, helper

from studies import registry, tracking
from studies.mlflow_rest import RestStore
from studies.records import StudyFacts, TrialRecord, Winner
from studies.tracking import Mirror
from studies.tracking_store import TrackingStore, Written
from tests.studies.mirror_tools import (
    PATIENCE_S,
    TRANSPORTS,
    Connect,
    a_record,
    assert_complete,
    connecting,
    contents,
    in_python,
    mirrored,
    mirroring,
    parents,
    post,
    read,
    rows,
    run_of,
    trial_runs,
    wait_until,
)


def nobody() -> TrackingStore:
    return RestStore("http://127.0.0.1:9")


# --- without a server ---


def test_a_dead_server_holds_nobody_up_and_is_said(facts: StudyFacts) -> None:
    is_handed_over = threading.Event()

    def connect() -> TrackingStore:
        assert is_handed_over.wait(PATIENCE_S)  # whoever waited for the server would wait for ever
        return nobody()

    with mirroring(connect, facts) as mirror:
        mirror.put(range(1000))
        mirror.show({"epoch": 1})
        assert not mirror.finish("FINISHED", timeout_s=0.3)
        assert mirror.error is None  # nobody has found out yet
        is_handed_over.set()
        wait_until(lambda: mirror.error is not None)
        assert not mirror.finish("FINISHED", timeout_s=0.3)
        assert mirror.pending == 1000
        assert mirror.error is not None and "does not answer" in mirror.error


def test_a_store_that_cannot_be_had_ends_no_study(facts: StudyFacts) -> None:
    def connect() -> TrackingStore:
        raise RuntimeError("no server")

    with mirroring(connect, facts) as mirror:
        mirror.put([0])
        assert not mirror.finish("FINISHED", timeout_s=0.2)
        assert mirror.error == "RuntimeError: no server"


def test_a_closed_mirror_and_an_idle_one_end_at_once(facts: StudyFacts) -> None:
    mirror = Mirror(nobody, facts, read)
    mirror.start()
    mirror.close()
    assert mirror._thread is not None and not mirror._thread.is_alive()
    assert not mirror.finish("KILLED", timeout_s=None)


def test_a_mirror_that_is_closed_while_it_connects_writes_nothing(facts: StudyFacts) -> None:
    """A server that starts may come long after; by then `studies track` may write the same trials."""
    is_connecting, is_free, store = threading.Event(), threading.Event(), MagicMock()

    def connect() -> TrackingStore:
        is_connecting.set()
        is_free.wait()
        return store

    mirror = Mirror(connect, facts, read)
    mirror.start()
    mirror.put(range(4))
    assert is_connecting.wait(PATIENCE_S)
    mirror.close()
    is_free.set()
    assert mirror._thread is not None
    mirror._thread.join(PATIENCE_S)
    assert store.method_calls == [call.close()]


class Copies:
    """In place of a study in MLflow: remembers which trials are written together."""

    experiment_id, parent_run_id = "1", "p"

    def __init__(self, *, is_neighbour: bool) -> None:
        self.store = MagicMock(is_neighbour=is_neighbour)
        self.written: list[list[int]] = []
        self.n_before_best: list[int] = []

    def has(self, number: int) -> bool:
        return any(number in some for some in self.written)

    def write_trials(self, records: Sequence[TrialRecord]) -> Iterator[list[Written]]:
        self.written.append([record.number for record in records])
        yield [Written(record.number, "r") for record in records]

    def write_best(self) -> None:
        self.n_before_best.append(sum(map(len, self.written)))

    def end(self, status: str, *, only: Collection[int] | None) -> None:
        pass


@pytest.mark.parametrize("is_neighbour", [True, False])
def test_a_server_on_the_cores_of_the_training_is_asked_little_until_somebody_waits(
    facts: StudyFacts, monkeypatch: pytest.MonkeyPatch, is_neighbour: bool
) -> None:
    copies = Copies(is_neighbour=is_neighbour)
    monkeypatch.setattr(tracking, "MirroredStudy", lambda *_, **__: copies)
    monkeypatch.setattr(tracking, "SERVER_SHARE", 1e-12)
    monkeypatch.setattr(tracking, "LONGEST_PAUSE_S", PATIENCE_S)
    with mirroring(lambda: copies.store, facts) as mirror:
        mirror.put(range(8))
        wait_until(lambda: mirror.pending < 8)
        if is_neighbour:
            assert copies.written == [[0]]
            assert mirror.backlog().n_trials == 7 and mirror.backlog().share == pytest.approx(0, abs=1e-6)
        assert mirror.finish("FINISHED", PATIENCE_S)
    assert copies.written == ([[0], list(range(1, 8))] if is_neighbour else [list(range(8))])
    assert mirror.backlog().n_trials == 0 and mirror.connected_at is not None
    assert mirror.backlog().each_s is not None and 0 < mirror.backlog().each_s < PATIENCE_S


@pytest.mark.parametrize(("every_s", "expected"), [(PATIENCE_S, [64, 300]), (0.0, [64, 128, 192, 256, 300])])
def test_while_trials_wait_the_running_best_is_written_now_and_then(
    facts: StudyFacts, monkeypatch: pytest.MonkeyPatch, every_s: float, expected: list[int]
) -> None:
    copies = Copies(is_neighbour=False)
    monkeypatch.setattr(tracking, "MirroredStudy", lambda *_, **__: copies)
    monkeypatch.setattr(tracking, "PROGRESS_EVERY_S", every_s)
    with mirroring(lambda: copies.store, facts) as mirror:
        mirror.put(range(300))
        assert mirror.finish("FINISHED", PATIENCE_S)
    assert copies.n_before_best == expected


def test_what_registers_a_winner_is_begun_before_it_comes_and_ends_with_the_mirror(
    facts: StudyFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies, begun = Copies(is_neighbour=False), []

    def begin(credentials: Mapping[str, str]) -> subprocess.Popen[str]:
        begun.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True))
        return begun[-1]

    monkeypatch.setattr(tracking, "MirroredStudy", lambda *_, **__: copies)
    monkeypatch.setattr(registry, "begin", begin)
    with mirroring(lambda: copies.store, facts) as mirror:
        mirror.expect_winner()
        wait_until(lambda: bool(begun))
    wait_until(lambda: begun[0].poll() is not None)
    assert len(begun) == 1


def test_ctrl_c_ends_the_waiting(facts: StudyFacts) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with mirroring(nobody, facts) as mirror:
            mirror.put([0])
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                mirror.finish("FINISHED", timeout_s=None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_importing_it_imports_no_mlflow() -> None:
    code = "import sys, studies.tracking; sys.exit(bool({'mlflow', 'sqlalchemy', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- with one ---


@pytest.mark.slow
def test_progress_that_is_due_while_runs_are_written_doubles_none(
    home: Path, facts: StudyFacts, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PROGRESS_EVERY_S", 0.0)

    def read_and_show(numbers: Sequence[int]) -> list[TrialRecord]:
        mirror.show({"epoch": 1})
        return read(numbers)

    mirror = Mirror(connect, facts, read_and_show)
    mirror.start()
    try:
        mirror.put(range(20))
        assert mirror.finish("FINISHED", PATIENCE_S), mirror.error
    finally:
        mirror.close()
    assert_complete(home, facts, 20)


@pytest.mark.slow
def test_every_trial_has_one_run_and_writing_twice_changes_no_row(
    home: Path, facts: StudyFacts, transport: str, connect: Connect
) -> None:
    with mirroring(connect, facts) as mirror:
        mirror.show({"cohort": 1, "epoch": 3})
        mirror.put(range(20))
        assert mirror.finish("FINISHED", PATIENCE_S), mirror.error
        assert (mirror.pending, mirror.error) == (0, None)
    assert_complete(home, facts, 20)
    (parent,) = parents(home, facts)
    query = "SELECT step, value FROM metrics WHERE run_uuid = ? AND key = 'best_val_accuracy' ORDER BY step"
    best = rows(home, query, parent)
    assert [step for step, _ in best] == list(range(1, 21))
    assert best[-1] == (20, 0.518)
    tags = dict(rows(home, "SELECT key, value FROM tags WHERE run_uuid = ?", parent))
    assert not any(str(key).startswith("dlcore.now.") for key in tags)
    assert {str(key) for key in tags if str(key).startswith("mlflow.")} == {"mlflow.runName"}
    before = contents(home)
    (other,) = set(TRANSPORTS) - {transport}
    for way in (connect, connecting(home, other)):  # nor does a switch of the way
        for is_thorough in (False, True):
            mirrored(way, facts, 20, is_thorough=is_thorough)
            assert contents(home) == before


@pytest.mark.slow
def test_progress_that_comes_while_trials_are_written_doubles_none(
    home: Path, facts: StudyFacts, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PROGRESS_EVERY_S", 0.0)

    def reading(numbers: Sequence[int]) -> list[TrialRecord]:
        mirror.show({"cohort": len(numbers)})
        return read(numbers)

    mirror = Mirror(connect, facts, reading)
    mirror.start()
    mirror.put(range(8))
    assert mirror.finish("FINISHED", PATIENCE_S), mirror.error
    mirror.close()
    assert_complete(home, facts, 8)


@pytest.mark.slow
def test_a_study_that_goes_on_adds_only_what_is_new(home: Path, facts: StudyFacts, transport: str) -> None:
    (other,) = set(TRANSPORTS) - {transport}
    for way, n_trials in ((transport, 3), (other, 6), (transport, 9)):
        mirrored(connecting(home, way), facts, n_trials)
        assert_complete(home, facts, n_trials)


@pytest.mark.slow
def test_what_was_half_written_doubled_deleted_or_moved_is_mended_by_the_next_run(
    home: Path, facts: StudyFacts, connect: Connect
) -> None:
    mirror = mirrored(connect, facts, 6)
    address, experiment, parent = mirror.address, mirror.experiment_id, mirror.parent_run_id
    ids = {number: run_of(home, facts, number) for number in range(6)}
    assert address is not None
    post(address, "runs/update", run_id=ids[0], status="RUNNING")
    post(address, "runs/delete", run_id=ids[1])
    post(address, "runs/set-tag", run_id=ids[2], key="mlflow.parentRunId", value="lost")
    post(address, "runs/delete-tag", run_id=ids[3], key="dlcore.mirrored")
    tags = [{"key": "dlcore.key", "value": f"{facts.uuid}:4"}, {"key": "mlflow.parentRunId", "value": parent}]
    post(address, "runs/create", experiment_id=experiment, start_time=1, tags=tags)
    post(address, "runs/create", experiment_id=experiment, tags=[{"key": "dlcore.study", "value": facts.uuid}])
    assert mirrored(connect, facts, 6).parent_run_id == parent
    assert_complete(home, facts, 6)
    assert run_of(home, facts, 1) == ids[1]  # what a person deleted by mistake comes back


@pytest.mark.slow
def test_a_name_that_others_have_is_left_to_them_and_a_deleted_experiment_comes_back(
    home: Path, facts: StudyFacts, connect: Connect
) -> None:
    address = connect().where
    post(address, "experiments/create", name=facts.name)
    for _ in range(2):
        experiment = mirrored(connect, facts, 1).experiment_id
        (row,) = rows(home, "SELECT name, lifecycle_stage FROM experiments WHERE experiment_id = ?", experiment)
        assert row == (f"{facts.name}-{facts.uuid[:8]}", "active")
        assert_complete(home, facts, 1)
        post(address, "experiments/delete", experiment_id=experiment)


@pytest.mark.slow
def test_what_is_deleted_while_it_is_written_comes_back(home: Path, facts: StudyFacts, connect: Connect) -> None:
    with mirroring(connect, facts) as mirror:
        mirror.put(range(2))
        assert mirror.finish("FINISHED", PATIENCE_S), mirror.error
        post(str(mirror.address), "experiments/delete", experiment_id=mirror.experiment_id)
        mirror.put(range(2, 4))
        assert mirror.finish("FINISHED", PATIENCE_S), mirror.error
    assert_complete(home, facts, 4)


@pytest.mark.slow
def test_a_trial_that_cannot_be_shown_is_left_out_and_said(home: Path, facts: StudyFacts, connect: Connect) -> None:
    def without_one(numbers: Sequence[int]) -> list[TrialRecord]:
        return [a_record(number) for number in numbers if number != 1]

    mirror = Mirror(connect, facts, without_one)
    mirror.start()
    mirror.put(range(3))
    assert not mirror.finish("FINISHED", 30)
    assert mirror.pending == 1
    assert mirror.error is not None and "trial 1 must be in the study database" in mirror.error
    mirror.close()
    assert len(trial_runs(home, facts)) == 2


def an_export(folder: Path, bias: float, value: float = 0.9) -> Winner:
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
    columns = [{"name": name, "kind": "numeric", "example": value} for name, value in (("a", 0.5), ("b", 1.5))]
    manifest = {"columns": columns}
    (folder / "model.json").write_text(json.dumps(manifest))
    names = ("model.json", "model.onnx")
    sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(sums))
    sha256 = hashlib.sha256(model).hexdigest()
    return Winner(0, (value,), {"depth": 1}, 3, {"accuracy": 0.9}, {"accuracy": 0.8}, str(folder), sha256)


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
def test_the_winner_is_registered_once_and_answers_as_champion(
    home: Path, facts: StudyFacts, connect: Connect, tmp_path: Path
) -> None:
    versions = "SELECT version FROM model_versions WHERE name = ? ORDER BY version"
    alias = "SELECT alias, version FROM registered_model_aliases WHERE name = ?"
    # The second is the first again; the third is worse, and only the last is better.
    # What the study's run shows of it is that of the last one, also where it is less.
    for bias, value, n_versions, champion, test in (
        (-1.0, 0.9, 1, 1, 0.8),
        (-1.0, 0.9, 1, 1, 0.8),
        (4.0, 0.9, 2, 1, 0.8),
        (5.0, 0.91, 3, 3, 0.7),
    ):
        winner = replace(an_export(tmp_path / "export", bias, value), test_metrics={"accuracy": test})
        with mirroring(connect, facts) as mirror:
            mirror.put([0])
            mirror.expect_winner()
            mirror.register(winner)
            assert mirror.finish("FINISHED", 120), mirror.error
        assert [version for (version,) in rows(home, versions, facts.name)] == list(range(1, n_versions + 1))
        assert rows(home, alias, facts.name) == [("champion", champion)]
        assert ("champion stays on version 1" in mirror.said) == (n_versions != champion)
    tables = [{"a": [1.0, -9.0], "b": [1.0, -9.0]}, {"a": [7], "b": [True]}, {"b": [math.nan], "a": [0.0], "c": ["?"]}]
    said = in_python(PREDICTED, [connect().where, facts.name, tables])
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
    assert (latest["val_accuracy"], latest["test_accuracy"]) == (0.9, 0.7)
    steps = "SELECT DISTINCT step FROM latest_metrics WHERE run_uuid = ? AND key = 'test_accuracy'"
    assert rows(home, steps, parent) == [(0,)]  # MLflow draws a bar of it
    stored = [path.name for path in (home / "artifacts").rglob("*") if path.is_file()]
    assert not [name for name in stored if name.endswith((".pkl", ".pickle"))]


@pytest.mark.slow
def test_another_network_in_the_winners_folder_is_never_registered_as_the_winner(
    home: Path, facts: StudyFacts, connect: Connect, tmp_path: Path
) -> None:
    winner = an_export(tmp_path / "export", 0.0)
    an_export(tmp_path / "export", 1.0)  # of another trial, to the same place
    with mirroring(connect, facts) as mirror:
        mirror.put([0])
        mirror.register(winner)
        assert not mirror.finish("FINISHED", PATIENCE_S)
        assert mirror.error is not None
        said = f"{tmp_path / 'export'} holds another network than the winner's; `studies export {facts.name}` writes"
        assert said in mirror.error and "Error" not in mirror.error
    assert not rows(home, "SELECT version FROM model_versions WHERE name = ?", facts.name)


@pytest.mark.slow
def test_a_winner_whose_files_are_gone_is_said(home: Path, facts: StudyFacts, connect: Connect, tmp_path: Path) -> None:
    winner = an_export(tmp_path / "export", 0.0)
    (tmp_path / "export" / "model.json").unlink()
    with mirroring(connect, facts) as mirror:
        mirror.put([0])
        mirror.register(winner)
        assert not mirror.finish("FINISHED", PATIENCE_S)
        assert mirror.error is not None and "model.json" in mirror.error
    assert_complete(home, facts, 1)
