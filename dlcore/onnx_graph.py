"""Networks and their preprocessing as one ONNX graph that takes raw rows.

Written by hand with `onnx.helper`: an exporter would trace tensors, while here every column is one rank-1
input by its own name, and the outputs are rank-1 too. Numbers, booleans and dates (seconds since 1970-01-01 UTC) enter
as double, NaN where missing, and are imputed and scaled in double, since float32 cannot hold large raw values;
categories enter as text, "" where missing. The network itself runs in float32.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from dlcore.config import ModelConfig
from dlcore.ensemble import Part, different_preprocessors
from dlcore.manifest import Interface
from dlcore.models import NORM_EPSILON, BatchNorm
from dlcore.onnx_columns import encode_columns, input_type
from dlcore.onnx_nodes import ML_DOMAIN, ML_OPSET, OPSET, Graph, curves
from dlcore.preprocess import Preprocessor
from dlcore.target_scaling import TargetTransform, inverse_pieces
from dlcore.targets import Label

IR_VERSION = 8
"""Of onnx 1.12, which brought opset 17."""


def build_graph(parts: Sequence[Part], interface: Interface, class_labels: Sequence[Label]) -> onnx.ModelProto:
    """The checked ONNX model of a network, or of several whose predictions are averaged in it.

    Args:
        parts: Networks on the CPU, and what prepares their rows; preprocessing that several share is there once.
        interface: Names of inputs and outputs, in order.
        class_labels: In the order of the outputs (binary: class 0, class 1); empty for regression.

    Returns:
        A model whose inputs and outputs are all (N,), for any N.
    """
    columns, names = list(interface.inputs.values()), list(interface.outputs.values())
    graph = Graph([*columns, *names])
    preprocessors = different_preprocessors(parts)
    features = [encode_columns(graph, columns, own) for own in preprocessors]
    each = [_forward(graph, features[preprocessors.index(p.preprocessor)], p.network, p.config) for p in parts]
    outputs = [own for own, part in zip(each, parts, strict=True) for _ in range(part.weight)]
    if class_labels:
        classify = _classify_two if parts[0].config.n_outputs == 1 else _classify
        classify(graph, outputs, names, class_labels)
        kinds = [helper.np_dtype_to_tensor_dtype(_label_array(class_labels).dtype)]
        kinds += [TensorProto.FLOAT] * len(class_labels)
    else:
        _regress(graph, outputs, names, preprocessors[0])
        kinds = [TensorProto.DOUBLE] * len(names)
    types = [input_type(encoder.kind) for encoder in preprocessors[0].encoders]
    proto = helper.make_graph(
        graph.nodes,
        "network",
        [helper.make_tensor_value_info(n, kind, ["N"]) for n, kind in zip(columns, types, strict=True)],
        [helper.make_tensor_value_info(n, kind, ["N"]) for n, kind in zip(names, kinds, strict=True)],
        graph.constants,
    )
    model = helper.make_model(
        proto,
        producer_name="dlcore",
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, ML_OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _forward(graph: Graph, features: str, network: nn.Sequential, config: ModelConfig) -> str:
    """Rows (N, F) -> outputs (N, C). Dropout is the identity; a normalization over batches is part of the weights."""
    linears = [module for module in network if isinstance(module, nn.Linear)]
    norms = [module for module in network if isinstance(module, BatchNorm | nn.LayerNorm)]
    values = features
    for index, linear in enumerate(linears):
        norm = norms[index] if norms and index < len(linears) - 1 else None
        folded = norm if isinstance(norm, BatchNorm) else None
        weight, bias = (graph.constant(p.astype(np.float32)) for p in _affine(linear, folded))
        values = graph.add("Gemm", values, weight, bias, transB=1)
        if isinstance(norm, nn.LayerNorm):
            gain, shift = (graph.constant(p.detach().numpy().astype(np.float32)) for p in (norm.weight, norm.bias))
            values = graph.add("LayerNormalization", values, gain, shift, axis=-1, epsilon=norm.eps)
        if index < len(linears) - 1:
            values = ACTIVATION_NODES[config.activation](graph, values, config.slope)
    return values


def _affine(linear: nn.Linear, norm: BatchNorm | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (out, in) and bias (out,) of a Linear layer and the normalization over batches behind it, as measured."""
    weight = linear.weight.detach().double().numpy()
    if norm is None:
        return weight, linear.bias.detach().double().numpy()
    tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    gain, shift, mean, variance = (tensor.detach().double().numpy() for tensor in tensors)
    scale = gain / np.sqrt(variance + NORM_EPSILON)
    return weight * scale[:, np.newaxis], shift - mean * scale


def _gelu(graph: Graph, x: str, slope: float) -> str:
    """x / 2 * (1 + erf(x / sqrt 2)): the exact form (Hendrycks & Gimpel, arXiv:1606.08415)."""
    half, one, root = (graph.constant(np.array(v, dtype=np.float32)) for v in (0.5, 1.0, 2**0.5))
    erf = graph.add("Erf", graph.add("Div", x, root))
    return graph.add("Mul", graph.add("Mul", x, half), graph.add("Add", erf, one))


ACTIVATION_NODES: dict[str, Callable[[Graph, str, float], str]] = {
    "relu": lambda graph, x, slope: graph.add("Relu", x),
    "leaky_relu": lambda graph, x, slope: graph.add("LeakyRelu", x, alpha=slope),
    "sigmoid": lambda graph, x, slope: graph.add("Sigmoid", x),
    "tanh": lambda graph, x, slope: graph.add("Tanh", x),
    "gelu": _gelu,
    "silu": lambda graph, x, slope: graph.add("Mul", x, graph.add("Sigmoid", x)),
    "elu": lambda graph, x, slope: graph.add("Elu", x, alpha=1.0),
    # Constants of Klambauer et al., NeurIPS 2017, as torch.nn.SELU has them.
    "selu": lambda graph, x, slope: graph.add("Selu", x, alpha=1.6732632423543772, gamma=1.0507009873554805),
}
"""Name in `dlcore.config.ACTIVATIONS` -> its nodes."""


def _label_array(class_labels: Sequence[Label]) -> NDArray[np.generic]:
    """Labels as an array that ONNX can hold: text as objects, the rest in its own kind."""
    if any(isinstance(label, str) for label in class_labels):
        return np.array([str(label) for label in class_labels], dtype=object)
    return np.array(class_labels)


def _classify_two(graph: Graph, logits: Sequence[str], names: Sequence[str], class_labels: Sequence[Label]) -> None:
    """Logits (N, 1) of the second class, of each network -> label (N,) and two probabilities (N,)."""
    label_name, first_name, second_name = names
    axis = graph.constant(np.array([1], dtype=np.int64))
    flat = [graph.add("Squeeze", own, axis) for own in logits]
    # 1 - p would lose the small probabilities of the first class to rounding.
    if len(flat) == 1:
        graph.add("Sigmoid", graph.add("Neg", flat[0]), output=first_name)
        graph.add("Sigmoid", flat[0], output=second_name)
        is_second = graph.add("Greater", flat[0], graph.constant(np.array(0, dtype=np.float32)))
    else:
        graph.add("Mean", *(graph.add("Sigmoid", graph.add("Neg", own)) for own in flat), output=first_name)
        graph.add("Mean", *(graph.add("Sigmoid", own) for own in flat), output=second_name)
        is_second = graph.add("Greater", second_name, first_name)
    labels = graph.constant(_label_array(class_labels))
    graph.add("Gather", labels, graph.add("Cast", is_second, to=TensorProto.INT64), output=label_name)


def _classify(graph: Graph, logits: Sequence[str], names: Sequence[str], class_labels: Sequence[Label]) -> None:
    """Logits (N, C) of each network -> label (N,) and one probability (N,) per class."""
    label_name, *probability_names = names
    each = [graph.add("Softmax", own, axis=1) for own in logits]
    probabilities = each[0] if len(each) == 1 else graph.add("Mean", *each)
    for index, name in enumerate(probability_names):
        column = graph.constant(np.array(index, dtype=np.int64))
        graph.add("Gather", probabilities, column, axis=1, output=name)
    labels = graph.constant(_label_array(class_labels))
    likeliest = graph.add("ArgMax", logits[0] if len(each) == 1 else probabilities, axis=1, keepdims=0)
    graph.add("Gather", labels, likeliest, output=label_name)


def _regress(graph: Graph, outputs: Sequence[str], names: Sequence[str], preprocessor: Preprocessor) -> None:
    """Standardised outputs (N, C) of each network -> one prediction (N,) double per target, in its own unit."""
    each = [graph.add("Cast", own, to=TensorProto.DOUBLE) for own in outputs]
    standardised = each[0]
    if len(each) > 1:  # onnxruntime has no Mean of doubles
        standardised = graph.add("Div", graph.add("Sum", *each), graph.number(len(each)))
    scaled = graph.add("Mul", standardised, graph.row(preprocessor.target_scale))
    predictions = graph.plus(scaled, preprocessor.target_mean)
    if preprocessor.target_transform is not None:
        predictions = _restore(graph, predictions, preprocessor.target_transform)
    for index, name in enumerate(names):
        column = graph.constant(np.array(index, dtype=np.int64))
        graph.add("Gather", predictions, column, axis=1, output=name)


def _restore(graph: Graph, transformed: str, transform: TargetTransform) -> str:
    """Transformed targets (N, C) -> in their units, inside the range of train: `TargetTransform.inverse`."""
    if transform.name == "log":
        power = graph.add("Exp", graph.add("Min", transformed, graph.number(700.0)))
        restored = graph.add("Sub", power, graph.row(transform.offsets))
    else:
        scaled = curves(graph, transformed, [inverse_pieces(curve) for curve in transform.curves])
        restored = graph.add("Mul", scaled, graph.row([curve.unit for curve in transform.curves]))
    return graph.add("Min", graph.add("Max", restored, graph.row(transform.low)), graph.row(transform.high))
