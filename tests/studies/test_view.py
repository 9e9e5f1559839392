import json
from collections.abc import Callable
from dataclasses import replace

from studies.records import Objective, StudyFacts
from studies.view import VIEW, experiment_tags, run_page, study_page


def shown(facts: StudyFacts) -> dict[str, object]:
    found: dict[str, object] = json.loads(experiment_tags(facts, "p")[f"mlflow.sharedViewState.{VIEW}"])
    return found


def test_the_trials_are_sorted_by_the_objective_and_have_its_columns(make_facts: Callable[..., StudyFacts]) -> None:
    space = {"depth": {"low": 1, "high": 2}, "width": 8}
    facts = replace(make_facts(), objectives=(Objective("rmse", "minimize"), Objective("n_parameters", "minimize")))
    found = shown(replace(facts, spec={**facts.spec, "search_space": space}))
    assert (found["orderByKey"], found["orderByAsc"]) == ("metrics.`best_val_rmse`", True)
    assert found["selectedColumns"] == [
        "metrics.`best_val_rmse`", "metrics.`n_parameters`", "metrics.`best_epoch`", "tags.`dlcore.state`",
        "tags.`dlcore.device`", "params.`depth`", "params.`width`",
    ]  # fmt: skip
    assert found["runsExpanded"] == {"p": True}
    assert shown(replace(facts, objectives=(Objective("accuracy", "maximize"),)))["orderByAsc"] is False


def test_a_view_is_never_longer_than_a_tag_may_be(make_facts: Callable[..., StudyFacts]) -> None:
    facts = make_facts()
    space = {f"hyperparameter_{n}": 1 for n in range(1000)}
    assert all(
        len(text) <= 5_000 for text in experiment_tags(replace(facts, spec={"search_space": space}), "p").values()
    )


def test_the_pages_name_the_view_and_the_run() -> None:
    assert study_page("http://a", "7").startswith(f"http://a/#/experiments/7/runs?viewStateShareKey={VIEW}&")
    assert run_page("http://a", "7", "r").startswith("http://a/#/experiments/7/runs/r?")
