import math
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from studies.records import COMPLETE, FAIL, PRUNED, StudyFacts, Suggestion, TrialRecord, Value
from studies.search import Search
from studies.spec import StudySpec, cohort_size, resolved_objectives, spec_from_dict
from studies.storage import Storage

GRID = {"width": [4, 8, 16], "activation": ["relu", "leaky_relu", "tanh"], "slope": [0.1, 0.2]}
Facts = Callable[..., StudyFacts]


def make_spec(sampler: str, trials: int | None = 14, **changes: object) -> StudySpec:
    budget: dict[str, object] = {"trials": trials} if trials is not None else {"seconds": 1e9}
    data: dict[str, object] = {
        "study": "wine",
        "seed": 5,
        "budget": budget,
        "data": {"source": "sklearn:wine"},
        "search": {"sampler": sampler, "cohort": 4},
    }
    return spec_from_dict(data | ({"search_space": GRID} if sampler == "grid" else {}) | changes)


def count(hyperparameters: Mapping[str, Value]) -> int:
    return 100 * int(hyperparameters["depth"]) + int(hyperparameters["width"])


def result(suggestion: Suggestion, cohort: int) -> TrialRecord:
    """What a trial came to: a function of its hyperparameters, in all three states."""
    h = suggestion.hyperparameters
    value = 1 / (1 + abs(math.log(float(h.get("learning_rate", 0.05)))) + int(h["width"]) / 100)
    state = (COMPLETE, PRUNED, COMPLETE, FAIL)[suggestion.number % 4]
    return TrialRecord(
        number=suggestion.number,
        state=state,
        hyperparameters=h,
        searched=suggestion.searched,
        cohort=cohort,
        n_parameters=count(h),
        values=None if state == FAIL else (value,),
        rungs={5: value},
        system_attrs=suggestion.system_attrs,
    )


def open_search(folder: Path, spec: StudySpec, make_facts: Facts, *, is_driver: bool = False) -> Search:
    storage = Storage(f"sqlite:///{folder / 'studies.db'}")
    facts = storage.facts("wine")
    if facts is None:
        facts = make_facts(
            objectives=resolved_objectives(spec, "multiclass"), cohort_size=cohort_size(spec), created_at=0.0
        )
        storage.create_study(facts)
    return Search(storage, spec, facts, count, is_driver=is_driver)


def finish(search: Search, n_cohorts: int | None = None) -> list[TrialRecord]:
    """Go on until nothing is left, or a kill between the claims and the results of a later cohort."""
    while (cohort := search.next_cohort()) is not None and n_cohorts != 0:
        search.tell([result(s, cohort.id) for s in cohort.suggestions], 1.0)
        n_cohorts = None if n_cohorts is None else n_cohorts - 1
    return search.trials


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "qmc", "gp", "nsga2"])
def test_a_study_killed_at_any_cohort_asks_what_it_would_have_asked(
    sampler: str, tmp_path: Path, make_facts: Facts
) -> None:
    spec = make_spec(sampler)
    (tmp_path / "whole").mkdir()
    whole = finish(open_search(tmp_path / "whole", spec, make_facts))
    assert [t.number for t in whole] == list(range(12 if sampler == "grid" else 14))
    for killed_after in range(4):
        folder = tmp_path / str(killed_after)
        folder.mkdir()
        finish(open_search(folder, spec, make_facts), n_cohorts=killed_after)
        again = open_search(folder, spec, make_facts)
        assert again.released == list(range(4 * killed_after, min(4 * killed_after + 4, len(whole))))
        assert finish(again) == whole


def test_a_driver_whose_machine_was_started_again_within_a_lease_asks_what_it_would_have_asked(
    tmp_path: Path, make_facts: Facts
) -> None:
    spec = make_spec("tpe")
    (tmp_path / "whole").mkdir()
    whole = finish(open_search(tmp_path / "whole", spec, make_facts))
    cut = open_search(tmp_path, spec, make_facts)
    finish(cut, n_cohorts=1)
    with sqlite3.connect(tmp_path / "studies.db") as connection:
        connection.execute("UPDATE dlcore_leases SET machine = 'the boot before'")
    again = open_search(tmp_path, spec, make_facts, is_driver=True)
    assert again.released == [4, 5, 6, 7]
    assert finish(again) == whole


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2"])
def test_a_raised_budget_asks_what_a_larger_one_would_have_asked(
    sampler: str, tmp_path: Path, make_facts: Facts
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "raised").mkdir()
    whole = finish(open_search(tmp_path / "whole", make_spec(sampler, 14), make_facts))
    # Cut inside a cohort, then inside the same one again, then at its end.
    for trials in (5, 6, 8, 14):
        raised = finish(open_search(tmp_path / "raised", make_spec(sampler, trials), make_facts))
        assert len(raised) == trials
    assert [t.hyperparameters for t in raised] == [t.hyperparameters for t in whole]


def test_a_grid_visits_each_point_once_and_then_ends(tmp_path: Path, make_facts: Facts) -> None:
    trials = finish(open_search(tmp_path, make_spec("grid", 1000), make_facts))
    points = [
        (t.hyperparameters["width"], t.hyperparameters["activation"], t.hyperparameters.get("slope")) for t in trials
    ]
    assert len(points) == len(set(points)) == 3 * (1 + 2 + 1)


def test_a_grid_that_is_done_is_complete_whatever_the_budget(tmp_path: Path, make_facts: Facts) -> None:
    """Who only leads workers never asks: a worker that died must not end a study whose grid the others finished."""
    trained = open_search(tmp_path, make_spec("grid", 1000), make_facts)
    leading = open_search(tmp_path, make_spec("grid", 1000), make_facts)
    assert not leading.is_complete
    finish(trained, n_cohorts=1)
    leading.refresh()
    assert not leading.is_complete
    trained.give_up()
    finish(trained)
    leading.refresh()
    assert leading.is_complete and leading.ended == "all 12 points of the grid are done"


def test_trials_without_a_result_wait_and_come_before_anything_new(tmp_path: Path, make_facts: Facts) -> None:
    search = open_search(tmp_path, make_spec("tpe"), make_facts)
    first = search.next_cohort()
    assert first is not None
    search.tell([result(s, first.id) for s in first.suggestions[:1]], 1.0)
    rest = search.next_cohort()
    assert rest is not None and rest.id == first.id + 1  # what is left over trains as a cohort of its own
    assert rest.suggestions == first.suggestions[1:]
    search.tell([result(s, rest.id) for s in rest.suggestions], 1.0)
    assert [t.cohort for t in search.trials] == [0, 1, 1, 1]
    after = search.next_cohort()
    assert after is not None and after.suggestions[0].number == 4


def test_no_trial_has_more_parameters_than_the_spec_allows(tmp_path: Path, make_facts: Facts) -> None:
    spec = make_spec("tpe", 24, search={"sampler": "tpe", "cohort": 4, "max_parameters": 260})
    trials = finish(open_search(tmp_path, spec, make_facts))
    assert len(trials) == 24
    assert max(t.n_parameters for t in trials) <= 260
    assert {t.hyperparameters["depth"] for t in trials} == {1, 2}


def test_without_a_number_of_trials_cohorts_come_whole_for_ever(tmp_path: Path, make_facts: Facts) -> None:
    search = open_search(tmp_path, make_spec("random", None), make_facts)
    for i in range(3):
        cohort = search.next_cohort()
        assert cohort is not None and (cohort.id, len(cohort.suggestions)) == (i, 4)
        search.tell([result(s, cohort.id) for s in cohort.suggestions], 1.0)
