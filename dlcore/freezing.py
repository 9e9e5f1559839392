"""Which parameters of a stack are never updated, and how they stay as they are, to the bit.

A rule of an update that multiplies them by 0 would not do: 0 times what is not finite is no 0, and -0.0 becomes 0.0.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from dlcore.config import TrainConfig
from dlcore.elementwise import Op
from dlcore.layout import Block, Layout


def is_frozen(block: Block, configs: Sequence[TrainConfig]) -> bool:
    """Whether a block, and what else its layer trains, is never updated."""
    return block.layer < configs[block.member].n_frozen


def frozen_runs(layout: Layout, configs: Sequence[TrainConfig]) -> list[tuple[int, int]]:
    """Where the flat parameters are never updated: from, to; neighbours joined, in order."""
    places = [(block.weight, block.weight + block.size) for block in layout.blocks if is_frozen(block, configs)]
    places += [(start, start + block.n_out) for block, start in layout.vectors if is_frozen(block, configs)]
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(places):
        first = joined.pop()[0] if joined and joined[-1][1] == start else start
        joined.append((first, stop))
    return joined


def put_back_ops(parameters: Tensor, runs: Sequence[tuple[int, int]]) -> list[Op]:
    """Calls that give parameters the values that they have now.

    Args:
        parameters: Flat, (N,).
        runs: Of `frozen_runs`; without any there are no calls.
    """
    if not runs:
        return []
    places = torch.cat([torch.arange(start, stop) for start, stop in runs]).to(parameters.device)
    return [partial(parameters.index_copy_, 0, places, parameters.index_select(0, places))]
