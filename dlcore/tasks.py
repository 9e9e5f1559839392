"""What a network's outputs mean: binary, multi-class or regression.

A task turns outputs into a loss to train on, into predictions to use, and into metrics to read. Outputs have
any leading dimensions, (..., B, C); every result has one number, or one block, per leading index, so that
members of a population cannot mix. Targets are shared by all members or have the same leading dimensions.

| task       | C                 | targets in training              | loss, mean over rows                    |
|------------|-------------------|----------------------------------|-----------------------------------------|
| binary     | 1                 | (..., B), 0 or 1, floating       | cross-entropy of sigmoid(output)        |
| multiclass | number of classes | (..., B), int64                  | cross-entropy of softmax(outputs)       |
| regression | number of targets | (..., B, C), standardised        | squared error, mean over targets too    |
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dlcore.config import DEFAULT_METRIC, TASKS, metrics_of
from dlcore.errors import ConfigError
from dlcore.metrics import METRICS, widest_dtype
from dlcore.scaling import Knots
from dlcore.target_scaling import TargetTransform, inverse_pieces


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of target, with what is needed to speak of it in its own units."""

    name: str
    """One of `dlcore.config.TASKS`."""
    n_outputs: int
    """Outputs C of the network."""
    target_mean: tuple[float, ...] = ()
    """Mean of each target over the training rows, in its units; regression only."""
    target_scale: tuple[float, ...] = ()
    """Standard deviation of each target over the training rows, in its units; regression only."""
    target_transform: TargetTransform | None = None
    """What was done to the targets before they were standardised: then mean and scale are of the transformed ones."""

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if self.name not in TASKS:
            raise ConfigError(f"task must be one of {', '.join(TASKS)}; got {self.name!r}")
        n_scaled = self.n_outputs if self.name == "regression" else 0
        if not len(self.target_mean) == len(self.target_scale) == n_scaled:
            raise ConfigError(
                f"a {self.name} task with {self.n_outputs} outputs needs {n_scaled} target means and scales; "
                f"got {len(self.target_mean)} and {len(self.target_scale)}"
            )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss over rows: outputs (..., B, C), targets as in the table above -> (...,)."""
        if self.name == "regression":
            return (outputs - targets).square().mean((-2, -1))
        if self.name == "binary":
            logits = outputs.squeeze(-1)
            labels = targets.expand(logits.shape)
            return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1)
        classes = targets.expand(outputs.shape[:-1]).unsqueeze(-1)
        return -_over_classes(F.log_softmax, outputs).gather(-1, classes).squeeze(-1).mean(-1)

    def predict(self, outputs: Tensor) -> Tensor:
        """What the outputs (..., B, C) say.

        Returns:
            binary: probability of class 1, (..., B). multiclass: probabilities, (..., B, C). regression: values
            in the targets' own units, (..., B, C), in the widest floating type of the device.
        """
        if self.name == "regression":
            return self.in_own_units(outputs, is_prediction=True)
        return outputs.squeeze(-1).sigmoid() if self.name == "binary" else _over_classes(F.softmax, outputs)

    def metric(self, name: str, outputs: Tensor, targets: Tensor) -> Tensor:
        """One metric of the outputs (..., B, C) against the targets as trained on -> (...,).

        Raises:
            ConfigError: the metric is unknown, or does not fit the task.
        """
        return self.metrics((name,), outputs, targets)[name]

    def metrics(self, names: tuple[str, ...], outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Several metrics at the price of one prediction; see `metric`."""
        for name in names:
            check_metric(self.name, name)
        predictions, trained_on = self.predict(outputs), targets
        if self.name == "regression":
            targets = self.in_own_units(targets, is_prediction=False)
        elif self.name == "binary":
            predictions = torch.stack([1 - predictions, predictions], -1)
            targets = targets.to(torch.int64)
        found = {name: METRICS[name].function(predictions, targets) for name in names if name != "log_loss"}
        if "log_loss" in names:
            # From the outputs: a float32 probability has lost what a sure and wrong network is punished for.
            found["log_loss"] = self.loss(outputs, trained_on).to(widest_dtype(outputs.device))
        return found

    def in_own_units(self, values: Tensor, *, is_prediction: bool) -> Tensor:
        """Standardised values (..., B, C) -> values in the targets' units, same shape.

        In the widest type: float32 holds a year such as 2024.37 only to 0.0001.
        """
        wide = values.to(widest_dtype(values.device))
        unscaled = wide * wide.new_tensor(self.target_scale) + wide.new_tensor(self.target_mean)
        return unscaled if self.target_transform is None else _restored(unscaled, self.target_transform, is_prediction)


def _restored(transformed: Tensor, transform: TargetTransform, is_prediction: bool) -> Tensor:
    """`TargetTransform.inverse` for tensors (..., B, C); a NaN stays one."""
    new = transformed.new_tensor
    if transform.name == "log":
        restored = transformed.clamp(max=700.0 if transformed.dtype == torch.float64 else 80.0).exp()
        restored = restored - new(transform.offsets)
    else:
        restored = torch.stack(
            [_unbent(transformed[..., i], curve) for i, curve in enumerate(transform.curves)], dim=-1
        )
    return restored.clamp(new(transform.low), new(transform.high)) if is_prediction else restored


def _unbent(level: Tensor, curve: Knots) -> Tensor:
    """Levels of one target -> values in its unit, same shape."""
    levels, knots, widths = (level.new_tensor(part) for part in inverse_pieces(curve))
    left = (torch.searchsorted(levels, level.contiguous(), right=True) - 1).clamp(0, len(levels) - 1)
    return (knots[left] + (level - levels[left]) * widths[left]) * curve.unit


def _over_classes(function: Callable[[Tensor, int], Tensor], outputs: Tensor) -> Tensor:
    """A softmax over the last dimension of outputs (..., B, C), computed as they lie in memory.

    A population has its rows side by side; over 10 classes that takes a twentieth of the time on a CPU.
    """
    return function(outputs.mT, -2).mT if outputs.mT.is_contiguous() else function(outputs, -1)


def check_metric(task_name: str, metric: str) -> None:
    """Raise ConfigError unless the metric makes sense for the task."""
    if metric not in metrics_of(task_name):
        raise ConfigError(
            f"metric of a {task_name} task must be one of {', '.join(metrics_of(task_name))}; got {metric!r}"
        )


def curve_metric(task_name: str, objective: str) -> str:
    """The metric recorded for each epoch: the objective if it is a metric, else the task's default.

    Raises:
        ConfigError: the objective is a metric that does not fit the task.
    """
    if objective not in METRICS:
        return DEFAULT_METRIC[task_name]
    check_metric(task_name, objective)
    return objective
