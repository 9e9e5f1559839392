import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from dlcore.config import DataConfig, ModelConfig, SplitConfig, TrainConfig
from dlcore.data import load_splits, split_table
from dlcore.engines import Loop
from dlcore.folds import Folded, fold_rows, form_folded_groups, of_folds, refit
from dlcore.packing import Member
from dlcore.rows import Rows, TensorData
from dlcore.tables import read_frame
from dlcore.training import Training
from tests.dlcore.backbones import random_backbone

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def table() -> tuple[TensorData, tuple[Rows, ...]]:
    return fold_rows(load_splits(DataConfig("sklearn:wine", split=SplitConfig(folds=3)), 0), CPU)


def member(data: TensorData, seed: int, rate: float = 0.1, **changes: object) -> Member:
    config = TrainConfig(epochs=6, batch_size=16, learning_rate=rate, objective="accuracy", **changes)  # type: ignore[arg-type]
    return Member(
        ModelConfig(data.x_train.shape[1], data.task.n_outputs, (4 + seed,), dropout=0.1 * seed), config, seed
    )


def test_every_row_that_is_not_test_is_val_of_one_fold(table: tuple[TensorData, tuple[Rows, ...]]) -> None:
    data, folds = table
    n_rows = len(data.x_train) // 3
    assert data.x_train is data.x_val and len(folds) == 3
    assert sorted(int(row) % n_rows for f in folds for row in f.val) == list(range(n_rows))
    for i, fold in enumerate(folds):
        rows = [*fold.train.tolist(), *fold.val.tolist()]
        assert sorted(rows) == list(range(i * n_rows, (i + 1) * n_rows))


def mixed(n: int = 300) -> pd.DataFrame:
    """Columns of every kind; the last fold's texts and holes are not those of the first."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": draw.normal(50, 20, n),
            "town": draw.choice([f"town {i}" for i in range(90)], n),
            "color": draw.choice(["red", "green", "blue"], n),
            "sold": pd.Timestamp("2024-01-01") + pd.to_timedelta(draw.integers(0, 900, n), unit="D"),
            "kind": draw.choice(["a", "b", "c"], n),
        }
    )
    frame.loc[draw.random(n) < 0.1, "size"] = np.nan
    return frame


FRAME = DataConfig(target=("kind",), split=SplitConfig(folds=3))


def test_nothing_of_its_val_is_in_what_a_fold_trains_on() -> None:
    frame = mixed()
    splits = split_table(read_frame(frame, FRAME), FRAME, 0)
    table, folds = fold_rows(splits, CPU)
    rows = np.concatenate([splits.train.rows, splits.val.rows])
    for i, fold in enumerate(folds):
        own = fold.val.numpy() - i * len(rows)
        changed = frame.copy()
        # Other numbers and other classes in the rows that this fold measures on, and in no others.
        changed.loc[rows[own], "size"] *= 1000
        changed.loc[rows[own], "kind"] = changed.loc[rows[own], "kind"].map({"a": "b", "b": "c", "c": "a"})
        features = read_frame(changed, FRAME).features.take(rows)
        classes = np.array(["abc".index(kind) for kind in changed["kind"]])[rows]
        train = fold.train.numpy() - i * len(rows)
        fitted = splits.preprocessor.refitted(features.take(train), classes[train], splits.preprocessing)
        again = fitted.transform_training(features.take(train), classes[train])
        assert torch.equal(table.x_train[fold.train], torch.from_numpy(again).to(torch.float32))
        assert fitted.output_names == splits.preprocessor.output_names
        others = splits.preprocessor.to_dict()["encoders"]
        assert fitted.to_dict()["encoders"] == others if i == 0 else fitted.to_dict()["encoders"] != others


def test_a_class_that_the_first_fold_does_not_train_on_breaks_no_other() -> None:
    frame = mixed()
    frame["farm"] = np.arange(len(frame)) % 12
    frame.loc[frame["farm"] == 0, "kind"] = "d"  # of one group, and so of one fold
    config = replace(FRAME, split=SplitConfig(group="farm", folds=3))
    splits = split_table(read_frame(frame, config), config, 0)
    assert 3 not in splits.train.y and 3 in splits.val.y
    table, _ = fold_rows(splits, CPU)
    assert table.x_train.shape[1] == splits.n_features == splits.prepared("robust").n_features
    shares = [name for name in splits.preprocessor.output_names if name.startswith("town: share of class")]
    assert len(shares) == 4


def test_a_curve_is_the_mean_over_folds_that_are_trained_alone(table: tuple[TensorData, tuple[Rows, ...]]) -> None:
    data, folds = table
    own = member(data, 1)
    (group,) = form_folded_groups([own], data, folds, order_seed=5, engine="loop")
    assert [e.epoch for _, e in group.engine.advance(6)] == [1, 2, 3, 4, 5, 6]
    alone = [Training(own.model_config, own.train_config, f.of(data), seed=1, order_seed=5) for f in folds]
    curves = [training.advance(6) for training in alone]
    for point, points in zip(group.engine.states[0].curve, zip(*curves, strict=True), strict=True):
        for name in ("train_loss", "val_loss", "val_metric"):
            assert getattr(point, name) == pytest.approx(sum(getattr(p, name) for p in points) / 3, rel=1e-12)
    best = group.engine.states[0].best
    assert best is not None and best.val_metric == max(e.val_metric for e in group.engine.states[0].curve)


def test_loop_and_population_agree_and_neighbours_are_not_felt(table: tuple[TensorData, tuple[Rows, ...]]) -> None:
    data, folds = table
    members = [member(data, seed, rate) for seed, rate in ((1, 0.1), (2, 0.02), (3, 0.3))]
    found = {}
    for engine in ("loop", "population"):
        (group,) = form_folded_groups(members, data, folds, order_seed=5, engine=engine)
        assert group.indices == (0, 1, 2) and group.name == engine
        for to in (2, 6):  # in pieces
            list(group.engine.advance(to))
        found[engine] = group.engine.states
    for loop, population in zip(found["loop"], found["population"], strict=True):
        assert [e.val_loss for e in loop.curve] == pytest.approx([e.val_loss for e in population.curve], rel=1e-4)
        assert loop.best is not None and population.best is not None and loop.best.epoch == population.best.epoch


def test_batch_sizes_that_cannot_train_together_make_groups(table: tuple[TensorData, tuple[Rows, ...]]) -> None:
    data, folds = table
    small = replace(member(data, 1), train_config=replace(member(data, 1).train_config, batch_size=8))
    groups = form_folded_groups(
        [member(data, 1), small, member(data, 2)], data, folds, order_seed=5, engine="population"
    )
    assert [g.indices for g in groups] == [(0, 2), (1,)]
    list(groups[1].engine.advance(1))
    assert len(groups[1].engine.states) == 1 and len(groups[1].engine.states[0].curve) == 1


def test_patience_waits_for_the_mean_and_ends_all_folds(table: tuple[TensorData, tuple[Rows, ...]]) -> None:
    data, folds = table
    own = member(data, 1, rate=0.0, patience=2)  # nothing is learned: the first epoch stays the best
    loop = Loop(of_folds([own], folds), data, order_seed=5)
    engine = Folded([own], loop)
    list(engine.advance(6))
    assert engine.states[0].is_finished and len(engine.states[0].curve) == 3
    assert [len(t.curve) for t in loop.states] == [3, 3, 3]


def test_it_diverged_when_one_fold_did(table: tuple[TensorData, tuple[Rows, ...]]) -> None:
    data, folds = table
    wild = torch.clone(data.x_train)
    wild[folds[1].train[::2]] = 1e30
    broken = TensorData(data.task, wild, data.y_train, data.x_val, data.y_val)
    (group,) = form_folded_groups([member(data, 1)], broken, folds, order_seed=5, engine="loop")
    assert list(group.engine.advance(6)) == []
    state = group.engine.states[0]
    assert state.is_finished and state.divergence is not None and state.divergence.epoch == 1 and state.best is None


def test_a_value_that_is_not_finite_in_one_fold_is_none_of_the_mean(table: tuple[TensorData, tuple[Rows, ...]]) -> None:
    data, folds = table
    holed = torch.clone(data.x_val)
    holed[folds[2].val[0]] = math.nan
    (group,) = form_folded_groups(
        [member(data, 1)], TensorData(data.task, data.x_train, data.y_train, holed, data.y_val), folds,
        order_seed=5, engine="loop",
    )  # fmt: skip
    list(group.engine.advance(2))
    assert all(math.isnan(e.val_loss) for e in group.engine.states[0].curve) and group.engine.states[0].best is None


def test_dropped_networks_train_no_further(table: tuple[TensorData, tuple[Rows, ...]]) -> None:
    data, folds = table
    (group,) = form_folded_groups([member(data, 1), member(data, 2)], data, folds, order_seed=5, engine="population")
    list(group.engine.advance(2))
    group.engine.drop([0])
    assert {index for index, _ in group.engine.advance(4)} == {1}
    assert [len(s.curve) for s in group.engine.states] == [2, 4]


def test_a_refit_is_the_network_after_its_epochs_on_all_rows(table: tuple[TensorData, tuple[Rows, ...]]) -> None:
    data, _ = table
    own = member(data, 1, patience=1)
    whole = Training(own.model_config, replace(own.train_config, patience=None), data, seed=1, order_seed=5)
    whole.advance(4)
    again = refit(own, data, 4, order_seed=5)
    for left, right in zip(whole.model.parameters(), again.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_pretrained_network_is_so_on_every_fold_and_when_it_is_refit(
    table: tuple[TensorData, tuple[Rows, ...]],
) -> None:
    data, folds = table
    shape = ModelConfig(data.x_train.shape[1], data.task.n_outputs, (6, 5))
    backbone = random_backbone(shape, seed=3)
    config = replace(member(data, 1).train_config, n_frozen=1, backbone_rate=0.5)
    own = Member(backbone.model_config(data.task.n_outputs), config, seed=1, backbone=backbone)
    found = {}
    for engine in ("loop", "population"):
        (group,) = form_folded_groups([own], data, folds, order_seed=5, engine=engine)
        list(group.engine.advance(4))
        found[engine] = [e.val_loss for e in group.engine.states[0].curve]
    assert found["loop"] == pytest.approx(found["population"], rel=1e-4)
    again = refit(own, data, 4, order_seed=5)
    assert torch.equal(again[0].weight, backbone.layers[0][0])  # type: ignore[arg-type]
    assert not torch.equal(again[2].weight, backbone.layers[1][0])  # type: ignore[arg-type]
