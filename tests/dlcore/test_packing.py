import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcore.config import ACTIVATIONS, ModelConfig, TrainConfig
from dlcore.elementwise import NEEDS_INPUT
from dlcore.packing import (
    ORDER,
    UNEVEN,
    UNIT_FLOPS,
    VECTOR,
    Cost,
    Member,
    cost_of,
    cut_into_stacks,
    deal,
    engine_for,
    evaluation_chunk,
    padded_widths,
    stack_bytes,
    step_flops,
)

CPU = cost_of("cpu")
GROUPED = cost_of("cpu", is_grouped=True)


def member(*widths: int, **changes: object) -> Member:
    return Member(ModelConfig(20, 3, widths, **changes), TrainConfig(5), seed=0)  # type: ignore[arg-type]


def mixture(n: int) -> list[Member]:
    draw = random.Random(n)
    return [
        member(
            *[draw.randint(1, 300)] * draw.randint(0, 4),
            activation=draw.choice(ACTIVATIONS),
            dropout=draw.choice([0, 0.3]),
        )
        for _ in range(n)
    ]


def test_every_activation_has_a_place_and_a_cost():
    assert sorted(ORDER) == sorted(UNIT_FLOPS) == sorted(ACTIVATIONS)
    assert set(ORDER[-len(NEEDS_INPUT) :]) == NEEDS_INPUT


def test_products_are_grouped_on_the_cpu_alone():
    assert GROUPED.is_grouped and not CPU.is_grouped
    assert not cost_of("cuda", is_grouped=True).is_grouped


@pytest.mark.parametrize("n", [1, 2, 5, 33, 200])
def test_every_member_is_in_one_stack(n):
    stacks = cut_into_stacks(mixture(n), CPU, 4)
    assert sorted(i for stack in stacks for i in stack) == list(range(n))
    assert all(stacks)


def work_of(members: list[Member], parts: list[list[int]]) -> list[float]:
    return [sum(step_flops(members[i].model_config, 128) for i in part) for part in parts]


def test_stacks_fit_the_cache_and_are_even():
    members = mixture(200)
    stacks = cut_into_stacks(members, CPU, 4)
    work = work_of(members, stacks)
    assert len(stacks) > 1
    assert max(work) < 1.5 * sum(work) / len(work)
    taken = [sum(stack_bytes(members[i].model_config, 128, 4) for i in stack) for stack in stacks]
    assert sum(taken) / len(taken) <= CPU.stack_bytes
    assert len(cut_into_stacks(members, cost_of("cuda"), 4)) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 16])
def test_parts_are_dealt_evenly(n):
    members = mixture(200)
    parts = deal(members, n)
    assert sorted(i for part in parts for i in part) == list(range(200))
    work = work_of(members, parts)
    assert len(work) == n and max(work) < 1.25 * sum(work) / n


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=12), st.integers(1, 5))
def test_no_part_is_much_longer_than_it_must_be(widths, n):
    members = [member(width, width) for width in widths]
    parts = deal(members, n)
    assert sorted(i for part in parts for i in part) == list(range(len(widths)))
    assert all(parts) and len(parts) <= min(n, len(widths))
    work = work_of(members, parts)
    alone = max(step_flops(m.model_config, 128) for m in members)
    # Whoever gets a member when all have at least as much work ends no later than that member after the average.
    assert max(work) <= UNEVEN * (sum(work) / n + alone) * (1 + 1e-9)


def test_a_few_large_members_are_spread_and_do_not_all_wait_for_one_core():
    members = [member(8), member(8), member(900, 900), member(8), member(900, 900), member(800, 900)]
    parts = deal(members, 3)
    assert [sum(len(members[i].model_config.widths) == 2 for i in part) for part in parts] == [1, 1, 1]


def test_fewer_members_than_parts_get_a_part_each():
    assert sorted(deal([member(9), member(9), member(9)], 8)) == [[0], [1], [2]]


def test_members_with_dropout_share_a_stack():
    members = mixture(64)
    stacks = cut_into_stacks(members, CPU, 4)
    kinds = [{members[i].model_config.dropout > 0 and members[i].model_config.depth > 0 for i in s} for s in stacks]
    assert sum(len(kind) == 2 for kind in kinds) <= 1, "a mixed stack makes all its members pay"


def test_the_same_members_are_cut_the_same_way():
    assert cut_into_stacks(mixture(50), CPU, 4) == cut_into_stacks(mixture(50), CPU, 4)


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 4), st.booleans()), min_size=1, max_size=30))
def test_padding_never_cuts_a_unit_off(shapes):
    members = [member(*[w] * depth, activation="relu" if is_relu else "tanh") for w, depth, is_relu in shapes]
    ordered = [members[i] for stack in cut_into_stacks(members, CPU, 4) for i in stack]
    for each, padded in zip(ordered, padded_widths(ordered, CPU), strict=True):
        assert len(padded) == each.model_config.depth
        assert all(p >= w for p, w in zip(padded, each.model_config.widths, strict=True))


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(0, 4)), min_size=1, max_size=9))
def test_where_products_are_grouped_widths_are_padded_to_whole_vectors_and_no_further(shapes):
    members = [member(*[w] * depth) for w, depth in shapes]
    for each, padded in zip(members, padded_widths(members, GROUPED), strict=True):
        widths = each.model_config.widths
        assert len(padded) == len(widths)
        assert all(p % VECTOR == 0 and 0 <= p - w < VECTOR for p, w in zip(padded, widths, strict=True))


def test_neighbours_of_nearly_equal_width_share_a_product_and_others_do_not():
    members = [member(w, w) for w in (16, 17, 18, 200, 201, 300)]
    assert padded_widths(members, CPU) == [(18, 18)] * 3 + [(201, 201)] * 2 + [(300, 300)]


def test_dear_calls_pad_more_and_free_ones_not_at_all():
    members = [member(w, w) for w in (16, 40, 90)]
    assert padded_widths(members, Cost(1e12, 1)) == [(90, 90)] * 3
    assert padded_widths(members, Cost(0.0, 1)) == [(16, 16), (40, 40), (90, 90)]


def test_a_stack_with_dropout_pads_to_pairs_of_units():
    members = [member(15, 15, dropout=0.2), member(40, 21)]
    for cost in (CPU, GROUPED):
        assert all(width % 2 == 0 for padded in padded_widths(members, cost) for width in padded)


def test_the_engine_is_a_rule_on_width_and_device():
    assert engine_for(member(), "cpu") == "population"
    assert engine_for(member(16, 1024), "cpu") == "population"
    assert engine_for(member(16, 4096), "cpu") == "loop"
    assert engine_for(member(600), "mps") == "loop"
    seeded = dataclasses.replace(member(64), seed=99)
    assert engine_for(seeded, "cuda") == engine_for(member(64), "cuda")


@pytest.mark.parametrize("n_rows, batch_size, chunk", [(359, 128, 359), (1, 1, 1), (1025, 128, 342), (4000, 512, 1000)])
def test_val_is_measured_in_even_chunks(n_rows, batch_size, chunk):
    assert evaluation_chunk(n_rows, batch_size) == chunk
