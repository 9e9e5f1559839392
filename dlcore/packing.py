"""Which members of a population are computed together, and in which order.

Members are cut into stacks (one tensor program each), ordered inside a stack, and padded in width so that
neighbours of nearly equal shape share one batched product. Pure numbers, no tensors: what is decided here
moves the speed and the last bits of a result, nothing else.

The constants were measured on a 2-core x86-64 machine with MKL; see `benchmarks/scaling.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from dlcore.backbone import Backbone, check_backbone
from dlcore.config import ModelConfig, TrainConfig
from dlcore.criterion import is_weighed
from dlcore.models import layer_sizes
from dlcore.rows import Rows


@dataclass(frozen=True, slots=True)
class Member:
    """One network of a population."""

    model_config: ModelConfig
    """Its architecture."""
    train_config: TrainConfig
    """How it is trained."""
    seed: int
    """The trial's seed: initial weights, dropout and augmentation."""
    order_seed: int | None = None
    """Seed for the order of its rows; None is the one that all members of its population share."""
    rows: Rows | None = None
    """The rows that it sees, of train and of val; None is all of them."""
    backbone: Backbone | None = None
    """What it begins with, if its initialization is "pretrained"; the same object for all that share it."""

    def __post_init__(self) -> None:
        """Check that what it begins with fits it.

        Raises:
            dlcore.errors.ConfigError: It does not.
        """
        check_backbone(self.model_config, self.train_config, self.backbone)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step costs on one kind of device, for choosing; never for predicting seconds."""

    call_flops: float
    """Arithmetic that could have been done in the time of one call."""
    stack_bytes: int
    """A stack's tensors stay below this, where more than one member is in it."""
    is_grouped: bool = False
    """Whether products of unequal shape are one call, see `dlcore.grouped`."""


def cost_of(device_type: str, *, is_grouped: bool = False) -> Cost:
    """The constants for a device."""
    if device_type == "cpu":
        return Cost(call_flops=2.2e5, stack_bytes=CPU_STACK_BYTES, is_grouped=is_grouped)
    return Cost(call_flops=2e7, stack_bytes=1 << 62)


CPU_STACK_BYTES = 16 << 20
"""Above it, passes over a stack fall out of the cache; below it, calls take the time (1.3 times as much at 2 MB)."""
UNIT_FLOPS = {
    "relu": 40,
    "leaky_relu": 45,
    "sigmoid": 80,
    "tanh": 100,
    "elu": 190,
    "selu": 190,
    "gelu": 200,
    "silu": 160,
}
"""Elementwise work on one hidden unit of one row, forward and backward, in arithmetic of the same time."""
EVALUATION_ROWS = 512
"""Rows of val that are measured at a time, at most, unless batches are larger."""
UNEVEN = 1.05
"""How much longer the largest part may take, for parts of one kind."""
VECTOR = 8
"""Widths are padded to a multiple of it where products are grouped: the gradient of a layer's weights takes up to 2.2
times as long where its inputs are not."""
GROUP_LIMIT = 64
"""Members considered for one batched product; bounds the time to choose."""

# Kinds whose derivative needs the input come last, so that their rows are together; see `dlcore.elementwise`.
ORDER = ("relu", "leaky_relu", "sigmoid", "tanh", "elu", "selu", "gelu", "silu")


def has_dropout(model: ModelConfig) -> bool:
    """Whether any unit can be dropped."""
    return model.dropout > 0 and model.depth > 0


def normalization_of(model: ModelConfig) -> str:
    """Over what hidden units are standardised, where there are any."""
    return model.normalization if model.depth > 0 else "none"


def engine_for(member: Member, device_type: str) -> str:
    """Which engine trains a network faster in company: a fixed rule on its shape and the kind of device.

    On a CPU a population is ahead of loops side by side (`benchmarks.population`), the less so the wider the layers:
    where both wait for matrix products there is nothing to win and memory to lose. Above the widths that were measured
    the loop serves. The rules for MPS and CUDA are not measured.

    Returns:
        "loop" or "population".
    """
    widest = max(member.model_config.widths, default=0)
    return "loop" if widest > LOOP_ABOVE.get(device_type, 2048) else "population"


LOOP_ABOVE = {"cpu": 2048, "cuda": 2048, "mps": 512}
"""Width above which the loop trains, by kind of device."""


def row_kind(member: Member) -> tuple[int, int, bool] | None:
    """Members of one kind can be one stack: None is all rows in the common order, as they are; else the numbers of rows
    of train and val, 0 and 0 where these are all rows, and whether they are augmented, each member's in its own way."""
    is_augmented = member.train_config.is_augmented
    if member.rows is None:
        return None if member.order_seed is None and not is_augmented else (0, 0, is_augmented)
    return len(member.rows.train), len(member.rows.val), is_augmented


def order_key(member: Member) -> tuple[int, int, tuple[int, ...], int]:
    """Sorts members inside a stack: activation, depth, widths; linear ones, which have no activation, first.

    Among those of equal shape come first those with more frozen layers, so that these lie together.
    """
    model = member.model_config
    activation = -1 if model.depth == 0 else ORDER.index(model.activation)
    return activation, model.depth, model.widths, -member.train_config.n_frozen


def step_flops(model: ModelConfig, batch_size: int) -> float:
    """What one weight update costs, in arithmetic of the same time: products forward and twice backward, elementwise
    work on hidden units, passes over the parameters, and a share of the calls."""
    n_weights = sum(n_in * n_out for n_in, n_out in layer_sizes(model))
    per_row = 6 * n_weights + UNIT_FLOPS[model.activation] * sum(model.widths)
    return float(batch_size * per_row + 60 * n_weights) + 1e6


def stack_bytes(model: ModelConfig, batch_size: int, itemsize: int) -> int:
    """Memory of one member in a stack: parameters, gradient, state, hyperparameters, hidden layers."""
    parameters = sum((n_in + 1) * n_out for n_in, n_out in layer_sizes(model))
    units = 2 * sum(model.widths) + 3 * model.n_outputs
    return itemsize * (5 * parameters + units * batch_size)


def evaluation_chunk(n_rows: int, batch_size: int) -> int:
    """Rows of val that a stack measures at a time: as many each time as may be."""
    n_chunks = math.ceil(n_rows / max(EVALUATION_ROWS, 2 * batch_size))
    return math.ceil(n_rows / n_chunks)


def cut_into_stacks(members: Sequence[Member], cost: Cost, itemsize: int) -> list[list[int]]:
    """Indices of the members of each stack, in the order they have inside it, for one core or device.

    Members that see the rows which all see are apart from those with rows or an order of their own, and these by their
    numbers of rows; see `dlcore.visits`. So are those whose rows are augmented, and each kind of normalization. Then
    they are sorted by shape and cut where the work is even, so that the stacks are alike inside.
    """
    kinds: dict[tuple[tuple[int, int, bool] | None, str], list[int]] = {}
    for index, member in enumerate(members):
        kinds.setdefault((row_kind(member), normalization_of(member.model_config)), []).append(index)
    stacks: list[list[int]] = []
    for (kind, _), own in kinds.items():
        alike = [members[i] for i in own]
        memory = sum(stack_bytes(m.model_config, m.train_config.batch_size, itemsize) for m in alike)
        if kind is not None:
            memory += sum(m.train_config.batch_size * m.model_config.n_features * itemsize for m in alike)
        cuts = _ordered(alike, _cut(alike, _work(alike), -(-memory // cost.stack_bytes)))
        stacks += [[own[place] for place in cut] for cut in cuts]
    return stacks


def deal(members: Sequence[Member], n: int) -> list[list[int]]:
    """Indices of members in n parts (or one each) of even work, for as many cores.

    They are cut as into stacks. Where a few large members make that uneven, each goes to the part with the least work
    instead, the largest first.
    """
    work = _work(members)
    cut, spread = _cut(members, work, n), _spread(work, n)

    def longest(parts: Sequence[Sequence[int]]) -> float:
        return max(sum(work[i] for i in part) for part in parts)

    return _ordered(members, cut if longest(cut) <= UNEVEN * longest(spread) else spread)


def _work(members: Sequence[Member]) -> list[float]:
    return [step_flops(m.model_config, m.train_config.batch_size) for m in members]


def _ordered(members: Sequence[Member], parts: Sequence[Sequence[int]]) -> list[list[int]]:
    return [sorted(part, key=lambda i: (order_key(members[i]), i)) for part in parts if part]


def _cut(members: Sequence[Member], work: Sequence[float], n: int) -> list[list[int]]:
    """Members in order of their shape, cut into n parts (or one each)."""
    order = sorted(range(len(members)), key=lambda i: (*_shared_costs(members[i]), order_key(members[i]), i))
    n = min(n, len(members))
    total, done = sum(work), 0.0
    parts: list[list[int]] = [[] for _ in range(n)]
    for index in order:
        # By the middle of a member's work, so that a large one goes where most of it lies.
        parts[min(int((done + work[index] / 2) / total * n), n - 1)].append(index)
        done += work[index]
    return parts


def _shared_costs(member: Member) -> tuple[str, bool, bool, bool]:
    """What a stack must share, then what a whole stack pays for if one of its members has it, the dearest first."""
    config = member.train_config
    return (
        normalization_of(member.model_config),
        config.is_augmented,
        has_dropout(member.model_config),
        is_weighed(config),
    )


def _spread(work: Sequence[float], n: int) -> list[list[int]]:
    """Longest processing time first. Graham, SIAM Journal on Applied Mathematics 17, 1969."""
    n = min(n, len(work))
    parts: list[list[int]] = [[] for _ in range(n)]
    loads = [0.0] * n
    for index in sorted(range(len(work)), key=lambda i: (-work[i], i)):
        least = loads.index(min(loads))
        parts[least].append(index)
        loads[least] += work[index]
    return parts


def padded_widths(members: Sequence[Member], cost: Cost) -> list[tuple[int, ...]]:
    """Widths that each member of a stack is padded to, in the order of the stack.

    Where products are grouped, to whole vectors. Elsewhere neighbours with the same activation and depth may get the
    same widths, and then share a batched product per layer: fewer calls against more arithmetic, minimised exactly by
    dynamic programming.
    """
    if cost.is_grouped:
        return [tuple(-(-w // VECTOR) * VECTOR for w in member.model_config.widths) for member in members]
    # Dropout draws the bits of two neighbouring units at once.
    multiple = 2 if any(has_dropout(member.model_config) for member in members) else 1
    padded: list[tuple[int, ...]] = []
    for _, group in groupby(members, key=lambda member: order_key(member)[:2]):
        padded += _grouped(list(group), multiple, cost)
    return padded


def _grouped(members: Sequence[Member], multiple: int, cost: Cost) -> list[tuple[int, ...]]:
    """Padded widths of members of one depth and activation."""
    model, batch_size = members[0].model_config, members[0].train_config.batch_size
    if model.depth == 0:
        return [()] * len(members)
    widths = [tuple(-(-w // multiple) * multiple for w in m.model_config.widths) for m in members]
    calls = 3 * model.depth * cost.call_flops
    best: list[tuple[float, int]] = [(0.0, 0)]
    for stop in range(1, len(members) + 1):
        choices, widest = [], widths[stop - 1]
        for start in range(stop - 1, max(stop - 1 - GROUP_LIMIT, -1), -1):
            widest = tuple(map(max, widest, widths[start]))
            flops = _hidden_flops(widest, model.n_features, model.n_outputs) * batch_size * (stop - start)
            choices.append((best[start][0] + calls + flops, start))
        best.append(min(choices))
    return _read_back(widths, best)


def _read_back(widths: Sequence[tuple[int, ...]], best: Sequence[tuple[float, int]]) -> list[tuple[int, ...]]:
    """Padded widths of each member, from the table of best groups."""
    padded: list[tuple[int, ...]] = []
    stop = len(widths)
    while stop:
        start = best[stop][1]
        widest = tuple(map(max, *widths[start:stop])) if stop - start > 1 else widths[start]
        padded = [widest] * (stop - start) + padded
        stop = start
    return padded


def _hidden_flops(widths: tuple[int, ...], n_features: int, n_outputs: int) -> float:
    """Arithmetic per row and update, counting elementwise work as 100 a unit."""
    sizes = (n_features, *widths, n_outputs)
    return 6 * sum(a * b for a, b in pairwise(sizes)) + 100.0 * sum(widths)
