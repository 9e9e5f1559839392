import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from dlcore.config import CLASSIFICATION_METRICS, LOWER_IS_BETTER, REGRESSION_METRICS
from dlcore.metrics import METRICS

Arrays = tuple[torch.Tensor, torch.Tensor]


def classes(seed: int, n_members: int, n_rows: int, n_classes: int, ties: bool = False) -> Arrays:
    """Probabilities (P, N, C) and targets (N,) in which every class comes."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n_members, n_rows, n_classes))
    if ties:
        logits = np.round(logits)
    exps = np.exp(logits)
    targets = np.concatenate([np.arange(n_classes), rng.integers(n_classes, size=n_rows - n_classes)])
    return torch.from_numpy(exps / exps.sum(-1, keepdims=True)), torch.from_numpy(targets)


def expected(name: str, p: np.ndarray, y: np.ndarray) -> float:
    """scikit-learn's number for one member."""
    is_binary = p.shape[-1] == 2
    guess = p.argmax(-1)
    number = {
        "accuracy": lambda: reference.accuracy_score(y, guess),
        "balanced_accuracy": lambda: reference.balanced_accuracy_score(y, guess),
        "f1": lambda: reference.f1_score(y, guess, average="binary" if is_binary else "macro"),
        "roc_auc": lambda: reference.roc_auc_score(y, p[:, 1] if is_binary else p, multi_class="ovr"),
        "log_loss": lambda: reference.log_loss(y, p),
    }[name]()
    return float(number)


@pytest.mark.parametrize("name", CLASSIFICATION_METRICS)
@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("ties", [False, True])
def test_classification_metrics_are_scikit_learns(name: str, n_classes: int, ties: bool) -> None:
    predictions, targets = classes(n_classes, 4, 60, n_classes, ties)
    found = METRICS[name].function(predictions, targets)
    wanted = [expected(name, member, targets.numpy()) for member in predictions.numpy()]
    assert found.shape == (4,) and found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=30))
def test_roc_auc_counts_pairs_and_half_the_ties(rows: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([score / 4 for score, _ in rows])
    targets = torch.tensor([int(is_in) for _, is_in in rows])
    positive, negative = scores[targets == 1], scores[targets == 0]
    pairs = positive[:, None] - negative[None, :]
    wanted = ((pairs > 0).double() + 0.5 * (pairs == 0)).mean()  # NaN of an empty mean: one class only
    found = METRICS["roc_auc"].function(torch.stack([1 - scores, scores], -1), targets)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", REGRESSION_METRICS)
@pytest.mark.parametrize("n_targets", [1, 3])
def test_regression_metrics_are_scikit_learns(name: str, n_targets: int) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(50, n_targets)) * 100 + 1e6
    predictions = y + rng.normal(size=(4, 50, n_targets)) * np.array([[[1.0]], [[10.0]], [[100.0]], [[1e4]]])
    function = {
        "rmse": reference.root_mean_squared_error,
        "mae": reference.mean_absolute_error,
        "r2": reference.r2_score,
    }[name]
    found = METRICS[name].function(torch.from_numpy(predictions), torch.from_numpy(y))
    np.testing.assert_allclose(found.numpy(), [function(y, member) for member in predictions], rtol=1e-9)


@pytest.mark.parametrize("name", CLASSIFICATION_METRICS)
@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_nan_in_a_members_probabilities_is_nan_for_it_alone(name: str, column: int) -> None:
    predictions, targets = classes(1, 3, 40, 3)
    clean = METRICS[name].function(predictions, targets)
    predictions[1, 7, column] = torch.nan
    found = METRICS[name].function(predictions, targets)
    assert found[1].isnan()
    assert torch.equal(found[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("name", REGRESSION_METRICS)
def test_a_nan_in_a_members_values_is_nan_for_it_alone(name: str) -> None:
    targets = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    for y in (targets, torch.ones(20, 2)):
        predictions = targets.repeat(3, 1, 1) * 1.1
        predictions[1, 3, 1] = torch.nan
        assert METRICS[name].function(predictions, y).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("name", [*CLASSIFICATION_METRICS, *REGRESSION_METRICS])
def test_leading_dimensions_mean_the_same_as_one_by_one(name: str) -> None:
    predictions, targets = classes(2, 6, 40, 4)
    if name in REGRESSION_METRICS:
        targets = predictions[0] ** 2 + 0.1
    function = METRICS[name].function
    found = function(predictions.unflatten(0, (2, 3)), targets)
    assert found.shape == (2, 3)
    one_by_one = torch.stack([function(member, targets) for member in predictions])
    torch.testing.assert_close(found.flatten(), one_by_one, rtol=1e-14, atol=0)
    own_targets = function(predictions, targets.expand(6, *targets.shape).clone())
    torch.testing.assert_close(own_targets, one_by_one, rtol=1e-14, atol=0)


def test_a_class_that_no_row_has_is_left_out() -> None:
    predictions, _ = classes(3, 2, 30, 3)
    targets = torch.arange(30) % 2
    p, y = predictions[0].numpy(), targets.numpy()
    guess = p.argmax(-1)
    auc = np.mean([reference.roc_auc_score(y == k, p[:, k]) for k in (0, 1)])
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        recall = reference.balanced_accuracy_score(y, guess)
    wanted = {"roc_auc": auc, "balanced_accuracy": recall, "f1": reference.f1_score(y, guess, average="macro")}
    for name, number in wanted.items():
        assert METRICS[name].function(predictions, targets)[0].item() == pytest.approx(number, rel=1e-12)


def test_roc_auc_of_one_class_alone_is_nan() -> None:
    predictions, _ = classes(4, 2, 10, 2)
    assert METRICS["roc_auc"].function(predictions, torch.zeros(10, dtype=torch.int64)).isnan().all()


def test_f1_is_0_where_class_1_is_neither_there_nor_predicted() -> None:
    predictions = torch.tensor([[0.9, 0.1]]).expand(5, 2)
    assert METRICS["f1"].function(predictions, torch.zeros(5, dtype=torch.int64)) == 0


def test_a_tie_goes_to_the_first_class() -> None:
    half = torch.full((4, 2), 0.5)
    assert METRICS["accuracy"].function(half, torch.tensor([0, 0, 0, 1])) == 0.75


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_loss_stays_finite_where_the_right_class_has_no_probability(dtype: torch.dtype) -> None:
    predictions = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=dtype)
    targets = torch.tensor([0, 1])
    wanted = reference.log_loss(targets.numpy(), predictions.numpy())
    assert METRICS["log_loss"].function(predictions, targets).item() == pytest.approx(wanted, rel=1e-6)


def test_r2_of_a_target_that_does_not_vary_is_1_or_0_as_in_scikit_learn() -> None:
    targets = torch.full((5, 1), 3.0)
    predictions = torch.stack([targets, targets + 1])
    assert METRICS["r2"].function(predictions, targets).tolist() == [1.0, 0.0]
    assert METRICS["r2"].function(predictions[:, :1], targets[:1]).isnan().all()


def test_each_metric_knows_its_direction() -> None:
    lower = {name for name, metric in METRICS.items() if metric.direction == "minimize"}
    assert lower == LOWER_IS_BETTER & set(METRICS)
    assert all(metric.direction in ("minimize", "maximize") for metric in METRICS.values())
