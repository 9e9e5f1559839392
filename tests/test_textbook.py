"""The ideas of an introductory course, each with its number; `docs/textbook.md` walks through them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlcore.activations import ACTIVATIONS
from dlcore.config import ModelConfig, TrainConfig
from dlcore.models import build_model, count_parameters
from dlcore.optim import Optimizer
from dlcore.tasks import Task
from docs.textbook.experiments import bowl, descend, gradient_norms, hills, silent_units, variances


def _value_and_slope(name: str, at: float, slope: float = 0.01) -> tuple[float, float]:
    z = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    value = ACTIVATIONS[name].function(z, slope)
    value.backward()
    assert z.grad is not None
    return value.item(), z.grad.item()


def test_a_linear_layer_from_10_to_5_has_55_parameters_and_16_4_2_1_has_81():
    assert sum(p.numel() for p in nn.Linear(10, 5).parameters()) == 55
    config = ModelConfig(16, 1, (4, 2))
    assert count_parameters(config) == 81
    assert sum(p.numel() for p in build_model(config, 0).parameters()) == 81


def test_stacked_linear_layers_are_one_linear_layer():
    model = build_model(ModelConfig(3, 2, (5,)), 0, dtype=torch.float64)
    first, last = model[0], model[2]
    x = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stacked = last(first(x))
    joined = x @ (last.weight @ first.weight).T + last.weight @ first.bias + last.bias
    torch.testing.assert_close(stacked, joined)
    assert not torch.allclose(model(x), joined)


def test_sigmoid_of_0_8_is_0_69():
    assert _value_and_slope("sigmoid", 0.8)[0] == pytest.approx(0.6900, abs=5e-5)


def test_softmax_of_six_scores():
    scores = torch.tensor([[1.0, -6.0, 2.5, -0.3, 1.2, 0.8]], dtype=torch.float64)
    expected = [0.1283, 0.0001, 0.5749, 0.0350, 0.1567, 0.1050]
    assert Task("multiclass", 6).predict(scores)[0].tolist() == pytest.approx(expected, abs=5e-5)


def test_relu_has_no_gradient_at_minus_1_and_leaky_relu_keeps_its_slope():
    assert _value_and_slope("relu", -1.0) == (0.0, 0.0)
    assert _value_and_slope("leaky_relu", -2.0, 0.05) == pytest.approx((-0.1, 0.05))


@pytest.mark.parametrize("task", [Task("binary", 1), Task("multiclass", 4), Task("regression", 1, (5.0,), (2.0,))])
def test_a_forward_pass_of_each_task(task):
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    predictions = task.predict(build_model(ModelConfig(4, task.n_outputs, (8,)), 0)(rows))
    assert predictions.shape == {"binary": (6,), "multiclass": (6, 4), "regression": (6, 1)}[task.name]
    if task.name == "multiclass":
        torch.testing.assert_close(predictions.sum(1), torch.ones(6))
    if task.name == "binary":
        assert bool(((predictions > 0) & (predictions < 1)).all())


def test_a_relu_on_a_regressions_output_costs_half_of_the_variance():
    targets = torch.randn(100_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    task = Task("regression", 1, (0.0,), (1.0,))
    assert task.loss(targets, targets).item() == 0
    assert task.loss(torch.relu(targets), targets).item() == pytest.approx(0.5, abs=0.01)


def test_one_hot_of_1_0_3_in_five_classes():
    assert F.one_hot(torch.tensor([1, 0, 3]), 5).tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0]]


def test_cross_entropy_of_four_scores_for_class_2_is_8_0619():
    scores = torch.tensor([[0.1, 6.0, -2.0, 3.2]])
    assert Task("multiclass", 4).loss(scores, torch.tensor([2])).item() == pytest.approx(8.0619, abs=5e-5)


def test_the_squared_error_of_10_against_1_is_81_in_float64():
    ten, one = (torch.tensor([[v]], dtype=torch.float64) for v in (10.0, 1.0))
    loss = Task("regression", 1, (0.0,), (1.0,)).loss(ten, one)
    assert loss.item() == 81.0 and loss.dtype == torch.float64


def test_an_update_by_hand_is_the_optimizers():
    model = build_model(ModelConfig(16, 1, (4, 2)), 3)
    x, y = torch.randn(32, 16, generator=torch.Generator().manual_seed(2)), torch.ones(32)
    gradients = torch.autograd.grad(Task("binary", 1).loss(model(x), y), list(model.parameters()))
    by_hand = [p.detach() - 0.1 * g for p, g in zip(model.parameters(), gradients, strict=True)]
    Optimizer(list(model.parameters()), TrainConfig(1, learning_rate=0.1, momentum=0.0)).step(gradients, 0.1)
    for (name, found), wanted in zip(model.named_parameters(), by_hand, strict=True):
        assert torch.equal(found, wanted), name


@pytest.mark.parametrize("rate", [0.005, 0.1, 0.97, 1.05])
def test_a_step_on_a_bowl_multiplies_by_1_minus_twice_the_rate(rate):
    path = descend(bowl, 2.0, rate, steps=20)
    assert path == pytest.approx([2.0 * (1 - 2 * rate) ** n for n in range(21)])


def test_momentum_leaves_the_minimum_in_which_plain_descent_stays():
    stuck, through = descend(hills, 2.5, 0.01), descend(hills, 2.5, 0.01, momentum=0.9)
    assert stuck[-1] == pytest.approx(1.3930, abs=1e-3)
    assert through[-1] == pytest.approx(-1.9177, abs=0.02)
    assert hills(through[-1]) < hills(stuck[-1])


def test_gradients_vanish_through_20_sigmoids_and_not_through_tanh_or_relu():
    ratios = {
        activation: norms[0] / norms[-1]
        for activation, initialization in (
            ("sigmoid", "xavier_uniform"), ("tanh", "xavier_uniform"), ("relu", "kaiming_normal")
        )
        for norms in [gradient_norms(activation, initialization)]
    }  # fmt: skip
    assert ratios["sigmoid"] < 1e-12
    assert all(0.01 < ratios[name] < 100 for name in ("tanh", "relu"))


def test_activations_keep_their_size_under_he_and_xavier_and_fade_under_fixed_weights():
    assert variances("relu", "uniform")[-1] < 1e-3
    assert 0.5 < variances("relu", "kaiming_normal")[-1] < 2
    assert 0.3 < variances("tanh", "xavier_normal")[-1] < 0.6
    assert variances("tanh", "uniform")[-1] < 0.05


def test_a_relu_that_is_always_negative_is_dead_and_a_leaky_one_is_not():
    assert silent_units("relu", bias=0.0) == 0
    assert silent_units("relu", bias=-10.0) == 1
    assert silent_units("leaky_relu", bias=-10.0) == 0
