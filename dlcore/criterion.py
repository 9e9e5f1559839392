"""The loss that a network is trained on: the task's own, with rare classes weighted and labels smoothed. What is
measured on val is the task's loss without any of this, so that networks with it and without can be compared.

Class weights: "balanced" weighs each class by w_c = n / (K n_c), where n_c of the n training rows are of class c and K
classes have any: together each class counts as much as every other (scikit-learn's `compute_class_weight`; G. King and
L. Zeng, Logistic Regression in Rare Events Data, Political Analysis 9, 2001). The loss of a batch is the weighted mean

    sum_i w_(y_i) l_i / sum_i w_(y_i)

over its rows, as in `torch.nn.CrossEntropyLoss`.

Label smoothing: a row's target is 1 - s + s / K for its class and s / K for each other one, which keeps a network from
being ever surer (Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, section 7). With class weights each
term of a row's loss is weighted by its class, as in `torch.nn.CrossEntropyLoss`:

    l_i = -(1 - s) w_(y_i) log p_(y_i) - s / K sum_k w_k log p_k;  sum_i l_i / sum_i w_(y_i)

A binary task is one of two classes, with outputs 0 and z. Where rows are mixed (`dlcore.augmentation`), so are the
losses against both targets, or in a regression the targets.

`Criterion` says so for one network, `Weighing` holds the same for the members of a stack.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dlcore.config import TrainConfig
from dlcore.errors import ConfigError
from dlcore.tasks import Task


def check_criterion(task: Task, config: TrainConfig) -> None:
    """Refuse what has no meaning for a task.

    Raises:
        ConfigError: Something of classes is asked for in a regression.
    """
    if task.name != "regression":
        return
    for name, idle in (("class_weights", "none"), ("label_smoothing", 0.0)):
        value = getattr(config, name)
        if value != idle:
            raise ConfigError(f"{name} must be {idle} in a regression, which has no classes; got {value!r}")


def class_weights(task: Task, y: Tensor) -> Tensor:
    """Weights of the classes, (K,), in the widest type; 0 for a class that no row has.

    Args:
        task: Of classes.
        y: Classes of the training rows (N,).
    """
    counts = torch.bincount(y.cpu().to(torch.int64), minlength=n_classes(task)).to(torch.float64)
    is_there = counts > 0
    return torch.where(is_there, len(y) / (int(is_there.sum()) * counts), 0.0)


def n_classes(task: Task) -> int:
    """Number of classes K."""
    return max(task.n_outputs, 2)


@dataclass(frozen=True, slots=True)
class Mix:
    """How the rows of a batch, or of the batches of P members, are mixed."""

    share: Tensor
    """How much of each row stays, () or (P, 1, 1)."""
    partners: Tensor
    """Which row of the batch the rest is taken from, (B,) or (P, B), int64."""

    def of(self, values: Tensor) -> Tensor:
        """Mixed values of the rows, (B, ...) or (P, B, ...)."""
        if self.partners.dim() == 1:
            others = values[self.partners]
        else:
            others = values.gather(1, self.partners.unsqueeze(-1).expand_as(values))
        return self.share * values + (1 - self.share) * others


class Criterion:
    """The training loss of one network."""

    def __init__(self, task: Task, config: TrainConfig, y_train: Tensor, dtype: torch.dtype) -> None:
        """Look at the training rows.

        Args:
            task: What outputs mean.
            config: Of the training.
            y_train: Targets of all training rows.
            dtype: Of the outputs.

        Raises:
            ConfigError: Something of classes is asked for in a regression.
        """
        check_criterion(task, config)
        self._task = task
        self._smoothing = config.label_smoothing
        self._is_plain = config.class_weights == "none" and config.label_smoothing == 0
        self._weights: Tensor | None = None
        if config.class_weights == "balanced":
            self._weights = class_weights(task, y_train).to(dtype).to(y_train.device)

    def __call__(self, outputs: Tensor, targets: Tensor, mix: Mix | None = None) -> Tensor:
        """The loss () of outputs (B, C) against the targets of their rows, which may have been mixed."""
        if mix is None:
            return self._loss(outputs, targets)
        if self._task.name == "regression":
            return self._loss(outputs, mix.of(targets))
        others = self._loss(outputs, targets[mix.partners])
        return mix.share * self._loss(outputs, targets) + (1 - mix.share) * others

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self._is_plain:
            return self._task.loss(outputs, targets)
        if self._task.name == "binary":
            outputs = torch.cat([torch.zeros_like(outputs), outputs], 1)
        return F.cross_entropy(outputs, targets.to(torch.int64), self._weights, label_smoothing=self._smoothing)


@dataclass(frozen=True, slots=True)
class Weighing:
    """How much each class counts in the training losses of a stack."""

    weights: Tensor
    """Of rows of each class, (P, K); 1 for members without."""
    smoothing: Tensor
    """Label smoothing, (P, 1)."""


def is_weighed(config: TrainConfig) -> bool:
    """Whether a training loss of classes is another than the task's own."""
    return config.class_weights != "none" or config.label_smoothing > 0 or config.mixup > 0


def weighing_of(task: Task, configs: Sequence[TrainConfig], y_train: Sequence[Tensor], like: Tensor) -> Weighing:
    """The weighing of a stack.

    Args:
        task: What outputs mean.
        configs: Of each member.
        y_train: Targets of each member's training rows.
        like: A tensor of the device and dtype wanted.
    """
    known: dict[int, Tensor] = {}  # members mostly share one tensor
    rows = []
    for config, y in zip(configs, y_train, strict=True):
        if config.class_weights == "balanced":
            rows.append(known.setdefault(id(y), class_weights(task, y)))
        else:
            rows.append(torch.ones(n_classes(task), dtype=torch.float64))
    smoothing = torch.tensor([[config.label_smoothing] for config in configs], dtype=torch.float64)
    return Weighing(*(part.to(like.dtype).to(like.device) for part in (torch.stack(rows), smoothing)))
