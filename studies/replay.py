"""A trial proves itself: trained again, it must give the curve that is recorded.

Alone, with the reference loop, a curve may differ in its last bits, since sums are ordered otherwise in a population.
Training amplifies last bits, at large learning rates without bound. So the loop is held against itself with initial
weights that are moved by one unit in the last place; agreement is asked for as long as that changes next to nothing.
One such move may miss what rounding can do, so that several are made before a record is called wrong.
With its whole cohort, on the machine and versions of the record, every bit must come out again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from studies.cohort import Trainer
from studies.provenance import changed
from studies.records import CUT, FINISHED_STATES, EpochRecord, StudyFacts, TrialRecord

STABLE = 1e-5
"""A curve is stable while a move of one unit in the last place changes its losses by no more (relative, float32)."""
AGREES = 1e-4
"""Largest difference of a stable curve's losses from the recorded ones (relative, float32)."""

NUDGES = 4
"""Moves after which a record that differs is called wrong; one that agrees costs a single one."""

Losses = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a replay found."""

    is_equal: bool
    text: str


def replay_trial(trial: TrialRecord, trainer: Trainer) -> Verdict:
    """Train one trial alone with the reference loop and hold its curve against the record.

    Args:
        trial: With its curve.
        trainer: Of its study.
    """
    recorded = losses(trial.curve)
    again = _trained(trial, trainer)
    if len(again) != len(recorded):
        return Verdict(False, f"trial {trial.number}: {len(recorded)} epochs are recorded, {len(again)} came out")
    n_stable, n_equal = len(again), n_agreeing(recorded, again, AGREES)
    for nudged in range(NUDGES):
        n_stable = min(n_stable, n_agreeing(again, _trained(trial, trainer, nudged), STABLE))
        if n_equal >= n_stable:
            break
    is_equal = n_equal >= n_stable
    span = f"{n_stable} of {len(recorded)} epochs" if n_stable < len(recorded) else f"all {n_stable} epochs"
    text = f"trial {trial.number}: rounding alone leaves {span} as they are; "
    if is_equal:
        return Verdict(
            True, f"{text}there the recorded losses came out again, to {_largest(recorded, again, n_stable):.1g}"
        )
    return Verdict(False, f"{text}the recorded losses differ from epoch {n_equal + 1} on")


def _trained(trial: TrialRecord, trainer: Trainer, nudged: int | None = None) -> Losses:
    return [(e.train_loss, e.val_loss) for e in trainer.retrain(trial, nudged=nudged)]


def replay_cohort(trial: TrialRecord, trials: Sequence[TrialRecord], facts: StudyFacts, trainer: Trainer) -> Verdict:
    """Train a trial's whole cohort again; on the machine and versions of the record every bit must be equal.

    Args:
        trial: Of the study.
        trials: All of the study, with their curves.
        facts: Of the study.
        trainer: Of the study.
    """
    own = [t for t in trials if t.cohort == trial.cohort and t.state in FINISHED_STATES]
    earlier = [t for t in trials if t.cohort < trial.cohort and t.state in FINISHED_STATES]
    if any(t.reason == CUT for t in own):
        return Verdict(
            True, f"cohort {trial.cohort}: a time budget cut it at a moment that no repetition can find again"
        )
    events = trainer.train([t.suggestion for t in own], trial.cohort, earlier, None, own)
    again = {e.number: e for e in events if isinstance(e, TrialRecord)}
    different = [t.number for t in own if bits(t) != bits(again[t.number])]
    if not different:
        return Verdict(True, f"cohort {trial.cohort}: all {len(own)} trials came out again, bit for bit")
    text = f"cohort {trial.cohort}: {len(different)} of {len(own)} trials differ (trial {different[0]} the first)"
    if moved := changed(facts.environment, trainer.environment):
        text += f"; since they were recorded: {', '.join(moved)}"
    return Verdict(False, text)


def bits(trial: TrialRecord) -> str:
    """All of a record that a repetition must give again; as text, in which a NaN equals a NaN."""
    curve = [replace(e, finished_at=0.0) for e in trial.curve]
    return repr((trial.state, trial.values, dict(trial.rungs), trial.best_epoch, trial.reason, curve))


def losses(curve: Sequence[EpochRecord]) -> Losses:
    """Train and val loss of each epoch."""
    return [(e.train_loss, e.val_loss) for e in curve]


def _difference(left: float, right: float) -> float:
    if not (math.isfinite(left) and math.isfinite(right)):
        return 0.0 if math.isfinite(left) == math.isfinite(right) else math.inf
    return abs(left - right) / max(1.0, abs(left))


def n_agreeing(left: Losses, right: Losses, tolerance: float) -> int:
    """How many epochs from the first on have both losses within the tolerance."""
    for epoch, pair in enumerate(zip(left, right, strict=False)):
        if any(_difference(a, b) > tolerance for a, b in zip(*pair, strict=True)):
            return epoch
    return min(len(left), len(right))


def _largest(left: Losses, right: Losses, n: int) -> float:
    pairs = [(a, b) for old, new in zip(left[:n], right[:n], strict=True) for a, b in zip(old, new, strict=True)]
    return max((_difference(a, b) for a, b in pairs), default=0.0)
