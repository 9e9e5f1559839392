"""studies.transfer: a study that starts from an export, from its spec to its own export."""

import contextlib
import json
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

from dlcore.config import DataConfig, ModelConfig
from dlcore.data import load_splits
from dlcore.errors import DataError
from dlcore.export import export_model, load_network
from dlcore.models import build_model
from studies.api import run_study
from studies.doctor import examine
from studies.errors import SpecChanged, SpecError, UserError
from studies.estimators import StudyClassifier
from studies.findings import Diagnosis
from studies.home import Home
from studies.repair import repair
from studies.replay import replay_cohort, replay_trial
from studies.runner import Run
from studies.spec import StudySpec, load_spec, parse_spec, spec_from_dict
from studies.starts import starts, starts_line
from studies.storage import Storage
from studies.transfer import funnel_of, open_source, resolved
from tests.studies.conftest import NOBODY, Lines
from tests.studies.lives import bits, in_process


def export_source(folder: Path, table: Path, widths: tuple[int, ...] = (12, 6), **form: Any) -> None:
    """A network for the target of a table, as training might have left it."""
    splits = load_splits(DataConfig(path=str(table), target=("target",), **form.pop("data", {})), 0)
    config = ModelConfig(splits.n_features, splits.n_outputs, widths, **form)
    model = build_model(config, 5)
    for module in model:
        if hasattr(module, "running_mean"):
            module.running_mean += 0.1
    facts = {"study": "low", "trial": 3, "spec": {"data": {"path": str(table)}}}
    export_model(folder, model, config, splits, facts)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with digits 0 to 4, digits 5 to 9, and the export of a network for the former."""
    folder = tmp_path_factory.mktemp("digits")
    frame = load_digits(as_frame=True).frame
    frame[frame.target < 5].head(200).to_csv(folder / "low.csv", index=False)
    frame[frame.target >= 5].head(150).to_csv(folder / "high.csv", index=False)
    export_source(folder / "low", folder / "low.csv")
    return folder


def spec_of(place: Path, **changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "study": "high",
        "seed": 3,
        "budget": {"trials": 8},
        "data": {"path": str(place / "high.csv"), "target": "target"},
        "transfer": {"from": str(place / "low")},
        "search": {"cohort": 4, "halving": {"first_rung": 2, "reduction_factor": 2}},
        "training": {"epochs": 4, "batch_size": 32},
        "final": {"candidates": 2, "seeds": 2, "baselines": False},
    }
    return spec | changes


def run_of(root: Path, spec: dict[str, Any], display: Lines | None = None) -> Run:
    root.mkdir(exist_ok=True)
    home = Home(root, f"sqlite:///{root / 'studies.db'}", NOBODY)
    return Run(spec_from_dict(spec), home, Storage(home.database_url), display or Lines())


def resolved_of(place: Path, **changes: Any) -> StudySpec:
    spec = spec_from_dict(spec_of(place, **changes))
    return resolved(spec, open_source(spec))


# The spec


def test_a_study_searches_how_it_starts_and_nothing_that_the_source_decides(place: Path) -> None:
    spec = resolved_of(place)
    assert list(spec.searched) == [
        "initialization", "n_frozen", "backbone_rate", "dropout", "learning_rate", "weight_decay",
    ]  # fmt: skip
    assert spec.searched["initialization"] == ("pretrained", "default")
    assert (spec.searched["n_frozen"].low, spec.searched["n_frozen"].high) == (0, 2)  # type: ignore[union-attr]
    assert spec.fixed["depth"] == 2 and spec.fixed["width"] == 12 and spec.fixed["funnel"] == 0.5
    assert spec.fixed["preprocess"] == "standard" and spec.transfer is not None
    assert len(str(spec.transfer.fingerprint)) == 64
    again = spec_from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec and resolved(again, open_source(again)) == spec


def test_what_the_spec_says_of_the_start_is_kept(place: Path) -> None:
    space = {"initialization": "pretrained", "n_frozen": 1, "backbone_rate": 0.1, "dropout": [0.0, 0.2]}
    spec = resolved_of(place, search_space=space)
    assert list(spec.searched) == ["dropout"]
    assert (spec.fixed["initialization"], spec.fixed["n_frozen"], spec.fixed["backbone_rate"]) == ("pretrained", 1, 0.1)
    assert list(resolved_of(place, search_space={"initialization": "pretrained"}).searched) == [
        "n_frozen", "backbone_rate",
    ]  # fmt: skip
    grid = resolved_of(place, search={"sampler": "grid"}, search_space={"dropout": [0.0, 0.2]})
    assert grid.searched["backbone_rate"] == (0.1, 1.0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"transfer": {}}, "transfer.from   is required"),
        ({"transfer": {"from": ""}}, "transfer.from"),
        ({"transfer": {"from": "x", "layers": 2}}, "transfer.layers   unknown key"),
        ({"transfer": 3}, "transfer   must be a table; got 3"),
        ({"search_space": {"depth": [1, 2]}}, "search_space.depth   is that of the source of [transfer]: leave it out"),
        ({"search_space": {"preprocess": ["standard", "robust"]}}, "search_space.preprocess   is that of the source"),
        ({"training": {"normalization": "batch"}}, "training.normalization   is that of the source of [transfer]"),
        (
            {"search_space": {"initialization": ["default", "orthogonal"]}},
            'search_space.initialization   must have "pretrained" where there is a [transfer]: leave one of them out',
        ),
        ({"search": {"max_parameters": 99}}, "search.max_parameters   has no meaning with [transfer]"),
        ({"search_space": {"depth": 3}}, "search_space.depth   must be that of the source, 2; leave it out"),
        (
            {"search_space": {"n_frozen": {"low": 0, "high": 3}}},
            "search_space.n_frozen   must be <= 2, the hidden layers of the source; got 3",
        ),
        ({"search_space": {"backbone_rate": 0.0}}, "search_space.backbone_rate   must be > 0; got 0.0"),
    ],
)
def test_each_mistake_is_named(changes: dict[str, Any], text: str, place: Path) -> None:
    with pytest.raises(SpecError) as error:
        resolved_of(place, **changes)
    assert text in str(error.value)


def test_scaling_in_data_is_a_mistake_beside_a_transfer(place: Path) -> None:
    data = spec_of(place)["data"] | {"preprocess": "robust"}
    with pytest.raises(SpecError, match=r"data\.preprocess   is that of the source of \[transfer\]: leave it out"):
        resolved_of(place, data=data)


@pytest.mark.parametrize(
    ("space", "text"),
    [
        ({"initialization": ["default", "pretrained"]}, 'initialization   "pretrained" needs a [transfer]: from = '),
        (
            {"width": [1, 2], "initialization": "pretrained"},
            'initialization   "pretrained" needs a [transfer]: from = ',
        ),
        ({"width": [1, 2], "n_frozen": 1}, 'n_frozen   needs a [transfer]: from = "FOLDER", the export of a trained'),
        ({"width": [1, 2], "backbone_rate": 0.1}, "backbone_rate   needs a [transfer]"),
    ],
)
def test_a_start_without_a_transfer_is_a_mistake(space: dict[str, Any], text: str, place: Path) -> None:
    spec = spec_of(place, search_space=space)
    del spec["transfer"]
    with pytest.raises(SpecError) as error:
        spec_from_dict(spec)
    assert f"search_space.{text}" in str(error.value) and ": 1 mistake\n" in str(error.value)


def test_the_source_is_sought_beside_the_spec_first_and_then_in_the_working_folder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'study = "a"\n[data]\nsource = "sklearn:wine"\n[transfer]\nfrom = "low"\n'
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(SpecError, match=r'transfer\.from   must be the folder of an export; there is none at "low"'):
        load_spec(tmp_path / "a.toml")
    monkeypatch.chdir(place)
    found = load_spec(tmp_path / "a.toml").transfer
    assert found is not None and found.source == str(place / "low")
    (tmp_path / "low").mkdir()
    found = parse_spec(text, "a.toml", tmp_path).transfer
    assert found is not None and found.source == str(tmp_path / "low")


@pytest.mark.parametrize("units", [(64, 64), (4, 2), (439, 220, 110), (100, 33, 11, 4), (16, 1)])
def test_layers_are_said_by_a_width_and_a_funnel(units: tuple[int, ...], tmp_path: Path) -> None:
    funnel = funnel_of(units)
    assert funnel is not None and 0 < funnel <= 1
    assert funnel_of((8, 16)) is None and funnel_of((64, 16, 48)) is None


def test_a_source_of_uneven_layers_is_refused(place: Path, tmp_path: Path) -> None:
    export_source(tmp_path / "odd", place / "low.csv", (8, 16))
    with pytest.raises(SpecError, match=r"transfer\.from   must be a network whose layers have one width, or narrow"):
        resolved_of(place, transfer={"from": str(tmp_path / "odd")})


def test_a_source_that_is_damaged_or_another_one_is_refused_before_anything_is_written(
    place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "low", tmp_path / "low")
    (tmp_path / "low" / "weights.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"low/weights\.safetensors must be as it was written"):
        run_of(tmp_path / "home", spec_of(place, transfer={"from": str(tmp_path / "low")}))
    pinned = {"from": str(place / "low"), "fingerprint": "0" * 64}
    with pytest.raises(SpecChanged, match="another one lies there now; put the old export back"):
        run_of(tmp_path / "home", spec_of(place, transfer=pinned))


def test_trials_that_start_from_the_source_stand_beside_the_others(make_trial: Callable[..., Any]) -> None:
    objectives = (run_objective(),)
    one = make_trial(0, 0.9, hyperparameters={"initialization": "pretrained"})
    other = make_trial(1, 0.8, "PRUNED", hyperparameters={"initialization": "default"})
    assert starts([one], objectives) == {} and starts_line([other], objectives) == ""
    assert starts_line([one, other], objectives) == (
        "the best of 1 trials that start pretrained: accuracy 0.9000 (trial 0); "
        "of 1 trials that start fresh: accuracy 0.8000 (trial 1, pruned)"
    )


def run_objective() -> Any:
    from studies.records import Objective

    return Objective("accuracy", "maximize")


# Whole studies


@pytest.fixture(scope="module")
def finished(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = run_of(tmp_path_factory.mktemp("home"), spec_of(place))
    run.execute(None)
    return run


@pytest.mark.slow
def test_the_plan_says_where_trials_start_and_how_the_columns_meet(finished: Run) -> None:
    lines = finished.plan().splitlines()
    (source,) = [line for line in lines if line.startswith("source  ")]
    assert source.startswith("source  low, trial 3 of study low: 2 hidden layers of 12, 6 units, relu, weights ")
    (note,) = [line for line in lines if "transfer:" in line]
    assert "columns matched" in note


@pytest.mark.slow
def test_only_trials_that_start_from_the_source_have_layers_to_freeze(finished: Run) -> None:
    trials = finished.storage.records("high")
    kinds = {str(t.hyperparameters["initialization"]) for t in trials}
    assert kinds == {"pretrained", "default"}
    for trial in trials:
        is_pretrained = trial.hyperparameters["initialization"] == "pretrained"
        assert ("n_frozen" in trial.hyperparameters) == ("backbone_rate" in trial.searched) == is_pretrained
        assert trial.hyperparameters["width"] == 12


@pytest.mark.slow
def test_each_trial_comes_out_again_alone_and_with_its_cohort(finished: Run) -> None:
    trials = finished.storage.records("high", has_curves=True)
    assert replay_cohort(trials[0], trials, finished.facts, finished.trainer).is_equal
    for trial in trials:
        assert replay_trial(trial, finished.trainer).is_equal


@pytest.mark.slow
def test_the_export_names_its_source_and_no_place_of_this_machine(finished: Run, place: Path, tmp_path: Path) -> None:
    stored = finished.storage.winner("high")
    assert stored is not None
    folder = Path(stored[0].export_dir)
    manifest = json.loads((folder / "model.json").read_text())
    told = manifest["facts"]["transfer"]
    assert (told["from"], told["study"], told["trial"]) == ("low", "low", 3)
    sums = (place / "low" / "SHA256SUMS").read_text()
    assert f"{told['weights_sha256']}  weights.safetensors" in sums
    assert manifest["facts"]["spec"]["transfer"]["from"] == "low"
    assert str(place / "low") not in "".join(
        text for text in (folder / "model.json").read_text().splitlines() if "high.csv" not in text
    )
    card = (folder / "README.md").read_text()
    assert "| source | low, fingerprint " in card and "transfer: " in card and "| starts | the best of " in card


@pytest.mark.slow
def test_a_resumed_study_keeps_its_source(finished: Run, place: Path, tmp_path: Path) -> None:
    root = finished.home.root
    display = Lines()
    outcome = run_of(root, spec_of(place), display).execute(None)
    assert outcome.n_new == 0
    moved = tmp_path / "elsewhere"
    shutil.copytree(place / "low", moved)
    elsewhere = spec_of(place, transfer={"from": str(moved)})
    assert run_of(root, elsewhere).execute(None).n_new == 0  # the same network in another place
    export_source(moved, place / "low.csv", (12, 6), activation="tanh")
    with pytest.raises(SpecChanged, match=rf'study "high" starts from the network of {moved}, and another one lies'):
        run_of(root, elsewhere)
    assert run_of(root, spec_of(place)).execute(None).n_new == 0


@pytest.mark.slow
def test_a_falsified_spec_comes_back_with_the_place_of_its_source_or_it_is_said_why_not(
    finished: Run, tmp_path: Path
) -> None:
    shutil.copytree(finished.home.root, tmp_path / "home")
    home = Home(tmp_path / "home", f"sqlite:///{tmp_path / 'home' / 'studies.db'}", NOBODY)
    storage, known = Storage(home.database_url), finished.storage.known("high")

    def mended(falsified: str) -> Diagnosis:
        with contextlib.closing(sqlite3.connect(tmp_path / "home" / "studies.db")) as database, database:
            database.execute(f"UPDATE dlcore_studies SET spec_json = {falsified}")
        return repair(home, storage, "high", examine(home, storage, "high"), Lines())

    assert mended("replace(spec_json, '\"epochs\": 4', '\"epochs\": 5')").findings == ()
    assert storage.known("high") == known
    left = mended('replace(spec_json, \'"from": "/\', \'"from": "/not\')')
    assert [f.kind for f in left.findings] == ["falsified study"]
    assert "of a [transfer] none tells where its source lies" in left.notes[-1]
    storage.close()


@pytest.mark.slow
@pytest.mark.parametrize("normalization", ["none", "layer", "batch"])
@pytest.mark.parametrize("engine", ["population", "loop"])
def test_frozen_layers_are_exported_as_they_were(engine: str, normalization: str, place: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(place / "high.csv")
    frame.to_csv(tmp_path / "high.csv", index=False)
    # All rows and columns of one kind as in the source: no column is missing whose part goes into the bias.
    source_table = pd.read_csv(place / "low.csv")
    varying = [c for c in frame.columns if frame[c].nunique() > 1 and source_table[c].nunique() > 1]
    for name, table in (("low.csv", source_table), ("high.csv", frame)):
        table[varying].to_csv(tmp_path / name, index=False)
    export_source(tmp_path / "low", tmp_path / "low.csv", normalization=normalization, activation="tanh")
    space = {"initialization": "pretrained", "n_frozen": 1, "backbone_rate": 0.5, "dropout": [0.0, 0.1]}
    spec = spec_of(tmp_path, budget={"trials": 2}, search_space=space, final={"seeds": 0, "baselines": False})
    spec["training"] |= {"engine": engine}
    run = run_of(tmp_path / "home", spec)
    assert run.transfer is not None and run.transfer.missing == () and run.transfer.new == ()
    folder = Path(run.execute(None).export.winner.export_dir)
    before, after = load_network(tmp_path / "low")[0], load_network(folder)[0]
    depth_of_first = 2 if normalization != "none" else 1  # a linear layer, and its normalization
    for old, new in zip(list(before)[:depth_of_first], list(after)[:depth_of_first], strict=True):  # type: ignore[call-overload]
        for (name, a), (_, b) in zip(old.named_parameters(), new.named_parameters(), strict=True):
            if normalization == "none" or name in dict(old.named_parameters()):
                assert torch.equal(a, b), name
    last_hidden = [m for m in list(after) if isinstance(m, torch.nn.Linear)][1]  # type: ignore[call-overload]
    was = [m for m in list(before) if isinstance(m, torch.nn.Linear)][1]  # type: ignore[call-overload]
    assert not torch.equal(last_hidden.weight, was.weight)


KILLS = [(0, 1), (1, 2)]
GRID = {"n_frozen": [0, 2], "learning_rate": [0.01, 0.1]}


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "grid", "gp", "nsga2"])
def test_a_study_killed_in_training_ends_as_one_that_never_was(sampler: str, place: Path, tmp_path: Path) -> None:
    spec = spec_of(place, search={"sampler": sampler, "cohort": 4, "halving": False})
    spec |= {"search_space": GRID} if sampler == "grid" else {}
    whole, killed = (f"sqlite:///{tmp_path / name}.db" for name in ("whole", "killed"))
    assert in_process(tmp_path / "whole", whole, spec, None) == 0
    for kill_at in KILLS:
        assert in_process(tmp_path / "killed", killed, spec, kill_at) == -signal.SIGKILL
    assert in_process(tmp_path / "killed", killed, spec, None) == 0
    expected = Storage(whole).records("high", has_curves=True)
    assert {str(t.hyperparameters["initialization"]) for t in expected} == {"pretrained", "default"}
    assert bits(Storage(killed).records("high", has_curves=True)) == bits(expected)


@pytest.mark.slow
def test_workers_find_the_source_by_the_record(place: Path, tmp_path: Path, studies: Callable[..., Any]) -> None:
    spec = spec_of(place)
    lines = [
        'study = "high"\nseed = 3\nbudget = { trials = 8 }',
        f'[data]\npath = "{place / "high.csv"}"\ntarget = "target"',
        f'[transfer]\nfrom = "{place / "low"}"',
        "[search]\ncohort = 4\nhalving = { first_rung = 2, reduction_factor = 2 }",
        "[training]\nepochs = 4\nbatch_size = 32",
        "[final]\ncandidates = 2\nseeds = 2\nbaselines = false",
    ]
    (tmp_path / "high.toml").write_text("\n".join(lines))
    said = studies("run", "high.toml", "--workers", 2, MLFLOW_TRACKING_URI=NOBODY)
    assert said.returncode == 0, said.stderr
    assert "the best of " in said.stdout and "that start pretrained" in said.stdout
    alone = run_of(tmp_path / "alone", spec)
    alone.execute(None)
    home = Home(tmp_path / "home", f"sqlite:///{tmp_path / 'home' / 'studies.db'}", NOBODY)
    found = Storage(home.database_url).records("high")
    assert [t.hyperparameters for t in found[:4]] == [t.hyperparameters for t in alone.storage.records("high")[:4]]
    shown = studies("show", "high", "--json", MLFLOW_TRACKING_URI=NOBODY)
    assert set(json.loads(shown.stdout)["starts"]) == {"pretrained", "fresh"}
    (place / "low").rename(place / "away")
    try:
        gone = studies("replay", "high", 0, MLFLOW_TRACKING_URI=NOBODY)
        assert gone.returncode == 2 and "from must be the folder of an export; there is none at" in gone.stderr
        assert studies("show", "high", MLFLOW_TRACKING_URI=NOBODY).returncode == 0
    finally:
        (place / "away").rename(place / "low")


@pytest.mark.slow
def test_folds_and_an_ensemble_start_from_it_too(place: Path, tmp_path: Path) -> None:
    folded = spec_of(place, final={"seeds": 0, "baselines": False})
    folded["data"] |= {"split": {"folds": 2}}
    run = run_of(tmp_path / "folded", folded)
    run.execute(None)
    trials = run.storage.records("high", has_curves=True)
    assert replay_cohort(trials[0], trials, run.facts, run.trainer).is_equal
    together = spec_of(place, final={"candidates": 3, "seeds": 2, "ensemble": True})
    outcome = run_of(tmp_path / "together", together).execute(None)
    final = outcome.export.winner.final
    assert final is not None and final.ensemble is not None and final.ensemble.val["accuracy"] > 0


@pytest.mark.slow
def test_the_recipe_proves_and_searches_a_network_that_starts_from_it(place: Path, tmp_path: Path) -> None:
    display = Lines()
    spec = spec_of(place, recipe="overfit-first", budget={"trials": 12})
    spec["training"]["epochs"] = 20
    run = run_of(tmp_path, spec, display)
    run.execute(None)
    assert any("rows learnt by heart" in line for line in display.said)
    trials = run.storage.records("high")
    assert all(t.hyperparameters["initialization"] == "pretrained" for t in trials if t.number < 8)
    assert any("initialization" in t.searched for t in trials if t.number >= 8)


@pytest.fixture(scope="module")
def homes(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A source whose target is a number, of a table with texts and holes."""
    folder = tmp_path_factory.mktemp("homes")
    rng = np.random.default_rng(0)
    n = 160
    town, area = rng.choice(["Rome", "Oslo", "Lima"], n), rng.normal(80, 20, n)
    area[::9] = np.nan
    price = np.nan_to_num(area, nan=80) * 1000 + 9000 * (town == "Rome")
    pd.DataFrame({"town": town, "area": area, "target": price}).to_csv(folder / "houses.csv", index=False)
    export_source(folder / "houses", folder / "houses.csv", (8,), activation="leaky_relu", slope=0.2)
    town[::4] = "Kyiv"
    flats = pd.DataFrame({"floor": rng.integers(0, 9, n), "town": town, "is_let": rng.random(n) < 0.5})
    flats.to_csv(folder / "flats.csv", index=False)
    yield folder


@pytest.mark.slow
def test_from_a_regression_to_classes_with_columns_new_missing_and_of_new_texts(homes: Path, tmp_path: Path) -> None:
    spec = spec_of(homes, study="flats", data={"path": str(homes / "flats.csv"), "target": "is_let"})
    spec["transfer"] = {"from": str(homes / "houses")}
    run = run_of(tmp_path, spec)
    assert run.splits.notes[-1] == (
        "transfer: 1 of the source's 2 columns matched; new here, with weights that start at 0: floor; not here, and "
        "taken for missing in every row: area"
    )
    assert run.spec.fixed["slope"] == 0.2 and run.spec.fixed["depth"] == 1
    outcome = run.execute(None)
    assert len(outcome.trials) == 8 and load_network(Path(outcome.export.winner.export_dir))[2]["task"] == "binary"
    renamed = pd.read_csv(homes / "flats.csv").rename(columns={"town": "city"})
    renamed.to_csv(tmp_path / "renamed.csv", index=False)
    spec |= {"study": "renamed", "data": {"path": str(tmp_path / "renamed.csv"), "target": "is_let"}}
    with pytest.raises(DataError, match="columns that the table and houses both have, by name; the table has 'floor'"):
        run_of(tmp_path, spec)
    spec |= {"study": "kinds", "data": {"path": str(homes / "flats.csv"), "target": "is_let", "kinds": {}}}
    table = pd.read_csv(homes / "flats.csv")
    table.assign(town=range(100, 100 + 2 * len(table), 2)).to_csv(tmp_path / "numbers.csv", index=False)
    spec["data"]["path"] = str(tmp_path / "numbers.csv")
    with pytest.raises(DataError, match=r"'town' is numeric and was categorical; say what they are .*\"town\" = \"cat"):
        run_of(tmp_path, spec)
    spec["data"]["kinds"] = {"town": "categorical"}
    assert run_of(tmp_path, spec).transfer is not None


@pytest.mark.slow
def test_from_python_a_section_is_a_table(place: Path, homes: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(homes / "flats.csv")
    spec = {"transfer": {"from": str(homes / "houses")}, "training": {"epochs": 3}, "final": {"baselines": False}}
    found = run_study(frame, "is_let", trials=4, spec=spec, home=tmp_path, study="flats", display=Lines())
    assert "initialization" in found.leaderboard.columns
    table = {"transfer": {"from": str(homes / "houses")}}
    learned = StudyClassifier(n_trials=3, epochs=3, final_seeds=0, spec=table).fit(
        frame[["floor", "town"]], frame.is_let
    )
    assert learned.predict(frame[["floor", "town"]]).shape == (len(frame),)
    with pytest.raises(UserError, match="there is none at"):
        StudyClassifier(n_trials=3, spec={"transfer": {"from": str(tmp_path / "no")}}).fit(
            frame[["floor"]], frame.is_let
        )
