"""dlcore.augmentation: rows are mixed and blurred by the trial's seed and step alone, in both engines alike."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from dlcore.augmentation import Augmentation
from dlcore.parallel import ParallelPopulation
from dlcore.population import Population
from dlcore.rows import Rows, TensorData
from dlcore.seeding import batch_order, mixing_shares
from dlcore.tasks import Task
from dlcore.training import Training, train
from tests.dlcore.cure_tools import ORDER_SEED, SETS, assert_the_loops, config, data_of, members_of, numbers

KINDS = ({}, {"noise": 0.3}, {"mixup": 0.4}, {"noise": 0.1, "mixup": 2.0})
ON_CLASSES = ({"mixup": 0.5, "label_smoothing": 0.1}, {"mixup": 0.2, "class_weights": "balanced", "noise": 0.2})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype, within", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", SETS)
def test_augmented_members_beside_others_get_what_the_loop_gives(name, dtype, within):
    kinds = (*KINDS, *(ON_CLASSES if name != "regression" else KINDS[1:3]))
    data = data_of(SETS[name], dtype)
    population = assert_the_loops(members_of(data, kinds * 2), data, within)
    assert len({stack.members[0].train_config.is_augmented for stack in population.stacks}) == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_it_goes_with_rows_and_orders_of_their_own(optimizer: str) -> None:
    data = data_of("digits")
    folds = [Rows(torch.arange(0, 200), torch.arange(200, 300)), Rows(torch.arange(100, 300), torch.arange(0, 100))]
    members = members_of(data, KINDS * 2, optimizer=optimizer, learning_rate=0.005)
    of_folds = [dataclasses.replace(m, rows=folds[i % 2]) for i, m in enumerate(members)]
    assert_the_loops(of_folds, data)
    orders = [dataclasses.replace(m, order_seed=i) for i, m in enumerate(members)]
    population = Population(orders, data, order_seed=ORDER_SEED)
    list(population.advance(3))
    for member, state in zip(orders, population.states, strict=True):
        twin = train(
            member.model_config, member.train_config, data, seed=member.seed, order_seed=member.order_seed or 0
        )
        assert np.allclose(numbers(twin.curve), numbers(state.curve), rtol=1e-9)


def test_one_augmented_member_alone_and_a_last_batch_of_one_row() -> None:
    data = data_of("wine")
    one_left = TensorData(data.task, data.x_train[:65], data.y_train[:65], data.x_val, data.y_val)
    assert_the_loops(members_of(one_left, KINDS[3:]), one_left)
    assert_the_loops(members_of(one_left, KINDS), one_left)


def test_members_without_are_as_fast_as_alone_and_the_same_to_the_bit() -> None:
    data = data_of("digits", torch.float32)
    members = members_of(data, [{}, {"noise": 0.2}, {}, {"mixup": 0.2}, {}, {}])
    plain = [m for m in members if not m.train_config.is_augmented]
    alone, mixed = (Population(own, data, order_seed=ORDER_SEED) for own in (plain, members))
    for population in (alone, mixed):
        list(population.advance(3))
    found = [s for s in mixed.states if not s.train_config.is_augmented]
    assert [numbers(s.curve) for s in alone.states] == [numbers(s.curve) for s in found]
    of_plain = next(s for s in mixed.stacks if not s.members[0].train_config.is_augmented)
    assert len(alone.stacks[0].step_ops) == len(of_plain.step_ops)


def test_in_pieces_and_packed_anew_it_is_what_it_is_in_one_go() -> None:
    data = data_of("digits")
    members = members_of(data, KINDS * 3, epochs=6)
    whole, pieces = (Population(members, data, order_seed=ORDER_SEED) for _ in range(2))
    list(whole.advance(6))
    list(pieces.advance(2))
    pieces.drop(range(0, 12, 2))
    list(pieces.advance(6))
    for i in range(1, 12, 2):
        assert np.allclose(numbers(whole.states[i].curve), numbers(pieces.states[i].curve), rtol=1e-10)


def test_all_cores_and_one_agree() -> None:
    data = data_of("digits")
    members = members_of(data, (*KINDS, *ON_CLASSES))
    one = Population(members, data, order_seed=ORDER_SEED)
    two = ParallelPopulation(members, data, order_seed=ORDER_SEED, n_parts=2)
    for engine in (one, two):
        list(engine.advance(3))
    for left, right in zip(one.states, two.states, strict=True):
        assert np.allclose(numbers(left.curve), numbers(right.curve), rtol=1e-10)


def test_another_seed_makes_other_rows_and_the_same_one_the_same() -> None:
    x = data_of("digits").x_train[:32]

    def seen(seed: int, step: int) -> torch.Tensor:
        own = Augmentation(config(noise=0.2, mixup=0.4), seed, 3, x)
        return own.rows(x, step, own.mix(step, 32))

    assert torch.equal(seen(1, 4), seen(1, 4))
    rows = [seen(1, 4), seen(2, 4), seen(1, 5), seen(1, 7), x]
    assert all(not torch.equal(rows[i], rows[j]) for i in range(5) for j in range(i))


def test_rows_are_mixed_by_one_share_and_the_noise_is_as_large_as_asked_for() -> None:
    x = torch.randn(512, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = Augmentation(config(mixup=0.7), 9, 10, x)
    mix = own.mix(12, 512)
    assert mix is not None and mix.share == mixing_shares(9, 0.7, 2, 10)[2]
    expected = mix.share * x + (1 - mix.share) * x[mix.partners]
    torch.testing.assert_close(own.rows(x, 12, mix), expected)
    blurred = Augmentation(config(noise=0.3), 9, 10, x).rows(x, 12, None) - x
    assert blurred.std().item() == pytest.approx(0.3, rel=0.02)
    assert abs(blurred.mean().item()) < 0.01


def test_the_loss_of_mixed_rows_is_mixed_as_the_rows_are() -> None:
    data = data_of("digits")
    own = config(mixup=0.6, epochs=1, batch_size=len(data.x_train))
    model = members_of(data, [{}] * 2)[0].model_config
    training = Training(model, own, data, seed=4, order_seed=1)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    mix = Augmentation(own, 4, 1, data.x_train).mix(0, len(data.x_train))
    assert mix is not None
    (point,) = training.advance(1)
    training.model.load_state_dict(before)
    order = batch_order(1, 1, len(data.x_train))
    x, y = data.x_train[order], data.y_train[order]
    onehot = torch.nn.functional.one_hot(y, 10).double()
    outputs = training.model(mix.of(x))
    expected = torch.nn.functional.cross_entropy(outputs, mix.of(onehot))  # PyTorch's own loss of soft targets
    assert point.train_loss == pytest.approx(expected.item(), rel=1e-12)


def test_val_is_not_augmented() -> None:
    data = data_of("digits")
    (member,) = members_of(data, [{"noise": 1.0, "mixup": 1.0}])
    done = train(member.model_config, member.train_config, data, seed=0, order_seed=1)
    with torch.no_grad():
        assert done.curve[-1].val_loss == data.task.loss(done.model(data.x_val), data.y_val).item()


def test_noise_on_a_linear_regression_is_a_penalty_on_its_weights() -> None:
    # Bishop 1995: for squared errors, noise s adds s^2 |w|^2, that is, ridge regression with n s^2.
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(256, 4, generator=stream, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]], dtype=torch.float64)
    data = TensorData(Task("regression", 1, (0.0,), (1.0,)), x, y, x, y)
    (member,) = members_of(data, [{"noise": 0.5}], epochs=400, batch_size=256, learning_rate=0.05, momentum=0.9)
    own = dataclasses.replace(member.train_config, schedule="cosine")
    found = train(member.model_config, own, data, seed=1, order_seed=1).model[0].weight.detach()
    centred = x - x.mean(0)
    ridge = torch.linalg.solve(centred.T @ centred + 256 * 0.25 * torch.eye(4), centred.T @ (y - y.mean()))
    assert torch.allclose(found.double().T, ridge, atol=0.05)
