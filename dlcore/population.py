"""Train MANY networks at once: same mathematics and same result as `dlcore.training`, one by one.

Members may differ in all but table, batch size, optimizer, epochs, objective and precision; mostly they see the same
rows in the same order, but may have rows or an order of their own (`dlcore.visits`). They are cut into stacks
(`dlcore.packing`), each one tensor program (`dlcore.stack`); this file takes all of them through the epochs,
judges each member by the rules of `dlcore.curve`, and packs anew when enough members have left.

One process, one thread of Python: `dlcore.parallel` deals the members of a population out to the cores of a CPU.
Everything is trained in the dtype of the data.
"""

import math
import time
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import chain, islice

import torch
from torch import Tensor

from dlcore.criterion import check_criterion
from dlcore.curve import Divergence, Epoch, find_divergence, is_better, is_out_of_patience, objective_value
from dlcore.errors import ConfigError
from dlcore.grouped import has_grouped_products
from dlcore.memory import predict_memory_bytes
from dlcore.models import count_parameters, draw_tensors, first_statistics
from dlcore.naming import statistic_names, tensor_names
from dlcore.packing import Member, cost_of, cut_into_stacks, step_flops
from dlcore.precision import check_precision
from dlcore.rows import TensorData
from dlcore.schedules import learning_rate_factors
from dlcore.stack import Linears, Network, Stack
from dlcore.visits import Drawn

__all__ = ["Divergence", "Epoch", "Member", "MemberState", "Population", "predict_memory_bytes"]

COMPACT_BELOW = 0.8
"""Members are packed anew when the living are at most this share of the work that is done for all that are packed."""


class MemberState:
    """One member under training: the attributes of `dlcore.training.Training`, without the model."""

    def __init__(self, member: Member, factors: list[float]) -> None:
        """Nothing is trained yet.

        Args:
            member: What is trained.
            factors: Learning rate of each step of the whole training, divided by the peak.
        """
        self.member = member
        self.model_config = member.model_config
        self.train_config = member.train_config
        self.curve: list[Epoch] = []
        self.best: Epoch | None = None
        self.best_weights: dict[str, Tensor] = {}
        """State dict of the best epoch, as `build_model(...).load_state_dict` takes it; empty while there is none."""
        self.divergence: Divergence | None = None
        self.stopped_early = False
        self.is_dropped = False
        """Whether `Population.drop` took it out."""
        self.train_s = 0.0
        """Seconds spent in `advance`, by the population as a whole, while this member was trained."""
        self.started_at = time.time()
        self.ended_at: float | None = None
        """When it finished or was dropped, in seconds since 1970."""
        self._factors = factors
        self._first_loss = math.nan

    @property
    def epoch(self) -> int:
        """Epochs trained so far, without one that diverged."""
        return len(self.curve)

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to train: all epochs done, stopped early, or diverged."""
        return self.epoch == self.train_config.epochs or self.stopped_early or self.divergence is not None

    @property
    def is_living(self) -> bool:
        """Whether `advance` trains it further."""
        return not self.is_finished and not self.is_dropped

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        return count_parameters(self.model_config)

    def objective_value(self, epoch: Epoch) -> float:
        """The objective at an epoch."""
        return objective_value(epoch, self.train_config.objective)

    def is_better(self, left: Epoch, right: Epoch | None) -> bool:
        """Whether `left` beats `right` strictly by this member's objective; see `dlcore.curve.is_better`."""
        return is_better(left, right, self.train_config.objective)

    def drop(self) -> None:
        """Take it out: it keeps what it has and is trained no further."""
        if self.is_living:
            self.ended_at = time.time()
        self.is_dropped = True

    def take(self, other: "MemberState") -> None:
        """Become a copy of this member's state that was trained further elsewhere."""
        member = self.member  # with the backbone that it shares with others, not one that came with the copy
        vars(self).update(vars(other))
        self.member = member

    def judge(self, numbers: Sequence[float]) -> Epoch | None:
        """Take an epoch into the curve, unless it diverged.

        Args:
            numbers: As `Stack.train_epoch` returns them for this member.

        Returns:
            The epoch, or None.
        """
        train_loss, first_loss, highest_loss, val_loss, val_metric = numbers
        number = self.epoch + 1
        if math.isnan(self._first_loss):
            self._first_loss = first_loss
        self.divergence = find_divergence(number, self._first_loss, train_loss, highest_loss)
        if self.divergence is not None:
            self.ended_at = time.time()
            return None
        steps = len(self._factors) // self.train_config.epochs
        rate = self.train_config.learning_rate * self._factors[number * steps - 1]
        point = Epoch(number, train_loss, val_loss, val_metric, rate, time.time())
        self.curve.append(point)
        if self.is_better(point, self.best):
            self.best = point
        best_epoch = self.best.epoch if self.best else 0
        is_last = number == self.train_config.epochs
        self.stopped_early = not is_last and is_out_of_patience(number, best_epoch, self.train_config.patience)
        if self.is_finished:
            self.ended_at = point.finished_at
        return point

    def keep_weights(self, linears: Linears, statistics: Linears) -> None:
        """Copy the parameters and running statistics of the best epoch."""
        tensors = list(chain.from_iterable((*linears, *statistics)))
        if not self.best_weights:
            names = chain.from_iterable((*tensor_names(self.model_config), *statistic_names(self.model_config)))
            self.best_weights = {n: torch.empty_like(t) for n, t in zip(names, tensors, strict=True)}
        torch._foreach_copy_(list(self.best_weights.values()), tensors)


class Population:
    """Members under training: go on with `advance`, take some out with `drop`, read `states` in between.

    A member's curve is the one that `dlcore.training.Training` gives it alone, up to rounding. The same
    members in the same order give the same bits on the same machine, versions and thread count, in pieces as
    in one go. An exception inside `advance` (Ctrl-C) leaves it in the middle of an epoch: throw it away.
    """

    def __init__(
        self,
        members: Sequence[Member],
        data: TensorData,
        *,
        order_seed: int,
        begun: Sequence[tuple[MemberState, Network | None]] | None = None,
    ) -> None:
        """Draw initial weights; nothing is trained yet.

        Args:
            members: At least one, with equal batch size, optimizer, epochs, objective and precision.
            data: Preprocessed rows; members live on their device, in their dtype.
            order_seed: The study's seed for the order of the rows, for all members without one of their own.
            begun: Where another population of these members stopped: their states, all after the same epoch, and
                their networks (None before the first epoch).

        Raises:
            ConfigError: Members differ where they must not, or do not fit the data.
            DeviceError: The device of the data cannot train in the precision asked for.
        """
        check_members(members, data)
        self.data = data
        self.order_seed = order_seed
        states = [state for state, _ in begun] if begun is not None else first_states(members, data)
        self.states = tuple(states)
        """One per member, in the order given."""
        self.epoch = self.states[0].epoch
        """Epochs that living members have behind them."""
        self.stacks: list[Stack] = []
        """What the members are cut into, anew when enough have left."""
        is_grouped = has_grouped_products(data.x_train.device, data.x_train.dtype)
        self._cost = cost_of(data.x_train.device.type, is_grouped=is_grouped)
        given = [network for _, network in begun] if begun is not None else [None] * len(members)
        self._pack(
            {
                i: _initial_network(member, data.x_train.dtype) if network is None else network
                for i, (member, network) in enumerate(zip(members, given, strict=True))
            }
        )

    @property
    def n_parameters(self) -> int:
        """Weights and biases of all members together."""
        return sum(state.n_parameters for state in self.states)

    def advance(self, to_epoch: int) -> Iterator[tuple[int, Epoch]]:
        """Train all living members on, to the end of `to_epoch` at most, one epoch at a time for all.

        Yields:
            Index of a member and its new epoch, for all members that did not diverge, as each epoch ends.
        """
        while (points := self.train_epoch(to_epoch)) is not None:
            yield from points.items()

    def train_epoch(self, to_epoch: int) -> dict[int, Epoch] | None:
        """Train one epoch of all living members, unless they are at the end of `to_epoch`.

        Returns:
            Index of each member that did not diverge, in order, and its new epoch; None if nothing was trained.
        """
        living = self._living()
        if self.epoch >= min(to_epoch, self.states[0].train_config.epochs) or not living:
            return None
        self._compact()
        started, epoch = time.monotonic(), self.epoch + 1
        drawn: Drawn = {}
        results = [stack.train_epoch(self.order_seed, epoch, drawn) for stack in self.stacks]
        # The one place that waits for the device.
        columns = iter(torch.cat(results, 1).T.tolist())
        points: dict[int, Epoch] = {}
        for place, stack in enumerate(self.stacks):
            points |= self._judge(place, list(islice(columns, len(stack.members))))
        self.epoch = epoch
        seconds = time.monotonic() - started
        for index in living:
            self.states[index].train_s += seconds
        return dict(sorted(points.items()))

    def drop(self, indices: Collection[int]) -> None:
        """Take members out: they keep what they have and are trained no further."""
        for index in indices:
            self.states[index].drop()

    def networks(self) -> dict[int, Network]:
        """Copies of what the living members need to go on elsewhere, by index."""
        return {
            index: network
            for indices, stack in zip(self._indices, self.stacks, strict=True)
            for index, network in zip(indices, stack.networks(), strict=True)
            if self.states[index].is_living
        }

    def _living(self) -> list[int]:
        """Indices of the members that are trained further."""
        return [index for index, state in enumerate(self.states) if state.is_living]

    def _judge(self, place: int, numbers: Sequence[Sequence[float]]) -> dict[int, Epoch]:
        """Take an epoch's numbers, one row per member of a stack, into the living members' curves."""
        points = {}
        stack = self.stacks[place]
        of_members = zip(self._indices[place], numbers, stack.views, stack.statistics, strict=True)
        for index, of_member, linears, statistics in of_members:
            state = self.states[index]
            point = state.judge(of_member) if state.is_living else None
            if point is not None:
                points[index] = point
                if state.best is point:
                    state.keep_weights(linears, statistics)
        return points

    # ---- packing

    def _pack(self, networks: dict[int, Network]) -> None:
        """Build stacks of the given members."""
        indices = sorted(networks)
        members = [self.states[i].member for i in indices]
        cuts = cut_into_stacks(members, self._cost, self.data.x_train.element_size())
        self._indices = [[indices[place] for place in cut] for cut in cuts]
        self.stacks = [
            Stack([members[place] for place in cut], [networks[indices[place]] for place in cut], self.data, self._cost)
            for cut in cuts
        ]

    def _compact(self) -> None:
        """Pack the living anew, if those that left make enough of the work."""

        def work(indices: Collection[int]) -> float:
            states = [self.states[i] for i in indices]
            return sum(step_flops(s.model_config, s.train_config.batch_size) for s in states)

        packed = [index for indices in self._indices for index in indices]
        living = [index for index in packed if self.states[index].is_living]
        if len(living) == len(packed) or work(living) > COMPACT_BELOW * work(packed):
            return
        networks = self.networks()
        self.stacks = []
        self._pack(networks)


def first_states(members: Sequence[Member], data: TensorData) -> list[MemberState]:
    """States of members of which nothing is trained yet."""

    @cache  # one list for all members that share it
    def factors(name: str, warmup: int, epochs: int, steps: int) -> list[float]:
        found: list[float] = learning_rate_factors(name, epochs * steps, warmup * steps).tolist()
        return found

    def state(member: Member) -> MemberState:
        config = member.train_config
        steps = math.ceil(len(data.x_train if member.rows is None else member.rows.train) / config.batch_size)
        return MemberState(member, factors(config.schedule, config.warmup_epochs, config.epochs, steps))

    return [state(member) for member in members]


def _initial_network(member: Member, dtype: torch.dtype) -> Network:
    """A member's network before the first step."""
    config = member.model_config
    parameters = draw_tensors(config, member.seed, member.backbone)
    statistics = first_statistics(config, member.backbone)
    tensors, means = ([tuple(t.to(dtype) for t in layer) for layer in found] for found in (parameters, statistics))
    return Network(tensors, (), means)


def check_members(members: Sequence[Member], data: TensorData) -> None:
    """Refuse members that cannot be trained together on these data.

    Raises:
        ConfigError: They differ where they must not, or do not fit the data.
        DeviceError: The device of the data cannot train in the precision asked for.
    """
    if not members:
        raise ConfigError("a population needs at least one member; got none")
    for name in ("batch_size", "optimizer", "epochs", "objective", "precision"):
        values = sorted({str(getattr(member.train_config, name)) for member in members})
        if len(values) > 1:
            raise ConfigError(f"{name} must be equal for all members of a population; got {', '.join(values)}")
    check_precision(members[0].train_config.precision, data.x_train.device)
    wanted = (data.x_train.shape[1], data.task.n_outputs)
    for index, member in enumerate(members):
        found = (member.model_config.n_features, member.model_config.n_outputs)
        if found != wanted:
            raise ConfigError(
                f"a network must take {wanted[0]} features and give {wanted[1]} outputs, as the data do; "
                f"member {index} has n_features={found[0]}, n_outputs={found[1]}"
            )
        check_criterion(data.task, member.train_config)
    for rows in {member.rows for member in members if member.rows is not None}:
        for name, numbers, x in (("train", rows.train, data.x_train), ("val", rows.val, data.x_val)):
            if int(numbers.max()) >= len(x):
                raise ConfigError(f"rows of {name} must be below {len(x)}, their number; got {int(numbers.max())}")
