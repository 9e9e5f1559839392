"""Activations of a stack in place, and their derivatives, as calls that allocate nothing.

The derivatives are ATen's own, the ones that autograd would call. Where one can be taken from the output,
the activation overwrites its input.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

Op = Callable[[], object]
"""A call with all its arguments bound; a list of them is a step that runs without deciding anything."""

NEEDS_INPUT = frozenset({"gelu", "silu"})
"""Activations whose derivative is taken from the input; all others' from the output."""

_aten = torch.ops.aten
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def forward_op(activation: str, z: Tensor, out: Tensor) -> Op:
    """f(z) -> out, both (R, B); the same tensor unless the activation is in `NEEDS_INPUT`. Not leaky_relu."""
    match activation:
        case "relu":
            return partial(torch.relu_, z)
        case "sigmoid":
            return partial(torch.sigmoid, z, out=out)
        case "tanh":
            if z.device.type == "cpu" and z.dtype == torch.float32:
                return partial(_tanh_, z, torch.tensor(-1.0))
            return partial(torch.tanh, z, out=out)
        case "elu":
            return partial(_aten.elu.out, z, 1.0, 1.0, 1.0, out=out)
        case "selu":
            return partial(_aten.elu.out, z, _SELU_ALPHA, _SELU_SCALE, 1.0, out=out)
        case "gelu":
            return partial(_aten.gelu.out, z, out=out)
        case "silu":
            return partial(_aten.silu.out, z, out=out)
    raise AssertionError(activation)


def backward_op(activation: str, gradient: Tensor, kept: Tensor) -> Op:
    """gradient <- gradient * f', in place; `kept` is f's input where it is needed, else its output. (R, B)."""
    match activation:
        case "relu":
            return partial(_aten.threshold_backward.grad_input, gradient, kept, 0, grad_input=gradient)
        case "sigmoid":
            return partial(_aten.sigmoid_backward.grad_input, gradient, kept, grad_input=gradient)
        case "tanh":
            return partial(_aten.tanh_backward.grad_input, gradient, kept, grad_input=gradient)
        case "elu":
            return partial(_aten.elu_backward.grad_input, gradient, 1.0, 1.0, 1.0, True, kept, grad_input=gradient)
        case "selu":
            return partial(
                _aten.elu_backward.grad_input, gradient, _SELU_ALPHA, _SELU_SCALE, 1.0, True, kept, grad_input=gradient
            )
        case "gelu":
            return partial(_aten.gelu_backward.grad_input, gradient, kept, grad_input=gradient)
        case "silu":
            return partial(_aten.silu_backward.grad_input, gradient, kept, grad_input=gradient)
    raise AssertionError(activation)


def _tanh_(z: Tensor, minus_one: Tensor) -> None:
    """tanh(z) = 2 sigmoid(2 z) - 1 in place: a quarter of the time of torch.tanh on a CPU.

    Off by two units in the last place of 1, as the product before it is; 0 stays 0 exactly.
    """
    z.mul_(2).sigmoid_()
    torch.add(minus_one, z, alpha=2, out=z)


def leaky_relu_ops(z: Tensor, gradient: Tensor | None, slopes: Tensor | float) -> tuple[Op, Op | None]:
    """leaky_relu in place, and its derivative in place.

    Args:
        z: Inputs (R, B), overwritten by the outputs.
        gradient: (R, B), overwritten; None where there is no backward pass.
        slopes: One for all, or one per row, (R, 1).
    """
    if isinstance(slopes, float):
        backward = None
        if gradient is not None:
            backward = partial(_aten.leaky_relu_backward.grad_input, gradient, z, slopes, True, grad_input=gradient)
        return partial(_aten.leaky_relu_, z, slopes), backward
    # Slopes lie in [0, 1], so the larger of the two branches is the right one.
    return partial(_leaky_relu_, z, slopes), None if gradient is None else partial(_leaky_back_, gradient, z, slopes)


def _leaky_relu_(z: Tensor, slopes: Tensor) -> None:
    torch.maximum(z, z * slopes, out=z)


def _leaky_back_(gradient: Tensor, output: Tensor, slopes: Tensor) -> None:
    torch.where(output > 0, gradient, gradient * slopes, out=gradient)
