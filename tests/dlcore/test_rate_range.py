"""dlcore.rate_range: on a quadratic, where theory says what must come out, and on a real table."""

import math
import random

import pytest
import torch

from dlcore.config import DataConfig, ModelConfig, TrainConfig
from dlcore.data import load_splits, to_tensors
from dlcore.models import build_model
from dlcore.rate_range import STEPS, geometric, measure_rates, read, smooth, sweep
from dlcore.training import Training
from tests.dlcore.backbones import random_backbone

RATES = geometric(1e-6, 10.0, STEPS)


class Quadratic:
    """loss = a w^2 / 2, from w = 1, by gradient descent with momentum."""

    def __init__(self, curvature: float, momentum: float) -> None:
        self.curvature, self.momentum, self.w, self.v = curvature, momentum, 1.0, 0.0

    def step(self, rate: float) -> float:
        loss = self.curvature * self.w**2 / 2
        self.v = self.momentum * self.v + self.curvature * self.w
        self.w -= rate * self.v
        return loss


@pytest.mark.parametrize("curvature", [1.0, 3.0, 40.0])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_range_of_a_quadratic_ends_at_the_edge_of_stability(curvature: float, momentum: float) -> None:
    found = sweep(Quadratic(curvature, momentum).step, RATES)
    edge = 2 * (1 + momentum) / curvature
    assert found.low and found.high and found.steepest
    # The loss shrinks up to the edge and grows behind it; a step of the sweep is 8 %, and momentum comes late.
    reach = 1.35 if momentum == 0 else 2.5
    assert edge / reach < found.high < edge * reach
    assert found.low < found.steepest < found.high
    assert found.losses[-1] > 4 * found.losses[0] or math.isclose(found.rates[-1], 10.0)


def test_the_range_of_a_quadratic_begins_where_a_tenth_of_the_fall_is_there() -> None:
    found = sweep(Quadratic(1.0, 0.0).step, RATES)
    assert found.low is not None
    at = found.rates.index(found.low)
    first = sum(found.losses[: found.rates.index(found.high) // 4]) / (found.rates.index(found.high) // 4)
    assert found.smoothed[at] > 0.88 * first and found.smoothed[at + 4] < 0.9 * first


def test_noise_of_batches_does_not_move_the_range_far() -> None:
    noise = random.Random(1)
    calm = sweep(Quadratic(1.0, 0.0).step, RATES)
    ragged = read(calm.rates, [loss + noise.uniform(0.0, 0.05) for loss in calm.losses])
    assert calm.low and ragged.low and calm.high and ragged.high
    assert 0.5 < ragged.low / calm.low < 2 and 0.1 < ragged.high / calm.high < 5


def test_a_loss_that_does_not_fall_gives_no_range() -> None:
    flat = sweep(lambda rate: 2.3, RATES)
    assert (flat.low, flat.high, flat.steepest) == (None, None, None) and len(flat.losses) == STEPS
    assert sweep(lambda rate: math.nan, RATES).losses == ()
    rising = sweep(lambda rate: 1.0 + rate, RATES)
    assert rising.low is None and len(rising.losses) < STEPS, "what explodes is not measured to its end"


def test_smoothing_has_no_lag() -> None:
    line = [float(i) for i in range(20)]
    assert smooth(line) == pytest.approx(line)
    assert smooth([0, 0, 0, 9, 0, 0, 0], reach=1) == [0, 0, 3, 3, 3, 0, 0]


def test_a_network_learns_within_its_range_and_not_outside() -> None:
    data = to_tensors(load_splits(DataConfig("sklearn:digits"), 0), "cpu")
    network, training = ModelConfig(64, 10, (32,)), TrainConfig(4, momentum=0.0)
    found = measure_rates(network, training, data, (1, 2))
    assert found.low and found.high and found.steepest
    assert torch.tensor(found.losses[:20]).mean() == pytest.approx(math.log(10), abs=0.2)

    def after_training(rate: float) -> float:
        trained = Training(network, TrainConfig(4, momentum=0.0, learning_rate=rate), data, seed=1, order_seed=2)
        trained.advance(4)
        return math.inf if trained.divergence else trained.curve[-1].train_loss

    assert after_training(found.steepest) < 0.5
    assert after_training(found.low / 100) > 2.0
    assert after_training(found.high * 10) > 2.0
    assert measure_rates(network, training, data, (1, 2)) == found


def test_a_network_is_tested_from_its_backbone_on() -> None:
    data = to_tensors(load_splits(DataConfig("sklearn:wine"), 0), "cpu")
    backbone = random_backbone(ModelConfig(13, 3, (8,)), seed=1)
    training = TrainConfig(4, batch_size=1000, momentum=0.0, n_frozen=1)
    found = measure_rates(backbone.model_config(3), training, data, (1, 2), 20, backbone)
    network = build_model(backbone.model_config(3), 1, backbone=backbone)
    assert found.losses[0] == pytest.approx(data.task.loss(network(data.x_train), data.y_train).item(), rel=1e-5)


def test_noise_alone_is_no_fall() -> None:
    rates = geometric(1e-6, 10.0, 200)
    found = 0
    for seed in range(50):
        rng = random.Random(seed)
        found += read(rates, [1 + rng.gauss(0, 0.1) for _ in rates]).low is not None
    assert found <= 5


def test_a_range_lies_within_the_rates_that_were_tried() -> None:
    rates = geometric(1e-6, 10.0, 200)
    early = read(rates, [max(0.1, 1 - 0.05 * i) if i < 20 else 0.1 + 0.05 * (i - 19) for i in range(60)])
    assert early.low is not None and early.high is not None and early.steepest is not None
    assert rates[0] <= early.low <= early.high and early.steepest <= early.high / 2


def test_where_all_is_learnt_before_a_rate_is_too_high_the_range_ends_there() -> None:
    rates = geometric(1e-6, 10.0, 200)
    found = read(rates, [1 / (1 + (rate / 0.03) ** 2) for rate in rates])
    assert not found.has_edge and found.high is not None and found.steepest is not None
    assert 0.2 < found.high < 0.5, "99 of 100 of the fall are done at 0.3"
    assert found.steepest < 0.1
    rises = read(rates, [1 / (1 + (rate / 0.03) ** 2) + max(0.0, rate - 5) for rate in rates])
    assert rises.has_edge and rises.high is not None and 3 < rises.high < 6
