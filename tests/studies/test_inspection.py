"""studies.inspection: what is falsified may be any number, and nobody counts up to it. The faults: test_doctor."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from studies import inspection
from studies.database import reading, writing
from studies.inspection import Cohort, Trial
from studies.records import StudyFacts, TrialRecord
from studies.storage import Storage
from tests.studies.test_mending import HUGE, record


@pytest.mark.parametrize(
    ("numbers", "cohorts", "missing"),
    [
        ((0, 1, 2, 3, HUGE, 5), [Cohort(0, 0, 6)], [4]),
        ((0, 1, 2, 3, 8, 5), [Cohort(0, 0, 6)], [4, 6, 7]),
        ((0, 1, 2, 5), [Cohort(0, 0, 3)], [3, 4]),
        ((0, 1, 2), [Cohort(0, 0, 6)], [3, 4, 5]),
        ((0, 2), [Cohort(0, 0, HUGE)], [1]),
        ((), [], []),
    ],
)
def test_numbers_that_no_trial_has(
    numbers: tuple[int, ...], cohorts: list[Cohort], missing: list[int], make_facts: Callable[..., StudyFacts]
) -> None:
    facts = make_facts(spec={"study": "wine", "budget": {"trials": 6}})
    found = [Trial(i, number, "COMPLETE", 0, "x") for i, number in enumerate(numbers)]
    assert inspection.holes(found, cohorts, facts) == missing


def test_epochs_that_a_curve_lacks_are_counted_and_not_listed(
    storage: Storage, make_facts: Callable[..., StudyFacts], make_trial: Callable[..., TrialRecord]
) -> None:
    record(storage, make_facts(), [make_trial(n) for n in range(4)])
    with writing(storage.engine) as connection:
        connection.execute(text("DELETE FROM dlcore_curves WHERE trial_id = 1 AND epoch = 2"))
        connection.execute(text(f"UPDATE dlcore_curves SET epoch = {HUGE} WHERE trial_id = 2 AND epoch = 3"))
        connection.execute(text("UPDATE dlcore_curves SET epoch = -1 WHERE trial_id = 3 AND epoch = 1"))
    with reading(storage.engine) as connection:
        found = inspection.gaps(connection, inspection.trials_of(connection, 1))
    assert found == {
        1: "epoch 2 is not there",
        2: f"epoch 3 is not there, nor are {HUGE - 4} more",
        3: "epoch 1 is not there",
    }
