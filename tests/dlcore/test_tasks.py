import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as reference

from dlcore.config import metrics_of
from dlcore.errors import ConfigError
from dlcore.metrics import METRICS
from dlcore.tasks import Task, check_metric, curve_metric

BINARY = Task("binary", 1)
MULTICLASS = Task("multiclass", 4)
REGRESSION = Task("regression", 2, target_mean=(2000.0, -5.0), target_scale=(10.0, 0.5))
TASKS = pytest.mark.parametrize("task", [BINARY, MULTICLASS, REGRESSION], ids=lambda task: task.name)


def rows(task: Task, n_members: int = 3, n_rows: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs (P, N, C) and targets that all members share."""
    random = torch.Generator().manual_seed(0)
    outputs = torch.randn(n_members, n_rows, task.n_outputs, generator=random, dtype=torch.float64)
    if task.name == "regression":
        return outputs, torch.randn(n_rows, task.n_outputs, generator=random, dtype=torch.float64)
    classes = torch.randint(max(task.n_outputs, 2), (n_rows,), generator=random)
    return outputs, classes.double() if task.name == "binary" else classes


@TASKS
def test_loss_is_torchs_for_each_member(task: Task) -> None:
    outputs, targets = rows(task)
    found = task.loss(outputs, targets)
    for loss, member in zip(found, outputs, strict=True):
        wanted = {
            "binary": lambda m=member: F.binary_cross_entropy_with_logits(m[:, 0], targets),
            "multiclass": lambda m=member: F.cross_entropy(m, targets),
            "regression": lambda m=member: F.mse_loss(m, targets),
        }[task.name]()
        torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0)
        torch.testing.assert_close(loss, task.loss(member, targets), rtol=1e-14, atol=0)


@TASKS
def test_members_may_have_targets_of_their_own(task: Task) -> None:
    outputs, targets = rows(task)
    own = torch.stack([targets, targets.roll(1, 0), targets.roll(2, 0)])
    for name, of in (("loss", task.loss), ("metric", lambda o, t: task.metric(metrics_of(task.name)[0], o, t))):
        alone = torch.stack([of(o, t) for o, t in zip(outputs, own, strict=True)])
        torch.testing.assert_close(of(outputs, own), alone, rtol=1e-14, atol=0, msg=name)


@TASKS
def test_the_sum_of_losses_gives_each_member_the_gradient_that_it_gets_alone(task: Task) -> None:
    outputs, targets = rows(task)
    stacked = outputs.clone().requires_grad_()
    task.loss(stacked, targets).sum().backward()
    alone = outputs[1].clone().requires_grad_()
    task.loss(alone, targets).backward()
    assert stacked.grad is not None and alone.grad is not None
    torch.testing.assert_close(stacked.grad[1], alone.grad, rtol=1e-13, atol=0)


def test_predictions_are_probabilities_or_values_in_the_targets_units() -> None:
    outputs, _ = rows(BINARY)
    assert torch.equal(BINARY.predict(outputs), torch.sigmoid(outputs[..., 0]))
    outputs, _ = rows(MULTICLASS)
    torch.testing.assert_close(MULTICLASS.predict(outputs).sum(-1), torch.ones(3, 20, dtype=torch.float64))
    outputs, _ = rows(REGRESSION)
    assert torch.equal(REGRESSION.predict(outputs)[..., 0], outputs[..., 0] * 10 + 2000)
    assert REGRESSION.predict(outputs.float()).dtype == torch.float64


def test_metrics_of_a_regression_are_in_the_targets_units() -> None:
    outputs, targets = rows(REGRESSION)
    scale, mean = torch.tensor([10.0, 0.5]), torch.tensor([2000.0, -5.0])
    own, wanted = outputs[0] * scale + mean, targets * scale + mean
    found = REGRESSION.metric("mae", outputs, targets)[0].item()
    assert found == pytest.approx(reference.mean_absolute_error(wanted.numpy(), own.numpy()))


def test_metrics_of_a_binary_task_are_of_class_1() -> None:
    outputs, targets = rows(BINARY)
    p, y = BINARY.predict(outputs)[0].numpy(), targets.numpy()
    assert BINARY.metric("f1", outputs, targets)[0].item() == pytest.approx(reference.f1_score(y, p > 0.5))
    auc = BINARY.metric("roc_auc", outputs, targets)[0].item()
    assert auc == pytest.approx(reference.roc_auc_score(y, p))


@TASKS
def test_all_metrics_at_once_are_those_one_by_one(task: Task) -> None:
    outputs, targets = rows(task)
    found = task.metrics(metrics_of(task.name), outputs, targets)
    assert tuple(found) == metrics_of(task.name)
    for name, values in found.items():
        assert torch.equal(values, task.metric(name, outputs, targets))


@TASKS
def test_a_member_with_nan_has_nan_everywhere_and_hurts_no_other(task: Task) -> None:
    outputs, targets = rows(task)
    outputs[1, 3, 0] = torch.nan
    for values in (task.loss(outputs, targets), *task.metrics(metrics_of(task.name), outputs, targets).values()):
        assert values.isnan().tolist() == [False, True, False]


def test_the_curve_shows_the_objective_or_the_tasks_default() -> None:
    assert curve_metric("binary", "loss") == "accuracy"
    assert curve_metric("regression", "loss") == "rmse"
    assert curve_metric("multiclass", "roc_auc") == "roc_auc"
    with pytest.raises(ConfigError, match=r"metric of a binary task must be one of accuracy, .*; got 'rmse'"):
        curve_metric("binary", "rmse")


def test_a_metric_that_does_not_fit_the_task_is_refused() -> None:
    for name in METRICS:
        fits = name in metrics_of("regression")
        if fits:
            check_metric("regression", name)
        else:
            with pytest.raises(ConfigError, match=name):
                check_metric("regression", name)


def test_a_task_whose_parts_do_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="task must be one of"):
        Task("ranking", 1)
    with pytest.raises(ConfigError, match="needs 2 target means and scales; got 1 and 1"):
        Task("regression", 2, (0.0,), (1.0,))
    with pytest.raises(ConfigError, match="needs 0 target means"):
        Task("binary", 1, (0.0,), (1.0,))


@pytest.mark.parametrize(("name", "n_outputs"), [("binary", 1), ("multiclass", 3)])
def test_log_loss_is_the_loss_even_where_float32_has_no_probability_left(name: str, n_outputs: int) -> None:
    task = Task(name, n_outputs)
    outputs = torch.tensor([[40.0, -60.0, 3.0], [-90.0, 30.0, 0.0]])[:, :n_outputs]
    targets = torch.tensor([0.0, 1.0]) if name == "binary" else torch.tensor([1, 2])
    assert task.metric("log_loss", outputs, targets).item() == pytest.approx(task.loss(outputs, targets).item())
    assert task.loss(outputs, targets).item() > 30
