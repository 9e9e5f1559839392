"""The finals of a study, held: the best trials trained again on fresh seeds as one population, the winner measured on
test, its rivals beside it.

Test is read here for the winner alone, after it was chosen by val; nothing that is read there chooses anything.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from studies import finals
from studies.closing import seeds_within
from studies.cohort import Trainer
from studies.networks import Candidate
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
    section = rules.section
    entered = finals.candidates(trials, rules.objectives, section.candidates) if section.seeds else []
    began = time.monotonic()
    fought = _fought(entered, rules, trainer, say) if entered else _Fought()
    seconds = {"finals": time.monotonic() - began}
    if not len(trainer.splits.test.x):  # the spec keeps none back
        return Final(section.model_dump(), fought.ordered, (), seconds=seconds)
    if section.baselines:
        say("rivals: scikit-learn's models are trained on the same rows")
    began = time.monotonic()
    read = trainer.read_test(fought.won, fought.together, has_rivals=section.baselines)
    final = Final(section.model_dump(), fought.ordered, read.winner, read.rivals, read.ensemble, read.over_rows)
    return replace(
        final,
        n_groups=read.n_groups,
        is_ensemble=finals.ensemble_wins(final, rules.objectives[0]),
        seconds={**seconds, "rivals": time.monotonic() - began},
    )


def members(
    trials: Sequence[TrialRecord], final: Final, objectives: Sequence[Objective], trainer: Trainer
) -> tuple[Candidate, ...]:
    """The networks of the ensemble that finals measured, trained again where this process has not just done so.

    Args:
        trials: All finished ones of the study, as when the finals were held.
        final: Their outcome.
        objectives: Of the study.
        trainer: Of the study.
    """
    entered = finals.candidates(trials, objectives, int(final.asked["candidates"]))
    fresh = trainer.train_fresh([t.suggestion for t in entered], len(final.finalists[0].val), lambda epoch: None)
    every = tuple(
        (f.network(), t.hyperparameters) for t, own in zip(entered, fresh, strict=True) for f in own if f.network
    )
    return trainer.choose(every) if final.asked["ensemble"] == "greedy" else every


@dataclass(frozen=True, slots=True)
class _Fought:
    """Those that were trained again; all is empty where nobody won."""

    ordered: tuple[Finalist, ...] = ()
    """The winner first."""
    won: tuple[Candidate, ...] = ()
    """The winner's networks."""
    together: tuple[Candidate, ...] = ()
    """Finalists' networks that answer together, where that is asked for; one may be there several times."""


def _fought(entered: Sequence[TrialRecord], rules: Rules, trainer: Trainer, say: Callable[[str], None]) -> _Fought:
    """Train those that entered on fresh seeds, and put them in order by val."""
    n_seeds = rules.section.seeds
    if rules.spent_s is not None:
        n_seeds = seeds_within(entered, n_seeds, rules.spent_s)
    few = f", not {rules.section.seeds}: time limits the study" if n_seeds < rules.section.seeds else ""
    numbers = [t.number for t in entered]
    names = ", ".join(map(str, numbers))
    again = f"trial {names} is trained again" if len(numbers) == 1 else f"trials {names} are trained again, each"
    say(f"finals: {again} on {n_seeds} fresh seeds{few}")
    watch = _Progress(len(entered) * n_seeds, trainer.epochs, say).epoch
    trained = trainer.train_fresh([t.suggestion for t in entered], n_seeds, watch)
    fresh = dict(zip(numbers, trained, strict=True))
    hyperparameters = {t.number: t.hyperparameters for t in entered}
    nothing = dict.fromkeys(trainer.measured_names, math.nan)
    found = [Finalist(number, tuple(f.val or nothing for f in fresh[number])) for number in numbers]
    ordered = finals.in_order(found, rules.objectives[0])
    if not finals.has_winner(ordered, rules.objectives[0]):
        say("warning: of every finalist a fresh seed diverged; the best trial wins by what was recorded of it")
        return _Fought()
    has_ensemble = rules.section.ensemble and not trainer.has_folds
    if rules.section.ensemble and trainer.has_folds:
        say("warning: with folds no ensemble is measured: its networks have seen all of val")

    def networks(number: int) -> tuple[Candidate, ...]:
        return tuple((f.network(), hyperparameters[number]) for f in fresh[number] if f.network is not None)

    won = networks(ordered[0].number)
    every = tuple(c for n in numbers for c in networks(n)) if has_ensemble else ()
    chosen = trainer.choose(every) if rules.section.ensemble == "greedy" and every else every
    return _Fought(tuple(ordered), won, chosen)


class _Progress:
    """Says now and then how far the finals are: the epochs of all networks, which parts of them train side by side."""

    def __init__(self, n_networks: int, epochs: int, say: Callable[[str], None]) -> None:
        self._n_networks, self._epochs, self._say = n_networks, epochs, say
        self._n_done, self._said_at = 0, time.monotonic()

    def epoch(self, _: int) -> None:
        """A network finished an epoch."""
        self._n_done += 1
        if time.monotonic() - self._said_at >= _SAY_EVERY_S:
            self._said_at = time.monotonic()
            most = self._n_networks * self._epochs
            self._say(f"finals: {self._n_done:,} of at most {most:,} epochs of {self._n_networks} networks")
