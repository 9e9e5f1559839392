"""dlcore.greedy: networks are chosen as a slow and readable twin chooses them, and better than by taking all."""

import functools

import pytest
import torch
from torch import Tensor

from dlcore.evaluation import together
from dlcore.greedy import choose
from dlcore.tasks import Task

TASKS = {
    "binary": Task("binary", 1),
    "multiclass": Task("multiclass", 4),
    "regression": Task("regression", 2, (1.0, 2.0), (3.0, 0.5)),
}
METRIC = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "rmse"}


@functools.cache
def case(name: str, n: int = 6, n_rows: int = 60) -> tuple[list[Tensor], Tensor]:
    """Outputs of networks that are right by their own share, and the truth."""
    stream, task = torch.Generator().manual_seed(len(name)), TASKS[name]
    if name == "regression":
        y = torch.randn(n_rows, 2, generator=stream, dtype=torch.float64)
        return [y + (0.3 + i / 3) * torch.randn(n_rows, 2, generator=stream, dtype=torch.float64) for i in range(n)], y
    classes = torch.randint(max(2, task.n_outputs), (n_rows,), generator=stream)
    truth = torch.nn.functional.one_hot(classes, max(2, task.n_outputs)).double()
    logits = [
        2 * truth + (1 + i / 2) * torch.randn(truth.shape, generator=stream, dtype=torch.float64) for i in range(n)
    ]
    if name == "binary":
        return [(own[:, 1] - own[:, 0]).unsqueeze(-1) for own in logits], classes.double()
    return logits, classes


def slow_twin(task: Task, outputs: list[Tensor], y: Tensor, objective: str, rounds: int) -> tuple[int, ...]:
    """Every ensemble of the course of the choice, built from its networks' outputs as they are."""

    def place(members: list[int]) -> tuple[float, float]:
        mean = together(task, [outputs[i] for i in members])
        loss = -float(task.loss(mean, y))
        if objective == "loss":
            return loss, 0.0
        value = float(task.metric(objective, mean, y))
        return (-value if objective == "rmse" else value), loss

    chosen: list[int] = []
    best: list[int] = []
    for _ in range(rounds):
        chosen = max(([*chosen, i] for i in range(len(outputs))), key=lambda m: (place(m), -m[-1]))
        if not best or place(chosen) > place(best):
            best = list(chosen)
    return tuple(best.count(i) for i in range(len(outputs)))


@pytest.mark.parametrize("of_loss", [True, False])
@pytest.mark.parametrize("name", TASKS)
def test_the_choice_is_that_of_the_slow_twin(name: str, of_loss: bool) -> None:
    outputs, y = case(name)
    objective = "loss" if of_loss else METRIC[name]
    found = choose(TASKS[name], outputs, y, objective, rounds=8)
    assert found == slow_twin(TASKS[name], outputs, y, objective, 8)
    assert sum(found) >= 1 and len(found) == len(outputs)


@pytest.mark.parametrize("name", TASKS)
def test_what_is_chosen_is_no_worse_on_val_than_the_best_alone(name: str) -> None:
    outputs, y = case(name)
    task = TASKS[name]
    counts = choose(task, outputs, y, "loss")
    members = [own for own, n in zip(outputs, counts, strict=True) for _ in range(n)]
    chosen = float(task.loss(together(task, members), y))
    assert chosen <= min(float(task.loss(own, y)) for own in outputs) + 1e-9
    assert sum(counts) <= 25


def test_one_network_is_chosen_once_and_of_equal_ones_the_first() -> None:
    outputs, y = case("multiclass")
    assert choose(TASKS["multiclass"], outputs[:1], y, "accuracy") == (1,)
    assert choose(TASKS["multiclass"], [outputs[0], outputs[0]], y, "loss") == (1, 0)


def test_rounding_gives_a_network_that_stays_alone_no_second_vote() -> None:
    for seed in range(40):
        torch.manual_seed(seed)
        y = torch.randint(0, 3, (60,))
        good = torch.nn.functional.one_hot(y, 3) * 6 + torch.randn(60, 3) * 0.1
        for objective in ("loss", "accuracy"):
            assert choose(Task("multiclass", 3), [good, -good], y, objective) == (1, 0)


def test_counts_have_no_common_factor() -> None:
    y = torch.zeros(30, 1)
    assert choose(Task("regression", 1, (0.0,), (1.0,)), [y + 1, y - 1], y, "loss") == (1, 1)
