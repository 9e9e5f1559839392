"""Weights on disk: safetensors with the network's config inside, written whole or not at all.

No pickle anywhere. Names are those of `nn.Sequential.state_dict` ("0.weight", "0.bias", "2.weight", ...).
Optimizer state is not kept: a training that was stopped is trained again from its seed, which gives the same
bits (`dlcore.training`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from dlcore.config import ModelConfig
from dlcore.ensemble import Ensemble, Part, Preprocessors, as_one
from dlcore.errors import ConfigError, ExportError
from dlcore.files import write_file
from dlcore.models import build_model
from dlcore.preprocess import Preprocessor

CONFIG_KEY = "model_config"
"""Key of the config in the header of the file."""
CONFIGS_KEY = "model_configs"
"""The same of an ensemble, whose members have one each."""


def config_to_dict(config: ModelConfig) -> dict[str, object]:
    """The config as plain data for JSON."""
    return asdict(config)


def config_from_dict(values: Mapping[str, object]) -> ModelConfig:
    """The config that `config_to_dict` was given.

    Raises:
        ConfigError: If a key is missing or unknown, or a value is not allowed.
    """
    names = [field.name for field in fields(ModelConfig)]
    values = {"normalization": "none", **values}  # a file may be older than that key
    if set(values) != set(names):
        raise ConfigError(
            f"a model config must have exactly the keys {', '.join(names)}; got {', '.join(sorted(values))}"
        )
    widths = values["widths"]
    if not isinstance(widths, (list, tuple)):
        raise ConfigError(f"widths must be a list of integers; got {widths!r}")
    try:
        return ModelConfig(**{**values, "widths": tuple(widths)})  # type: ignore[arg-type] # checks itself
    except TypeError as error:
        raise ConfigError(f"a model config must hold numbers and names: {error}") from error


def weights_to_bytes(model: nn.Module, config: ModelConfig) -> bytes:
    """The content of a weights file: every tensor of the state dict, and the config in its header."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    header = {CONFIG_KEY: json.dumps(config_to_dict(config))}
    return bytes(safetensors.torch.save(state, metadata=header))


def network_from_bytes(content: bytes, config: ModelConfig, name: str) -> nn.Sequential:
    """Build the network of `config` with the weights of a file's content.

    Args:
        content: Of a weights file.
        config: The architecture that the weights must fit.
        name: Of the file, for messages.

    Returns:
        A network from (B, F) to (B, C) on the CPU, in eval mode, in the dtype of the weights.

    Raises:
        ExportError: If the content is damaged or does not fit the config.
    """
    weights = _tensors(content, name)
    model = build_model(config, seed=0, dtype=_dtype(weights))
    _fill(model, weights, name)
    return model.eval()


def ensemble_to_bytes(ensemble: Ensemble, configs: Sequence[ModelConfig]) -> bytes:
    """The content of a weights file of an ensemble: "members.0.0.weight", ..., and the configs in its header."""
    state = {name: value.detach().cpu().contiguous() for name, value in ensemble.state_dict().items()}
    header = {CONFIGS_KEY: json.dumps([config_to_dict(config) for config in configs])}
    return bytes(safetensors.torch.save(state, metadata=header))


def ensemble_from_bytes(
    content: bytes, task: str, parts: Sequence[tuple[ModelConfig, Preprocessor, int]], name: str
) -> tuple[Ensemble, Preprocessors]:
    """Build the ensemble of these parts, each with its weight in the mean, with the weights of a file; see
    `network_from_bytes`.

    Returns:
        The ensemble, and what prepares its rows.
    """
    weights = _tensors(content, name)
    dtype = _dtype(weights)
    found = [Part(build_model(own[0], seed=0, dtype=dtype), *own) for own in parts]
    ensemble, preprocessors = as_one(task, found)
    _fill(ensemble, weights, name)
    return ensemble.eval(), preprocessors


def _tensors(content: bytes, name: str) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ExportError(f"{name} must be a whole safetensors file; {error}. Export it again") from error
    return weights


def _dtype(weights: Mapping[str, Tensor]) -> torch.dtype:
    return next(iter(weights.values())).dtype if weights else torch.float32


def _fill(model: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Give a network its weights, if they are shaped as its own."""
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    if wanted != found:
        raise ExportError(f"{name} must hold tensors shaped {wanted}; found {found}. Export it again")
    model.load_state_dict(weights)


def save_weights(path: Path, model: nn.Module, config: ModelConfig) -> None:
    """Write the weights of `model` and its config to one file; a reader sees the old one or the new one."""
    write_file(path, weights_to_bytes(model, config))


def load_model(path: Path) -> tuple[nn.Sequential, ModelConfig]:
    """The network that was saved by `save_weights`, on the CPU in eval mode, and its config.

    Raises:
        ExportError: If the file is missing, damaged, or was written by something else.
    """
    try:
        content = path.read_bytes()
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        config = config_from_dict(json.loads(header[CONFIG_KEY]))
    except OSError as error:
        raise ExportError(f"{path} must be a readable weights file; {error}") from error
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{path} must be a weights file written by dlcore; {error}") from error
    return network_from_bytes(content, config, str(path)), config
