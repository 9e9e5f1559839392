"""Many at once against one after the other: the same trials by `dlcore.population` and by its fair rival.

The rival is what a careful person runs today: dlcore's loop in one single-threaded process per core, each taking
the next trial when it is done with one. Both train the same trials for the same epochs in this run, turn by turn;
medians of the turns are compared. Depths 1 to 4 and four activations are mixed; widths, learning rates and momenta
are spread as a study would draw them. Processes are started, and data loaded, before the clock runs.

    python -m benchmarks.population                  # all cases
    python -m benchmarks.population --widths 16-64 --data digits --repeats 5
    python -m benchmarks.population --record

Needs nothing but dlcore's dependencies.
"""

import argparse
import math
import multiprocessing
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import Pool

import torch

from benchmarks.record import provenance, record, table
from dlcore.config import DataConfig, ModelConfig, TrainConfig
from dlcore.data import load_splits, to_tensors
from dlcore.parallel import populate
from dlcore.population import Member
from dlcore.rows import TensorData
from dlcore.tasks import Task
from dlcore.training import Training

ORDER_SEED = 1


@dataclass(frozen=True)
class Case:
    data: str
    widths: tuple[int, int]
    batch_size: int
    n_members: int
    epochs: int

    def __str__(self) -> str:
        return (
            f"{self.data:6} width {self.widths[0]:>3}-{self.widths[1]:<4} "
            f"batch {self.batch_size} P = {self.n_members:<4}"
        )


def rows(name: str) -> TensorData:
    """The digits (1,079 x 64 to train on), or 12,000 of 20,000 rows of the same shape."""
    if name == "digits":
        return to_tensors(load_splits(DataConfig(source="sklearn:digits"), seed=0), torch.device("cpu"))
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 64, generator=stream)
    noise = torch.randn(20_000, 10, generator=stream)
    y = (x @ torch.randn(64, 10, generator=stream) + 4 * noise).argmax(1)
    return TensorData(Task("multiclass", 10), x[:12_000], y[:12_000], x[12_000:16_000], y[12_000:16_000])


def members(case: Case) -> list[Member]:
    """The trials of a case, as a study would draw them."""
    draw, found = random.Random(0), []
    low, high = (math.log(width) for width in case.widths)
    for index in range(case.n_members):
        depth = 1 + index % 4
        model = ModelConfig(
            64,
            10,
            (round(math.exp(draw.uniform(low, high))),) * depth,
            activation=draw.choice(["relu", "leaky_relu", "tanh", "gelu"]),
            initialization=draw.choice(["default", "xavier_uniform", "kaiming_normal"]),
        )
        training = TrainConfig(
            30,
            batch_size=case.batch_size,
            learning_rate=10 ** draw.uniform(-3, -1),
            momentum=draw.uniform(0, 0.95),
            objective="accuracy",
        )
        found.append(Member(model, training, draw.getrandbits(60)))
    return found


_data: dict[str, TensorData] = {}


def start_worker(names: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    _data.update({name: rows(name) for name in names})


def train_by_loop(work: tuple[str, Member, int]) -> float:
    """One trial by the loop, in a worker; returns its last val loss."""
    name, member, epochs = work
    training = Training(member.model_config, member.train_config, _data[name], seed=member.seed, order_seed=ORDER_SEED)
    training.advance(epochs)
    return training.curve[-1].val_loss if training.curve else math.nan


@contextmanager
def workers(names: tuple[str, ...], n_workers: int) -> Iterator[Pool]:
    """The rival's processes, one per core, ready to train."""
    with multiprocessing.get_context("spawn").Pool(n_workers, start_worker, (names,)) as pool:
        warm = members(Case(names[0], (16, 32), 128, 2 * n_workers, 1))
        pool.map(train_by_loop, [(names[0], member, 1) for member in warm], chunksize=1)
        yield pool


def time_loop(case: Case, pool: Pool) -> float:
    """Seconds of the rival; its longest trials first, so that no process waits for the last one."""
    order = sorted(members(case), key=lambda member: -sum(w * w for w in member.model_config.widths))
    started = time.perf_counter()
    for _ in pool.imap_unordered(train_by_loop, [(case.data, member, case.epochs) for member in order]):
        pass
    return time.perf_counter() - started


def time_population(case: Case, data: TensorData) -> float:
    """Seconds of the population, from configs to curves."""
    drawn = members(case)
    started = time.perf_counter()
    population = populate(drawn, data, order_seed=ORDER_SEED)
    for _ in population.advance(case.epochs):
        pass
    return time.perf_counter() - started


def cases(arguments: argparse.Namespace) -> list[Case]:
    """All that are asked for. Epochs are few where they are long: the ratio is of equal work."""
    found = []
    for name in arguments.data:
        epochs = 30 if name == "digits" else 3
        for widths in arguments.widths:
            low, high = (int(width) for width in widths.split("-"))
            for batch_size in (128, 256):
                for n_members in (32, 128) if high <= 256 else (8,):
                    short = {30: 12, 3: 2}[epochs] if high > 256 else epochs
                    found.append(Case(name, (low, high), batch_size, n_members, short))
    return found


def row(case: Case, loop: list[float], population: list[float]) -> tuple[str, ...]:
    ratio = statistics.median(loop) / statistics.median(population)
    apart = [left / right for left, right in zip(loop, population, strict=True)]
    n_rows = {"digits": 1079, "rows20k": 12_000}[case.data]
    steps = case.n_members * case.epochs * math.ceil(n_rows / case.batch_size)
    each = 1e6 * statistics.median(population) / steps
    return (
        str(case),
        f"{statistics.median(loop):.2f}",
        f"{statistics.median(population):.2f}",
        f"{ratio:.2f}",
        f"{min(apart):.2f}-{max(apart):.2f}",
        f"{each:.0f}",
    )


HEADER = ("case", "loop, s", "population, s", "ratio", "of single turns", "µs per member-step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["digits", "rows20k"], choices=["digits", "rows20k"])
    parser.add_argument("--widths", nargs="+", default=["16-64", "16-256", "512-1024"], metavar="LOW-HIGH")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each engine")
    parser.add_argument("--record", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    n_workers = torch.get_num_threads()
    print(f"{provenance()}, {n_workers} threads, torch {torch.__version__}, {arguments.repeats} turns", flush=True)
    data = {name: rows(name) for name in arguments.data}
    found = []
    with workers(tuple(arguments.data), n_workers) as pool:
        for name in arguments.data:  # as warm as the rival's
            time_population(Case(name, (16, 32), 128, 2 * n_workers, 1), data[name])
        for case in cases(arguments):
            pairs = [(time_loop(case, pool), time_population(case, data[case.data])) for _ in range(arguments.repeats)]
            loop, population = (list(turns) for turns in zip(*pairs, strict=True))
            found.append(row(case, loop, population))
            print(" | ".join(found[-1]), flush=True)
    print("\n" + table(HEADER, found))
    if arguments.record:
        record("Population against loops, one single-threaded process per core", table(HEADER, found))


if __name__ == "__main__":
    main()
