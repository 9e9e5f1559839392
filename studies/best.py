"""The winner of a study: found in the finals, trained again with its own seed, compared with its record, measured once
on test, written to disk."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dlcore.export import Story, export_parts
from dlcore.exported import FILES
from dlcore.files import SUMS_FILE
from studies import contest, story
from studies.cohort import Network, Trainer
from studies.errors import StudyFailed, UserError
from studies.finals import plain
from studies.ledger import Ledger
from studies.networks import Candidate
from studies.provenance import changed
from studies.ranking import best_trial
from studies.records import FINISHED_STATES, EpochRecord, Final, StudyFacts, TrialRecord, Winner
from studies.replay import replay_trial
from studies.spec import spec_from_dict
from studies.transfer import facts_of


@dataclass(frozen=True, slots=True)
class Export:
    """A trial's network on disk, and what a person should know beside it."""

    winner: Winner
    is_winner: bool
    """Whether it won the study; only that one is measured on test."""
    warning: str | None


@dataclass(frozen=True, slots=True)
class Target:
    """What an export is to be."""

    folder: Path
    """An earlier export there is replaced."""
    final: Final | None
    """How it won the study; None where it did not, and then it is not measured on test."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A trial that is to be exported."""

    trial: TrialRecord
    """With its curve."""
    final: Final | None
    """How it won the study; None where it did not."""
    finished: Sequence[TrialRecord]
    """All finished trials that it was chosen among; others may finish meanwhile."""


def choose(
    storage: Ledger, facts: StudyFacts, number: int | None, hold: Callable[[Sequence[TrialRecord]], Final]
) -> Choice:
    """The study's winner, or the trial asked for.

    Args:
        storage: Holds the study.
        facts: Of the study.
        number: Of the trial; None is the winner.
        hold: Holds the finals of all trials of the study; is not called where their outcome is stored, nor for a trial
            that is asked for.

    Raises:
        StudyFailed: No trial has a value.
        UserError: The trial asked for is not there, or has no network to export.
    """
    trials = storage.records(facts.name)
    finished = [t for t in trials if t.state in FINISHED_STATES]
    won, final = standing(storage, facts, len(finished)), None
    if number is None:
        best = best_trial(trials, facts.objectives)
        if best is None:
            raise StudyFailed(f'study "{facts.name}" has no trial with a value among its {len(trials)}; {_why(trials)}')
        final = hold(trials) if won is None else won.final
        number = final.finalists[0].number if final is not None and final.finalists else best.number
    elif won is not None and number == won.number and not (won.final is not None and won.final.is_ensemble):
        final = won.final
    if number not in {t.number for t in trials}:
        known = f"trials 0 to {len(trials) - 1}" if trials else "no trials yet"
        raise UserError(f'study "{facts.name}" has {known}; there is no trial {number}')
    trial = storage.records(facts.name, [number], has_curves=True)[0]
    if trial.best_epoch is None:
        found = trial.reason or "it has not been trained"
        raise UserError(f"trial {number} is {trial.state} and has no network to export: {found}")
    return Choice(trial, final, finished)


def standing(storage: Ledger, facts: StudyFacts, n_finished: int) -> Winner | None:
    """The stored winner, if its finals still hold: they were held among as many finished trials as there are, and the
    spec asks for the same ones."""
    stored = storage.winner(facts.name, must_be_sealed=True)
    if stored is None or stored[0].final is None or stored[1] != n_finished:
        return None
    asked = spec_from_dict(storage.known(facts.name).spec, facts.name).final.model_dump()
    return stored[0] if stored[0].final.asked == asked else None


def export(
    trial: TrialRecord, trials: Sequence[TrialRecord], facts: StudyFacts, trainer: Trainer, target: Target
) -> Export:
    """Train a trial again with its own seed, as it was trained, and write its network.

    Args:
        trial: With its curve.
        trials: All finished trials of its study, as when it was chosen.
        facts: Of its study.
        trainer: Of its study.
        target: Where to, and whether the trial won.

    Raises:
        StudyFailed: On the machine and versions of the record, the curve did not come out again.
        dlcore.errors.ExportError: The file does not answer as the network does.
        UserError: The folder holds something else.
    """
    _check_folder(target.folder)
    began = time.monotonic()
    cohort = [t for t in trials if t.cohort == trial.cohort] if trial.engine == "population" else [trial]
    network = trainer.retrain_network(trial, cohort)
    warning = _compare(trial, network, facts, trainer)
    # With folds the exported network has seen all of val: what its folds said of it counts.
    model, own = network.model, trial.hyperparameters
    val_metrics = trainer.measured_on_folds(trial.best) if trainer.has_folds else trainer.measure(model, own, "val")
    test_metrics = trainer.measure(model, own, "test") if target.final is not None else {}
    parts = [trainer.part((model, own))]
    answering: Sequence[Candidate] = [(model, own)]
    if target.final is not None and target.final.is_ensemble:
        members = contest.members(trials, target.final, facts.objectives, trainer)
        parts, answering = [trainer.part(member) for member in members], members
        val_metrics, test_metrics, moved = _measured(members, target.final, trainer)
        warning = warning or moved
    manifest = _manifest(trial, facts, val_metrics, test_metrics) | {"final": plain(target.final)}
    if trainer.transfer is not None:
        source = trainer.transfer.source  # named, never placed: an export says nothing of the machine it was made on
        named = {"from": source.name, "fingerprint": source.fingerprint}
        manifest |= {"transfer": facts_of(trainer.transfer), "spec": {**facts.spec, "transfer": named}}
    final = target.final
    if final is not None:
        answers = trainer.answered(answering, "test") if test_metrics else None
        final = replace(final, answers=answers, seconds={**final.seconds, "export": time.monotonic() - began})
    winner = Winner(
        number=trial.number,
        values=trial.values or (),
        hyperparameters=trial.hyperparameters,
        n_parameters=trial.n_parameters,
        val_metrics=val_metrics,
        test_metrics=test_metrics,
        export_dir=str(target.folder),
        onnx_sha256="",
        final=final,
    )
    told = Story(manifest, f"{facts.name}, trial {trial.number}", story.sections(winner, trials, facts))
    export_parts(target.folder, parts, trainer.splits_of(own), told)
    winner = replace(winner, onnx_sha256=_onnx_sha256(target.folder))
    return Export(winner, target.final is not None, warning)


def _measured(
    members: Sequence[Candidate], final: Final, trainer: Trainer
) -> tuple[dict[str, float], dict[str, float], str | None]:
    """An ensemble on val and on test, which the finals read; read anew only if these are other networks than then."""
    assert final.ensemble is not None
    val = trainer.measure_together(members, "val")
    if repr(dict(val)) == repr(dict(final.ensemble.val)):
        return val, dict(final.ensemble.test), None
    moved = "the ensemble's networks, trained again, are not to the bit those of the finals; they are measured anew"
    return val, trainer.measure_together(members, "test"), moved


def _manifest(
    trial: TrialRecord, facts: StudyFacts, val_metrics: Mapping[str, float], test_metrics: Mapping[str, float]
) -> dict[str, object]:
    """What model.json says of the trial beside what dlcore says of the network."""
    return {
        "study": facts.name,
        "study_uuid": facts.uuid,
        "trial": trial.number,
        "hyperparameters": dict(trial.hyperparameters),
        "n_parameters": trial.n_parameters,
        "best_epoch": trial.best_epoch,
        "val_metrics": dict(val_metrics),
        "test_metrics": dict(test_metrics),
        "data_fingerprint": facts.data_fingerprint,
        "spec": facts.spec,
        "environment": dict(facts.environment),
    }


def _compare(trial: TrialRecord, network: Network, facts: StudyFacts, trainer: Trainer) -> str | None:
    """Hold a repeated curve against the recorded one; returns a warning where they may differ and do."""
    if _bits(trial.curve) == _bits(network.curve) and trial.best_epoch == network.best_epoch:
        return None
    if moved := changed(facts.environment, trainer.environment):
        return f"trial {trial.number} trained again gave another curve; since it was recorded: {', '.join(moved)}"
    # Populations are packed otherwise in a cohort that a time budget cut, or with less memory: last bits may differ.
    verdict = replay_trial(trial, trainer)
    if verdict.is_equal and trial.best_epoch == network.best_epoch:
        return f"trial {trial.number} trained again gave its recorded curve up to rounding"
    raise StudyFailed(
        f"trial {trial.number} must give its recorded curve when it is trained again, and does not; "
        "its record or this machine cannot be trusted, and nothing was exported"
    )


def _bits(curve: Sequence[EpochRecord]) -> str:
    """A curve as text in which a NaN equals a NaN, without its times; what is not finite is stored as one thing."""
    points = [(e.train_loss, e.val_loss, e.val_metric, e.learning_rate) for e in curve]
    return repr([tuple(x if math.isfinite(x) else math.nan for x in point) for point in points])


def _check_folder(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} must be a folder, or not there; it is something else")
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if others := sorted(found - {*FILES, SUMS_FILE}):
        raise UserError(
            f"{folder} must be empty, not there, or an earlier export; it holds other files: {', '.join(others[:5])}"
        )


def _onnx_sha256(folder: Path) -> str:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    return next(line.split()[0] for line in lines if line.endswith("model.onnx"))


def _why(trials: list[TrialRecord]) -> str:
    reasons = [t.reason for t in trials if t.reason]
    return f"the last one: {reasons[-1]}" if reasons else "none was trained"
