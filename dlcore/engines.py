"""Networks in groups that train together, each group by the engine that serves its shapes.

Two engines answer the same calls (one contract test for both): `Loop` trains its members one after the other with
`dlcore.training`, `Population` trains them as one tensor program. What members must share to be one population (batch
size and optimizer) makes the groups. Too little memory halves a group: its members begin again in two populations,
with the same curves up to rounding.
"""

import gc
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dlcore.curve import Divergence, Epoch
from dlcore.packing import Member, engine_for
from dlcore.parallel import ParallelPopulation, populate
from dlcore.population import Population
from dlcore.rows import TensorData
from dlcore.training import Training
from dlcore.workers import WorkerLost, can_have_workers, crew


class State(Protocol):
    """What can be read of a member while it trains."""

    curve: list[Epoch]
    best: Epoch | None
    best_weights: dict[str, Tensor]
    divergence: Divergence | None
    train_s: float

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to train."""

    def objective_value(self, epoch: Epoch) -> float:
        """The objective at an epoch."""


class Engine(Protocol):
    """Members under training."""

    @property
    def states(self) -> Sequence[State]:
        """One per member, in the order given."""

    def advance(self, to_epoch: int) -> Iterator[tuple[int, Epoch]]:
        """Train all that are neither finished nor dropped, to that epoch at most; yields each epoch as it ends."""

    def drop(self, indices: Collection[int]) -> None:
        """Train these members no further."""


class Loop:
    """Members trained one after the other by the reference loop."""

    def __init__(self, members: Sequence[Member], data: TensorData, *, order_seed: int) -> None:
        """Build the networks; nothing is trained yet. See `Population` for the arguments."""
        tables = {m.rows: data if m.rows is None else m.rows.of(data) for m in members}
        self.states = tuple(
            Training(
                m.model_config,
                m.train_config,
                tables[m.rows],
                seed=m.seed,
                order_seed=order_seed if m.order_seed is None else m.order_seed,
                backbone=m.backbone,
            )
            for m in members
        )
        self._dropped: set[int] = set()

    def advance(self, to_epoch: int) -> Iterator[tuple[int, Epoch]]:
        """Train each member on, to the end of `to_epoch` at most; see `Engine`."""
        for index, training in enumerate(self.states):
            while index not in self._dropped and not training.is_finished and training.epoch < to_epoch:
                for epoch in training.advance(training.epoch + 1):
                    yield index, epoch

    def drop(self, indices: Collection[int]) -> None:
        """Train these members no further."""
        self._dropped.update(indices)


@dataclass(slots=True)
class Limit:
    """The most members that were found to fit in memory together; None while all did."""

    members: int | None = None


class Together:
    """Members trained as populations: one, or as many as memory asks for.

    Where memory runs out a population is given up and its living members begin again in two halves, silently up to
    where they were. Their curves are the same up to rounding. From then on populations take turns: one that waits holds
    nothing on the device but the weights of best epochs.
    """

    def __init__(
        self, members: Sequence[Member], data: TensorData, *, order_seed: int, limit: Limit | None = None
    ) -> None:
        """Build the populations; nothing is trained yet. See `Population` for the arguments.

        Args:
            members: With equal batch size, optimizer, epochs and objective.
            data: Of all of them.
            order_seed: The study's seed for the order of the rows.
            limit: What is known of the memory; learns here.
        """
        self._members, self._data, self._order_seed = members, data, order_seed
        self._limit = Limit() if limit is None else limit
        self._parts: list[tuple[list[int], Population | ParallelPopulation]] = []
        self.states: list[State] = [None] * len(members)  # type: ignore[list-item]  # filled below
        """One per member, in the order given; another object where memory ran out."""
        self._dropped: set[int] = set()
        self._told = dict.fromkeys(range(len(members)), 0)
        """Epochs of each member that were yielded."""
        self._add(list(range(len(members))))

    def advance(self, to_epoch: int) -> Iterator[tuple[int, Epoch]]:
        """Train all living members on, to the end of `to_epoch` at most; see `Engine`."""
        todo = list(self._parts)
        while todo:
            indices, population = todo.pop(0)
            try:
                yield from self._advance(indices, population, to_epoch)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or len(indices) == 1:
                    raise
            # Behind the handler, and without the population: the error held all that there was in memory.
            self._parts = [part for part in self._parts if part[1] is not population]
            del population
            todo[:0] = self._halves(indices)

    def _advance(
        self, indices: Sequence[int], population: Population | ParallelPopulation, to_epoch: int
    ) -> Iterator[tuple[int, Epoch]]:
        """Train one population on, and tell what was not told before."""
        for place, epoch in population.advance(to_epoch):
            index = indices[place]
            if epoch.epoch > self._told[index]:
                self._told[index] = epoch.epoch
                yield index, epoch

    def drop(self, indices: Collection[int]) -> None:
        """Train these members no further."""
        self._dropped.update(indices)
        for own, population in self._parts:
            population.drop([place for place, i in enumerate(own) if i in self._dropped])

    def _add(self, indices: list[int]) -> list[tuple[list[int], Population | ParallelPopulation]]:
        """Populations of these members, none larger than what fits."""
        size = self._limit.members or len(indices)
        if len(indices) > size:
            return [part for i in range(0, len(indices), size) for part in self._add(indices[i : i + size])]
        population = self._populated(indices)
        if population is None:
            self._limit.members = (len(indices) + 1) // 2
            self._free()
            return self._add(indices)
        for index, state in zip(indices, population.states, strict=True):
            self.states[index] = state
        self._parts.append((indices, population))
        return self._parts[-1:]

    def _populated(self, indices: Sequence[int]) -> Population | ParallelPopulation | None:
        """A population of these members; None where there is too little memory for them together."""
        own, takes_turns = [self._members[i] for i in indices], self._limit.members is not None
        try:
            return populate(own, self._data, order_seed=self._order_seed, takes_turns=takes_turns)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(indices) == 1:
                raise
        return None

    def _halves(self, indices: Sequence[int]) -> list[tuple[list[int], Population | ParallelPopulation]]:
        """The living of these members, about to begin again in two populations."""
        living = [i for i in indices if i not in self._dropped and not self.states[i].is_finished]
        if not living:
            return []
        self._limit.members = (len(living) + 1) // 2
        self._free()
        return self._add(living)

    def _free(self) -> None:
        """Give back the memory of what is referred to no more."""
        gc.collect()
        if self._data.x_train.is_cuda:
            torch.cuda.empty_cache()


def prepare(device: torch.device) -> None:
    """Start what populations on this device will need, without waiting for it."""
    if device.type == "cpu" and can_have_workers():
        with suppress(WorkerLost):  # who needs them will try again, and say so
            crew(torch.get_num_threads() - 1)


@dataclass(frozen=True, slots=True)
class Group:
    """Members that train together."""

    name: str
    """"loop" or "population"."""
    indices: tuple[int, ...]
    """Their places in the list that was given."""
    engine: Engine


def form_groups(
    members: Sequence[Member], data: TensorData, *, order_seed: int, engine: str, limit: Limit | None = None
) -> list[Group]:
    """Members in groups, ready to train.

    Args:
        members: In any mixture.
        data: Of all of them.
        order_seed: The study's seed for the order of the rows.
        engine: "loop" for all, or "population" for those whose shapes it serves better (`engine_for`).
        limit: What is known of the memory; learns here. Keep one for all populations on a device.
    """
    groups: dict[tuple[str, int, str], list[int]] = {}
    device = data.x_train.device.type
    for index, member in enumerate(members):
        name = engine if engine == "loop" else engine_for(member, device)
        key = (name, member.train_config.batch_size, member.train_config.optimizer)
        groups.setdefault(key, []).append(index)
    return [
        Group(name, tuple(own), _engine(name, [members[i] for i in own], data, order_seed, limit))
        for (name, _, _), own in groups.items()
    ]


def _engine(name: str, members: Sequence[Member], data: TensorData, order_seed: int, limit: Limit | None) -> Engine:
    if name == "loop":
        return Loop(members, data, order_seed=order_seed)
    return Together(members, data, order_seed=order_seed, limit=limit)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the process, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # PyTorch's own words for a CPU, on Windows and macOS, and on Linux (c10/core/impl/alloc_cpu.cpp); for MPS, and for
    # what CUDA asks for behind PyTorch's back; and for cuBLAS.
    words = ("not enough memory", "can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return any(found in str(error) for found in words)
