"""What commands refuse before they begin."""

from collections.abc import Callable
from pathlib import Path

import pytest

from studies import commands
from studies.errors import StudyBusy
from studies.records import StudyFacts
from studies.storage import Storage
from tests.studies.conftest import NOBODY


def test_a_study_that_a_driver_mirrors_is_not_mirrored_by_a_second_one(
    tmp_path: Path, postgres_url: str, make_facts: Callable[..., StudyFacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL no file is locked: two mirrors at once would both make the run of a trial."""
    monkeypatch.setenv("STUDIES_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STUDIES_DB", postgres_url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    driver = Storage(postgres_url)
    driver.create_study(make_facts())
    with driver.leading("wine") as is_leading:
        assert is_leading()
        with pytest.raises(StudyBusy, match='study "wine" is being run, and its driver mirrors it'):
            commands.track("wine")
    driver.close()
