"""How the time of one member's step falls with the size of its population, and where it stops falling.

Digits, batch 128, depths 1 to 4 and four activations mixed. The fastest of a few epochs counts: the question is what
the engine can do, not what else the machine did. Stacks are what a population is cut into; calls are PyTorch calls
from batch to gradients, which the members of a stack share.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --widths 16-256 --largest 1024 --record

Needs nothing but dlcore's dependencies.
"""

import argparse
import math
import time

import torch

from benchmarks.population import ORDER_SEED, Case, members, rows
from benchmarks.record import provenance, record, table
from dlcore.population import Population
from dlcore.training import Training

BATCH_SIZE = 128
HEADER = ("P", "µs per member-step", "against P = 1", "stacks", "calls per member-step", "")
EXPLANATION = """\
It falls while members share calls: one call costs about as much as 0.2 MFLOP, and a step of a network of width 16 to
64 is 3 MFLOP in about 20 calls and more when it is alone. It flattens when a stack is as large as the cache allows
(6 MB): from there on more members are more stacks of the same kind, and what is left is arithmetic. Wide networks
flatten sooner, since their products are long and are shared with nobody of another width."""


def n_calls(population: Population) -> int:
    """PyTorch calls of one step of all stacks."""
    return sum(len(stack.step_ops) for stack in population.stacks)


def measure(case: Case, turns: int) -> tuple[float, Population]:
    """Seconds of the fastest epoch."""
    population = Population(members(case), rows(case.data), order_seed=ORDER_SEED)
    fastest = math.inf
    for _ in range(turns + 1):  # the first is to warm up
        started = time.perf_counter()
        for _ in population.advance(population.epoch + 1):
            pass
        fastest = min(fastest, time.perf_counter() - started)
    return fastest, population


def measure_loop(case: Case, turns: int) -> float:
    """Seconds of the fastest epoch of the loop, on average over a few trials, with all threads."""
    data, drawn, total = rows(case.data), members(case), 0.0
    for member in drawn:
        training = Training(member.model_config, member.train_config, data, seed=member.seed, order_seed=ORDER_SEED)
        fastest = math.inf
        for _ in range(turns):
            started = time.perf_counter()
            training.advance(training.epoch + 1)
            fastest = min(fastest, time.perf_counter() - started)
        total += fastest
    return total / len(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="16-64", metavar="LOW-HIGH")
    parser.add_argument("--largest", type=int, default=4096, help="largest population")
    parser.add_argument("--turns", type=int, default=3, help="epochs measured of each size")
    parser.add_argument("--record", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    low, high = (int(width) for width in arguments.widths.split("-"))
    steps = math.ceil(len(rows("digits").x_train) / BATCH_SIZE)
    print(f"{provenance()}, {torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    loop = 1e6 * measure_loop(Case("digits", (low, high), BATCH_SIZE, 8, 1), arguments.turns) / steps
    found: list[tuple[str, ...]] = [("loop", f"{loop:.0f}", "", "", "", "")]
    first, size = 0.0, 1
    while size <= arguments.largest:
        # Depth goes round in fours: all sizes from 4 on have the same mixture.
        seconds, population = measure(Case("digits", (low, high), BATCH_SIZE, size, 1), arguments.turns)
        each = 1e6 * seconds / steps / size
        first = first or each
        calls = f"{n_calls(population) / size:.1f}"
        bar = "#" * round(40 * each / first)
        found.append((str(size), f"{each:.0f}", f"{each / first:.2f}", str(len(population.stacks)), calls, bar))
        print(" | ".join(found[-1]), flush=True)
        size *= 4
    text = table(HEADER, found) + "\n\n" + EXPLANATION
    print("\n" + text)
    if arguments.record:
        record(f"Time of a member's step against P, width {arguments.widths}", text)


if __name__ == "__main__":
    main()
