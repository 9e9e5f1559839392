"""One seed becomes many independent streams, told apart by name.

Three kinds of randomness, by what they must survive:

- `generator` for things drawn once and in order on the CPU (splits, initial weights);
- `batch_order` for the order of the rows, which all members of a population share;
- `dropout_mask`, `normal_noise` and `mixing_partners` for bits that must not depend on neighbours: each is a hash of
  (seed, step, layer, row, unit), "counter-based" as in Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3
  (SC 2011). The hash is `lowbias32` of C. Wellons, Prospecting for Hash Functions (2018),
  https://nullprogram.com/blog/2018/07/31/.

Nothing here touches the global generators of Python, numpy or torch.
"""

import hashlib
import json
import random
from functools import cache

import torch
from torch import Tensor

# 2**32 and 2**64 divided by the golden ratio and by powers of its higher-dimensional relatives (the roots of
# x**4 = x + 1), made odd: sums of their small multiples do not meet (M. Roberts, The Unreasonable
# Effectiveness of Quasirandom Sequences, 2018).
_SEED_STRIDE = 0x9E3779B97F4A7C15 - (1 << 64)
_STEP_STRIDE = 0xD1B54A33
_LAYER_STRIDE = 0xABC98389
_ROW_STRIDE = 0x8CB92BA7
_UNIT_STRIDE = 0x9E3779B9 - (1 << 32)
_LOW_32 = 0xFFFFFFFF
_NOISE, _MIXING = -1, -2
"""In the place of a layer: streams of their own."""
N_QUANTILES = 1 << 16
"""Numbers that noise is made of."""


def derive_seed(seed: int, *names: int | str) -> int:
    """A 63-bit seed for the stream with these names; other seeds or names give unrelated ones.

    Args:
        seed: the study's or the trial's seed, any integer.
        names: what the stream is for, such as ("trial", 7); 1 and "1" are different names.
    """
    text = json.dumps([seed, *names])  # unambiguous, unlike joining by a separator
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *names: int | str) -> torch.Generator:
    """A fresh CPU generator for the stream with these names."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def batch_order(order_seed: int, epoch: int, n_rows: int) -> Tensor:
    """The order in which one epoch visits the training rows.

    Args:
        order_seed: the study's seed for orders; not the trial's, since all members see one order.
        epoch: counted from 1.
        n_rows: rows of train.

    Returns:
        Permutation of 0 .. n_rows - 1, shape (n_rows,), int64, on the CPU.
    """
    return torch.randperm(n_rows, generator=generator(order_seed, "batch order", epoch))


def dropout_mask(
    seed: int | Tensor, step: int | Tensor, layer: int, p: float | Tensor, shape: tuple[int, int]
) -> Tensor:
    """Which hidden units one weight update keeps: True with probability 1 - p, independently.

    The bits are a function of (seed, step, layer, row, unit) alone: the same on every device, alone and
    stacked, and not moved by more rows or units. Only integer operations with wrap-around are used, nothing
    waits for the device, and a step kept on the device can be replayed in a CUDA graph.

    Args:
        seed: the trial's seed, or those of P members, shape (P,), int64.
        step: the trial's own weight update, or one per member, shape (P,), int64; or one for all, shape ().
        layer: which hidden layer, from 0.
        p: probability of a drop in [0, 1), rounded to a multiple of 2**-16; or one per member, shape (P,).
        shape: (B, H), rows of the batch and units of the layer.

    Returns:
        bool, shape (B, H), or (P, B, H) if the seed has shape (P,); on the seed's device.
    """
    halves = _halves(seed, step, layer, shape)
    return halves >= _threshold(p, halves.device)


def _halves(seed: int | Tensor, step: int | Tensor, layer: int, shape: tuple[int, int]) -> Tensor:
    """16 random bits for each row and unit: int16, (B, H) or (P, B, H); see `dropout_mask`."""
    n_rows, n_units = shape
    row = _row_keys(seed, step, layer, n_rows)
    # One hash serves two neighbouring units, 16 bits each: a third of the time (2.8 -> 0.8 ms for 16 x 128 x 256
    # on one CPU thread; torch's own bernoulli_ takes 8.0 ms), at the price of the rounding of p.
    pair = torch.arange((n_units + 1) // 2, device=row.device, dtype=torch.int32)
    unit = _mixed(pair * _UNIT_STRIDE)  # (ceil(H / 2),)
    # ([P,] B, H or H + 1)
    return _mixed(row.unsqueeze(-1) + unit).view(torch.int16)[..., :n_units]


def _row_keys(seed: int | Tensor, step: int | Tensor, layer: int, n_rows: int) -> Tensor:
    """32 random bits for each row: int32, (B,) or (P, B)."""
    seeds = torch.as_tensor(seed, dtype=torch.int64)
    # Shape () or (P,). Multiplying in 64 bits and taking the upper half mixes all bits of the seed.
    member = ((seeds * _SEED_STRIDE) >> 32) + step * _STEP_STRIDE + layer * _LAYER_STRIDE
    counter = torch.arange(n_rows, device=seeds.device) * _ROW_STRIDE
    return _mixed(_wrapped(member.unsqueeze(-1) + counter))


def normal_noise(seed: int | Tensor, step: int | Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Independent numbers of a normal distribution with mean 0 and variance 1, for the inputs of one weight update.

    Each is the quantile of 16 bits, so one of 65,536 values between -4.3 and 4.3; a function of (seed, step, row,
    input) alone, the same on every device, as for `dropout_mask`.

    Args:
        seed: the trial's seed, or those of P members, shape (P,), int64.
        step: the trial's own weight update.
        shape: (B, F), rows of the batch and inputs.
        dtype: floating.

    Returns:
        (B, F), or (P, B, F) if the seed has shape (P,); on the seed's device.
    """
    halves = _halves(seed, step, _NOISE, shape)
    numbers = halves.to(torch.int32).add_(32768)
    quantiles: Tensor = _normal_quantiles(halves.device, dtype)
    return quantiles.index_select(0, numbers.view(-1)).view(halves.shape)


@cache
def _normal_quantiles(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The middle of each of 65,536 equally likely parts of the normal distribution, scaled to variance 1."""
    middles = torch.special.ndtri((torch.arange(N_QUANTILES, dtype=torch.float64) + 0.5) / N_QUANTILES)
    scaled: Tensor = middles / middles.square().mean().sqrt()
    return scaled.to(dtype).to(device)


def mixing_partners(seed: int | Tensor, step: int | Tensor, n_rows: int) -> Tensor:
    """With which row of its batch each one is mixed in one weight update: a random order of them.

    Args:
        seed: the trial's seed, or those of P members, shape (P,), int64.
        step: the trial's own weight update.
        n_rows: rows of the batch, B.

    Returns:
        int64, (B,), or (P, B) if the seed has shape (P,); on the seed's device.
    """
    return _row_keys(seed, step, _MIXING, n_rows).argsort(dim=-1, stable=True)


def mixing_shares(seed: int, alpha: float, epoch: int, n_steps: int) -> list[float]:
    """How much of each row stays when it is mixed: a number of Beta(alpha, alpha) for each weight update of an epoch.

    Args:
        seed: the trial's seed.
        alpha: above 0.
        epoch: counted from 1.
        n_steps: weight updates of an epoch.
    """
    # Python's own, since torch's and NumPy's draws change from version to version.
    stream = random.Random(derive_seed(seed, "mixup", epoch))
    return [stream.betavariate(alpha, alpha) for _ in range(n_steps)]


def dropout_rows(seeds: Tensor, step: int, layer: int, p: Tensor, pairs: tuple[Tensor, Tensor], n_rows: int) -> Tensor:
    """The bits of `dropout_mask`, units first, for members of different widths behind one another.

    Args:
        seeds: of P members, shape (P,), int64.
        step: the members' weight update.
        layer: which hidden layer, from 0.
        p: probability of a drop of each member, shape (P,).
        pairs: the member, int64, and the number (0 for units 0 and 1, ...), int32, of each pair of neighbouring
            units, each of shape (Q,).
        n_rows: rows of the batch, B.

    Returns:
        bool, shape (2 Q, B): for each pair its first and its second unit; True is kept.
    """
    owners, numbers = pairs
    member = ((seeds * _SEED_STRIDE) >> 32) + step * _STEP_STRIDE + layer * _LAYER_STRIDE
    counter = torch.arange(n_rows, device=seeds.device) * _ROW_STRIDE
    row = _mixed(_wrapped(member.unsqueeze(-1) + counter))  # (P, B)
    bits = _mixed(row.index_select(0, owners) + _mixed(numbers * _UNIT_STRIDE).unsqueeze(-1))  # (Q, B)
    # Compared in the upper half of 32 bits, where the lower half cannot decide.
    threshold = (_threshold(p, seeds.device).view(-1).to(torch.int32) << 16).index_select(0, owners).unsqueeze(-1)
    keep = torch.empty(len(owners), 2, n_rows, dtype=torch.bool, device=seeds.device)
    torch.ge(bits << 16, threshold, out=keep[:, 0])
    torch.ge(bits, threshold, out=keep[:, 1])
    return keep.view(-1, n_rows)


def _threshold(p: float | Tensor, device: torch.device) -> Tensor:
    """The smallest 16-bit value that is kept, shape () or (P, 1, 1), int16.

    Through float32, so that a float and a float32 or float64 tensor of the same p agree exactly.
    """
    drops = (torch.as_tensor(p, dtype=torch.float32, device=device) * 65536.0).round()
    threshold = (drops.to(torch.int32) - 32768).clamp(max=32767).to(torch.int16)
    return threshold if threshold.ndim == 0 else threshold[:, None, None]


def _wrapped(x: Tensor) -> Tensor:
    """The low 32 bits of int64 values as int32, same shape."""
    low = x & _LOW_32
    return torch.where(low >= 1 << 31, low - (1 << 32), low).to(torch.int32)


def _mixed(x: Tensor) -> Tensor:
    """`lowbias32` of each int32, same shape. torch shifts keep the sign, hence the masks."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x *= 0x7FEB352D
    x ^= (x >> 15) & 0x1FFFF
    x *= 0x846CA68B - (1 << 32)
    x ^= (x >> 16) & 0xFFFF
    return x
