"""`recipe = "overfit-first"`: prove that the network can learn; then regularise; then tune.

1. Before anything is searched, the network in the middle of the search space must learn a few rows by heart, and on all
   of train something that holds on val. Where it does not, the fault is named and the study does not begin.
2. The first cohorts search the cures for overfitting alone, with that network, and its learning rate: each cure has one
   of its own, and the middle one may be one that does not learn.
3. All others search the rest, with the cures of the best trial of the second stage.

Which stage a trial belongs to follows from its number and the study's size of a cohort, which both are stored.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from dlcore.learnable import EPOCHS, Attempt, Held, Sampled
from studies.errors import StudyFailed
from studies.hyperparameters import CURES, OVERFIT_FIRST, Range, Setting, choices
from studies.ranking import best_trial
from studies.records import Objective, TrialRecord, Value
from studies.space import middle, shrink
from studies.spec import StudySpec

COHORTS = 2
"""Of the second stage."""
_OF_SECOND = (*CURES, "learning_rate")
"""What the second stage searches; the third searches all but the cures."""


class Prover(Protocol):
    """Who can train the network; a `studies.cohort.Trainer`."""

    def count_parameters(self, hyperparameters: Mapping[str, Value]) -> int:
        """Weights and biases."""

    def check_sample(self, hyperparameters: Mapping[str, Value]) -> Sampled:
        """See `dlcore.learnable`."""

    def check_val(self, hyperparameters: Mapping[str, Value]) -> Held:
        """See `dlcore.learnable`."""


def staged(
    spec: StudySpec, objectives: Sequence[Objective], earlier: Sequence[TrialRecord], first_number: int, size: int
) -> tuple[StudySpec, list[TrialRecord]]:
    """What a cohort searches, and which of the earlier trials say something of that.

    Args:
        spec: The study's.
        objectives: Its objectives.
        earlier: All trials before the cohort.
        first_number: Of the cohort.
        size: Trials of a whole cohort.
    """
    if spec.recipe != OVERFIT_FIRST:
        return spec, list(earlier)
    boundary = COHORTS * size
    of_cures = [t for t in earlier if t.number < boundary]
    is_second = first_number < boundary
    if is_second:
        held, own = {n: v for n, v in middle(spec).items() if n not in _OF_SECOND}, of_cures
    else:
        best = best_trial(of_cures, objectives)
        chosen = middle(spec) if best is None else dict(best.hyperparameters)
        held, own = {n: v for n, v in chosen.items() if n in CURES}, [t for t in earlier if t.number >= boundary]
    is_free = {name: name in _OF_SECOND if is_second else name not in CURES for name in spec.searched}
    space: dict[str, Setting] = {}
    for name, setting in spec.search_space.items():
        if is_free.get(name, False) or name not in spec.searched:
            space[name] = setting
        elif name in held:
            space[name] = held[name]
    return spec.model_copy(update={"search_space": space}), own


def prove(spec: StudySpec, prover: Prover, size: int, say: Callable[[str], None]) -> None:
    """The first stage, and a word on the others; does nothing in a study without the recipe.

    Args:
        spec: The study's.
        prover: Its trainer.
        size: Trials of a cohort.
        say: Is told what is seen.

    Raises:
        StudyFailed: The network cannot learn; the message names the fault.
    """
    if spec.recipe != OVERFIT_FIRST:
        return
    own = shrink(middle(spec), spec, prover.count_parameters)
    sampled = prover.check_sample(own)
    if (fault := fault_of_sample(sampled, spec, own)) is not None:
        raise StudyFailed(_stopped(spec, fault))
    learnt = sampled.first if sampled.first.epochs is not None else sampled.other
    assert learnt is not None
    say(f"recipe  1 overfit: {_seen_of_sample(sampled, learnt)}")
    held = prover.check_val(own | {"learning_rate": learnt.learning_rate})
    if (fault := fault_of_val(held)) is not None:
        raise StudyFailed(_stopped(spec, fault))
    say(f"        what it learns of train holds on val: loss {held.val_loss:.3g}, guessing has {held.guessing:.3g}")
    second = [name for name in spec.searched if name in _OF_SECOND]
    rest = [name for name in spec.searched if name not in CURES]
    say(f"        2 regularise: trials 0 to {COHORTS * size - 1} search {', '.join(second)} for that network")
    say(f"        3 tune: from trial {COHORTS * size} on {', '.join(rest)}, with the best cures found")


def _seen_of_sample(found: Sampled, learnt: Attempt) -> str:
    if found.is_known:
        return (
            f"skipped, for the targets of {found.n_rows} rows of train are all but one value: nothing to learn by heart"
        )
    at = "" if learnt is found.first else f" at a learning rate of {learnt.learning_rate:.2g}"
    return f"{found.n_rows} rows learnt by heart in {learnt.epochs} epochs{at}: the network can learn"


def fault_of_sample(found: Sampled, spec: StudySpec, own: Mapping[str, Value]) -> str | None:
    """The fault for which a network cannot learn a sample by heart; None where it can."""
    first = found.first
    if first.epochs is not None:
        return None
    end = "it diverges" if first.is_diverged else f"its loss on {found.n_rows} rows stays at {first.loss:.3g}"
    seen = f"{end} after {EPOCHS:,} steps, where guessing has {found.guessing:.3g}" if not first.is_diverged else end
    if found.dead is not None:
        layer, n_dead, n_units = found.dead
        return (
            f"dead ReLUs: {n_dead} of {n_units} units of hidden layer {layer} answer 0 to all of {found.n_rows} rows "
            f"before training (initialization {own.get('initialization')}), so that no gradient passes and {seen}; "
            "take another initialization, or leaky_relu"
        )
    if found.other is not None:
        rate, other = first.learning_rate, found.other.learning_rate
        if _is_in(spec.searched.get("learning_rate"), other):
            return None
        way = "small" if other > rate else "large"
        return (
            f"the learning rate is too {way}: at {rate:.2g} {seen}; at {other:.2g} the same network learns them by "
            f"heart in {found.other.epochs} steps; search around that (`studies lr-range` draws it)"
        )
    if found.is_too_small:
        return (
            f"the network is too small: {seen} at every learning rate, and one of 256 and 256 units learns them by "
            "heart; raise width or depth"
        )
    return (
        f"no network learns {found.n_rows} rows by heart: {seen}, at every learning rate and in a wide network too; "
        "look for equal rows with different targets, and for columns that say nothing"
    )


def fault_of_val(found: Held) -> str | None:
    """The fault for which nothing that a network learns holds on val; None where it does."""
    if not found.is_chance:
        return None
    if not math.isfinite(found.val_loss):
        return "the network learns a few rows, and diverges on all of train; lower its learning rate"
    return (
        "the labels look shuffled: the network learns train, and on val its loss is "
        f"{found.val_loss:.3g} where guessing has {found.guessing:.3g}, a lead of {found.lead:.2g} "
        f"+- {2 * found.error:.2g} over {found.n_rows} rows; look whether rows and targets belong together, and "
        "whether the columns can say anything of the target"
    )


def _is_in(setting: Setting | None, rate: float) -> bool:
    """Whether a rate is one that will be searched."""
    if isinstance(setting, Range):
        return setting.low <= rate <= setting.high
    return setting is not None and rate in (choices(setting) or ())


def _stopped(spec: StudySpec, fault: str) -> str:
    return f'study "{spec.study}" did not begin, for its recipe is overfit-first and {fault}'
