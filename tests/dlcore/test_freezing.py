import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch

from dlcore import updates
from dlcore.backbone import Backbone
from dlcore.config import NORMALIZATIONS, OPTIMIZERS, DataConfig, ModelConfig, TrainConfig
from dlcore.data import load_splits, to_tensors
from dlcore.engines import Engine, Loop, Together
from dlcore.freezing import frozen_runs, put_back_ops
from dlcore.layout import lay_out
from dlcore.naming import tensor_names
from dlcore.packing import Member
from dlcore.parallel import ParallelPopulation
from dlcore.population import Population
from dlcore.rows import TensorData
from dlcore.workers import can_have_workers
from tests.dlcore.backbones import bits, random_backbone, with_zeros

ORDER_SEED = 3
ENGINES = [
    Loop,
    Population,
    pytest.param(
        partial(ParallelPopulation, n_parts=2),
        marks=pytest.mark.skipif(not can_have_workers(), reason="needs a POSIX system"),
        id="ParallelPopulation",
    ),
    Together,
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def data_of(dtype: torch.dtype) -> TensorData:
    return to_tensors(load_splits(DataConfig(source="sklearn:wine"), 0), "cpu", dtype)


def members_of(normalization: str, optimizer: str, rate: float) -> list[Member]:
    """Depths 1 to 3, each with every number of frozen layers, and one network without any in between."""
    config = TrainConfig(4, batch_size=32, optimizer=optimizer, learning_rate=rate, weight_decay=0.5, momentum=0.9)
    kinds = [{"nesterov": True}, {"clip_norm": 0.5}, {"schedule": "cosine", "backbone_rate": 10.0}, {"noise": 0.1}]
    members = [Member(ModelConfig(13, 3, (6,), normalization=normalization), config, seed=99)]
    for depth in (1, 2, 3):
        shape = ModelConfig(13, 3, (5, 7, 5)[:depth], activation="tanh", normalization=normalization)
        backbone = with_zeros(random_backbone(shape, depth))
        for n_frozen in range(depth + 1):
            own = replace(config, n_frozen=n_frozen, **kinds[len(members) % 4])  # type: ignore[arg-type]
            members.append(Member(backbone.model_config(3), own, seed=len(members), backbone=backbone))
    return members


def check_frozen(backbone: Backbone, layers: Sequence[tuple[torch.Tensor, ...]], n_frozen: int) -> None:
    """Hold layers against those stored, to the bit; those that are not frozen must have moved."""
    for layer, (found, stored) in enumerate(zip(layers, backbone.layers, strict=False)):
        same = [torch.equal(bits(t), bits(own.to(t.dtype))) for t, own in zip(found, stored, strict=True)]
        assert all(same) if layer < n_frozen else not any(same)


def now(engine: Loop | Population, member: Member, index: int) -> list[tuple[torch.Tensor, ...]]:
    """What each layer of a member trains, as it is; also where it diverged."""
    if isinstance(engine, Loop):
        weights = engine.states[index].model.state_dict()
        return [tuple(weights[name] for name in names) for names in tensor_names(member.model_config)]
    (place,) = [i for i, indices in enumerate(engine._indices) if index in indices]
    return list(engine.stacks[place].views[engine._indices[place].index(index)])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("make", ENGINES)
def test_a_frozen_layer_is_to_the_bit_what_was_stored(
    make: Callable[..., Engine], normalization: str, optimizer: str
) -> None:
    members = members_of(normalization, optimizer, rate=0.02)
    engine = make(members, data_of(torch.float32), order_seed=ORDER_SEED)
    list(engine.advance(2))
    engine.drop([0, 1, 4])  # the others are packed anew
    list(engine.advance(4))
    assert {len(state.curve) for state in engine.states} == {2, 4}
    for member, state in zip(members, engine.states, strict=True):
        layers = [tuple(state.best_weights[name] for name in names) for names in tensor_names(member.model_config)]
        if member.backbone is not None:
            check_frozen(member.backbone, layers, member.train_config.n_frozen)


@pytest.mark.parametrize("large_block", [1, 20, 10_000])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("make", [Loop, Population])
def test_it_stays_so_where_all_else_goes_astray(
    make: type[Loop] | type[Population], optimizer: str, large_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "LARGE_BLOCK", large_block)
    members = members_of("layer", optimizer, rate=1e30)
    engine = make(members, data_of(torch.float32), order_seed=ORDER_SEED)
    list(engine.advance(2))
    n_astray = 0
    for i, member in enumerate(members):
        layers = now(engine, member, i)
        assert not layers[-1][0].abs().max() < 1e20
        n_astray += bool(layers[-1][0].isnan().any())
        if member.backbone is not None:
            check_frozen(member.backbone, layers, member.train_config.n_frozen)
    assert n_astray > 0


def test_a_gradient_that_is_clipped_counts_what_is_trained_alone() -> None:
    data, backbone = data_of(torch.float64), random_backbone(ModelConfig(13, 3, (6, 6), normalization="layer"), 1)
    config = TrainConfig(1, batch_size=200, learning_rate=1.0, momentum=0.0, clip_norm=1e-3, n_frozen=1)
    member = Member(backbone.model_config(3), config, seed=0, backbone=backbone)
    for engine in (Loop([member], data, order_seed=0), Population([member], data, order_seed=0)):
        before = [tensor.clone() for layer in now(engine, member, 0) for tensor in layer]
        list(engine.advance(1))
        after = [tensor for layer in now(engine, member, 0) for tensor in layer]
        moved = sum(float((a - b).square().sum()) for a, b in zip(after, before, strict=True)) ** 0.5
        assert moved == pytest.approx(1e-3, rel=1e-2)


def test_running_statistics_follow_the_rows_of_a_frozen_layer_too() -> None:
    data, backbone = data_of(torch.float64), random_backbone(ModelConfig(13, 3, (6,), normalization="batch"), 1)
    member = Member(backbone.model_config(3), TrainConfig(2, batch_size=32, n_frozen=1), seed=0, backbone=backbone)
    engines = Loop([member], data, order_seed=0), Population([member], data, order_seed=0)
    for engine in engines:
        list(engine.advance(2))
        weights = engine.states[0].best_weights
        assert torch.equal(weights["0.weight"], backbone.layers[0][0].double())
        assert not torch.equal(weights["1.running_mean"], backbone.statistics[0][0].double())
    loop, population = (engine.states[0].best_weights["1.running_var"] for engine in engines)
    torch.testing.assert_close(loop, population, rtol=1e-12, atol=1e-12)


def test_neighbours_are_one_run() -> None:
    models = [ModelConfig(4, 2, (3, 3), normalization="layer") for _ in range(3)]
    layout = lay_out(models, [(3, 3)] * 3)

    def runs(*numbers: int) -> list[tuple[int, int]]:
        return frozen_runs(layout, [TrainConfig(1, n_frozen=n) for n in numbers])

    assert runs(0, 0, 0) == []
    first = layout.layers[0]
    assert first.gain is not None and first.shift is not None
    assert runs(1, 1, 0) == [(0, 24), *((start, start + 6) for start in (first.bias, first.gain, first.shift))]
    assert runs(1, 0, 1)[:2] == [(0, 12), (24, 36)]
    n_all = sum(stop - start for start, stop in runs(2, 2, 2))
    assert n_all == layout.n_parameters - 3 * (3 * 2 + 2), "all but the heads"


def test_what_is_put_back_is_what_was_there() -> None:
    flat = torch.tensor([-0.0, 1.0, torch.inf, 3.0])
    before = flat.clone()
    assert put_back_ops(flat, []) == []
    (op,) = put_back_ops(flat, [(0, 1), (2, 4)])
    flat.fill_(torch.nan)
    op()
    assert torch.equal(bits(flat[[0, 2, 3]]), bits(before[[0, 2, 3]])) and flat[1].isnan()
