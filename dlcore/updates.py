"""Weight updates of a whole stack: the rules of `dlcore.optim` on flat tensors.

Each hyperparameter is a flat tensor with the member's value at each of its parameters, so that a step is a few
passes over contiguous memory whatever the members' shapes; large blocks of weights have plain numbers instead.
Code that no member needs (decay, clipping, Nesterov) is not bound.

Frozen parameters have no part in norms of gradients. Where many lie together no rule passes over them; between others
they are put back after each step, to the bit, whatever the rules made of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import overload

import torch
from torch import Tensor

from dlcore.config import TrainConfig
from dlcore.elementwise import Op
from dlcore.freezing import frozen_runs, is_frozen, put_back_ops
from dlcore.layout import Block, Layout
from dlcore.optim import BETAS, CLIP_EPSILON, EPSILON, Number
from dlcore.schedules import learning_rate_factors

LARGE_BLOCK = 16_384
"""Weights of a block from which two calls of its own cost less than reading its hyperparameters from memory."""


def n_states(optimizer: str) -> int:
    """Numbers that an optimizer keeps per parameter."""
    return 2 if optimizer == "adamw" else 1


def hyperparameters_of(layout: Layout, configs: Sequence[TrainConfig]) -> int:
    """Numbers beside parameters, gradients and states that `Updates` keeps, for a prediction of memory."""
    is_long = {run: run[1] - run[0] >= LARGE_BLOCK for run in frozen_runs(layout, configs)}
    untouched, put_back = (sum(b - a for (a, b), of in is_long.items() if of is long) for long in (True, False))
    blocks = [block for block in layout.blocks if not is_frozen(block, configs)]
    large = sum(block.size for block in blocks if block.size >= LARGE_BLOCK)
    small = layout.n_parameters - large - untouched
    spread = 1 + any(c.weight_decay > 0 for c in configs)  # rates and decay
    scratch = layout.n_parameters - untouched
    if configs[0].optimizer == "sgd":
        spread += 1  # momentum
        is_ahead = any(c.nesterov and c.momentum > 0 for c in configs)
        spread, scratch = spread + 2, scratch * is_ahead
        if any(c.weight_decay > 0 for c in configs):
            spread += len({(c.schedule, c.warmup_epochs) for c in configs}) > 1  # rate times decay
    n_owners = 1 + any(c.backbone_rate != 1 for c in configs)  # to whom each belongs, and whose rate it has
    return spread * small + scratch + n_owners * layout.n_parameters + 3 * put_back  # values, places of 64 bits


class Schedules:
    """Learning rates of the members of a stack, made before training."""

    def __init__(self, configs: Sequence[TrainConfig], steps_per_epoch: int, like: Tensor) -> None:
        """Make each schedule once.

        Args:
            configs: In the order of the stack, of one number of epochs.
            steps_per_epoch: Weight updates of an epoch.
            like: A tensor of the device and dtype wanted.
        """
        names = [(c.schedule, c.warmup_epochs) for c in configs]
        distinct = list(dict.fromkeys(names))
        n_steps = configs[0].epochs * steps_per_epoch
        curves = [learning_rate_factors(name, n_steps, warmup * steps_per_epoch) for name, warmup in distinct]
        self.is_common = len(curves) == 1
        """Whether a step's rates are the peak rates times one number."""
        self._factors: list[list[float]] = [curve.tolist() for curve in curves]
        self._curve_of_member = [distinct.index(name) for name in names]
        self._curves = torch.stack(curves).to(like.dtype).to(like.device)  # MPS has no float64
        self.peaks = [c.learning_rate for c in configs]
        """Peak rate of each member, (P,); if any has another one for its hidden layers, (2 P,): of heads, of these."""
        self.has_two = any(c.backbone_rate != 1 for c in configs)
        if self.has_two:
            self.peaks += [c.learning_rate * c.backbone_rate for c in configs]
        self._places = torch.tensor(self._curve_of_member * (1 + self.has_two), device=like.device)
        self._peak = torch.tensor(self.peaks, dtype=like.dtype, device=like.device)

    def factor(self, step: int, member: int = 0) -> float:
        """The rate of a step divided by the peak rate."""
        return self._factors[self._curve_of_member[member]][step]

    def rates(self, step: int) -> Tensor:
        """The rates of a step, as `peaks`."""
        return self._peak * self._curves[:, step].index_select(0, self._places)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Neighbouring parameters that are updated together."""

    start: int
    stop: int
    block: Block | None
    """A large block of weights, which is updated with plain numbers; None for a mixture."""


class Updates:
    """Optimizer of a stack; see the module."""

    def __init__(
        self,
        layout: Layout,
        configs: Sequence[TrainConfig],
        parameters: Tensor,
        gradients: Tensor,
        states: Sequence[Tensor],
        schedules: Schedules,
    ) -> None:
        """Bind all calls.

        Args:
            layout: Where everything lies.
            configs: In the order of the stack, of one optimizer.
            parameters: Flat, (N,), updated in place.
            gradients: Flat, (N + 1,): one more than parameters, for a 0 at the end; overwritten.
            states: `n_states` flat tensors (N,), updated in place.
            schedules: Learning rates, over all steps of the training.
        """
        self._layout, self._configs = layout, configs
        self._w, self._g, self._states = parameters, gradients[:-1], states
        self._padded_gradients = gradients
        self._schedules = schedules
        self._depths = [head.layer for head in layout.head.blocks]
        self._owner = self._per_parameter(lambda block: block.member)
        self._place_of_rate = self._per_parameter(self._rate_place) if schedules.has_two else self._owner
        frozen = frozen_runs(layout, configs)
        self._after = put_back_ops(parameters, [run for run in frozen if run[1] - run[0] < LARGE_BLOCK])
        self._before: list[Op] = self._clipping() if any(c.clip_norm is not None for c in configs) else []
        bind = self._bind_adamw if configs[0].optimizer == "adamw" else self._bind_sgd
        self._rules = [bind(piece) for piece in _pieces(layout, frozen)]

    def step(self, step: int) -> None:
        """Update all parameters; `step` counts weight updates from 0."""
        for op in self._before:
            op()
        for rule in self._rules:
            rule(step)
        for op in self._after:
            op()

    # ---- rules

    def _bind_sgd(self, piece: _Piece) -> Callable[[int], None]:
        """`dlcore.optim.sgd_step`."""
        w, g, v = (t[piece.start : piece.stop] for t in (self._w, self._g, self._states[0]))
        momentum = self._spread([c.momentum for c in self._configs], piece)
        rate, decay = self._rate_of(piece), self._decay_of(piece)
        # g + momentum v where Nesterov's form is asked for, else v
        ahead = [c.nesterov and c.momentum > 0 for c in self._configs]
        of_gradient = self._spread([float(is_ahead) for is_ahead in ahead], piece)
        of_velocity = self._spread([c.momentum if a else 1.0 for a, c in zip(ahead, self._configs, strict=True)], piece)
        is_ahead = not _is_zero(of_gradient)
        scratch = torch.empty_like(w) if is_ahead else w

        def rule(step: int) -> None:
            number, factor = rate(step)
            if decay is not None:
                decay(w, number, factor)
            if isinstance(momentum, Tensor):
                torch.addcmul(g, v, momentum, out=v)
            else:
                torch.add(g, v, alpha=momentum, out=v)
            if is_ahead:
                torch.mul(v, of_velocity, out=scratch)
                _add_product(scratch, g, of_gradient)
                _add_product(w, scratch, number, factor)
            else:
                _add_product(w, v, number, factor)

        return rule

    def _bind_adamw(self, piece: _Piece) -> Callable[[int], None]:
        """`dlcore.optim.adamw_step`."""
        w, g, m, v = (t[piece.start : piece.stop] for t in (self._w, self._g, *self._states))
        decayed = max(min(piece.stop, self._layout.n_weights) - piece.start, 0)
        decay = self._spread([c.weight_decay for c in self._configs], piece, decayed)
        beta1, beta2 = BETAS
        rate, scratch = self._rate_of(piece), torch.empty_like(w)

        def rule(step: int) -> None:
            number, factor = rate(step)
            if decay is not None:
                torch.mul(w[:decayed], decay, out=scratch[:decayed])
                head = number[:decayed] if isinstance(number, Tensor) else number
                _add_product(w[:decayed], scratch[:decayed], head, factor)
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            root = (1 - beta2 ** (step + 1)) ** 0.5
            torch.sqrt(v, out=scratch).div_(root).add_(EPSILON)
            torch.div(m, scratch, out=scratch)
            _add_product(w, scratch, number, factor / (1 - beta1 ** (step + 1)))

        return rule

    def _decay_of(self, piece: _Piece) -> Callable[[Tensor, Number, float], None] | None:
        """w, minus the learning rate as a number and a factor -> w (1 - rate decay), in place, of weights alone."""
        n = max(min(piece.stop, self._layout.n_weights) - piece.start, 0)
        decay = self._spread([c.weight_decay for c in self._configs], piece, n)
        if decay is None:
            return None
        if not isinstance(decay, Tensor):
            plain = decay
            return lambda w, number, factor: _add_product(w, w, number * plain, factor)
        spread = decay
        if self._schedules.is_common:  # the number is the same tensor in each step
            product = spread.mul_(torch.as_tensor(self._minus_peak(piece))[:n])
            return lambda w, number, factor: _add_product(w[:n], w[:n], product, factor)
        moving = torch.empty_like(spread)

        def shrink(w: Tensor, number: Number, factor: float) -> None:
            assert isinstance(number, Tensor)
            _add_product(w[:n], w[:n], torch.mul(number[:n], spread, out=moving), factor)

        return shrink

    def _rate_of(self, piece: _Piece) -> Callable[[int], tuple[Number, float]]:
        """Step -> minus the learning rate, as a number and a factor whose product it is."""
        schedules, minus_peak = self._schedules, self._minus_peak(piece)
        if not isinstance(minus_peak, Tensor):
            assert piece.block is not None
            member, plain = piece.block.member, minus_peak
            return lambda step: (plain, schedules.factor(step, member))
        moving = minus_peak
        if schedules.is_common:
            return lambda step: (moving, schedules.factor(step))
        places = self._place_of_rate[piece.start : piece.stop]

        def rate(step: int) -> tuple[Tensor, float]:
            return torch.index_select(-schedules.rates(step), 0, places, out=moving), 1.0

        return rate

    def _minus_peak(self, piece: _Piece) -> Number:
        """Minus the peak learning rate of each parameter of a piece, or one number."""
        if piece.block is not None:
            return -self._schedules.peaks[self._rate_place(piece.block)]
        minus = torch.tensor(self._schedules.peaks, dtype=self._w.dtype, device=self._w.device).neg_()
        return minus.index_select(0, self._place_of_rate[piece.start : piece.stop])

    def _rate_place(self, block: Block) -> int:
        """Which of the peak rates is that of a block."""
        is_hidden = block.layer < self._depths[block.member]
        return block.member + len(self._configs) * (self._schedules.has_two and is_hidden)

    # ---- clipping

    def _clipping(self) -> list[Op]:
        """`dlcore.optim.clip_gradients` for each member: members without a norm have an infinite one."""
        blocks, device = self._layout.blocks, self._w.device
        limits = [torch.inf if c.clip_norm is None else c.clip_norm for c in self._configs]
        limit = torch.tensor(limits, dtype=self._w.dtype, device=device)
        is_free = limit.isinf()
        # One slot per block of weights, one per member for its biases, and one that stays 0.
        norms = torch.zeros(len(blocks) + len(self._configs) + 1, dtype=self._w.dtype, device=device)
        scales = torch.ones(len(blocks), dtype=self._w.dtype, device=device)
        owner_of_block = torch.tensor([block.member for block in blocks], device=device)
        ops: list[Op] = []
        scaling: list[Op] = []
        for start, group in _equal_sizes(blocks):
            first, n = group[0], len(group)
            piece = self._g[first.weight : first.weight + n * first.size].view(n, first.size)
            ops.append(partial(torch.linalg.vector_norm, piece, dim=1, out=norms[start : start + n]))
            scaling.append(partial(piece.mul_, scales[start : start + n, None]))
        biases = self._bias_index()
        of_biases = norms[len(blocks) : -1]
        slots = self._slots(len(norms))
        owner_of_bias = self._owner[self._layout.n_weights :]
        bias_gradients = self._g[self._layout.n_weights :]
        padded = self._padded_gradients  # not self, which would keep itself alive through its calls

        def scale() -> None:
            torch.linalg.vector_norm(padded[biases], dim=1, out=of_biases)
            norm = torch.linalg.vector_norm(norms[slots], dim=1)
            # A norm may overflow where its gradients do not.
            factor = (limit / (norm + CLIP_EPSILON)).clamp_(max=1).masked_fill_(is_free, 1)
            torch.index_select(factor, 0, owner_of_block, out=scales)
            bias_gradients.mul_(factor.index_select(0, owner_of_bias))

        return [*ops, scale, *scaling]

    def _slots(self, n: int) -> Tensor:
        """Which norms belong to each member, (P, K); the rest points to the last one, which is 0."""
        blocks = self._layout.blocks
        lists: list[list[int]] = [[len(blocks) + i] for i in range(len(self._configs))]
        for slot, block in enumerate(blocks):
            if not is_frozen(block, self._configs):
                lists[block.member].append(slot)
        return _rectangle(lists, n - 1).to(self._w.device)

    def _bias_index(self) -> Tensor:
        """Where each member's gradients lie that are not of weights, (P, K); the rest points to the 0 at the end."""
        lists: list[list[int]] = [[] for _ in self._configs]
        for block, start in self._layout.vectors:
            if not is_frozen(block, self._configs):
                lists[block.member] += range(start, start + block.n_out)
        return _rectangle(lists, self._layout.n_parameters).to(self._w.device)

    # ---- one value per parameter

    def _per_parameter(self, number: Callable[[Block], int]) -> Tensor:
        """What a block's number is, for each parameter, (N,)."""
        owned = [(number(block), block.size) for block in self._layout.blocks]
        owned += [(number(block), block.n_out) for block, _ in self._layout.vectors]
        numbers = torch.tensor([own for own, _ in owned], dtype=torch.int32)
        sizes = torch.tensor([size for _, size in owned])
        return numbers.repeat_interleave(sizes).to(self._w.device)

    @overload
    def _spread(self, values: Sequence[float], piece: _Piece) -> Number: ...

    @overload
    def _spread(self, values: Sequence[float], piece: _Piece, size: int) -> Number | None: ...

    def _spread(self, values: Sequence[float], piece: _Piece, size: int | None = None) -> Number | None:
        """A value per member -> one per parameter of a piece, or one number.

        With a size: for the first `size` parameters of it only, and None where all values are 0.
        """
        if size is not None and (size == 0 or not any(values)):
            return None
        if piece.block is not None:
            value = float(values[piece.block.member])
            return None if size is not None and value == 0 else value
        owner = self._owner[piece.start : piece.stop][:size]
        return torch.tensor(values, dtype=self._w.dtype, device=self._w.device).index_select(0, owner)


def _pieces(layout: Layout, frozen: Sequence[tuple[int, int]]) -> list[_Piece]:
    """All parameters in pieces: each large block of weights alone, whatever lies between them together; long runs of
    frozen ones are left out."""
    alone: list[tuple[int, int, Block | None]] = [(*run, None) for run in frozen if run[1] - run[0] >= LARGE_BLOCK]
    for block in layout.blocks:
        if block.size >= LARGE_BLOCK and not any(start <= block.weight < stop for start, stop, _ in alone):
            alone.append((block.weight, block.weight + block.size, block))
    pieces, at = [], 0
    for start, stop, large in sorted(alone, key=lambda piece: piece[0]):
        if at < start:
            pieces.append(_Piece(at, start, None))
        if large is not None:
            pieces.append(_Piece(start, stop, large))
        at = stop
    return [*pieces, _Piece(at, layout.n_parameters, None)] if at < layout.n_parameters else pieces


def _is_zero(number: Number) -> bool:
    """Whether a number does nothing, or all of them do; waits for the device, so not inside an epoch."""
    return not bool(number.any()) if isinstance(number, Tensor) else number == 0


def _add_product(target: Tensor, source: Tensor, number: Number, factor: float = 1.0) -> None:
    """target <- target + source * number * factor, in place, without a temporary."""
    if isinstance(number, Tensor):
        target.addcmul_(source, number, value=factor)
    else:
        target.add_(source, alpha=number * factor)


def _equal_sizes(blocks: Sequence[Block]) -> list[tuple[int, list[Block]]]:
    """Neighbouring blocks with equally many weights, with the index of the first."""
    groups, start = [], 0
    for _, group in groupby(blocks, key=lambda block: block.size):
        found = list(group)
        groups.append((start, found))
        start += len(found)
    return groups


def _rectangle(lists: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Lists of unequal length as one index tensor, (number of lists, longest)."""
    longest = max(map(len, lists))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in lists])
