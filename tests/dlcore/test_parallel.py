import array
import dataclasses
import fcntl
import functools
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from dlcore import parallel, workers
from dlcore.config import ACTIVATIONS, DataConfig, ModelConfig, TrainConfig
from dlcore.curve import Epoch
from dlcore.data import load_splits, to_tensors
from dlcore.engines import Loop
from dlcore.errors import ConfigError
from dlcore.evaluation import evaluate
from dlcore.models import build_model
from dlcore.packing import Member, deal
from dlcore.parallel import ParallelPopulation, populate
from dlcore.population import MemberState, Population
from dlcore.rows import TensorData
from dlcore.training import Training
from dlcore.workers import Worker, WorkerLost, can_have_workers, crew
from tests.dlcore.backbones import random_backbone
from tests.dlcore.conftest import DIE, trap

pytestmark = pytest.mark.skipif(not can_have_workers(), reason="needs a POSIX system")

ORDER_SEED = 6
TASKS = {"multiclass": "wine", "binary": "breast_cancer", "regression": "diabetes"}
Engine = Population | ParallelPopulation
Make = Callable[..., Engine]

two_parts = partial(ParallelPopulation, n_parts=2)
three_parts = partial(ParallelPopulation, n_parts=3)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Each path of these tests leaves torch its threads, and every worker free."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    found = torch.get_num_threads()
    torch.set_num_threads(before)
    assert found == 2
    assert not any(worker.is_busy and worker.is_alive for worker in workers._crew)


@pytest.fixture(params=[Population, two_parts], ids=["one process", "two processes"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param  # type: ignore[no-any-return]


@functools.cache
def data_of(name: str = "wine", dtype: torch.dtype = torch.float64) -> TensorData:
    return to_tensors(load_splits(DataConfig(source=f"sklearn:{name}"), 0), "cpu", dtype)


def member(i: int, data: TensorData, epochs: int = 6, **training: object) -> Member:
    """Every i another shape."""
    values: dict[str, object] = {"batch_size": 64, "learning_rate": 0.02, "clip_norm": 1.0 if i % 4 == 2 else None}
    model = ModelConfig(
        data.x_train.shape[1],
        data.task.n_outputs,
        (4 + i,) * (i % 3),
        activation=ACTIVATIONS[i % len(ACTIVATIONS)],
        dropout=0.25 * (i % 2),
    )
    return Member(model, TrainConfig(epochs, **(values | training)), seed=i)  # type: ignore[arg-type]


def mixture(n: int, data: TensorData, epochs: int = 6, **training: object) -> list[Member]:
    return [member(i, data, epochs, **training) for i in range(n)]


def bits(state: MemberState) -> list[Epoch]:
    return [dataclasses.replace(epoch, finished_at=0.0) for epoch in state.curve]


def check_same_bits(left: Engine, right: Engine) -> None:
    for a, b in zip(left.states, right.states, strict=True):
        assert a.curve and bits(a) == bits(b)
        assert a.best_weights.keys() == b.best_weights.keys()
        assert all(torch.equal(weights, b.best_weights[name]) for name, weights in a.best_weights.items())


def check_close(left: Sequence[MemberState], right: Sequence[MemberState | Training], within: float = 1e-9) -> None:
    for a, b in zip(left, right, strict=True):
        assert a.curve and len(a.curve) == len(b.curve)
        for mine, other in zip(a.curve, b.curve, strict=True):
            numbers = (mine.train_loss, mine.val_loss, mine.learning_rate)
            assert numbers == pytest.approx((other.train_loss, other.val_loss, other.learning_rate), rel=within)


def parts_of(members: Sequence[Member], n: int = 2) -> list[list[int]]:
    """Who is trained together; the first part in this process."""
    return deal(members, n)


# What a population promises, however many processes it has


@pytest.mark.parametrize("task", TASKS)
def test_curves_are_those_of_one_process(task: str) -> None:
    data = data_of(TASKS[task])
    members = mixture(9, data, schedule="cosine", warmup_epochs=1, optimizer="adamw" if task == "binary" else "sgd")
    one, three = Population(members, data, order_seed=ORDER_SEED), three_parts(members, data, order_seed=ORDER_SEED)
    assert three.n_parameters == one.n_parameters
    told = list(three.advance(6))
    list(one.advance(6))
    check_close(three.states, one.states)
    assert sorted((i, e.epoch) for i, e in told) == [(i, e) for i in range(9) for e in range(1, 7)]
    for i, state in enumerate(three.states):
        assert [e for j, e in told if j == i] == state.curve


def test_states_are_complete(make: Make) -> None:
    data = data_of()
    members = mixture(6, data, epochs=12, patience=2, learning_rate=0.4)
    members[4] = member(4, data, 12, patience=None, learning_rate=1e200)
    population = make(members, data, order_seed=ORDER_SEED)
    list(population.advance(12))
    assert any(state.stopped_early for state in population.states)
    for own, state in zip(members, population.states, strict=True):
        assert state.member == own and state.is_finished and state.train_s > 0
        assert state.ended_at is not None and state.started_at < state.ended_at
        if own.train_config.learning_rate > 1:
            continue
        assert state.epoch == len(state.curve) and state.ended_at == state.curve[-1].finished_at
        assert state.best in state.curve and state.stopped_early is (state.epoch < 12)
        model = build_model(own.model_config, seed=0, dtype=torch.float64)
        model.load_state_dict(state.best_weights)
        assert state.best is not None
        found = evaluate(model, data.task, data.x_val, data.y_val)["loss"]
        assert found == pytest.approx(state.best.val_loss, rel=1e-12)
    wild = population.states[4]
    assert wild.divergence is not None and wild.divergence.epoch == len(wild.curve) + 1
    assert wild.divergence.reason.startswith("training loss") and not wild.stopped_early


def test_a_neighbour_that_is_not_finite_is_not_felt(make: Make) -> None:
    data = data_of()
    calm = mixture(6, data)
    wild = [member(i, data, learning_rate=1e200, clip_norm=None) for i in range(6)]
    mixed = make([m for pair in zip(calm, wild, strict=True) for m in pair], data, order_seed=ORDER_SEED)
    list(mixed.advance(6))
    assert all(state.divergence is not None for state in mixed.states[1::2])
    alone = Population(calm, data, order_seed=ORDER_SEED)
    list(alone.advance(6))
    check_close(mixed.states[::2], alone.states)


def test_dropped_members_keep_what_they_have_and_the_others_do_not_feel_it(make: Make) -> None:
    data = data_of()
    members = mixture(8, data)
    undisturbed = Population(members, data, order_seed=ORDER_SEED)
    list(undisturbed.advance(6))
    population = make(members, data, order_seed=ORDER_SEED)
    list(population.advance(2))
    population.drop([0, 1, 5])
    kept = [(bits(s), s.best, s.ended_at, dict(s.best_weights)) for s in population.states]
    assert {i for i, _ in population.advance(4)} == {2, 3, 4, 6, 7}
    population.drop([7, 0])
    list(population.advance(6))
    assert [len(s.curve) for s in population.states] == [2, 2, 6, 6, 6, 2, 6, 4]
    for i in (0, 1, 5):
        state = population.states[i]
        assert state.is_dropped and not state.is_living and not state.is_finished and state.ended_at is not None
        assert (bits(state), state.best, state.ended_at, state.best_weights) == kept[i]
    stay = [2, 3, 4, 6]
    check_close([population.states[i] for i in stay], [undisturbed.states[i] for i in stay])
    population.drop(range(8))
    assert not list(population.advance(6))


def test_the_same_calls_give_the_same_bits(make: Make) -> None:
    data = data_of(dtype=torch.float32)
    members = mixture(7, data)

    def trained() -> Engine:
        population = make(members, data, order_seed=ORDER_SEED)
        list(population.advance(2))
        population.drop([3])
        list(population.advance(2))
        list(population.advance(5))
        population.drop([0, 6])
        torch.rand(3)  # what others draw meanwhile does not matter
        list(population.advance(100))
        return population

    one, two = trained(), trained()
    check_same_bits(one, two)
    assert [len(s.curve) for s in one.states] == [5, 6, 6, 2, 6, 6, 5]


def test_curves_grow_while_they_are_told(make: Make) -> None:
    data = data_of()
    population = make(mixture(5, data), data, order_seed=ORDER_SEED)
    told = [0] * 5
    for to_epoch in (1, 4, 6):
        for i, epoch in population.advance(to_epoch):
            told[i] += 1
            assert epoch.epoch == told[i] and population.states[i].curve[told[i] - 1] == epoch
        assert told == [to_epoch] * 5


@pytest.mark.parametrize("n", [1, 2])
def test_members_may_be_few(make: Make, n: int) -> None:
    data = data_of()
    population, alone = (f(mixture(n, data), data, order_seed=ORDER_SEED) for f in (make, Population))
    assert len(list(population.advance(6))) == 6 * n
    list(alone.advance(6))
    check_close(population.states, alone.states)


def test_members_that_do_not_fit_are_refused_at_once(make: Make) -> None:
    data = data_of()
    with pytest.raises(ConfigError, match="optimizer must be equal for all members"):
        make([member(0, data), member(1, data, optimizer="adamw")], data, order_seed=0)
    with pytest.raises(ConfigError, match="member 1 has n_features=10"):
        make([member(0, data), member(1, data_of("diabetes"))], data, order_seed=0)
    with pytest.raises(ConfigError, match="at least one member"):
        make([], data, order_seed=0)


# Parts


def test_a_part_in_a_worker_has_the_bits_of_a_population_of_its_own() -> None:
    data = data_of(dtype=torch.float32)
    members = mixture(8, data)
    whole = three_parts(members, data, order_seed=ORDER_SEED)
    list(whole.advance(6))
    torch.set_num_threads(1)
    for part in parts_of(members, 3):
        alone = Population([members[i] for i in part], data, order_seed=ORDER_SEED)
        list(alone.advance(6))
        for state, i in zip(alone.states, part, strict=True):
            assert bits(state) == bits(whole.states[i])
    torch.set_num_threads(2)


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_members_than_parts_are_a_part_each(n: int) -> None:
    data = data_of()
    members = mixture(n, data)
    population = three_parts(members, data, order_seed=ORDER_SEED)
    list(population.advance(3))
    population.drop(range(1, n))
    list(population.advance(6))
    alone = Population(members[:1], data, order_seed=ORDER_SEED)
    list(alone.advance(6))
    check_close(population.states[:1], alone.states)


def test_there_are_as_many_parts_as_torch_may_use_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of()
    found = populate(mixture(5, data), data, order_seed=0)
    assert isinstance(found, ParallelPopulation) and found._n_parts == 2
    few = populate(mixture(1, data), data, order_seed=0)
    assert isinstance(few, Population) or few._n_parts == 1
    monkeypatch.setattr(parallel, "can_have_workers", lambda: False)
    assert isinstance(populate(mixture(5, data), data, order_seed=0), Population)


def test_torch_has_one_thread_while_parts_train_and_its_own_afterwards() -> None:
    data = data_of()
    population = two_parts(mixture(4, data), data, order_seed=ORDER_SEED)
    assert {torch.get_num_threads() for _ in population.advance(2)} == {1}
    assert torch.get_num_threads() == 2
    events = population.advance(4)
    next(events)
    events.close()
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_members_with_a_backbone_are_trained_as_elsewhere_and_go_on_sharing_it(make: Make, optimizer: str) -> None:
    data = data_of()
    backbone = random_backbone(ModelConfig(13, 3, (7, 6), activation="gelu", normalization="batch"), seed=1)
    members = mixture(4, data, optimizer=optimizer)
    for n_frozen in (0, 1, 2):
        config = dataclasses.replace(members[0].train_config, n_frozen=n_frozen, backbone_rate=0.5)
        members.append(Member(backbone.model_config(3, dropout=0.2), config, seed=n_frozen, backbone=backbone))
    population = make(members, data, order_seed=ORDER_SEED)
    for to_epoch in (2, 3, 6):
        list(population.advance(to_epoch))
        assert all(state.member.backbone is backbone for state in population.states[4:])
    alone = Loop(members, data, order_seed=ORDER_SEED)
    list(alone.advance(6))
    check_close(population.states, alone.states)


# Ended early


def check_lost(population: ParallelPopulation, indices: Sequence[int]) -> None:
    """What a worker told of them is gone with what it did not: they are where its job began."""
    for i in indices:
        state = population.states[i]
        assert (state.curve, state.best, state.best_weights) == ([], None, {}) and state.is_living


def check_next_works() -> None:
    data = data_of()
    population, alone = (f(mixture(5, data), data, order_seed=ORDER_SEED) for f in (two_parts, Population))
    list(population.advance(6))
    list(alone.advance(6))
    check_close(population.states, alone.states)


def wait_for_answers(worker: Worker, n_bytes: int) -> None:
    """Until it has sent so much that nobody read."""
    waiting = array.array("i", [0])
    while waiting[0] < n_bytes:
        assert worker.is_alive
        time.sleep(0.01)
        fcntl.ioctl(worker._receiver.fileno(), termios.FIONREAD, waiting)


@pytest.mark.parametrize("worker_is", ["ahead", "behind"])
def test_closing_leaves_every_part_at_the_end_of_an_epoch_and_it_goes_on(
    worker_is: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of()
    members = mixture(6, data, epochs=2000)
    population = two_parts(members, data, order_seed=ORDER_SEED)
    here, there = parts_of(members)
    (worker,) = crew(1)
    if worker_is == "behind":
        os.kill(worker.pid, signal.SIGSTOP)
    events = population.advance(2000)
    for i, epoch in events:
        assert i in here
        if epoch.epoch == (1 if worker_is == "ahead" else 5):
            break
    stop = Worker.stop

    def stop_and_go(self: Worker) -> None:
        stop(self)
        os.kill(self.pid, signal.SIGCONT)

    if worker_is == "ahead":
        wait_for_answers(worker, 2000)
    else:
        monkeypatch.setattr(Worker, "stop", stop_and_go)
    events.close()
    assert worker.is_alive
    epochs = [state.epoch for state in population.states]
    of_here, of_there = ({epochs[i] for i in part} for part in (here, there))
    assert (of_here, of_there) == (({1}, {max(epochs)}) if worker_is == "ahead" else ({5}, {1}))
    assert 1 < max(epochs) < 2000
    assert all(s.best in s.curve and s.best_weights and s.is_living for s in population.states)
    # Whoever is left is dealt out anew, those ahead with those behind.
    population.drop(here[1:])
    living = [i for i in range(6) if i not in here[1:]]
    mixed = [{epochs[living[place]] for place in part} for part in parts_of([members[i] for i in living])]
    assert max(map(len, mixed)) == 2
    last = max(epochs) + 3
    for i, epoch in population.advance(last):
        epochs[i] += 1
        assert epoch.epoch == epochs[i]
    assert {epochs[i] for i in living} == {last}
    undisturbed = Population(members, data, order_seed=ORDER_SEED)
    list(undisturbed.advance(last))
    check_close([population.states[i] for i in living], [undisturbed.states[i] for i in living], within=1e-7)


def test_ctrl_c_kills_the_workers_and_the_next_population_works() -> None:
    data = data_of()
    members = mixture(6, data, epochs=2000)
    population = two_parts(members, data, order_seed=ORDER_SEED)
    (worker,) = crew(1)
    there = parts_of(members)[1]
    events = population.advance(2000)
    for i, _ in events:
        if i in there:
            break
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt())
    assert not worker.is_alive
    check_lost(population, there)
    check_next_works()


def test_ctrl_c_while_it_is_closed_kills_the_workers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of()
    population = two_parts(mixture(6, data, epochs=2000), data, order_seed=ORDER_SEED)
    (worker,) = crew(1)
    events = population.advance(2000)
    next(events)

    def interrupt(*_args: object) -> list[Worker]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "ready", staticmethod(interrupt))
        with pytest.raises(KeyboardInterrupt):
            events.close()
    assert not worker.is_alive


def test_a_worker_lost_while_it_is_closed_takes_the_others_with_it() -> None:
    data = data_of()
    members = mixture(6, data, epochs=2000)
    population = three_parts(members, data, order_seed=ORDER_SEED)
    one, two = crew(2)
    os.kill(one.pid, signal.SIGSTOP)
    events = population.advance(2000)
    next(events)
    os.kill(one.pid, signal.SIGKILL)
    with pytest.raises(WorkerLost):
        events.close()
    assert not one.is_alive and one not in crew(2)
    assert not two.is_busy or not two.is_alive
    check_lost(population, parts_of(members, 3)[1])


def test_a_killed_worker_is_a_lack_of_memory_and_its_members_are_where_they_began() -> None:
    data = data_of()
    members = mixture(6, data)
    population = two_parts(members, data, order_seed=ORDER_SEED)
    here, there = parts_of(members)
    trap(population.states[there[0]], DIE, 3)
    told: list[int] = []
    with pytest.raises(MemoryError, match="a worker process ended before its work was done"):
        told.extend(i for i, _ in population.advance(6))
    assert told.count(here[0]) == 6
    check_lost(population, there)
    assert all(population.states[i].is_finished for i in here)


def test_an_exception_in_a_worker_is_raised_here_with_its_type() -> None:
    data = data_of()
    members = mixture(6, data)
    population = two_parts(members, data, order_seed=ORDER_SEED)
    trap(population.states[parts_of(members)[1][0]], "raise ArithmeticError('of a worker')", 2)
    with pytest.raises(ArithmeticError, match="of a worker"):
        list(population.advance(6))


def test_an_exception_in_the_part_that_is_trained_here_is_raised_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_args: object) -> None:
        raise MemoryError("here")

    data = data_of()
    population = two_parts(mixture(6, data), data, order_seed=ORDER_SEED)
    with monkeypatch.context() as patch:
        patch.setattr(Population, "train_epoch", fail)
        with pytest.raises(MemoryError, match="here"):
            list(population.advance(6))
    check_next_works()


# Others at the same time


def test_two_populations_may_be_under_way_at_once() -> None:
    data = data_of()
    members = mixture(8, data, epochs=30)
    one, two = (two_parts(half, data, order_seed=ORDER_SEED) for half in (members[:4], members[4:]))
    first = one.advance(30)
    next(first)
    list(two.advance(30))
    list(first)
    alone = Population(members, data, order_seed=ORDER_SEED)
    list(alone.advance(30))
    check_close([*one.states, *two.states], alone.states, within=1e-7)


def test_a_member_dropped_while_others_are_told_stays_dropped() -> None:
    data = data_of()
    members = mixture(6, data)
    population = two_parts(members, data, order_seed=ORDER_SEED)
    (here, *_), (there, *_) = parts_of(members)
    events = population.advance(3)
    next(events)
    population.drop([here, there])
    list(events)
    assert {i for i, _ in population.advance(6)} == set(range(6)) - {here, there}
    for i in (here, there):
        state = population.states[i]
        assert state.is_dropped and state.ended_at is not None and len(state.curve) <= 3
        assert state.best in state.curve and state.best_weights


SCRIPT = """
from tests.dlcore.test_parallel import data_of, mixture, two_parts
data = data_of()
for _ in two_parts(mixture(4, data, epochs=5000), data, order_seed=0).advance(5000):
    raise KeyboardInterrupt
"""


def test_an_interrupted_program_says_nothing_of_its_workers() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=240,
    )
    assert done.stderr.count("Traceback") == 1 and done.stderr.rstrip().endswith("KeyboardInterrupt")
