"""dlcore.visits: members with rows or an order of their own get what the loop gives them on those rows alone."""

import dataclasses
import functools
import gc
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcore import population
from dlcore.config import ACTIVATIONS, DataConfig, ModelConfig, TrainConfig
from dlcore.curve import Epoch
from dlcore.data import load_splits, to_tensors
from dlcore.engines import Loop, Together
from dlcore.errors import ConfigError, DataError
from dlcore.memory import predict_memory_bytes
from dlcore.packing import Member
from dlcore.parallel import ParallelPopulation
from dlcore.population import Population
from dlcore.rows import Rows, TensorData
from dlcore.seeding import batch_order
from dlcore.tasks import Task
from dlcore.training import Training, train
from dlcore.visits import Visits

TASKS = {"multiclass": "digits", "binary": "breast_cancer", "regression": "diabetes"}
ORDER_SEED = 5


@functools.cache
def table_of(name: str, dtype: torch.dtype = torch.float64, n_rows: int = 1000) -> TensorData:
    """One table as train and val, as for a cross-validation."""
    data = to_tensors(load_splits(DataConfig(source=f"sklearn:{name}"), seed=0), "cpu", dtype)
    x, y = torch.cat([data.x_train, data.x_val])[:n_rows], torch.cat([data.y_train, data.y_val])[:n_rows]
    return TensorData(data.task, x, y, x, y)


def folds(n_rows: int, k: int) -> list[Rows]:
    """Each row is in val of one fold, and in train of all others; sizes differ by one where k does not divide."""
    of_row = torch.randperm(n_rows, generator=torch.Generator().manual_seed(k)) % k
    return [Rows((of_row != i).nonzero()[:, 0], (of_row == i).nonzero()[:, 0]) for i in range(k)]


def member(data: TensorData, seed: int, batch_size: int = 64, *, epochs: int = 3, **changes: object) -> Member:
    """Depth, width, activation, dropout, clipping and schedule differ from seed to seed."""
    model = ModelConfig(
        data.x_train.shape[1],
        data.task.n_outputs,
        (5 + seed % 7, 9, 6)[: seed % 4],
        activation=ACTIVATIONS[seed % len(ACTIVATIONS)],
        slope=0.05,
        dropout=0.3 * (seed % 2),
    )
    config = TrainConfig(
        epochs,
        batch_size,
        learning_rate=0.02,
        clip_norm=0.5 if seed % 3 == 0 else None,
        schedule=("constant", "cosine")[seed % 2],
        warmup_epochs=seed % 2,
    )
    extra = {name: changes.pop(name) for name in ("rows", "order_seed") if name in changes}
    return Member(model, dataclasses.replace(config, **changes), seed, **extra)  # type: ignore[arg-type]


def alone(member: Member, data: TensorData) -> Training:
    """The twin: a table that has those rows and no others, in the member's own order."""
    table = data if member.rows is None else member.rows.of(data)
    seed = ORDER_SEED if member.order_seed is None else member.order_seed
    return train(member.model_config, member.train_config, table, seed=member.seed, order_seed=seed)


def together(members: Sequence[Member], data: TensorData) -> Population:
    found = Population(members, data, order_seed=ORDER_SEED)
    list(found.advance(members[0].train_config.epochs))
    return found


def without_times(curve: Sequence[Epoch]) -> list[Epoch]:
    return [dataclasses.replace(epoch, finished_at=0.0) for epoch in curve]


def assert_the_twins(members: Sequence[Member], data: TensorData, within: float = 1e-9) -> None:
    for own, state in zip(members, together(members, data).states, strict=True):
        twin = alone(own, data)
        assert twin.curve and len(twin.curve) == len(state.curve)
        for left, right in zip(twin.curve, state.curve, strict=True):
            numbers = [(e.train_loss, e.val_loss, e.val_metric, e.learning_rate) for e in (left, right)]
            assert numbers[0] == pytest.approx(numbers[1], rel=within, abs=within)
        assert state.stopped_early == twin.stopped_early
        assert (state.best and state.best.epoch) == (twin.best and twin.best.epoch)


@pytest.fixture(params=["grouped", "separate"], autouse=True)
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all products of a layer in one call, where this machine has one, and without."""
    if request.param == "separate":
        monkeypatch.setattr(population, "has_grouped_products", lambda *_: False)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("task", TASKS)
def test_each_fold_gets_what_the_loop_gives_it_alone(task: str, optimizer: str) -> None:
    data = table_of(TASKS[task], n_rows=342)
    parts = folds(342, 4)
    assert {len(rows.train) for rows in parts} == {256, 257}, "folds are unequal, else nothing is proven"
    # Batches of 64 leave none over for 256 rows, and a last batch of one row for 257: another number of steps, too.
    members = [member(data, seed, 64, rows=parts[seed % 4], optimizer=optimizer) for seed in range(12)]
    assert_the_twins(members, data)


@pytest.mark.parametrize("task", TASKS)
def test_each_order_is_its_own(task: str) -> None:
    data = table_of(TASKS[task], n_rows=129)
    members = [member(data, seed, 64, order_seed=seed // 2) for seed in range(9)]
    assert_the_twins(members, data)
    first, second = together([members[0], dataclasses.replace(members[0], order_seed=77)], data).states
    assert first.curve[0].train_loss != second.curve[0].train_loss


def test_rows_orders_and_members_without_either_train_side_by_side() -> None:
    data = table_of("digits", n_rows=300)
    parts = folds(300, 3)
    plain = [member(data, seed) for seed in range(6)]
    own = [member(data, seed, rows=parts[seed % 3]) for seed in range(6)]
    both = [member(data, seed, rows=parts[seed % 3], order_seed=seed) for seed in range(6)]
    mixed = [one for three in zip(plain, own, both, strict=True) for one in three]
    assert_the_twins(mixed, data)
    # Those that see what all see are as fast as alone: the same program, to the bit.
    apart, with_others = together(plain, data), together(mixed, data)
    for left, right in zip(apart.states, with_others.states[::3], strict=True):
        assert without_times(left.curve) == without_times(right.curve)
    (left_stack,), right_stack = apart.stacks, next(s for s in with_others.stacks if s.members[0] in plain)
    assert [op.__class__ for op in left_stack.step_ops] == [op.__class__ for op in right_stack.step_ops]


def test_one_batch_serves_all_where_all_see_one_fold() -> None:
    data = table_of("digits", n_rows=200)
    (rows, other) = folds(200, 2)
    same = [member(data, seed, rows=rows, order_seed=3) for seed in range(5)]
    assert (Visits(same, data).train_copies, Visits(same, data).val_copies) == (1, 1)
    assert_the_twins(same, data)
    orders = [dataclasses.replace(m, order_seed=m.seed) for m in same]
    assert (Visits(orders, data).train_copies, Visits(orders, data).val_copies) == (5, 1)
    different = [*same[1:], dataclasses.replace(same[0], rows=other)]
    assert (Visits(different, data).train_copies, Visits(different, data).val_copies) == (5, 5)


def test_an_order_is_batch_by_batch_and_in_each_member_by_member() -> None:
    data = table_of("wine", n_rows=10)
    parts = [Rows(torch.tensor([7, 1, 4]), torch.tensor([0])), Rows(torch.tensor([2, 9, 3]), torch.tensor([5]))]
    members = [member(data, i, rows=rows, order_seed=i) for i, rows in enumerate(parts)]
    drawn: dict[tuple[int, Rows | None], torch.Tensor] = {}
    flat = Visits(members, data).order(ORDER_SEED, 4, 2, drawn).tolist()
    first, second = (rows.train[batch_order(i, 4, 3)].tolist() for i, rows in enumerate(parts))
    assert flat == [*first[:2], *second[:2], first[2], second[2]]
    assert len(drawn) == 2


def test_a_member_with_the_orders_seed_of_all_is_one_of_all() -> None:
    data = table_of("wine")
    plain, same = member(data, 3), member(data, 3, order_seed=ORDER_SEED)
    for left, right in zip(*(s.curve for s in together([plain, same], data).states), strict=True):
        assert (left.train_loss, left.val_loss) == pytest.approx((right.train_loss, right.val_loss), rel=1e-12)


def test_patience_and_those_that_leave_are_each_folds_own() -> None:
    data = table_of("breast_cancer", n_rows=303)
    parts = folds(303, 3)
    members = [
        member(data, seed, rows=parts[seed % 3], epochs=25, learning_rate=0.3, patience=2, objective="accuracy")
        for seed in range(9)
    ]
    assert_the_twins(members, data)
    whole, dropping = together(members, data), Population(members, data, order_seed=ORDER_SEED)
    list(dropping.advance(2))
    dropping.drop([0, 3, 4, 6, 7])
    list(dropping.advance(25))
    for i in (1, 2, 5, 8):
        for left, right in zip(whole.states[i].curve, dropping.states[i].curve, strict=True):
            assert left.val_loss == pytest.approx(right.val_loss, rel=1e-10)


def test_products_of_rounded_factors_know_folds_too() -> None:
    data = table_of("digits", n_rows=200)
    parts = folds(200, 3)
    assert_the_twins([member(data, seed, rows=parts[seed % 3], precision="bf16") for seed in range(6)], data)


def test_both_engines_serve_folds() -> None:
    data = table_of("wine")
    parts = folds(len(data.x_train), 4)
    members = [member(data, seed, rows=parts[seed % 4], order_seed=seed % 3) for seed in range(8)]
    loop, groups = Loop(members, data, order_seed=ORDER_SEED), Together(members, data, order_seed=ORDER_SEED)
    for engine in (loop, groups):
        list(engine.advance(3))
    for left, right in zip(loop.states, groups.states, strict=True):
        assert [e.val_loss for e in left.curve] == pytest.approx([e.val_loss for e in right.curve], rel=1e-9)


@pytest.mark.slow
def test_folds_travel_to_other_cores_and_back() -> None:
    data = table_of("wine")
    parts = folds(len(data.x_train), 3)
    members = [member(data, seed, rows=parts[seed % 3], order_seed=seed % 2) for seed in range(8)]
    whole = together(members, data)
    parallel = ParallelPopulation(members, data, order_seed=ORDER_SEED, n_parts=2)
    list(parallel.advance(1))
    parallel.drop([0])
    list(parallel.advance(3))
    assert [len(state.curve) for state in parallel.states] == [1, *[3] * 7]
    for left, right in zip(whole.states[1:], parallel.states[1:], strict=True):
        assert [e.val_loss for e in left.curve] == pytest.approx([e.val_loss for e in right.curve], rel=1e-9)
        assert left.member == right.member


tasks = st.one_of(
    st.just(Task("binary", 1)),
    st.integers(2, 5).map(lambda n: Task("multiclass", n)),
    st.integers(1, 3).map(lambda n: Task("regression", n, (0.0,) * n, (1.0,) * n)),
)
numbers = st.lists(st.integers(0, 8), min_size=1, max_size=9)


@settings(max_examples=30, deadline=None)
@given(
    tasks,
    st.lists(st.tuples(numbers, numbers, st.integers(0, 15), st.integers(0, 2)), min_size=1, max_size=5),
    st.integers(1, 5),
)
def test_any_rows_agree_with_the_loop(
    task: Task, chosen: list[tuple[list[int], list[int], int, int]], batch_size: int
) -> None:
    """Rows may even come twice."""
    stream = torch.Generator().manual_seed(batch_size)
    x = torch.randn(9, 2, generator=stream, dtype=torch.float64)
    y = torch.arange(9) % max(task.n_outputs, 2)
    if task.name == "regression":
        y = torch.randn(9, task.n_outputs, generator=stream, dtype=torch.float64)
    data = TensorData(
        task, x, y.double() if task.name == "binary" else y, x, y.double() if task.name == "binary" else y
    )
    members = [
        member(data, seed, batch_size, epochs=2, rows=Rows(torch.tensor(own), torch.tensor(val)), order_seed=order)
        for own, val, seed, order in chosen
    ]
    for own, state in zip(members, together(members, data).states, strict=True):
        for left, right in zip(alone(own, data).curve, state.curve, strict=True):
            assert (left.train_loss, left.val_loss) == pytest.approx((right.train_loss, right.val_loss), 1e-9, 1e-9)


@pytest.mark.parametrize(
    "wrong", [torch.tensor([], dtype=torch.int64), torch.tensor([0.0]), torch.tensor([[0]]), torch.tensor([-1])]
)
def test_rows_that_are_none_are_refused(wrong: torch.Tensor) -> None:
    right = torch.tensor([0, 1])
    for train_rows, val_rows, name in ((wrong, right, "train"), (right, wrong, "val")):
        with pytest.raises(DataError, match=f"rows of {name} must be at least one number >= 0"):
            Rows(train_rows, val_rows)


def test_rows_that_the_table_does_not_have_are_refused() -> None:
    data, right = table_of("wine", n_rows=20), torch.arange(20)
    for rows, name in ((Rows(right + 1, right), "train"), (Rows(right, right + 1), "val")):
        with pytest.raises(ConfigError, match=f"rows of {name} must be below 20, their number; got 20"):
            Population([member(data, 0, rows=rows)], data, order_seed=0)


def test_rows_are_equal_if_their_numbers_are() -> None:
    one, same, other = (
        Rows(torch.tensor(t), torch.tensor(v)) for t, v in (([1, 2], [0]), ([1, 2], [0]), ([1], [2, 0]))
    )
    assert one == same and hash(one) == hash(same) and one != other and one != "rows"


@pytest.mark.slow
def test_no_member_has_a_copy_of_its_rows() -> None:
    data = table_of("digits", torch.float32, n_rows=1401)
    parts = folds(1401, 5)
    members = [member(data, seed, rows=parts[seed % 5]) for seed in range(60)]
    gc.collect()
    before = held_bytes()
    found = together(members, data)
    held = held_bytes() - before + data.x_train.untyped_storage().nbytes() + data.y_train.untyped_storage().nbytes()
    passing = 4 * len(members) * 10 * len(parts[0].val) * 4
    assert held + passing == pytest.approx(predict_memory_bytes(members, data), rel=0.1)
    copies = sum(4 * 64 * (len(m.rows.train) + len(m.rows.val)) for m in members if m.rows is not None)
    assert held < 0.6 * copies
    assert found.states


def held_bytes() -> int:
    """Memory of every tensor that Python can reach."""
    found = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor:
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())
