"""A population on all cores of a CPU: its members in parts of even work, each part on one core.

One part is trained here, the others by `dlcore.workers`. From rung to rung the living are dealt out anew, so that
the cores are busy whoever was dropped. Which core trains a part changes no bit of it.
"""

from collections.abc import Collection, Iterator, Sequence

import torch

from dlcore.curve import Epoch
from dlcore.packing import Member, deal
from dlcore.population import MemberState, Population, check_members, first_states
from dlcore.rows import TensorData
from dlcore.stack import Network
from dlcore.workers import Carried, Done, Job, Worker, can_have_workers, carried_of, crew, population_of

WIDE = 512
"""Width from which a network alone is trained faster by several threads than by one."""


def populate(
    members: Sequence[Member], data: TensorData, *, order_seed: int, takes_turns: bool = False
) -> "Population | ParallelPopulation":
    """Members under training on all that torch may use: the device of the data, or so many cores of a CPU.

    Args:
        members: See `Population`.
        data: See `Population`.
        order_seed: See `Population`.
        takes_turns: Whether they must leave the device to others while they wait for the next `advance`.
    """
    n_threads = torch.get_num_threads()
    is_wide = any(width >= WIDE for member in members for width in member.model_config.widths)
    has_workers = data.x_train.device.type == "cpu" and can_have_workers()
    if has_workers and not (is_wide and len(members) < n_threads):
        return ParallelPopulation(members, data, order_seed=order_seed, n_parts=min(n_threads, len(members)))
    if takes_turns and not has_workers:
        return ParallelPopulation(members, data, order_seed=order_seed, n_parts=1)
    return Population(members, data, order_seed=order_seed)


class ParallelPopulation:
    """Answers the calls of `Population`; see there. An epoch of one part does not wait for those of the others.

    Between two calls of `advance` its networks lie on the CPU, as plain tensors.

    An exception inside `advance` (Ctrl-C) leaves it unusable; closing the iterator leaves each part at the end of the
    epoch that it was in.
    """

    def __init__(self, members: Sequence[Member], data: TensorData, *, order_seed: int, n_parts: int) -> None:
        """Nothing is trained yet.

        Args:
            members: See `Population`.
            data: See `Population`; on the CPU, unless there is one part.
            order_seed: See `Population`.
            n_parts: Cores to use.

        Raises:
            ConfigError: Members differ where they must not, or do not fit the data.
        """
        check_members(members, data)
        self.data, self.order_seed, self._n_parts = data, order_seed, n_parts
        self.states: tuple[MemberState, ...] = tuple(first_states(members, data))
        """One per member, in the order given."""
        self._networks: dict[int, Network | None] = {}
        crew(n_parts - 1)  # they start while others begin

    @property
    def n_parameters(self) -> int:
        """Weights and biases of all members together."""
        return sum(state.n_parameters for state in self.states)

    def drop(self, indices: Collection[int]) -> None:
        """Take members out: they keep what they have and are trained no further.

        While an iterator of `advance` is open, those that a worker trains are still taken to its end.
        """
        for index in indices:
            self.states[index].drop()

    def advance(self, to_epoch: int) -> Iterator[tuple[int, Epoch]]:
        """Train all living members on, to the end of `to_epoch` at most.

        Yields:
            Index of a member and its new epoch, in order for each member.

        Raises:
            MemoryError: There is too little; or a worker is gone, most likely for that reason.
        """
        last = min(to_epoch, self.states[0].train_config.epochs)
        while epochs := sorted({state.epoch for state in self.states if state.is_living and state.epoch < last}):
            # Where an iterator was closed parts are at epochs of their own: those behind catch up first.
            behind = [i for i, state in enumerate(self.states) if state.is_living and state.epoch == epochs[0]]
            yield from self._advance(behind, epochs[1] if len(epochs) > 1 else last)

    def _advance(self, living: Sequence[int], last: int) -> Iterator[tuple[int, Epoch]]:
        """Train these members, which are all at the same epoch, to the end of `last` at most."""
        cuts = deal([self.states[i].member for i in living], self._n_parts)
        parts = [[living[place] for place in cut] for cut in cuts]
        jobs = [Job([(self.states[i], self._networks.get(i)) for i in part], self.order_seed, last) for part in parts]
        epoch = self.states[living[0]].epoch
        working = dict(zip(crew(len(parts) - 1), parts[1:], strict=True))
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for worker, job in zip(working, jobs[1:], strict=True):
                worker.begin(job, self.data)
            here = population_of(jobs[0], self.data)
            try:
                yield from self._train(here, parts[0], last, working)
            except GeneratorExit:
                self._stop(working)
                raise
            finally:
                self._keep(parts[0], carried_of(here))
        except BaseException:
            # None is left after a stop that succeeded.
            for worker, part in working.items():
                worker.kill()
                for index in part:  # what was told of it is lost: weights, and what the optimizer keeps
                    del self.states[index].curve[epoch:]
            raise
        finally:
            torch.set_num_threads(n_threads)

    def _stop(self, working: dict[Worker, list[int]]) -> None:
        """End the work of all after the epoch that they are in, and take it back."""
        for worker in working:
            worker.stop()
        while working:
            list(self._answers(working, None))

    def _train(
        self, here: Population, own: Sequence[int], last: int, working: dict[Worker, list[int]]
    ) -> Iterator[tuple[int, Epoch]]:
        """Train the part that is ours, and pass on what the others tell."""
        while (points := here.train_epoch(last)) is not None:
            yield from ((own[place], epoch) for place, epoch in points.items())
            if working:
                yield from self._answers(working, 0)
        while working:
            yield from self._answers(working, None)

    def _answers(self, working: dict[Worker, list[int]], timeout: float | None) -> Iterator[tuple[int, Epoch]]:
        """What workers have told by now, or tell first; those that are done leave `working`."""
        for worker in Worker.ready(list(working), timeout):
            answer = worker.receive()
            part = working[worker]
            if isinstance(answer, Done):
                self._keep(part, answer.carried)
                del working[worker]
                continue
            for place, epoch in answer.items():
                self.states[part[place]].curve.append(epoch)
                yield part[place], epoch

    def _keep(self, part: Sequence[int], carried: Sequence[Carried]) -> None:
        """Take back members that were trained on."""
        for index, (state, network) in zip(part, carried, strict=True):
            mine = self.states[index]
            is_dropped = mine.is_dropped
            if state is not mine:
                mine.take(state)
            if is_dropped and not mine.is_dropped:
                mine.drop()
            self._networks[index] = network
