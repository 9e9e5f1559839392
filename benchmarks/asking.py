"""What asking costs: the next cohort beside Optuna's own TPE, and its share of a whole study.

    python -m benchmarks.asking                        # 100, 1,000 and 10,000 stored trials
    python -m benchmarks.asking --study 1000           # and the share of a study of that many trials
    python -m benchmarks.asking --study 1000 --record

Asking: the cohort that a study asks after so many trials (of the default size for that budget, the default space), with
a tenth of the trials finished and the rest pruned, as halving leaves them; and single trials of Optuna's TPESampler
with the same settings, told of all stored trials. Both find their history in memory; Optuna's is built before its clock
runs, ours is timed. Medians of a few turns. The share: of the bundled digits study with that budget, asking and all.
"""

import argparse
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.samplers import TPESampler

from benchmarks.phases import NAMES, Course, run_study, warm_server
from benchmarks.record import provenance, record, table
from studies import sampler, server
from studies.cohort_tpe import CohortTPESampler
from studies.records import COMPLETE, PRUNED, Objective, TrialRecord, Value
from studies.space import distributions, suggest
from studies.spec import StudySpec, cohort_size, spec_from_dict

OBJECTIVES = (Objective("accuracy", "maximize"),)


def spec_for(trials: int, **search: object) -> StudySpec:
    return spec_from_dict(
        {"study": "digits", "budget": {"trials": trials}, "data": {"source": "sklearn:digits"}, "search": search}
    )


def size(hyperparameters: Mapping[str, Value]) -> int:
    return int(hyperparameters["width"])


def stored(n: int) -> list[TrialRecord]:
    """Trials as halving leaves them, with values that depend on what was chosen."""
    spec = spec_for(n, sampler="random")
    records = []
    for asked in sampler.ask_cohort(spec, OBJECTIVES, [], 0, n, size):
        chosen = asked.hyperparameters
        value = 1 - 0.1 * abs(math.log10(float(chosen["learning_rate"])) + 1.3) - 0.01 * int(chosen["depth"])
        state = PRUNED if asked.number % 10 else COMPLETE
        records.append(
            TrialRecord(asked.number, state, chosen, asked.searched, 0, size(chosen), values=(value,), rungs={5: value})
        )
    return records


@dataclass
class Parts:
    """Seconds of one asking."""

    total: float = 0.0
    history: float = 0.0
    fitting: float = 0.0
    drawing: float = 0.0

    @property
    def rest(self) -> float:
        return self.total - self.history - self.fitting - self.drawing


def ask(spec: StudySpec, records: list[TrialRecord], n: int) -> Parts:
    """Ask a cohort, its parts timed from outside."""
    parts = Parts()
    undo = [
        _timed(sampler, "history", parts, "history"),
        _timed(sampler, "frozen_trial", parts, "history"),
        _timed(sampler, "asking_study", parts, "history"),
        _timed(CohortTPESampler, "_fit", parts, "drawing"),
        _timed(CohortTPESampler, "_told_trials", parts, "fitting"),
        _timed(CohortTPESampler, "_build_parzen_estimator", parts, "fitting"),
    ]
    began = time.perf_counter()
    sampler.ask_cohort(spec, OBJECTIVES, records, len(records), n, size)
    parts.total = time.perf_counter() - began
    parts.drawing -= parts.fitting  # a fit and its draws are one call
    for back in undo:
        back()
    return parts


def _timed(owner: object, name: str, parts: Parts, part: str) -> Callable[[], None]:
    call = getattr(owner, name)

    def timed(*arguments: object, **named: object) -> object:
        began = time.perf_counter()
        try:
            return call(*arguments, **named)
        finally:
            setattr(parts, part, getattr(parts, part) + time.perf_counter() - began)

    setattr(owner, name, timed)
    return lambda: setattr(owner, name, call)


def optunas_seconds(spec: StudySpec, records: list[TrialRecord], n: int) -> float:
    """Seconds per trial of Optuna's sampler, asked n times, one trial after the other, each told at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        tpe = TPESampler(seed=0, multivariate=True, group=True, constant_liar=True)
    known = distributions(spec)
    study = sampler.asking_study(spec, OBJECTIVES, tpe, [sampler.frozen_trial(r, known, 1) for r in records])
    began = time.perf_counter()
    for _ in range(n):
        trial = study.ask()
        suggest(trial, spec)
        study.tell(trial, 0.9)
    return (time.perf_counter() - began) / n


def asking_table(counts: list[int], n_rival: int, turns: int) -> str:
    rows = []
    for count in counts:
        spec, records = spec_for(count), stored(count)
        cohort = cohort_size(spec)
        parts = [ask(spec, records, cohort) for _ in range(turns)]
        rival = optunas_seconds(spec, records, n_rival)
        names = ("history", "fitting", "drawing", "rest", "total")
        seconds = [statistics.median(getattr(turn, name) for turn in parts) for name in names]
        ours = seconds[-1] / cohort
        rows.append(
            [
                f"{count:,}",
                cohort,
                *(f"{s:.3f}" for s in seconds),
                f"{1e3 * ours:.2f}",
                f"{1e3 * rival:.1f}",
                f"{rival / ours:.0f}",
            ]
        )
        print(rows[-1], flush=True)
    header = ["stored trials", "cohort", "history, s", "fitting, s", "drawing, s", "rest, s", "cohort, s"]
    return table([*header, "ours, ms per trial", "Optuna's, ms per trial", "ratio"], rows)


def study_courses(trials: int, turns: int) -> list[Course]:
    """Whole studies, each in a home of its own with a warm server."""
    bundled = Path(sampler.__file__).parent / "specs" / "digits.toml"
    text = f"{bundled.read_text()}\n"
    spec = "\n".join(line for line in text.splitlines() if not line.startswith("budget"))
    courses = []
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder) / "home"
            warm_server(home)
            try:
                courses.append(run_study(spec.replace("[data]", f"budget = {{ trials = {trials} }}\n[data]", 1), home))
            finally:
                server.stop(home)
        print(courses[-1], flush=True)
    return courses


def share_table(courses: list[Course]) -> str:
    rows = [
        [name, f"{statistics.median(c.phases[name] for c in courses):.2f}", f"{_share(courses, name):.1%}"]
        for name in NAMES
    ]
    return table(["phase", "seconds", "share of the wall time"], rows)


def _share(courses: list[Course], name: str) -> float:
    return statistics.median(c.phases[name] / c.end for c in courses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--rival-trials", type=int, default=5, help="how often Optuna is asked")
    parser.add_argument("--study", type=int, metavar="TRIALS", help="run whole studies of so many trials too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    text = asking_table(arguments.stored, arguments.rival_trials, arguments.repeats)
    words = (
        "The next cohort of the default study beside Optuna's TPESampler with the same settings, asked one at a time "
        f"({arguments.rival_trials} times). Best of {arguments.repeats} turns."
    )
    text = f"{words}\n\n{text}"
    if arguments.study is not None:
        courses = study_courses(arguments.study, arguments.repeats)
        busy = [c.phases["asking"] / (c.phases["asking"] + c.phases["training"]) for c in courses]
        text += (
            f"\n\nThe bundled digits study with {arguments.study:,} trials, warm server, {arguments.repeats} runs "
            f"(medians): seconds of the main thread. Of asking and training alone, asking is "
            f"{statistics.median(busy):.1%}.\n\n{share_table(courses)}"
        )
    print(f"\n{provenance()}\n\n{text}")
    if arguments.record:
        record("Asking", text)


if __name__ == "__main__":
    main()
