import math

import pytest
import torch
from torch import nn

from dlcore import evaluation
from dlcore.config import DataConfig, ModelConfig, metrics_of
from dlcore.data import load_splits
from dlcore.evaluation import evaluate, evaluate_outputs, forward_rows, split_tensors, together
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


@pytest.mark.parametrize(("task", "n_outputs"), [("binary", 1), ("multiclass", 3), ("regression", 2)])
def test_an_ensemble_answers_with_the_mean_of_its_networks(task: str, n_outputs: int) -> None:
    models = [build_model(ModelConfig(4, n_outputs, (5,)), seed) for seed in range(3)]
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    if task == "regression":
        kind = Task(task, 2, (1.0, 2.0), (3.0, 4.0))
        y = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    else:
        kind = Task(task, n_outputs)
        y = torch.arange(50) % max(2, n_outputs)
    y = y.to(torch.float32) if task == "binary" else y
    outputs = [forward_rows(model, x) for model in models]
    alone = evaluate_outputs(kind, together(kind, outputs[:1]), y)
    assert alone == pytest.approx(evaluate(models[0], kind, x, y), rel=1e-4)
    found = evaluate_outputs(kind, together(kind, outputs), y)
    predicted = torch.stack([kind.predict(model(x).double()) for model in models]).mean(0).detach()
    if task == "regression":
        right = (y.double() * torch.tensor([3.0, 4.0]) + torch.tensor([1.0, 2.0])).double()
        assert found["rmse"] == pytest.approx(float((predicted - right).square().mean(0).sqrt().mean()), rel=1e-5)
    else:
        classes = (predicted > 0.5).long() if task == "binary" else predicted.argmax(-1)
        assert found["accuracy"] == pytest.approx(float((classes == y).double().mean()))
        right = torch.where(y == 1, predicted, 1 - predicted) if task == "binary" else predicted[torch.arange(50), y]
        assert found["log_loss"] == pytest.approx(float(-right.log().mean()), rel=1e-5)
