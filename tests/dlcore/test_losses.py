import pytest
import torch

from dlcore.config import TrainConfig
from dlcore.criterion import Criterion, weighing_of
from dlcore.losses import loss_ops, targets_like
from dlcore.tasks import Task

P, B = 5, 7
TASKS = [Task("binary", 1), Task("multiclass", 4), Task("regression", 2, (0.0, 0.0), (1.0, 1.0))]


def batch(task: Task, n_rows: int = B) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(3)
    outputs = 4 * torch.randn(P, task.n_outputs, n_rows, generator=stream, dtype=torch.float64)
    if task.name == "multiclass":
        return outputs, torch.randint(0, task.n_outputs, (n_rows,), generator=stream)
    shape = (n_rows, task.n_outputs) if task.name == "regression" else (n_rows,)
    return outputs, torch.rand(shape, generator=stream, dtype=torch.float64).round()


@pytest.mark.parametrize("n_rows", [1, B])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_losses_and_gradients_are_those_of_autograd(task, n_rows):
    outputs, y = batch(task, n_rows)
    reference = outputs.clone().requires_grad_()
    expected = task.loss(reference.mT, y)
    (slope,) = torch.autograd.grad(expected.sum(), reference)
    targets, gradients, losses = targets_like(y, n_rows), torch.empty_like(outputs), outputs.new_empty(P)
    ops = loss_ops(task.name, outputs, targets, gradients, losses)
    targets.copy_(y)
    for op in ops:
        op()
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(gradients, slope)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_nan_stays_with_its_member(task):
    outputs, y = batch(task)
    outputs[2, 0, 0] = torch.nan
    targets, gradients, losses = targets_like(y, B), torch.empty_like(outputs), outputs.new_empty(P)
    targets.copy_(y)
    for op in loss_ops(task.name, outputs, targets, gradients, losses):
        op()
    assert losses.isnan().tolist() == [False, False, True, False, False]
    assert gradients.flatten(1).isnan().any(1).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("n_copies", [1, P])
@pytest.mark.parametrize("task", TASKS[:2], ids=lambda task: task.name)
def test_weighed_losses_and_gradients_are_those_of_autograd(task, n_copies):
    outputs, y = batch(task)
    own = torch.stack([y.roll(i) for i in range(n_copies)]).squeeze(0)
    configs = [
        TrainConfig(1, class_weights=("none", "balanced")[i % 2], label_smoothing=0.1 * (i // 2)) for i in range(P)
    ]
    seen = [y[: 3 + i].clamp(max=2) for i in range(P)]
    reference = outputs.clone().requires_grad_()
    expected = torch.stack(
        [
            Criterion(task, config, seen[i], y.dtype if y.is_floating_point() else torch.float64)(
                reference[i].T, own if n_copies == 1 else own[i]
            )
            for i, config in enumerate(configs)
        ]
    )
    (slope,) = torch.autograd.grad(expected.sum(), reference)
    targets, gradients, losses = targets_like(y, B, n_copies), torch.empty_like(outputs), outputs.new_empty(P)
    weighing = weighing_of(task, configs, seen, outputs)
    for _ in range(2):  # nothing is left over from one batch to the next
        targets.copy_(own)
        for op in loss_ops(task.name, outputs.clone(), targets, gradients, losses, weighing):
            op()
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(gradients, slope)
