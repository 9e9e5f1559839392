"""The finals of a study, held: the best trials trained again on fresh seeds as one population, the winner measured on
test, its rivals beside it.

Test is read here for the winner alone, after it was chosen by val; nothing that is read there chooses anything.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from studies import finals
from studies.cohort import Trainer
from studies.records import Final, Finalist, Objective, TrialRecord
from studies.sections import FinalSection

_SAY_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Rules:
    """How the finals of a study are held."""

    section: FinalSection
    objectives: tuple[Objective, ...]
    spent_s: float | None = None
    """Seconds that the study took, where time limits it: its finals are made shorter then; else None."""


def hold(trials: Sequence[TrialRecord], rules: Rules, trainer: Trainer, say: Callable[[str], None]) -> Final:
    """Hold the finals; the same trials under the same rules give the same, however often.

    Args:
        trials: All of the study.
        rules: Its spec's.
        trainer: Of the study.
        say: Is told what people should know meanwhile.
    """
    asked = rules.section.model_dump()
    n_seeds, objective = rules.section.seeds, rules.objectives[0]
    entered = finals.candidates(trials, rules.objectives, rules.section.candidates) if n_seeds else []
    if not entered:
        return Final(asked, (), ())
    if rules.spent_s is not None:
        n_seeds = finals.seeds_within(entered, n_seeds, rules.spent_s)
    names = ", ".join(str(t.number) for t in entered)
    few = f", not {rules.section.seeds}: time limits the study" if n_seeds < rules.section.seeds else ""
    say(f"finals: trials {names} are trained again, each on {n_seeds} fresh seeds{few}")
    watch = _Progress(trainer.epochs, say).epoch
    networks = dict(
        zip(
            [t.number for t in entered],
            trainer.train_fresh([t.suggestion for t in entered], n_seeds, watch),
            strict=True,
        )
    )
    seen_by = {t.number: trainer.splits_of(t.hyperparameters) for t in entered}
    nothing = dict.fromkeys(trainer.measured_names, math.nan)

    def measured(number: int, split: str) -> tuple[dict[str, float], ...]:
        return tuple(nothing if n is None else trainer.measure(n, seen_by[number], split) for n in networks[number])

    ordered = finals.in_order([Finalist(t.number, measured(t.number, "val")) for t in entered], objective)
    if not finals.has_winner(ordered, objective):
        say("warning: of every finalist a fresh seed diverged; the best trial wins by what was recorded of it")
        return Final(asked, (), ())
    return Final(asked, tuple(ordered), measured(ordered[0].number, "test"))


class _Progress:
    """Says now and then how far the finals are."""

    def __init__(self, epochs: int, say: Callable[[str], None]) -> None:
        self._epochs, self._say, self._said_at = epochs, say, time.monotonic()

    def epoch(self, epoch: int) -> None:
        """A network finished an epoch."""
        if time.monotonic() - self._said_at >= _SAY_EVERY_S:
            self._said_at = time.monotonic()
            self._say(f"finals: epoch {epoch} of {self._epochs} at most")
