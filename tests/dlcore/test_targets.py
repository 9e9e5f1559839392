from typing import Any

import numpy as np
import pytest

from dlcore.errors import DataError
from dlcore.targets import encode_targets


def column(values: list[Any]) -> dict[str, np.ndarray]:
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return {"y": np.array(values, dtype=np.float64 if numbers else None)}


@pytest.mark.parametrize(
    ("values", "task", "labels"),
    [
        (["b", "a", "b", "a", "a"], "binary", ("a", "b")),
        ([True, False, True], "binary", (False, True)),
        ([1.0, 0.0, 1.0, 1.0, 0.0], "binary", (0, 1)),
        ([-1.0, 1.0] * 5, "binary", (-1, 1)),
        (["x", "y", "z"] * 3, "multiclass", ("x", "y", "z")),
        (list(range(20)) * 3, "multiclass", tuple(range(20))),
        (list(range(21)) * 3, "regression", ()),
        ([0, 1, 2, 0], "regression", ()),
        ([0.5, 1.0] * 10, "regression", ()),
    ],
)
def test_the_task_is_inferred_from_the_target(values: list[Any], task: str, labels: tuple[Any, ...]) -> None:
    found = encode_targets(column(values), "auto")
    assert (found.task, found.class_labels) == (task, labels)
    assert [type(label) for label in found.class_labels] == [type(label) for label in labels]
    if labels:
        assert found.y.dtype == np.int64
        assert [labels[index] for index in found.y] == values
    else:
        assert found.y.tolist() == [[value] for value in values]


def test_what_the_user_says_overrides_what_would_be_inferred() -> None:
    digits = column(list(range(3)) * 9)
    assert encode_targets(digits, "regression").y.shape == (27, 1)
    assert encode_targets(column(list(range(30)) * 3), "multiclass").class_labels == tuple(range(30))
    halves = encode_targets(column([0.5, 1.0] * 5), "binary")
    assert halves.class_labels == (0.5, 1)
    assert encode_targets(column([True, False]), "regression").y.tolist() == [[1.0], [0.0]]


def test_several_targets_are_a_regression() -> None:
    columns = {"a": np.array([1.0, 2.0]), "b": np.array([0.0, 1.0])}
    assert encode_targets(columns, "auto").task == "regression"
    assert encode_targets(columns, "regression").y.tolist() == [[1.0, 0.0], [2.0, 1.0]]
    with pytest.raises(DataError, match="a binary task must have one target column; got 2: 'a', 'b'"):
        encode_targets(columns, "binary")


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        (["a", "a", "a"], "auto", "must have at least two classes to tell apart; all rows have a"),
        ([3.0, 3.0, 3.0], "auto", "must have at least two classes"),
        ([3.5, 3.5, 3.5], "auto", "must vary to be learned; all rows have 3.5"),
        ([3.0, 3.0, 3.0], "regression", "must vary to be learned"),
        (list("abcdef"), "auto", "6 of 6 values are different"),
        (list("abc") * 4, "binary", "must have two classes; the target 'y' has 3: take task = \"multiclass\""),
        (list("ab") * 4, "multiclass", 'must have more than two classes; .* has 2: take task = "binary"'),
        (list("abc") * 4, "regression", "must be numbers; it has text such as 'a'"),
    ],
)
def test_a_target_that_cannot_be_learned_is_refused(values: list[Any], task: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_targets(column(values), task)


def test_text_among_several_targets_is_refused() -> None:
    with pytest.raises(DataError, match="several targets must all be numbers"):
        encode_targets({"a": np.array([1.0, 2.0]), "b": np.array(["x", "y"])}, "auto")
