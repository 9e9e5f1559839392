"""benchmarks.asking: parts that add up, of the asking that studies do."""

import pytest

from benchmarks.asking import OBJECTIVES, ask, asking_table, share_table, size, spec_for, stored
from benchmarks.phases import NAMES, Course
from studies import sampler
from studies.cohort_tpe import CohortTPESampler
from studies.records import COMPLETE, PRUNED


def test_the_parts_of_an_asking_are_its_whole_and_nothing_stays_wrapped() -> None:
    before = sampler.history, sampler.ask_cohort, CohortTPESampler._fit
    parts = ask(spec_for(40), stored(40), 16)

    assert (sampler.history, sampler.ask_cohort, CohortTPESampler._fit) == before
    assert min(parts.history, parts.fitting, parts.drawing, parts.rest) > 0
    assert parts.total == pytest.approx(parts.history + parts.fitting + parts.drawing + parts.rest)


def test_stored_trials_look_as_halving_leaves_them() -> None:
    records = stored(50)

    assert [r.number for r in records] == list(range(50))
    assert [r.state for r in records].count(COMPLETE) == 5
    assert {r.state for r in records} == {COMPLETE, PRUNED}
    assert len(sampler.ask_cohort(spec_for(50), OBJECTIVES, records, 50, 16, size)) == 16


def test_tables_have_a_row_for_each_count_and_each_phase() -> None:
    assert len(asking_table([20, 30], 1, 1).splitlines()) == 2 + 2
    course = Course(dict.fromkeys(NAMES, 1.0), 1.0, 6.0, 7.0, 10)

    assert share_table([course]).splitlines()[2:] == [f"| {name} | 1.00 | 14.3% |" for name in NAMES]
