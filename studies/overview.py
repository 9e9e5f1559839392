"""What `studies list` and `studies show` print: how studies stand, from the study database alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table

from studies import finals, server
from studies.diagnosis import advise, gap_lines
from studies.display import winner_lines
from studies.figures import number
from studies.home import Home, is_driven, open_home
from studies.importance import importances
from studies.ranking import best_trial, pareto_front, ranking
from studies.records import FINISHED_STATES, StudyFacts, StudySummary, TrialRecord
from studies.space import most_trials
from studies.spec import spec_from_dict
from studies.starts import starts, starts_line
from studies.storage import Storage
from studies.tally import hyperparameters_line, told_apart_by
from studies.view import study_page

_ROWS = 10
_CLOSE = 5
"""The best trials whose curves are looked at."""
_MOST_ADVICE = 3
_WIDEST = 10_000
"""Columns of what is no terminal."""
_LEAST_SHARE = 0.005
"""Importances that round to nothing are not told."""


def print_list() -> None:
    """One line per study, the newest first."""
    home = open_home()
    storage = Storage(home.database_url)
    names = storage.names()
    if not names:
        print("there are no studies yet; `studies run digits` makes one")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("study", "state", "data", "trials", "objective", "best", "last activity"):
        table.add_column(column, justify="right" if column in ("best",) else "left", overflow="fold")
    for name in names:
        summary = summarize(storage, name)
        done = sum(n for state, n in summary.states.items() if state in FINISHED_STATES)
        total = _most_trials(summary.facts)
        best = "-" if summary.best is None or summary.best.value is None else number(summary.best.value)
        table.add_row(
            name,
            state_of(home, storage, summary),
            summary.facts.data_name,
            f"{done}/{total}" if total is not None else str(done),
            summary.facts.objectives[0].metric,
            best,
            f"{datetime.fromtimestamp(summary.last_activity):%Y-%m-%d %H:%M}",
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDEST)  # in a pipe a study is one line, for `grep` and the like
    with console.capture() as shown:  # rich would end the command by itself where its reader is gone
        console.print(table)
    print(shown.get(), end="")


def print_study(study: str, *, as_json: bool) -> None:
    """How one study stands.

    Raises:
        UserError: There is no such study.
    """
    home = open_home()
    storage = Storage(home.database_url)
    storage.known(study)
    if as_json:
        print(json.dumps(study_as_json(home, storage, study), indent=2, ensure_ascii=False, allow_nan=False))
        return
    summary = summarize(storage, study)
    tracking_uri, experiment_id = storage.mirror(study)
    _print_text(summary, _trials_to_judge(storage, summary), state_of(home, storage, summary))
    if tracking_uri is not None and experiment_id is not None:
        address = address_now(home, tracking_uri)
        page = f"`studies ui {study}` starts its server" if address is None else study_page(address, experiment_id)
        print(f"MLflow  {page}")


def study_as_json(home: Home, storage: Storage, study: str) -> dict[str, object]:
    """How a study stands, for machines."""
    tracking_uri, experiment_id = storage.mirror(study)
    summary = summarize(storage, study)
    trials, source = _trials_to_judge(storage, summary), summary.facts.spec.get("transfer")
    return _as_json(summary) | {
        "state": state_of(home, storage, summary),
        "importances": _importances(summary.facts, trials),
        "gaps": _gaps(summary, trials),
        **({} if source is None else {"source": source, "starts": starts(trials, summary.facts.objectives)}),
        "next": [asdict(a) for a in advise(summary.facts, trials, summary.winner)],
        "tracking_uri": None if tracking_uri is None else address_now(home, tracking_uri) or tracking_uri,
        "experiment_id": experiment_id,
    }


def address_now(home: Home, noted: str) -> str | None:
    """Where the server that mirrors a study listens now: the home's own may have moved to another port.

    Args:
        home: Of the study.
        noted: The server's address when the study was mirrored last.

    Returns:
        An address; None where it is the home's own server and does not run.
    """
    is_own = home.tracking_uri is None and noted.startswith(server.LOOPBACK) and (home.root / "mlflow.db").exists()
    if not is_own:
        return noted
    running = server.find(home.root)
    return None if running is None else running.address


def state_of(home: Home, storage: Storage, summary: StudySummary) -> str:
    """One word: "running", "finished", "stopped" (the same command goes on), or "new", of which no trial is known."""
    name, states = summary.facts.name, summary.states
    if is_driven(home, name) or storage.is_driven(name) or storage.others(name)[0]:
        return "running"
    if not states:
        return "new"
    budget, most = summary.facts.spec["budget"], _most_trials(summary.facts)
    assert isinstance(budget, Mapping)
    n_finished = sum(n for state, n in states.items() if state in FINISHED_STATES)
    is_whole = n_finished == sum(states.values()) and most is not None and n_finished >= most
    is_spent = budget.get("seconds") is not None and storage.spent_s(name) >= float(budget["seconds"])
    return "finished" if (is_whole or is_spent) and summary.winner is not None else "stopped"


def _most_trials(facts: StudyFacts) -> int | None:
    """How many trials a study may come to; None where time alone limits it."""
    budget, search = facts.spec["budget"], facts.spec.get("search")
    assert isinstance(budget, Mapping)
    if isinstance(search, Mapping) and search.get("sampler") == "grid":
        return most_trials(spec_from_dict(facts.spec, facts.name))
    trials: int | None = budget.get("trials")
    return trials


def _trials_to_judge(storage: Storage, summary: StudySummary) -> list[TrialRecord]:
    """All trials; those that are looked at closely with their curves."""
    name = summary.facts.name
    trials = storage.records(name)
    close = {t.number for t in ranking(trials, summary.facts.objectives)[:_CLOSE]}
    close |= set() if summary.winner is None else {summary.winner.number}
    curves = {t.number: t for t in storage.records(name, sorted(close), has_curves=True)}
    return [curves.get(t.number, t) for t in trials]


def _importances(facts: StudyFacts, trials: Sequence[TrialRecord]) -> dict[str, float]:
    return importances(spec_from_dict(facts.spec, facts.name), facts.objectives, trials)


def what_mattered(shares: Mapping[str, float]) -> str:
    """Importances in one line, the largest first: `what mattered: learning_rate 0.61, width 0.2`; "" without any."""
    said = [f"{name} {round(share, 2):g}" for name, share in shares.items() if share >= _LEAST_SHARE]
    return f"what mattered: {', '.join(said)}" if said else ""


def _gaps(summary: StudySummary, trials: Sequence[TrialRecord]) -> list[str]:
    """From train to val and from val to test, in words, of the winner or the best trial."""
    number = summary.best.number if summary.winner is None and summary.best is not None else None
    number = summary.winner.number if summary.winner is not None else number
    found = [t for t in trials if t.number == number]
    return gap_lines(summary.facts, found[0], summary.winner) if found else []


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


def _print_text(summary: StudySummary, trials: list[TrialRecord], state: str) -> None:
    facts = summary.facts
    _print_head(summary, state)
    several = len(facts.objectives) > 1
    rows = list(summary.front) if several else ranking(trials, facts.objectives)
    if rows:
        print("\nthe Pareto front:" if several else "\nthe best trials:")
    for trial in rows[:_ROWS]:
        values = "  ".join(
            f"{o.metric} {number(v)}" for o, v in zip(facts.objectives, trial.values or (), strict=False)
        )
        print(
            f"  trial {trial.number:>4}  {trial.state:<8}  {values}  {trial.n_parameters:>9,} parameters  "
            f"{hyperparameters_line(trial.hyperparameters, told_apart_by(trial, facts.spec))}"
        )
    said = (starts_line(trials, facts.objectives), what_mattered(_importances(facts, trials)))
    for line in filter(None, said):
        print(f"\n{line}")
    if failed := [t for t in trials if t.state == "FAIL"]:
        print(f"\n{len(failed)} failed, the last one (trial {failed[-1].number}): {failed[-1].reason}")
    if summary.winner is not None:
        winner = summary.winner
        print(f"\nwinner  trial {winner.number}, {winner.n_parameters:,} parameters")
        for line in winner_lines(winner, facts.objectives[0]):
            print(line)
    if gaps := _gaps(summary, trials):
        print("\nthe gaps:")
        for line in gaps:
            print(f"  {line}")
    if found := advise(facts, trials, summary.winner):
        print("\nworth trying next:")
        for advice in found[:_MOST_ADVICE]:
            print(f"  {advice.text}")
    if summary.winner is not None:
        print(f"\nexport  {summary.winner.export_dir}")


def _print_head(summary: StudySummary, state: str) -> None:
    """What the study looks for, where it starts, and how it stands."""
    facts = summary.facts
    objectives = ", ".join(f"{o.direction} {o.metric}" for o in facts.objectives)
    print(f"study   {facts.name}: {objectives} on {facts.data_name} ({facts.task})")
    if isinstance(source := facts.spec.get("transfer"), Mapping):
        print(f"source  {source['from']}")
    print(f"state   {state}{', the same command goes on' if state == 'stopped' else ''}")
    print("trials  " + (", ".join(f"{n} {state}" for state, n in summary.states.items()) or "none yet"))
