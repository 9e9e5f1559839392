"""Hidden layers to begin with, for tests."""

import dataclasses

import torch

from dlcore.backbone import Backbone, backbone_of
from dlcore.config import ModelConfig
from dlcore.models import build_model


def random_backbone(model: ModelConfig, seed: int) -> Backbone:
    """Of a network of this shape, whatever its initialization; no tensor is as a fresh one would be."""
    drawn = build_model(dataclasses.replace(model, initialization="kaiming_normal"), seed).state_dict()
    stream = torch.Generator().manual_seed(seed)
    for tensor in drawn.values():
        if tensor.dim() == 1:
            tensor.add_(0.2 * torch.rand(tensor.shape, generator=stream))
    return backbone_of(model, drawn)


def with_zeros(backbone: Backbone) -> Backbone:
    """The same with a 0 of either sign in each tensor that is trained."""
    layers = [tuple(tensor.clone() for tensor in layer) for layer in backbone.layers]
    for tensor in (tensor for layer in layers for tensor in layer):
        tensor.view(-1)[:2] = torch.tensor([-0.0, 0.0])[: tensor.numel()]
    return dataclasses.replace(backbone, layers=tuple(layers))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Of a tensor of numbers, so that -0.0 is not 0.0 and NaN is NaN."""
    return tensor.contiguous().view({4: torch.int32, 8: torch.int64}[tensor.element_size()])
