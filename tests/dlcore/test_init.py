import math

import pytest
import torch
from torch import nn

from dlcore.config import ACTIVATIONS
from dlcore.init import INITIALIZATIONS, gain

OUT, IN = 300, 200


def drawn(
    name: str, activation: str = "relu", slope: float = 0.01, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    weight, bias = torch.full((OUT, IN), 9.0, dtype=dtype), torch.full((OUT,), 9.0, dtype=dtype)
    INITIALIZATIONS[name](weight, bias, torch.Generator().manual_seed(seed), activation, slope)
    return weight, bias


DEVIATIONS = {
    "default": lambda g: 1 / math.sqrt(3 * IN),
    "uniform": lambda g: 0.1 / math.sqrt(3),
    "normal": lambda g: 0.05,
    "xavier_uniform": lambda g: g * math.sqrt(2 / (IN + OUT)),
    "xavier_normal": lambda g: g * math.sqrt(2 / (IN + OUT)),
    "kaiming_uniform": lambda g: g / math.sqrt(IN),
    "kaiming_normal": lambda g: g / math.sqrt(IN),
    "orthogonal": lambda g: g / math.sqrt(OUT),  # columns of length g
}


@pytest.mark.parametrize("name", INITIALIZATIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_weights_have_the_documented_spread(name: str, activation: str) -> None:
    weight, bias = drawn(name, activation, slope=0.2)
    wanted = DEVIATIONS[name](gain(activation, 0.2))
    assert weight.std().item() == pytest.approx(wanted, rel=0.02)
    assert abs(weight.mean().item()) < 5 * wanted / math.sqrt(OUT * IN)
    if name != "default":
        assert (bias == 0).all()


def test_gains_are_torchs_and_relus_where_torch_has_none() -> None:
    found = {name: gain(name, 0.2) for name in ACTIVATIONS}
    root = math.sqrt(2)
    wanted = dict.fromkeys(("relu", "gelu", "silu", "elu"), root)
    wanted |= {"sigmoid": 1.0, "tanh": 5 / 3, "selu": 0.75, "leaky_relu": math.sqrt(2 / 1.04)}
    assert found == pytest.approx(wanted)


def test_uniform_ones_keep_their_bounds() -> None:
    for name, bound in (("uniform", 0.1), ("default", 1 / math.sqrt(IN))):
        weight, _ = drawn(name)
        assert 0.99 * bound < weight.abs().max().item() <= bound * (1 + 1e-6)


def test_orthogonal_columns_are_orthogonal() -> None:
    weight, _ = drawn("orthogonal", "tanh")
    torch.testing.assert_close(weight.T @ weight, torch.eye(IN) * (5 / 3) ** 2, rtol=0, atol=1e-4)


def test_default_is_what_a_linear_layer_draws_for_itself() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layer = nn.Linear(IN, OUT)
    weight, bias = drawn("default", seed=3)
    assert torch.equal(weight, layer.weight) and torch.equal(bias, layer.bias)


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_seeds_decide_and_precision_does_not(name: str) -> None:
    before = torch.get_rng_state()
    weight, bias = drawn(name)
    again, _ = drawn(name)
    other, _ = drawn(name, seed=1)
    double, double_bias = drawn(name, dtype=torch.float64)
    assert torch.equal(weight, again) and not torch.equal(weight, other)
    assert double.dtype == torch.float64
    assert torch.equal(weight, double.float()) and torch.equal(bias, double_bias.float())
    assert torch.equal(before, torch.get_rng_state())


def test_parameters_that_require_gradients_are_filled_in_place() -> None:
    layer = nn.Linear(4, 3)
    weight = layer.weight
    INITIALIZATIONS["normal"](layer.weight, layer.bias, torch.Generator().manual_seed(0), "relu", 0.0)
    assert layer.weight is weight and weight.requires_grad and weight.grad_fn is None
