import dataclasses
import functools
import math
import time

import pytest
import torch

from dlcore.config import DataConfig, ModelConfig, TrainConfig
from dlcore.curve import find_divergence
from dlcore.data import load_splits, to_tensors
from dlcore.errors import ConfigError
from dlcore.evaluation import evaluate
from dlcore.models import build_model, set_step
from dlcore.rows import TensorData
from dlcore.schedules import learning_rate_factors
from dlcore.seeding import batch_order
from dlcore.training import Epoch, Training, train


@functools.cache
def data_of(name: str, dtype: torch.dtype = torch.float32) -> TensorData:
    return to_tensors(load_splits(DataConfig(source=f"sklearn:{name}"), seed=0), "cpu", dtype)


def model_for(data: TensorData, *widths: int, **changes: object) -> ModelConfig:
    return ModelConfig(data.x_train.shape[1], data.task.n_outputs, widths or (16,), **changes)  # type: ignore[arg-type]


def without_times(curve: list[Epoch]) -> list[Epoch]:
    return [dataclasses.replace(epoch, finished_at=0.0) for epoch in curve]


def same_weights(a: Training, b: Training) -> bool:
    left, right = a.model.state_dict(), b.model.state_dict()
    return all(torch.equal(left[name], right[name]) for name in left)


EVERYTHING = [
    TrainConfig(epochs=9, batch_size=32, learning_rate=0.05, schedule="cosine", warmup_epochs=2),
    TrainConfig(epochs=9, batch_size=50, optimizer="adamw", learning_rate=0.01, weight_decay=0.1),
    TrainConfig(epochs=9, learning_rate=0.1, nesterov=True, schedule="one_cycle", clip_norm=0.5, objective="roc_auc"),
]


@pytest.mark.parametrize("config", EVERYTHING)
def test_training_in_pieces_is_bit_equal_to_in_one_go(config):
    data = data_of("wine")
    model = model_for(data, 12, 8, dropout=0.3)
    whole = train(model, config, data, seed=3, order_seed=4)
    pieces = Training(model, config, data, seed=3, order_seed=4)
    returned = []
    for to_epoch in (1, 1, 4, 6, 100):
        returned += pieces.advance(to_epoch)
        torch.rand(3)  # what others draw meanwhile does not matter
    assert returned == pieces.curve
    assert without_times(pieces.curve) == without_times(whole.curve)
    assert len(whole.curve) == 9
    assert same_weights(whole, pieces)
    assert pieces.best is not None and whole.best is not None
    assert pieces.best.epoch == whole.best.epoch


@pytest.mark.parametrize("config", EVERYTHING)
def test_the_same_seed_twice_is_bit_equal(config):
    data = data_of("wine")
    model = model_for(data, 12, dropout=0.3)
    one, two = (train(model, config, data, seed=3, order_seed=4) for _ in range(2))
    assert without_times(one.curve) == without_times(two.curve)
    assert same_weights(one, two)


@pytest.mark.parametrize("seeds", [(5, 4), (3, 5)])
def test_another_seed_or_order_gives_another_curve(seeds):
    data = data_of("wine")
    model, config = model_for(data), TrainConfig(epochs=2, batch_size=16)
    one = train(model, config, data, seed=3, order_seed=4)
    other = train(model, config, data, seed=seeds[0], order_seed=seeds[1])
    assert without_times(one.curve) != without_times(other.curve)


@pytest.mark.parametrize("name", ["wine", "breast_cancer", "diabetes"])
@pytest.mark.parametrize("objective", ["loss", "metric"])
def test_the_best_epochs_weights_reproduce_its_numbers_exactly(name, objective):
    data = data_of(name)
    metric = {"wine": "f1", "breast_cancer": "balanced_accuracy", "diabetes": "mae"}[name]
    config = TrainConfig(
        epochs=12, learning_rate=0.1, batch_size=20, objective="loss" if objective == "loss" else metric
    )
    model = model_for(data, 24, dropout=0.2)
    training = train(model, config, data, seed=1, order_seed=2)
    best = training.best
    assert best is not None
    assert best.epoch < 12, "else this would also hold for the last epoch's weights"
    restored = build_model(model, seed=99)
    restored.load_state_dict(training.best_weights)
    found = evaluate(restored, data.task, data.x_val, data.y_val)
    assert found["loss"] == best.val_loss
    if objective == "metric":
        assert found[metric] == best.val_metric
    assert not any(training.is_better(epoch, best) for epoch in training.curve)
    assert training.objective_value(best) == (best.val_loss if objective == "loss" else best.val_metric)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_loop_agrees_with_one_written_with_torch_optim(dropout):
    data = data_of("digits", torch.float64)
    model_config = model_for(data, 24, 12, activation="tanh", dropout=dropout)
    config = TrainConfig(
        epochs=4, batch_size=100, learning_rate=0.05, weight_decay=1e-3, schedule="cosine", clip_norm=1.0
    )
    ours = train(model_config, config, data, seed=1, order_seed=2)

    model = build_model(model_config, seed=1, dtype=torch.float64)
    weights = [p for p in model.parameters() if p.dim() > 1]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    steps = math.ceil(len(data.x_train) / 100)
    factors = learning_rate_factors("cosine", 4 * steps, 0).tolist()
    step = 0
    for epoch in range(1, 5):
        order, seen = batch_order(2, epoch, len(data.x_train)), 0.0
        for start in range(0, len(order), 100):
            rows = order[start : start + 100]
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * factors[step]
            set_step(model, step)
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(data.x_train[rows]), data.y_train[rows])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            with torch.no_grad():
                for weight in weights:  # decoupled, which torch.optim.SGD cannot
                    weight.mul_(1 - 0.05 * factors[step] * 1e-3)
            optimizer.step()
            seen += loss.item() * len(rows)
            step += 1
        with torch.no_grad():
            outputs = model.eval()(data.x_val)
        model.train()
        point = ours.curve[epoch - 1]
        assert point.train_loss == pytest.approx(seen / len(order), rel=1e-10)
        expected = torch.nn.functional.cross_entropy(outputs, data.y_val).item()
        assert point.val_loss == pytest.approx(expected, rel=1e-10)
        assert point.val_metric == (outputs.argmax(1) == data.y_val).double().mean().item()
        assert point.learning_rate == pytest.approx(0.05 * factors[step - 1], rel=1e-15)


@pytest.mark.parametrize("batch_size", [1, 7, 106, 107, 5000])
def test_the_training_loss_is_the_mean_over_rows_with_a_smaller_last_batch_kept(batch_size):
    data = data_of("wine", torch.float64)
    config = TrainConfig(epochs=1, batch_size=batch_size, learning_rate=0.0)
    training = train(model_for(data), config, data, seed=1, order_seed=2)
    expected = evaluate(training.model, data.task, data.x_train, data.y_train)["loss"]
    assert training.curve[0].train_loss == pytest.approx(expected, rel=1e-12)


def test_training_stops_after_patience_epochs_without_a_better_one():
    data = data_of("wine")
    config = TrainConfig(epochs=20, learning_rate=0.0, patience=4, objective="accuracy")
    training = train(model_for(data), config, data, seed=1, order_seed=2)
    # Nothing moves at rate 0: the first epoch is the best, ties go to the earlier one.
    assert training.best is not None and training.best.epoch == 1
    assert [epoch.epoch for epoch in training.curve] == [1, 2, 3, 4, 5]
    assert training.stopped_early and training.is_finished
    assert training.advance(20) == []


def test_patience_that_ends_with_the_last_epoch_is_no_early_stop():
    data = data_of("wine")
    config = TrainConfig(epochs=5, learning_rate=0.0, patience=4)
    training = train(model_for(data), config, data, seed=1, order_seed=2)
    assert training.is_finished and not training.stopped_early


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_divergence_is_marked_with_its_epoch_and_reason(dtype):
    data = data_of("diabetes", dtype)
    # A linear model: nothing saturates, so a step too wide grows without end.
    config = TrainConfig(epochs=50, learning_rate=0.3, momentum=0.0, batch_size=32)
    training = train(ModelConfig(10, 1, ()), config, data, seed=1, order_seed=2)
    assert training.divergence is not None
    assert training.is_finished and not training.stopped_early
    assert 1 < training.divergence.epoch == len(training.curve) + 1 < 50
    assert f"epoch {training.divergence.epoch} is above" in training.divergence.reason
    assert training.advance(50) == []


def test_a_nan_in_the_middle_of_an_epoch_is_seen():
    data = data_of("wine")
    x = data.x_train.clone()
    x[batch_order(2, 1, len(x))[40]] = math.nan
    training = train(
        model_for(data),
        TrainConfig(epochs=3, batch_size=16),
        dataclasses.replace(data, x_train=x),
        seed=1,
        order_seed=2,
    )
    assert training.divergence == find_divergence(1, 1.0, math.nan, math.nan)
    assert training.curve == []
    assert training.best is None and training.best_weights == {}


def test_val_numbers_that_are_not_finite_never_become_the_best():
    data = data_of("wine")
    broken = dataclasses.replace(data, x_val=torch.full_like(data.x_val, math.nan))
    training = train(model_for(data), TrainConfig(epochs=9, patience=3), broken, seed=1, order_seed=2)
    assert training.divergence is None
    assert training.best is None
    assert len(training.curve) == 3, "patience counts from the start"
    assert all(math.isnan(epoch.val_loss) for epoch in training.curve)


def test_digits_are_learned():
    data = data_of("digits")
    config = TrainConfig(epochs=20, learning_rate=0.1, objective="accuracy")
    started = time.monotonic()
    training = train(model_for(data, 64, 64), config, data, seed=1, order_seed=2)
    elapsed = time.monotonic() - started
    assert training.best is not None and training.best.val_metric > 0.95
    assert 0 < training.train_s <= elapsed


def test_a_binary_task_is_learned():
    data = data_of("breast_cancer")
    config = TrainConfig(epochs=15, learning_rate=0.05, objective="roc_auc")
    training = train(model_for(data, 16), config, data, seed=1, order_seed=2)
    assert training.best is not None and training.best.val_metric > 0.97


def test_a_regression_is_learned():
    data = data_of("diabetes")
    config = TrainConfig(epochs=30, batch_size=32, learning_rate=0.01, objective="r2")
    training = train(model_for(data, 16), config, data, seed=1, order_seed=2)
    assert training.best is not None and training.best.val_metric > 0.35


def test_epochs_are_numbered_and_timed():
    data = data_of("wine")
    before = time.time()
    training = train(model_for(data), TrainConfig(epochs=3), data, seed=1, order_seed=2)
    times = [epoch.finished_at for epoch in training.curve]
    assert [epoch.epoch for epoch in training.curve] == [1, 2, 3]
    assert before <= times[0] <= times[1] <= times[2] <= time.time()


def test_a_network_that_does_not_fit_the_data_is_refused():
    data = data_of("wine")
    with pytest.raises(ConfigError, match="must take 13 features and give 3 outputs"):
        Training(ModelConfig(13, 2, (4,)), TrainConfig(epochs=1), data, seed=1, order_seed=2)


def test_an_objective_of_another_task_is_refused():
    data = data_of("wine")
    with pytest.raises(ConfigError, match="rmse"):
        Training(model_for(data), TrainConfig(epochs=1, objective="rmse"), data, seed=1, order_seed=2)
