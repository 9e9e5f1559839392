"""Whole studies by the command line, on a real tracking server: all three tasks, from the spec to an answer."""

import json
import sqlite3
from collections import Counter
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pytest
import torch
from mlflow.tracking import MlflowClient

from dlcore.columns import Features
from dlcore.export import load_network
from dlcore.exported import ExportedModel
from studies.storage import Storage
from tests.conftest import Studies

pytestmark = [
    pytest.mark.slow,
    # MLflow's own client, pydantic and pandas say these to whoever imports them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

TASKS = {"breast_cancer": "binary", "wine": "multiclass", "diabetes": "regression"}
SPEC = """
study = "e2e-{name}"
seed = 3
budget = {{ trials = 10 }}
search = {{ cohort = 4, halving = {{ first_rung = 2, reduction_factor = 2 }} }}
data = {{ source = "sklearn:{name}" }}
training = {{ epochs = 6, batch_size = 64 }}
"""


@pytest.fixture(scope="module", params=TASKS)
def finished(request: pytest.FixtureRequest, served_home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a set whose study has run."""
    import subprocess
    import sys

    from tests.conftest import studies_environment

    folder = tmp_path_factory.mktemp(request.param)
    (folder / "spec.toml").write_text(SPEC.format(name=request.param))
    answer = subprocess.run(
        [sys.executable, "-m", "studies", "run", "spec.toml"],
        capture_output=True, text=True, cwd=folder, env=studies_environment(served_home), timeout=600,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr + answer.stdout
    assert answer.stderr == ""
    assert "the winner is trial" in answer.stdout
    return str(request.param)


def database(home: Path) -> Storage:
    return Storage(f"sqlite:///{home / 'studies.db'}")


def test_every_trial_is_finished_and_every_state_agrees_with_mlflow(
    finished: str, served_home: Path, studies: Studies
) -> None:
    shown = json.loads(studies("show", f"e2e-{finished}", "--json", home=served_home).stdout)
    assert sum(shown["states"].values()) == 10
    assert not set(shown["states"]) - {"COMPLETE", "PRUNED", "FAIL"}
    client = MlflowClient(shown["tracking_uri"])
    runs = client.search_runs([shown["experiment_id"]], max_results=1000)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 10 and len(runs) == 11
    as_status = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
    assert Counter(run.info.status for run in children) == {as_status[s]: n for s, n in shown["states"].items()}
    assert parent.info.status == "FINISHED"
    values = {t.number: t.value for t in database(served_home).records(f"e2e-{finished}") if t.state == "COMPLETE"}
    assert shown["best"]["value"] == values[shown["best"]["number"]]
    ranked = sorted(values.values(), reverse=shown["direction"] == "maximize")
    assert shown["best"]["value"] in ranked[:4]  # the finals chose among these


def test_curves_have_every_epoch_once_in_both_places(finished: str, served_home: Path, studies: Studies) -> None:
    shown = json.loads(studies("show", f"e2e-{finished}", "--json", home=served_home).stdout)
    client = MlflowClient(shown["tracking_uri"])
    runs = client.search_runs([shown["experiment_id"]], "tags.`mlflow.parentRunId` != ''", max_results=1000)
    trials = {f"trial-{t.number:04}": t for t in database(served_home).records(f"e2e-{finished}", has_curves=True)}
    assert {run.info.run_name for run in runs} == set(trials)
    for run in runs:
        trial = trials[run.info.run_name]
        assert [e.epoch for e in trial.curve] == list(range(1, len(trial.curve) + 1))
        for key in ("train_loss", "val_loss", "learning_rate"):
            points = sorted(client.get_metric_history(run.info.run_id, key), key=lambda m: m.step)
            assert [(m.step, m.value) for m in points] == [(e.epoch, getattr(e, key)) for e in trial.curve]
        assert {k: v for k, v in run.data.params.items() if k in trial.searched} == {
            k: str(trial.hyperparameters[k]) for k in trial.searched
        }
        assert run.data.metrics["n_parameters"] == trial.n_parameters


def test_optuna_loads_the_study(finished: str, served_home: Path) -> None:
    study = optuna.load_study(study_name=f"e2e-{finished}", storage=f"sqlite:///{served_home / 'studies.db'}")
    stored = database(served_home).records(f"e2e-{finished}")
    assert [t.number for t in study.trials] == list(range(10))
    assert [t.state.name for t in study.trials] == [t.state for t in stored]
    assert [t.params for t in study.trials] == [{n: t.hyperparameters[n] for n in t.searched} for t in stored]


def test_the_export_answers_as_torch_does(finished: str, served_home: Path) -> None:
    folder = served_home / "exports" / f"e2e-{finished}"
    network, preprocessor, _ = load_network(folder)
    exported = ExportedModel.load(folder)
    rng = np.random.default_rng(0)
    names = exported.feature_names
    x = rng.normal(size=(50, len(names)))
    scalers = [encoder.scaler for encoder in preprocessor.encoders]
    raw = x * [scaler.scale for scaler in scalers] + [scaler.mean for scaler in scalers]
    with torch.no_grad():
        outputs = network(torch.from_numpy(preprocessor.transform(Features.from_numbers(names, raw))).float()).double()
    answers = exported.predict({name: raw[:, i] for i, name in enumerate(names)})
    if TASKS[finished] == "binary":
        expected = torch.cat([torch.sigmoid(-outputs), torch.sigmoid(outputs)], dim=1).numpy()
    elif TASKS[finished] == "multiclass":
        expected = torch.softmax(outputs, dim=1).numpy()
    else:
        assert list(answers) == ["prediction"]
        scale, mean = preprocessor.target_scale[0], preprocessor.target_mean[0]
        np.testing.assert_allclose((answers["prediction"] - mean) / scale, outputs[:, 0].numpy(), atol=1e-5)
        return
    names = [f"probability_{label}" for label in exported.class_labels]
    np.testing.assert_allclose(np.stack([answers[name] for name in names], axis=1), expected, atol=1e-5)
    assert answers["label"].tolist() == [exported.class_labels[i] for i in expected.argmax(axis=1)]


def test_the_registered_champion_answers_as_the_export_does(finished: str, served_home: Path, studies: Studies) -> None:
    import pandas as pd

    shown = json.loads(studies("show", f"e2e-{finished}", "--json", home=served_home).stdout)
    mlflow.set_tracking_uri(shown["tracking_uri"])
    champion = mlflow.pyfunc.load_model(f"models:/e2e-{finished}@champion")
    exported = ExportedModel.load(served_home / "exports" / f"e2e-{finished}")
    rows = {name: np.linspace(0, 1 + i, 5) for i, name in enumerate(exported.feature_names)}
    answer = champion.predict(pd.DataFrame(rows))
    for name, column in exported.predict(rows).items():
        assert answer[name].tolist() == pytest.approx(column.tolist()) if name != "label" else True
        if name == "label":
            assert answer[name].tolist() == column.tolist()


def test_a_finished_study_that_runs_again_does_nothing(finished: str, served_home: Path, studies: Studies) -> None:
    def rows() -> list[object]:
        with sqlite3.connect(served_home / "studies.db") as connection:
            found = [connection.execute(f"SELECT * FROM {t}").fetchall() for t in ("trials", "dlcore_curves")]
        connection.close()
        return found

    before = rows()
    answer = studies("run", f"e2e-{finished}", home=served_home)
    assert answer.returncode == 0 and "is finished" in answer.stdout
    assert rows() == before


def test_predictions_of_a_file_are_labels_and_probabilities_or_values(
    finished: str, served_home: Path, studies: Studies, tmp_path: Path
) -> None:
    folder = served_home / "exports" / f"e2e-{finished}"
    names = ExportedModel.load(folder).feature_names
    header = ",".join(f'"{name}"' for name in (*names, "extra"))
    (tmp_path / "rows.csv").write_text(
        "\n".join([header, ",".join(["1.5"] * len(names) + ["x"]), "," * len(names)]) + "\n"
    )
    answer = studies("predict", folder, "rows.csv", home=served_home)
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert len(lines) == 3
    answered = "prediction" if TASKS[finished] == "regression" else "label"
    assert lines[0].split(",")[: len(names) + 2] == [*names, "extra", answered]
    studies("predict", folder, "rows.csv", "--out", "answers.csv", home=served_home)
    assert (tmp_path / "answers.csv").read_text() == answer.stdout
