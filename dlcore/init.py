"""Names of initializations -> functions that fill one Linear layer in place.

All of them call `torch.nn.init` with an explicit generator, and draw on the CPU in float32 whatever the
model's device and dtype are, so that every engine, device and precision starts from the same numbers.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Draw = Callable[[Tensor, torch.Generator, str, float], None]
Initialization = Callable[[Tensor, Tensor, torch.Generator, str, float], None]

_SAME_GAIN_AS_RELU = frozenset({"gelu", "silu", "elu"})  # calculate_gain knows none of them


def gain(activation: str, slope: float) -> float:
    """The factor by which weights grow to keep the signal's variance through the activation.

    torch's table (sigmoid 1, tanh 5/3, relu sqrt 2, leaky_relu sqrt(2 / (1 + slope^2)), selu 3/4).
    """
    return nn.init.calculate_gain(_nonlinearity(activation), slope)


def _nonlinearity(activation: str) -> Any:  # torch's Literal for these names has no public name
    return "relu" if activation in _SAME_GAIN_AS_RELU else activation


def _uniform(weight: Tensor, generator: torch.Generator, activation: str, slope: float) -> None:
    nn.init.uniform_(weight, -0.1, 0.1, generator=generator)


def _normal(weight: Tensor, generator: torch.Generator, activation: str, slope: float) -> None:
    nn.init.normal_(weight, 0.0, 0.05, generator=generator)


def _xavier_uniform(weight: Tensor, generator: torch.Generator, activation: str, slope: float) -> None:
    nn.init.xavier_uniform_(weight, gain(activation, slope), generator=generator)


def _xavier_normal(weight: Tensor, generator: torch.Generator, activation: str, slope: float) -> None:
    nn.init.xavier_normal_(weight, gain(activation, slope), generator=generator)


def _kaiming_uniform(weight: Tensor, generator: torch.Generator, activation: str, slope: float) -> None:
    nn.init.kaiming_uniform_(weight, slope, "fan_in", _nonlinearity(activation), generator=generator)


def _kaiming_normal(weight: Tensor, generator: torch.Generator, activation: str, slope: float) -> None:
    nn.init.kaiming_normal_(weight, slope, "fan_in", _nonlinearity(activation), generator=generator)


def _orthogonal(weight: Tensor, generator: torch.Generator, activation: str, slope: float) -> None:
    nn.init.orthogonal_(weight, gain(activation, slope), generator=generator)


def _default(weight: Tensor, bias: Tensor, generator: torch.Generator, activation: str, slope: float) -> None:
    """What `nn.Linear.reset_parameters` does: weights and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    drawn = torch.empty(weight.shape)
    nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(weight.shape[1])
    drawn_bias = nn.init.uniform_(torch.empty(bias.shape), -bound, bound, generator=generator)
    with torch.no_grad():
        weight.copy_(drawn)
        bias.copy_(drawn_bias)


def _weight_only(
    draw: Draw, weight: Tensor, bias: Tensor, generator: torch.Generator, activation: str, slope: float
) -> None:
    """Fill the weight by `draw`, and the bias with 0."""
    drawn = torch.empty(weight.shape)
    draw(drawn, generator, activation, slope)
    with torch.no_grad():
        weight.copy_(drawn)
        bias.zero_()


INITIALIZATIONS: dict[str, Initialization] = {
    # (weight (out, in), bias (out,), generator, activation, slope of leaky_relu) -> None, in place
    "default": _default,
    # U(-0.1, 0.1) and N(0, 0.05^2): fixed sizes, for comparison with the others.
    "uniform": partial(_weight_only, _uniform),
    "normal": partial(_weight_only, _normal),
    # Variance gain^2 2 / (in + out). Glorot and Bengio, AISTATS 2010.
    "xavier_uniform": partial(_weight_only, _xavier_uniform),
    "xavier_normal": partial(_weight_only, _xavier_normal),
    # Variance gain^2 / in. He et al., Delving Deep into Rectifiers, arXiv:1502.01852.
    "kaiming_uniform": partial(_weight_only, _kaiming_uniform),
    "kaiming_normal": partial(_weight_only, _kaiming_normal),
    # gain times a (semi-)orthogonal matrix. Saxe, McClelland and Ganguli, arXiv:1312.6120.
    "orthogonal": partial(_weight_only, _orthogonal),
}
