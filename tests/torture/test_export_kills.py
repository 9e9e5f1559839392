"""Processes that export two networks in turns to one folder are killed anywhere: it is always one of the two, whole."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from dlcore.errors import ExportError
from dlcore.exported import FILES, ExportedModel
from dlcore.files import SUMS_FILE, read_sealed
from tests.torture import exporters
from tests.torture.forms import FORM
from tests.torture.summary import counting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(FORM.timeout_s)]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.torture.exporters", "tests.torture.victims"])


def _wait_for_draft(folder: Path) -> None:
    draft = folder.with_name(f".{folder.name}.new")
    until = time.monotonic() + FORM.timeout_s
    while not draft.exists():
        assert time.monotonic() < until, "nothing is being exported"


def test_a_kill_leaves_the_old_export_or_the_new_one(tmp_path: Path) -> None:
    rng, folder = random.Random(FORM.seed), tmp_path / "exports" / "model"
    whole = [read_sealed(exporters.export(tmp_path / str(which), which), FILES) for which in (0, 1)]
    assert whole[0] != whole[1]
    exporters.export(folder, 0)
    began = time.monotonic()
    exporters.export(folder, 1)
    once_s, seen = time.monotonic() - began, [0, 0]
    with counting("exports") as (row, faults):
        for _ in range(FORM.export_kills):
            ready = _context.Event()
            victim = _context.Process(target=exporters.live, args=(folder, ready), daemon=True)
            victim.start()
            assert ready.wait(FORM.timeout_s)
            time.sleep(rng.uniform(0, 2 * once_s))
            if rng.random() < 0.5:  # most of an export is computed; so half of the kills wait for it to be written
                _wait_for_draft(folder)
                time.sleep(rng.uniform(0, 0.01))
            victim.kill()
            victim.join()
            row.n_made += victim.exitcode == -9
            try:
                found = read_sealed(folder, FILES)
                ExportedModel.load(folder)
            except ExportError as error:
                faults.lost.append(str(error))
                exporters.export(folder, 0)
                continue
            if found in whole:
                seen[whole.index(found)] += 1
            else:
                faults.differences.append("a mixture of two exports")
        exporters.export(folder, 1)  # whatever the killed left behind
        left = [path.name for path in folder.parent.iterdir()]
        assert left == ["model"] and {path.name for path in folder.iterdir()} == {*FILES, SUMS_FILE}
        row.more = f"{seen[0]} times the one, {seen[1]} times the other"
    assert row.n_made == FORM.export_kills and min(seen) > 0
