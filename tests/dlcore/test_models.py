import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dlcore.config import ACTIVATIONS, INITIALIZATIONS, ModelConfig
from dlcore.models import SeededDropout, build_model, count_parameters, layer_sizes, nudge, set_step


def random_config(rng: random.Random) -> ModelConfig:
    return ModelConfig(
        n_features=rng.randint(1, 40),
        n_outputs=rng.randint(1, 12),
        widths=tuple(rng.randint(1, 48) for _ in range(rng.randint(0, 5))),
        activation=rng.choice(ACTIVATIONS),
        initialization=rng.choice(INITIALIZATIONS),
        dropout=rng.choice((0.0, 0.3)),
    )


def test_the_parameter_count_is_that_of_the_built_network_for_1000_configs():
    rng = random.Random(0)
    for number in range(1000):
        config = random_config(rng)
        built = sum(p.numel() for p in build_model(config, number).parameters())
        assert count_parameters(config) == built, config


def test_no_hidden_layer_is_a_linear_model():
    model = build_model(ModelConfig(4, 2, ()), seed=1)
    assert [type(module) for module in model] == [nn.Linear]
    assert layer_sizes(ModelConfig(4, 2, ())) == [(4, 2)]


def test_layers_come_in_the_order_linear_activation_dropout():
    model = build_model(ModelConfig(4, 2, (8, 6), activation="tanh", dropout=0.5), seed=1)
    kinds = [nn.Linear, nn.Tanh, SeededDropout, nn.Linear, nn.Tanh, SeededDropout, nn.Linear]
    assert [type(module) for module in model] == kinds
    assert list(model.state_dict()) == ["0.weight", "0.bias", "3.weight", "3.bias", "6.weight", "6.bias"]


def test_the_slope_reaches_the_activation():
    model = build_model(ModelConfig(1, 1, (1,), activation="leaky_relu", slope=0.3), seed=1)
    assert model[1](torch.tensor(-1.0)).item() == pytest.approx(-0.3)


@given(seed=st.integers(0, 2**63 - 1), name=st.sampled_from(INITIALIZATIONS))
def test_the_same_seed_gives_the_same_weights_and_another_one_others(seed, name):
    config = ModelConfig(5, 3, (7,), initialization=name)
    one, two, other = (build_model(config, s).state_dict() for s in (seed, seed, (seed + 1) % 2**63))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])


def test_building_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    build_model(ModelConfig(5, 3, (7, 7), dropout=0.2), seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_double_precision_starts_from_the_same_numbers():
    config = ModelConfig(5, 3, (7,), initialization="orthogonal")
    single, double = build_model(config, 1), build_model(config, 1, dtype=torch.float64)
    assert all(p.dtype == torch.float64 for p in double.parameters())
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        assert torch.equal(a.double(), b)


def test_dropout_is_the_identity_in_eval_mode():
    layer = SeededDropout(0.5, seed=1, layer=0).eval()
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert layer(x) is x


def test_dropout_drops_its_share_and_keeps_the_mean():
    layer = SeededDropout(0.25, seed=1, layer=0)
    out = layer(torch.ones(1000, 100))
    assert (out == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)
    assert out.max().item() == pytest.approx(1 / 0.75)


def test_every_step_seed_and_layer_has_its_own_mask():
    model = build_model(ModelConfig(3, 2, (50, 50), dropout=0.5), seed=1)
    first, second = (module for module in model if isinstance(module, SeededDropout))
    x = torch.ones(8, 50)
    masks = [first(x), second(x), SeededDropout(0.5, seed=2, layer=0)(x)]
    set_step(model, 1)
    masks.append(first(x))
    assert all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])
    set_step(model, 0)
    assert torch.equal(first(x), masks[0])


def test_a_dropout_seed_is_no_weight():
    model = build_model(ModelConfig(3, 2, (4,), dropout=0.5), seed=2**62 + 1, dtype=torch.float64)
    assert model[2].seed.item() == 2**62 + 1
    assert "seed" not in " ".join(model.state_dict())


def test_a_nudge_moves_each_parameter_by_its_last_place_up_or_down():
    config = ModelConfig(4, 3, (5,), normalization="batch")
    before, moved = build_model(config, seed=0), build_model(config, seed=0)
    nudge(moved)
    again, otherwise = build_model(config, seed=0), build_model(config, seed=0)
    nudge(again)
    nudge(otherwise, 1)
    assert torch.equal(again[0].weight, moved[0].weight) and not torch.equal(otherwise[0].weight, moved[0].weight)
    pairs = list(zip(before.parameters(), moved.parameters(), strict=True))
    for old, new in pairs:
        low, high = (torch.nextafter(old, torch.full_like(old, way)) for way in (-torch.inf, torch.inf))
        assert bool(((new == low) | (new == high)).all())
    assert 0.3 < torch.cat([(new > old).flatten().float() for old, new in pairs]).mean() < 0.7
