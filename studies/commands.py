"""What the commands that train or mirror do: find the spec, drive the run, print what came out."""

from dataclasses import dataclass
from pathlib import Path

from studies.asked import find_asked
from studies.display import Display, open_display, winner_lines
from studies.errors import StudyBusy, UserError
from studies.figures import number
from studies.home import drive, open_home
from studies.json_lines import JsonDisplay
from studies.mirroring import bring_in_line
from studies.overview import study_as_json
from studies.provenance import changed
from studies.ranking import pareto_front, ranking
from studies.records import COMPLETE, FINISHED_STATES
from studies.replay import replay_cohort, replay_trial
from studies.runner import Outcome, Run
from studies.spec import StudySpec, spec_from_dict
from studies.starts import starts_line
from studies.storage import Storage
from studies.tally import hyperparameters_line, told_apart_by

_TABLE_ROWS = 5


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `studies run`."""

    spec: str | None
    trials: int | None
    timeout_s: float | None
    data: str | None
    target: str | None
    workers: int = 1
    form: str = "auto"
    """How it is shown: a name in `studies.display.FORMS`."""


def run(request: Request) -> None:
    """Run a study, or go on with it, and print its summary."""
    display = open_display(request.form)
    home = open_home()
    storage = Storage(home.database_url)
    spec = _granted(find_asked(request.spec, storage, request.data, request.target), request.trials, storage)
    for warning in spec.warnings():
        display.note(f"warning: {warning}")
    study = Run(spec, home, storage, display, n_workers=request.workers)
    display.note(study.plan())
    outcome = study.execute(study.deadline(request.timeout_s))
    if isinstance(display, JsonDisplay):
        display.say("result", **study_as_json(home, storage, spec.study))
    else:
        _print_summary(outcome, display)


def export(study: str, number: int | None, folder: Path | None) -> None:
    """Export a trial of a stored study."""
    display, home = open_display(), open_home()
    storage = Storage(home.database_url)
    run = Run(spec_from_dict(storage.known(study).spec, study), home, storage, display)
    with drive(home, study), storage.leading(study):  # another command must neither delete nor clear what is written
        made = run.export(number, folder.absolute() if folder else None)
    display.note(f"trial {made.winner.number}: {hyperparameters_line(made.winner.hyperparameters)}")
    display.note(_scores("val ", made.winner.val_metrics))
    if made.winner.test_metrics:
        display.note(_scores("test", made.winner.test_metrics))
    else:
        display.note("test: none was kept back" if made.is_winner else "test: not measured, only for the winner")
    display.note(f"export: {made.winner.export_dir}")


def replay(study: str, number: int, *, has_cohort: bool) -> bool:
    """Train a recorded trial again, alone or with its cohort; returns whether it came out as recorded."""
    display, home = open_display(), open_home()
    storage = Storage(home.database_url)
    run = Run(spec_from_dict(storage.known(study).spec, study), home, storage, display)
    trials = storage.records(study, has_curves=True)
    found = [t for t in trials if t.number == number and t.state in FINISHED_STATES]
    if not found:
        raise UserError(f'study "{study}" has no finished trial {number}; it has {len(trials)} trials')
    if has_cohort:
        verdict = replay_cohort(found[0], trials, run.facts, run.trainer)
    else:
        verdict = replay_trial(found[0], run.trainer)
    moved = changed(run.facts.environment, run.trainer.environment)
    is_told = verdict.is_equal or has_cohort or not moved
    display.note(verdict.text + ("" if is_told else f"; since they were recorded: {', '.join(moved)}"))
    return verdict.is_equal


def track(study: str) -> None:
    """Mirror whatever MLflow lacks of a study."""
    display, home = open_display(), open_home()
    storage = Storage(home.database_url)
    facts = storage.known(study)
    with drive(home, study), storage.leading(study) as is_leading:
        if not is_leading():
            raise StudyBusy(f'study "{study}" is being run, and its driver mirrors it; wait for its end, and try again')
        page = bring_in_line(home, storage, facts, display)
    display.note(f"MLflow is in line with the study database: {page}")


def _granted(spec: StudySpec, trials: int | None, storage: Storage) -> StudySpec:
    """The spec with the budget that holds: what `--trials` says, else the larger of the stored and the given one."""
    facts = storage.facts(spec.study)
    if trials is None and facts is not None and spec.budget.trials is not None:
        stored = spec_from_dict(facts.spec).budget.trials
        trials = spec.budget.trials if stored is None else max(spec.budget.trials, stored)
    if trials is None or trials == spec.budget.trials:
        return spec
    return spec_from_dict(spec.to_dict() | {"budget": spec.budget.model_dump() | {"trials": trials}}, spec.study)


def _print_summary(outcome: Outcome, display: Display) -> None:
    facts = outcome.facts
    finished = f'study "{facts.name}" is finished: ' if outcome.n_new == 0 else ""
    display.note(finished + outcome.ended)
    objective = facts.objectives[0]
    several = len(facts.objectives) > 1
    display.note("")
    display.note("the Pareto front:" if several else "the best trials:")
    rows = pareto_front(outcome.trials, facts.objectives) if several else ranking(outcome.trials, facts.objectives)
    for trial in rows[:_TABLE_ROWS]:
        values = "  ".join(f"{o.metric} {number(v)}" for o, v in zip(facts.objectives, trial.values or (), strict=True))
        state = "" if trial.state == COMPLETE else f"{trial.state}  "
        chosen = hyperparameters_line(trial.hyperparameters, told_apart_by(trial, facts.spec))
        display.note(f"  trial {trial.number:>4}  {state}{values}  {chosen}")
    if said := starts_line(outcome.trials, facts.objectives):
        display.note(said)
    winner = outcome.export.winner
    display.note("")
    display.note(
        f"the winner is trial {winner.number} of {len(outcome.trials)}: {objective.metric} "
        f"{number(winner.values[0])}, {winner.n_parameters:,} parameters"
    )
    for line in winner_lines(winner, objective):
        display.note(line)
    display.note(f"export  {_short(Path(winner.export_dir))}")
    if outcome.page:
        display.note(f"MLflow  {outcome.page}")


def _scores(name: str, metrics: object) -> str:
    assert isinstance(metrics, dict)
    return f"  {name}  " + ", ".join(f"{key} {number(value)}" for key, value in metrics.items())


def _short(path: Path) -> str:
    """A path as a person would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
