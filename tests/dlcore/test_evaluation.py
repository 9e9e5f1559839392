import math

import pytest
import torch
from torch import nn

from dlcore import evaluation
from dlcore.config import DataConfig, ModelConfig, metrics_of
from dlcore.data import load_splits
from dlcore.evaluation import evaluate, forward_rows, split_tensors
from dlcore.models import build_model
from dlcore.tasks import Task


def rows(n: int, n_features: int = 4) -> torch.Tensor:
    return torch.randn(n, n_features, generator=torch.Generator().manual_seed(n))


def test_dropout_is_off_and_the_mode_is_put_back():
    model = build_model(ModelConfig(4, 2, (8,), dropout=0.5), seed=1)
    for mode in (True, False):
        model.train(mode)
        outputs = forward_rows(model, rows(9))
        assert model.training is mode
        torch.testing.assert_close(outputs, model.eval()(rows(9)).detach(), rtol=0, atol=0)
    assert not outputs.requires_grad


def test_many_rows_pass_in_chunks_in_their_order(monkeypatch):
    monkeypatch.setattr(evaluation, "CHUNK_ROWS", 4)
    seen = []

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return x

    assert torch.equal(forward_rows(Spy(), rows(10)), rows(10))
    assert seen == [4, 4, 2]


@pytest.mark.parametrize("source", ["digits", "breast_cancer", "diabetes"])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_every_metric_of_the_task_is_measured_on_every_split(source, part):
    splits = load_splits(DataConfig(source=f"sklearn:{source}"), seed=0)
    x, y = split_tensors(splits, part, "cpu", torch.float32)
    model = build_model(ModelConfig(splits.n_features, splits.n_outputs, (8,)), seed=1)
    found = evaluate(model, splits.to_task(), x, y)
    assert tuple(found) == ("loss", *metrics_of(splits.task))
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())


def test_the_numbers_are_those_of_the_task():
    task = Task("regression", 1, (10.0,), (2.0,))
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1)
        model.bias.fill_(0)
    found = evaluate(model, task, torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]]))
    assert found["loss"] == pytest.approx(0.5)
    assert found["mae"] == pytest.approx(1.0)
    assert found["rmse"] == pytest.approx(math.sqrt(2))


def test_a_broken_network_measures_nan_instead_of_failing():
    task = Task("multiclass", 3)
    model = build_model(ModelConfig(4, 3, ()), seed=1)
    with torch.no_grad():
        model[0].weight.fill_(math.nan)
    found = evaluate(model, task, rows(6), torch.tensor([0, 1, 2, 0, 1, 2]))
    assert all(math.isnan(value) for value in found.values())
