"""How good the time left is that a running study tells, from the moment on when ten trials are done.

Each study is a whole command in a process and a home of its own: search, finals, rivals, export, and the wait for its
tracking server, which starts with it. What it would tell is noted several times a second until it ends, and held
against what it then took: at ten trials, at 25 %, 50 % and 75 % of the command's seconds, and at all moments. Beside
it, what the mean rate of trials says of the search alone, as a bar of progress does.

    python -m benchmarks.pace                            # prints
    python -m benchmarks.pace --record                   # and writes RESULTS.md
    python -m benchmarks.pace --studies digits wine --seeds 1 --courses courses.json   # keeps what was told
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import provenance, record, table

STUDIES: Mapping[str, Mapping[str, Any]] = {
    "digits": {"budget": {"trials": 256}, "data": {"source": "sklearn:digits"}},
    "wine": {"budget": {"trials": 64}, "data": {"source": "sklearn:wine"}, "training": {"batch_size": 32}},
    "unpruned": {"budget": {"trials": 64}, "data": {"source": "sklearn:digits"}, "search": {"halving": False}},
    "csv": {"budget": {"trials": 96}, "data": {"path": "diabetes.csv", "target": "target"}},
    "random": {
        "budget": {"trials": 96},
        "data": {"source": "sklearn:breast_cancer"},
        "search": {"sampler": "random", "halving": False},
    },
}
LEAST_TRIALS = 10
EVERY_S = 0.2
MOMENTS = ("ten trials", "25 %", "50 %", "75 %")
Course = dict[str, Any]
"""`seconds` that the command took, and `told`: at which of them, trials done, the time left, that by the mean rate."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--studies", nargs="+", choices=STUDIES, default=list(STUDIES))
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--courses", type=Path, help="keeps what was told; courses that are there are not run again")
    arguments.add_argument("--record", action="store_true")
    arguments.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child is not None:
        run_study(given.child[0], int(given.child[1]), Path(given.child[2]))
        return
    courses: dict[str, Course] = {}
    if given.courses is not None and given.courses.is_file():
        courses = json.loads(given.courses.read_text())
    for seed in range(given.seeds):
        for name in given.studies:
            if (key := f"{name}, seed {seed}") not in courses:
                courses[key] = measure(name, seed)
                if given.courses is not None:
                    given.courses.write_text(json.dumps(courses, separators=(",", ":")))
    body = report(courses)
    print(provenance(), body, sep="\n\n")
    if given.record:
        record("Time left", body)


def report(courses: Mapping[str, Course]) -> str:
    """A table with a line for each course, and two for all of them."""
    found = {name: dict(errors_at(course)) for name, course in courses.items()}
    every = {name: [abs(told - true) / true for true, told, _ in moments(c)] for name, c in courses.items()}
    rows: list[Sequence[object]] = []
    for name, course in courses.items():
        at = [f"{found[name][moment]:.0%}" if moment in found[name] else "" for moment in MOMENTS]
        rows.append((name, f"{course['seconds']:.0f}", *at, f"{statistics.median(every[name]):.0%}"))
    of_all = [e for own in every.values() for e in own]
    for what, of in (("median", 0.5), ("90th percentile", 0.9)):
        at = [f"{quantile([f[m] for f in found.values() if m in f], of):.0%}" for m in MOMENTS]
        rows.append((f"{what} of all", "", *at, f"{quantile(of_all, of):.0%}"))
    plain = [abs(rate - true) / true for course in courses.values() for true, _, rate in moments(course)]
    rows.append(("the mean rate of trials, median", "", *("" for _ in MOMENTS), f"{quantile(plain, 0.5):.0%}"))
    near = sum(e <= 0.2 for e in of_all) / len(of_all)
    words = "How far the time left that was told is from what the whole command then took, as a share of that"
    of_all_moments = table(("study", "s", *MOMENTS, "all moments"), rows)
    return (
        f"{words}; {len(courses)} commands, each with an empty home.\n\n{of_all_moments}\n\n"
        f"Within 20 %: {near:.0%} of all moments."
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that so many of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def moments(course: Course) -> Iterator[tuple[float, float, float]]:
    """Time left as it was, as it was told, and by the mean rate of trials, from ten trials to 95 % of the command."""
    for at, n_done, told, rate in course["told"]:
        if n_done >= LEAST_TRIALS and told is not None and at <= 0.95 * course["seconds"]:
            yield course["seconds"] - at, told, rate


def errors_at(course: Course) -> Iterator[tuple[str, float]]:
    """The error at each of `MOMENTS` that comes after ten trials."""
    found = list(moments(course))
    if found:
        yield MOMENTS[0], abs(found[0][1] - found[0][0]) / found[0][0]
    for moment, share in zip(MOMENTS[1:], (0.25, 0.5, 0.75), strict=True):
        left = (1 - share) * course["seconds"]
        later = [one for one in found if one[0] <= left]
        if later and len(later) < len(found):
            yield moment, abs(later[0][1] - later[0][0]) / later[0][0]


def measure(name: str, seed: int) -> Course:
    """The course of one study, in a process of its own."""
    from studies import server

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "course.json"
        command = [sys.executable, "-m", "benchmarks.pace", "--child", name, str(seed), str(out)]
        here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        try:
            subprocess.run(command, check=True, cwd=folder, env=here)
        finally:
            server.stop(Path(folder) / "home")
        course: Course = json.loads(out.read_text())
        return course


def run_study(name: str, seed: int, out: Path) -> None:
    """Run a study, and write what it told."""
    from studies.display import QuietDisplay
    from studies.home import Home
    from studies.records import EpochDone, TrialRecord
    from studies.runner import Run
    from studies.spec import spec_from_dict
    from studies.storage import Storage
    from studies.tally import Tally

    class Watch(QuietDisplay):
        """A display that shows nothing, and remembers the tally."""

        tally: Tally | None = None

        def begin(self, tally: Tally) -> None:
            self.tally = tally

        def epoch(self, event: EpochDone) -> None:
            assert self.tally is not None
            self.tally.add_epoch(event)

        def trials(self, trials: Sequence[TrialRecord]) -> None:
            assert self.tally is not None
            self.tally.add_trials(trials)

    if name == "csv":
        from sklearn.datasets import load_diabetes

        load_diabetes(as_frame=True).frame.to_csv("diabetes.csv", index=False)
    spec = spec_from_dict({"study": name, "seed": seed, **STUDIES[name]}, name)
    root = out.parent / "home"
    root.mkdir()
    watch, began = Watch(sys.stderr), time.monotonic()
    told: list[tuple[float, int, float | None, float]] = []
    is_over = threading.Event()

    def listen() -> None:
        while not is_over.wait(EVERY_S):
            if (tally := watch.tally) is not None and tally.n_done:
                at, total = time.monotonic() - began, spec.budget.trials or tally.n_done
                told.append((at, tally.n_done, tally.seconds_left, at / tally.n_done * (total - tally.n_done)))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    home = Home(root, f"sqlite:///{root / 'studies.db'}", None)
    Run(spec, home, Storage(home.database_url), watch).execute(None)
    seconds = time.monotonic() - began
    is_over.set()
    listener.join()
    out.write_text(json.dumps({"seconds": seconds, "told": told}))


if __name__ == "__main__":
    main()
