"""Whether a network can learn at all: a few rows by heart first, then something that holds on rows it has not seen.

The first of the course's rules: a network that cannot overfit a small sample has a fault, and no search will mend it.
What the fault is, is found by changing one thing at a time. Everything is trained by the reference loop, without any
cure for overfitting.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor, nn

from dlcore.backbone import Backbone
from dlcore.config import PRETRAINED, ModelConfig, TrainConfig
from dlcore.device import one_thread
from dlcore.models import build_model
from dlcore.rows import TensorData
from dlcore.seeding import generator
from dlcore.tasks import Task
from dlcore.training import Training

SAMPLE = 32
EPOCHS = 1_000
"""Steps that a sample may take."""
LEARNT = 0.05
"""Of guessing's loss: a sample whose loss is lower is known by heart."""
_FLAT = 1e-6
"""Of guessing's loss: with less, there is nothing to learn but a constant."""
_PIECE = 20
_DEAD = 0.99
"""Of a layer's units: with so many dead ones hardly a gradient passes."""
_WIDE = (256, 256)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One network on the sample."""

    learning_rate: float
    epochs: int | None
    """After which it knew the sample by heart; None where it never did."""
    loss: float
    """On the sample, in the end; not finite where it diverged."""
    is_diverged: bool = False


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a sample showed."""

    n_rows: int
    guessing: float
    """Loss on the sample of one who knows how often each target is, and nothing of the rows."""
    first: Attempt
    """At the learning rate asked for."""
    other: Attempt | None = None
    """At another rate that learns, where the first does not."""
    dead: tuple[int, int, int] | None = None
    """A hidden layer, from 1, that is dead before training: its number, its dead units, all its units."""
    is_too_small: bool = False
    """Whether a wider network learns what this one does not."""

    @property
    def is_known(self) -> bool:
        """Whether the targets are so alike that guessing knows them by heart: nothing was trained."""
        return self.guessing < _FLAT


@dataclass(frozen=True, slots=True)
class Held:
    """What a training on all of train showed."""

    n_rows: int
    """Of val."""
    val_loss: float
    """At the best epoch."""
    guessing: float
    """Loss on val of one who knows train's targets, and nothing of the rows."""
    lead: float
    """Guessing's loss less the network's, the mean over val's rows."""
    error: float
    """Standard error of that mean."""

    @property
    def is_chance(self) -> bool:
        """Whether the lead is what chance alone gives."""
        return not self.lead > 2 * self.error


def sample_of(data: TensorData, seed: int, n: int = SAMPLE) -> TensorData:
    """Some rows of train, as train and val alike; of targets each value as often as another, while rows last."""
    order = torch.randperm(len(data.x_train), generator=generator(seed, "sample")).tolist()
    targets = [tuple(target) for target in data.y_train.reshape(len(order), -1).tolist()]
    alike: dict[tuple[float, ...], list[int]] = {}
    for row in order:
        alike.setdefault(targets[row], []).append(row)
    deals = (rows[i] for i in range(n) for rows in alike.values() if i < len(rows))
    rows = torch.tensor(list(islice(deals, n)), device=data.x_train.device)
    x, y = data.x_train[rows], data.y_train[rows]
    return TensorData(data.task, x, y, x, y)


def check_sample(
    model: ModelConfig,
    training: TrainConfig,
    data: TensorData,
    seeds: tuple[int, int],
    backbone: Backbone | None = None,
) -> Sampled:
    """Let a network learn a sample by heart; where it does not, find out why.

    Args:
        model: Its architecture; dropout and normalization are left out (normalization stays where it is pretrained:
            without it, its layers would mean something else).
        training: How it is trained; all cures are left out, and no layer is frozen.
        data: Preprocessed rows.
        seeds: Of the network and the sample, and of the order of rows.
        backbone: What it begins with, where it is pretrained.
    """
    with one_thread():
        return _check_sample(model, training, sample_of(data, seeds[0]), seeds, backbone)


def _check_sample(
    model: ModelConfig, training: TrainConfig, sample: TensorData, seeds: tuple[int, int], backbone: Backbone | None
) -> Sampled:
    plain, network = _plain(training, len(sample.x_train)), _uncured(model)
    guessing = float(_row_losses(sample.task, _guess(sample, sample.y_train), sample.y_train).mean())
    if guessing < _FLAT:
        return Sampled(len(sample.x_train), guessing, Attempt(plain.learning_rate, 0, guessing))
    first = _attempt(network, plain, sample, seeds, guessing, backbone)
    found = Sampled(len(sample.x_train), guessing, first)
    if first.epochs is not None:
        return found
    x = sample.x_train
    untrained = build_model(network, seeds[0], device=x.device, dtype=x.dtype, backbone=backbone)
    if (dead := dead_layer(untrained, x)) is not None:
        return replace(found, dead=dead)
    for rate in _other_rates(training):
        other = _attempt(network, replace(plain, learning_rate=rate), sample, seeds, guessing, backbone)
        if other.epochs is not None:
            return replace(found, other=other)
    usual = replace(plain, learning_rate=_usual_rate(training), backbone_rate=1.0)
    wide = _attempt(
        ModelConfig(model.n_features, model.n_outputs, _WIDE),
        usual,
        sample,
        seeds,
        guessing,
    )
    return replace(found, is_too_small=wide.epochs is not None)


def check_val(
    model: ModelConfig,
    training: TrainConfig,
    data: TensorData,
    seeds: tuple[int, int],
    backbone: Backbone | None = None,
) -> Held:
    """Train a network on all of train, and hold it against guessing on val, row by row.

    Args:
        model: As for `check_sample`.
        training: Likewise; its epochs and batches are kept.
        data: Preprocessed rows.
        seeds: Likewise.
        backbone: Likewise.
    """
    own = replace(_plain(training, training.batch_size), epochs=training.epochs)
    trained = Training(_uncured(model), own, data, seed=seeds[0], order_seed=seeds[1], backbone=backbone)
    trained.advance(own.epochs)
    guess = _row_losses(data.task, _guess(data, data.y_val), data.y_val)
    if trained.best is None:
        return Held(len(guess), math.nan, float(guess.mean()), math.nan, math.nan)
    trained.model.load_state_dict(trained.best_weights)
    with torch.no_grad():
        network = _row_losses(data.task, trained.model.eval()(data.x_val), data.y_val)
    leads = (guess - network).double()
    error = float(leads.std()) / math.sqrt(len(leads)) if len(leads) > 1 else math.inf
    return Held(len(guess), float(network.mean()), float(guess.mean()), float(leads.mean()), error)


def dead_layer(model: nn.Module, x: Tensor) -> tuple[int, int, int] | None:
    """The first hidden layer of ReLUs of which nearly all answer 0 to every row: its number from 1, dead units, units.

    Args:
        model: A sequence of layers.
        x: Rows (B, F).
    """
    number = 0
    with torch.no_grad():
        for layer in model.children():
            x = layer(x)
            if isinstance(layer, nn.Linear):
                number += 1
            if isinstance(layer, nn.ReLU):
                n_dead = int((x == 0).all(0).sum())
                if n_dead >= _DEAD * x.shape[1]:
                    return number, n_dead, x.shape[1]
    return None


def _uncured(model: ModelConfig) -> ModelConfig:
    return replace(
        model, dropout=0.0, normalization=model.normalization if model.initialization == PRETRAINED else "none"
    )


def _plain(training: TrainConfig, batch_size: int) -> TrainConfig:
    """The training without cures, on whole batches, at one rate."""
    return replace(
        training,
        epochs=EPOCHS,
        batch_size=batch_size,
        schedule="constant",
        warmup_epochs=0,
        weight_decay=0.0,
        patience=None,
        objective="loss",
        noise=0.0,
        mixup=0.0,
        label_smoothing=0.0,
        class_weights="none",
        n_frozen=0,
    )


def _attempt(
    model: ModelConfig,
    training: TrainConfig,
    sample: TensorData,
    seeds: tuple[int, int],
    guessing: float,
    backbone: Backbone | None = None,
) -> Attempt:
    own = Training(model, training, sample, seed=seeds[0], order_seed=seeds[1], backbone=backbone)
    rate = training.learning_rate
    while not own.is_finished:
        for epoch in own.advance(own.epoch + _PIECE):
            if epoch.train_loss <= LEARNT * guessing:
                return Attempt(rate, epoch.epoch, epoch.train_loss)
    loss = own.curve[-1].train_loss if own.curve and own.divergence is None else math.nan
    return Attempt(rate, None, loss, own.divergence is not None)


def _other_rates(training: TrainConfig) -> Sequence[float]:
    """Rates to try in place of one that does not learn: what is usual, then the rest, the nearest to that first."""
    usual = _usual_rate(training)
    found = [usual * 10.0 ** (k / 2) for k in (0, 1, -1, 2, -2, 3, -3, -4, -5, -6)]
    return [rate for rate in found if not 0.5 < training.learning_rate / rate < 2]


def _usual_rate(training: TrainConfig) -> float:
    return 0.002 if training.optimizer == "adamw" else 0.05


def _guess(data: TensorData, like: Tensor) -> Tensor:
    """Outputs (N, C) of one who knows how often each target of train is, for as many rows as `like` has."""
    y, task = data.y_train, data.task
    if task.name == "regression":
        return y.mean(0, keepdim=True).expand(len(like), -1)
    if task.name == "binary":
        share = (y.sum() + 0.5) / (len(y) + 1)
        return torch.logit(share).reshape(1, 1).expand(len(like), 1).to(data.x_train.dtype)
    counts = torch.bincount(y, minlength=task.n_outputs).to(data.x_train.dtype) + 0.5
    return (counts / counts.sum()).log().expand(len(like), -1)


def _row_losses(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of each row, (N,)."""
    return task.loss(outputs.unsqueeze(1), targets.unsqueeze(1))
