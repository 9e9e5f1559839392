"""How good the time left is that a running study shows, from the moment on when ten trials are done.

Each study runs in a process of its own, mirrored to nobody; when epochs ended and cohorts were stored is written down.
That course is then lived through again with a clock that stands where it stood, and the time left is asked a hundred
times between ten trials and the end of the search. The truth is what the search then took: finals and export come after
it. Beside it, what the mean rate of trials would have said.

    python -m benchmarks.pace                            # prints
    python -m benchmarks.pace --record                   # and writes RESULTS.md
    python -m benchmarks.pace --courses courses.json     # keeps the courses; --again reads them, and runs nothing
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import provenance, record, table

STUDIES: Mapping[str, Mapping[str, Any]] = {
    "digits": {"budget": {"trials": 256}, "data": {"source": "sklearn:digits"}},
    "wine": {"budget": {"trials": 64}, "data": {"source": "sklearn:wine"}, "training": {"batch_size": 32}},
    "unpruned": {"budget": {"trials": 64}, "data": {"source": "sklearn:digits"}, "search": {"halving": False}},
    "csv": {"budget": {"trials": 96}, "data": {"path": "diabetes.csv", "target": "target"}},
}
N_MOMENTS = 100
LEAST_TRIALS = 10
Course = dict[str, Any]
"""`trials`, `cohort`, `per_trial` (epochs as the rungs leave them), `guided`, and `events`: seconds, "e" and how many
epochs ended, or "t" and of each stored trial its epochs, parameters, depth and whether it was of its cohort's best."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The time left at one moment, in seconds."""

    true: float
    told: float
    plain: float
    """By the mean rate of trials."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--courses", type=Path)
    arguments.add_argument("--again", action="store_true")
    arguments.add_argument("--record", action="store_true")
    arguments.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child is not None:
        run_study(given.child[0], int(given.child[1]), Path(given.child[2]))
        return
    if given.again:
        courses = json.loads(given.courses.read_text())
    else:
        courses = {f"{name}, seed {seed}": measure(name, seed) for seed in range(given.seeds) for name in STUDIES}
        if given.courses is not None:
            given.courses.write_text(json.dumps(courses, separators=(",", ":")))
    body = report(courses)
    print(provenance(), body, sep="\n\n")
    if given.record:
        record("Time left", body)


def report(courses: Mapping[str, Course]) -> str:
    """A table with a line for each course, and one for all of them."""
    found = {name: list(moments(course)) for name, course in courses.items()}
    found["all"] = [m for own in found.values() for m in own]
    rows = [(name, f"{max(m.true for m in own):.1f}", *_row(own)) for name, own in found.items()]
    header = ("study", "s from ten trials on", "median error", "within 20 %", "or 1 s", "median of the mean rate")
    return (
        f"{N_MOMENTS} moments of each search from {LEAST_TRIALS} trials to its end; errors are shares of the true "
        f"time left.\n\n{table(header, rows)}"
    )


def _row(own: Sequence[Moment]) -> tuple[str, str, str, str]:
    errors = [abs(m.told - m.true) / m.true for m in own]
    near = sum(e <= 0.2 for e in errors) / len(own)
    or_a_second = sum(abs(m.told - m.true) <= max(1.0, 0.2 * m.true) for m in own) / len(own)
    plain = statistics.median(abs(m.plain - m.true) / m.true for m in own)
    return f"{statistics.median(errors):.0%}", f"{near:.0%}", f"{or_a_second:.0%}", f"{plain:.0%}"


def moments(course: Course) -> Iterator[Moment]:
    """Live through a course again; what is told between two events is what was told at the first of them."""
    from studies.pace import Pace, Trained

    events = course["events"]
    end = max(at for at, kind, _ in events if kind == "t")
    pace = Pace(0.0, course["per_trial"], course["cohort"], is_guided=course["guided"])
    done, begin, asked = 0, 0.0, 0
    for (at, kind, what), (until, _, _) in itertools.pairwise(events):
        for _ in range(what if kind == "e" else 0):
            pace.epoch(at)
        if kind == "t":
            pace.told([Trained(*trial) for trial in what], at)
            done += len(what)
        if done < LEAST_TRIALS:
            continue
        begin = begin or at
        while asked < N_MOMENTS and (now := begin + (end - begin) * asked / N_MOMENTS) < until:
            left = pace.left(course["trials"] - done, now)
            assert left is not None  # some trials are stored
            yield Moment(end - now, left, now / done * (course["trials"] - done))
            asked += 1


def measure(name: str, seed: int) -> Course:
    """The course of one study, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "course.json"
        command = [sys.executable, "-m", "benchmarks.pace", "--child", name, str(seed), str(out)]
        here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        subprocess.run(command, check=True, cwd=folder, env=here)
        course: Course = json.loads(out.read_text())
        return course


def run_study(name: str, seed: int, out: Path) -> None:
    """Run a study, and write its course."""
    from studies.home import Home
    from studies.records import EpochDone, TrialRecord
    from studies.runner import Run, Ways
    from studies.spec import spec_from_dict
    from studies.storage import Storage
    from studies.tally import Tally, epochs_per_trial, is_guided

    class Watch:
        """A display that shows nothing, and remembers when it was told what."""

        def __init__(self) -> None:
            self.events: list[Any] = []
            self.began = 0.0

        def note(self, line: str) -> None:
            pass

        def begin(self, tally: Tally) -> None:
            self.tally, self.began = tally, time.monotonic()

        def epoch(self, event: EpochDone) -> None:
            at = round(time.monotonic() - self.began, 3)
            if self.events and self.events[-1][:2] == [at, "e"]:
                self.events[-1][2] += 1
            else:
                self.events.append([at, "e", 1])

        def trials(self, trials: Sequence[TrialRecord]) -> None:
            said = [(t.epochs, t.n_parameters, t.depth, t.is_guide) for t in self.tally.trained(trials)]
            self.events.append([round(time.monotonic() - self.began, 3), "t", said])

        def end(self) -> None:
            pass

    if name == "csv":
        from sklearn.datasets import load_diabetes

        load_diabetes(as_frame=True).frame.to_csv("diabetes.csv", index=False)
    spec = spec_from_dict({"study": name, "seed": seed, **STUDIES[name]}, name)
    root = out.parent / "home"
    root.mkdir()
    home, watch = Home(root, f"sqlite:///{root / 'studies.db'}", None), Watch()
    run = Run(spec, home, Storage(home.database_url), watch, ways=Ways(is_mirrored=False))
    run.execute(None)
    course = {
        "trials": spec.budget.trials, "cohort": run.facts.cohort_size, "guided": is_guided(run.facts),
        "per_trial": epochs_per_trial(run.facts, spec.training.epochs), "events": watch.events,
    }  # fmt: skip
    out.write_text(json.dumps(course))


if __name__ == "__main__":
    main()
