"""dlcore.learnable: a network that can learn is told from one with a planted fault, and the fault is named."""

import dataclasses
import functools
import math
from collections.abc import Iterator

import pytest
import torch

from dlcore import learnable, training
from dlcore.config import DataConfig, ModelConfig, TrainConfig
from dlcore.data import load_splits, to_tensors
from dlcore.learnable import check_sample, check_val, dead_layer, sample_of
from dlcore.models import build_model
from dlcore.rows import TensorData
from tests.dlcore.backbones import random_backbone

SEEDS = (1, 2)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Enough for these networks, in a third of the time."""
    monkeypatch.setattr(learnable, "EPOCHS", 300)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def data_of(name: str) -> TensorData:
    return to_tensors(load_splits(DataConfig(f"sklearn:{name}"), 0), "cpu")


def network_for(data: TensorData, *widths: int, **others: object) -> ModelConfig:
    return ModelConfig(data.x_train.shape[1], data.task.n_outputs, widths or (32, 32), **others)  # type: ignore[arg-type]


def with_rate(rate: float) -> TrainConfig:
    return TrainConfig(20, 32, learning_rate=rate, momentum=0.9)


@pytest.mark.parametrize("name, smoothing", [("wine", 0.3), ("breast_cancer", 0.3), ("diabetes", 0.0)])
def test_a_sound_network_knows_a_sample_by_heart_and_what_it_learns_holds(name: str, smoothing: float) -> None:
    data = data_of(name)
    plain = TrainConfig(20, 32, learning_rate=0.05, noise=1.0, weight_decay=0.5, label_smoothing=smoothing)
    found = check_sample(network_for(data, dropout=0.9), plain, data, SEEDS)
    assert found.n_rows == 32 and found.first.epochs and found.first.loss <= 0.05 * found.guessing
    assert found.other is found.dead is None and not found.is_too_small
    held = check_val(network_for(data), plain, data, SEEDS)
    assert not held.is_chance and held.val_loss < held.guessing and held.n_rows == len(data.x_val)
    assert held.lead == pytest.approx(held.guessing - held.val_loss, abs=1e-5)
    assert check_sample(network_for(data, dropout=0.9), plain, data, SEEDS) == found
    cured = network_for(data, dropout=0.9, normalization="batch")
    assert check_sample(cured, plain, data, SEEDS) == found, "normalization is left out as a cure too"
    assert check_val(cured, plain, data, SEEDS) == held


def test_a_sample_has_each_class_as_often_as_another() -> None:
    data = data_of("digits")
    sample = sample_of(data, 3, 30)
    assert torch.bincount(sample.y_train).tolist() == [3] * 10
    assert torch.equal(sample.x_train, sample.x_val)
    assert not torch.equal(sample.x_train, sample_of(data, 4, 30).x_train)


def with_targets(data: TensorData, common: float, n_others: int) -> TensorData:
    y = torch.full_like(data.y_train, common)
    y[:n_others] = 5.0
    return TensorData(data.task, data.x_train, y, data.x_val, data.y_val)


def test_a_target_that_mostly_has_one_value_is_dealt_with_its_others() -> None:
    data = data_of("diabetes")
    mostly = with_targets(data, -0.2, 5)
    for seed in range(12):
        assert sorted(sample_of(mostly, seed).y_train.flatten().tolist()) == [pytest.approx(-0.2)] * 27 + [5.0] * 5
    found = check_sample(network_for(data), with_rate(0.05), mostly, SEEDS)
    assert found.first.epochs and not found.is_known


def test_a_target_of_one_value_is_known_without_a_training() -> None:
    data = data_of("diabetes")
    found = check_sample(network_for(data), with_rate(0.0), with_targets(data, -0.2, 0), SEEDS)
    assert found.is_known and found.first.epochs == 0 and found.first.learning_rate == 0.0


@pytest.mark.parametrize("rate", [0.0, 1e-9, 1e-6])
def test_a_learning_rate_of_zero_or_far_too_small_is_found(rate: float) -> None:
    data = data_of("wine")
    found = check_sample(network_for(data), with_rate(rate), data, SEEDS)
    assert found.first.epochs is None and found.dead is None
    assert found.first.loss == pytest.approx(math.log(3), abs=0.15)
    assert found.other is not None and found.other.learning_rate > rate and found.other.epochs


def test_rows_in_float64_are_checked_as_well() -> None:
    narrow = data_of("wine")
    data = TensorData(narrow.task, narrow.x_train.double(), narrow.y_train, narrow.x_val.double(), narrow.y_val)
    found = check_sample(network_for(data), with_rate(0.0), data, SEEDS)
    assert found.dead is None and found.other is not None and found.other.epochs


@pytest.mark.parametrize("rate", [30.0, 1e6])
def test_a_learning_rate_far_too_large_is_found(rate: float) -> None:
    data = data_of("wine")
    found = check_sample(network_for(data), with_rate(rate), data, SEEDS)
    assert found.first.epochs is None
    assert found.other is not None and found.other.learning_rate < rate


def test_dead_relus_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of("wine")

    def badly_initialized(config: ModelConfig, seed: int, **others: object) -> torch.nn.Sequential:
        model = build_model(config, seed, **others)  # type: ignore[arg-type]
        with torch.no_grad():
            model[2].bias.fill_(-50.0)  # type: ignore[union-attr, operator]  # the second Linear layer's
        return model

    assert dead_layer(build_model(network_for(data), 0), data.x_train) is None
    for module in (learnable, training):
        monkeypatch.setattr(module, "build_model", badly_initialized)
    found = check_sample(network_for(data), with_rate(0.05), data, SEEDS)
    assert found.first.epochs is None and found.dead == (2, 32, 32)


def test_a_network_that_is_too_small_is_found() -> None:
    data = data_of("digits")
    found = check_sample(network_for(data, 1), with_rate(0.05), data, SEEDS)
    assert found.first.epochs is None and found.other is None and found.is_too_small


def test_rows_that_contradict_each_other_are_learnt_by_nobody() -> None:
    data = data_of("wine")
    alike = TensorData(data.task, torch.ones_like(data.x_train), data.y_train, data.x_val, data.y_val)
    found = check_sample(network_for(data), with_rate(0.05), alike, SEEDS)
    assert found.first.epochs is None and found.other is None and not found.is_too_small and found.dead is None


@pytest.mark.parametrize("name", ["wine", "breast_cancer", "diabetes", "digits"])
def test_shuffled_labels_are_learnt_by_heart_and_hold_nowhere(name: str) -> None:
    data = data_of(name)
    stream = torch.Generator().manual_seed(5)
    mixed, of_val = (torch.randperm(n, generator=stream) for n in (len(data.y_train), len(data.y_val)))
    shuffled = TensorData(data.task, data.x_train, data.y_train[mixed], data.x_val, data.y_val[of_val])
    found = check_sample(network_for(data), with_rate(0.05), shuffled, SEEDS)
    assert found.first.epochs, "any labels can be learnt by heart"
    assert check_val(network_for(data), with_rate(0.05), shuffled, SEEDS).is_chance


@pytest.mark.parametrize("normalization", ["none", "batch"])
def test_a_pretrained_network_is_tried_as_it_begins_but_with_no_layer_frozen(normalization: str) -> None:
    data = data_of("wine")
    backbone = random_backbone(network_for(data, 32, normalization=normalization), seed=1)
    plain = dataclasses.replace(with_rate(0.05), n_frozen=1, backbone_rate=0.5)
    model = backbone.model_config(3, dropout=0.5)
    found = check_sample(model, plain, data, SEEDS, backbone)
    assert found.first.epochs and not check_val(model, plain, data, SEEDS, backbone).is_chance
    weight, *rest = backbone.layers[0]
    dead = dataclasses.replace(backbone, layers=((0 * weight, *(t * 0 - 5 for t in rest)),))
    found = check_sample(model, plain, data, SEEDS, dead)
    assert found.first.epochs is None and (normalization == "batch" or found.dead == (1, 32, 32))
