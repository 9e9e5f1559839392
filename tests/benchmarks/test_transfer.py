"""benchmarks.transfer: both sides learn from the same rows, choose among the same, and are measured elsewhere."""

import random
import statistics
from dataclasses import replace

import pytest
import torch

from benchmarks import transfer
from benchmarks.transfer import DRAWS, SIDES, TRAININGS, Comparison, Configuration, Move
from dlcore.backbone import Backbone, backbone_of
from dlcore.config import ModelConfig
from dlcore.models import build_model


@pytest.fixture(scope="module")
def backbones() -> list[Backbone]:
    """Of networks that know nothing yet."""
    models = [ModelConfig(64, 5, widths) for widths in transfer.SHAPES.values()]
    return [backbone_of(model, build_model(model, seed=0).state_dict()) for model in models]


@pytest.fixture(scope="module", params=[0, 1], ids=["new classes", "odd"])
def move(request: pytest.FixtureRequest) -> Move:
    """Each of the two moves."""
    return transfer.moves()[request.param]


def test_rows_of_the_old_task_and_rows_to_choose_on_and_to_report_on_are_apart_and_all(move: Move) -> None:
    to_choose, to_report = move.halves
    assert sorted([*to_choose.tolist(), *to_report.tolist()]) == list(range(len(move.x)))
    assert sorted(set(move.y.tolist())) == list(range(move.n_classes))
    every = [*map(tuple, move.source[0].tolist()), *map(tuple, move.x.tolist())]
    assert len(every) == len(set(every)) == 1797  # no image is there twice


@pytest.mark.parametrize("size", [10, 50])
def test_a_draw_has_as_many_rows_of_each_class_and_is_measured_on_others(move: Move, size: int) -> None:
    y, half = move.y, move.halves[1]
    found = transfer.draws(move, half, size, 200)
    largest = transfer.draws(move, half, 200, 200)
    assert len(found) == DRAWS and len({tuple(rows.train.tolist()) for rows in found}) == DRAWS
    for rows, more in zip(found, largest, strict=True):
        assert torch.bincount(y[rows.train]).tolist() == [size // move.n_classes] * move.n_classes
        assert set(rows.train.tolist()) <= set(more.train.tolist())
        assert rows.val.tolist() == more.val.tolist()
        assert sorted([*more.train.tolist(), *more.val.tolist()]) == sorted(half.tolist())


@pytest.mark.parametrize("kind", TRAININGS)
def test_both_sides_choose_among_the_same_trainings(kind: str, backbones: list[Backbone]) -> None:
    transferred, scratch = (transfer.configurations(side, kind, 12, 5, backbones) for side in SIDES)
    assert len(transferred) == len(scratch) == 12
    for ours, theirs in zip(transferred, scratch, strict=True):
        assert ours.backbone is not None and theirs.backbone is None
        for name in ("learning_rate", "weight_decay", "noise", "mixup", "label_smoothing", "epochs", "batch_size"):
            assert getattr(ours.training, name) == getattr(theirs.training, name)
        assert ours.model.dropout == theirs.model.dropout
    assert transfer.configurations("transfer", kind, 12, 5, backbones) == transferred
    assert any(each.training.noise for each in scratch) == (kind == "with cures")


def test_a_comparison_pairs_the_draws() -> None:
    draw = random.Random(0)
    scratch = [0.9 + draw.gauss(0, 0.01) for _ in range(DRAWS)]
    transferred = [value + 0.02 + draw.gauss(0, 0.002) for value in scratch]
    found = Comparison("odd", "plain", 10, {"transfer": transferred, "scratch": scratch}, [0.5] * DRAWS)
    assert statistics.fmean(found.leads) == pytest.approx(0.02, abs=0.002)
    words = found.row()
    assert words[:3] == ["odd", "plain", "10"] and words[6:] == ["10 of 10", "0.000", "0.5000"]
    mean, low, high = transfer.interval([1.0, 2.0, 3.0])  # t(0.975, 2) = 4.3027
    assert (mean, high - mean, mean - low) == pytest.approx((2, 4.3027 / 3**0.5, 4.3027 / 3**0.5), abs=1e-4)


def test_networks_learn_and_one_that_diverges_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "DRAWS", 2)
    (move, _) = transfer.moves()
    rows = transfer.draws(move, move.halves[0], 50, 50)
    model = ModelConfig(64, 5, (16,))
    rates = {rate: replace(transfer.TRAINING, epochs=30, learning_rate=rate) for rate in (0.01, 1e30)}
    good, bad = transfer.accuracies(move, [Configuration(model, training) for training in rates.values()], rows, 2)
    assert min(good) > 0.7 and bad == [0.2, 0.2]
