"""dlcore.normalization: batch and layer normalization of a stack are PyTorch's, in training and as measured."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from dlcore.config import ACTIVATIONS, ModelConfig
from dlcore.evaluation import evaluate
from dlcore.models import BatchNorm, build_model, count_parameters
from dlcore.naming import statistic_names, tensor_names
from dlcore.optim import Optimizer
from dlcore.packing import Member
from dlcore.parallel import ParallelPopulation
from dlcore.population import Population
from dlcore.rows import Rows, TensorData
from tests.dlcore.cure_tools import ORDER_SEED, SETS, assert_the_loops, config, data_of, members_of, numbers

KINDS = ("batch", "layer", "none")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normalized(data: TensorData, n: int = 9, **changes: object) -> list[Member]:
    members = members_of(data, [{"clip_norm": (None, 0.5)[i % 2]} for i in range(n)], **changes)
    return [
        dataclasses.replace(m, model_config=dataclasses.replace(m.model_config, normalization=KINDS[i // 2 % 3]))
        for i, m in enumerate(members)
    ]


@pytest.mark.parametrize("dtype, within", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("optimizer, rate", [("sgd", 0.02), ("adamw", 0.003)])
@pytest.mark.parametrize("name", SETS)
def test_normalized_members_beside_others_get_what_the_loop_gives(name, optimizer, rate, dtype, within):
    data = data_of(SETS[name], dtype)
    changes = {"optimizer": optimizer, "learning_rate": rate, "weight_decay": 0.01}
    population = assert_the_loops(normalized(data, 12, **changes), data, within)
    kinds = [{m.model_config.normalization for m in s.members if m.model_config.depth} for s in population.stacks]
    assert all(len(kind) <= 1 for kind in kinds)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_activation_and_unequal_widths(activation: str) -> None:
    data = data_of("wine")
    members = [
        Member(ModelConfig(13, 3, widths, activation=activation, normalization=kind, dropout=dropout), config(), seed=i)
        for i, (widths, kind, dropout) in enumerate(
            [((5, 3), "batch", 0.3), ((9,), "batch", 0.0), ((5, 7), "layer", 0.2), ((3, 1), "layer", 0.0)]
        )
    ]
    assert_the_loops(members, data)


def test_a_last_batch_of_one_row_has_no_spread() -> None:
    data = data_of("wine")
    one_left = TensorData(data.task, data.x_train[:65], data.y_train[:65], data.x_val, data.y_val)
    assert_the_loops(normalized(one_left), one_left)
    layer = BatchNorm(3)
    layer.bias.data.fill_(2.0)
    assert layer(torch.randn(1, 3)).tolist() == [[2.0, 2.0, 2.0]]
    assert layer.running_mean.tolist() == [0.0, 0.0, 0.0]


def test_it_goes_with_folds_and_augmented_rows() -> None:
    data = data_of("digits")
    folds = [Rows(torch.arange(0, 200), torch.arange(200, 300)), Rows(torch.arange(100, 300), torch.arange(0, 100))]
    members = [dataclasses.replace(m, rows=folds[i % 2]) for i, m in enumerate(normalized(data, 8))]
    augmented = normalized(data, 6, noise=0.1, mixup=0.3, label_smoothing=0.1)
    assert_the_loops([*members, *augmented], data)


def test_in_pieces_on_two_cores_and_packed_anew_it_is_what_it_is_in_one_go() -> None:
    data = data_of("digits")
    members = normalized(data, 12, epochs=6, optimizer="adamw", learning_rate=0.003)
    whole, pieces = (Population(members, data, order_seed=ORDER_SEED) for _ in range(2))
    parallel = ParallelPopulation(members, data, order_seed=ORDER_SEED, n_parts=2)
    list(whole.advance(6))
    for population in (pieces, parallel):
        list(population.advance(2))
        population.drop(range(0, 12, 2))
        list(population.advance(6))
        for i in range(1, 12, 2):
            assert np.allclose(numbers(whole.states[i].curve), numbers(population.states[i].curve), rtol=1e-9)


@pytest.mark.parametrize("name", SETS)
def test_the_kept_weights_and_statistics_reproduce_the_best_epoch(name: str) -> None:
    data = data_of(SETS[name])
    members = normalized(data, 9)
    population = Population(members, data, order_seed=ORDER_SEED)
    list(population.advance(3))
    for member, state in zip(members, population.states, strict=True):
        model = build_model(member.model_config, seed=0, dtype=torch.float64)
        model.load_state_dict(state.best_weights)
        assert state.best is not None
        found = evaluate(model, data.task, data.x_val, data.y_val)["loss"]
        assert found == pytest.approx(state.best.val_loss, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_names_count_and_order_are_those_of_the_network(kind: str, dropout: float) -> None:
    own = ModelConfig(4, 2, (8, 6), normalization=kind, dropout=dropout)
    model = build_model(own, seed=1)
    modules = [type(module).__name__ for module in model]
    norm = {"batch": ["BatchNorm"], "layer": ["LayerNorm"], "none": []}[kind]
    assert modules == 2 * ["Linear", *norm, "ReLU", *(["SeededDropout"] if dropout else [])] + ["Linear"]
    named = [name for names in (*tensor_names(own), *statistic_names(own)) for name in names]
    assert sorted(named) == sorted(model.state_dict())
    assert count_parameters(own) == sum(p.numel() for p in model.parameters())


def test_the_state_dict_loads_into_pytorchs_own_modules() -> None:
    data = data_of("digits")
    (member,) = (m for m in normalized(data, 9)[1:2])
    own = dataclasses.replace(member.model_config, widths=(8, 6), normalization="batch", dropout=0.0, activation="relu")
    population = Population([dataclasses.replace(member, model_config=own)], data, order_seed=1)
    list(population.advance(3))
    hidden = [nn.Linear(64, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU()]
    plain = nn.Sequential(*hidden, nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 10)).double()
    plain.load_state_dict(population.states[0].best_weights)
    best = population.states[0].best
    assert best is not None
    loss = nn.functional.cross_entropy(plain.eval()(data.x_val), data.y_val)
    assert loss.item() == pytest.approx(best.val_loss, rel=1e-12)


def test_weights_alone_are_decayed() -> None:
    own = ModelConfig(4, 2, (8,), normalization="layer")
    model = build_model(own, seed=1)
    before = {name: p.clone() for name, p in model.named_parameters()}
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.data.fill_(1.0)
    optimizer = Optimizer(parameters, config(optimizer="adamw", weight_decay=0.5))
    optimizer.step([torch.zeros_like(p) for p in parameters], 0.1)
    moved = [name for (name, _), p in zip(before.items(), parameters, strict=True) if not torch.all(p == 1)]
    assert moved == ["0.weight", "3.weight"]
