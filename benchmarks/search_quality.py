"""What is found: cohorts against one trial at a time, at equal numbers of trials and at equal seconds.

The rival is Optuna's own TPESampler with the same settings and space, told of every trial before it is asked for the
next; its trials train one after the other with dlcore's loop. A trial trains alike in all arms: on the same splits, in
the same order of rows, from the seed of its number. Each arm runs in a process of its own; no arm reads another's
results. Random search stands beside them: a difference that is small against its distance means little.

    python -m benchmarks.search_quality                              # 3 data sets x 10 seeds, 64 trials each
    python -m benchmarks.search_quality --csv houses.csv:price --seeds 5
    python -m benchmarks.search_quality --first-seed 100 --objective loss
    python -m benchmarks.search_quality --trials 2048 --epochs 10 --arms "cohorts, whole history" cohorts
    python -m benchmarks.search_quality --record                     # into RESULTS.md, with the plot

The criterion: the median over seeds of the best value found is not worse than the rival's by more than one standard
error of the difference (bootstrap over seeds), and is better at equal seconds. Seconds count asking and training.
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from benchmarks.record import provenance, record, table
from dlcore.data import load_splits
from studies import history
from studies.cohort import Trainer
from studies.records import COMPLETE, FAIL, EpochDone, Objective, Suggestion, TrialRecord
from studies.sampler import ask_cohort
from studies.space import suggest
from studies.spec import StudySpec, cohort_size, resolved_objectives, spec_from_dict

PLOT = Path(__file__).parent / "plots" / "search_quality.png"
DATA = ("sklearn:digits", "sklearn:breast_cancer", "sklearn:diabetes")
RIVAL, OURS, HALVED, RANDOM = "one at a time", "cohorts", "cohorts, halving", "random"
WHOLE = "cohorts, whole history"
N_BOOTSTRAP = 10_000


@dataclass(frozen=True)
class Task:
    """One search, to be run by any arm."""

    data: str
    """A source, or FILE.csv:TARGET."""
    seed: int
    trials: int
    epochs: int
    objective: str | None

    def spec(self, **search: object) -> StudySpec:
        path, _, target = self.data.rpartition(":")
        file = {"path": str(Path(path).absolute()), "target": target}
        return spec_from_dict(
            {
                "study": "quality",
                "seed": self.seed,
                "budget": {"trials": self.trials},
                "data": file if path.endswith(".csv") else {"source": self.data},
                "search": {"halving": False} | search,
                "training": {"epochs": self.epochs, "engine": "loop" if search.get("cohort") == 1 else "population"},
            }
            | ({"objective": self.objective} if self.objective else {})
        )


@dataclass(frozen=True)
class Found:
    """One search's course."""

    values: list[float]
    """The objective of each trial, in order of number; NaN where it was pruned or failed."""
    seconds: list[float]
    """When its result was known, since the first ask."""
    direction: str

    def best_so_far(self) -> np.ndarray:
        """Best value after each trial; NaN before the first."""
        best = np.fmax if self.direction == "maximize" else np.fmin
        return best.accumulate(np.asarray(self.values))

    def best_at(self, seconds: float) -> float:
        """Best value of the trials that were known by then; NaN if none was."""
        known = [v for v, s in zip(self.values, self.seconds, strict=True) if s <= seconds and not math.isnan(v)]
        return math.nan if not known else max(known) if self.direction == "maximize" else min(known)


def _opened(spec: StudySpec) -> tuple[Trainer, tuple[Objective, ...]]:
    splits = load_splits(spec.data_config(), spec.seed)
    objectives = resolved_objectives(spec, splits.task)
    return Trainer(spec, objectives, splits), objectives


def _trained(trainer: Trainer, own: Sequence[Suggestion], cohort: int) -> Iterator[TrialRecord]:
    return (event for event in trainer.train(own, cohort, [], None) if not isinstance(event, EpochDone))


def _value(trial: TrialRecord) -> float:
    return trial.value if trial.state == COMPLETE and trial.value is not None else math.nan


def search_in_cohorts(spec: StudySpec) -> Found:
    """As `studies run` searches, without storing anything."""
    trainer, objectives = _opened(spec)
    records: list[TrialRecord] = []
    seconds: list[float] = []
    size, total, began = cohort_size(spec), spec.budget.trials or 0, time.perf_counter()
    while len(records) < total:
        own = ask_cohort(spec, objectives, records, len(records), size, trainer.count_parameters)
        records += _trained(trainer, own[: total - len(records)], len(records) // size)
        seconds += [time.perf_counter() - began] * (len(records) - len(seconds))
    return Found([_value(r) for r in records], seconds, objectives[0].direction)


def search_one_at_a_time(spec: StudySpec) -> Found:
    """As an Optuna user searches: ask, train, tell."""
    trainer, objectives = _opened(spec)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = TPESampler(seed=spec.seed, multivariate=True, group=True, constant_liar=True)
    study = optuna.create_study(direction=objectives[0].direction, sampler=sampler)
    values, seconds, began = [], [], time.perf_counter()
    for number in range(spec.budget.trials or 0):
        trial = study.ask()
        (done,) = _trained(trainer, [Suggestion(number, *suggest(trial, spec))], number)
        if done.state == FAIL:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, done.value)
        values.append(_value(done))
        seconds.append(time.perf_counter() - began)
    return Found(values, seconds, objectives[0].direction)


def search_with_whole_history(spec: StudySpec) -> Found:
    """As if TPE were shown all earlier trials. Its process runs this arm alone, so nothing is put back."""
    history.N_NEWEST = sys.maxsize
    return search_in_cohorts(spec)


ARMS: dict[str, Callable[[Task], Found]] = {
    RIVAL: lambda task: search_one_at_a_time(task.spec(cohort=1)),
    OURS: lambda task: search_in_cohorts(task.spec()),
    HALVED: lambda task: search_in_cohorts(task.spec(halving={"first_rung": 5, "reduction_factor": 3})),
    RANDOM: lambda task: search_in_cohorts(task.spec(sampler="random")),
    WHOLE: lambda task: search_with_whole_history(task.spec()),
}
DEFAULT_ARMS = (RIVAL, OURS, HALVED, RANDOM)


def run_arm(arm: str, task: Task) -> Found:
    """In a process that runs this arm only: the loop sets the number of threads for all that follows."""
    return ARMS[arm](task)


def run_all(tasks: Sequence[Task], arms: Sequence[str]) -> dict[str, dict[str, list[Found]]]:
    """Data -> arm -> a course per seed. Arms take turns, so that a slow minute of the machine hits all of them."""
    found: dict[str, dict[str, list[Found]]] = {}
    context = multiprocessing.get_context("spawn")
    pools = {arm: ProcessPoolExecutor(1, context) for arm in arms}
    try:
        for task in tasks:
            for arm, pool in pools.items():
                result = pool.submit(run_arm, arm, task).result()
                found.setdefault(task.data, {}).setdefault(arm, []).append(result)
                print(
                    f"{task.data} seed {task.seed} {arm}: {result.best_so_far()[-1]:.5g} in {result.seconds[-1]:.1f} s",
                    flush=True,
                )
    finally:
        for pool in pools.values():
            pool.shutdown()
    return found


# Statistics


def median_difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Median of ours less median of theirs, and its standard error: the bootstrap's, over the seeds both ran."""
    picks = np.random.default_rng(0).integers(0, len(ours), (N_BOOTSTRAP, len(ours)))
    differences = np.median(ours[picks], axis=1) - np.median(theirs[picks], axis=1)
    # Rounded: the bootstrap of a constant is not quite one.
    return round(float(np.median(ours) - np.median(theirs)), 12), round(float(differences.std()), 12)


def median_error(values: np.ndarray) -> float:
    """Standard error of a median (bootstrap)."""
    return median_difference(values, np.zeros_like(values))[1]


def comparison(found: dict[str, dict[str, list[Found]]]) -> str:
    """One row for each data set and arm; the verdict is against the first arm."""
    rows = []
    for data, arms in found.items():
        rival, *_ = arms
        sign = 1 if arms[rival][0].direction == "maximize" else -1
        theirs = np.array([f.best_so_far()[-1] for f in arms[rival]])
        for arm, courses in arms.items():
            own = np.array([f.best_so_far()[-1] for f in courses])
            row = [
                data,
                arm,
                f"{np.median(own):.5g} ± {median_error(own):.2g}",
                f"{np.median([f.seconds[-1] for f in courses]):.1f}",
            ]
            if arm == rival:
                rows.append([*row, "", "", ""])
                continue
            gain, error = median_difference(sign * own, sign * theirs)
            wins, losses = int((sign * own > sign * theirs).sum()), int((sign * own < sign * theirs).sum())
            held = ["no", "yes"][gain >= -error]
            # At the seconds that this arm took for all its trials; the rival had fewer trials by then.
            then = np.array([r.best_at(f.seconds[-1]) for r, f in zip(arms[rival], courses, strict=True)])
            then = np.where(np.isnan(then), -sign * np.inf, then)
            sooner = sign * (np.median(own) - np.median(then))
            rows.append([*row, f"{gain:+.2g} ± {error:.2g}, {wins} : {losses}", held, f"{sooner:+.2g}"])
    header = [
        "data",
        "arm",
        "best value, median ± its error",
        "seconds",
        f"gain over {rival} ± its error, seeds won : lost",
        "within one error",
        "gain at equal seconds",
    ]
    return table(header, rows)


def plot(found: dict[str, dict[str, list[Found]]], path: Path) -> None:
    """Median over seeds of the best value so far, with its error as a band: over trials above, over seconds below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(found), figsize=(4.2 * len(found), 6.2), squeeze=False)
    for (data, arms), (above, below) in zip(found.items(), axes.T, strict=True):
        for arm, courses in arms.items():
            best = np.array([f.best_so_far() for f in courses])
            middle, error = np.median(best, axis=0), np.array([median_error(b) for b in best.T])
            trials = np.arange(1, best.shape[1] + 1)
            (line,) = above.step(trials, middle, where="post", label=arm, linewidth=1.2)
            above.fill_between(trials, middle - error, middle + error, step="post", color=line.get_color(), alpha=0.12)
            seconds = np.geomspace(min(f.seconds[0] for f in courses), max(f.seconds[-1] for f in courses), 300)
            over = np.array([[f.best_at(s) for s in seconds] for f in courses])
            below.step(seconds, np.median(over, axis=0), where="post", linewidth=1.2, color=line.get_color())
        settled = np.concatenate([f.best_so_far()[7:] for courses in arms.values() for f in courses])
        low, high = np.nanquantile(settled, (0.1, 1.0) if courses[0].direction == "maximize" else (0.0, 0.9))
        above.set(title=data.removeprefix("sklearn:"), xlabel="trials", ylabel="best value so far")
        below.set(xlabel="seconds", ylabel="best value so far", xscale="log")
        for axis in (above, below):
            axis.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
            axis.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=len(ARMS), frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=DATA, help="sources of scikit-learn")
    parser.add_argument("--csv", nargs="+", default=[], metavar="FILE.csv:TARGET", help="instead of --data")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--objective", help="instead of each task's default metric")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=DEFAULT_ARMS, help="the first one is the rival")
    parser.add_argument("--keep", type=Path, help="write every course to this JSON file")
    parser.add_argument("--plot", type=Path, help=f"draw to this file; --record draws to plots/{PLOT.name}")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    tasks = [
        Task(data, seed, arguments.trials, arguments.epochs, arguments.objective)
        for data in arguments.csv or arguments.data
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    ]
    found = run_all(tasks, arguments.arms)
    if arguments.keep is not None:
        arguments.keep.write_text(
            json.dumps({data: {arm: [asdict(f) for f in c] for arm, c in arms.items()} for data, arms in found.items()})
        )
    text = comparison(found)
    print(f"\n{provenance()}\n\n{text}")
    if path := arguments.plot or (PLOT if arguments.record else None):
        plot(found, path)
    if arguments.record:
        words = (
            f"{arguments.trials} trials of {arguments.epochs} epochs, seeds {tasks[0].seed} to {tasks[-1].seed}, "
            "default search space; best val objective. One at a time: Optuna's TPESampler (multivariate, group, "
            "constant liar), told of every trial, trained by the loop. No halving but where it is said: there trials "
            "stop at epochs 5 and 15. Errors are standard errors (bootstrap over seeds); a positive gain is better. "
            "Equal seconds: all that one at a time had found when the arm had finished its trials.\n\n"
            f"![best value so far](plots/{PLOT.name})"
        )
        record("Search quality", f"{words}\n\n{text}")


if __name__ == "__main__":
    main()
