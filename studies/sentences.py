"""What each picture shows in this study, in a sentence or two: pure functions from the picture's numbers."""

import math
from functools import singledispatch

import numpy as np

from studies.figures import number
from studies.pictures import (
    Calibration,
    Confusion,
    Curves,
    Dot,
    Importances,
    Phases,
    Progress,
    Rates,
    Residuals,
    Sizes,
    Trade,
)
from studies.records import FAIL, PRUNED, Objective

_NEAR_BEST = 0.01
"""Of the range of values: a smaller network that is no further from the best is named."""


@singledispatch
def sentence(picture: object) -> str:
    """What a picture shows."""
    raise TypeError(f"there is no sentence for {type(picture).__name__}")


def alternative(picture: object) -> str:
    """The text that stands for a picture where it cannot be seen."""
    return f"{_KINDS[type(picture)]}. {sentence(picture)}"


_KINDS: dict[type, str] = {
    Progress: "Dots for the value of each trial and a stepped line for the best so far",
    Curves: "Lines of loss on val over epochs, one for each trial",
    Importances: "Horizontal bars, one for each hyperparameter",
    Rates: "Dots for trials, learning rate across and momentum upwards, coloured by value",
    Sizes: "Dots for trials, parameter count across and value upwards, with a line through the Pareto front",
    Trade: "Dots for trials, one objective across and the other upwards, with a line through the Pareto front",
    Phases: "Horizontal bars, one for each phase",
    Confusion: "A table of true classes downwards by answered classes across",
    Calibration: "Dots of the share of right answers over confidence, beside the diagonal",
    Residuals: "Dots of prediction minus truth over the prediction, around a line at zero",
}


@sentence.register
def _(p: Progress) -> str:
    unit = "trials" if p.axis == "trials" else "seconds"
    if not p.best:
        return f"None of {len(p.pruned)} trials was trained to its end; each dot is a value where a trial was cut."
    place, value = p.best[-1]
    at = f"trial {place - 1:.0f} of {p.end:,.0f}" if unit == "trials" else f"{place:,.1f} of {p.end:,.1f} seconds"
    text = f"The best {p.objective.metric} is {number(value)}, reached at {at}"
    if len(p.complete) + len(p.pruned) == 1:
        return f"{text}."
    if len(p.best) == 1:
        is_beaten = any(p.objective.is_better(cut, value) for _, cut in p.pruned)
        return f"{text}; no other trial {'that trained to its end ' if is_beaten else ''}was better."
    if unit == "seconds":
        first, most = p.best[0][1], 0.9 * abs(value - p.best[0][1])
        soon = next(place for place, known in p.best if abs(known - first) >= most)
        return f"{text}; nine tenths of the gain over the first trial were there after {soon:,.1f}."
    if 1 - place / p.end > 0.5:
        end = ": the search has converged" if p.is_telling else ""
        return f"{text}; the last {1 - place / p.end:.0%} of the trials brought nothing{end}."
    late = _late_gain(p)
    end = ": more may bring more" if late > 0.05 else ": little is left to be found"
    return f"{text}; the last fifth of the trials brought {late:.0%} of the gain{end if p.is_telling else ''}."


def _late_gain(p: Progress) -> float:
    """The share of the whole gain that the last fifth of the axis brought."""
    first, best = p.best[0][1], p.best[-1][1]
    before = [value for at, value in p.best if at <= 0.8 * p.end]
    return abs(best - (before[-1] if before else first)) / abs(best - first)


@sentence.register
def _(p: Curves) -> str:
    n_pruned = sum(c.is_pruned for c in (*p.others, *p.top))
    cut = f" Of {len(p.others) + len(p.top)} trials {n_pruned} were pruned; a cross marks where." if n_pruned else ""
    if not p.top:
        return f"No trial has a value; {len(p.others)} curves are shown." + cut
    best = p.top[0]
    low = int(np.nanargmin(best.val_loss))
    at = f"{number(best.val_loss[low])} in epoch {low + 1} of {p.epochs}"
    return f"Trial {best.number} {p.fit}. Its lowest loss on val is {at}.{cut}"


@sentence.register
def _(p: Importances) -> str:
    (first, share), *rest = p.shares.items()
    text = f"{first} mattered most ({share:.0%})"
    if rest:
        text += f", then {rest[0][0]} ({rest[0][1]:.0%})"
    if len(rest) > 1:
        name, least = rest[-1]
        text += f"; {name} mattered least ({least:.0%})"
    rough = "; fewer than 50 trials make this rough" if p.n_trials < 50 else ""
    pruned = f", {p.n_pruned} of them with their value where they were pruned" if p.n_pruned else ""
    return f"{text}. It is what the best tenth of {p.n_trials:,} trials has otherwise than all of them{pruned}{rough}."


@sentence.register
def _(p: Rates) -> str:
    text = f"The best trial, {p.best.number}, has learning rate {p.best.x:.3g} and momentum {p.best.y:.2f}"
    top = _best_tenth(p.dots, p.objective)
    if len(top) >= 3:
        rates, momenta = [d.x for d in top], [d.y for d in top]
        text += (
            f"; the best {len(top)} lie between {min(rates):.3g} and {max(rates):.3g}, "
            f"with momentum from {min(momenta):.2f} to {max(momenta):.2f}"
        )
    failed = [d for d in p.dots if d.state == FAIL]
    if failed:
        text += f". {len(failed)} failed, with learning rates from {min(d.x for d in failed):.3g} on"
    return text + "."


def _best_tenth(dots: tuple[Dot, ...], objective: Objective) -> list[Dot]:
    known = [d for d in dots if math.isfinite(d.value) and d.state != FAIL]
    known.sort(key=lambda d: (d.state == PRUNED, -d.value if objective.direction == "maximize" else d.value))
    return known[: max(1, len(known) // 10)]


@sentence.register
def _(p: Sizes) -> str:
    best, metric = p.front[-1], p.objective.metric
    text = f"The best {metric}, {number(best.y)}, takes {best.x:,.0f} parameters (trial {best.number})"
    values = [d.y for d in p.dots if d.state != PRUNED]
    near = _NEAR_BEST * (max(values) - min(values))
    small = next(d for d in p.front if abs(d.y - best.y) <= near or d is best)
    if len(p.front) == 1:
        return f"{text}; no smaller network was trained to its end."
    if small is best:
        second = p.front[-2]
        after = f"trial {second.number}, comes to {number(second.y)} with {second.x:,.0f}"
        return f"{text}; the next smaller one on the front, {after}."
    return (
        f"{text}; trial {small.number} comes to {number(small.y)} with {small.x:,.0f}, {small.x / best.x:.0%} of them."
    )


@sentence.register
def _(p: Trade) -> str:
    first, second = p.objectives
    low, high = p.front[0], p.front[-1]
    if low is high:
        both = f"{first.metric} {number(low.y)}, {second.metric} {number(low.x)}"
        return f"One trial, {low.number}, is best in both: {both}."
    return (
        f"{len(p.front)} of {len(p.dots)} trials are on the front: from {first.metric} {number(low.y)} with "
        f"{second.metric} {number(low.x)} (trial {low.number}) to {number(high.y)} with {number(high.x)} "
        f"(trial {high.number})."
    )


@sentence.register
def _(p: Phases) -> str:
    total = sum(p.seconds.values())
    name, most = max(p.seconds.items(), key=lambda item: item[1])
    text = f"Of {total:,.1f} seconds most went into {name} ({most / total:.0%})"
    trained = sum(seconds for phase, seconds in p.seconds.items() if phase.startswith("epochs"))
    return f"{text}; the search trained for {trained:,.1f} seconds ({trained / total:.0%})."


@sentence.register
def _(p: Confusion) -> str:
    a = p.answers
    table = np.array(a.confusion)
    right = int(table.trace())
    text = f"Of {a.n_rows:,} {a.split} rows the exported network answers {right:,} rightly"
    wrong = table - np.diag(table.diagonal())
    if not wrong.any():
        return f"{text}: all of them."
    true, said = np.unravel_index(int(wrong.argmax()), wrong.shape)
    n = int(wrong[true, said])
    return f"{text}; most often {a.classes[true]} is taken for {a.classes[said]} ({n:,} {'row' if n == 1 else 'rows'})."


@sentence.register
def _(p: Calibration) -> str:
    a = p.answers
    sure = sum(n * confidence for n, confidence, _ in a.calibration) / a.n_rows
    right = sum(n * share for n, _, share in a.calibration) / a.n_rows
    text = f"On {a.n_rows:,} {a.split} rows it is {sure:.1%} sure on average, and right in {right:.1%}"
    if p.error < 0.02:
        verdict = "its probabilities can be taken at their word"
    elif abs(sure - right) < 0.01:
        verdict = "it is right as often as it says on average, but not at each level of confidence"
    elif sure > right:
        verdict = "it is too sure of itself"
    else:
        verdict = "it is surer than it says" if right - sure < 0.05 else "it says far too little of how sure it may be"
    return f"{text}: {verdict} (mean gap {p.error:.1%})."


@sentence.register
def _(p: Residuals) -> str:
    a = p.answers
    misses = np.array([residual for _, residual in p.dots])
    half, most = np.quantile(np.abs(misses), [0.5, 0.9])
    bias = float(misses.mean())
    lean = "neither too high nor too low on the whole"
    if abs(bias) > 2 * misses.std() / math.sqrt(len(misses)):
        lean = f"too {'high' if bias > 0 else 'low'} by {number(abs(bias))} on the whole"
    sampled = f" ({len(misses):,} of them are drawn)" if len(misses) < a.n_rows else ""
    return (
        f"Half of the {a.n_rows:,} {a.split} rows{sampled} are missed by less than {number(half)} of "
        f"{a.targets[p.target]}, nine in ten by less than {number(most)}; the answers are {lean}."
    )
