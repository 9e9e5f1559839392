"""Precision of the matrix products of training: "fp32", "tf32" or "bf16".

It is that of the products alone: weights, sums over rows, losses, optimizer and all that is measured on val or exported
stay in the dtype of the data.

- "tf32": PyTorch reads 10 bits of the mantissas of float32 factors. A setting of the whole process, so it is made when
  an epoch begins to train and taken back when it ends.
- "bf16": both factors are rounded to bfloat16 (8 bits of mantissa), their products are summed and returned in float32.
  Master weights as in Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.1; no scaling of the loss,
  since bfloat16 has float32's range (Kalamkar et al., A Study of BFLOAT16 for Deep Learning Training, 2019).

Both need an NVIDIA GPU (Ampere or later) to gain anything. A CPU takes "bf16" too, so that what a GPU trained can be
trained again without one: the rounded factors are multiplied in their own dtype, in which the product of two bfloat16
numbers is exact. That is the same mathematics, summed in another order, and slower than "fp32".
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dlcore.device import device_name
from dlcore.errors import DeviceError

_CAPABILITY = (8, 0)
"""The first NVIDIA GPUs with either: https://docs.nvidia.com/cuda/cuda-c-programming-guide/#compute-capabilities"""


def check_precision(precision: str, device: torch.device) -> None:
    """Whether a device can train so.

    Args:
        precision: One of `dlcore.config.PRECISIONS`.
        device: Where training happens.

    Raises:
        DeviceError: It cannot.
    """
    if precision == "fp32" or (precision == "bf16" and device.type == "cpu"):
        return
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= _CAPABILITY:
        return
    others = 'a CPU, or "fp32"' if precision == "bf16" else 'or "fp32"'
    raise DeviceError(
        f'precision "{precision}" must be trained on an NVIDIA GPU of compute capability {_CAPABILITY[0]}.'
        f"{_CAPABILITY[1]} or later; the device is {device.type} ({device_name(device)}): take another device, {others}"
    )


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """PyTorch's own setting for float32 products, for as long as it is wanted; "tf32" alone changes it."""
    if precision != "tf32":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


# ---- bf16


def factor_dtype(like: Tensor) -> torch.dtype:
    """Of the rounded factors of a product whose result is to be like a tensor."""
    return torch.bfloat16 if like.is_cuda and like.dtype == torch.float32 else like.dtype


def rounded(x: Tensor) -> Tensor:
    """A tensor as a factor."""
    return x.to(torch.bfloat16).to(factor_dtype(x))


def rounding_op(source: Tensor, factor: Tensor) -> Callable[[], object]:
    """factor <- source, rounded; both of one shape."""
    if factor.dtype == torch.bfloat16:
        return partial(factor.copy_, source)
    return partial(_round, source, factor)


def _round(source: Tensor, factor: Tensor) -> None:
    factor.copy_(source.to(torch.bfloat16))


def product_op(left: Tensor, right: Tensor, out: Tensor) -> Callable[[], object]:
    """out <- left right: (m, k), (k, n), (m, n), or each with members in front; out may be wider than the factors."""
    function = torch.mm if out.dim() == 2 else torch.bmm
    if left.dtype == out.dtype:
        return partial(function, left, right, out=out)
    return partial(function, left, right, out_dtype=out.dtype, out=out)


def forward_rounded(model: nn.Sequential, x: Tensor) -> Tensor:
    """Outputs (B, C) of a network for rows x (B, F), with rounded factors in its products and in their gradients'."""
    for module in model:
        x = _linear(module, x) if isinstance(module, nn.Linear) else module(x)
    return x


def _linear(linear: nn.Linear, x: Tensor) -> Tensor:
    bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(len(linear.weight))
    outputs: Tensor = _RoundedLinear.apply(x, linear.weight, bias)  # type: ignore[no-untyped-call]
    return outputs


class _RoundedLinear(torch.autograd.Function):
    """x W^T + b; gradients d W, d^T x and the sum of d over rows; x, W and d rounded as factors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        factors = rounded(x), rounded(weight)
        ctx.save_for_backward(*factors)
        return _product(factors[0], factors[1].T, x.dtype) + bias

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        factor = rounded(d)
        below = _product(factor, weight, d.dtype) if ctx.needs_input_grad[0] else None
        return below, _product(factor.T, x, d.dtype), d.sum(0)


def _product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    return left @ right if left.dtype == dtype else torch.mm(left, right, out_dtype=dtype)


class Factors:
    """What the products of a tensor program read: its own tensors, or rounded copies of them."""

    def __init__(self, *, is_rounded: bool) -> None:
        """No copies yet; without `is_rounded` there will be none, and each tensor is its own factor."""
        self.is_rounded = is_rounded
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}

    def of(self, tensor: Tensor) -> Tensor:
        """A tensor's factor, of the same shape; its memory lives as long as this."""
        if not self.is_rounded:
            return tensor
        if id(tensor) not in self._copies:
            self._copies[id(tensor)] = tensor, torch.zeros_like(tensor, dtype=factor_dtype(tensor))
        return self._copies[id(tensor)][1]

    def share(self, tensor: Tensor, factor: Tensor | None) -> None:
        """Use a given factor for a tensor; None is nothing."""
        if factor is not None:
            self._copies[id(tensor)] = tensor, factor

    def update(self, *tensors: Tensor) -> Iterator[Callable[[], object]]:
        """Calls that bring the factors of tensors up to date."""
        if self.is_rounded:
            yield from (rounding_op(tensor, self.of(tensor)) for tensor in tensors if tensor.numel())
