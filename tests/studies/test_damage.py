"""Random damage to the bytes of a study database: found, refused by its name, or of nothing that anybody is told."""

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import optuna
import pytest

from studies.doctor import examine
from studies.errors import StudiesError
from studies.home import Home
from studies.storage import Storage

pytestmark = pytest.mark.slow
N_DAMAGES = int(os.environ.get("TORTURE") or 60)
"""`TORTURE=N` makes it N."""


def report(storage: Storage, home: Home) -> str:
    """Everything that commands, and Optuna's own tools, say of the study."""
    own = (
        storage.names(),
        storage.facts("wine"),
        storage.states("wine"),
        storage.records("wine", has_curves=True),
        storage.winner("wine"),
        storage.mirror("wine"),
    )
    study = optuna.load_study(study_name="wine", storage=home.database_url)
    return repr((own, study.directions, study.trials))


def opened(folder: Path, finished: Home) -> Home:
    """A copy of a finished home; what is said of exports is the original's."""
    folder.mkdir(mode=0o700)
    shutil.copytree(finished.exports, folder / "exports")
    return Home(folder, f"sqlite:///{folder / 'studies.db'}", None)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Between one bit and 64 bytes, somewhere."""
    new, at = bytearray(content), chance.randrange(len(content))
    if chance.random() < 0.5:
        new[at] ^= 1 << chance.randrange(8)
    else:
        n = min(chance.choice((1, 4, 64)), len(content) - at)
        new[at : at + n] = chance.randbytes(n)
    return bytes(new)


def outcome(home: Home, expected: str) -> str:
    """What becomes of a damaged database: "refused", "found" or "equal"; anything else is a failure."""
    name = str(home.root / "studies.db")
    try:
        storage = Storage(home.database_url)
    except StudiesError as error:
        assert name in str(error)
        return "refused"
    try:
        found = examine(home, storage, None)
        # That MLflow was never told is no damage.
        if [f for f in found.findings if not f.kind.startswith("MLflow")]:
            return "found"
        assert report(storage, home) == expected, "silently different"
        return "equal"
    finally:
        storage.close()


@pytest.mark.timeout(3600)
def test_damage_is_found_or_refused_or_changes_nothing_that_is_said(finished_home: Home, tmp_path: Path) -> None:
    home = opened(tmp_path / "home", finished_home)
    content = Path(finished_home.database_url.removeprefix("sqlite:///")).read_bytes()
    path = home.root / "studies.db"
    path.write_bytes(content)
    path.chmod(0o600)
    storage = Storage(home.database_url)
    expected = report(storage, home)
    storage.close()
    assert outcome(home, expected) == "equal"
    outcomes: Counter[str] = Counter()
    for seed in range(N_DAMAGES):
        new = damaged(content, random.Random(seed))
        if new == content:
            continue
        for leftover in (path, path.with_name("studies.db-journal")):
            leftover.unlink(missing_ok=True)
        path.write_bytes(new)
        path.chmod(0o600)
        try:
            outcomes[outcome(home, expected)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
    print(dict(outcomes))
    assert outcomes["found"] and sum(outcomes.values()) > N_DAMAGES * 0.9
