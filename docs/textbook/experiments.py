"""The experiments of the textbook page, as pure functions, and its pictures.

python -m docs.textbook.experiments     # draws the pictures anew, beside this file
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dlcore.activations import ACTIVATIONS
from dlcore.config import ModelConfig
from dlcore.init import INITIALIZATIONS
from dlcore.models import build_model
from dlcore.optim import sgd_step
from dlcore.seeding import generator

FOLDER = Path(__file__).parent
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito: told apart by the colour-blind


def bowl(x: float) -> float:
    """A convex function: its only minimum is 0 at x = 0."""
    return x * x


def hills(x: float) -> float:
    """A function with two minima: 3.07 at x = 1.39, where many stay, and -6.90 at x = -1.92."""
    return x**4 + 0.5 * x**3 - 5.5 * x**2 + 1.6 * x + 6.4


def descend(
    function: Callable[[float], float], start: float, learning_rate: float, momentum: float = 0.0, steps: int = 100
) -> list[float]:
    """Where gradient descent is after each step, `start` first; it ends early where x leaves all bounds.

    Args:
        function: What is minimised; made of +, * and ** alone, so that autograd can follow it.
        start: The first x.
        learning_rate: Of each step.
        momentum: Of each step.
        steps: How many.
    """
    x = torch.tensor(start, dtype=torch.float64)
    velocity, path = torch.zeros_like(x), [start]
    for _ in range(steps):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(function(x), x)
        x = x.detach()
        sgd_step([x], [gradient.clone()], [velocity], learning_rate, momentum, 0.0, False)
        path.append(float(x))
        if not math.isfinite(path[-1]) or abs(path[-1]) > 1e6:
            break
    return path


def gradient_norms(activation: str, initialization: str, depth: int = 20, width: int = 64) -> list[float]:
    """Norm of the loss's gradient with respect to each layer's weights, first layer first, before any training."""
    config = ModelConfig(width, 1, (width,) * depth, activation=activation, initialization=initialization)
    model = build_model(config, seed=0, dtype=torch.float64)
    rows = torch.randn(256, width, generator=generator(0, "shuffle"), dtype=torch.float64)
    model(rows).square().mean().backward()
    return [float(p.grad.norm()) for name, p in model.named_parameters() if "weight" in name and p.grad is not None]


def variances(activation: str, initialization: str, depth: int = 10, width: int = 256) -> list[float]:
    """Mean square of the activations behind each hidden layer, for inputs of variance 1."""
    stream = generator(0, "init")
    rows = torch.randn(1_000, width, generator=stream)
    found = []
    for _ in range(depth):
        weight, bias = torch.empty(width, width), torch.empty(width)
        INITIALIZATIONS[initialization](weight, bias, stream, activation, 0.01)
        rows = ACTIVATIONS[activation].function(rows @ weight.T + bias, 0.01)
        found.append(float(rows.square().mean()))
    return found


def silent_units(activation: str, bias: float, n_units: int = 200) -> float:
    """Share of hidden units that get no gradient from any of 500 rows, when all biases are `bias`."""
    stream = generator(0, "init")
    rows = torch.randn(500, 8, generator=stream)
    weight = (torch.randn(n_units, 8, generator=stream) / math.sqrt(8)).requires_grad_()
    ACTIVATIONS[activation].function(rows @ weight.T + bias, 0.01).sum().backward()
    assert weight.grad is not None
    return float((weight.grad.abs().sum(1) == 0).double().mean())


# ---- pictures


def main() -> None:
    """Draw all pictures."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "textbook"  # the same file from the same numbers
    _draw_rates()
    _draw_momentum()
    _draw_signals()


def _draw_rates() -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), sharey=True)
    for axis, rate, name in zip(axes, (0.005, 0.1, 0.97), ("too small", "right", "too large"), strict=True):
        path = descend(bowl, 2.0, rate, steps=20)
        _draw_path(axis, bowl, path, (-2.2, 2.2))
        axis.set_title(f"learning rate {rate}: {name}", fontsize=10)
    _save(figure, "rates")


def _draw_momentum() -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for axis, momentum in zip(axes, (0.0, 0.9), strict=True):
        _draw_path(axis, hills, descend(hills, 2.5, 0.01, momentum), (-3.1, 2.7))
        axis.set_title(f"momentum {momentum}", fontsize=10)
    _save(figure, "momentum")


def _draw_signals() -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    lines = (("sigmoid", "xavier_uniform"), ("tanh", "xavier_uniform"), ("relu", "kaiming_normal"))
    for (activation, initialization), colour, mark in zip(lines, COLOURS, "os^", strict=False):
        norms = gradient_norms(activation, initialization)
        label = f"{activation}, {initialization}"
        left.semilogy(range(1, len(norms) + 1), norms, mark + "-", color=colour, label=label, markersize=4)
    left.set(xlabel="layer", ylabel="norm of the gradient")
    lines = (("relu", "uniform"), ("relu", "kaiming_normal"), ("tanh", "uniform"), ("tanh", "xavier_normal"))
    for (activation, initialization), colour, mark in zip(lines, COLOURS, "os^v", strict=True):
        squares = variances(activation, initialization)
        label = f"{activation}, {initialization}"
        right.semilogy(range(1, len(squares) + 1), squares, mark + "-", color=colour, label=label, markersize=4)
    right.set(xlabel="layer", ylabel="mean square of the activations")
    for axis in (left, right):
        axis.legend(fontsize=8)
    _save(figure, "signals")


def _draw_path(axis: Any, function: Callable[[float], float], path: Sequence[float], span: tuple[float, float]) -> None:
    xs = torch.linspace(*span, 200).tolist()
    axis.plot(xs, [function(x) for x in xs], color="0.6")
    axis.plot(path, [function(x) for x in path], "o-", color=COLOURS[0], markersize=3, linewidth=0.8)
    axis.plot(path[-1], function(path[-1]), "s", color=COLOURS[1], markersize=7)
    axis.set_xlabel("x")


def _save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
