"""dlcore.precision: products of rounded factors, the same in the loop and in a population, and nothing else rounded."""

import dataclasses
import functools
import math

import pytest
import torch
from torch import Tensor, nn

from dlcore import population, precision, program, training
from dlcore.config import ACTIVATIONS, DataConfig, ModelConfig, TrainConfig
from dlcore.data import load_splits, to_tensors
from dlcore.errors import ConfigError, DeviceError
from dlcore.evaluation import evaluate
from dlcore.layout import lay_out
from dlcore.models import build_model
from dlcore.packing import Member
from dlcore.population import Population
from dlcore.precision import check_precision, forward_rounded, products_in, rounded
from dlcore.program import Arena, Extras, Program, arena_size
from dlcore.rows import TensorData
from dlcore.stack import Stack
from dlcore.training import Epoch, Training

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
TASKS = {"multiclass": "digits", "binary": "breast_cancer", "regression": "diabetes"}
ORDER_SEED = 5


@functools.cache
def data_of(name: str, dtype: torch.dtype = torch.float64, device: str = "cpu") -> TensorData:
    return to_tensors(load_splits(DataConfig(source=f"sklearn:{name}"), seed=0), device, dtype)


def members_for(data: TensorData, how: str, epochs: int = 3, optimizer: str = "sgd") -> list[Member]:
    """One of each activation, of mixed depth, with and without dropout and clipping; the last batch has one row."""
    n_rows = len(data.x_train)
    batch_size = next(size for size in range(64, n_rows) if n_rows % size == 1)
    return [
        Member(
            ModelConfig(
                data.x_train.shape[1],
                data.task.n_outputs,
                (9 + i, 7, 12)[: i % 4],
                activation=activation,
                slope=0.05 * (1 + i),
                dropout=0.3 * (i % 2),
            ),
            TrainConfig(
                epochs,
                batch_size,
                optimizer,
                learning_rate=0.02,
                momentum=0.1 * i,
                clip_norm=1.0 if i % 3 == 0 else None,
                precision=how,
            ),
            seed=i,
        )
        for i, activation in enumerate(ACTIVATIONS)
    ]


def alone(member: Member, data: TensorData) -> Training:
    found = Training(member.model_config, member.train_config, data, seed=member.seed, order_seed=ORDER_SEED)
    found.advance(member.train_config.epochs)
    return found


def together(members: list[Member], data: TensorData) -> Population:
    found = Population(members, data, order_seed=ORDER_SEED)
    list(found.advance(members[0].train_config.epochs))
    return found


def distance(left: list[Epoch], right: list[Epoch]) -> float:
    """The largest difference of any loss of two curves, relative to max(1, loss)."""
    pairs = [(a.train_loss, b.train_loss) for a, b in zip(left, right, strict=True)]
    pairs += [(a.val_loss, b.val_loss) for a, b in zip(left, right, strict=True)]
    return max(abs(a - b) / max(1, abs(a)) for a, b in pairs)


# ---- who may


@pytest.mark.parametrize("device", [CPU, CUDA, MPS])
def test_every_device_trains_in_fp32(device: torch.device) -> None:
    check_precision("fp32", device)


def test_a_cpu_trains_in_bf16_and_not_in_tf32() -> None:
    check_precision("bf16", CPU)
    with pytest.raises(DeviceError, match=r'precision "tf32" must be trained on an NVIDIA GPU .* the device is cpu'):
        check_precision("tf32", CPU)


@pytest.mark.parametrize("how", ["tf32", "bf16"])
def test_a_gpu_must_be_new_enough_and_a_mac_is_refused(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "device_name", lambda _: "a chip")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    check_precision(how, CUDA)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(DeviceError, match=r"compute capability 8\.0 or later; the device is cuda \(a chip\)"):
        check_precision(how, CUDA)
    with pytest.raises(DeviceError, match="the device is mps"):
        check_precision(how, MPS)


def test_both_engines_refuse_what_the_device_cannot_do_before_anything_is_trained() -> None:
    data = data_of("wine")
    (member, *_) = members_for(data, "tf32")
    with pytest.raises(DeviceError, match='"tf32"'):
        alone(member, data)
    with pytest.raises(DeviceError, match='"tf32"'):
        Population([member], data, order_seed=0)


def test_members_of_a_population_have_one_precision() -> None:
    data = data_of("wine")
    members = [members_for(data, how)[0] for how in ("fp32", "bf16")]
    with pytest.raises(ConfigError, match="precision must be equal for all members of a population; got bf16, fp32"):
        Population(members, data, order_seed=0)


# ---- tf32


def test_the_setting_is_made_for_tf32_alone_and_taken_back_whatever_happens() -> None:
    before = torch.get_float32_matmul_precision()
    for how, expected in (("fp32", before), ("bf16", before), ("tf32", "high")):
        with products_in(how):
            assert torch.get_float32_matmul_precision() == expected
        assert torch.get_float32_matmul_precision() == before
    with pytest.raises(KeyError), products_in("tf32"):
        raise KeyError
    assert torch.get_float32_matmul_precision() == before


def test_both_engines_make_the_setting_while_they_train_and_measure_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data, seen = data_of("wine"), []
    (member, *_) = members_for(data, "tf32", epochs=2)
    for module in (training, population):
        monkeypatch.setattr(module, "check_precision", lambda *_: None)

    def watch(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def watched(self: object, *rest: object) -> object:
            seen.append((name, torch.get_float32_matmul_precision()))
            return original(self, *rest)

        monkeypatch.setattr(owner, name, watched)

    for owner, name in ((Training, "_outputs"), (Training, "_measure"), (Stack, "_train"), (Stack, "_measure")):
        watch(owner, name)
    alone(member, data)
    together([member], data)
    before = torch.get_float32_matmul_precision()
    assert before != "high"
    assert set(seen) == {("_outputs", "high"), ("_train", "high"), ("_measure", before)}


# ---- bf16


def test_rounding_keeps_eight_bits_of_the_mantissa() -> None:
    x = torch.tensor([1.0, 1 + 2**-7, 1 + 2**-9, -3.14159, 1e-30], dtype=torch.float64)
    assert rounded(x).tolist()[:4] == [1.0, 1 + 2**-7, 1.0, -3.140625]
    assert rounded(x)[4] == pytest.approx(1e-30, rel=2**-8)
    assert rounded(x).dtype == x.dtype


def test_gradients_are_those_of_products_of_rounded_factors() -> None:
    stream = torch.Generator().manual_seed(0)
    x, y, d = (torch.randn(n, generator=stream, dtype=torch.float64) for n in ((5, 4), (5, 3), (5, 3)))
    first, second = nn.Linear(4, 6, dtype=torch.float64), nn.Linear(6, 3, dtype=torch.float64)
    model = nn.Sequential(first, nn.Tanh(), second)
    outputs = forward_rounded(model, x)
    found = torch.autograd.grad(outputs, list(model.parameters()), d)

    a = torch.tanh(rounded(x) @ rounded(first.weight).T + first.bias)
    torch.testing.assert_close(outputs, rounded(a) @ rounded(second.weight).T + second.bias, rtol=1e-12, atol=1e-12)
    below = (rounded(d) @ rounded(second.weight)) * (1 - a * a)
    expected = [rounded(below).T @ rounded(x), below.sum(0), rounded(d).T @ rounded(a), d.sum(0)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert not torch.equal(outputs, model(x)) and y.shape == outputs.shape


# In float64 two engines round to the same factor, but where a number lies within their difference of the middle
# between two: that is rare. In float32 it is less so, and each such factor differs by 2 ** -8 of itself (the losses of
# three epochs were seen to differ by up to 4e-4).
@pytest.mark.parametrize(
    ("dtype", "within", "is_grouped"),
    [(torch.float64, 1e-9, True), (torch.float64, 1e-9, False), (torch.float32, 5e-3, True)],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("task", TASKS)
def test_both_engines_agree_in_bf16(
    task: str, optimizer: str, dtype: torch.dtype, within: float, is_grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(TASKS[task], dtype)
    if not is_grouped:
        monkeypatch.setattr(population, "has_grouped_products", lambda *_: False)
    members = members_for(data, "bf16", optimizer=optimizer)
    for member, state in zip(members, together(members, data).states, strict=True):
        assert distance(alone(member, data).curve, state.curve) <= within


@pytest.mark.parametrize("task", TASKS)
def test_bf16_is_felt_and_little(task: str) -> None:
    data = data_of(TASKS[task])
    exact, found = (together(members_for(data, how), data).states for how in ("fp32", "bf16"))
    felt = [distance(left.curve, right.curve) for left, right in zip(exact, found, strict=True)]
    assert min(felt) > 1e-6, "else nothing was rounded"
    assert max(felt) < 0.1


@pytest.mark.parametrize("engine", ["loop", "population"])
def test_weights_and_measurements_are_not_rounded(engine: str) -> None:
    data = data_of("digits")
    members = members_for(data, "bf16")
    states = [alone(m, data) for m in members] if engine == "loop" else together(members, data).states
    for member, state in zip(members, states, strict=True):
        assert any(not torch.equal(weights, rounded(weights)) for weights in state.best_weights.values())
        model = build_model(member.model_config, seed=0, dtype=torch.float64)
        model.load_state_dict(state.best_weights)
        assert state.best is not None
        assert evaluate(model, data.task, data.x_val, data.y_val)["loss"] == pytest.approx(state.best.val_loss, 1e-12)


def test_the_calls_for_narrow_factors_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU is given, on a device that knows shapes and types and no numbers."""
    for module in (precision, program):
        monkeypatch.setattr(module, "factor_dtype", lambda _: torch.bfloat16)
    models = [m.model_config for m in members_for(data_of("wine"), "bf16")]
    models = sorted(models, key=lambda model: ("silu gelu".find(model.activation) >= 0, model.depth))
    layout = lay_out(models, [model.widths for model in models])
    like = torch.empty(layout.n_parameters, device="meta")
    extras = Extras(layout, models, like, is_grouped=False, is_rounded=True)
    storage = like.new_empty(arena_size(layout, (16, 13), has_backward=True, has_dropout=extras.has_dropout))
    gradients = like.new_empty(layout.n_parameters + 1)
    found = Program(layout, like, gradients, Arena(storage), (16, 13), extras)
    for op in (*found.forward, *found.backward):
        op()
    read: list[Tensor] = [t for op in (*found.forward, *found.backward) for t in getattr(op, "args", ())]
    assert sum(isinstance(t, Tensor) and t.dtype == torch.bfloat16 for t in read) > 3 * len(models)


# ---- on a GPU


def on_gpu(name: str) -> TensorData:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return data_of(name, torch.float32, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["tf32", "bf16"])
@pytest.mark.parametrize("task", TASKS)
def test_both_engines_agree_on_a_gpu(how: str, task: str) -> None:
    data = on_gpu(TASKS[task])
    before = torch.get_float32_matmul_precision()
    members = members_for(data, how)
    for member, state in zip(members, together(members, data).states, strict=True):
        assert distance(alone(member, data).curve, state.curve) <= 1e-2
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["tf32", "bf16"])
def test_a_gpu_feels_the_precision_and_learns_as_well(how: str) -> None:
    data = on_gpu("digits")
    config = TrainConfig(10, learning_rate=0.05, objective="accuracy")
    members = [Member(ModelConfig(64, 10, (64, 64)), config, seed=i) for i in range(4)]
    lower = [dataclasses.replace(m, train_config=dataclasses.replace(config, precision=how)) for m in members]
    exact, found = together(members, data), together(lower, data)
    for left, right in zip(exact.states, found.states, strict=True):
        assert 0 < distance(left.curve, right.curve) < 0.1
        assert right.best is not None and right.best.val_metric > 0.95


@pytest.mark.gpu
def test_a_gpu_and_a_cpu_agree_in_bf16() -> None:
    data = on_gpu("digits")
    for member in members_for(data, "bf16"):
        on_cpu = alone(member, data_of("digits", torch.float32)).curve
        assert distance(alone(member, data).curve, on_cpu) <= 1e-2
        assert all(math.isfinite(epoch.val_loss) for epoch in on_cpu)
