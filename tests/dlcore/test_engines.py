import os
import signal
import subprocess
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch

from dlcore import engines, parallel
from dlcore.config import DataConfig, ModelConfig, TrainConfig
from dlcore.curve import Epoch
from dlcore.data import load_splits, to_tensors
from dlcore.engines import Engine, Limit, Loop, Together, form_groups
from dlcore.packing import Member, deal
from dlcore.parallel import ParallelPopulation
from dlcore.population import MemberState, Population
from dlcore.rows import TensorData
from dlcore.workers import can_have_workers, crew, dismiss
from tests.dlcore.backbones import random_backbone
from tests.dlcore.conftest import DIE, trap

ORDER = 11
needs_workers = pytest.mark.skipif(not can_have_workers(), reason="needs a POSIX system")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """However many cores there are; tests of several ask for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data() -> TensorData:
    return to_tensors(load_splits(DataConfig(source="sklearn:wine"), 0), torch.device("cpu"), torch.float64)


def member(seed: int, width: int = 8, **training: object) -> Member:
    values: dict[str, object] = {"epochs": 5, "batch_size": 32, "learning_rate": 0.05}
    return Member(ModelConfig(13, 3, (width,)), TrainConfig(**(values | training)), seed)  # type: ignore[arg-type]


def together_on_two_cores(*rest: object, **named: object) -> Engine:
    torch.set_num_threads(2)
    return Together(*rest, **named)  # type: ignore[arg-type]


ENGINES = [
    Loop,
    Population,
    pytest.param(partial(ParallelPopulation, n_parts=2), marks=needs_workers, id="ParallelPopulation"),
    Together,
    pytest.param(together_on_two_cores, marks=needs_workers, id="Together on two cores"),
]


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest) -> Callable[..., Engine]:
    return request.param  # type: ignore[no-any-return]


# What all engines promise


def test_every_epoch_of_every_member_is_yielded_once(make: Callable[..., Engine], data: TensorData) -> None:
    engine = make([member(0), member(1, 5)], data, order_seed=ORDER)
    first, second = list(engine.advance(2)), list(engine.advance(9))
    assert sorted((i, e.epoch) for i, e in first) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert sorted((i, e.epoch) for i, e in second) == [(i, e) for i in (0, 1) for e in (3, 4, 5)]
    for i, state in enumerate(engine.states):
        assert state.curve == [e for j, e in first + second if j == i] and state.is_finished
        assert state.best in state.curve and state.train_s > 0


def test_dropped_members_stop_and_the_others_do_not_feel_it(make: Callable[..., Engine], data: TensorData) -> None:
    alone = make([member(1)], data, order_seed=ORDER)
    list(alone.advance(5))
    engine = make([member(0), member(1), member(2, 6)], data, order_seed=ORDER)
    list(engine.advance(2))
    engine.drop([0, 2])
    assert {i for i, _ in engine.advance(5)} == {1}
    assert [len(s.curve) for s in engine.states] == [2, 5, 2]
    for left, right in zip(engine.states[1].curve, alone.states[0].curve, strict=True):
        assert left.val_loss == pytest.approx(right.val_loss, rel=1e-9)


def test_a_member_that_diverges_is_finished_with_a_reason(make: Callable[..., Engine], data: TensorData) -> None:
    wild = replace(member(0), train_config=replace(member(0).train_config, learning_rate=1e200))
    engine = make([wild, member(1)], data, order_seed=ORDER)
    list(engine.advance(5))
    first, second = engine.states
    assert first.divergence is not None and first.is_finished and first.divergence.epoch == len(first.curve) + 1
    assert second.divergence is None and len(second.curve) == 5


def test_patience_ends_a_member_early(make: Callable[..., Engine], data: TensorData) -> None:
    engine = make([member(0, learning_rate=0.0, patience=2), member(1, patience=None)], data, order_seed=ORDER)
    list(engine.advance(5))
    assert [len(s.curve) for s in engine.states] == [3, 5]


def test_both_engines_give_the_same_curves_and_weights(data: TensorData) -> None:
    members = [member(0), member(1, 5, momentum=0.5), member(2, 20, weight_decay=0.01, clip_norm=1.0)]
    loop, population = (make(members, data, order_seed=ORDER) for make in (Loop, Population))
    list(loop.advance(5))
    list(population.advance(5))
    for left, right in zip(loop.states, population.states, strict=True):
        for a, b in zip(left.curve, right.curve, strict=True):
            assert (a.train_loss, a.val_loss, a.val_metric) == pytest.approx((b.train_loss, b.val_loss, b.val_metric))
        assert left.best_weights.keys() == right.best_weights.keys()
        for name, weights in left.best_weights.items():
            torch.testing.assert_close(weights, right.best_weights[name], rtol=1e-9, atol=1e-12)


# Memory


def check_told_once(told: list[tuple[int, Epoch]], engine: Engine, whole: Population, lengths: list[int]) -> None:
    """Every epoch was told, none twice, and the curves are those of a population that nothing happened to."""
    assert sorted((i, e.epoch) for i, e in told) == [(i, e + 1) for i, n in enumerate(lengths) for e in range(n)]
    for state, wanted, length in zip(engine.states, whole.states, lengths, strict=True):
        assert len(state.curve) == length and state.best in state.curve and state.best_weights
        for left, right in zip(state.curve, wanted.curve[:length], strict=True):
            assert left.val_loss == pytest.approx(right.val_loss, rel=1e-9)


def refused_by_the_cpu() -> RuntimeError:
    """What PyTorch says on this system where memory is not to be had."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**17)
    return caught.value


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        refused_by_the_cpu(),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.56 GB, max allowed: 6.80 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_without_memory_a_population_is_halved_until_it_fits_and_the_size_is_remembered(
    data: TensorData, monkeypatch: pytest.MonkeyPatch, error: Exception, is_late: bool
) -> None:
    members = [member(seed, 4 + seed) for seed in range(7)]
    whole = Population(members, data, order_seed=ORDER)
    list(whole.advance(5))
    started, advanced = Population.__init__, Population.train_epoch

    def start(self: Population, own: list[Member], *rest: object, **named: object) -> None:
        if len(own) > 2 and not is_late:
            raise error
        started(self, own, *rest, **named)  # type: ignore[arg-type]

    def advance(self: Population, to_epoch: int) -> dict[int, Epoch] | None:
        if len(self.states) > 2 and is_late and self.epoch == 3:
            raise error
        return advanced(self, to_epoch)

    monkeypatch.setattr(Population, "__init__", start)
    monkeypatch.setattr(Population, "train_epoch", advance)
    limit = Limit()
    engine = Together(members, data, order_seed=ORDER, limit=limit)
    told = list(engine.advance(2))
    engine.drop([1])
    told += engine.advance(5)
    assert limit.members is not None and limit.members <= 2
    check_told_once(told, engine, whole, [2 if i == 1 else 5 for i in range(7)])


@pytest.mark.parametrize("is_late", [False, True])
def test_what_ran_out_of_memory_is_freed_before_its_halves_begin_and_these_take_turns(
    data: TensorData, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    members = [member(seed, 4 + seed, clip_norm=1.0) for seed in range(7)]
    whole = Population(members, data, order_seed=ORDER)
    list(whole.advance(5))
    started, advanced = Population.__init__, Population.train_epoch
    held: weakref.WeakKeyDictionary[Population, int] = weakref.WeakKeyDictionary()

    def refuse_more_than_three() -> None:
        if sum(held.values()) > 3:
            raise MemoryError

    def start(self: Population, own: list[Member], *rest: object, **named: object) -> None:
        held[self] = len(own)
        started(self, own, *rest, **named)  # type: ignore[arg-type]
        if not is_late:
            refuse_more_than_three()

    def advance(self: Population, to_epoch: int) -> dict[int, Epoch] | None:
        if self.epoch == 3 or not is_late:
            refuse_more_than_three()
        return advanced(self, to_epoch)

    monkeypatch.setattr(parallel, "can_have_workers", lambda: False)  # as on a GPU
    monkeypatch.setattr(Population, "__init__", start)
    monkeypatch.setattr(Population, "train_epoch", advance)
    limit = Limit()
    engine = Together(members, data, order_seed=ORDER, limit=limit)
    told = [*engine.advance(4), *engine.advance(5)]
    assert limit.members == 2 and not held
    check_told_once(told, engine, whole, [5] * 7)


@needs_workers
@pytest.mark.parametrize("when", ["before an epoch", "when all is trained"])
def test_where_a_worker_is_killed_a_population_is_halved_and_goes_on(data: TensorData, when: str) -> None:
    members = [member(seed, 4 + seed) for seed in range(7)]
    whole = Population(members, data, order_seed=ORDER)
    list(whole.advance(5))
    torch.set_num_threads(2)
    limit = Limit()
    engine = Together(members, data, order_seed=ORDER, limit=limit)
    told = list(engine.advance(2))
    engine.drop([1])
    living = [i for i in range(7) if i != 1]
    there = [living[place] for place in deal([members[i] for i in living], 2)[1]]
    state, (worker,) = engine.states[there[0]], crew(1)
    assert isinstance(state, MemberState) and limit.members is None
    if when == "before an epoch":
        os.kill(worker.pid, signal.SIGSTOP)
    else:
        trap(state, DIE, None)
    events = engine.advance(5)
    told.append(next(events))
    if when == "before an epoch":
        os.kill(worker.pid, signal.SIGKILL)
    told += events
    assert not worker.is_alive
    assert limit.members is not None and limit.members <= 3
    check_told_once(told, engine, whole, [2 if i == 1 else 5 for i in range(7)])
    assert torch.get_num_threads() == 2


@needs_workers
def test_where_no_process_can_be_started_all_are_trained_without(
    data: TensorData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_named: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    members = [member(seed, 4 + seed) for seed in range(3)]
    whole = Population(members, data, order_seed=ORDER)
    list(whole.advance(5))
    dismiss()
    monkeypatch.setattr(subprocess, "Popen", refuse)
    torch.set_num_threads(2)
    engine = Together(members, data, order_seed=ORDER)
    check_told_once(list(engine.advance(5)), engine, whole, [5, 5, 5])


@pytest.mark.parametrize("n_threads", [1, pytest.param(2, marks=needs_workers)])
def test_another_error_and_a_member_that_does_not_fit_alone_are_raised(
    data: TensorData, monkeypatch: pytest.MonkeyPatch, n_threads: int
) -> None:
    def fail(error: Exception) -> Callable[..., None]:
        def start(*args: object, **named: object) -> None:
            raise error

        return start

    torch.set_num_threads(n_threads)
    for error, found in ((RuntimeError("shapes do not match"), RuntimeError), (MemoryError(), MemoryError)):
        monkeypatch.setattr(Population, "__init__", fail(error))
        with pytest.raises(found) as caught:
            list(Together([member(0), member(1)], data, order_seed=ORDER).advance(1))
        assert caught.value is error
    assert torch.get_num_threads() == n_threads


# Groups


def test_members_that_cannot_share_a_population_are_kept_apart(data: TensorData) -> None:
    members = [member(0), member(1, batch_size=64), member(2), member(3, optimizer="adamw")]
    groups = form_groups(members, data, order_seed=ORDER, engine="population")
    assert sorted(g.indices for g in groups) == [(0, 2), (1,), (3,)]
    assert {g.name for g in groups} == {"population"}
    (all_in_one,) = form_groups(members[:1] + members[2:3], data, order_seed=ORDER, engine="loop")
    assert (all_in_one.name, all_in_one.indices) == ("loop", (0, 1))


def test_members_that_the_loop_serves_better_train_in_it(data: TensorData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "engine_for", lambda m, _: "loop" if m.model_config.widths[0] > 8 else "population")
    groups = form_groups([member(0, 9), member(1, 8)], data, order_seed=ORDER, engine="population")
    assert {(g.name, g.indices) for g in groups} == {("loop", (0,)), ("population", (1,))}


def test_in_parts_that_fit_in_memory_a_backbone_is_what_it_is_in_the_loop(data: TensorData) -> None:
    backbone = random_backbone(ModelConfig(13, 3, (6, 5)), seed=3)
    members = [
        Member(
            backbone.model_config(3),
            TrainConfig(5, batch_size=32, learning_rate=0.05, n_frozen=i, backbone_rate=0.3),
            seed=i,
            backbone=backbone,
        )
        for i in range(3)
    ]
    engines = [Together(members, data, order_seed=ORDER, limit=Limit(1)), Loop(members, data, order_seed=ORDER)]
    for engine in engines:
        list(engine.advance(5))
    for left, right in zip(engines[0].states, engines[1].states, strict=True):
        assert [e.val_loss for e in left.curve] == pytest.approx([e.val_loss for e in right.curve], rel=1e-9)
