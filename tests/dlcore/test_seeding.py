import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlcore.seeding import (
    batch_order,
    derive_seed,
    dropout_mask,
    dropout_rows,
    generator,
    mixing_partners,
    mixing_shares,
    normal_noise,
)

LOW = 0xFFFFFFFF


def lowbias32(x: int) -> int:
    x ^= x >> 16
    x = x * 0x7FEB352D & LOW
    x ^= x >> 15
    x = x * 0x846CA68B & LOW
    return x ^ (x >> 16)


def signed_half(seed: int, step: int, layer: int, row: int, unit: int) -> int:
    """The documented hash for one unit, in plain Python integers."""
    product = seed * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    member = (product >> 32) + step * 0xD1B54A33 + layer * 0xABC98389
    row_key = lowbias32(member + row * 0x8CB92BA7 & LOW)
    unit_key = lowbias32(unit // 2 * 0x9E3779B9 & LOW)
    word = lowbias32(row_key + unit_key & LOW)
    half = (word >> 16 * (unit % 2)) & 0xFFFF
    return half - 65536 if half >= 32768 else half


def keeps(seed: int, step: int, layer: int, p: float, row: int, unit: int) -> bool:
    """The slow twin of `dropout_mask`."""
    return signed_half(seed, step, layer, row, unit) >= round(np.float32(p) * 65536) - 32768


def test_derived_seeds_are_known_numbers() -> None:
    # Written down: a change would silently change every recorded study.
    assert derive_seed(7, "split") == 2331306833461145225
    assert derive_seed(7, "trial", 3) == 4216109603142340569


@given(st.integers(), st.lists(st.integers() | st.text(), max_size=3))
def test_derived_seeds_fit_in_63_bits_and_differ_by_name(seed: int, names: list[int | str]) -> None:
    derived = derive_seed(seed, *names)
    assert 0 <= derived < 2**63
    assert derived == derive_seed(seed, *names)
    assert derived != derive_seed(seed + 1, *names)
    assert derived != derive_seed(seed, *names, "more")


def test_a_number_and_its_text_are_different_names() -> None:
    assert derive_seed(0, 1) != derive_seed(0, "1")
    assert derive_seed(0, "a", "b") != derive_seed(0, "a, b")


def test_generators_of_one_name_agree_and_leave_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (torch.rand(8, generator=generator(7, name)) for name in ("init", "init", "split"))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_batch_order_is_a_permutation_of_its_own_for_each_epoch_and_seed() -> None:
    orders = [batch_order(seed, epoch, 100) for seed in (0, 1) for epoch in (1, 2)]
    for order in orders:
        assert order.dtype == torch.int64 and order.sort().values.tolist() == list(range(100))
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert torch.equal(batch_order(0, 1, 100), orders[0])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 10**7),
    st.integers(0, 20),
    st.floats(0, 1, exclude_max=True).filter(lambda p: np.float32(p) < 1),
    st.tuples(st.integers(1, 9), st.integers(1, 19)),
)
def test_dropout_bits_are_the_documented_hash(
    seed: int, step: int, layer: int, p: float, shape: tuple[int, int]
) -> None:
    mask = dropout_mask(seed, step, layer, p, shape)
    n_rows, n_units = shape
    expected = [[keeps(seed, step, layer, p, row, unit) for unit in range(n_units)] for row in range(n_rows)]
    # A p that rounds to 1 keeps the largest value only, as 16 bits cannot say "none".
    if round(np.float32(p) * 65536) < 65536:
        assert mask.tolist() == expected


@pytest.mark.parametrize("p_type", [torch.float32, torch.float64])
def test_a_members_mask_is_its_mask_alone_whatever_stands_beside_it(p_type: torch.dtype) -> None:
    seeds, ps = [3, 2**62 + 5, -1], [0.1, 0.37, 0.9]
    steps = torch.tensor([5, 6, 70_000])
    stacked = dropout_mask(torch.tensor(seeds), steps, 2, torch.tensor(ps, dtype=p_type), (33, 17))
    assert stacked.shape == (3, 33, 17) and stacked.dtype == torch.bool
    for member, seed, step, p in zip(stacked, seeds, steps.tolist(), ps, strict=True):
        assert torch.equal(member, dropout_mask(seed, step, 2, p, (33, 17)))


def test_more_rows_and_units_do_not_move_a_mask() -> None:
    small, large = dropout_mask(9, 4, 1, 0.5, (7, 5)), dropout_mask(9, 4, 1, 0.5, (64, 32))
    assert torch.equal(small, large[:7, :5])


def test_nothing_is_dropped_at_p_0_and_nothing_global_is_touched() -> None:
    before = torch.get_rng_state()
    assert dropout_mask(1, 0, 0, 0.0, (64, 64)).all()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, derive_seed(0, "trial", 0)])
def test_the_rate_of_drops_is_p(p: float, seed: int) -> None:
    n = 40 * 256 * 128
    dropped = sum(int((~dropout_mask(seed, step, 0, p, (256, 128))).sum()) for step in range(40))
    assert abs(dropped / n - p) < 4.5 * math.sqrt(p * (1 - p) / n) + 2**-17


def test_no_row_and_no_unit_is_dropped_more_than_others() -> None:
    kept = torch.stack([dropout_mask(5, step, 0, 0.5, (128, 64)) for step in range(400)]).double()
    for counts, n in ((kept.sum((0, 2)), 400 * 64), (kept.sum((0, 1)), 400 * 128)):
        z = (counts - n / 2) / math.sqrt(n / 4)
        assert z.abs().max() < 4.5
        assert 0.5 < z.var().item() < 1.6


@pytest.mark.parametrize("along", ["rows", "units", "halves", "steps", "layers", "seeds"])
def test_bits_that_differ_in_one_index_are_independent(along: str) -> None:
    def bits(seed: int, step: int, layer: int) -> torch.Tensor:
        return dropout_mask(seed, step, layer, 0.5, (128, 128)).double() * 2 - 1

    agreements = []
    for k in range(60):
        here = bits(k, 10 * k, 0)
        there = {
            "rows": here.roll(1 + k, 0),
            "units": here.roll(2 + 2 * (k % 60), 1),
            "halves": here.roll(1, 1),
            "steps": bits(k, 10 * k + 1 + k, 0),
            "layers": bits(k, 10 * k, 1 + k % 8),
            "seeds": bits(k + 1000, 10 * k, 0),
        }[along]
        agreements.append((here * there).sum().item() / 128)  # N(0, 1) if independent
    z = np.asarray(agreements)
    assert abs(z.mean()) * math.sqrt(len(z)) < 4
    assert np.abs(z).max() < 4.5
    assert 0.4 < z.var() < 2.6  # rolling counts a pair twice at half the size: at most 2


def test_rows_units_and_steps_do_not_meet_again_shifted() -> None:
    rows = torch.cat([dropout_mask(11, step, layer, 0.5, (128, 96)) for step in range(50) for layer in range(4)])
    assert len(rows.unique(dim=0)) == len(rows)
    units = dropout_mask(11, 0, 0, 0.5, (128, 512)).T
    assert len(units.unique(dim=0)) == len(units)


@pytest.mark.gpu
def test_cuda_gives_the_same_bits() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    seeds, ps = torch.tensor([3, 2**62 + 5]), torch.tensor([0.1, 0.5])
    here = dropout_mask(seeds, torch.tensor([5, 6]), 2, ps, (129, 77))
    there = dropout_mask(seeds.cuda(), torch.tensor([5, 6]).cuda(), 2, ps.cuda(), (129, 77))
    assert torch.equal(here, there.cpu())


@pytest.mark.parametrize("p", [0.0, 0.3, 0.999])
def test_bits_with_units_first_are_those_with_rows_first(p):
    widths, n_rows = [2, 6, 4], 5
    seeds = torch.tensor([derive_seed(7, i) for i in range(3)])
    owners = torch.tensor([i for i, width in enumerate(widths) for _ in range(width // 2)])
    numbers = torch.tensor([n for width in widths for n in range(width // 2)], dtype=torch.int32)
    found = dropout_rows(seeds, 11, 2, torch.full((3,), p), (owners, numbers), n_rows)
    alone = [dropout_mask(seed, 11, 2, p, (n_rows, width)).T for seed, width in zip(seeds, widths, strict=True)]
    assert torch.equal(found, torch.cat(alone))


def test_noise_is_the_normal_quantile_of_the_documented_hash() -> None:
    found = normal_noise(77, 5, (6, 7), torch.float64)
    for row in range(6):
        for unit in range(7):
            part = (signed_half(77, 5, -1, row, unit) + 32768 + 0.5) / 65536
            assert found[row, unit].item() == pytest.approx(NormalDist().inv_cdf(part), rel=1e-4, abs=1e-9)


def test_noise_is_standard_normal_and_independent_of_rows_inputs_steps_and_dropout() -> None:
    noise = torch.stack([normal_noise(3, step, (128, 64), torch.float64) for step in range(40)])
    n = noise.numel()
    assert abs(noise.mean().item()) < 4 / n**0.5
    assert noise.square().mean().item() == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
    assert noise.pow(4).mean().item() == pytest.approx(3, abs=4 * (96 / n) ** 0.5)
    pairs = [(noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1]), (noise[..., 1:], noise[..., :-1])]
    kept = torch.stack([dropout_mask(3, step, 0, 0.5, (128, 64)) for step in range(40)]).double() * 2 - 1
    for left, right in (*pairs, (noise, kept)):
        assert abs((left * right).mean().item()) < 4.5 / left.numel() ** 0.5


def test_a_members_noise_and_partners_are_its_own_whatever_stands_beside_it() -> None:
    seeds = [3, 2**62 + 5, 9]
    noise = normal_noise(torch.tensor(seeds), 4, (33, 17), torch.float32)
    partners = mixing_partners(torch.tensor(seeds), 4, 33)
    for i, seed in enumerate(seeds):
        assert torch.equal(noise[i], normal_noise(seed, 4, (33, 17), torch.float32))
        assert torch.equal(partners[i], mixing_partners(seed, 4, 33))
        assert partners[i].sort().values.tolist() == list(range(33))
    assert not torch.equal(mixing_partners(3, 4, 33), mixing_partners(3, 5, 33))


def test_shares_are_known_numbers_of_a_beta_distribution() -> None:
    # Written down: a change would silently change every recorded study.
    assert mixing_shares(7, 0.4, 2, 3) == [0.7342841016344923, 0.07431570730204612, 0.9479403508418085]
    for alpha in (0.2, 1.0, 5.0):
        found = np.array([mixing_shares(1, alpha, epoch, 500) for epoch in range(1, 21)])
        assert found.min() >= 0 and found.max() <= 1
        assert found.mean() == pytest.approx(0.5, abs=0.02)
        assert found.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)
