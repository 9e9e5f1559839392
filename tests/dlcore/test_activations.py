import math

import pytest
import torch

from dlcore.activations import ACTIVATIONS

ALPHA, SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946

FORMULAS = {
    "relu": lambda x, slope: max(0.0, x),
    "leaky_relu": lambda x, slope: x if x > 0 else slope * x,
    "sigmoid": lambda x, slope: 1 / (1 + math.exp(-x)),
    "tanh": lambda x, slope: math.tanh(x),
    "gelu": lambda x, slope: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x, slope: x / (1 + math.exp(-x)),
    "elu": lambda x, slope: x if x > 0 else math.expm1(x),
    "selu": lambda x, slope: SCALE * (x if x > 0 else ALPHA * math.expm1(x)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_function_and_module_are_the_formula(name: str) -> None:
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    wanted = torch.tensor([FORMULAS[name](value, 0.2) for value in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name].function(x, 0.2), wanted, rtol=1e-12, atol=1e-12)
    assert torch.equal(ACTIVATIONS[name].module(0.2)(x), ACTIVATIONS[name].function(x, 0.2))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_at_zero_is_the_value_at_zero(name: str) -> None:
    assert ACTIVATIONS[name].function(torch.zeros(1), 0.3).item() == ACTIVATIONS[name].at_zero


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_stack_of_members_gets_each_members_own_slope(name: str) -> None:
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    slopes = torch.tensor([0.0, 0.01, 0.3]).reshape(3, 1, 1)
    stacked = ACTIVATIONS[name].function(x, slopes)
    for member, alone, slope in zip(stacked, x, slopes.flatten().tolist(), strict=True):
        # Not to the bit: vectorised exp and its scalar remainder may differ in the last one.
        torch.testing.assert_close(member, ACTIVATIONS[name].function(alone, slope), rtol=1e-6, atol=1e-7)
