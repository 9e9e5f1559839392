"""What `studies list` and `studies show` print: how studies stand, from the study database alone."""

import json
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table

from studies import finals
from studies.display import study_page, winner_lines
from studies.home import open_home
from studies.ranking import best_trial, pareto_front, ranking
from studies.records import FINISHED_STATES, StudySummary, TrialRecord
from studies.storage import Storage
from studies.tally import hyperparameters_line

_ROWS = 10


def print_list() -> None:
    """One line per study, the newest first."""
    storage = Storage(open_home().database_url)
    names = storage.names()
    if not names:
        print("there are no studies yet; `studies run digits` makes one")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("study", "data", "trials", "objective", "best", "last activity"):
        table.add_column(column, justify="right" if column in ("best",) else "left", overflow="fold")
    for name in names:
        summary = summarize(storage, name)
        done = sum(n for state, n in summary.states.items() if state in FINISHED_STATES)
        budget = summary.facts.spec["budget"]
        total = budget.get("trials") if isinstance(budget, dict) else None
        best = "-" if summary.best is None or summary.best.value is None else f"{summary.best.value:.4f}"
        table.add_row(
            name,
            summary.facts.data_name,
            f"{done}/{total}" if total is not None else str(done),
            summary.facts.objectives[0].metric,
            best,
            f"{datetime.fromtimestamp(summary.last_activity):%Y-%m-%d %H:%M}",
        )
    Console().print(table)


def print_study(study: str, *, as_json: bool) -> None:
    """How one study stands.

    Raises:
        UserError: There is no such study.
    """
    storage = Storage(open_home().database_url)
    storage.known(study)
    if as_json:
        print(json.dumps(study_as_json(storage, study), indent=2, ensure_ascii=False, allow_nan=False))
        return
    summary = summarize(storage, study)
    tracking_uri, experiment_id = storage.mirror(study)
    _print_text(summary, storage.records(study))
    if tracking_uri is not None and experiment_id is not None:
        print(f"MLflow  {study_page(tracking_uri, experiment_id)}")


def study_as_json(storage: Storage, study: str) -> dict[str, object]:
    """How a study stands, for machines."""
    tracking_uri, experiment_id = storage.mirror(study)
    return _as_json(summarize(storage, study)) | {"tracking_uri": tracking_uri, "experiment_id": experiment_id}


def summarize(storage: Storage, study: str) -> StudySummary:
    """A study in numbers."""
    facts = storage.facts(study)
    assert facts is not None
    trials = storage.records(study)
    won = storage.winner(study)
    n_finished = sum(n for state, n in storage.states(study).items() if state in FINISHED_STATES)
    best = best_trial(trials, facts.objectives)
    if won is not None and won[0].final is not None and won[1] == n_finished:
        best = next(t for t in trials if t.number == won[0].number)
    ends = [t.finished_at for t in trials if t.finished_at is not None]
    return StudySummary(
        facts=facts,
        states=storage.states(study),
        best=best,
        front=tuple(pareto_front(trials, facts.objectives)) if len(facts.objectives) > 1 else (),
        winner=None if won is None else won[0],
        last_activity=max(ends, default=facts.created_at),
    )


def _as_json(summary: StudySummary) -> dict[str, object]:
    objective, best = summary.facts.objectives[0], summary.best
    found: dict[str, object] = {
        "study": summary.facts.name,
        "direction": objective.direction,
        "metric": objective.metric,
        "states": dict(summary.states),
        "best": None if best is None else _trial_as_json(best, summary),
    }
    if summary.winner is not None and summary.winner.final is not None:
        found["final"] = finals.as_json(summary.winner, objective)
    if summary.front:
        found["front"] = [_trial_as_json(t, summary) for t in summary.front]
    return found


def _trial_as_json(trial: TrialRecord, summary: StudySummary) -> dict[str, object]:
    winner = summary.winner
    found: dict[str, object] = {
        "number": trial.number,
        "value": trial.value,
        "hyperparameters": dict(trial.hyperparameters),
        "n_parameters": trial.n_parameters,
        "test": finals.json_of_test(winner) if winner is not None and winner.number == trial.number else {},
    }
    if len(summary.facts.objectives) > 1:
        found["values"] = list(trial.values or ())
    return found


def _print_text(summary: StudySummary, trials: list[TrialRecord]) -> None:
    facts = summary.facts
    objectives = ", ".join(f"{o.direction} {o.metric}" for o in facts.objectives)
    print(f"study   {facts.name}: {objectives} on {facts.data_name} ({facts.task})")
    print("trials  " + (", ".join(f"{n} {state}" for state, n in summary.states.items()) or "none yet"))
    several = len(facts.objectives) > 1
    rows = list(summary.front) if several else ranking(trials, facts.objectives)
    if rows:
        print("\nthe Pareto front:" if several else "\nthe best trials:")
    for trial in rows[:_ROWS]:
        values = "  ".join(f"{o.metric} {v:.6g}" for o, v in zip(facts.objectives, trial.values or (), strict=False))
        print(
            f"  trial {trial.number:>4}  {trial.state:<8}  {values}  {trial.n_parameters:>9,} parameters  "
            f"{hyperparameters_line(trial.hyperparameters, trial.searched)}"
        )
    if failed := [t for t in trials if t.state == "FAIL"]:
        print(f"\n{len(failed)} failed, the last one (trial {failed[-1].number}): {failed[-1].reason}")
    if summary.winner is not None:
        winner = summary.winner
        print(f"\nwinner  trial {winner.number}, {winner.n_parameters:,} parameters")
        for line in winner_lines(winner, facts.objectives[0]):
            print(line)
        print(f"export  {winner.export_dir}")
