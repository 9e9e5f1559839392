"""Train ONE network: the readable reference loop.

`dlcore.population` does the same for many at once and is tested against this file. Plain autograd, no tricks;
rows stay on the device, batches are indexed out of them, and the device is waited for once per epoch.

Not covered on purpose: callbacks, gradient accumulation, data loaders.
"""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlcore.augmentation import Augmentation
from dlcore.backbone import Backbone, check_backbone
from dlcore.config import ModelConfig, TrainConfig
from dlcore.criterion import Criterion
from dlcore.curve import Divergence, Epoch, find_divergence, is_better, is_out_of_patience, objective_value
from dlcore.errors import ConfigError
from dlcore.evaluation import forward_rows
from dlcore.models import build_model, set_step
from dlcore.naming import tensor_names
from dlcore.optim import Optimizer
from dlcore.precision import check_precision, forward_rounded, products_in
from dlcore.rows import TensorData
from dlcore.schedules import learning_rate_factors
from dlcore.seeding import batch_order
from dlcore.tasks import curve_metric

__all__ = ["Divergence", "Epoch", "Training", "train"]


class Training:
    """One network under training: go on with `advance`, read the attributes in between.

    Its curve depends on the two configs, the data and the two seeds alone; advancing in pieces gives the
    same bits as in one go (on the same machine, versions and thread count). An exception inside `advance`
    (Ctrl-C) leaves it in the middle of an epoch: throw it away.
    """

    def __init__(
        self,
        model_config: ModelConfig,
        train_config: TrainConfig,
        data: TensorData,
        *,
        seed: int,
        order_seed: int,
        backbone: Backbone | None = None,
    ) -> None:
        """Build the network; nothing is trained yet.

        Args:
            model_config: Its architecture.
            train_config: How it is trained, and which epoch is the best.
            data: Preprocessed rows; the network lives on their device, in their dtype.
            seed: The trial's seed: initial weights, dropout and augmentation.
            order_seed: The study's seed for the order of the rows, which all its trials share.
            backbone: The hidden layers that it begins with, where its initialization is "pretrained".

        Raises:
            ConfigError: If the network does not fit the data or the backbone, or the objective or the loss does not fit
                the task.
            DeviceError: If the device of the data cannot train in the precision asked for.
        """
        _check_fit(model_config, data)
        check_backbone(model_config, train_config, backbone)
        device, dtype = data.x_train.device, data.x_train.dtype
        check_precision(train_config.precision, device)
        self.model_config = model_config
        self.train_config = train_config
        self.data = data
        self.order_seed = order_seed
        self.model = build_model(model_config, seed, device=device, dtype=dtype, backbone=backbone)
        self.curve: list[Epoch] = []
        self.best: Epoch | None = None
        self.best_weights: dict[str, Tensor] = {}
        """State dict of the best epoch; empty while there is none."""
        self.divergence: Divergence | None = None
        self.stopped_early = False
        self.train_s = 0.0
        """Seconds spent in `advance`."""

        self._metric = curve_metric(data.task.name, train_config.objective)
        self._criterion = Criterion(data.task, train_config, data.y_train, dtype)
        self._parameters, rates = _to_update(self.model, model_config, train_config)
        self._optimizer = Optimizer(self._parameters, train_config, rates)
        steps = math.ceil(len(data.x_train) / train_config.batch_size)
        self._factors: list[float] = learning_rate_factors(
            train_config.schedule, train_config.epochs * steps, train_config.warmup_epochs * steps
        ).tolist()
        self._augmentation = Augmentation(train_config, seed, steps, data.x_train)
        self._step = 0
        self._first_loss = math.nan

    @property
    def epoch(self) -> int:
        """Epochs trained so far, without one that diverged."""
        return len(self.curve)

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to train: all epochs done, stopped early, or diverged."""
        return self.epoch == self.train_config.epochs or self.stopped_early or self.divergence is not None

    def objective_value(self, epoch: Epoch) -> float:
        """The objective at an epoch."""
        return objective_value(epoch, self.train_config.objective)

    def is_better(self, left: Epoch, right: Epoch | None) -> bool:
        """Whether `left` beats `right` strictly by this training's objective; see `dlcore.curve.is_better`."""
        return is_better(left, right, self.train_config.objective)

    def advance(self, to_epoch: int) -> list[Epoch]:
        """Train on, to the end of `to_epoch` at most; returns the new points of the curve.

        The schedule spans all epochs of the config, wherever the pieces are cut.
        """
        before = self.epoch
        started = time.monotonic()
        while not self.is_finished and self.epoch < to_epoch:
            self._advance_one()
        self.train_s += time.monotonic() - started
        return self.curve[before:]

    def _advance_one(self) -> None:
        """Train one epoch, measure it on val, and judge it."""
        number = self.epoch + 1
        with products_in(self.train_config.precision):
            losses = self._train_epoch(number)
        numbers = self._measure(losses)
        if math.isnan(self._first_loss):
            self._first_loss = numbers.first_loss
        self.divergence = find_divergence(number, self._first_loss, numbers.train_loss, numbers.highest_loss)
        if self.divergence is not None:
            return
        point = Epoch(
            epoch=number,
            train_loss=numbers.train_loss,
            val_loss=numbers.val_loss,
            val_metric=numbers.val_metric,
            learning_rate=self._learning_rate(self._step - 1),
            finished_at=time.time(),
        )
        self.curve.append(point)
        if self.is_better(point, self.best):
            self.best = point
            self.best_weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        best_epoch = self.best.epoch if self.best else 0
        is_last = number == self.train_config.epochs
        self.stopped_early = not is_last and is_out_of_patience(number, best_epoch, self.train_config.patience)

    def _train_epoch(self, epoch: int) -> list[Tensor]:
        """One pass over train; returns the training loss () of each step, still on the device."""
        data, losses = self.data, []
        order = batch_order(self.order_seed, epoch, len(data.x_train)).to(data.x_train.device)
        for rows in torch.split(order, self.train_config.batch_size):
            losses.append(self.step(rows, self._learning_rate(self._step)))
        return losses

    def step(self, rows: Tensor, learning_rate: float) -> Tensor:
        """Update the weights once; returns the training loss () before that, still on the device.

        Args:
            rows: Numbers of the batch's rows of train, (B,), on the device.
            learning_rate: Of this step.
        """
        data = self.data
        set_step(self.model, self._step)
        mix = self._augmentation.mix(self._step, len(rows))
        x = self._augmentation.rows(data.x_train[rows], self._step, mix)
        loss = self._criterion(self._outputs(x), data.y_train[rows], mix)
        gradients = torch.autograd.grad(loss, self._parameters)
        self._optimizer.step(gradients, learning_rate)
        self._step += 1
        return loss.detach()

    def _outputs(self, x: Tensor) -> Tensor:
        """Outputs (B, C) for a batch (B, F), to be differentiated."""
        return forward_rounded(self.model, x) if self.train_config.precision == "bf16" else self.model(x)

    def _learning_rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over the whole training."""
        return self.train_config.learning_rate * self._factors[step]

    def _measure(self, losses: list[Tensor]) -> "_Numbers":
        """Evaluate on val and fetch all numbers of the epoch: the one place that waits for the device."""
        data = self.data
        outputs = forward_rows(self.model, data.x_val)
        val_loss = data.task.loss(outputs, data.y_val)
        val_metric = data.task.metric(self._metric, outputs, data.y_val)
        *of_steps, loss, metric = torch.stack([*losses, val_loss, val_metric]).tolist()
        # Each step counts by its rows: the last batch may be smaller.
        n_rows, size = len(data.x_train), self.train_config.batch_size
        rows = [min(size, n_rows - start) for start in range(0, n_rows, size)]
        return _Numbers(
            train_loss=sum(n * value for n, value in zip(rows, of_steps, strict=True)) / n_rows,
            first_loss=of_steps[0],
            # max() would skip a NaN that is not the first.
            highest_loss=math.nan if any(map(math.isnan, of_steps)) else max(of_steps),
            val_loss=loss,
            val_metric=metric,
        )


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What one epoch left on the device, as Python floats."""

    train_loss: float
    first_loss: float
    highest_loss: float
    val_loss: float
    val_metric: float


def train(
    model_config: ModelConfig,
    train_config: TrainConfig,
    data: TensorData,
    *,
    seed: int,
    order_seed: int,
    backbone: Backbone | None = None,
) -> Training:
    """Train one network to the end; see `Training` for the arguments."""
    training = Training(model_config, train_config, data, seed=seed, order_seed=order_seed, backbone=backbone)
    training.advance(train_config.epochs)
    return training


def _to_update(
    model: nn.Module, model_config: ModelConfig, train_config: TrainConfig
) -> tuple[list[Tensor], list[float]]:
    """The parameters that are updated, and the learning rate of each, divided by that of the head.

    The others are frozen: they have no gradient, no update, and no part in the norm of gradients.
    """
    layers = {name: layer for layer, names in enumerate(tensor_names(model_config)) for name in names}
    found: dict[Tensor, float] = {}
    for name, parameter in model.named_parameters():
        if layers[name] < train_config.n_frozen:
            parameter.requires_grad_(False)
        else:
            found[parameter] = 1.0 if layers[name] == model_config.depth else train_config.backbone_rate
    return list(found), list(found.values())


def _check_fit(model_config: ModelConfig, data: TensorData) -> None:
    """Refuse a network whose ends do not fit the rows and the task."""
    wanted = (data.x_train.shape[1], data.task.n_outputs)
    found = (model_config.n_features, model_config.n_outputs)
    if wanted != found:
        raise ConfigError(
            f"the network must take {wanted[0]} features and give {wanted[1]} outputs, as the data do; "
            f"got n_features={found[0]}, n_outputs={found[1]}"
        )
