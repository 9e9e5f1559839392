"""What the study database costs: writing beside Optuna's RDBStorage, opening a large study, eight workers at once.

Run: python -m benchmarks.storage [--trials 2000] [--large 100000] [--shared 10000] [--record]

Each trial has six hyperparameters, three rungs and a curve of 30 epochs. PostgreSQL is a throw-away server on this
machine, with fsync on; where it is not installed, its figures are left out.
"""

import argparse
import contextlib
import multiprocessing
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution

from benchmarks.record import record, table
from studies.errors import StudiesError
from studies.records import COMPLETE, PRUNED, EpochRecord, Objective, StudyFacts, Suggestion, TrialRecord
from studies.search import Search
from studies.space import distributions
from studies.spec import StudySpec, spec_from_dict
from studies.storage import Storage
from tests.postgres import bin_folder, cluster

EPOCHS = 30
COHORT = 64
N_WORKERS = 8
TRAIN_S = 2.0
"""Seconds that a cohort's training is made to take where workers share a study: they sleep."""


def make_spec(trials: int) -> StudySpec:
    return spec_from_dict(
        {
            "study": "benchmark",
            "budget": {"trials": trials},
            "data": {"source": "sklearn:digits"},
            "search": {"cohort": COHORT},
        }
    )


def make_facts(spec: StudySpec) -> StudyFacts:
    texts: dict[str, Any] = dict.fromkeys(("task", "curve_metric", "data_name", "data_fingerprint"), "benchmark")
    return StudyFacts(
        name=spec.study, uuid=uuid.uuid4().hex, spec=spec.to_dict(), objectives=(Objective("accuracy", "maximize"),),
        cohort_size=spec.search.cohort or COHORT, n_features=64, n_outputs=10, environment={}, created_at=time.time(),
        **texts,
    )  # fmt: skip


def suggestion(number: int, known: dict[str, BaseDistribution]) -> Suggestion:
    """Some hyperparameters; which ones does not matter to a database."""
    found: dict[str, Any] = {}
    for name, distribution in known.items():
        share = ((number * 2654435761 + len(found) * 40503) % 10007) / 10007
        if isinstance(distribution, CategoricalDistribution):
            found[name] = distribution.choices[int(share * len(distribution.choices))]
        else:
            assert isinstance(
                distribution, optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution
            )
            value = distribution.low + share * (distribution.high - distribution.low)
            found[name] = int(value) if isinstance(distribution, optuna.distributions.IntDistribution) else value
    return Suggestion(number, found, tuple(known))


def finished(found: Suggestion, cohort: int, epochs: int = EPOCHS) -> TrialRecord:
    value = (found.number * 7919 % 1000) / 1000
    points = [(e, 1 / e, 2 / e + value, value) for e in range(1, epochs + 1)]
    return TrialRecord(
        number=found.number,
        state=COMPLETE if found.number % 3 == 0 else PRUNED,
        hyperparameters=found.hyperparameters,
        searched=found.searched,
        cohort=cohort,
        n_parameters=1000,
        values=(value,),
        rungs={1: value / 3, 2: value / 2, 3: value},
        curve=tuple(EpochRecord(e, train, val, metric, 0.1, 1.7e9 + e) for e, train, val, metric in points),
        best_epoch=epochs,
        best_val_loss=value,
        started_at=1.7e9,
        finished_at=1.7e9 + epochs,
        duration_s=1.0,
        samples_per_s=1e4,
        engine="population",
        population_size=COHORT,
        device="a processor",
    )


def fill(url: str, n: int, cohort: int = COHORT, epochs: int = EPOCHS) -> float:
    """Store n finished trials of a new study, `cohort` at a time; returns trials per second."""
    spec = make_spec(n)
    known = distributions(spec)
    known = {name: known[name] for name in list(known)[:6] if name != "slope"}
    storage = Storage(url)
    storage.create_study(make_facts(spec))
    began = time.monotonic()
    for first in range(0, n, cohort):
        asked = [suggestion(first + i, known) for i in range(min(cohort, n - first))]
        claimed = storage.claim(spec.study, asked, [1000] * len(asked), known)
        storage.record(spec.study, [finished(s, claimed, epochs) for s in asked], 1.0)
    seconds = time.monotonic() - began
    storage.close()
    return n / seconds


def fill_optuna(url: str, n: int) -> float:
    """The same with Optuna's own storage, in the way that is kindest to it: whole trials, reports included."""
    known = distributions(make_spec(n))
    known = {name: known[name] for name in list(known)[:6] if name != "slope"}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=url, study_name="theirs", direction="maximize")
    began = time.monotonic()
    for number in range(n):
        one = suggestion(number, known)
        curve = {e: 1 / e for e in range(1, EPOCHS + 1)}
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(one.hyperparameters), distributions=known, value=0.5, intermediate_values=curve
            )
        )
    return n / (time.monotonic() - began)


def ask_next(url: str, trials: int, answers: Any) -> None:
    """Open a study and ask its next cohort, in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    storage = Storage(url)
    spec = make_spec(trials)
    facts = storage.facts(spec.study)
    assert facts is not None
    search = Search(storage, spec, facts, lambda h: 1000)
    opened = time.monotonic()
    cohort = search.next_cohort()
    assert cohort is not None and len(cohort.suggestions) == COHORT
    ended = time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answers.put((opened - began, ended - opened, (peak - before) / 1024))
    storage.release(spec.study)
    storage.close()


def work(url: str, trials: int, start: Any, answers: Any) -> None:
    """One of several workers whose training is sleep."""
    storage = Storage(url)
    spec = make_spec(trials)
    facts = storage.facts(spec.study)
    assert facts is not None
    search = Search(storage, spec, facts, lambda h: 1000)
    slept, n_errors, n_done = 0.0, 0, 0
    start.wait()
    began = time.monotonic()
    while True:
        try:
            if (cohort := search.next_cohort()) is None:
                break
            time.sleep(TRAIN_S)
            slept += TRAIN_S
            search.tell([finished(s, cohort.id) for s in cohort.suggestions], TRAIN_S)
            n_done += len(cohort.suggestions)
        except StudiesError as error:
            print(error, file=sys.stderr)
            n_errors += 1
    answers.put((slept, n_errors, n_done, time.monotonic() - began))
    storage.close()


def share(url: str, trials: int) -> tuple[float, int, float]:
    """Trials per second of eight workers, their errors, and the share of their time that was training."""
    storage = Storage(url)
    storage.create_study(make_facts(make_spec(trials)))
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(N_WORKERS), context.Queue()
    children = [context.Process(target=work, args=(url, trials, start, answers)) for _ in range(N_WORKERS)]
    for child in children:
        child.start()
    found = [answers.get() for _ in children]
    for child in children:
        child.join()
    states = storage.states("benchmark")
    assert sum(states.values()) == trials and set(states) <= {COMPLETE, PRUNED}, states
    assert sum(n_done for _, _, n_done, _ in found) == trials
    assert storage.falsified("benchmark") == []
    storage.close()
    seconds = max(s for *_, s in found)
    return trials / seconds, sum(n for _, n, _, _ in found), sum(s for s, *_ in found) / (N_WORKERS * seconds)


def sizes(large: int) -> Sequence[int]:
    """Whole cohorts."""
    return [n - n % COHORT for n in (large // 10, large)]


@contextlib.contextmanager
def urls() -> Iterator[dict[str, Any]]:
    """A function that gives new databases, by the name of their kind."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        found: dict[str, Any] = {"SQLite": lambda name: f"sqlite:///{Path(folder) / name}.db"}
        if (binaries := bin_folder()) is not None:
            found["PostgreSQL"] = stack.enter_context(cluster(binaries)).create_database
        yield found


def measure(arguments: argparse.Namespace) -> str:
    parts = []
    context = multiprocessing.get_context("spawn")
    with urls() as kinds:
        rows = []
        for kind, new in kinds.items():
            theirs = fill_optuna(new("theirs"), arguments.rival)
            ours = fill(new("ours"), arguments.trials)
            rows.append([kind, f"{ours:,.0f}", f"{theirs:.1f}", f"{ours / theirs:.0f}x"])
            print(rows[-1], flush=True)
        header = ["database", "ours, trials/s", "RDBStorage.add_trial, trials/s", "ratio"]
        parts.append(f"Finished trials, {COHORT} to a cohort, claims and results:\n\n{table(header, rows)}")
        rows = []
        for kind, new in kinds.items():
            for n in sizes(arguments.large):
                url = new(f"large-{n}")
                fill(url, n, 1000, 1)
                answers = context.Queue()
                child = context.Process(target=ask_next, args=(url, n + COHORT, answers))
                child.start()
                opening, asking, megabytes = answers.get()
                child.join()
                rows.append([kind, f"{n:,}", f"{opening:.2f}", f"{asking:.2f}", f"{megabytes:.0f}"])
                print(rows[-1], flush=True)
        header = ["database", "trials", "opening, s", f"asking {COHORT} (TPE), s", "memory, MB"]
        parts.append(f"Opening a study and asking its next cohort:\n\n{table(header, rows)}")
        if "PostgreSQL" in kinds:
            rate, n_errors, efficiency = share(kinds["PostgreSQL"]("shared"), arguments.shared)
            row = [f"{arguments.shared:,}", f"{rate:.0f}", n_errors, f"{efficiency:.0%}"]
            print(row, flush=True)
            header = ["trials", "trials/s", "errors", "share of time that is training"]
            words = f"{N_WORKERS} workers on PostgreSQL, cohorts of {COHORT}, each said to train for {TRAIN_S:g} s:"
            parts.append(f"{words}\n\n{table(header, [row])}")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2048)
    parser.add_argument("--rival", type=int, default=100, help="trials that RDBStorage stores")
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--shared", type=int, default=10_000)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    text = measure(arguments)
    print(f"\n{text}")
    if arguments.record:
        record("The study database", text)


if __name__ == "__main__":
    main()
