"""What tests of the cures for overfitting share: small tables, members with one cure each, the loop as twin."""

import dataclasses
import functools
from collections.abc import Sequence

import pytest
import torch

from dlcore.config import ACTIVATIONS, DataConfig, ModelConfig, TrainConfig
from dlcore.curve import Epoch
from dlcore.data import load_splits, to_tensors
from dlcore.engines import Loop
from dlcore.packing import Member
from dlcore.population import Population
from dlcore.rows import TensorData

ORDER_SEED = 5
SETS = {"multiclass": "digits", "binary": "breast_cancer", "regression": "diabetes"}


@functools.cache
def data_of(name: str, dtype: torch.dtype = torch.float64) -> TensorData:
    """One table as train and val; where there are classes, one of them is rare."""
    data = to_tensors(load_splits(DataConfig(source=f"sklearn:{name}"), seed=0), "cpu", dtype)
    x, y = torch.cat([data.x_train, data.x_val])[:340], torch.cat([data.y_train, data.y_val])[:340]
    if data.task.name != "regression":
        kept = torch.ones(len(y), dtype=torch.bool)
        kept[(y == 1).nonzero()[20:, 0]] = False
        x, y = x[kept], y[kept]
    return TensorData(data.task, x, y, x, y)


def config(**changes: object) -> TrainConfig:
    return dataclasses.replace(TrainConfig(3, 64, learning_rate=0.02), **changes)  # type: ignore[arg-type]


def members_of(data: TensorData, changes: Sequence[dict[str, object]], **common: object) -> list[Member]:
    """One for each; depth, width, activation and dropout differ."""
    shape = (data.x_train.shape[1], data.task.n_outputs)
    return [
        Member(
            ModelConfig(*shape, (5 + i, 6)[: i % 3], activation=ACTIVATIONS[i % 8], dropout=0.2 * (i % 2)),
            config(**common, **own),
            seed=i,
        )
        for i, own in enumerate(changes)
    ]


def numbers(curve: Sequence[Epoch]) -> list[tuple[float, float, float]]:
    return [(e.train_loss, e.val_loss, e.val_metric) for e in curve]


def assert_the_loops(members: Sequence[Member], data: TensorData, within: float = 1e-9) -> Population:
    """Every epoch of every member is the one that the loop gives it alone."""
    loop, population = (engine(members, data, order_seed=ORDER_SEED) for engine in (Loop, Population))
    for engine in (loop, population):
        list(engine.advance(members[0].train_config.epochs))  # type: ignore[attr-defined]
    for one, other in zip(loop.states, population.states, strict=True):
        assert one.curve
        for left, right in zip(numbers(one.curve), numbers(other.curve), strict=True):
            assert left == pytest.approx(right, rel=within, abs=within)
    return population  # type: ignore[return-value]
