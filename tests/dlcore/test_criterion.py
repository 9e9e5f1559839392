"""dlcore.criterion: the loss that is trained on is PyTorch's, in the loop and in a population alike."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from dlcore.config import ModelConfig
from dlcore.criterion import Criterion, class_weights
from dlcore.engines import Loop
from dlcore.errors import ConfigError
from dlcore.parallel import ParallelPopulation
from dlcore.population import Population
from dlcore.rows import Rows, TensorData
from dlcore.tasks import Task
from dlcore.training import train
from tests.dlcore.cure_tools import ORDER_SEED, assert_the_loops, config, data_of, members_of, numbers

SETS = {"multiclass": "digits", "binary": "breast_cancer"}
SMOOTHED = ({"label_smoothing": 0.1}, {"label_smoothing": 0.3, "class_weights": "balanced"})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_batch(task: Task, n: int = 40) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(1)
    outputs = 3 * torch.randn(n, task.n_outputs, generator=stream, dtype=torch.float64)
    y = torch.randint(0, max(task.n_outputs, 2), (n,), generator=stream) * torch.randint(0, 2, (n,), generator=stream)
    return outputs, y.to(torch.float64) if task.name == "binary" else y


@pytest.mark.parametrize("name", SETS)
def test_weights_are_scikit_learns(name: str) -> None:
    task, y = Task(name, 1 if name == "binary" else 4), random_batch(Task(name, 1 if name == "binary" else 4))[1]
    expected = compute_class_weight("balanced", classes=np.arange(max(task.n_outputs, 2)), y=y.numpy())
    assert class_weights(task, y).tolist() == pytest.approx(list(expected), rel=1e-14)


def test_a_class_without_rows_changes_no_other() -> None:
    with_it, without = (class_weights(Task("multiclass", n), torch.tensor([0, 0, 1])) for n in (3, 2))
    assert with_it.tolist() == [*without.tolist(), 0.0] == [0.75, 1.5, 0.0]


def test_the_loss_of_classes_is_torchs() -> None:
    outputs, y = random_batch(task := Task("multiclass", 4))
    weights = class_weights(task, y)
    found = Criterion(task, config(class_weights="balanced"), y, torch.float64)(outputs[:9], y[:9])
    torch.testing.assert_close(found, nn.CrossEntropyLoss(weight=weights)(outputs[:9], y[:9]))


def test_the_binary_loss_is_torchs_weighted_mean() -> None:
    outputs, y = random_batch(task := Task("binary", 1))
    each = class_weights(task, y)[y.to(torch.int64)]
    expected = nn.BCEWithLogitsLoss(weight=each, reduction="sum")(outputs[:, 0], y) / each.sum()
    torch.testing.assert_close(
        Criterion(task, config(class_weights="balanced"), y, torch.float64)(outputs, y), expected
    )


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_smoothing_is_torchs(weights: str) -> None:
    own = config(label_smoothing=0.15, class_weights=weights)
    outputs, y = random_batch(task := Task("multiclass", 4))
    expected = nn.CrossEntropyLoss(class_weights(task, y) if weights == "balanced" else None, label_smoothing=0.15)
    torch.testing.assert_close(Criterion(task, own, y, torch.float64)(outputs, y), expected(outputs, y))


def test_binary_smoothing_moves_the_target_towards_one_half() -> None:
    outputs, y = random_batch(task := Task("binary", 1))
    expected = nn.BCEWithLogitsLoss()(outputs[:, 0], y * 0.8 + 0.1)
    found = Criterion(task, config(label_smoothing=0.2), y, torch.float64)(outputs, y)
    torch.testing.assert_close(found, expected)


def test_without_any_of_it_the_loss_is_the_tasks_to_the_bit() -> None:
    for task in (Task("multiclass", 4), Task("binary", 1)):
        outputs, y = random_batch(task)
        assert torch.equal(Criterion(task, config(), y, torch.float64)(outputs, y), task.loss(outputs, y))


@pytest.mark.parametrize("dtype, within", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", SETS)
def test_members_with_weights_beside_some_without_get_what_the_loop_gives(name, dtype, within):
    data = data_of(SETS[name], dtype)
    assert_the_loops(members_of(data, [{}, {"class_weights": "balanced"}, *SMOOTHED] * 2), data, within)


def test_the_weights_of_a_fold_are_those_of_its_own_rows() -> None:
    data = data_of("digits")
    y = data.y_train
    # In one fold class 1 is in val alone.
    folds = [
        Rows((y != 1).nonzero()[:, 0], (y == 1).nonzero()[:, 0]),
        Rows(torch.arange(0, 200), torch.arange(200, 300)),
    ]
    members = members_of(data, [{"class_weights": "balanced"}, {}, {"class_weights": "balanced"}, {}])
    assert_the_loops([dataclasses.replace(m, rows=folds[i // 2]) for i, m in enumerate(members)], data)


def test_all_cores_and_one_agree() -> None:
    data = data_of("digits")
    members = members_of(data, [{"class_weights": "balanced"}, {}, *SMOOTHED] * 2)
    one = Population(members, data, order_seed=ORDER_SEED)
    two = ParallelPopulation(members, data, order_seed=ORDER_SEED, n_parts=2)
    for engine in (one, two):
        list(engine.advance(3))
    for left, right in zip(one.states, two.states, strict=True):
        assert np.allclose(numbers(left.curve), numbers(right.curve), rtol=1e-10)


def test_what_is_measured_on_val_is_neither_weighed_nor_smoothed() -> None:
    data = data_of("digits")
    (member,) = members_of(data, [SMOOTHED[1]])
    done = train(member.model_config, member.train_config, data, seed=0, order_seed=1)
    with torch.no_grad():
        assert done.curve[-1].val_loss == data.task.loss(done.model(data.x_val), data.y_val).item()
    assert done.curve[-1].train_loss != pytest.approx(done.curve[-1].val_loss, rel=0.01)


def test_a_rare_class_is_found_more_often() -> None:
    stream = torch.Generator().manual_seed(0)
    y = (torch.arange(600) % 20 == 0).double()
    x = torch.randn(600, 3, generator=stream, dtype=torch.float64) + y[:, None]
    data = TensorData(Task("binary", 1), x, y, x, y)
    found = {}
    for name in ("none", "balanced"):
        own = config(class_weights=name, epochs=10, learning_rate=0.1)
        done = train(ModelConfig(3, 1, ()), own, data, seed=0, order_seed=1)
        with torch.no_grad():
            found[name] = int((done.model(x[y == 1]) > 0).sum())
    assert found["none"] < 15 < found["balanced"]


@pytest.mark.parametrize("engine", [Loop, Population])
def test_a_regression_has_no_classes(engine):
    data = data_of("diabetes")
    for changes, words in (
        ({"class_weights": "balanced"}, "class_weights must be none"),
        ({"label_smoothing": 0.1}, "label_smoothing must be 0.0"),
    ):
        with pytest.raises(ConfigError, match=f"{words} in a regression, which has no classes"):
            engine(members_of(data, [changes]), data, order_seed=1)
