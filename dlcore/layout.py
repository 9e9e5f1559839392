"""Where each member's numbers lie in the flat tensors of a stack. Pure numbers, no tensors.

Layer by layer, members lie behind one another in the order of the stack, those that are too shallow left out:

    rows of a hidden layer      (R, B)   member after member, each (H, B): units first, so that a member, a group of
                                         equal members and a group of equal activations are each one contiguous piece
    weights of a layer                   member after member, each (out, in) as in nn.Linear
    biases of a layer           (R,)
    gains, shifts of a layer    (R,)     of a normalization, behind all biases; see below
    outputs                     (P, C, B)

Neighbours of equal shape form a run, whose pieces view as (n, H, B) and (n, out, in): one batched product. The
first layer is a single product whatever the widths, since all members read the same rows.

The members of a stack have one kind of normalization. Over batches a layer has no biases, and its shifts lie there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from dlcore.config import ModelConfig
from dlcore.elementwise import NEEDS_INPUT


@dataclass(frozen=True, slots=True)
class Block:
    """One Linear layer of one member."""

    member: int
    """Its place in the stack."""
    layer: int
    """Counts the member's own layers from 0; the last is its head."""
    n_out: int
    """Outputs, padded."""
    n_in: int
    """Inputs, padded."""
    used_out: int
    """Outputs that are not padding; they come first."""
    used_in: int
    """Inputs that are not padding; they come first."""
    weight: int
    """Where its weights begin in the flat parameters."""
    bias: int
    """Where its biases begin in the flat parameters."""
    row: int
    """Where its outputs begin among the rows of its layer."""
    input_row: int
    """Where its inputs begin among the rows of the layer before; 0 if these are the features."""

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.n_out * self.n_in


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring blocks of equal shape that are computed by one batched product."""

    first: Block
    n: int
    """Number of blocks."""
    input_layer: int
    """Index of the hidden layer that they read; -1 for the features."""


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring rows of a hidden layer with one activation."""

    activation: str
    start: int
    stop: int
    members: tuple[int, ...]
    """Places in the stack, in the order of the rows."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One hidden layer of all members that are deep enough, or the heads of all."""

    blocks: tuple[Block, ...]
    runs: tuple[Run, ...]
    spans: tuple[Span, ...]
    """Empty for heads."""
    own_runs: tuple[Run, ...]
    """The runs where each member reads a batch of its own: other ones in the first layer."""
    gain: int | None = None
    """Where the gains of its normalization begin in the flat parameters; None without one."""
    shift: int | None = None
    """Likewise its shifts."""

    @property
    def rows(self) -> int:
        """Number of rows R."""
        last = self.blocks[-1]
        return last.row + last.n_out

    @property
    def bias(self) -> int:
        """Where its biases begin in the flat parameters."""
        return self.blocks[0].bias


@dataclass(frozen=True, slots=True)
class Layout:
    """All of a stack."""

    layers: tuple[Layer, ...]
    """Hidden layers."""
    head: Layer
    n_weights: int
    """Weights come first in the flat parameters, then biases."""
    n_parameters: int
    normalization: str = "none"
    """Of all members that have hidden layers."""

    @property
    def vectors(self) -> list[tuple[Block, int]]:
        """What is behind the weights, in order: block and place of biases, then of gains and shifts, n_out each."""
        found = [(block, block.bias) for block in self.blocks]
        for layer in self.layers:
            for start in (layer.gain, layer.shift):
                if start is not None and start != layer.bias:
                    found += [(block, start + block.row) for block in layer.blocks]
        return found

    @property
    def blocks(self) -> list[Block]:
        """All blocks in the order of their weights, which is also that of their biases."""
        return [block for layer in (*self.layers, self.head) for block in layer.blocks]


def lay_out(models: Sequence[ModelConfig], padded: Sequence[tuple[int, ...]]) -> Layout:
    """Place the members of a stack.

    Args:
        models: Their architectures, in the order of the stack, with equal features and outputs.
        padded: Their padded widths.
    """
    depth = max(model.depth for model in models)
    n_features, n_outputs = models[0].n_features, models[0].n_outputs
    sizes = [(n_features, *widths, n_outputs) for widths in padded]
    n_weights = sum(n_in * n_out for member in sizes for n_in, n_out in pairwise(member))
    used = [(n_features, *model.widths, n_outputs) for model in models]
    place = _Place(sizes, used, weight=0, bias=n_weights)
    rows_before: dict[int, int] = {}
    hidden: list[list[Block]] = []
    last_row: dict[int, tuple[int, int]] = dict.fromkeys(range(len(models)), (-1, 0))
    for layer in range(depth):
        deep = [i for i, model in enumerate(models) if model.depth > layer]
        blocks = place.blocks(deep, layer, rows_before)
        rows_before = {block.member: block.row for block in blocks}
        last_row |= {member: (layer, row) for member, row in rows_before.items()}
        hidden.append(blocks)
    heads = place.heads({member: row for member, (_, row) in last_row.items()})

    def laid(blocks: Sequence[Block], spans: Sequence[Span], *, is_first: bool) -> Layer:
        runs = _runs(blocks, models, is_first=is_first)
        own_runs = _runs(blocks, models, is_first=False) if is_first else runs
        return Layer(tuple(blocks), tuple(runs), tuple(spans), tuple(own_runs))

    normalization = next((model.normalization for model in models if model.depth), "none")
    layers = [laid(blocks, _spans(blocks, models), is_first=i == 0) for i, blocks in enumerate(hidden)]
    layers, n_parameters = _normalized(layers, normalization, place.bias)
    return Layout(tuple(layers), laid(heads, (), is_first=False), n_weights, n_parameters, normalization)


def _normalized(layers: list[Layer], normalization: str, end: int) -> tuple[list[Layer], int]:
    """Hidden layers with the places of what their normalization trains, behind all else; and the new end."""
    if normalization == "none":
        return layers, end
    found = []
    for layer in layers:
        gain, end = end, end + layer.rows
        shift = layer.bias
        if normalization == "layer":
            shift, end = end, end + layer.rows
        found.append(replace(layer, gain=gain, shift=shift))
    return found, end


@dataclass(slots=True)
class _Place:
    """Where the next block goes."""

    sizes: Sequence[tuple[int, ...]]
    """Features, padded widths, outputs of each member."""
    used: Sequence[tuple[int, ...]]
    """Features, widths, outputs of each member."""
    weight: int
    bias: int

    def blocks(self, members: Sequence[int], layer: int, input_rows: dict[int, int]) -> list[Block]:
        """The blocks of one layer."""
        placed, row = [], 0
        for member in members:
            placed.append(self._next(member, layer, row, input_rows.get(member, 0)))
            row += placed[-1].n_out
        return placed

    def heads(self, input_rows: dict[int, int]) -> list[Block]:
        """The heads of all members; each is a layer of its own depth."""
        return [
            self._next(member, len(sizes) - 2, member * sizes[-1], input_rows[member])
            for member, sizes in enumerate(self.sizes)
        ]

    def _next(self, member: int, layer: int, row: int, input_row: int) -> Block:
        n_in, n_out = self.sizes[member][layer : layer + 2]
        used_in, used_out = self.used[member][layer : layer + 2]
        block = Block(member, layer, n_out, n_in, used_out, used_in, self.weight, self.bias, row, input_row)
        self.weight += n_in * n_out
        self.bias += n_out
        return block


def _runs(blocks: Sequence[Block], models: Sequence[ModelConfig], *, is_first: bool) -> list[Run]:
    """Group neighbours whose inputs, weights and outputs are each one contiguous piece."""
    if is_first:
        # All read the features: one product with the rows of all members, so one block as far as it goes.
        first, n_out = blocks[0], sum(block.n_out for block in blocks)
        joined = replace(first, n_out=n_out, used_out=n_out)
        return [Run(joined, 1, -1)]
    runs: list[Run] = []
    for before, block in zip((None, *blocks), blocks, strict=False):
        if before is not None and _continues(before, block, models):
            runs[-1] = Run(runs[-1].first, runs[-1].n + 1, runs[-1].input_layer)
        else:
            runs.append(Run(block, 1, block.layer - 1))
    return runs


def _continues(before: Block, block: Block, models: Sequence[ModelConfig]) -> bool:
    """Whether a block can join the run of the one before it."""
    left, right = models[before.member], models[block.member]
    has_same_shape = (before.layer, before.n_out, before.n_in) == (block.layer, block.n_out, block.n_in)
    # Members that are too shallow for this layer may lie between two that are not.
    is_next = block.input_row == before.input_row + before.n_in
    if block.layer == 0:  # both read features
        is_next = block.member == before.member + 1
    # Their inputs lie in different tensors otherwise; see dlcore.stack.
    is_in_same = (left.activation in NEEDS_INPUT) == (right.activation in NEEDS_INPUT)
    return has_same_shape and is_next and is_in_same


def _spans(blocks: Sequence[Block], models: Sequence[ModelConfig]) -> list[Span]:
    """Group neighbouring rows by activation."""
    spans: list[Span] = []
    for block in blocks:
        activation, stop = models[block.member].activation, block.row + block.n_out
        if spans and spans[-1].activation == activation:
            last = spans.pop()
            spans.append(Span(activation, last.start, stop, (*last.members, block.member)))
        else:
            spans.append(Span(activation, block.row, stop, (block.member,)))
    return spans
