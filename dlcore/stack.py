"""One tensor program that trains some members of a population: their tensors, an epoch, a measurement.

A stack decides nothing: which members it has comes from `dlcore.packing`, and what its numbers mean for each
of them is judged in `dlcore.population`. Inside an epoch nothing waits for the device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dlcore.augmentation import StackAugmentation
from dlcore.config import ModelConfig
from dlcore.criterion import Mix, is_weighed, weighing_of
from dlcore.elementwise import Op
from dlcore.layout import Block, Layout, lay_out
from dlcore.losses import loss_ops, targets_like
from dlcore.metrics import widest_dtype
from dlcore.normalization import Norms
from dlcore.packing import Cost, Member, padded_widths
from dlcore.precision import products_in
from dlcore.program import Arena, Extras, Program, arena_size
from dlcore.rows import TensorData
from dlcore.seeding import dropout_rows
from dlcore.tasks import curve_metric
from dlcore.updates import Schedules, Updates, n_states
from dlcore.visits import Drawn, Visits

Linears = list[tuple[Tensor, ...]]
"""What each Linear layer of one network and its normalization train, as `models.draw_tensors` orders it: weight
(out, in), bias (out,), gain and shift (out,). Or what an optimizer keeps for each of these."""


@dataclass(frozen=True, slots=True)
class Network:
    """What must be carried from one stack to another for a member to go on, on the CPU."""

    parameters: Linears
    states: tuple[Linears, ...]
    """What the optimizer keeps; empty before the first step."""
    statistics: Linears = field(default_factory=list)
    """Running mean and variance of each hidden layer, (out,) each, where it is normalized over batches."""


class Stack:
    """Members trained together; see the module."""

    def __init__(self, members: Sequence[Member], networks: Sequence[Network], data: TensorData, cost: Cost) -> None:
        """Allocate everything.

        Args:
            members: In the order of the stack.
            networks: Their parameters and states.
            data: The rows, on the device.
            cost: What calls and arithmetic cost there.
        """
        self.members = list(members)
        self._data, self._visits = data, Visits(members, data)
        models = [member.model_config for member in members]
        configs = [member.train_config for member in members]
        self._models = models
        self._layout = lay_out(models, padded_widths(members, cost))
        self._batch_size = configs[0].batch_size
        self._metric = curve_metric(data.task.name, configs[0].objective)
        self._allocate(networks, n_states(configs[0].optimizer))
        schedules = Schedules(configs, self.steps_per_epoch, self._parameters)
        self._updates = Updates(self._layout, configs, self._parameters, self._gradients, self._states, schedules)
        self._precision = configs[0].precision
        is_rounded = self._precision == "bf16"
        extras = Extras(self._layout, models, self._parameters, is_grouped=cost.is_grouped, is_rounded=is_rounded)
        self.statistics = self._views_of_statistics(extras.norms)
        """Each member's running means and variances, unpadded, as they are now."""
        for own, network in zip(self.statistics, networks, strict=True):
            _copy(own, network.statistics)
        is_augmented = configs[0].is_augmented
        self._augmentation = (
            StackAugmentation(members, self.steps_per_epoch, self._parameters) if is_augmented else None
        )
        self._build_programs(extras)
        self._dropout = _Dropout(self._layout, members, self._parameters) if extras.has_dropout else None
        self._losses = self._parameters.new_empty(self.steps_per_epoch, len(members))

    @property
    def steps_per_epoch(self) -> int:
        """Weight updates of an epoch."""
        return math.ceil(self._visits.n_train / self._batch_size)

    @property
    def step_ops(self) -> list[Op]:
        """Calls from a whole batch to its gradients."""
        visits = self._visits
        return self._training[min(self._batch_size, visits.n_train) * visits.train_copies].ops

    # ---- tensors

    def _allocate(self, networks: Sequence[Network], n: int) -> None:
        """Parameters, gradients and states, filled with what the networks bring."""
        size, like = self._layout.n_parameters, self._data.x_train
        flat = torch.zeros(1 + n, size, dtype=like.dtype)
        for block in self._layout.blocks:
            network = networks[block.member]
            for row, linears in zip(flat, (network.parameters, *network.states), strict=False):
                _copy([self._pieces(row, block)], [linears[block.layer]])
        # Apart, so that the parameters can be passed over without the states between them.
        self._parameters, *self._states = (row.to(like.device, copy=True) for row in flat)
        self._gradients = like.new_zeros(size + 1)
        self.views: list[Linears] = [[] for _ in networks]
        """Each member's parameters, unpadded, as they are now."""
        for block in self._layout.blocks:  # each member's own layers come in order
            self.views[block.member].append(self._pieces(self._parameters, block))

    def networks(self) -> list[Network]:
        """Copies of all parameters and states, unpadded, in the order of the stack."""
        flat = [tensor.cpu() for tensor in (self._parameters, *self._states)]
        kept: list[list[Linears]] = [[[] for _ in flat] for _ in self.members]
        for block in self._layout.blocks:
            for linears, row in zip(kept[block.member], flat, strict=True):
                linears.append(tuple(piece.clone() for piece in self._pieces(row, block)))
        statistics = [[tuple(t.cpu().clone() for t in layer) for layer in own] for own in self.statistics]
        return [Network(own[0], tuple(own[1:]), of) for own, of in zip(kept, statistics, strict=True)]

    def _pieces(self, flat: Tensor, block: Block) -> tuple[Tensor, ...]:
        """Views of what a block trains in a flat tensor, without the padding; see `Linears`."""
        n_in, n_out = _sizes(self._models[block.member])[block.layer : block.layer + 2]
        starts = [block.bias]
        if block.layer < self._models[block.member].depth:
            layer = self._layout.layers[block.layer]
            further = (layer.gain, None if layer.shift == layer.bias else layer.shift)
            starts += [start + block.row for start in further if start is not None]
        vectors = (flat[start : start + n_out] for start in starts)
        return _weight_of(flat, block)[:n_out, :n_in], *vectors

    def _views_of_statistics(self, norms: Norms | None) -> list[Linears]:
        found: list[Linears] = [[] for _ in self.members]
        for layer, statistics in zip(self._layout.layers, norms.statistics if norms else [], strict=False):
            for block in layer.blocks:
                found[block.member].append(tuple(s[block.row : block.row + block.used_out] for s in statistics))
        return found

    def _build_programs(self, extras: Extras) -> None:
        """One program for whole batches, one for the last if it is smaller, one that measures."""
        data, layout, visits = self._data, self._layout, self._visits
        configs = [member.train_config for member in self.members]
        has_weighing = data.task.name != "regression" and any(map(is_weighed, configs))
        weighing = weighing_of(data.task, configs, visits.y_train(), self._parameters) if has_weighing else None
        shapes, val_shapes = visits.train_shapes(self._batch_size), visits.val_shapes(self._batch_size)
        need = [arena_size(layout, shape, has_backward=True, has_dropout=extras.has_dropout) for shape in shapes]
        need += [arena_size(layout, shape, has_backward=False, has_dropout=False) for shape in val_shapes]
        # All use one memory: none keeps anything from one call to the next.
        storage = self._parameters.new_empty(max(need))
        self._training: dict[int, _Step] = {}
        for shape in shapes:
            n = shape[-2]
            program = Program(layout, self._parameters, self._gradients, Arena(storage), shape, extras)
            targets = targets_like(data.y_train, n, visits.train_copies)
            assert program.output_gradients is not None
            outputs = program.outputs.view(len(self.members), -1, n)
            gradients = program.output_gradients.view_as(outputs)
            losses = self._parameters.new_empty(len(self.members))
            mix = None if self._augmentation is None else self._augmentation.room(n)
            ops = loss_ops(data.task.name, outputs, targets, gradients, losses, weighing, mix)
            x, y = program.x.view(-1, shape[-1]), targets.view(-1, *data.y_train.shape[1:])
            self._training[len(x)] = _Step(program, x, y, losses, [*program.forward, *ops, *program.backward], mix)
        self._measuring = {
            shape[-2]: Program(layout, self._parameters, None, Arena(storage), shape, extras) for shape in val_shapes
        }
        self._chunk = val_shapes[0][-2]
        self._val_outputs = self._parameters.new_empty(len(self.members), data.task.n_outputs, visits.n_val)
        self._val_chunks, self._y_val = visits.val_chunks(self._chunk), visits.y_val()

    # ---- an epoch

    @torch.no_grad()
    def train_epoch(self, order_seed: int, epoch: int, drawn: Drawn) -> Tensor:
        """One pass over train, then a measurement on val.

        Args:
            order_seed: Of members without one of their own.
            epoch: Its number, from 1.
            drawn: Orders of this epoch that are known; learns here.

        Returns:
            (5, P), on the device: mean training loss, the first step's, the highest step's (NaN if one is
            NaN), val loss, val metric.
        """
        order = self._visits.order(order_seed, epoch, self._batch_size, drawn)
        with products_in(self._precision):
            self._train(order, (epoch - 1) * self.steps_per_epoch)
        return torch.cat([self._summary(), self._measure()])

    def _train(self, order: Tensor, step: int) -> None:
        """One pass over train in an order of `Visits`; `step` counts the weight updates before it."""
        data = self._data
        for index, rows in enumerate(torch.split(order, self._batch_size * self._visits.train_copies)):
            now = self._training[len(rows)]
            torch.index_select(data.x_train, 0, rows, out=now.x)
            torch.index_select(data.y_train, 0, rows, out=now.y)
            if self._augmentation is not None:
                self._augment(step + index, now)
            if self._dropout is not None:
                self._dropout.draw(step + index, now.program.keep)
            for op in now.ops:
                op()
            self._updates.step(step + index)
            self._losses[index].copy_(now.losses)

    def _augment(self, step: int, now: "_Step") -> None:
        """Change the batches of a step, each member's in its own way."""
        assert self._augmentation is not None
        x, y = (rows.view(len(self.members), -1, *rows.shape[1:]) for rows in (now.x, now.y))
        self._augmentation.apply(step, x, y if self._data.task.name == "regression" else None, now.mix)

    def _summary(self) -> Tensor:
        """Mean, first and highest training loss of the epoch's steps, (3, P)."""
        losses = self._losses.to(widest_dtype(self._losses.device))
        n_rows, size = self._visits.n_train, self._batch_size
        # Each step counts by its rows: the last batch may be smaller.
        counts = [min(size, n_rows - start) for start in range(0, n_rows, size)]
        weights = torch.tensor(counts, dtype=losses.dtype, device=losses.device)[:, None] / n_rows
        return torch.stack([(losses * weights).sum(0), losses[0], losses.amax(0)])

    def _measure(self) -> Tensor:
        """Loss and metric on val, (2, P)."""
        data = self._data
        for index, outputs in enumerate(torch.split(self._val_outputs, self._chunk, 2)):
            program = self._measuring[outputs.shape[2]]
            if self._val_chunks is None:
                start = index * self._chunk
                program.x.copy_(data.x_val[start : start + outputs.shape[2]])
            else:
                flat = program.x.view(-1, data.x_val.shape[1])
                torch.index_select(data.x_val, 0, self._val_chunks[index], out=flat)
            for op in program.forward:
                op()
            outputs.copy_(program.outputs.view_as(outputs))
        outputs = self._val_outputs.mT
        metric = data.task.metric(self._metric, outputs, self._y_val)
        return torch.stack([data.task.loss(outputs, self._y_val).to(metric.dtype), metric])


@dataclass(frozen=True, slots=True)
class _Step:
    """All calls from a batch to its gradients."""

    program: Program
    x: Tensor
    """Its features, one row after the other, (B, F) or (P * B, F)."""
    y: Tensor
    """Targets, one row after the other."""
    losses: Tensor
    ops: list[Op]
    mix: Mix | None
    """How the rows are mixed, filled before `ops` are called; None where they are not."""


class _Dropout:
    """Masks of a stack, each member's own."""

    def __init__(self, layout: Layout, members: Sequence[Member], like: Tensor) -> None:
        """Find which pair of units of which member each pair of rows is."""
        device = like.device
        self._seeds = torch.tensor([member.seed for member in members], device=device)
        p = torch.tensor([member.model_config.dropout for member in members], dtype=torch.float64)
        self._p = p.to(torch.float32).to(device)  # MPS has no float64
        self._owners, self._pairs, self._scales = [], [], []
        for layer in layout.layers:
            owners = [block.member for block in layer.blocks for _ in range(block.n_out // 2)]
            pairs = [pair for block in layer.blocks for pair in range(block.n_out // 2)]
            self._owners.append(torch.tensor(owners, device=device))
            self._pairs.append(torch.tensor(pairs, device=device, dtype=torch.int32))
            per_row = p[torch.tensor(owners).repeat_interleave(2)]
            self._scales.append((1 / (1 - per_row)).to(like.dtype).to(device)[:, None])

    def draw(self, step: int, keep: Sequence[Tensor]) -> None:
        """Fill keep, one (R, B) per layer: 0 where a unit is dropped, else 1 / (1 - p)."""
        for layer, (owners, pairs, scales) in enumerate(zip(self._owners, self._pairs, self._scales, strict=True)):
            is_kept = dropout_rows(self._seeds, step, layer, self._p, (owners, pairs), keep[layer].shape[1])
            torch.mul(is_kept, scales, out=keep[layer])


def _copy(into: Linears, source: Linears) -> None:
    """Copy all tensors of a network."""
    for views, values in zip(into, source, strict=True):
        for view, value in zip(views, values, strict=True):
            view.copy_(value)


def _weight_of(flat: Tensor, block: Block) -> Tensor:
    """A block's weights (out, in) in a flat tensor, padding included."""
    return flat[block.weight : block.weight + block.size].view(block.n_out, block.n_in)


def _sizes(model: ModelConfig) -> tuple[int, ...]:
    """Features, widths, outputs."""
    return (model.n_features, *model.widths, model.n_outputs)
