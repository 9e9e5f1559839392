import gc
import itertools
import math
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from dlcore import grouped
from dlcore.config import ACTIVATIONS, DataConfig, ModelConfig, TrainConfig
from dlcore.data import load_splits, to_tensors
from dlcore.grouped import Product, grouped_product, has_grouped_products, separate_products
from dlcore.packing import Member
from dlcore.population import Population
from dlcore.rows import TensorData
from dlcore.stack import Stack

CPU = torch.device("cpu")
GUARD = 12345.0

needs_library = pytest.mark.skipif(
    not has_grouped_products(CPU, torch.float32), reason="this build of PyTorch carries no MKL"
)


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Call it to make the library lack its functions, as builds without MKL do."""

    def forget() -> None:
        grouped._function.cache_clear()
        grouped._works.cache_clear()

    def take_away() -> None:
        names = {dtype: ("no_such_function", number) for dtype, (_, number) in grouped._NAMES.items()}
        monkeypatch.setattr(grouped, "_NAMES", names)
        forget()

    yield take_away
    monkeypatch.undo()
    forget()


# The call


class Room:
    """Memory in which matrices lie as views: padded rows, transposed or not, guard values between them."""

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        self.draw = random.Random(seed)
        self.stream = torch.Generator().manual_seed(seed)
        self.dtype = dtype
        self.all: list[tuple[Tensor, Tensor]] = []
        """Memory, and which of it is no matrix."""

    def matrix(self, n_rows: int, n_columns: int, *, may_be_transposed: bool) -> Tensor:
        is_transposed = may_be_transposed and self.draw.random() < 0.5
        height, width = (n_columns, n_rows) if is_transposed else (n_rows, n_columns)
        above, left, right = (self.draw.choice([0, 1, 3]) for _ in range(3))
        memory = torch.full((above + height + 1, left + width + right), GUARD, dtype=self.dtype)
        view = memory[above : above + height, left : left + width]
        view.copy_(torch.randn(height, width, generator=self.stream, dtype=torch.float64))
        is_free = torch.ones(memory.shape, dtype=torch.bool)
        is_free[above : above + height, left : left + width] = False
        self.all.append((memory, is_free))
        return view.T if is_transposed else view

    def product(self, m: int, n: int, k: int) -> Product:
        a, b = self.matrix(m, k, may_be_transposed=True), self.matrix(k, n, may_be_transposed=True)
        return a, b, self.matrix(m, n, may_be_transposed=False)

    def check_guards(self) -> None:
        for memory, is_free in self.all:
            assert (memory[is_free] == GUARD).all(), "a product wrote beside its matrix"


def wanted(products: list[Product], *, is_added: bool) -> list[np.ndarray]:
    """By numpy in double precision."""
    return [is_added * c.double().numpy() + a.double().numpy() @ b.double().numpy() for a, b, c in products]


def copies(products: list[Product]) -> list[Product]:
    return [(a, b, c.clone()) for a, b, c in products]


SHAPES = [(m, n, k) for m, n, k in itertools.product([1, 2, 7, 8, 33], repeat=3)]


@needs_library
@pytest.mark.parametrize("is_added", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(6))
def test_any_shapes_in_any_layout_agree_with_the_twin_and_with_numpy(seed, dtype, is_added):
    room = Room(dtype, seed)
    shapes = SHAPES if seed == 0 else [tuple(room.draw.randint(1, 70) for _ in range(3)) for _ in range(40)]
    products = [room.product(*shape) for shape in shapes]
    expected, twins = wanted(products, is_added=is_added), copies(products)
    grouped_product(products, is_added=is_added)()
    for op in separate_products(twins, is_added=is_added):
        op()
    room.check_guards()
    within = {torch.float32: 2e-6, torch.float64: 4e-15}[dtype]
    for (a, _, ours), (_, _, theirs), right in zip(products, twins, expected, strict=True):
        scale = within * math.sqrt(a.shape[1]) * max(1.0, float(np.abs(right).max()))
        assert np.abs(ours.double().numpy() - right).max() <= scale
        assert (ours - theirs).abs().max() <= 2 * scale


@needs_library
def test_a_call_may_be_made_again_and_reads_what_is_there_then():
    room = Room(torch.float64, 7)
    (a, b, c) = product = room.product(4, 5, 6)
    op = grouped_product([product], is_added=True)
    before = c.clone()
    op()
    a.mul_(2)
    op()
    torch.testing.assert_close(c, before + 1.5 * (a @ b))


@needs_library
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("is_added", [False, True])
def test_what_is_not_finite_stays_in_its_product(is_added, bad):
    room = Room(torch.float32, 8)
    products = [room.product(5, 6, 7) for _ in range(5)]
    products[2][0][1, 1] = bad
    products[3][2][0, 0] = bad
    twins = copies(products)
    grouped_product(products, is_added=is_added)()
    for op in separate_products(twins, is_added=is_added):
        op()
    for place, (ours, theirs) in enumerate(zip(products, twins, strict=True)):
        torch.testing.assert_close(ours[2], theirs[2], equal_nan=True)
        has_bad = place == 2 or (place == 3 and is_added)
        assert bool(ours[2].isfinite().all()) is not has_bad, "memory that is overwritten is not read"


@needs_library
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_output_is_overwritten_whatever_stood_there(bad):
    a, b, c = torch.ones(3, 4), torch.ones(4, 2), torch.full((3, 2), bad)
    grouped_product([(a, b, c)], is_added=False)()
    assert (c == 4).all()


@needs_library
def test_the_call_keeps_the_memory_that_it_works_on():
    def bound() -> tuple[Callable[[], object], Tensor]:
        a, b = torch.full((64, 64), 2.0), torch.full((64, 64), 3.0)
        out = torch.zeros(64, 64)
        return grouped_product([(a.T, b[:, :50], out[:, :50])], is_added=False), out

    op, out = bound()
    gc.collect()
    rubbish = [torch.full((64, 64), GUARD) for _ in range(200)]  # would take the place of what is freed
    op()
    assert (out[:, :50] == 2 * 3 * 64).all() and (out[:, 50:] == 0).all()
    assert all((thing == GUARD).all() for thing in rubbish)


@needs_library
def test_one_thread_and_two_agree():
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            room = Room(torch.float64, 9)
            products = [room.product(40, 30, 20) for _ in range(9)]
            expected = wanted(products, is_added=True)
            grouped_product(products, is_added=True)()
            for (_, _, c), right in zip(products, expected, strict=True):
                np.testing.assert_allclose(c.numpy(), right, rtol=1e-12, atol=1e-12)
    finally:
        torch.set_num_threads(before)


# Where there is none


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.complex64])
def test_other_kinds_of_numbers_have_none(dtype):
    assert not has_grouped_products(CPU, dtype)


@pytest.mark.parametrize("device", ["cuda", "mps", "meta"])
def test_other_devices_have_none(device):
    assert not has_grouped_products(torch.device(device), torch.float32)


def test_without_the_function_there_is_none(without_library):
    without_library()
    assert not has_grouped_products(CPU, torch.float32)
    assert not has_grouped_products(CPU, torch.float64)


def test_on_other_systems_there_is_none(without_library, monkeypatch):
    without_library()  # clears what is known now, and again afterwards
    monkeypatch.undo()
    monkeypatch.setattr(grouped.platform, "system", lambda: "Darwin")
    assert not has_grouped_products(CPU, torch.float32)


def test_a_library_that_answers_otherwise_is_not_used(without_library, monkeypatch):
    without_library()
    monkeypatch.setattr(grouped, "_function", lambda _dtype: lambda *_: None)
    assert not has_grouped_products(CPU, torch.float32), "it leaves the outputs as they were"


# A population both ways


def mixture(data: TensorData, optimizer: str) -> list[Member]:
    """All activations, depths from 0 to 3, widths from 1 up, dropout and clipping in some."""
    shapes = [(1,), (5, 1), (9, 9), (3, 17, 8), (), (12,), (8,), (7, 2), (6, 6, 6), (1, 1), (20,), ()]
    return [
        Member(
            ModelConfig(
                data.x_train.shape[1],
                data.task.n_outputs,
                widths,
                activation=ACTIVATIONS[i % len(ACTIVATIONS)],
                dropout=0.3 * (i % 3 == 0),
                slope=0.1 + 0.01 * i,
            ),
            TrainConfig(
                4,
                batch_size=32,
                optimizer=optimizer,
                learning_rate=0.02,
                weight_decay=0.01 * (i % 2),
                clip_norm=0.5 if i % 4 == 1 else None,
            ),
            seed=i,
        )
        for i, widths in enumerate(shapes)
    ]


def trained(members: list[Member], data: TensorData) -> Population:
    population = Population(members, data, order_seed=3)
    assert len(list(population.advance(4))) == 4 * len(members)
    return population


@needs_library
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ["wine", "breast_cancer", "diabetes"])
def test_a_population_trains_the_same_without_the_library(name, optimizer, without_library):
    data = to_tensors(load_splits(DataConfig(source=f"sklearn:{name}"), seed=0), CPU, torch.float64)
    members = mixture(data, optimizer)
    with_library = trained(members, data)
    without_library()
    without = trained(members, data)
    assert with_library._cost.is_grouped and not without._cost.is_grouped
    for left, right in zip(with_library.states, without.states, strict=True):
        for a, b in zip(left.curve, right.curve, strict=True):
            # AdamW divides by what may be rounding alone.
            found, expected = (a.train_loss, a.val_loss), (b.train_loss, b.val_loss)
            assert found == pytest.approx(expected, rel=1e-6 if optimizer == "adamw" else 1e-9)


@needs_library
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_padding_stays_zero(optimizer, dtype):
    data = to_tensors(load_splits(DataConfig(source="sklearn:wine"), seed=0), CPU, dtype)
    population = trained(mixture(data, optimizer), data)
    assert any(state.model_config.activation == "sigmoid" for state in population.states)
    n_padded = 0
    for stack in population.stacks:
        is_padding = padding_of(stack)
        n_padded += int(is_padding.sum())
        for flat in (stack._parameters, stack._gradients[:-1], *stack._states):
            assert (flat[is_padding] == 0).all()
            assert (flat[~is_padding] != 0).any()
    assert n_padded > 1000


def padding_of(stack: Stack) -> Tensor:
    """Which numbers of a stack's flat tensors are no parameter of a member, (N,)."""
    is_padding = torch.ones(stack._layout.n_parameters, dtype=torch.bool)
    for block in stack._layout.blocks:
        for out in range(block.used_out):
            start = block.weight + out * block.n_in
            is_padding[start : start + block.used_in] = False
        is_padding[block.bias : block.bias + block.used_out] = False
    used = sum(w.numel() + b.numel() for views in stack.views for w, b in views)
    assert used == int((~is_padding).sum())
    return is_padding
