"""The nodes and constants of an ONNX graph as it is written by hand, and curves of straight pieces in it.

Operators: https://onnx.ai/onnx/operators/ (opset 17, read by onnxruntime 1.12 and later; ai.onnx.ml 2).
"""

from collections.abc import Iterable, Sequence
from itertools import count

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, ML_OPSET = 17, 2
ML_DOMAIN = "ai.onnx.ml"


class Graph:
    """Collects nodes and constants; each method returns the name of a tensor."""

    def __init__(self, taken: Iterable[str]) -> None:
        """Begin a graph.

        Args:
            taken: Names of inputs and outputs, which no other tensor may have.
        """
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._numbers = count()
        names = list(taken)
        self._prefix = "/"
        while any(name.startswith(self._prefix) for name in names):
            self._prefix += "/"

    def constant(self, value: NDArray[np.generic]) -> str:
        """A tensor that is stored in the file."""
        name = f"{self._prefix}constant_{next(self._numbers)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def number(self, value: float) -> str:
        """A double."""
        return self.constant(np.array(value, dtype=np.float64))

    def row(self, values: Sequence[float]) -> str:
        """Doubles (1, len(values)): one per column."""
        return self.constant(np.array([values], dtype=np.float64))

    def whole(self, *values: int) -> str:
        """Whole numbers (len(values),)."""
        return self.constant(np.array(values, dtype=np.int64))

    def add(
        self, operator: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: object
    ) -> str:
        """One node with one output."""
        name = output or f"{self._prefix}{operator.lower()}_{next(self._numbers)}"
        node = helper.make_node(operator, inputs, [name], domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return name

    def plus(self, x: str, values: Sequence[float]) -> str:
        """Doubles (N, F) + a row of F."""
        # onnxruntime leaves an Add of one number out that is 0 as float32, but no Sum.
        is_left_out = len(values) == 1 and abs(values[0]) < float(np.finfo(np.float32).tiny)
        return self.add("Sum" if is_left_out else "Add", x, self.row(values))

    def columns(self, names: Sequence[str]) -> str:
        """Tensors (N,) side by side, (N, len(names))."""
        axis = self.whole(1)
        return self.add("Concat", *(self.add("Unsqueeze", name, axis) for name in names), axis=1)

    def number_of(self, text: str, keys: Sequence[str]) -> str:
        """Texts (N,) -> which of the K keys each is, (N,) int64; K for any other text."""
        if not keys:
            return self.add(
                "ConstantOfShape",
                self.add("Shape", text),
                value=numpy_helper.from_array(np.zeros(1, dtype=np.int64)),
            )
        return self.add(
            "LabelEncoder",
            text,
            domain=ML_DOMAIN,
            keys_strings=list(keys),
            values_int64s=list(range(len(keys))),
            default_int64=len(keys),
        )


Pieces = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""A curve of K straight pieces: where each starts, ascending; its height there; its slope. All (K,)."""


def curves(graph: Graph, x: str, pieces: Sequence[Pieces]) -> str:
    """Values (N, F) double -> F curves of straight pieces, (N, F): height + (x - start) * slope.

    The piece is the last that starts at or below x, or the first. It is found by halving an interval, for all columns
    at once: a table of all comparisons would take K times the memory.
    """
    n_bits = int(np.ceil(np.log2(max(len(starts) for starts, _, _ in pieces))))
    size = 2**n_bits
    starts, heights, slopes = (
        graph.constant(np.concatenate([_padded(curve[part], size, fill) for curve in pieces]))
        for part, fill in enumerate((np.inf, 0.0, 0.0))
    )
    piece = graph.constant(size * np.arange(len(pieces), dtype=np.int64)[np.newaxis])
    for bit in reversed(range(n_bits)):
        step = graph.whole(2**bit)
        reaches = graph.add("GreaterOrEqual", x, graph.add("Gather", starts, graph.add("Add", piece, step)))
        piece = graph.add("Add", piece, graph.add("Mul", graph.add("Cast", reaches, to=TensorProto.INT64), step))
    beyond = graph.add("Sub", x, graph.add("Gather", starts, piece))
    rise = graph.add("Mul", beyond, graph.add("Gather", slopes, piece))
    return graph.add("Add", graph.add("Gather", heights, piece), rise)


def _padded(values: NDArray[np.float64], size: int, fill: float) -> NDArray[np.float64]:
    return np.append(values, np.full(size - len(values), fill))
