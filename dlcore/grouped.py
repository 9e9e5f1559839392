"""Many small matrix products of unequal shapes as one call, where the machine has one for that.

PyTorch's x86 builds carry Intel's MKL and export its `cblas_?gemm_batch`, which takes any mixture of shapes
(https://www.intel.com/content/www/us/en/docs/onemkl/developer-reference-c/current/cblas-gemm-batch.html). PyTorch
itself offers equal shapes only (`torch.bmm`), so that unequal ones are padded or called one by one; and every call
from Python takes the interpreter's lock, for which threads that train side by side would queue.

The library is looked up once and tried on a small product; where it is missing, or does not answer as expected,
`has_grouped_products` says no and nothing of it is used.
"""

import ctypes
import platform
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from dlcore.elementwise import Op

Product = tuple[Tensor, Tensor, Tensor]
"""A (m, k), B (k, n) and C (m, n): C becomes A B, or C + A B. Each has stride 1 in one dimension, C in its last."""

_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112  # CBLAS_ORDER, CBLAS_TRANSPOSE
_NAMES = {torch.float32: ("cblas_sgemm_batch", ctypes.c_float), torch.float64: ("cblas_dgemm_batch", ctypes.c_double)}


def has_grouped_products(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `grouped_product` may be called for tensors of this kind."""
    return device.type == "cpu" and dtype in _NAMES and _works(dtype)


def grouped_product(products: Sequence[Product], *, is_added: bool) -> Op:
    """All products, bound as one call that runs on as many threads as torch may use in the calling one.

    Args:
        products: At least one; their C must not overlap. Their memory must stay where it is.
        is_added: Whether C's content is added to, or overwritten.
    """
    function = _function(products[0][0].dtype)
    assert function is not None
    number = _NAMES[products[0][0].dtype][1]
    n = len(products)
    left, right, out = zip(*products, strict=True)
    ints = ctypes.c_int * n
    pointers, numbers = ctypes.c_void_p * n, number * n

    def addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
        return pointers(*(tensor.data_ptr() for tensor in tensors))

    call = partial(
        function,
        ctypes.c_int(_ROW_MAJOR),
        ints(*map(_order, left)),
        ints(*map(_order, right)),
        ints(*(len(c) for c in out)),
        ints(*(c.shape[1] for c in out)),
        ints(*(a.shape[1] for a in left)),
        numbers(*[1.0] * n),
        addresses(left),
        ints(*map(_leading, left)),
        addresses(right),
        ints(*map(_leading, right)),
        numbers(*[float(is_added)] * n),
        addresses(out),
        ints(*map(_leading, out)),
        ctypes.c_int(n),
        ints(*[1] * n),
    )
    return _Bound(call, products)


def separate_products(products: Sequence[Product], *, is_added: bool) -> list[Op]:
    """The same as `grouped_product`, one call of PyTorch's each: the readable twin."""
    if is_added:
        return [partial(c.addmm_, a, b) for a, b, c in products]
    return [partial(torch.mm, a, b, out=c) for a, b, c in products]


class _Bound:
    """A call, and the tensors that it works on: they live as long as it does."""

    def __init__(self, call: Callable[[], object], products: Sequence[Product]) -> None:
        self._call, self._products = call, products

    def __call__(self) -> None:
        self._call()


def _order(matrix: Tensor) -> int:
    return _PLAIN if _is_plain(matrix) else _TRANSPOSED


def _leading(matrix: Tensor) -> int:
    """Numbers from one row (of a transposed one: column) to the next; at least its length, which BLAS insists on."""
    if _is_plain(matrix):
        return max(matrix.stride(0), matrix.shape[1])
    assert matrix.stride(0) == 1
    return max(matrix.stride(1), matrix.shape[0])


def _is_plain(matrix: Tensor) -> bool:
    return matrix.stride(1) == 1


@cache
def _function(dtype: torch.dtype) -> Callable[..., object] | None:
    """The library's function; None where there is none."""
    if platform.system() != "Linux" or not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        function = getattr(library, _NAMES[dtype][0])
    except (OSError, AttributeError):
        return None
    function.restype = None
    return function  # type: ignore[no-any-return]  # ctypes knows no types


@cache
def _works(dtype: torch.dtype) -> bool:
    """Whether the function is there and answers as PyTorch does."""
    if _function(dtype) is None:
        return False
    stream = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=stream, dtype=dtype)

    def products() -> list[Product]:
        return [(a, b, torch.ones(len(a), b.shape[1], dtype=dtype)) for a, b in pairs]

    pairs = [(drawn(3, 5), drawn(5, 7)), (drawn(4, 2).T, drawn(6, 4).T), (drawn(1, 1), drawn(2, 1).T)]
    ours, theirs = products(), products()
    grouped_product(ours, is_added=True)()
    for op in separate_products(theirs, is_added=True):
        op()
    return all(torch.allclose(mine[2], other[2]) for mine, other in zip(ours, theirs, strict=True))
