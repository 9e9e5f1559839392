import json
import math
import random
from dataclasses import replace

import numpy as np
import onnx
import pandas as pd
import pytest
import torch

from dlcore import onnx_graph
from dlcore.columns import Features
from dlcore.config import ACTIVATIONS, SCALINGS, TARGET_TRANSFORMS, ModelConfig, PreprocessConfig
from dlcore.data import SPLITS, DataSplits, Split
from dlcore.ensemble import Part
from dlcore.errors import ExportError
from dlcore.export import Story, export_model, export_parts, load_network
from dlcore.exported import FILES, ExportedModel
from dlcore.files import SUMS_FILE, read_sealed, write_sealed
from dlcore.models import build_model
from dlcore.preprocess import fit_preprocessor
from tests.dlcore.column_tools import of_all_kinds, raw, splits_of_all_kinds, with_unseen

LABELS = {"binary": ("no", "yes"), "multiclass": (3, 5, 8), "regression": ()}
TASKS = tuple(LABELS)


def make_splits(task: str, *, names=("a", "year", "empty", "d"), labels=None, targets=("t",)) -> DataSplits:
    """Columns of very different sizes, one of them without any value in train, with holes in all others."""
    rng = np.random.default_rng(0)
    labels = LABELS[task] if labels is None else labels
    x = rng.normal(size=(400, 4)) * [1.0, 0.01, 1.0, 1e6] + [0.0, 2e9, 5.0, -1e6]
    x[rng.random(x.shape) < 0.2] = np.nan
    x[:200, 2] = np.nan
    if task == "regression":
        y = rng.normal(size=(400, len(targets))) * np.arange(1, len(targets) + 1) * 1e3 + 1e4
    else:
        y = rng.integers(0, len(labels), 400)
    features = Features.from_numbers(names, x)
    train, val, test = (Split(features.take(p), y[p], p) for p in np.split(np.arange(400), (200, 300)))
    return DataSplits(
        name="made",
        task=task,
        feature_names=tuple(names),
        target_names=tuple(targets),
        class_labels=tuple(labels),
        train=train,
        val=val,
        test=test,
        preprocessor=fit_preprocessor(train.x, train.y, task),
        fingerprint="0" * 64,
    )


def make_network(splits: DataSplits, activation="relu", widths=(16, 8), **changes):
    config = ModelConfig(splits.n_features, splits.n_outputs, widths, activation, **changes)
    return build_model(config, seed=1), config


def columns_of(splits: DataSplits, x: np.ndarray) -> dict[str, np.ndarray]:
    return {name: x[:, i] for i, name in enumerate(splits.feature_names)}


def torch_answers(model, splits: DataSplits, x: np.ndarray) -> np.ndarray:
    """Probabilities of all classes, or values in own units: (N, C), computed without the export."""
    with torch.no_grad():
        rows = splits.preprocessor.transform(Features.from_numbers(splits.feature_names, x))
        outputs = model.eval()(torch.from_numpy(rows).float())
    answers = splits.to_task().predict(outputs).numpy()
    return np.stack([1 - answers, answers], axis=1) if splits.task == "binary" else answers


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_onnx_answers_as_torch_does(tmp_path, task, activation):
    splits = make_splits(task)
    model, config = make_network(splits, activation, slope=0.2, initialization="kaiming_normal", dropout=0.3)
    exported = ExportedModel.load(export_model(tmp_path / "out", model, config, splits, {}))
    rng = np.random.default_rng(1)
    for n in (1, 7, 1000):
        x = splits.train.x.numbers()[rng.integers(0, 200, n)]
        x[rng.random(x.shape) < 0.1] = np.nan
        expected = torch_answers(model, splits, x)
        answers = exported.predict(columns_of(splits, x))
        assert all(values.shape == (n,) for values in answers.values())
        if task == "regression":
            assert list(answers) == ["prediction"]
            assert answers["prediction"].dtype == np.float64
            gap = (answers["prediction"] - expected[:, 0]) / splits.preprocessor.target_scale[0]
            assert np.abs(gap).max() <= 1e-5
        else:
            labels = answers.pop("label")
            assert list(answers) == [f"probability_{label}" for label in splits.class_labels]
            np.testing.assert_allclose(np.stack(list(answers.values()), axis=1), expected, rtol=0, atol=1e-5)
            assert labels.tolist() == [splits.class_labels[i] for i in expected.argmax(axis=1)]


@pytest.mark.parametrize("kind", ["batch", "layer"])
@pytest.mark.parametrize("task", TASKS)
def test_a_normalized_network_answers_as_it_was_measured_and_loads_back(tmp_path, task, kind):
    splits = make_splits(task)
    model, config = make_network(splits, "gelu", normalization=kind, dropout=0.2)
    stream = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "running" in name or "1." in name:
                tensor.copy_(torch.rand(tensor.shape, generator=stream) + 0.2)
    exported = ExportedModel.load(export_model(tmp_path / "out", model, config, splits, {}))
    operators = [node.op_type for node in onnx.load(tmp_path / "out" / "model.onnx").graph.node]
    assert operators.count("LayerNormalization") == 2 * (kind == "layer")
    x = splits.train.x.numbers()[:50]
    expected, answers = torch_answers(model, splits, x), exported.predict(columns_of(splits, x))
    if task == "regression":
        gap = (answers["prediction"] - expected[:, 0]) / splits.preprocessor.target_scale[0]
        assert np.abs(gap).max() <= 1e-5
    else:
        found = np.stack([answers[f"probability_{label}"] for label in splits.class_labels], axis=1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    network, _, manifest = load_network(tmp_path / "out")
    assert manifest["architecture"]["normalization"] == kind
    assert np.array_equal(torch_answers(network, splits, x), expected)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("task", TASKS)
def test_raw_rows_of_all_kinds_are_answered_as_torch_does(tmp_path, task, scaling):
    for transform in TARGET_TRANSFORMS if task == "regression" else ("none",):
        splits = splits_of_all_kinds(task, PreprocessConfig(scaling, target_transform=transform))
        model, config = make_network(splits)
        exported = ExportedModel.load(export_model(tmp_path / "out", model, config, splits, {}))
        for n in (1, 7, 1000):
            rows = with_unseen(of_all_kinds(n, seed=n, holes=0.3))
            with torch.no_grad():
                outputs = model.eval()(torch.from_numpy(splits.preprocessor.transform(rows)).float())
            expected = splits.to_task().predict(outputs).numpy()
            answers = exported.predict(raw(rows))
            if task == "regression":
                scale = splits.preprocessor.scale_target
                found = scale(answers["prediction"][:, np.newaxis])
                np.testing.assert_allclose(found, scale(expected), rtol=0, atol=1e-5)
            else:
                found = np.stack([answers[f"probability_{label}"] for label in splits.class_labels], axis=1)
                expected = np.stack([1 - expected, expected], axis=1) if task == "binary" else expected
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_columns_of_a_frame_are_answered_whatever_form_their_values_have(tmp_path):
    splits = splits_of_all_kinds("binary")
    model, config = make_network(splits)
    exported = ExportedModel.load(export_model(tmp_path / "out", model, config, splits, {}))
    assert exported.kinds["sold"] == "date" and exported.kinds["zip"] == "categorical"
    plain = raw(of_all_kinds(50, holes=0.3))
    frame = pd.DataFrame(plain)
    frame["sold"] = pd.to_datetime(frame["sold"], unit="s")
    frame["day"] = pd.to_datetime(frame["day"], unit="s").dt.strftime("%Y-%m-%d")
    frame["zip"] = pd.to_numeric(frame["zip"])  # codes that were read as numbers
    frame["city"] = frame["city"].replace("", None).astype("category")
    frame["is_new"] = frame["is_new"].astype("boolean")
    expected = exported.predict(plain)
    for name, values in exported.predict({name: frame[name] for name in frame}).items():
        assert values.tolist() == expected[name].tolist()


def test_the_manifest_has_a_usual_row_that_can_be_answered(tmp_path):
    splits = splits_of_all_kinds("regression")
    model, config = make_network(splits)
    exported = ExportedModel.load(export_model(tmp_path / "out", model, config, splits, {}))
    columns = exported.manifest["columns"]
    assert [column["kind"] for column in columns] == [column.kind for column in splits.val.x.columns]
    usual = {column["name"]: np.array([column["example"]]) for column in columns}
    assert usual["city"] == "Rome" and usual["sold"][0].endswith("Z")
    assert np.isfinite(exported.predict(usual)["prediction"]).all()


def test_every_activation_has_its_nodes():
    assert set(onnx_graph.ACTIVATION_NODES) == set(ACTIVATIONS)


def test_a_linear_model_and_a_deep_one_can_be_exported(tmp_path):
    splits = make_splits("multiclass")
    for widths in ((), (8,) * 12):
        model, config = make_network(splits, "tanh", widths)
        exported = ExportedModel.load(export_model(tmp_path / "out", model, config, splits, {}))
        answers = exported.predict(columns_of(splits, splits.test.x.numbers()))
        expected = torch_answers(model, splits, splits.test.x.numbers())
        np.testing.assert_allclose(answers["probability_5"], expected[:, 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("labels", [("b", "ä b"), (False, True), (0, 1), (-1, 7), (1.5, 2.5)])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_labels_come_back_as_they_are_called_in_the_table(tmp_path, task, labels):
    splits = make_splits(task, labels=labels)
    model, config = make_network(splits)
    exported = ExportedModel.load(export_model(tmp_path / "out", model, config, splits, {}))
    found = exported.predict(columns_of(splits, splits.test.x.numbers()))["label"].tolist()
    expected = [labels[i] for i in torch_answers(model, splits, splits.test.x.numbers()).argmax(axis=1)]
    assert found == expected
    assert {type(label) for label in found} == {type(labels[0])}
    assert exported.class_labels == labels


def test_several_targets_have_a_prediction_each(tmp_path):
    splits = make_splits("regression", targets=("price", "size"))
    model, config = make_network(splits)
    exported = ExportedModel.load(export_model(tmp_path / "out", model, config, splits, {}))
    answers = exported.predict(columns_of(splits, splits.test.x.numbers()))
    assert list(answers) == ["prediction_price", "prediction_size"]
    expected = torch_answers(model, splits, splits.test.x.numbers())
    np.testing.assert_allclose(np.stack(list(answers.values()), axis=1), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-90, 1e-47, 1e59])
def test_a_target_that_float32_cannot_hold_has_its_predictions(tmp_path, size):
    splits = make_splits("regression")
    train, val, test = (replace(splits.split(name), y=size * splits.split(name).y) for name in SPLITS)
    fitted = fit_preprocessor(train.x, train.y, "regression")
    splits = replace(splits, train=train, val=val, test=test, preprocessor=fitted)
    model, config = make_network(splits)
    exported = ExportedModel.load(export_model(tmp_path / "out", model, config, splits, {}))
    found = exported.predict(columns_of(splits, test.x.numbers()))["prediction"]
    expected = torch_answers(model, splits, test.x.numbers())[:, 0]
    np.testing.assert_allclose(found / size, expected / size, rtol=1e-5, atol=1e-5)


def test_columns_may_be_called_like_outputs_or_like_our_own_tensors(tmp_path):
    names = ("label", "probability_yes", "/constant_0", "")
    splits = make_splits("binary", names=names)
    model, config = make_network(splits)
    exported = ExportedModel.load(export_model(tmp_path / "out", model, config, splits, {}))
    assert exported.feature_names == names
    answers = exported.predict(columns_of(splits, splits.test.x.numbers()))
    assert list(answers) == ["label", "probability_no", "probability_yes"]
    expected = torch_answers(model, splits, splits.test.x.numbers())
    np.testing.assert_allclose(answers["probability_yes"], expected[:, 1], rtol=0, atol=1e-5)


def test_a_double_precision_network_is_exported_in_float32(tmp_path):
    splits = make_splits("binary")
    _, config = make_network(splits)
    model = build_model(config, seed=1, dtype=torch.float64)
    network, _, _ = load_network(export_model(tmp_path / "out", model, config, splits, {}))
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float64}, "the network itself stays as it was"
    assert model.training


@pytest.mark.parametrize("task", TASKS)
def test_the_network_comes_back_bit_equal(tmp_path, task):
    splits = make_splits(task)
    model, config = make_network(splits, "selu")
    network, preprocessor, manifest = load_network(export_model(tmp_path / "out", model, config, splits, {"trial": 7}))
    assert preprocessor == splits.preprocessor
    assert manifest["facts"] == {"trial": 7}
    x = torch.from_numpy(preprocessor.transform(splits.test.x)).float()
    assert torch.equal(network(x), model.eval()(x))


def test_the_manifest_says_all_that_is_needed_to_use_it(tmp_path):
    splits = make_splits("multiclass")
    model, config = make_network(splits)
    facts = {"metrics": {"f1": np.float64(0.5), "roc_auc": math.nan}, "widths": (1, np.int64(2)), "note": None}
    folder = export_model(tmp_path / "out", model, config, splits, facts)
    text = (folder / "model.json").read_text()
    manifest = json.loads(text)
    assert "NaN" not in text
    assert manifest["facts"] == {"metrics": {"f1": 0.5, "roc_auc": None}, "widths": [1, 2], "note": None}
    first = {key: value for key, value in manifest["columns"][0].items() if key != "cells"}
    assert first | {"example": 0} == {"name": "a", "kind": "numeric", "form": "", "dtype": "float64", "example": 0}
    assert manifest["class_labels"] == [3, 5, 8]
    assert manifest["task"] == "multiclass"
    assert manifest["architecture"]["widths"] == [16, 8]
    assert manifest["data"]["rows"] == {"train": 200, "val": 100, "test": 100}
    assert manifest["data"]["fingerprint"] == splits.fingerprint
    assert manifest["check"]["rows"] == 201
    assert manifest["check"]["largest_difference"] <= manifest["check"]["tolerance"] == 1e-5
    assert set(manifest["versions"]) >= {"python", "torch", "onnx", "onnxruntime", "numpy", "safetensors"}
    sums = dict(line.split("  ")[::-1] for line in (folder / SUMS_FILE).read_text().splitlines())
    assert {name: sums[name] for name in manifest["files"]} == manifest["files"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, SUMS_FILE])


def test_facts_that_are_not_plain_data_are_refused_by_their_place(tmp_path):
    splits = make_splits("binary")
    model, config = make_network(splits)
    with pytest.raises(ExportError, match=r"facts\.spec\[1\] must be plain data"):
        export_model(tmp_path / "out", model, config, splits, {"spec": [1, object()]})
    assert list(tmp_path.iterdir()) == []


def test_the_same_network_gives_the_same_files(tmp_path):
    splits = make_splits("binary")
    model, config = make_network(splits)
    one, two = (export_model(tmp_path / name, model, config, splits, {"a": 1}) for name in ("1", "2"))
    assert read_sealed(one, FILES) == read_sealed(two, FILES)


def test_a_failed_check_leaves_the_old_export_whole(tmp_path, monkeypatch):
    splits = make_splits("regression")
    model, config = make_network(splits, "tanh")
    folder = export_model(tmp_path / "out", model, config, splits, {})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setitem(onnx_graph.ACTIVATION_NODES, "tanh", onnx_graph.ACTIVATION_NODES["sigmoid"])
    with pytest.raises(ExportError, match="must answer as the network does, to 1e-05; on 201 rows they differ"):
        export_model(folder, model, config, splits, {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_labels_in_the_wrong_order_are_refused(tmp_path, monkeypatch):
    splits = make_splits("binary")
    model, config = make_network(splits)
    right = onnx_graph._label_array
    monkeypatch.setattr(onnx_graph, "_label_array", lambda labels: right(labels)[::-1].copy())
    with pytest.raises(ExportError, match="must call the likeliest class"):
        export_model(tmp_path / "out", model, config, splits, {})
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_nan_is_refused(tmp_path):
    splits = make_splits("regression")
    model, config = make_network(splits)
    with torch.no_grad():
        model[0].weight.fill_(math.nan)
    with pytest.raises(ExportError, match="differ by nan"):
        export_model(tmp_path / "out", model, config, splits, {})
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_amplifies_rounding_beyond_the_tolerance_is_refused(tmp_path):
    splits = make_splits("regression")
    model, config = make_network(splits, "tanh", (64, 64, 64))
    with torch.no_grad():
        for p in model.parameters():
            p *= 30  # chaotic: float32's own rounding is now far above the tolerance
    with pytest.raises(ExportError, match="as the network does, to 1e-05"):
        export_model(tmp_path / "out", model, config, splits, {})
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    splits = make_splits("binary")
    model, config = make_network(splits)
    return export_model(tmp_path_factory.mktemp("exports") / "out", model, config, splits, {})


@pytest.mark.parametrize("load", [ExportedModel.load, load_network])
@pytest.mark.parametrize("name", [*FILES, SUMS_FILE])
def test_a_missing_file_is_refused_by_name(folder, name, load):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(ExportError, match=f"{name} must be a readable file"):
            load(folder)
    finally:
        path.write_bytes(content)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A bit or more turned over, some bytes cut out, doubled or made zero, the end cut off, or something added."""
    changed = bytearray(content)
    at, more = rng.randrange(len(content)), rng.randrange(1, 65)
    match rng.randrange(6):
        case 0:
            changed[at] ^= rng.randrange(1, 256)
        case 1:
            del changed[at : at + more]
        case 2:
            changed[at:at] = content[at : at + more]
        case 3:
            changed[at : at + more] = bytes(len(changed[at : at + more]))
        case 4:
            del changed[at:]
        case 5:
            changed += rng.randbytes(more)
    return bytes(changed)


def test_a_thousand_damages_are_refused_by_name(folder):
    """Of any file, the sums too; none goes unseen, whatever the damaged file is read for."""
    rng, n_damages, n_named = random.Random(0), 0, 0
    while n_damages < 1000:
        name = rng.choice([*FILES, SUMS_FILE])
        content = (folder / name).read_bytes()
        new = damaged(content, rng)
        if new == content:  # what was made zero was zero
            continue
        n_damages += 1
        (folder / name).write_bytes(new)
        try:
            with pytest.raises(ExportError) as refused:
                ExportedModel.load(folder)
        finally:
            (folder / name).write_bytes(content)
        # Damaged sums accuse the file whose line is wrong.
        n_named += name in str(refused.value) or (name == SUMS_FILE and any(f in str(refused.value) for f in FILES))
    assert n_named == 1000
    ExportedModel.load(folder)


def of_version_2(files):
    """An export as it was written before there were card and script."""
    manifest = json.loads(files["model.json"]) | {"format_version": 2}
    del manifest["files"]["README.md"], manifest["files"]["predict.py"]
    kept = {name: files[name] for name in ("model.onnx", "weights.safetensors")}
    return kept | {"model.json": json.dumps(manifest).encode()}


def test_an_export_from_before_the_card_is_read(folder, tmp_path):
    write_sealed(tmp_path / "out", of_version_2(read_sealed(folder, FILES)))
    rows = {name: np.array([1.0, np.nan]) for name in ExportedModel.load(folder).feature_names}
    expected = ExportedModel.load(folder).predict(rows)
    for name, values in ExportedModel.load(tmp_path / "out").predict(rows).items():
        assert values.tolist() == expected[name].tolist()
    assert load_network(tmp_path / "out")[2]["format_version"] == 2
    splits = make_splits("binary")
    export_model(tmp_path / "out", *make_network(splits), splits, {})  # and is replaced
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*FILES, SUMS_FILE}


def test_an_export_without_its_card_is_refused(folder, tmp_path):
    files = read_sealed(folder, FILES)
    del files["README.md"]
    write_sealed(tmp_path / "out", files)
    with pytest.raises(ExportError, match=r"README\.md must be there"):
        ExportedModel.load(tmp_path / "out")


def parts_of(splits, n=3):
    """Networks of different shapes, each of which may see other numbers."""
    found = []
    for seed in range(n):
        config = ModelConfig(splits.n_features, splits.n_outputs, (8,) * (seed + 1), "tanh")
        own = splits.prepared(("standard", "robust", "standard")[seed])
        found.append(Part(build_model(config, seed), config, own.preprocessor))
    return found


@pytest.mark.parametrize("transform", TARGET_TRANSFORMS)
@pytest.mark.parametrize("task", TASKS)
def test_an_ensemble_answers_with_the_mean_of_its_networks(tmp_path, task, transform):
    if task != "regression" and transform != "none":
        return
    splits = splits_of_all_kinds(task, PreprocessConfig(target_transform=transform))
    parts = parts_of(splits)
    folder = export_parts(tmp_path / "out", parts, splits, Story())
    exported = ExportedModel.load(folder)
    network, preprocessor, manifest = load_network(folder)
    assert manifest["check"]["largest_difference"] <= 1e-5 and len(manifest["preprocessings"]) == 2
    predict = splits.to_task().predict
    for n in (1, 7, 1000):
        rows = with_unseen(of_all_kinds(n, seed=n, holes=0.3))
        each = []
        with torch.no_grad():
            for part in parts:
                each.append(part.network.eval()(torch.from_numpy(part.preprocessor.transform(rows)).float()))
            together = network(torch.from_numpy(preprocessor.transform(rows)).float())
        answers = exported.predict(raw(rows))
        if task == "regression":
            scale = splits.preprocessor.scale_target
            expected = predict(torch.stack(each).double().mean(0)).numpy()
            for found in (answers["prediction"][:, np.newaxis], predict(together).numpy()):
                np.testing.assert_allclose(scale(found), scale(expected), rtol=0, atol=1e-5)
            continue
        mean = torch.stack([predict(o) for o in each]).mean(0)
        for found in (
            torch.from_numpy(np.stack([answers[f"probability_{label}"] for label in splits.class_labels], axis=1)),
            torch.stack([1 - predict(together), predict(together)], 1) if task == "binary" else predict(together),
        ):
            expected = torch.stack([1 - mean, mean], 1) if task == "binary" else mean
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        likeliest = found.argmax(1).tolist()
        assert answers["label"].tolist() == [splits.class_labels[i] for i in likeliest]


@pytest.mark.parametrize("task", TASKS)
def test_a_network_that_counts_several_times_is_in_the_export_once(tmp_path, task):
    splits = splits_of_all_kinds(task)
    parts = parts_of(splits)
    counts = (3, 1, 2)
    several = [part for part, n in zip(parts, counts, strict=True) for _ in range(n)]
    folder = export_parts(tmp_path / "out", several, splits, Story())
    network, preprocessor, manifest = load_network(folder)
    assert [member.get("weight", 1) for member in manifest["members"]] == list(counts)
    assert manifest["check"]["largest_difference"] <= 1e-5, "onnxruntime answers as the loaded network"
    assert "3 networks, which count for 3, 1, 2" in (folder / "README.md").read_text()
    rows = of_all_kinds(40, seed=2, holes=0.2)
    with torch.no_grad():
        found = network(torch.from_numpy(preprocessor.transform(rows)).float())
        each = [p.network.eval()(torch.from_numpy(p.preprocessor.transform(rows)).float()) for p in several]
    predict = splits.to_task().predict
    expected = torch.stack([own if task == "regression" else predict(own) for own in each]).mean(0)
    torch.testing.assert_close(found if task == "regression" else predict(found), expected, rtol=0, atol=1e-5)


def test_an_ensemble_of_other_weights_is_refused(tmp_path):
    splits = splits_of_all_kinds("binary")
    folder = export_parts(tmp_path / "out", parts_of(splits), splits, Story())
    files = read_sealed(folder, FILES)
    one = read_sealed(export_parts(tmp_path / "one", parts_of(splits)[:1], splits, Story()), FILES)
    write_sealed(folder, {**files, "weights.safetensors": one["weights.safetensors"]})
    with pytest.raises(ExportError, match=r"weights\.safetensors must hold tensors"):
        load_network(folder)
    manifest = json.loads(files["model.json"])
    manifest["members"][0]["preprocessing"] = 7
    write_sealed(folder, {**files, "model.json": json.dumps(manifest).encode()})
    with pytest.raises(ExportError, match=r"model\.json must describe a network"):
        load_network(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ExportError, match="nowhere"):
        ExportedModel.load(tmp_path / "nowhere")


def test_an_export_of_another_format_is_refused(folder, tmp_path):
    files = read_sealed(folder, FILES)
    for manifest in (b"[]", b'{"format_version": 99}'):
        write_sealed(tmp_path / "out", {**files, "model.json": manifest})
        with pytest.raises(ExportError, match=r"model\.json must have format_version"):
            ExportedModel.load(tmp_path / "out")
    write_sealed(tmp_path / "out", {**files, "model.json": b"{"})
    with pytest.raises(ExportError, match=r"model\.json must be JSON"):
        ExportedModel.load(tmp_path / "out")


def test_a_graph_that_reads_other_files_is_refused(folder, tmp_path):
    files = read_sealed(folder, FILES)
    graph = onnx.ModelProto.FromString(files["model.onnx"])
    tensor = next(t for t in graph.graph.initializer if t.raw_data)
    onnx.external_data_helper.set_external_data(tensor, location="/etc/passwd")
    write_sealed(tmp_path / "out", {**files, "model.onnx": graph.SerializeToString()})
    with pytest.raises(ExportError, match=r"model\.onnx must hold all its numbers itself"):
        ExportedModel.load(tmp_path / "out")


def test_a_sealed_folder_of_something_else_is_refused(folder, tmp_path):
    files = read_sealed(folder, FILES)
    for graph in (b"junk", b""):
        write_sealed(tmp_path / "out", {**files, "model.onnx": graph})
        with pytest.raises(ExportError, match=r"model\.onnx must be a graph written by dlcore"):
            ExportedModel.load(tmp_path / "out")
    write_sealed(tmp_path / "out", {**files, "model.json": b'{"format_version": 2}'})
    with pytest.raises(ExportError, match=r"model\.json must describe a network"):
        ExportedModel.load(tmp_path / "out")
    with pytest.raises(ExportError, match=r"model\.json must describe a network"):
        load_network(tmp_path / "out")


def test_predict_names_what_is_wrong_with_the_columns(folder):
    exported = ExportedModel.load(folder)
    columns = {name: np.zeros(3) for name in exported.feature_names}
    without = {name: values for name, values in columns.items() if name not in ("year", "d")}
    with pytest.raises(ExportError, match="missing: year, d"):
        exported.predict(without)
    with pytest.raises(ExportError, match="column year must hold numbers"):
        exported.predict({**columns, "year": np.array(["x", "y", "z"])})
    with pytest.raises(ExportError, match=r"column year must have one dimension; got shape \(3, 1\)"):
        exported.predict({**columns, "year": np.zeros((3, 1))})
    with pytest.raises(ExportError, match="equally long"):
        exported.predict({**columns, "year": np.zeros(2)})


def test_predict_takes_whole_numbers_booleans_and_further_columns(folder):
    exported = ExportedModel.load(folder)
    plain = {name: np.array([1.0, 0.0]) for name in exported.feature_names}
    mixed = {**plain, "a": np.array([1, 0]), "d": np.array([True, False]), "more": np.array(["x", "y"])}
    for name, values in exported.predict(plain).items():
        assert values.tolist() == exported.predict(mixed)[name].tolist()


def test_predict_takes_no_rows(folder):
    exported = ExportedModel.load(folder)
    answers = exported.predict({name: np.zeros(0) for name in exported.feature_names})
    assert all(values.shape == (0,) for values in answers.values())
