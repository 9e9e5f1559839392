"""The contract of all tracking stores: the rows are those that MLflow's own client writes."""

import contextlib
import dataclasses
import sqlite3
from pathlib import Path

import pytest

from studies import runs, server, view
from studies.records import StudyFacts
from studies.runs import RunningBest
from studies.tracking_store import Refused, TrackingStore, Work
from tests.studies.mirror_tools import (
    PATIENCE_S,
    PORT,
    TRANSPORTS,
    a_record,
    all_rows,
    connecting,
    in_python,
    mirrored,
    read,
    rows,
)

N_TRIALS = 6

BY_THE_CLIENT = """
import json, sys
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
address, name, study, parent, trials, view = json.load(sys.stdin)
client = MlflowClient(address)
experiment = client.create_experiment(name, tags={"dlcore.study": study})

def write(run, tags):
    run_id = client.create_run(experiment, run["start_ms"], tags, run["name"]).info.run_id
    metrics = [Metric(*point) for point in run["metrics"]]
    params = [Param(*item) for item in run["params"].items()]
    client.log_batch(run_id, metrics, params, [RunTag(*item) for item in run["tags"].items()])
    client.set_terminated(run_id, run["status"], run["end_ms"])
    return run_id

parent_id = write(parent, {})
for key, text in view.items():
    client.set_experiment_tag(experiment, key, text.replace("PARENT", parent_id))
client.log_text(parent_id, parent["spec"], "spec.json")
for run in trials:
    write(run, {"mlflow.parentRunId": parent_id})
"""


def copied(source: Path, target: Path) -> None:
    """Make one database equal to the other, whoever reads it at the time."""
    with contextlib.closing(sqlite3.connect(source)) as a, contextlib.closing(sqlite3.connect(target)) as b:
        a.backup(b)


def snapshot(home: Path) -> tuple[dict[str, list[str]], dict[str, bytes]]:
    """All rows of all tables, and all artifacts, with names in place of ids and 0 in place of present times."""
    found = all_rows(home)
    names = {str(run_id): f"<{name}>" for run_id, name, *_ in found["runs"]}
    for i, (experiment, name, location, stage, *_, workspace) in enumerate(found["experiments"]):
        found["experiments"][i] = (experiment, name, location, stage, 0, 0, workspace)

    def named(text: str) -> str:
        for run_id, name in names.items():
            text = text.replace(run_id, name)
        return text

    tables = {table: sorted(named(repr(row)) for row in of_table) for table, of_table in found.items()}
    files = [path for path in (home / "artifacts").rglob("*") if path.is_file()]
    known = {
        named(str(path.relative_to(home))): path.read_bytes() for path in files if any(n in str(path) for n in names)
    }
    return tables, known


@pytest.mark.slow
def test_the_rows_of_a_study_are_those_that_mlflows_own_client_writes(
    home: Path, facts: StudyFacts, tmp_path: Path
) -> None:
    address = server.find_or_start(home, port=PORT, timeout_s=PATIENCE_S).address
    copied(home / "mlflow.db", tmp_path / "pristine.db")
    found = {}
    for transport in TRANSPORTS:
        mirrored(connecting(home, transport), facts, N_TRIALS)
        found[transport] = snapshot(home)
        copied(tmp_path / "pristine.db", home / "mlflow.db")
    best = RunningBest(facts.objectives)
    trials = []
    for record in read(range(N_TRIALS)):
        run = runs.trial_run(facts, record)
        best.add(record.number, runs.outcome(record, run.end_ms))
        trials.append(dataclasses.asdict(run) | {"tags": {**run.tags, runs.MARK: run.checksum}})
    parent = {
        "name": facts.name,
        "start_ms": 1_700_000_000_000,
        "end_ms": best.end_ms,
        "status": "FINISHED",
        "params": runs.study_params(facts),
        "tags": runs.study_tags(facts),
        "metrics": list(best.points()),
    }
    spec = next(iter(found["rest"][1].values())).decode()
    labels = view.experiment_tags(facts, "PARENT")
    in_python(BY_THE_CLIENT, [address, facts.name, facts.uuid, parent | {"spec": spec}, trials, labels])
    tables, files = snapshot(home)
    for transport in TRANSPORTS:
        for table, of_table in tables.items():
            assert found[transport][0][table] == of_table, (transport, table)
        assert found[transport][1] == files
    assert len(tables["runs"]) == N_TRIALS + 1
    assert list(files) == [f"artifacts/1/<{facts.name}>/artifacts/spec.json"]


def begun(store: TrackingStore, facts: StudyFacts) -> tuple[str, str]:
    """A new experiment and a run in it."""
    experiment = store.create_experiment(facts.name, {runs.STUDY: facts.uuid})
    assert experiment is not None
    return experiment, store.create_run(experiment, "a run", 5, {"a": "b"}).run_id


@pytest.mark.slow
def test_an_experiment_is_made_once_found_and_brought_back(store: TrackingStore, facts: StudyFacts, home: Path) -> None:
    assert store.experiments(runs.STUDY, facts.uuid) == []
    experiment, run_id = begun(store, facts)
    assert store.create_experiment(facts.name, {}) is None
    (found,) = store.experiments(runs.STUDY, facts.uuid)
    assert (found.experiment_id, found.is_deleted, found.tags) == (experiment, False, {runs.STUDY: facts.uuid})
    for text in ("a", "b"):
        store.tag_experiment(experiment, {"kind": text, "other": "c"})
    (found,) = store.experiments(runs.STUDY, facts.uuid)
    assert found.tags == {runs.STUDY: facts.uuid, "kind": "b", "other": "c"}
    store.delete_experiment(experiment)
    store.delete_experiment(experiment)
    assert rows(home, "SELECT lifecycle_stage FROM runs WHERE run_uuid = ?", run_id) == [("deleted",)]
    with pytest.raises(Refused):
        store.create_run(experiment, "too late", 5, {})
    (deleted,) = store.experiments(runs.STUDY, facts.uuid)
    assert deleted.is_deleted
    store.restore_experiment(experiment)
    (run,) = store.runs(experiment)
    assert not run.is_deleted


@pytest.mark.slow
def test_a_run_is_read_as_it_was_written(store: TrackingStore, facts: StudyFacts) -> None:
    experiment, run_id = begun(store, facts)
    points = [runs.Metric("loss", 1 / (step + 1), 100 + step, step) for step in range(1000)]
    store.log(run_id, points, {f"p{i}": "v" * 100 for i in range(120)}, {f"t{i}": "w" for i in range(60)})
    store.log(run_id, points[:3], {"p0": "v" * 100}, {"t0": "new"})  # again, and nothing is doubled
    store.log(run_id, [runs.Metric("loss", 9.0, 1, 5)])
    store.update(run_id, "FINISHED", 77)
    store.delete_tag(run_id, "t1")
    store.delete_tag(run_id, "t1")
    (run,) = store.runs(experiment, [run_id])
    assert (run.name, run.status, run.start_ms, run.end_ms, run.is_deleted) == ("a run", "FINISHED", 5, 77, False)
    assert run.artifact_uri == f"mlflow-artifacts:/{experiment}/{run_id}/artifacts"
    assert run.params == {f"p{i}": "v" * 100 for i in range(120)}
    assert run.tags == {f"t{i}": "w" for i in range(60) if i != 1} | {"t0": "new", "a": "b", "mlflow.runName": "a run"}
    assert run.latest == {"loss": points[-1]}
    assert store.points([run_id], ["loss"]) == {run_id: {*points, runs.Metric("loss", 9.0, 1, 5)}}
    assert store.points([], ["loss"]) == {} and store.points([run_id], []) in ({}, store.points([run_id], ["loss"]))
    store.delete_run(run_id)
    store.delete_run(run_id)
    with pytest.raises(Refused):
        store.log(run_id, points)
    (run,) = store.runs(experiment)
    assert run.is_deleted
    store.restore_run(run_id)
    assert [run.is_deleted for run in store.runs(experiment)] == [False]


@pytest.mark.slow
def test_work_on_runs_that_are_there_fills_them_and_a_run_that_is_gone_is_refused(
    store: TrackingStore, facts: StudyFacts
) -> None:
    experiment, parent = begun(store, facts)
    wanted = [runs.trial_run(facts, a_record(number)) for number in range(3)]
    half = store.create_run(experiment, wanted[0].name, wanted[0].start_ms, {runs.KEY: wanted[0].key})
    store.log(half.run_id, wanted[0].metrics[:4], {"depth": "0"})
    work = [Work(wanted[0], half.run_id), Work(wanted[1], None), Work(wanted[2], None, {"mlflow.note.content": "mine"})]
    written = [one for some in store.write_trials(experiment, parent, work) for one in some]
    assert [(one.number, one.refused) for one in written] == [(0, None), (1, None), (2, None)]
    assert written[0].run_id == half.run_id
    ids = [str(one.run_id) for one in written]
    points = store.points(ids, {point.key for run in wanted for point in run.metrics})
    for run, run_id in zip(wanted, ids, strict=True):
        (found,) = store.runs(experiment, [run_id])
        assert (found.status, found.end_ms, found.params) == (run.status, run.end_ms, run.params)
        notes = {"mlflow.note.content": "mine"} if run.number == 2 else {}
        assert found.tags == {**run.all_tags(parent), "mlflow.runName": run.name, **notes}
        assert points[run_id] == set(run.metrics)
        assert found.latest == runs.latest(run.metrics)
    store.delete_run(half.run_id)
    with pytest.raises(Refused):
        for (one,) in store.write_trials(experiment, parent, work[:1]):
            assert one.refused is not None
            raise one.refused


@pytest.mark.slow
def test_reading_few_keys_leaves_out_no_run(store: TrackingStore, facts: StudyFacts, home: Path) -> None:
    experiment, _ = begun(store, facts)
    for number in range(3):
        store.create_run(experiment, f"r{number}", number, {"wanted": str(number), "other": "x"})
    found = sorted(store.runs(experiment, needed={"wanted"}), key=lambda run: run.start_ms)
    assert [run.tags.get("wanted") for run in found] == ["0", "1", "2", None]
    assert len(rows(home, "SELECT * FROM runs WHERE experiment_id = ?", int(experiment))) == 4
