"""The winner of a study: trained again, compared with its record, measured once on test, written to disk."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlcore.export import FILES, export_model
from dlcore.files import SUMS_FILE
from studies.cohort import Network, Trainer
from studies.errors import StudyFailed, UserError
from studies.provenance import changed
from studies.ranking import best_trial
from studies.records import EpochRecord, StudyFacts, TrialRecord, Winner
from studies.replay import replay_trial
from studies.storage import Storage


@dataclass(frozen=True, slots=True)
class Export:
    """A trial's network on disk, and what a person should know beside it."""

    winner: Winner
    is_best: bool
    """Whether it is the study's best trial; only that one is measured on test."""
    warning: str | None


@dataclass(frozen=True, slots=True)
class Target:
    """What an export is to be."""

    folder: Path
    """An earlier export there is replaced."""
    is_best: bool


def choose(storage: Storage, facts: StudyFacts, number: int | None) -> tuple[TrialRecord, bool]:
    """The study's best trial, or the one asked for, with its curve; and whether it is the best.

    Raises:
        StudyFailed: No trial has a value.
        UserError: The trial asked for is not there, or has no network to export.
    """
    trials = storage.records(facts.name)
    best = best_trial(trials, facts.objectives)
    if number is None and best is None:
        raise StudyFailed(f'study "{facts.name}" has no trial with a value among its {len(trials)}; {_why(trials)}')
    if number is None:
        assert best is not None
        number = best.number
    if number not in {t.number for t in trials}:
        raise UserError(f'study "{facts.name}" has trials 0 to {len(trials) - 1}; there is no trial {number}')
    trial = storage.records(facts.name, [number], has_curves=True)[0]
    if trial.best_epoch is None:
        found = trial.reason or "it has not been trained"
        raise UserError(f"trial {number} is {trial.state} and has no network to export: {found}")
    return trial, best is not None and best.number == number


def export(
    trial: TrialRecord, trials: Sequence[TrialRecord], facts: StudyFacts, trainer: Trainer, target: Target
) -> Export:
    """Train a trial again with its own seed, as it was trained, and write its network.

    Args:
        trial: With its curve.
        trials: All finished trials of its study.
        facts: Of its study.
        trainer: Of its study.
        target: Where to, and whether the trial is the best.

    Raises:
        StudyFailed: On the machine and versions of the record, the curve did not come out again.
        dlcore.errors.ExportError: The file does not answer as the network does.
        UserError: The folder holds something else.
    """
    _check_folder(target.folder)
    cohort = [t for t in trials if t.cohort == trial.cohort] if trial.engine == "population" else [trial]
    network = trainer.retrain_network(trial, cohort, [t for t in trials if t.cohort < trial.cohort])
    warning = _compare(trial, network, facts, trainer)
    val_metrics = trainer.measure(network.model, "val")
    test_metrics = trainer.measure(network.model, "test") if target.is_best else {}
    manifest = _manifest(trial, facts, val_metrics, test_metrics)
    export_model(target.folder, network.model, network.model_config, trainer.splits, manifest)
    winner = Winner(
        number=trial.number,
        values=trial.values or (),
        hyperparameters=trial.hyperparameters,
        n_parameters=trial.n_parameters,
        val_metrics=val_metrics,
        test_metrics=test_metrics,
        export_dir=str(target.folder),
        onnx_sha256=_onnx_sha256(target.folder),
    )
    return Export(winner, target.is_best, warning)


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
    if not found <= {*FILES, SUMS_FILE} and not (folder / "model.json").is_file():
        raise UserError(f"{folder} must be empty, not there, or an earlier export; it holds other files")


def _onnx_sha256(folder: Path) -> str:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    return next(line.split()[0] for line in lines if line.endswith("model.onnx"))


def _why(trials: list[TrialRecord]) -> str:
    reasons = [t.reason for t in trials if t.reason]
    return f"the last one: {reasons[-1]}" if reasons else "none was trained"
