"""Normalisation of the hidden layers of a stack, between the products and the activations, as calls on preallocated
tensors. Shapes are those of `dlcore.layout`: units first, (R, B).

    batch   each unit over the rows of a batch: zhat = (z - mean) / sqrt(var + eps);  a = f(g zhat + s). Measured with
            running means and variances instead (Ioffe and Szegedy, arXiv:1502.03167). There is no bias beside s.
    layer   each row over the units of a layer, in training and measured alike (Ba, Kiros and Hinton, arXiv:1607.06450)

The same as `dlcore.models` builds for one network, and autograd differentiates:

    ds = sum d;  dg = sum d zhat;  dz = (g d - mean(g d) - zhat mean(g d zhat)) / sqrt(var + eps)

Padded units have gain 0; over layers they are left out of sums and put back to 0.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from dlcore.config import ModelConfig
from dlcore.elementwise import Op
from dlcore.layout import Layer, Layout
from dlcore.models import NORM_EPSILON, NORM_MOMENTUM


@dataclass(frozen=True, slots=True)
class _Group:
    """Neighbouring members of equal padded width in a layer."""

    start: int
    stop: int
    n: int
    widths: Tensor
    """Units that are not padding, (n, 1, 1)."""

    def of(self, rows: Tensor) -> Tensor:
        """Their rows, (n, H, B)."""
        return rows[self.start : self.stop].view(self.n, -1, rows.shape[1])


class Norms:
    """Normalisation of one stack."""

    def __init__(self, layout: Layout, models: Sequence[ModelConfig], like: Tensor) -> None:
        """Allocate running statistics, not yet filled.

        Args:
            layout: Where everything lies.
            models: Of the members, in the order of the stack.
            like: A tensor of the device and dtype wanted.
        """
        self._layout, self._models, self._like = layout, models, like
        self.is_over_batch = layout.normalization == "batch"
        """Whether it is of units over rows."""
        self.statistics: list[tuple[Tensor, Tensor]] = []
        """Running means and variances of each layer, (R,) each; empty over layers, which have none."""
        if self.is_over_batch:
            self.statistics = [(like.new_zeros(layer.rows), like.new_zeros(layer.rows)) for layer in layout.layers]
        self._groups = [self._groups_of(layer) for layer in layout.layers]
        self._padding = [self._padding_of(index) for index in range(len(layout.layers))]

    def training(self, index: int, z: Tensor, kept: Tensor, parameters: Tensor, d: Tensor) -> "Trained":
        """The calls of one layer in training.

        Args:
            index: Of the layer.
            z: (R, B), what its products gave; overwritten.
            kept: (R, B), room for zhat, which must stay until the calls backward.
            parameters: Flat, (N,).
            d: (R, B), the loss's slope, behind the normalisation, then before it.
        """
        gain, shift = self._of(index, parameters)
        bind = _OverBatch if self.is_over_batch else _OverLayer
        return bind(self, index, z, kept, d, gain, shift)

    def measuring(self, index: int, z: Tensor, parameters: Tensor) -> Iterator[Op]:
        """The calls of one layer that is measured, on z (R, B) in place."""
        gain, shift = self._of(index, parameters)

        def scale() -> None:
            z.mul_(gain).add_(shift)

        if self.is_over_batch:
            mean, variance = (statistic[:, None] for statistic in self.statistics[index])

            def over_batch() -> None:
                z.sub_(mean).mul_((variance + NORM_EPSILON).rsqrt_().mul_(gain)).add_(shift)

            yield over_batch
            return
        yield from (op for op, _ in self.standardised(index, z, z))
        yield scale

    def standardised(self, index: int, z: Tensor, out: Tensor) -> Iterator[tuple[Op, Tensor | None]]:
        """Calls that standardise the rows of a layer, each member's over its units: z -> out, both (R, B).

        With the calls that need it comes 1 / sqrt(var + eps) of each row, (n, 1, B).
        """
        groups, padding = self._groups[index], self._padding[index]

        def centre(group: _Group) -> Op:
            of, to = group.of(z), group.of(out)
            return lambda: torch.sub(of, of.sum(1, keepdim=True).div_(group.widths), out=to)

        def divide(group: _Group, inverse: Tensor) -> Op:
            to = group.of(out)

            def op() -> None:
                torch.sum(to.square(), 1, keepdim=True, out=inverse)
                to.mul_(inverse.div_(group.widths).add_(NORM_EPSILON).rsqrt_())

            return op

        for group in groups:
            yield centre(group), None
        if padding is not None:
            rows = padding
            yield lambda: out.index_fill_(0, rows, 0.0), None
        for group in groups:
            inverse = z.new_empty(group.n, 1, z.shape[1])
            yield divide(group, inverse), inverse

    def groups(self, index: int) -> list["_Group"]:
        """Neighbours of equal padded width."""
        return self._groups[index]

    def padding(self, index: int) -> Tensor | None:
        """Rows of a layer that are padding; None if none."""
        return self._padding[index]

    def _of(self, index: int, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Gains and shifts of a layer, or their gradients, (R, 1)."""
        layer = self._layout.layers[index]
        assert layer.gain is not None and layer.shift is not None
        return flat[layer.gain : layer.gain + layer.rows, None], flat[layer.shift : layer.shift + layer.rows, None]

    def gradients(self, index: int, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Where the gradients of a layer's gains and shifts go, (R,) each."""
        gain, shift = self._of(index, flat)
        return gain[:, 0], shift[:, 0]

    def _groups_of(self, layer: Layer) -> list["_Group"]:
        found = []
        for _, group in groupby(layer.blocks, key=lambda block: block.n_out):
            blocks = list(group)
            widths = self._like.new_tensor([block.used_out for block in blocks])[:, None, None]
            found.append(_Group(blocks[0].row, blocks[-1].row + blocks[-1].n_out, len(blocks), widths))
        return found

    def _padding_of(self, index: int) -> Tensor | None:
        blocks = self._layout.layers[index].blocks
        rows = [row for b in blocks for row in range(b.row + b.used_out, b.row + b.n_out)]
        return torch.tensor(rows, device=self._like.device) if rows else None


class Trained:
    """The calls of one layer in training."""

    forward: list[Op]
    """z <- gain zhat + shift."""

    def backward(self, gradients: Tensor) -> list[Op]:
        """d behind the normalisation -> d before it, in place, and the gradients of gains and shifts (flat)."""
        raise NotImplementedError


class _OverBatch(Trained):
    def __init__(  # noqa: PLR0913 - what `Norms.training` was given
        self, norms: Norms, index: int, z: Tensor, kept: Tensor, d: Tensor, gain: Tensor, shift: Tensor
    ) -> None:
        self._norms, self._index, self._kept, self._d, self._gain = norms, index, kept, d, gain
        n_rows = z.shape[1]
        mean, variance, inverse = (z.new_empty(len(z), 1) for _ in range(3))
        self._inverse = inverse

        def forward() -> None:
            torch.mean(z, 1, keepdim=True, out=mean)
            torch.sub(z, mean, out=kept)
            torch.mean(kept.square(), 1, keepdim=True, out=variance)
            torch.add(variance, NORM_EPSILON, out=inverse).rsqrt_()
            kept.mul_(inverse)
            torch.addcmul(shift, kept, gain, out=z)

        def follow() -> None:
            of_means, of_variances = norms.statistics[index]
            of_means.lerp_(mean[:, 0], NORM_MOMENTUM)
            of_variances.lerp_(variance[:, 0].mul_(n_rows / (n_rows - 1)), NORM_MOMENTUM)

        # One row has no spread: nothing is learned of it.
        self.forward = [forward, follow] if n_rows > 1 else [forward]

    def backward(self, gradients: Tensor) -> list[Op]:
        d, kept = self._d, self._kept
        of_gain, of_shift = self._norms.gradients(self._index, gradients)
        n_rows = d.shape[1]

        def backward() -> None:
            torch.sum(d, 1, out=of_shift)
            torch.sum(d * kept, 1, out=of_gain)
            d.sub_(of_shift[:, None] / n_rows).addcmul_(kept, of_gain[:, None], value=-1 / n_rows)
            d.mul_(self._inverse * self._gain)

        return [backward]


class _OverLayer(Trained):
    def __init__(  # noqa: PLR0913 - what `Norms.training` was given
        self, norms: Norms, index: int, z: Tensor, kept: Tensor, d: Tensor, gain: Tensor, shift: Tensor
    ) -> None:
        self._norms, self._index, self._kept, self._d, self._gain = norms, index, kept, d, gain
        calls = list(norms.standardised(index, z, kept))
        self._inverses = [inverse for _, inverse in calls if inverse is not None]
        self.forward = [op for op, _ in calls]
        self.forward.append(lambda: torch.addcmul(shift, kept, gain, out=z))

    def backward(self, gradients: Tensor) -> list[Op]:
        d, kept = self._d, self._kept
        of_gain, of_shift = self._norms.gradients(self._index, gradients)
        padding = self._norms.padding(self._index)

        def of_parameters() -> None:
            torch.sum(d, 1, out=of_shift)
            torch.sum(d * kept, 1, out=of_gain)
            d.mul_(self._gain)

        def of_group(group: _Group, inverse: Tensor) -> Op:
            own, zhat = group.of(d), group.of(kept)

            def op() -> None:
                mean = own.sum(1, keepdim=True).div_(group.widths)
                along = (own * zhat).sum(1, keepdim=True).div_(group.widths)
                own.sub_(mean).addcmul_(zhat, along, value=-1).mul_(inverse)

            return op

        ops: list[Op] = [of_parameters]
        ops += [of_group(*each) for each in zip(self._norms.groups(self._index), self._inverses, strict=True)]
        if padding is not None:
            ops.append(lambda: d.index_fill_(0, padding, 0.0))
        return ops
