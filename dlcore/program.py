"""A stack's forward and backward pass for one batch size, as lists of calls on preallocated tensors.

Written by hand instead of by autograd: about a third of the calls, no allocation, and each product is done by
the kernel that suits it. Shapes are those of `dlcore.layout`: units first, so activations are (R, B), and a
run of n equal members is (n, H, B).

    z_l = W_l a_(l-1) + b_l;  a_l = f(z_l) * keep / (1 - p)
    d_l = (W_(l+1)^T d_(l+1)) * keep / (1 - p) * f'(z_l);  dW_l = d_l a_(l-1)^T;  db_l = sum over rows of d_l

A normalization (`dlcore.normalization`) stands between z_l and f, and has one more tensor of a layer's size.

Members meet in no sum: a product over all members (the first layer) has each member's units as rows of its
own, so that a NaN stays with its member.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod

import torch
from torch import Tensor

from dlcore.config import ModelConfig
from dlcore.elementwise import NEEDS_INPUT, Op, backward_op, forward_op, leaky_relu_ops
from dlcore.grouped import Product, grouped_product
from dlcore.layout import Block, Layer, Layout, Run, Span
from dlcore.normalization import Norms, Trained
from dlcore.precision import Factors, factor_dtype, product_op


class Arena:
    """One flat tensor from which others are cut."""

    def __init__(self, storage: Tensor) -> None:
        """Start at the front of storage (size,)."""
        self._storage = storage
        self._used = 0

    def take(self, *shape: int) -> Tensor:
        """The next piece, of the given shape; its content is whatever was there."""
        size = torch.Size(shape).numel()
        piece = self._storage[self._used : self._used + size].view(shape)
        self._used += aligned(size)
        return piece


def aligned(size: int) -> int:
    """Size rounded up to whole cache lines of 64 bytes."""
    return -(-size // 16) * 16


def arena_size(layout: Layout, shape: tuple[int, ...], *, has_backward: bool, has_dropout: bool) -> int:
    """Numbers that a `Program` for batches x of a shape takes from its arena."""
    n_rows = shape[-2]
    size = aligned(prod(shape)) + (2 if has_backward else 1) * aligned(layout.head.rows * n_rows)
    for layer in layout.layers:
        copies = 1 + has_backward * (1 + has_dropout + (layer.gain is not None))
        size += copies * aligned(layer.rows * n_rows)
        size += aligned(_kept_rows(layer, has_dropout=has_dropout and has_backward) * n_rows)
    return size


def factor_size(layout: Layout, shape: tuple[int, ...], *, has_dropout: bool) -> int:
    """Numbers in the rounded factors of a `Program` that trains, those of its parameters left out."""
    size = layout.head.rows
    for layer in layout.layers:
        kept = _kept_rows(layer, has_dropout=has_dropout)
        size += layer.rows + kept + (layer.rows if kept < layer.rows else 0)
    return prod(shape) + shape[-2] * size


def _kept_rows(layer: Layer, *, has_dropout: bool) -> int:
    """Rows whose activation does not overwrite its input: all with dropout, which must not touch f's output."""
    if has_dropout:
        return layer.rows
    return sum(span.stop - span.start for span in layer.spans if span.activation in NEEDS_INPUT)


class Program:
    """The passes for batches of one size; see the module."""

    def __init__(
        self,
        layout: Layout,
        parameters: Tensor,
        gradients: Tensor | None,
        arena: Arena,
        shape: tuple[int, ...],
        extras: "Extras",
    ) -> None:
        """Bind all calls.

        Args:
            layout: Where everything lies.
            parameters: Flat, (N,).
            gradients: Flat, (N,); None for a forward pass alone, without dropout.
            arena: At least `arena_size` numbers.
            shape: (B, F), rows of a batch and features, or (P, B, F) where each member reads a batch of its own.
            extras: What is not in the layout.
        """
        self._layout, self._extras = layout, extras
        self._parameters, self._gradients = parameters, gradients
        n_rows = shape[-2]
        self._is_apart = len(shape) == 3
        self._has_dropout = extras.has_dropout and gradients is not None
        self.x = arena.take(*shape)
        """Features of the batch (B, F), or of all members' (P, B, F), to be filled."""
        self.outputs = arena.take(layout.head.rows, n_rows)
        """(P * C, B)."""
        self._z = [arena.take(layer.rows, n_rows) for layer in layout.layers]
        self._kept = [arena.take(_kept_rows(layer, has_dropout=self._has_dropout), n_rows) for layer in layout.layers]
        self.keep: list[Tensor] = []
        """Per layer (R, B): 0 where a unit is dropped, else 1 / (1 - p); to be filled. Empty without dropout."""
        self.output_gradients: Tensor | None = None
        """(P * C, B), to be filled."""
        self._d: list[Tensor] = []
        if gradients is not None:
            self.output_gradients = arena.take(layout.head.rows, n_rows)
            self._d = [arena.take(layer.rows, n_rows) for layer in layout.layers]
            if self._has_dropout:
                self.keep = [arena.take(layer.rows, n_rows) for layer in layout.layers]
        self._factors = Factors(is_rounded=extras.factors is not None and gradients is not None)
        if gradients is not None:
            self._factors.share(parameters, extras.factors)
        self._normed: list[Trained] = []
        if gradients is not None and extras.norms is not None:
            standardised = [arena.take(layer.rows, n_rows) for layer in layout.layers]
            self._normed = [
                extras.norms.training(index, z, kept, parameters, d)
                for index, (z, kept, d) in enumerate(zip(self._z, standardised, self._d, strict=True))
            ]
        self._derivatives: dict[tuple[int, int], Op] = {}
        self.forward: list[Op] = list(self._forward())
        """From `x` (and `keep`) to `outputs`."""
        self.backward: list[Op] = list(self._backward()) if gradients is not None else []
        """From `output_gradients` to the gradients."""

    # ---- forward

    def _forward(self) -> Iterator[Op]:
        yield from self._factors.update(self._parameters, self.x)
        for index, layer in enumerate(self._layout.layers):
            yield from self._affine(layer, self._z[index])
            yield from self._normalized(index)
            for span in layer.spans:
                yield from self._activation(index, span)
            z, kept = self._z[index], self._kept[index]
            yield from self._factors.update(*([z] if len(kept) < len(z) else []), kept)
        yield from self._affine(self._layout.head, self.outputs)

    def _affine(self, layer: Layer, z: Tensor) -> Iterator[Op]:
        """z <- W a + b for all members."""
        bias = self._parameters[layer.bias : layer.bias + layer.rows]
        if not _has_bias(layer):
            bias = torch.zeros_like(bias)
        weights = self._factors.of(self._parameters)
        if weights.dtype != z.dtype:
            # CUDA's products of narrower factors write what they give, and add it to nothing.
            for run in self._runs(layer):
                yield product_op(self._weights(run, weights), self._inputs(run), self._rows(z, run))
            yield partial(z.add_, bias[:, None])
            return
        yield partial(z.copy_, bias[:, None].expand_as(z))
        if self._is_grouped(layer):
            yield grouped_product([self._forward_product(block, z) for block in layer.blocks], is_added=True)
            return
        for run in self._runs(layer):
            outputs = self._rows(z, run)
            product = outputs.addmm_ if outputs.dim() == 2 else outputs.baddbmm_
            yield partial(product, self._weights(run, weights), self._inputs(run))

    def _normalized(self, index: int) -> list[Op]:
        """The normalization of a hidden layer, if there is one."""
        norms = self._extras.norms
        if norms is None:
            return []
        if self._gradients is None:
            return list(norms.measuring(index, self._z[index], self._parameters))
        return self._normed[index].forward

    def _activation(self, index: int, span: Span) -> Iterator[Op]:
        """The activation of a span, and its derivative for later."""
        z = self._z[index][span.start : span.stop]
        out = self._activations(index, span.start, span.stop)
        d = self._d[index][span.start : span.stop] if self._d else None
        if span.activation == "leaky_relu":
            forward, backward = leaky_relu_ops(z, d, self._extras.slopes(index, span))
            yield forward
        else:
            needs_input = span.activation in NEEDS_INPUT
            yield forward_op(span.activation, z, out if needs_input else z)
            backward = None if d is None else backward_op(span.activation, d, z)
        if backward is not None:
            self._derivatives[index, span.start] = backward
        rows = self._extras.padded_rows(index, span)
        if rows is not None:
            yield partial(z.index_fill_, 0, rows, 0.0)
        if self._has_dropout:
            before = out if span.activation in NEEDS_INPUT else z
            yield partial(torch.mul, before, self.keep[index][span.start : span.stop], out=out)

    # ---- backward

    def _backward(self) -> Iterator[Op]:
        assert self.output_gradients is not None
        yield from self._gradients_of(self._layout.head, self.output_gradients)
        for index in reversed(range(len(self._layout.layers))):
            layer, d = self._layout.layers[index], self._d[index]
            if self._has_dropout:
                yield partial(d.mul_, self.keep[index])
            for span in layer.spans:
                yield self._derivatives[index, span.start]
            if self._normed:
                assert self._gradients is not None
                yield from self._normed[index].backward(self._gradients)
            yield from self._gradients_of(layer, d)

    def _gradients_of(self, layer: Layer, d: Tensor) -> Iterator[Op]:
        """From d of a layer to the gradients of its weights and biases, and to d of the layers before."""
        assert self._gradients is not None
        if _has_bias(layer):
            yield partial(torch.sum, d, 1, out=self._gradients[layer.bias : layer.bias + layer.rows])
        yield from self._factors.update(d)
        factor = self._factors.of(d)
        if self._is_grouped(layer):
            yield grouped_product([self._weight_product(block, factor) for block in layer.blocks], is_added=False)
            if below := [self._input_product(block, factor) for block in layer.blocks if block.layer > 0]:
                yield grouped_product(below, is_added=False)
            return
        for run in self._runs(layer):
            of_run = self._rows(factor, run)
            yield product_op(of_run, self._inputs(run).mT, self._weights(run, self._gradients))
            if run.input_layer >= 0:
                start = run.first.input_row
                before = self._d[run.input_layer][start : start + run.n * run.first.n_in]
                before = before if run.n == 1 else before.view(run.n, run.first.n_in, -1)
                yield product_op(self._weights(run, self._factors.of(self._parameters)).mT, of_run, before)

    # ---- products of one block, where a whole layer's are one call
    #
    # Padding is left out where that costs nothing. Inputs are padded to whole vectors of numbers, which is what the
    # gradient of the weights is fast with; what stands in the padding is 0, and so is what comes of it.

    def _is_grouped(self, layer: Layer) -> bool:
        """Whether a layer's products are one call; with one batch for all, those of the first are one plain product."""
        is_first = bool(layer.spans) and layer.runs[0].input_layer < 0
        return self._extras.is_grouped and (self._is_apart or not is_first)

    def _forward_product(self, block: Block, z: Tensor) -> Product:
        """z += W a."""
        inputs = self._input_rows(block)[: block.used_in]
        rows = z[block.row : block.row + block.used_out]
        weights = self._block_of(self._factors.of(self._parameters), block)
        return weights[: block.used_out, : block.used_in], inputs, rows

    def _weight_product(self, block: Block, d: Tensor) -> Product:
        """dW = d a^T."""
        assert self._gradients is not None
        rows = d[block.row : block.row + block.used_out]
        return rows, self._input_rows(block).T, self._block_of(self._gradients, block)[: block.used_out]

    def _input_product(self, block: Block, d: Tensor) -> Product:
        """da = W^T d, in the padding too: it must not keep what was in memory before."""
        rows = d[block.row : block.row + block.used_out]
        below = self._d[block.layer - 1][block.input_row : block.input_row + block.n_in]
        return self._block_of(self._factors.of(self._parameters), block)[: block.used_out].T, rows, below

    def _block_of(self, flat: Tensor, block: Block) -> Tensor:
        """A block's weights, or what is laid out like them, (out, in)."""
        return flat[block.weight : block.weight + block.size].view(block.n_out, block.n_in)

    def _input_rows(self, block: Block) -> Tensor:
        """What a block reads, (in, B)."""
        if block.layer == 0:
            x = self._factors.of(self.x)
            return (x[block.member] if self._is_apart else x).T
        return self._activations(block.layer - 1, block.input_row, block.input_row + block.n_in, is_factor=True)

    # ---- views

    def _runs(self, layer: Layer) -> tuple[Run, ...]:
        return layer.own_runs if self._is_apart else layer.runs

    def _is_flat(self, run: Run) -> bool:
        """Whether a run is one plain product: one member, or members that read the same batch."""
        return run.n == 1 or (run.input_layer < 0 and not self._is_apart)

    def _weights(self, run: Run, of: Tensor) -> Tensor:
        """Weights, or what is laid out like them, of a run, (n, out, in) or (out, in)."""
        first = run.first
        piece = of[first.weight : first.weight + run.n * first.size]
        if self._is_flat(run):
            return piece.view(run.n * first.n_out, first.n_in)
        return piece.view(run.n, first.n_out, first.n_in)

    def _rows(self, of: Tensor, run: Run) -> Tensor:
        """Rows of a run, (n, out, B) or (out, B)."""
        n_out = run.first.n_out
        piece = of[run.first.row : run.first.row + run.n * n_out]
        return piece if self._is_flat(run) else piece.view(run.n, n_out, -1)

    def _inputs(self, run: Run) -> Tensor:
        """What a run reads, (n, in, B) or (in, B)."""
        if run.input_layer < 0:
            x = self._factors.of(self.x)
            own = x[run.first.member : run.first.member + run.n] if self._is_apart else x
            return own[0].T if self._is_apart and run.n == 1 else own.mT
        start, n_in = run.first.input_row, run.first.n_in
        piece = self._activations(run.input_layer, start, start + run.n * n_in, is_factor=True)
        return piece if run.n == 1 else piece.view(run.n, n_in, -1)

    def _activations(self, index: int, start: int, stop: int, *, is_factor: bool = False) -> Tensor:
        """Outputs of rows of a hidden layer, after dropout, (stop - start, B), or their factors."""
        z, kept = self._z[index], self._kept[index]
        # Rows that keep their input are the last ones.
        first_kept = len(z) - len(kept)
        whole, first = (z, 0) if start < first_kept else (kept, first_kept)
        return (self._factors.of(whole) if is_factor else whole)[start - first : stop - first]


def _has_bias(layer: Layer) -> bool:
    """Whether what lies in a layer's place of biases is added to its products."""
    return layer.shift != layer.bias


class Extras:
    """What a program needs to know of the members beside the layout."""

    def __init__(
        self,
        layout: Layout,
        members: Sequence[ModelConfig],
        like: Tensor,
        *,
        is_grouped: bool,
        is_rounded: bool = False,
    ) -> None:
        """Collect it.

        Args:
            layout: Where everything lies.
            members: In the order of the stack.
            like: A tensor of the device and dtype wanted.
            is_grouped: Whether products of unequal shape are one call, see `dlcore.grouped`.
            is_rounded: Whether products in training read rounded factors, see `dlcore.precision`.
        """
        self.factors = like.new_zeros(layout.n_parameters, dtype=factor_dtype(like)) if is_rounded else None
        """The parameters, rounded, for all programs; None where they are their own factors."""
        self.has_dropout = any(member.dropout > 0 and member.widths for member in members)
        self.is_grouped = is_grouped
        self.norms = Norms(layout, members, like) if layout.normalization != "none" else None
        """None where there is no normalization."""
        self._layout, self._members = layout, members
        self._device, self._dtype = like.device, like.dtype

    def slopes(self, index: int, span: Span) -> Tensor | float:
        """Slope of leaky_relu: one for all, or one per row, (R, 1)."""
        slopes = [self._members[i].slope for i in span.members]
        if len(set(slopes)) == 1:
            return slopes[0]
        blocks = {block.member: block for block in self._layout.layers[index].blocks}
        per_row = [slope for i, slope in zip(span.members, slopes, strict=True) for _ in range(blocks[i].n_out)]
        return torch.tensor(per_row, dtype=self._dtype, device=self._device)[:, None]

    def padded_rows(self, index: int, span: Span) -> Tensor | None:
        """Rows of a span, counted from its start, that are padding and must be put back to 0; None if none."""
        if span.activation != "sigmoid":
            return None
        blocks = {block.member: block for block in self._layout.layers[index].blocks}
        rows = [
            blocks[i].row - span.start + unit
            for i in span.members
            for unit in range(self._members[i].widths[index], blocks[i].n_out)
        ]
        return torch.tensor(rows, device=self._device) if rows else None
