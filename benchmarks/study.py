"""A whole study, everything recorded, beside what people write today.

The same search twice: digits, 30 epochs, the same rows to train on, batch size, space and numbers recorded per epoch,
nothing pruned and nothing stopped early. Ours is `studies run`; the rival is a program that takes the arguments
`TRIALS EPOCHS TRACKING_URI`, reads the study database's URL from STORAGE, and prints `... SECONDSs  RATE trials/s`
for its trials alone: Optuna, a plain loop and per-epoch calls of the MLflow client. Ours is counted from the first ask
to the last trial's run in MLflow. Each has a tracking server of its own, started and asked once before.

    python -m benchmarks.study --repeats 3
    python -m benchmarks.study --baseline PROGRAM --baseline-trials 16
    python -m benchmarks.study --record

Without the program (default: shared/baselines/naive_optuna_mlflow.py beside the checkout) our half runs alone.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.phases import NAMES, Course, run_study, warm_server
from benchmarks.record import provenance, record, table
from studies import server

BASELINE = Path(__file__).parents[2] / "shared" / "baselines" / "naive_optuna_mlflow.py"

SPEC = """
study = "digits"
seed = {seed}
budget = {{ trials = {trials} }}
[search]
{search}
[data]
source = "sklearn:digits"
val_fraction = 0.19     # with test, the fifth that the rival leaves for its one validation split
test_fraction = 0.01
[training]
epochs = {epochs}
batch_size = 128
patience = false
[search_space]
depth = {{ low = 1, high = 4 }}
width = {{ low = 16, high = 256, log = true }}
activation = ["relu", "leaky_relu", "sigmoid", "tanh", "gelu"]
learning_rate = {{ low = 1e-3, high = 1.0, log = true }}
momentum = {{ low = 0.0, high = 0.99 }}
initialization = ["default", "xavier_uniform", "kaiming_uniform", "uniform", "orthogonal"]
"""
OURS = {"nothing pruned": "halving = false", "default halving": "halving = { first_rung = 5, reduction_factor = 3 }"}


def our_course(search: str, seed: int, trials: int, epochs: int) -> Course:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        warm_server(home)
        try:
            return run_study(SPEC.format(search=search, seed=seed, trials=trials, epochs=epochs), home)
        finally:
            server.stop(home)


def baseline_rate(program: Path, trials: int, epochs: int) -> float:
    """Trials per second of the rival, as it counts them: from its first ask to its last trial's end."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        address = warm_server(home)
        try:
            done = subprocess.run(
                [sys.executable, program, str(trials), str(epochs), address],
                cwd=folder, capture_output=True, text=True, check=False,
                env=os.environ | {"STORAGE": f"sqlite:///{folder}/rival.db"},
            )  # fmt: skip
        finally:
            server.stop(home)
    found = re.search(r"([\d.]+) trials/s", done.stdout)
    if done.returncode != 0 or found is None:
        raise SystemExit(f"{program} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return float(found[1])


def rate(course: Course) -> float:
    return course.n_trials / course.searched_s


def results(courses: dict[str, list[Course]], rivals: Sequence[float]) -> str:
    def over(pick: object, name: str) -> str:
        return f"{statistics.median(pick(c) for c in courses[name]):.2f}"  # type: ignore[operator]

    lines = [
        ["trials/s, first ask to last mirrored record", *(over(rate, n) for n in courses)],
        ["seconds of that", *(over(lambda c: c.searched_s, n) for n in courses)],
        ["seconds of the whole command", *(over(lambda c: c.end, n) for n in courses)],
        *([f"{phase}, s", *(over(lambda c, p=phase: c.phases[p], n) for n in courses)] for phase in NAMES),
    ]
    if rivals:
        lines[0].append(f"{statistics.median(rivals):.3f}")
        for line in lines[1:]:
            line.append("")
        ratios = [f"{statistics.median(map(rate, own)) / statistics.median(rivals):.1f}" for own in courses.values()]
        lines.insert(1, ["times the baseline's rate", *ratios, "1"])
    return table(["figure (median)", *courses, *(["baseline"] if rivals else [])], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--baseline", type=Path, default=BASELINE if BASELINE.is_file() else None, metavar="PROGRAM")
    parser.add_argument("--baseline-trials", type=int, default=32, help="its length; its rate is per trial")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    courses: dict[str, list[Course]] = {name: [] for name in OURS}
    rivals: list[float] = []
    for repeat in range(arguments.repeats):
        for name, search in OURS.items():
            course = our_course(search, repeat, arguments.trials, arguments.epochs)
            courses[name].append(course)
            spent = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in course.phases.items())
            print(f"{name}: {rate(course):.2f} trials/s; {spent} s", flush=True)
        if arguments.baseline is not None:
            rivals.append(baseline_rate(arguments.baseline, arguments.baseline_trials, arguments.epochs))
            print(f"baseline: {rivals[-1]:.3f} trials/s", flush=True)
    text = results(courses, rivals)
    words = (
        f"digits, {arguments.trials} trials, {arguments.epochs} epochs, all recorded and mirrored, warm tracking "
        f"server; {arguments.repeats} runs. Phases are seconds of the main thread, training and all else beside the "
        "mirror, which has its own; start-up is before the first ask, export and tracking (waiting for the mirror, "
        "registration included) are after the last trial."
    )
    if rivals:
        words += (
            f" The baseline (Optuna on SQLite, a plain loop, per-epoch MLflow calls) ran {arguments.baseline_trials} "
            "trials each time: its rate is per trial of those."
        )
    print(f"\n{provenance()}\n\n{words}\n\n{text}")
    if arguments.record:
        record("The whole study", f"{words}\n\n{text}")


if __name__ == "__main__":
    main()
