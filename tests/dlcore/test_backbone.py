import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch

from dlcore.backbone import Backbone, backbone_of, check_backbone
from dlcore.config import NORMALIZATIONS, ModelConfig, TrainConfig
from dlcore.errors import ConfigError
from dlcore.models import build_model, draw_tensors
from dlcore.packing import Member
from tests.dlcore.backbones import random_backbone

SHAPE = ModelConfig(4, 3, (6, 5), activation="leaky_relu", slope=0.2)
TRAINING = TrainConfig(2)


def backbone_for(**changes: Any) -> Backbone:
    return random_backbone(replace(SHAPE, **changes), seed=1)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_network_begins_with_its_hidden_layers_and_a_head_of_its_own(
    normalization: str, dtype: torch.dtype, dropout: float
) -> None:
    source = replace(SHAPE, normalization=normalization, n_outputs=10)
    backbone = random_backbone(source, seed=1)
    model = backbone.model_config(3, dropout=dropout)
    assert model == replace(source, n_outputs=3, dropout=dropout, initialization="pretrained")
    network = build_model(model, 7, dtype=dtype, backbone=backbone)
    assert network.eval()(torch.zeros(2, 4, dtype=dtype)).shape == (2, 3)
    again = backbone_of(model, network.state_dict())
    for left, right in zip((*again.layers, *again.statistics), (*backbone.layers, *backbone.statistics), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
    fresh = build_model(replace(model, initialization="default"), 7, dtype=dtype)
    assert torch.equal(network[-1].weight, fresh[-1].weight) and torch.equal(network[-1].bias, fresh[-1].bias)
    assert not torch.equal(network[0].weight, fresh[0].weight)


def test_a_network_is_a_copy_of_what_it_begins_with_and_a_member_is_none() -> None:
    backbone = backbone_for()
    own = [tensor for layer in backbone.layers for tensor in layer]
    before = [tensor.clone() for tensor in own]
    network = build_model(backbone.model_config(3), 7, backbone=backbone)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, own, strict=True))
    drawn = [tensor for layer in draw_tensors(backbone.model_config(3), 7, backbone)[:-1] for tensor in layer]
    assert all(a is b for a, b in zip(drawn, own, strict=True))


def test_weights_of_a_file_need_no_backbone() -> None:
    backbone = backbone_for(normalization="batch")
    network = build_model(backbone.model_config(3), 7, backbone=backbone)
    loaded = build_model(backbone.model_config(3), 0)
    loaded.load_state_dict(network.state_dict())
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.eval()(x), network.eval()(x))


def test_members_that_share_one_share_it_behind_a_pipe_too() -> None:
    backbone = backbone_for()
    members = [Member(backbone.model_config(3), TRAINING, seed=i, backbone=backbone) for i in range(20)]
    one, all_of_them = (pickle.dumps(some) for some in (members[:1], members))
    size = 4 * sum(tensor.numel() for layer in backbone.layers for tensor in layer)
    assert size < len(one) and len(all_of_them) - len(one) < 19 * size
    received = pickle.loads(all_of_them)
    assert len({id(member.backbone) for member in received}) == 1
    assert torch.equal(received[0].backbone.layers[1][0], backbone.layers[1][0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": ()}, "at least one hidden layer"),
        ({"widths": (6,)}, "layers of a backbone must be shaped"),
        ({"n_features": 5}, "layers of a backbone must be shaped"),
        ({"normalization": "layer"}, "layers of a backbone must be shaped"),
        ({"statistics": ((torch.zeros(6), torch.ones(6)),)}, "statistics of a backbone must be shaped"),
        ({"activation": "swish"}, "activation must be one of"),
        ({"layers": backbone_for().layers[::-1]}, "layers of a backbone must be shaped"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(backbone_for(), **changes)


def test_tensors_that_are_no_numbers_to_begin_with_are_refused() -> None:
    backbone = backbone_for()
    first, *rest = backbone.layers
    for wrong, message in ((first[0].double(), "float32 on the CPU"), (first[0] / 0, "must be finite")):
        with pytest.raises(ConfigError, match=message):
            replace(backbone, layers=((wrong, *first[1:]), *rest))


def test_weights_of_another_network_are_refused_by_name() -> None:
    weights = build_model(SHAPE, 0).state_dict()
    with pytest.raises(ConfigError, match=r"1\.weight, 1\.bias, 3\.weight"):
        backbone_of(replace(SHAPE, normalization="layer"), weights)
    with pytest.raises(ConfigError, match="at least one hidden layer"):
        backbone_of(replace(SHAPE, widths=()), weights)


@pytest.mark.parametrize(
    ("of_model", "of_training", "message"),
    [
        ({"n_features": 5}, {}, "n_features must be the backbone's, 4; got 5"),
        ({"widths": (6, 6)}, {}, r"widths must be the backbone's, \(6, 5\); got \(6, 6\)"),
        ({"activation": "relu"}, {}, "activation must be the backbone's, 'leaky_relu'; got 'relu'"),
        ({"slope": 0.1}, {}, "slope must be the backbone's, 0.2; got 0.1"),
        ({"normalization": "batch"}, {}, "normalization must be the backbone's, 'none'"),
        ({}, {"n_frozen": 3}, "n_frozen must be at most 2, the hidden layers; got 3"),
        ({"initialization": "normal"}, {"n_frozen": 1}, 'n_frozen must be 0 .* unless initialization is "pretrained"'),
        ({"initialization": "normal"}, {"backbone_rate": 0.1}, "backbone_rate=0.1, initialization='normal'"),
    ],
)
def test_what_does_not_fit_its_backbone_is_no_member(
    of_model: dict[str, Any], of_training: dict[str, Any], message: str
) -> None:
    backbone = backbone_for()
    model, training = replace(backbone.model_config(3), **of_model), replace(TRAINING, **of_training)
    with pytest.raises(ConfigError, match=message):
        check_backbone(model, training, backbone)
    with pytest.raises(ConfigError, match=message):
        Member(model, training, seed=0, backbone=backbone)


def test_a_slope_that_nothing_uses_is_not_asked_for_and_pretrained_needs_a_backbone() -> None:
    backbone = backbone_for(activation="relu")
    Member(replace(backbone.model_config(3), slope=0.5), replace(TRAINING, n_frozen=2), seed=0, backbone=backbone)
    Member(replace(SHAPE, widths=(9,)), TRAINING, seed=0, backbone=backbone)  # of no account where weights are drawn
    with pytest.raises(ConfigError, match="must come with a backbone"):
        Member(backbone.model_config(3), TRAINING, seed=0)
