import dataclasses
from collections.abc import Callable

from studies.records import EpochRecord, TrialRecord
from studies.timeline import busy, clock, phases

Make = Callable[..., TrialRecord]


def cohort(make_trial: Make, number: int, at: float, epochs: int, cohort: int) -> TrialRecord:
    """A trial of which each epoch takes a second."""
    curve = tuple(EpochRecord(e, 1.0, 1.0, 0.5, 0.1, at + e) for e in range(1, epochs + 1))
    trial = make_trial(number, cohort=cohort, curve=curve)
    return dataclasses.replace(trial, started_at=at, finished_at=at + epochs)


def test_pauses_are_taken_out_of_the_clock_and_short_gaps_are_not(make_trial: Make) -> None:
    trials = [cohort(make_trial, 0, 100, 4, 0), cohort(make_trial, 1, 106, 4, 1), cohort(make_trial, 2, 5000, 4, 2)]
    assert busy(trials) == [(100, 104), (106, 110), (5000, 5004)]
    time = clock(trials, {0: 99.0})
    assert time is not None
    assert [time.at(moment) for moment in (99, 104, 110, 3000, 5000, 5004)] == [0, 5, 11, 11, 11, 15]


def test_cohorts_side_by_side_are_busy_once(make_trial: Make) -> None:
    assert busy([cohort(make_trial, 0, 100, 6, 0), cohort(make_trial, 1, 103, 6, 1)]) == [(100, 109)]


def test_phases_add_up_to_the_time_of_the_search(make_trial: Make) -> None:
    trials = [
        cohort(make_trial, 0, 100, 2, 0),
        cohort(make_trial, 1, 100, 10, 0),
        cohort(make_trial, 2, 113, 4, 1),
    ]
    found = phases(trials, {0: 99.0, 1: 112.0}, (2, 6), {"finals": 2.5})
    assert found == {"asking, recording": 4, "epochs 1 to 2": 4, "epochs 3 to 6": 6, "epochs 7 to 10": 4, "finals": 2.5}


def test_nothing_finished_has_no_clock() -> None:
    assert clock([], {0: 1.0}) is None and phases([], {}, (5,), {}) == {}
