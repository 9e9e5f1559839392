"""That raw rows in onnxruntime become what `Preprocessor` makes of them: the two are each other's twins."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from dlcore.columns import Column, Features
from dlcore.config import SCALINGS, PreprocessConfig
from dlcore.dates import FIRST_S, LAST_S
from dlcore.onnx_columns import encode_columns, input_type
from dlcore.onnx_nodes import ML_DOMAIN, ML_OPSET, OPSET, Graph, curves
from dlcore.preprocess import Preprocessor, fit_preprocessor
from tests.dlcore.column_tools import LABELS, of_all_kinds, raw, splits_of_all_kinds, with_unseen


def session(graph: Graph, inputs: dict[str, int], output: str, kind: int) -> onnxruntime.InferenceSession:
    proto = helper.make_graph(
        graph.nodes,
        "test",
        [helper.make_tensor_value_info(name, type_, ["N", "F"][: 1 + (name == "x")]) for name, type_ in inputs.items()],
        [helper.make_tensor_value_info(output, kind, ["N", "F"])],
        graph.constants,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML_DOMAIN, ML_OPSET)]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def encoded_by_onnx(fitted: Preprocessor, features: Features) -> np.ndarray:
    names = [f"in {i}" for i in range(len(features.columns))]
    graph = Graph(names)
    output = encode_columns(graph, names, fitted)
    types = {name: input_type(column.kind) for name, column in zip(names, features.columns, strict=True)}
    runner = session(graph, types, output, TensorProto.FLOAT)
    feed = dict(zip(names, raw(features).values(), strict=True))
    [found] = runner.run([output], feed)
    return found


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("task", LABELS)
def test_every_kind_of_column_is_encoded_alike(task: str, scaling: str) -> None:
    splits = splits_of_all_kinds(task, PreprocessConfig(scaling))
    for features in (splits.train.x, with_unseen(splits.test.x), of_all_kinds(200, seed=5, holes=0.5)):
        found, expected = encoded_by_onnx(splits.preprocessor, features), splits.preprocessor.transform(features)
        assert found.dtype == np.float32 and found.shape == expected.shape
        np.testing.assert_allclose(found, expected.astype(np.float32), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("size", [1e-300, 1e-189, 1e-47, 1e-40, 1e40, 1e300])
def test_one_column_of_numbers_that_float32_cannot_hold_is_encoded_alike(size: float, scaling: str) -> None:
    values = size * np.random.default_rng(0).normal(3, 1, 40)
    features = Features((Column("a", "numeric", np.append(values, np.nan)),))
    fitted = fit_preprocessor(features, np.arange(41) % 2, "binary", PreprocessConfig(scaling))
    found, expected = encoded_by_onnx(fitted, features), fitted.transform(features)
    np.testing.assert_allclose(found, expected.astype(np.float32), rtol=1e-6, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(int(FIRST_S), int(LAST_S)) | st.integers(-(10**14), 10**14), min_size=1, max_size=30))
def test_dates_of_all_times_are_encoded_alike(seconds: list[int]) -> None:
    train = Features((Column("d", "date", np.random.default_rng(0).uniform(-1e10, 1e10, 50)),))
    fitted = fit_preprocessor(train, np.arange(50) % 2, "binary")
    assert fitted.n_outputs == 8
    features = Features((Column("d", "date", np.array(seconds, dtype=np.float64)),))
    expected = fitted.transform(features).astype(np.float32)
    np.testing.assert_allclose(encoded_by_onnx(fitted, features), expected, rtol=1e-6, atol=1e-6)


def test_a_table_of_numbers_alone_has_few_nodes() -> None:
    names = [f"c{i}" for i in range(300)]
    features = Features.from_numbers(names, np.random.default_rng(0).normal(size=(20, 300)))
    fitted = fit_preprocessor(features, np.arange(20) % 2, "binary")
    graph = Graph(names)
    encode_columns(graph, names, fitted)
    assert len(graph.nodes) < 300 + 10  # each column is made one of a row; the rest is done together


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(-50, 50), min_size=1, max_size=20, unique=True), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_curves_are_found_by_halving_as_by_searching(starts: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    pieces = [(np.sort(s).astype(float), rng.normal(size=len(s)), rng.normal(size=len(s))) for s in starts]
    x = np.round(rng.uniform(-60, 60, (40, len(pieces))))
    graph = Graph(["x"])
    output = curves(graph, "x", pieces)
    [found] = session(graph, {"x": TensorProto.DOUBLE}, output, TensorProto.DOUBLE).run([output], {"x": x})
    for i, (s, heights, slopes) in enumerate(pieces):
        left = np.maximum(np.searchsorted(s, x[:, i], side="right") - 1, 0)
        np.testing.assert_allclose(found[:, i], heights[left] + (x[:, i] - s[left]) * slopes[left], rtol=1e-12)


def test_names_of_our_own_tensors_are_not_those_of_columns() -> None:
    graph = Graph(["/constant_0", "a"])
    assert graph.number(1.0) not in ("/constant_0", "a")
