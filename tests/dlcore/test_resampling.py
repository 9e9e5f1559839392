"""Draws by weights are the metrics of the rows drawn, and an interval over rows covers what it says."""

import math

import pytest
import torch
from torch import Tensor

from dlcore import resampling
from dlcore.config import metrics_of
from dlcore.evaluation import evaluate_outputs
from dlcore.resampling import compare, measure_draws, n_draws
from dlcore.tasks import Task

TASKS = {
    "binary": Task("binary", 1),
    "multiclass": Task("multiclass", 4),
    "regression": Task("regression", 2, (3.0, -1.0), (2.0, 5.0)),
}


def rows(task: Task, n_rows: int, n_models: int, *, has_ties: bool = False) -> tuple[list[Tensor], Tensor]:
    """Outputs of some models and targets of whatever task."""
    generator = torch.Generator().manual_seed(7)
    outputs = [torch.randn(n_rows, task.n_outputs, generator=generator) for _ in range(n_models)]
    if has_ties:
        outputs = [own.round() for own in outputs]
    if task.name == "regression":
        return outputs, outputs[0] + torch.randn(n_rows, task.n_outputs, generator=generator)
    y = torch.randint(max(2, task.n_outputs), (n_rows,), generator=generator)
    return outputs, y.float() if task.name == "binary" else y


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("has_ties", [False, True])
def test_a_draw_is_measured_as_its_rows_are(name: str, has_ties: bool) -> None:
    task = TASKS[name]
    outputs, y = rows(task, 40, 2, has_ties=has_ties)
    found = measure_draws(task, outputs, y, seed=3)
    weights = torch.cat(list(resampling._draws(40, n_draws(40, task.n_outputs), 3)), 1).T
    assert (weights.sum(1) == 40).all() and len(weights) == 1_000
    for own, measured in zip(outputs, found, strict=True):
        assert list(measured) == ["loss", *metrics_of(name)]
        for draw in range(0, 1_000, 50):
            drawn = torch.repeat_interleave(torch.arange(40), weights[draw].long())
            wanted = evaluate_outputs(task, own[drawn].double(), y[drawn])
            assert {n: float(v[draw]) for n, v in measured.items()} == pytest.approx(wanted, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", TASKS)
def test_draws_in_pieces_are_the_draws_in_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs, y = rows(TASKS[name], 30, 3)
    whole = compare(TASKS[name], outputs[:2], outputs[2:], y, 0)
    monkeypatch.setattr(resampling, "_CHUNK", 700)
    assert compare(TASKS[name], outputs[:2], outputs[2:], y, 0) == whole


@pytest.mark.parametrize("name", TASKS)
def test_a_draw_of_groups_is_measured_as_all_their_rows_are(name: str) -> None:
    task = TASKS[name]
    (outputs,), y = rows(task, 40, 1)
    groups = torch.arange(40) // 3 % 7  # of 6 rows and of 4
    (found,) = measure_draws(task, [outputs], y, 3, groups)
    weights = torch.cat(list(resampling._draws(40, 1_000, 3, groups)), 1).T
    by_group = torch.stack([weights[:, groups == g].unique(dim=1).squeeze(1) for g in range(7)], 1)  # one weight each
    assert (by_group.sum(1) == 7).all() and len(set(weights.sum(1).tolist())) > 1
    for draw in range(0, 1_000, 50):
        drawn = torch.repeat_interleave(torch.arange(40), weights[draw].long())
        wanted = evaluate_outputs(task, outputs[drawn].double(), y[drawn])
        assert {n: float(v[draw]) for n, v in found.items()} == pytest.approx(wanted, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", TASKS)
def test_copies_of_a_row_in_one_group_say_no_more_than_the_row(name: str) -> None:
    task = TASKS[name]
    outputs, y = rows(task, 80, 2)
    copies = torch.arange(80).repeat_interleave(4)
    copied = [own[copies] for own in outputs]
    once, (lead,) = compare(task, outputs[:1], outputs[1:], y, 0)
    grouped, (grouped_lead,) = compare(task, copied[:1], copied[1:], y[copies], 1, copies)  # draws of another seed
    torn, _ = compare(task, copied[:1], copied[1:], y[copies], 1)
    for metric, spread in once.items():
        width = spread.high - spread.low
        for found, wanted in ((grouped[metric], spread), (grouped_lead[metric], lead[metric])):
            by = 0.15 * (wanted.high - wanted.low)  # three deviations of the ends of 1,000 draws, and ties
            assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=by)
        assert torn[metric].high - torn[metric].low == pytest.approx(width / 2, rel=0.2)  # four times the rows


def test_many_rows_and_outputs_have_fewer_draws() -> None:
    assert [n_draws(100, 1), n_draws(20_000, 1), n_draws(1_000_000, 26)] == [1_000, 400, 200]


def test_an_equal_model_is_neither_ahead_nor_behind_whatever_the_rows() -> None:
    outputs, y = rows(TASKS["multiclass"], 50, 1)
    own, (beside,) = compare(TASKS["multiclass"], outputs, outputs, y, 0)
    assert all((spread.low, spread.high) == (0.0, 0.0) for spread in beside.values())
    assert own["accuracy"].low < own["accuracy"].high


def test_pairs_tell_what_two_intervals_cannot() -> None:
    task = TASKS["binary"]
    y = (torch.arange(400) % 2).float()
    right = torch.where(torch.arange(400) % 4 < 3, 1.0, -1.0) * (2 * y - 1)  # 300 of 400
    worse = torch.where(torch.arange(400) % 40 == 0, -right, right)  # wrong on ten more, all else as the first
    own, (beside,) = compare(task, [right.unsqueeze(1)], [worse.unsqueeze(1)], y, 0)
    assert own["accuracy"].low < 290 / 400 < own["accuracy"].high
    assert 0 < beside["accuracy"].low < 10 / 400 < beside["accuracy"].high


def test_a_draw_without_a_class_has_no_area_and_is_left_out() -> None:
    task = TASKS["binary"]
    outputs, _ = rows(task, 12, 1)
    own, _ = compare(task, outputs, [], torch.tensor([1.0] + [0.0] * 11), 0)
    assert math.isfinite(own["roc_auc"].low) and own["roc_auc"].low <= own["roc_auc"].high


def test_of_two_models_equally_good_one_is_seldom_said_to_be_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "MOST_DRAWS", 200)
    task, generator, n_ahead = TASKS["binary"], torch.Generator().manual_seed(1), 0
    y = (torch.arange(50) % 2).float()
    for table in range(100):
        left, right = (
            torch.where(torch.rand(50, 1, generator=generator) < 0.8, 1.0, -1.0) * (2 * y - 1).unsqueeze(1)
            for _ in range(2)
        )
        _, (beside,) = compare(task, [left], [right], y, table)
        n_ahead += not beside["accuracy"].low <= 0.0 <= beside["accuracy"].high
    assert 0 < n_ahead < 13  # 5 of 100 are asked for; 13 or more come once in a thousand times
