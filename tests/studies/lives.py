"""Whole studies in processes of their own, and what of them must be the same whatever happened to them."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from studies import mirroring
from studies.home import Home
from studies.records import EpochDone, TrialRecord
from studies.runner import Run
from studies.spec import spec_from_dict
from studies.storage import Storage
from tests.studies.conftest import NOBODY, Lines


def live(root: str, url: str, spec: dict[str, Any], kill_at: tuple[int, int] | None) -> None:
    """Run a study, to its end or to its death."""
    mirroring.PATIENCE_S = 0.1
    display = Lines()

    def kill(event: EpochDone) -> None:
        if kill_at is not None and event.number // 4 >= kill_at[0] and event.epoch.epoch >= kill_at[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    display.on_epoch = kill
    home = Home(Path(root), url, NOBODY)
    Run(spec_from_dict(spec), home, Storage(url), display).execute(None)


def in_process(root: Path, url: str, spec: dict[str, object], kill_at: tuple[int, int] | None) -> int | None:
    """Exit code of a life in a process of its own."""
    root.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["studies.runner"])  # torch is read once, and has no threads yet
    process = context.Process(target=live, args=(str(root), url, spec, kill_at))
    process.start()
    process.join()
    return process.exitcode


def bits(trials: list[TrialRecord]) -> list[str]:
    """All of the trials but times and memory, as text, in which a NaN equals a NaN."""
    forgotten: dict[str, Any] = dict.fromkeys(
        ("started_at", "finished_at", "duration_s", "samples_per_s", "peak_memory_bytes")
    )
    return [repr(replace(t, curve=tuple(replace(e, finished_at=0.0) for e in t.curve), **forgotten)) for t in trials]
