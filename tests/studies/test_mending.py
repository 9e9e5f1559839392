"""studies.mending: what rows, and a witness beside them, tell of what was stored. All faults are in test_doctor."""

import json
from collections.abc import Callable

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from sqlalchemy import text

from studies import mending
from studies.database import writing
from studies.errors import StudiesError
from studies.records import StudyFacts, TrialRecord
from studies.storage import Storage

HUGE = 2_000_000_000
"""More than anybody could hold a list of here, and less than PostgreSQL's largest integer."""


def record(storage: Storage, facts: StudyFacts, trials: list[TrialRecord]) -> None:
    """A study of one cohort, finished."""
    storage.create_study(facts)
    known = {
        "learning_rate": FloatDistribution(1e-4, 10.0, log=True),
        "activation": CategoricalDistribution(["relu", "tanh"]),
    }
    storage.claim("wine", [t.suggestion for t in trials], [t.n_parameters for t in trials], known)
    storage.record("wine", trials, 1.0)


@pytest.mark.parametrize("false", [HUGE, 1, 7])
def test_a_trial_whose_number_alone_is_falsified_gets_it_back(
    storage: Storage, make_facts: Callable[..., StudyFacts], make_trial: Callable[..., TrialRecord], false: int
) -> None:
    facts = make_facts()
    record(storage, facts, [make_trial(n) for n in range(4)])
    before = storage.records("wine", has_curves=True)
    with writing(storage.engine) as connection:
        connection.execute(text(f"UPDATE trials SET number = {false} WHERE number = 2"))
    with writing(storage.engine) as connection:
        mending.study(connection, facts)
    assert storage.records("wine", has_curves=True) == before and storage.falsified("wine") == []


@pytest.mark.parametrize(
    ("falsified", "is_mended"),
    [
        ("replace(spec_json, '\"trials\": 4', '\"trials\": 5')", True),
        ("replace(spec_json, '}}', '')", True),
        ("replace(spec_json, '/home/low', '/home/lov')", False),
        ("replace(spec_json, '/home/low', '/home/\\x')", False),
        ("'nothing'", False),
    ],
)
def test_facts_of_a_transfer_come_back_with_the_place_that_no_export_tells(
    storage: Storage, make_facts: Callable[..., StudyFacts], falsified: str, is_mended: bool
) -> None:
    spec = {"study": "wine", "transfer": {"from": "/home/low", "fingerprint": "a" * 64}, "budget": {"trials": 4}}
    facts = make_facts(spec=spec)
    storage.create_study(facts)
    told = {"spec_json": json.dumps({**spec, "transfer": {"from": "low", "fingerprint": "a" * 64}})}
    with writing(storage.engine) as connection:
        connection.execute(text(f"UPDATE dlcore_studies SET spec_json = {falsified}"))
    with pytest.raises(StudiesError, match="does not have its checksum"):
        storage.known("wine")
    with writing(storage.engine) as connection:
        assert mending.facts(connection, 1, told) == is_mended
    if is_mended:
        assert storage.known("wine") == facts
