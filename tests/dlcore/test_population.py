import dataclasses
import functools
import gc
import itertools
import math
import random
from collections.abc import Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcore.config import (
    ACTIVATIONS,
    CLASS_WEIGHTS,
    DRAWN_INITIALIZATIONS,
    NORMALIZATIONS,
    SCHEDULES,
    DataConfig,
    ModelConfig,
    TrainConfig,
)
from dlcore.data import load_splits, to_tensors
from dlcore.errors import ConfigError
from dlcore.evaluation import evaluate
from dlcore.memory import predict_memory_bytes
from dlcore.models import build_model, nudge
from dlcore.population import Member, MemberState, Population
from dlcore.rows import TensorData
from dlcore.tasks import Task
from dlcore.training import Epoch, Training, train
from tests.dlcore.backbones import random_backbone

ORDER_SEED = 5
TASKS = {"multiclass": "digits", "binary": "breast_cancer", "regression": "diabetes"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The reference loop is several times faster so, and what a population does in threads has tests of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def data_of(name: str, dtype: torch.dtype = torch.float64) -> TensorData:
    return to_tensors(load_splits(DataConfig(source=f"sklearn:{name}"), seed=0), "cpu", dtype)


RATES = {"sgd": (1e-3, 0.5), "adamw": (1e-4, 3e-2)}
"""Of the space that a study searches unless its spec says otherwise."""


N_MOVES = 8
"""Moves by one unit in the last place that a curve must bear to be called stable, where it is not the population's."""


def random_member(draw: random.Random, data: TensorData, epochs: int, optimizer: str) -> Member:
    """One point of the space that a study would search, over all axes.

    Learning rate and momentum are those of a study's default space, all else goes to where a spec may take it. Widths
    end at 48, not 256, for the time it takes; they begin at 4, not 16, which is harder: see `n_stable_among`.
    """
    depth, has_classes = draw.choice([0, 1, 1, 2, 2, 3, 4]), data.task.name != "regression"
    widths = tuple(round(math.exp(draw.uniform(math.log(4), math.log(48)))) for _ in range(depth))
    model = ModelConfig(
        data.x_train.shape[1],
        data.task.n_outputs,
        widths if draw.random() < 0.3 else widths[:1] * depth,
        activation=draw.choice(ACTIVATIONS),
        slope=draw.choice([0.01, draw.random()]),
        initialization=draw.choice(DRAWN_INITIALIZATIONS),
        dropout=draw.choice([0.0, 0.0, draw.uniform(0.05, 0.5)]),
        normalization=draw.choice(["none", *NORMALIZATIONS]),
    )
    training = TrainConfig(
        epochs=epochs,
        batch_size=128,
        optimizer=optimizer,
        learning_rate=math.exp(draw.uniform(*map(math.log, RATES[optimizer]))),
        momentum=draw.choice([0.0, draw.uniform(0, 0.95)]),
        nesterov=draw.random() < 0.3,
        weight_decay=draw.choice([0.0, 10 ** draw.uniform(-5, 0)]),
        schedule=draw.choice(SCHEDULES),
        warmup_epochs=draw.choice([0, 0, 2]),
        clip_norm=draw.choice([None, None, draw.uniform(0.1, 3)]),
        patience=draw.choice([None, None, 5]),
        noise=draw.choice([0.0, 0.0, draw.uniform(0.01, 0.5)]),
        mixup=draw.choice([0.0, 0.0, draw.uniform(0.05, 1)]),
        label_smoothing=draw.choice([0.0, draw.uniform(0, 0.3)]) if has_classes else 0.0,
        class_weights=draw.choice(CLASS_WEIGHTS) if has_classes else "none",
    )
    member = Member(model, training, seed=draw.getrandbits(62))
    # By a generator of its own, so that all the others are what they are without pretrained ones among them.
    own = random.Random(member.seed)
    return pretrained(member, own) if depth > 0 and own.random() < 0.4 else member


def pretrained(member: Member, draw: random.Random) -> Member:
    """The same member, but for hidden layers that come from a backbone, some of them frozen."""
    backbone = random_backbone(member.model_config, draw.getrandbits(31))
    n_frozen, rate = draw.randint(0, member.model_config.depth), draw.choice([1.0, draw.uniform(0.01, 2)])
    return dataclasses.replace(
        member,
        model_config=dataclasses.replace(member.model_config, initialization="pretrained"),
        train_config=dataclasses.replace(member.train_config, n_frozen=n_frozen, backbone_rate=rate),
        backbone=backbone,
    )


def random_members(
    n: int, data: TensorData, *, epochs: int = 20, optimizer: str = "sgd", seed: int = 0
) -> list[Member]:
    draw = random.Random(seed)
    return [random_member(draw, data, epochs, optimizer) for _ in range(n)]


def trained(members: Sequence[Member], data: TensorData) -> Population:
    population = Population(members, data, order_seed=ORDER_SEED)
    for _ in population.advance(members[0].train_config.epochs):
        pass
    return population


def alone(member: Member, data: TensorData, *, nudged: int | None = None) -> Training:
    """The reference loop; with `nudged` from initial weights that are moved by one unit in the last place, one way or
    another for each number."""
    training = Training(
        member.model_config,
        member.train_config,
        data,
        seed=member.seed,
        order_seed=ORDER_SEED,
        backbone=member.backbone,
    )
    if nudged is not None:
        nudge(training.model, nudged)
    training.advance(member.train_config.epochs)
    return training


def distance(left: Sequence[Epoch], right: Sequence[Epoch]) -> float:
    """The largest difference of any loss of two curves, relative to max(1, loss)."""
    if len(left) != len(right):
        return math.inf
    pairs = [(a.train_loss, b.train_loss) for a, b in zip(left, right, strict=True)]
    pairs += [(a.val_loss, b.val_loss) for a, b in zip(left, right, strict=True)]
    return max((abs(a - b) / max(1, abs(a)) for a, b in pairs), default=0.0)


def without_times(state: MemberState) -> list[Epoch]:
    return [dataclasses.replace(epoch, finished_at=0.0) for epoch in state.curve]


def assert_all_close(left: Sequence[MemberState], right: Sequence[MemberState], within: float = 1e-12) -> None:
    for a, b in zip(left, right, strict=True):
        assert a.curve
        assert distance(a.curve, b.curve) <= within


def n_stable_among(data: TensorData, members: Sequence[Member], first: float, stable: float) -> int:
    """Hold each member against the loop: its first epoch, and all epochs where the loop itself is stable.

    Returns:
        How many are: those whose curve the loop changes by no more than `stable` when its initial weights are moved by
        one unit in the last place.

    Of 480 members drawn as above, 9 were not, of two kinds. Six were networks with relu, 4 or 5 units wide, and biases
    that begin at 0: where all units of a layer are 0, the next one's inputs are exactly 0, on the kink, and the move
    takes them off it (with the zeros left alone, all six are stable). Three, in float32, had three or four layers and
    a learning rate at which rounding grows by itself: AdamW's above 0.01 twice, SGD's at 0.04 once.
    """
    population, n_stable = trained(members, data), 0
    for member, state in zip(members, population.states, strict=True):
        reference = alone(member, data)
        assert reference.curve, "a member that diverges at once proves nothing"
        assert distance(reference.curve[:1], state.curve[:1]) <= first
        # One move finds not every kink that rounding may cross (of one in 204 here 2 of 8 do): a member that differs
        # is asked with more of them, before its difference is held against the population.
        n_moves = 1 if distance(reference.curve, state.curve) <= first else N_MOVES
        if any(distance(reference.curve, alone(member, data, nudged=i).curve) > stable for i in range(n_moves)):
            continue
        n_stable += 1
        assert distance(reference.curve, state.curve) <= first
        assert [e.learning_rate for e in state.curve] == [e.learning_rate for e in reference.curve]
        assert state.stopped_early == reference.stopped_early
        assert (state.divergence is None) == (reference.divergence is None)
        assert state.best_weights.keys() == reference.best_weights.keys()
        assert all(state.best_weights[n].shape == w.shape for n, w in reference.best_weights.items())
    return n_stable


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("task", TASKS)
def test_a_member_gets_what_the_loop_gives_it_alone(task, optimizer):
    data = data_of(TASKS[task])
    members = random_members(8, data, optimizer=optimizer, seed=2, epochs=8)
    assert n_stable_among(data, members, first=1e-9, stable=1e-10) == 8


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dtype, first, stable", [(torch.float64, 1e-9, 1e-10), (torch.float32, 1e-4, 1e-5)])
def test_two_hundred_members_get_what_the_loop_gives_them_alone(dtype, first, stable):
    shares = {}
    for seed, (task, optimizer) in enumerate(itertools.product(TASKS, RATES)):
        data = data_of(TASKS[task], dtype)
        members = random_members(34, data, optimizer=optimizer, seed=100 + seed)
        shares[task, optimizer] = n_stable_among(data, members, first, stable) / 34
    assert sum(shares.values()) / 6 >= 0.95, shares


@pytest.mark.parametrize("n_neighbours", [1, 7, 63])
def test_neighbours_are_not_felt(n_neighbours):
    data = data_of("wine")
    member, *neighbours = random_members(1 + n_neighbours, data, epochs=4, seed=4)
    company = trained([*neighbours[: n_neighbours // 2], member, *neighbours[n_neighbours // 2 :]], data)
    assert_all_close(trained([member], data).states, company.states[n_neighbours // 2 : n_neighbours // 2 + 1])


def test_a_neighbour_that_overflows_is_not_felt():
    data = data_of("wine")
    members = random_members(12, data, epochs=6, seed=5)
    wild = [
        dataclasses.replace(m, train_config=dataclasses.replace(m.train_config, learning_rate=1e200, clip_norm=None))
        for m in members[::3]
    ]
    mixed = trained([m for three in zip(wild, members[1::3], members[2::3], strict=True) for m in three], data)
    assert all(mixed.states[i].divergence is not None for i in range(0, 12, 3))
    calm = [i for i in range(12) if i % 3]
    assert_all_close(trained([members[i] for i in calm], data).states, [mixed.states[i] for i in calm])


def test_a_member_diverges_in_the_epoch_and_for_the_reason_that_the_loop_names():
    data = data_of("diabetes")
    rates = [1e-3, 0.5, 2.0, 10.0, 1e3, 1e30]
    members = [
        Member(ModelConfig(10, 1, (8,)), TrainConfig(6, batch_size=64, learning_rate=rate), seed=i)
        for i, rate in enumerate(rates)
    ]
    population = trained(members, data)
    for member, state in zip(members, population.states, strict=True):
        found, expected = state.divergence, alone(member, data).divergence
        assert (found and found.epoch) == (expected and expected.epoch)
        assert (found and found.reason.split()[:3]) == (expected and expected.reason.split()[:3])
    assert population.states[0].divergence is None
    assert population.states[-1].divergence is not None
    assert population.states[-1].is_finished


def test_the_same_members_twice_are_bit_equal():
    data = data_of("wine", torch.float32)
    members = random_members(16, data, epochs=6, seed=6)
    one, two = trained(members, data), trained(members, data)
    assert [without_times(s) for s in one.states] == [without_times(s) for s in two.states]
    for left, right in zip(one.states, two.states, strict=True):
        assert all(torch.equal(w, right.best_weights[name]) for name, w in left.best_weights.items())


def test_threads_change_nothing_from_one_time_to_the_next():
    data = data_of("digits", torch.float32)
    members = random_members(12, data, epochs=3, seed=7)
    torch.set_num_threads(2)
    one, two = trained(members, data), trained(members, data)
    assert torch.get_num_threads() == 2
    assert [without_times(s) for s in one.states] == [without_times(s) for s in two.states]
    torch.set_num_threads(1)
    assert_all_close(one.states, trained(members, data).states, within=1e-4)


def test_training_in_pieces_is_bit_equal_to_in_one_go():
    data = data_of("wine", torch.float32)
    members = random_members(10, data, epochs=9, seed=8)
    members = [dataclasses.replace(m, train_config=dataclasses.replace(m.train_config, patience=None)) for m in members]
    whole, pieces = trained(members, data), Population(members, data, order_seed=ORDER_SEED)
    yielded = []
    for to_epoch in (1, 1, 4, 100):
        yielded += pieces.advance(to_epoch)
        torch.rand(3)  # what others draw meanwhile does not matter
    assert [without_times(s) for s in pieces.states] == [without_times(s) for s in whole.states]
    assert yielded == [(i, s.curve[n]) for n in range(9) for i, s in enumerate(pieces.states)]
    assert not list(pieces.advance(100))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_those_that_stay_do_not_feel_it_when_others_are_dropped(optimizer):
    data = data_of("wine")
    members = random_members(18, data, epochs=9, optimizer=optimizer, seed=9)
    undisturbed, population = trained(members, data), Population(members, data, order_seed=ORDER_SEED)
    list(population.advance(3))
    population.drop(range(0, 18, 2))
    dropped = [without_times(s) for s in population.states[::2]]
    list(population.advance(6))
    population.drop([1])
    list(population.advance(9))
    assert sum(len(stack.members) for stack in population.stacks) <= 9, "else nothing was packed anew"
    assert [without_times(s) for s in population.states[::2]] == dropped
    assert all(len(s.curve) <= 3 and s.is_dropped and s.ended_at for s in population.states[::2])
    assert_all_close(population.states[3::2], undisturbed.states[3::2])


def test_early_stopping_and_the_best_epoch_are_the_loops():
    data = data_of("breast_cancer")
    members = [
        Member(
            ModelConfig(30, 1, (12,) * (1 + i % 3), dropout=0.2 * (i % 2)),
            TrainConfig(30, batch_size=64, learning_rate=0.3, patience=3 + i % 2, objective="accuracy"),
            seed=i,
        )
        for i in range(8)
    ]
    population = trained(members, data)
    for member, state in zip(members, population.states, strict=True):
        reference = alone(member, data)
        assert len(state.curve) == len(reference.curve)
        assert state.best and reference.best and state.best.epoch == reference.best.epoch
        assert state.objective_value(state.best) == reference.objective_value(reference.best)
        assert state.ended_at == state.curve[-1].finished_at
    assert any(state.stopped_early for state in population.states)
    assert len({len(state.curve) for state in population.states}) > 1


@pytest.mark.parametrize("task", TASKS)
def test_the_kept_weights_reproduce_the_best_epoch_in_a_network_of_the_loop(task):
    data = data_of(TASKS[task])
    members = random_members(8, data, epochs=5, seed=10)
    for member, state in zip(members, trained(members, data).states, strict=True):
        model = build_model(member.model_config, seed=0, dtype=torch.float64)
        model.load_state_dict(state.best_weights)
        assert state.best is not None
        found = evaluate(model, data.task, data.x_val, data.y_val)["loss"]
        assert found == pytest.approx(state.best.val_loss, rel=1e-12)
        assert not any(state.is_better(epoch, state.best) for epoch in state.curve)


def test_members_learn():
    data = data_of("digits", torch.float32)
    members = [Member(ModelConfig(64, 10, (32,)), TrainConfig(15, objective="accuracy"), seed=i) for i in range(4)]
    assert all(s.best and s.best.val_metric > 0.95 for s in trained(members, data).states)


def synthetic(n_rows: int, n_features: int, task: Task) -> TensorData:
    stream = torch.Generator().manual_seed(n_rows * 100 + n_features)
    x = torch.randn(n_rows + 7, n_features, generator=stream, dtype=torch.float64)
    if task.name == "regression":
        y = torch.randn(n_rows + 7, task.n_outputs, generator=stream, dtype=torch.float64)
    else:
        classes = torch.arange(n_rows + 7) % max(task.n_outputs, 2)
        y = classes if task.name == "multiclass" else classes.to(torch.float64)
    return TensorData(task, x[:n_rows], y[:n_rows], x[n_rows:], y[n_rows:])


tasks = st.one_of(
    st.just(Task("binary", 1)),
    st.integers(2, 9).map(lambda n: Task("multiclass", n)),
    st.integers(1, 3).map(lambda n: Task("regression", n, (0.0,) * n, (1.0,) * n)),
)
networks = st.lists(
    st.tuples(
        st.lists(st.integers(1, 9), max_size=3).map(tuple),
        st.sampled_from(ACTIVATIONS),
        st.sampled_from([0.0, 0.4]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(tasks, networks, st.integers(2, 30), st.integers(1, 3), st.integers(1, 9), st.sampled_from(["sgd", "adamw"]))
def test_any_shape_agrees_with_the_loop(task, shapes, n_rows, n_features, batch_size, optimizer):
    data = synthetic(n_rows, n_features, task)
    config = TrainConfig(2, batch_size=batch_size, optimizer=optimizer, learning_rate=0.01, clip_norm=1.0)
    members = [
        Member(
            ModelConfig(n_features, task.n_outputs, widths, activation=activation, dropout=dropout),
            dataclasses.replace(config, clip_norm=None) if i % 2 else config,
            seed=i,
        )
        for i, (widths, activation, dropout) in enumerate(shapes)
    ]
    for member, state in zip(members, trained(members, data).states, strict=True):
        assert distance(alone(member, data).curve, state.curve) <= 1e-9


@pytest.mark.parametrize("name", ["width of one", "one feature", "last batch of one row", "more classes than rows"])
def test_the_corners_that_hypothesis_may_miss(name):
    task = Task("multiclass", 12)
    data = synthetic(17, 1 if name == "one feature" else 3, task)
    width = 1 if name == "width of one" else 5
    config = TrainConfig(3, batch_size=8 if name != "last batch of one row" else 16, learning_rate=0.05)
    members = [
        Member(ModelConfig(data.x_train.shape[1], 12, (width,) * (1 + i % 2), activation=a, dropout=0.3), config, i)
        for i, a in enumerate(ACTIVATIONS)
    ]
    for member, state in zip(members, trained(members, data).states, strict=True):
        assert distance(train(member.model_config, config, data, seed=member.seed, order_seed=ORDER_SEED).curve,
                        state.curve) <= 1e-9  # fmt: skip


@pytest.mark.parametrize(
    "field, value", [("batch_size", 64), ("optimizer", "adamw"), ("epochs", 3), ("objective", "f1")]
)
def test_members_that_differ_where_they_must_not_are_refused_by_name(field, value):
    data, model, config = data_of("wine"), ModelConfig(13, 3, (4,)), TrainConfig(2)
    other = dataclasses.replace(config, **{field: value})
    with pytest.raises(ConfigError, match=f"{field} must be equal for all members of a population; got .*{value}"):
        Population([Member(model, config, 0), Member(model, other, 1)], data, order_seed=0)


def test_a_member_that_does_not_fit_the_data_is_refused():
    members = [Member(ModelConfig(13, 3, (4,)), TrainConfig(2), 0), Member(ModelConfig(12, 3, (4,)), TrainConfig(2), 0)]
    with pytest.raises(ConfigError, match="member 1 has n_features=12"):
        Population(members, data_of("wine"), order_seed=0)
    with pytest.raises(ConfigError, match="at least one member"):
        Population([], data_of("wine"), order_seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer, has_dropout, precision, normalization, cures",
    [
        ("sgd", False, "fp32", "none", {}),
        ("adamw", False, "fp32", "none", {}),
        ("sgd", True, "fp32", "none", {}),
        ("adamw", True, "bf16", "none", {}),
        ("adamw", False, "fp32", "batch", {"mixup": 0.2, "noise": 0.1}),
        ("sgd", False, "fp32", "layer", {"label_smoothing": 0.1}),
    ],
)
def test_the_predicted_memory_is_what_is_held(optimizer, has_dropout, precision, normalization, cures):
    data = data_of("digits", torch.float32)
    members = random_members(24, data, epochs=2, optimizer=optimizer, seed=11)
    network = {"dropout": 0.2 * has_dropout, "normalization": normalization}
    cures = {"noise": 0.0, "mixup": 0.0, "label_smoothing": 0.0, "class_weights": "none"} | cures
    wide = ModelConfig(64, 10, (200, 200), **network)
    members = [
        dataclasses.replace(
            m,
            model_config=dataclasses.replace(m.model_config, **network),
            train_config=dataclasses.replace(m.train_config, precision=precision, **cures),
            backbone=m.backbone and random_backbone(dataclasses.replace(m.model_config, **network), 1),
        )
        for m in members
    ]
    assert any(m.train_config.n_frozen for m in members)
    own = dataclasses.replace(members[0].train_config, n_frozen=0, backbone_rate=1.0)
    members += [Member(wide, own, seed=1)]
    gc.collect()
    before = held_storages()
    population = trained(members, data)
    rows = (data.x_train, data.y_train, data.x_val, data.y_val)
    held = sum(held_storages().values()) - sum(before.values()) + sum(t.untyped_storage().nbytes() for t in rows)
    largest = max(len(stack.members) for stack in population.stacks)
    passing = 4 * largest * max(10 * len(data.x_val), 128 * 64 if cures.get("noise") else 0) * 4
    assert held + passing == pytest.approx(predict_memory_bytes(members, data), rel=0.05)
    assert population.states


def held_storages() -> dict[int, int]:
    """Bytes of every tensor's memory that Python can reach, by address."""
    found = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor:
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return found
