import json
import random

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlcore.checkpoint import config_from_dict, config_to_dict, load_model, network_from_bytes, save_weights
from dlcore.checkpoint import weights_to_bytes as to_bytes
from dlcore.config import ACTIVATIONS, INITIALIZATIONS, ModelConfig
from dlcore.errors import ConfigError, ExportError
from dlcore.models import build_model

CONFIG = ModelConfig(4, 3, (6, 5), activation="gelu", dropout=0.2)


@given(
    config=st.builds(
        ModelConfig,
        n_features=st.integers(1, 99),
        n_outputs=st.integers(1, 9),
        widths=st.lists(st.integers(1, 99), max_size=4).map(tuple),
        activation=st.sampled_from(ACTIVATIONS),
        slope=st.floats(0, 1),
        initialization=st.sampled_from(INITIALIZATIONS),
        dropout=st.floats(0, 0.99),
    )
)
def test_a_config_survives_json(config):
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "swish"}, "activation must be one of"),
        ({"widths": 3}, "widths must be a list"),
        ({"widths": ["wide"]}, "must hold numbers"),
        ({"dropout": None}, "must hold numbers"),
        ({"bias": True}, "must have exactly the keys"),
    ],
)
def test_a_config_that_was_tampered_with_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict(config_to_dict(CONFIG) | change)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saved_network_reads_back_bit_equal(tmp_path, dtype):
    model = build_model(CONFIG, seed=1, dtype=dtype)
    save_weights(tmp_path / "weights.safetensors", model, CONFIG)
    loaded, config = load_model(tmp_path / "weights.safetensors")
    assert config == CONFIG
    assert not loaded.training
    state = loaded.state_dict()
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    x = torch.randn(7, 4, dtype=dtype, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.eval()(x), loaded(x))


def test_the_same_weights_give_the_same_bytes():
    assert to_bytes(build_model(CONFIG, seed=1), CONFIG) == to_bytes(build_model(CONFIG, seed=1), CONFIG)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"nothing\.safetensors"):
        load_model(tmp_path / "nothing.safetensors")


def test_a_cut_or_foreign_file_is_refused_by_name(tmp_path):
    path = tmp_path / "weights.safetensors"
    content = to_bytes(build_model(CONFIG, seed=1), CONFIG)
    rng = random.Random(0)
    for length in [0, 1, 7, 8, *(rng.randrange(len(content)) for _ in range(50))]:
        path.write_bytes(content[:length])
        with pytest.raises(ExportError, match=r"weights\.safetensors"):
            load_model(path)
    path.write_bytes(safetensors.torch.save({"x": torch.zeros(1)}))
    with pytest.raises(ExportError, match="written by dlcore"):
        load_model(path)


def test_weights_of_another_architecture_are_refused():
    content = to_bytes(build_model(CONFIG, seed=1), CONFIG)
    with pytest.raises(ExportError, match="must hold tensors shaped"):
        network_from_bytes(content, ModelConfig(4, 3, (6, 6)), "weights.safetensors")
    with pytest.raises(ExportError, match=r"w\.bin must be a whole safetensors file"):
        network_from_bytes(content[:-1], CONFIG, "w.bin")
