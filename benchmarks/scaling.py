"""How the time of one member's step falls with the size of its population, and where it stops falling.

Digits, batch 128, depths 1 to 4 and four activations mixed; medians of a few epochs, on one core and on all. Stacks
are what a population is cut into on one core; calls are those from batch to gradients, which the members of a stack
share.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --widths 16-256 --largest 1024 --record

Needs nothing but dlcore's dependencies; with --record matplotlib, too.
"""

import argparse
import math
import statistics
import time
from pathlib import Path

import torch

from benchmarks.population import ORDER_SEED, Case, members, rows
from benchmarks.record import provenance, record, table
from dlcore.packing import CPU_STACK_BYTES
from dlcore.parallel import populate
from dlcore.population import Population
from dlcore.rows import TensorData
from dlcore.training import Training

BATCH_SIZE = 128
PLOTS = Path(__file__).parent / "plots"
HEADER = ("P", "one core, µs", "against P = 1", "all cores, µs", "stacks", "calls per member-step")
EXPLANATION = f"""\
Times are of one member's step. On one core it falls while members share calls: a step of a network of width 16 to 64
is about 3 MFLOP in 20 calls and more when it is alone, and each call costs what 0.2 to 0.4 MFLOP cost. It flattens
where a stack is as large as the cache allows ({CPU_STACK_BYTES >> 20} MB): from there on more members are more stacks
of the same kind, and what is left is arithmetic. Wide networks flatten sooner, at a level that their matrix products
set. On all cores whole trainings are timed: building, dealing out and sending back are spread over few epochs here."""


def step_us(population: Population, turns: int) -> float:
    """Microseconds of a member's step, the median of a few epochs, on one core."""
    found = []
    for turn in range(turns + 1):
        started = time.perf_counter()
        population.train_epoch(population.epoch + 1)
        if turn:  # the first is to warm up
            found.append(time.perf_counter() - started)
    return 1e6 * statistics.median(found) / steps(population.data) / len(population.states)


def parallel_step_us(case: Case, data: TensorData) -> float:
    """Microseconds of a member's step on all cores: the whole training, dealing the members out included."""
    population = populate(members(case), data, order_seed=ORDER_SEED)
    started = time.perf_counter()
    for _ in population.advance(case.epochs):
        pass
    return 1e6 * (time.perf_counter() - started) / steps(data) / case.n_members / case.epochs


def loop_step_us(case: Case, data: TensorData) -> float:
    """Microseconds of a step of the loop on one core, on average over a few trials."""
    total, drawn = 0.0, members(case)
    for member in drawn:
        training = Training(member.model_config, member.train_config, data, seed=member.seed, order_seed=ORDER_SEED)
        training.advance(1)
        started = time.perf_counter()
        training.advance(case.epochs)
        total += (time.perf_counter() - started) / (case.epochs - 1)
    return 1e6 * total / len(drawn) / steps(data)


def steps(data: TensorData) -> int:
    return math.ceil(len(data.x_train) / BATCH_SIZE)


def row(case: Case, data: TensorData, turns: int, n_threads: int) -> tuple[float, float, int, float]:
    """One core, all cores, stacks, calls per member-step."""
    torch.set_num_threads(1)
    population = Population(members(case), data, order_seed=ORDER_SEED)
    alone = step_us(population, turns)
    stacks = len(population.stacks)
    calls = sum(len(stack.step_ops) for stack in population.stacks) / case.n_members
    del population
    torch.set_num_threads(n_threads)
    return alone, statistics.median(parallel_step_us(case, data) for _ in range(turns)), stacks, calls


def draw(path: Path, sizes: list[int], lines: dict[str, list[float]], loop: float, widths: str) -> None:
    """The table as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (name, values), color in zip(lines.items(), ("#0072b2", "#d55e00"), strict=True):  # Okabe and Ito's
        axes.plot(sizes, values, marker="o", color=color, label=name)
    axes.axhline(loop, color="#555555", linestyle="--", label="the loop, one core")
    axes.set(xscale="log", yscale="log", xlabel="members P", ylabel="µs per member-step", ylim=(10, None))
    axes.set_xscale("log", base=2)
    axes.set_title(f"Time of one member's step, width {widths}, batch {BATCH_SIZE}", loc="left")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="16-64", metavar="LOW-HIGH")
    parser.add_argument("--largest", type=int, default=4096, help="largest population")
    parser.add_argument("--turns", type=int, default=3, help="epochs, or trainings, measured of each size")
    parser.add_argument("--epochs", type=int, default=10, help="of a training on all cores")
    parser.add_argument("--record", action="store_true", help="put table and plot into RESULTS.md")
    arguments = parser.parse_args()
    low, high = (int(width) for width in arguments.widths.split("-"))
    n_threads, data = torch.get_num_threads(), rows("digits")
    print(f"{provenance()}, {n_threads} threads, torch {torch.__version__}", flush=True)
    torch.set_num_threads(1)
    loop = loop_step_us(Case("digits", (low, high), BATCH_SIZE, 8, 6), data)
    torch.set_num_threads(n_threads)
    parallel_step_us(Case("digits", (16, 32), BATCH_SIZE, 2 * n_threads, 1), data)  # the workers start
    sizes = [4**power for power in range(12) if 4**power <= arguments.largest]
    found, lines = [("loop", f"{loop:.0f}", "", "", "", "")], {"one core": [], "all cores": []}
    for size in sizes:
        # Depth goes round in fours: all sizes from 4 on have the same mixture.
        case = Case("digits", (low, high), BATCH_SIZE, size, arguments.epochs)
        alone, together, stacks, calls = row(case, data, arguments.turns, n_threads)
        lines["one core"].append(alone)
        lines["all cores"].append(together)
        against = alone / lines["one core"][0]
        found.append((str(size), f"{alone:.0f}", f"{against:.2f}", f"{together:.0f}", str(stacks), f"{calls:.1f}"))
        print(" | ".join(found[-1]), flush=True)
    text = f"{table(HEADER, found)}\n\n{EXPLANATION}"
    if arguments.record:
        plot = PLOTS / f"scaling-{arguments.widths}.svg"
        draw(plot, sizes, lines, loop, arguments.widths)
        text += f"\n\n![Time of a member's step against the size of its population](plots/{plot.name})"
        record(f"Time of a member's step against P, width {arguments.widths}", text)
    print("\n" + text)


if __name__ == "__main__":
    main()
