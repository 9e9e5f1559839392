"""How fast a browser shows a large study: its pages in MLflow, and its report.

A study of 1,000 trials is run and mirrored in a home; MLflow's client writes the same runs, one beside the other as
most people log them, to a server that is started in the same way for another home. That server's page of an experiment
without any run says what MLflow's own scripts take on this machine. Chromium then opens each page in turn, after one
round that warms the servers, and twice: as a browser that knows nothing yet, and again as one that has been there
and so has the scripts; the clock runs from the address to the moment when what a person came for is to be seen.

    python -m benchmarks.pages                     # needs Debian's Chromium
    python -m benchmarks.pages --trials 200 --turns 3
    python -m benchmarks.pages --folder many       # keeps both homes; another call looks at them again
    python -m benchmarks.pages --record            # and writes RESULTS.md
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import BrowserType, ViewportSize, sync_playwright

from benchmarks.record import provenance, record, table
from benchmarks.report import STUDY, command, make_study
from studies import server
from studies.runs import trial_run
from studies.storage import Storage
from studies.view import run_page, study_page

PATIENCE_MS = 120_000
OPTIONS = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-sandbox")
"""Chromium would otherwise ask its makers for updates and the like."""
CLIENT = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
address, runs = json.load(sys.stdin)
client = MlflowClient(address)
experiment = client.create_experiment("many")

def write(run):
    run_id = client.create_run(experiment, run["start_ms"], run_name=run["name"]).info.run_id
    client.log_batch(run_id, [Metric(*m) for m in run["metrics"]], [Param(*p) for p in run["params"].items()], [])
    client.update_run(run_id, run["status"])

with ThreadPoolExecutor(4) as threads:
    list(threads.map(write, runs))
"""
EMPTY = "MLflow's page of an experiment without runs (that there are none)"
RIVAL = "the same runs logged by MLflow's client, side by side (its runs)"


VISITS = 3
SETTLING_MS = 1_500
"""After a page is there the browser writes its cache; who closes it at once has none."""


class Visit(NamedTuple):
    """Seconds that a page took."""

    first: float
    again: float


@dataclass(frozen=True, slots=True)
class Sight:
    """A page, and what must be seen before it counts as open."""

    name: str
    address: str
    texts: tuple[str, ...]
    """Each on the page, visible."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) if given.folder is None else given.folder.absolute()
        seconds = measure(folder, given.trials, given.turns)
        text = body(n_trials(folder), seconds)  # a kept folder may have others
    print(f"{provenance()}\n\n{text}")
    if given.record:
        record("Pages of a large study", text)


def body(trials: int, seconds: Mapping[str, Sequence[Visit]]) -> str:
    """The table of all pages."""
    floors = [statistics.median(times) for times in zip(*seconds[EMPTY], strict=True)]
    rows = []
    for name, visits in seconds.items():
        cells: list[str] = []
        for times, floor in zip(zip(*visits, strict=True), floors, strict=True):
            middle = statistics.median(times)
            cells += [f"{middle:.2f}", f"{min(times):.2f}-{max(times):.2f}", f"{middle / floor:.1f}"]
        rows.append((name, *cells))
    turns = max(map(len, seconds.values()))
    words = f"{trials:,} trials; {turns} turns; seconds until the page shows what is in brackets."
    header = [f"{kind}, {what}" for kind in ("first visit", "again") for what in ("median", "span", "beside no runs")]
    return f"{words}\n\n{table(('page', *header), rows)}"


def measure(folder: Path, trials: int, turns: int) -> dict[str, list[Visit]]:
    """Visits of each turn, by the name of the page."""
    executable = shutil.which("chromium")
    if executable is None:
        raise SystemExit("chromium must be installed; on Debian `apt-get install chromium` brings it")
    rival = folder / "rival"
    try:
        if not rival.is_dir():
            folder.mkdir(exist_ok=True)
            make_study(folder, trials)
            command(("report", STUDY, "--to", "report"), folder)
            rival.mkdir()
            log_runs(folder, server.find_or_start(rival).address)
        theirs = server.find_or_start(rival).address
        sights = [*own_sights(folder), Sight(RIVAL, f"{theirs}/#/experiments/1/runs", ("trial-",))]
        sights.append(Sight(EMPTY, f"{theirs}/#/experiments/0/runs", ("No runs",)))
        with sync_playwright() as playwright:
            return look(playwright.chromium, executable, sights, turns)
    finally:
        server.stop(folder / "home")
        server.stop(rival)


def look(chromium: BrowserType, executable: str, sights: Sequence[Sight], turns: int) -> dict[str, list[Visit]]:
    """Open all pages in turn; the first round is not counted."""
    found: dict[str, list[Visit]] = {sight.name: [] for sight in sights}
    for turn in range(turns + 1):
        for sight in sights:
            visit = visited(chromium, executable, sight)
            found[sight.name] += [visit] if turn else []
    return found


def visited(chromium: BrowserType, executable: str, sight: Sight) -> Visit:
    """A page's first visit and a later one, by a browser whose profile is new.

    Chromium keeps a script compiled when it is loaded again within three days: the second visit does that, and the
    third is what people find who come back. Each has a browser process of its own, as each day has.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        times = [opened(chromium, executable, Path(profile), sight) for _ in range(VISITS)]
    return Visit(times[0], times[-1])


def opened(chromium: BrowserType, executable: str, profile: Path, sight: Sight) -> float:
    """Seconds until a page is there."""
    size = ViewportSize(width=1280, height=900)
    context = chromium.launch_persistent_context(profile, executable_path=executable, args=list(OPTIONS), viewport=size)
    try:
        page = context.pages[0]
        began = time.perf_counter()
        page.goto(sight.address, wait_until="commit")
        for text in sight.texts:
            page.get_by_text(text).locator("visible=true").first.wait_for(timeout=PATIENCE_MS)
        took_s = time.perf_counter() - began
        page.wait_for_timeout(SETTLING_MS)
        return took_s
    finally:
        context.close()


def n_trials(folder: Path) -> int:
    """Of the study that is there."""
    storage = Storage(f"sqlite:///{folder / 'home' / 'studies.db'}")
    try:
        return sum(storage.states(STUDY).values())
    finally:
        storage.close()


def own_sights(folder: Path) -> list[Sight]:
    """The pages of the study that `make_study` ran there."""
    address = server.find_or_start(folder / "home").address
    storage = Storage(f"sqlite:///{folder / 'home' / 'studies.db'}")
    try:
        facts = storage.known(STUDY)
    finally:
        storage.close()
    experiment, run = parent_run(address, facts.uuid)
    report = (folder / "report" / "report.html").as_uri()
    return [
        Sight("the study as `studies ui` names it (its trials)", study_page(address, experiment), (STUDY, "trial-")),
        Sight("the study's run (its story and trials)", run_page(address, experiment, run), ("won, with", "trial-")),
        Sight("report.html (its headline)", report, ("won, with",)),
    ]


def parent_run(address: str, uuid: str) -> tuple[str, str]:
    """Ids of a study's experiment and of its run."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    for experiment in client.search_experiments():
        if experiment.tags.get("dlcore.study") == uuid:
            wanted = f"tags.`dlcore.name` = '{STUDY}'"
            (run,) = client.search_runs([experiment.experiment_id], wanted)
            return experiment.experiment_id, run.info.run_id
    raise SystemExit(f"MLflow at {address} must have study {STUDY}, and has not")


def log_runs(folder: Path, address: str) -> None:
    """Let MLflow's client write the same runs there, in an experiment with nothing else in it."""
    storage = Storage(f"sqlite:///{folder / 'home' / 'studies.db'}")
    try:
        runs = [trial_run(storage.known(STUDY), trial) for trial in storage.records(STUDY, has_curves=True)]
    finally:
        storage.close()
    said = [
        {"name": r.name, "start_ms": r.start_ms, "status": r.status, "params": dict(r.params), "metrics": r.metrics}
        for r in runs
    ]
    subprocess.run([sys.executable, "-c", CLIENT], input=json.dumps([address, said]), text=True, check=True)


if __name__ == "__main__":
    main()
