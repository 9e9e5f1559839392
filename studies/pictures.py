"""The numbers of the report's pictures: pure functions from records, each with the reason where there is no picture.

`drawing` draws them, `sentences` says what they show; a test holds them against the database.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from studies import halving
from studies.diagnosis import fit_of
from studies.hyperparameters import OVERFIT_FIRST
from studies.importance import LEAST, importances, valued
from studies.ranking import best_trial, ranking
from studies.records import (
    COMPLETE,
    FAIL,
    FINISHED_STATES,
    PRUNED,
    Answers,
    Objective,
    StudyFacts,
    TrialRecord,
    Winner,
)
from studies.sections import LEARN
from studies.spec import StudySpec
from studies.timeline import clock, phases

N_TOP = 5
"""Trials whose curves stand in front."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a report is made from: all that the study database holds of one study."""

    facts: StudyFacts
    spec: StudySpec
    trials: tuple[TrialRecord, ...]
    """All of them, with curves."""
    claims: Mapping[int, float]
    """When each cohort was claimed, by its id; seconds since 1970."""
    winner: Winner | None
    n_at_winner: int = 0
    """How many trials were finished when it won."""

    @property
    def objective(self) -> Objective:
        """The first one."""
        return self.facts.objectives[0]

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which trials are compared."""
        ladder = self.spec.ladder
        if ladder is None:
            return ()
        return halving.rungs(ladder.first_rung, ladder.reduction_factor, self.spec.training.epochs)


@dataclass(frozen=True, slots=True)
class Progress:
    """Values of trials, and the best one so far; over trials or over seconds."""

    objective: Objective
    axis: str
    """"trials" or "seconds"."""
    complete: tuple[tuple[float, float], ...]
    """Place and value of each trial that was trained to its end."""
    pruned: tuple[tuple[float, float], ...]
    """Likewise of those that were cut, at their last rung."""
    best: tuple[tuple[float, float], ...]
    """Where the best so far of the first kind changed, and to what."""
    end: float
    """Where the axis ends."""
    is_telling: bool = True
    """Whether the course says what more trials would bring: of a sampler that learns, by trials that are not few."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Loss on val of one trial, by epoch from 1 on; NaN where it was not finite."""

    number: int
    val_loss: tuple[float, ...]
    train_loss: tuple[float, ...]
    best_epoch: int
    is_pruned: bool
    is_failed: bool = False


@dataclass(frozen=True, slots=True)
class Curves:
    """The curves of a study."""

    top: tuple[Curve, ...]
    """The best trials, the best one first."""
    others: tuple[Curve, ...]
    epochs: int
    """The most that a trial may have."""
    fit: str = ""
    """How the first of the top took to its rows, in words; see `fit`."""


@dataclass(frozen=True, slots=True)
class Importances:
    """The shares of the hyperparameters, the largest first, and of how many trials."""

    shares: Mapping[str, float]
    n_trials: int
    n_pruned: int
    """Of them, those that count with their value where they were cut."""


@dataclass(frozen=True, slots=True)
class Dot:
    """One trial in a plane."""

    number: int
    x: float
    y: float
    value: float
    """Of the first objective; NaN for one that failed."""
    state: str


@dataclass(frozen=True, slots=True)
class Rates:
    """Learning rate (x) against momentum (y)."""

    objective: Objective
    dots: tuple[Dot, ...]
    best: Dot
    is_log: bool
    """Whether the learning rate was drawn on a logarithmic scale."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Parameter count (x) against value (y)."""

    objective: Objective
    dots: tuple[Dot, ...]
    front: tuple[Dot, ...]
    """Complete trials that none beats with as few parameters, from the smallest to the largest."""


@dataclass(frozen=True, slots=True)
class Trade:
    """Two objectives against each other: the first (y) and the second (x)."""

    objectives: tuple[Objective, Objective]
    dots: tuple[Dot, ...]
    front: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds of each phase, in order."""

    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Rows of each true class by the class that was answered."""

    answers: Answers


@dataclass(frozen=True, slots=True)
class Calibration:
    """How sure the network is, and how often it is right."""

    answers: Answers

    @property
    def error(self) -> float:
        """Mean distance of confidence and share of right answers, by rows (expected calibration error)."""
        return sum(n * abs(sure - right) for n, sure, right in self.answers.calibration) / self.answers.n_rows


@dataclass(frozen=True, slots=True)
class Residuals:
    """Prediction minus truth of one target."""

    answers: Answers
    target: int = 0
    """Its index."""

    @property
    def dots(self) -> tuple[tuple[float, float], ...]:
        """Prediction and residual of each row."""
        return tuple((p, p - t) for t, p in self.answers.points[self.target])


def progress(material: Material, axis: str) -> Progress | str:
    """Values in the order of numbers, or of the seconds at which trials ended."""
    objective = material.objective
    time = clock(material.trials, material.claims)
    if time is None:
        return "No trial was finished yet."
    if axis == "trials":
        places = {t.number: float(t.number + 1) for t in material.trials if t.state in FINISHED_STATES}
    else:
        places = {t.number: time.at(t.finished_at) for t in material.trials if t.finished_at is not None}
    known = [t for t in material.trials if _is_valued(t) and t.number in places]
    if not known:
        return "No trial has a value yet: " + _reason(material)
    known.sort(key=lambda t: (places[t.number], t.number))
    best: list[tuple[float, float]] = []
    for t in known:
        if t.state == COMPLETE and (not best or objective.is_better(_value(t), best[-1][1])):
            best.append((places[t.number], _value(t)))
    of = {
        state: tuple((places[t.number], _value(t)) for t in known if t.state == state) for state in (COMPLETE, PRUNED)
    }
    is_guided = material.spec.search.sampler in LEARN and material.spec.recipe != OVERFIT_FIRST
    is_telling = is_guided and len(places) >= LEAST
    return Progress(objective, axis, of[COMPLETE], of[PRUNED], tuple(best), max(places.values()), is_telling)


def curves(material: Material) -> Curves | str:
    """The curves of all trials that finished an epoch."""
    drawn = [t for t in material.trials if any(math.isfinite(e.val_loss) for e in t.curve)]
    if not drawn:
        return "No trial finished an epoch with a finite loss: " + _reason(material)
    ranked = [t.number for t in ranking(material.trials, material.facts.objectives)]
    if material.winner is not None:
        ranked = [material.winner.number, *(n for n in ranked if n != material.winner.number)]
    found = {t.number: _curve(t) for t in drawn}
    top = [n for n in ranked if n in found][:N_TOP]
    others = tuple(curve for n, curve in found.items() if n not in top)
    said = next((fit_of(material.facts, t).text for t in drawn if top and t.number == top[0]), "")
    return Curves(tuple(found[n] for n in top), others, material.spec.training.epochs, said)


def which_mattered(material: Material) -> Importances | str:
    """The importances of the searched hyperparameters."""
    counted = valued(material.trials, material.facts.objectives)
    if len(counted) < LEAST:
        return f"It takes {LEAST} trials with a value to tell which hyperparameters mattered; there are {len(counted)}."
    shares = importances(material.spec, material.facts.objectives, material.trials)
    if not shares:
        return "All trials have the same value, or nothing was searched: no hyperparameter mattered."
    return Importances(shares, len(counted), sum(t.state == PRUNED for t in counted))


def rates(material: Material) -> Rates | str:
    """Learning rate and momentum of all trials that have both."""
    fixed = [name for name in ("learning_rate", "momentum") if name not in material.spec.searched]
    if fixed:
        return f"{' and '.join(fixed)} {'were' if len(fixed) > 1 else 'was'} not searched."
    both = [t for t in material.trials if {"learning_rate", "momentum"} <= t.hyperparameters.keys()]
    dots = tuple(
        _dot(t, float(t.hyperparameters["learning_rate"]), float(t.hyperparameters["momentum"]))
        for t in both
        if t.state in (COMPLETE, PRUNED, FAIL)
    )
    best = best_trial([t for t in both if _is_valued(t)], material.facts.objectives)
    if best is None:
        return "No trial with a learning rate and a momentum has a value: " + _reason(material)
    setting = material.spec.searched["learning_rate"]
    return Rates(
        material.objective, dots, next(d for d in dots if d.number == best.number), getattr(setting, "log", False)
    )


def sizes(material: Material) -> Sizes | str:
    """Parameter count and value of all trials that have one."""
    objective = material.objective
    if objective.metric == "n_parameters":
        return "The parameter count is the objective itself: the best value over trials shows it."
    dots = tuple(_dot(t, t.n_parameters, _value(t)) for t in material.trials if _is_valued(t))
    front: list[Dot] = []
    sign = -1.0 if objective.direction == "maximize" else 1.0
    for dot in sorted((d for d in dots if d.state == COMPLETE), key=lambda d: (d.x, sign * d.y, d.number)):
        if not front or objective.is_better(dot.y, front[-1].y):
            front.append(dot)
    if not front:
        return "No trial was trained to its end: " + _reason(material)
    return Sizes(objective, dots, tuple(front))


def trade(material: Material) -> Trade | str:
    """The first two of several objectives."""
    first, second, *_ = *material.facts.objectives, None, None
    if first is None or second is None:
        return "The study has one objective."
    complete = [t for t in material.trials if t.state == COMPLETE and len(t.values or ()) > 1]
    dots = tuple(_dot(t, (t.values or ())[1], _value(t)) for t in complete if all(map(math.isfinite, t.values or ())))
    if not dots:
        return "No trial was trained to its end: " + _reason(material)
    sign = -1.0 if second.direction == "maximize" else 1.0
    first_sign = -1.0 if first.direction == "maximize" else 1.0
    front: list[Dot] = []
    for dot in sorted(dots, key=lambda d: (sign * d.x, first_sign * d.y, d.number)):
        if not front or first.is_better(dot.y, front[-1].y):
            front.append(dot)
    return Trade((first, second), dots, tuple(front))


def time_spent(material: Material) -> Phases | str:
    """Where the time went."""
    final = None if material.winner is None else material.winner.final
    after = {} if final is None else dict(final.seconds)
    if final is not None and not final.finalists:
        after.pop("finals", None)
    seconds = phases(material.trials, material.claims, material.rungs, after)
    return Phases(seconds) if seconds else "No trial was finished yet."


def confusion(material: Material) -> Confusion | str:
    """The winner's answers by class."""
    answers = _answers(material)
    if isinstance(answers, str):
        return answers
    if not answers.confusion:
        return f"{len(answers.classes)} classes are too many for a picture." if answers.classes else "A regression."
    return Confusion(answers)


def calibration(material: Material) -> Calibration | str:
    """The winner's confidence."""
    answers = _answers(material)
    return answers if isinstance(answers, str) else Calibration(answers)


def residuals(material: Material) -> Residuals | str:
    """The winner's misses, of the first target."""
    answers = _answers(material)
    return answers if isinstance(answers, str) else Residuals(answers)


def _answers(material: Material) -> Answers | str:
    if material.winner is None:
        return "There is no winner yet: it is chosen, and measured on test, when the search ends."
    final = material.winner.final
    if final is None or final.answers is None:
        name = material.facts.name
        return f"The winner was exported before its answers were kept: `studies export {name}` measures it again."
    return final.answers


def _curve(trial: TrialRecord) -> Curve:
    return Curve(
        trial.number,
        tuple(e.val_loss for e in trial.curve),
        tuple(e.train_loss for e in trial.curve),
        trial.best_epoch or len(trial.curve),
        trial.state == PRUNED,
        trial.state == FAIL,
    )


def _dot(trial: TrialRecord, x: float, y: float) -> Dot:
    value = trial.value
    return Dot(trial.number, float(x), float(y), math.nan if value is None else value, trial.state)


def _is_valued(trial: TrialRecord) -> bool:
    return trial.state in (COMPLETE, PRUNED) and trial.value is not None and math.isfinite(trial.value)


def _value(trial: TrialRecord) -> float:
    return math.nan if trial.value is None else trial.value


def _reason(material: Material) -> str:
    failed = [t for t in material.trials if t.state == FAIL]
    if not failed:
        return "none is finished."
    return f"{len(failed)} failed, the last one because it {failed[-1].reason or 'failed'}."
