"""dlcore.transfer: an export as the start of other networks, its columns matched by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dlcore.backbone import Backbone
from dlcore.columns import Column, Features
from dlcore.config import DataConfig, ModelConfig, PreprocessConfig
from dlcore.data import DataSplits, Split, load_splits
from dlcore.ensemble import Part
from dlcore.errors import DataError, ExportError
from dlcore.export import Story, export_model, export_parts, load_network
from dlcore.models import build_model, tensor_names
from dlcore.preprocess import Preprocessor, fit_preprocessor
from dlcore.transfer import Source, read_source, transferred
from tests.dlcore.column_tools import splits_of_all_kinds, texts


def trained(splits: DataSplits, normalization: str = "none", widths: tuple[int, ...] = (6, 4)) -> nn.Sequential:
    """A network with numbers of its own everywhere, statistics included, as training leaves it."""
    model = build_model(config_of(splits, normalization, widths), 3)
    stream = torch.Generator().manual_seed(0)
    state = {
        name: tensor + torch.rand(tensor.shape, generator=stream) / 4 for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model.eval()


def config_of(splits: DataSplits, normalization: str = "none", widths: tuple[int, ...] = (6, 4)) -> ModelConfig:
    return ModelConfig(
        splits.n_features, splits.n_outputs, widths, activation="tanh", dropout=0.1, normalization=normalization
    )


@pytest.fixture
def exported(tmp_path: Path) -> Callable[..., tuple[Source, nn.Sequential, DataSplits]]:
    def export(task: str = "regression", normalization: str = "none") -> tuple[Source, nn.Sequential, DataSplits]:
        splits = splits_of_all_kinds(task, PreprocessConfig(scaling="quantile_normal"))
        model = trained(splits, normalization)
        export_model(tmp_path / "source", model, config_of(splits, normalization), splits, {"study": "s", "trial": 7})
        return read_source(tmp_path / "source"), model, splits

    return export


def with_columns(splits: DataSplits, change: Callable[[Features], tuple[Column, ...]], task: str) -> DataSplits:
    """Another table: its own columns, a target of its own, prepared by itself."""
    rng = np.random.default_rng(5)
    parts = {}
    for name in ("train", "val", "test"):
        rows = splits.split(name)
        y = rng.normal(size=(len(rows.x), 1)) if task == "regression" else rng.integers(0, 3, len(rows.x))
        parts[name] = Split(Features(change(rows.x)), y, rows.rows)
    train = parts["train"]
    labels: tuple[str | int, ...] = () if task == "regression" else (1, 2, 3)
    return replace(
        splits,
        task=task,
        class_labels=labels,
        feature_names=train.x.names,
        preprocessor=fit_preprocessor(train.x, train.y, task),
        preprocessing=PreprocessConfig(),
        **parts,
    )


def hidden(model: nn.Sequential, x: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return model[:-1](torch.from_numpy(x).float())


def started(backbone: Backbone) -> nn.Sequential:
    return build_model(backbone.model_config(3), 0, backbone=backbone).eval()


def reordered(x: Features) -> tuple[Column, ...]:
    """Without two columns and with two others, in another order."""
    rng = np.random.default_rng(len(x))
    kept = [c for c in x.columns if c.name not in ("size", "city")]
    new = Column("new", "numeric", rng.normal(size=len(x)))
    return (*reversed(kept), new, texts("colour", rng.choice(["red", "blue"], len(x))))


def without(x: Features, names: tuple[str, ...]) -> Features:
    """The same columns, these missing in every row."""
    return Features(
        tuple(
            replace(c, values=np.full_like(c.values, -1 if c.kind == "categorical" else np.nan))
            if c.name in names
            else c
            for c in x.columns
        )
    )


@pytest.mark.parametrize("normalization", ["none", "layer", "batch"])
def test_the_layers_see_of_another_table_what_they_saw_of_theirs(
    normalization: str, exported: Callable[..., tuple[Source, nn.Sequential, DataSplits]]
) -> None:
    source, model, splits = exported("regression", normalization)
    table = with_columns(splits, reordered, "multiclass")

    found, made = transferred(table, source)

    expected = hidden(model, splits.preprocessor.transform(without(splits.val.x, ("size", "city"))))
    seen = hidden(started(made.backbone), found.preprocessor.transform(found.val.x))
    torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-5)
    assert made.new == ("new", "colour") and made.missing == ("size", "city") and len(made.matched) == 10
    assert made.text == (
        "10 of the source's 12 columns matched; new here, with weights that start at 0: new, colour; "
        "not here, and taken for missing in every row: size, city"
    )
    assert found.notes[-1] == f"transfer: {made.text}"


def test_the_same_table_gets_the_same_layers_to_the_bit(
    exported: Callable[..., tuple[Source, nn.Sequential, DataSplits]],
) -> None:
    source, model, splits = exported()
    found, made = transferred(with_columns(splits, lambda x: x.columns, "multiclass"), source)
    names = tensor_names(config_of(splits))[:-1]
    state = model.state_dict()
    for layer, own in zip(made.backbone.layers, names, strict=True):
        for tensor, name in zip(layer, own, strict=True):
            assert torch.equal(tensor, state[name])
    assert found.preprocessor.encoders == splits.preprocessor.encoders
    assert made.text == "12 of the source's 12 columns matched"
    assert source.scaling == "quantile_normal" and source.facts == {"study": "s", "trial": 7}


def test_columns_that_the_source_knows_keep_its_numbers_and_new_ones_are_fitted(
    exported: Callable[..., tuple[Source, nn.Sequential, DataSplits]],
) -> None:
    source, _, splits = exported()
    table = with_columns(splits, reordered, "multiclass")
    found, _ = transferred(table, source)
    kept = {e.name: e for e in source.preprocessor.encoders}
    own = {e.name: e for e in table.preprocessor.encoders}
    for encoder in found.preprocessor.encoders:
        assert encoder == kept.get(encoder.name, own[encoder.name])
    assert set(found.preprocessor.kept) == set(own) - {"new", "colour"}
    assert found.preprocessor.target_mean == table.preprocessor.target_mean
    # Means of the source's targets know nothing of these rows: train is encoded as any other rows.
    train = found.train
    assert np.array_equal(
        found.preprocessor.transform_training(train.x, train.y), found.preprocessor.transform(train.x)
    )
    # Nor does another fold fit them anew.
    again = found.preprocessor.refitted(found.val.x, found.val.y, PreprocessConfig())
    assert [e for e in again.encoders if e.name in again.kept] == [
        e for e in found.preprocessor.encoders if e.name in found.preprocessor.kept
    ]
    assert {e.name for a, e in zip(again.encoders, found.preprocessor.encoders, strict=True) if a != e} == {"new"}
    assert Preprocessor.from_dict(found.preprocessor.to_dict()) == found.preprocessor
    assert "kept" not in table.preprocessor.to_dict()


def test_categories_that_the_source_never_saw_count_as_rare_ones(
    exported: Callable[..., tuple[Source, nn.Sequential, DataSplits]],
) -> None:
    source, _, splits = exported()

    def abroad(x: Features) -> tuple[Column, ...]:
        return tuple(texts("full", ["c"] * len(x)) if c.name == "full" else c for c in x.columns)

    found, _ = transferred(with_columns(splits, abroad, "multiclass"), source)
    names = found.preprocessor.output_names
    encoded = found.preprocessor.transform(found.val.x)
    assert not encoded[:, [i for i, name in enumerate(names) if name.startswith("full =")]].any()


def test_what_was_transferred_is_exported_and_answers_alike(
    exported: Callable[..., tuple[Source, nn.Sequential, DataSplits]], tmp_path: Path
) -> None:
    source, _, splits = exported()
    found, made = transferred(with_columns(splits, reordered, "multiclass"), source)
    network = started(made.backbone)
    export_model(tmp_path / "next", network, made.backbone.model_config(3), found, {})
    again, preprocessor, _ = load_network(tmp_path / "next")
    assert preprocessor == found.preprocessor
    x = torch.from_numpy(found.preprocessor.transform(found.val.x)).float()
    assert torch.equal(again(x), network(x))
    chained = read_source(tmp_path / "next")  # which may be a source in its turn
    assert chained.fingerprint != source.fingerprint
    _, on = transferred(found, chained)
    assert torch.equal(on.backbone.layers[0][0], made.backbone.layers[0][0])


def test_a_column_of_another_kind_is_refused_by_name(
    exported: Callable[..., tuple[Source, nn.Sequential, DataSplits]],
) -> None:
    source, _, splits = exported()

    def other(x: Features) -> tuple[Column, ...]:
        changed = {
            "size": texts("size", ["small"] * len(x)),
            "is_new": Column("is_new", "numeric", np.ones(len(x)) * 2),
        }
        return tuple(changed.get(c.name, c) for c in x.columns)

    with pytest.raises(DataError) as error:
        transferred(with_columns(splits, other, "multiclass"), source)
    assert str(error.value) == (
        "[transfer] needs columns that are of the same kind as in source: 'size' is categorical and was numeric, "
        "'is_new' is numeric and was boolean; say what they are "
        '([data] kinds = { "size" = "numeric", "is_new" = "boolean" }), rename them, or leave them out (drop)'
    )


def test_numbers_that_are_truths_in_the_source_are_taken_for_such(
    exported: Callable[..., tuple[Source, nn.Sequential, DataSplits]],
) -> None:
    source, _, splits = exported()

    def numbers(x: Features) -> tuple[Column, ...]:
        return tuple(replace(c, kind="numeric") if c.name == "is_new" else c for c in x.columns)

    found, _ = transferred(with_columns(splits, numbers, "multiclass"), source)
    for part in (found.train, found.val, found.test):
        assert {c.name: c.kind for c in part.x.columns}["is_new"] == "boolean"


def test_a_table_that_shares_no_column_is_refused(
    exported: Callable[..., tuple[Source, nn.Sequential, DataSplits]],
) -> None:
    source, _, _ = exported()
    iris = load_splits(DataConfig("sklearn:iris"), 0)
    with pytest.raises(DataError, match=r"columns that the table and source both have.*'sepal length.*'size'"):
        transferred(iris, source)


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    splits = splits_of_all_kinds("binary")
    with pytest.raises(ExportError, match=r"from must be the folder of an export; there is none at .*/nowhere"):
        read_source(tmp_path / "nowhere")
    linear = trained(splits, widths=())
    export_model(tmp_path / "linear", linear, config_of(splits, widths=()), splits, {})
    with pytest.raises(ExportError, match=r"must be a network with hidden layers; .* is a linear model"):
        read_source(tmp_path / "linear")
    parts = [Part(trained(splits), config_of(splits), splits.preprocessor) for _ in range(3)]
    export_parts(tmp_path / "three", parts, splits, Story())
    with pytest.raises(ExportError, match=r"is an ensemble of 3: export one trial of its study \(studies export"):
        read_source(tmp_path / "three")


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_a_damaged_source_is_refused_by_the_file(
    name: str, exported: Callable[..., tuple[Source, nn.Sequential, DataSplits]], tmp_path: Path
) -> None:
    exported()
    file = tmp_path / "source" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ExportError, match=rf"source/{name} must be as it was written"):
        read_source(tmp_path / "source")


def test_the_fingerprint_follows_weights_and_preprocessing_and_nothing_else(tmp_path: Path) -> None:
    splits = splits_of_all_kinds("binary")

    def fingerprint(splits: DataSplits, normalization: str, facts: dict[str, object]) -> str:
        export_model(tmp_path / "a", trained(splits, normalization), config_of(splits, normalization), splits, facts)
        return read_source(tmp_path / "a").fingerprint

    first = fingerprint(splits, "none", {"study": "x"})
    assert fingerprint(splits, "none", {"seconds": 1}) == first
    assert len({first, fingerprint(splits, "layer", {}), fingerprint(splits.prepared("robust"), "none", {})}) == 3


def test_a_table_is_read_with_the_kinds_of_another_one(tmp_path: Path) -> None:
    rows = "".join(f"{i % 2},3,{'ab'[i % 2]},{i},5,{i % 3}\n" for i in range(30))
    (tmp_path / "t.csv").write_text("flag,same,text,count,id5,y\n" + rows)
    known = {"flag": "numeric", "same": "numeric", "text": "numeric", "count": "numeric", "gone": "date", "y": "date"}
    config = DataConfig(path=str(tmp_path / "t.csv"), target=("y",))
    alone, found = load_splits(config, 0), load_splits(config, 0, known)
    assert {"same", "count"}.isdisjoint(alone.feature_names)  # a constant, and a number for each row
    kinds = {c.name: c.kind for c in found.train.x.columns}
    assert kinds == {"flag": "numeric", "same": "numeric", "text": "categorical", "count": "numeric"}
    assert "'same'" not in "".join(found.notes) and "'id5'" in "".join(found.notes)
    by_hand = replace(config, kinds={"flag": "boolean"})
    assert {c.name: c.kind for c in load_splits(by_hand, 0, known).train.x.columns}["flag"] == "boolean"
