"""The hidden layers of a trained network, for others to begin with: transfer learning and fine-tuning.

A network whose initialization is "pretrained" begins with them and with a head of its own, drawn from its seed. The
first `TrainConfig.n_frozen` of them are never updated; the others learn at `TrainConfig.backbone_rate` times the rate
of the head (discriminative rates: Howard and Ruder, ACL 2018, section 3.2). What the inputs mean is not known here: the
rows must be preprocessed as those of the trained network were.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dlcore.config import PRETRAINED, ModelConfig, TrainConfig
from dlcore.errors import ConfigError
from dlcore.naming import statistic_names, tensor_names


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """Hidden layers that are read and never written; members of a population share one."""

    widths: tuple[int, ...]
    """Units of each hidden layer; at least one layer."""
    activation: str
    """See `ModelConfig`."""
    slope: float
    """See `ModelConfig`."""
    normalization: str
    """See `ModelConfig`."""
    n_features: int
    """Inputs of the first layer."""
    layers: tuple[tuple[Tensor, ...], ...]
    """What each layer trains, on the CPU in float32, in the order and shapes of `dlcore.models.draw_tensors`: weight
    (out, in); then, all (out,), bias, and gain and shift of a normalization over layers, or shift and gain of one over
    batches."""
    statistics: tuple[tuple[Tensor, ...], ...] = ()
    """Running mean and variance of each layer, (out,) each, where it is normalized over batches."""

    def __post_init__(self) -> None:
        """Check the tensors against the shapes.

        Raises:
            ConfigError: They do not fit, or are not numbers to begin with.
        """
        if not self.widths:
            raise ConfigError("a backbone must have at least one hidden layer; got a linear model")
        model = self.model_config(n_outputs=1)
        n_vectors = len(tensor_names(model)[0]) - 1
        sizes = list(zip((model.n_features, *model.widths), model.widths, strict=False))
        wanted = [((n_out, n_in), *[(n_out,)] * n_vectors) for n_in, n_out in sizes]
        _check_shapes("layers", self.layers, wanted)
        _check_shapes("statistics", self.statistics, [((n,), (n,)) for _, n in sizes[: len(statistic_names(model))]])
        for tensor in (tensor for layer in (*self.layers, *self.statistics) for tensor in layer):
            if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
                raise ConfigError(
                    f"tensors of a backbone must be float32 on the CPU; got {tensor.dtype} on {tensor.device.type}"
                )
            if not bool(tensor.isfinite().all()):
                raise ConfigError("weights of a backbone must be finite; got some that are not: train it again")

    def model_config(self, n_outputs: int, *, dropout: float = 0.0) -> ModelConfig:
        """A network that begins with these layers."""
        return ModelConfig(
            self.n_features,
            n_outputs,
            self.widths,
            activation=self.activation,
            slope=self.slope,
            initialization=PRETRAINED,
            dropout=dropout,
            normalization=self.normalization,
        )


def backbone_of(model_config: ModelConfig, state_dict: Mapping[str, Tensor]) -> Backbone:
    """The hidden layers of a network, copied.

    Args:
        model_config: Its architecture.
        state_dict: Its weights, as `best_weights` or a safetensors file hold them, of any device and floating dtype.

    Raises:
        ConfigError: The network has no hidden layer, or these are not its weights.
    """
    hidden, statistics = tensor_names(model_config)[:-1], statistic_names(model_config)
    missing = [name for names in (*hidden, *statistics) for name in names if name not in state_dict]
    if missing:
        raise ConfigError(f"weights must have the names of the network's hidden layers; {', '.join(missing)} missing")

    def taken(names: tuple[str, ...]) -> tuple[Tensor, ...]:
        return tuple(state_dict[name].detach().to("cpu", torch.float32, copy=True).contiguous() for name in names)

    return Backbone(
        widths=model_config.widths,
        activation=model_config.activation,
        slope=model_config.slope,
        normalization=model_config.normalization,
        n_features=model_config.n_features,
        layers=tuple(map(taken, hidden)),
        statistics=tuple(map(taken, statistics)),
    )


def check_backbone(model: ModelConfig, training: TrainConfig, backbone: Backbone | None) -> None:
    """Refuse a network, or a training, that does not fit what it begins with.

    A backbone beside another initialization than "pretrained" is of no account.

    Raises:
        ConfigError: They do not fit.
    """
    if model.initialization != PRETRAINED:
        if training.n_frozen > 0 or training.backbone_rate != 1:
            raise ConfigError(
                f'n_frozen must be 0 and backbone_rate 1 unless initialization is "{PRETRAINED}"; got '
                f"n_frozen={training.n_frozen}, backbone_rate={training.backbone_rate:g}, "
                f"initialization={model.initialization!r}"
            )
        return
    if backbone is None:
        raise ConfigError(
            f'initialization "{PRETRAINED}" must come with a backbone, the hidden layers of a trained network; got none'
        )
    names = ["n_features", "widths", "activation", "normalization"]
    for name in names + ["slope"] * (model.activation == "leaky_relu"):
        wanted, found = getattr(backbone, name), getattr(model, name)
        if wanted != found:
            raise ConfigError(f"{name} must be the backbone's, {wanted!r}; got {found!r}")
    if training.n_frozen > model.depth:
        raise ConfigError(f"n_frozen must be at most {model.depth}, the hidden layers; got {training.n_frozen}")


def _check_shapes(name: str, found: tuple[tuple[Tensor, ...], ...], wanted: list[tuple[tuple[int, ...], ...]]) -> None:
    shapes = [tuple(tuple(tensor.shape) for tensor in layer) for layer in found]
    if shapes != wanted:
        raise ConfigError(f"{name} of a backbone must be shaped {wanted}; got {shapes}")
