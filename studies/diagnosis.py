"""What is worth trying next, computed from a study's own trials: pure functions of records.

Each rule looks at one thing and says nothing where it sees nothing; `advise` puts what they say in order, the most
telling first. Thresholds are stated where they are used: they are habits of careful people, not theorems.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from studies import finals
from studies.figures import number
from studies.fit import OVERFITS, UNDERFITS, UNFINISHED, UNSTABLE, Fit, guessing_loss, not_compared, read_curve
from studies.hyperparameters import OVERFIT_FIRST, RULES, Range, is_searched
from studies.ranking import rank_correlation, ranking
from studies.records import COMPLETE, FAIL, FINISHED_STATES, PRUNED, Interval, StudyFacts, TrialRecord, Winner
from studies.space import grid_points
from studies.spec import StudySpec, spec_from_dict
from studies.tally import format_value

_FEW = 20
"""Finished trials below which a search has hardly begun."""
_TOP = 5
_EDGE = 0.1
"""Share of a range, by its scale, that counts as its end."""
_BENDS = ("class_weights", "label_smoothing", "mixup", "noise")
"""Hyperparameters that make the training's loss another one than val's."""
_DIVERGED = 0.15
"""Share of all trials from which on divergence is worth a word."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that the study's trials suggest."""

    kind: str
    """"few_trials", "pruned_all", "diverged", "rival", "epochs", "overfits", "underfits", "unstable", "edge", "budget",
    "settled" or "rung"."""
    seen: str
    """What is seen, with its numbers."""
    next: str
    """What to do about it, in words of the spec or the command line."""

    @property
    def text(self) -> str:
        """Both in one line."""
        return f"{self.seen}: {self.next}"


@dataclass(frozen=True, slots=True)
class Case:
    """A study as the rules look at it."""

    facts: StudyFacts
    spec: StudySpec
    finished: tuple[TrialRecord, ...]
    """In order of number; curves are needed of the best few only."""
    ranked: tuple[TrialRecord, ...]
    """From the best to the worst."""
    winner: Winner | None

    @property
    def best(self) -> TrialRecord | None:
        """The winner's trial, before the finals the best one."""
        if self.winner is not None:
            return next((t for t in self.finished if t.number == self.winner.number), None)
        return self.ranked[0] if self.ranked else None


def advise(facts: StudyFacts, trials: Sequence[TrialRecord], winner: Winner | None = None) -> tuple[Advice, ...]:
    """What to try next, the most telling first; empty where no trial is finished.

    Args:
        facts: Of the study.
        trials: All of them; the best few with their curves, if what the curves say is to be heard.
        winner: Of the latest finals.
    """
    finished = tuple(t for t in trials if t.state in FINISHED_STATES)
    if not finished:
        return ()
    spec = spec_from_dict(facts.spec, facts.name)
    case = Case(facts, spec, finished, tuple(ranking(finished, facts.objectives)), winner)
    return tuple(advice for rule in _RULES for advice in rule(case))


def fit_of(facts: StudyFacts, trial: TrialRecord) -> Fit:
    """How one trial's network took to its rows; the trial needs its curve."""
    training = facts.spec.get("training", {})
    epochs, guessing = training.get("epochs"), guessing_loss(facts.task, facts.n_outputs)  # type: ignore[attr-defined]
    # Weighted, smoothed or mixed: then train's loss is of another kind than val's.
    bent = [n for n in _BENDS if trial.hyperparameters.get(n, training.get(n)) not in (None, 0, 0.0, "none")]  # type: ignore[attr-defined]
    if bent and trial.curve:
        return not_compared(trial.curve, bent, trial.best_epoch)
    return read_curve(trial.curve, guessing, epochs=epochs, best_epoch=trial.best_epoch)


def gap_lines(facts: StudyFacts, trial: TrialRecord, winner: Winner | None) -> list[str]:
    """The gaps from train to val and from val to test, in words."""
    lines = [f"train to val: {fit_of(facts, trial).text}"] if trial.curve else []
    objective = facts.objectives[0]
    if winner is None or objective.metric not in winner.test_metrics:
        return lines
    val, test = (_measured(winner, split, objective.metric) for split in ("val", "test"))
    if not (math.isfinite(val.mean) and math.isfinite(test.mean)):
        return lines
    both = f"{objective.metric} {_said(val)} on val and {_said(test)} on test"
    if val.low == val.high and test.low == test.high and val.mean != test.mean:
        verdict = f"they differ by {number(abs(test.mean - val.mean))}"
    elif val.low <= test.high and test.low <= val.high:
        verdict = "they agree"
    else:
        # Not more: val's interval does not know of other rows, so that chance alone often parts the two.
        way = "worse" if objective.is_better(val.mean, test.mean) else "better"
        verdict = f"test is {way} by {number(abs(test.mean - val.mean))}; the study chose by val"
    return [*lines, f"val to test: {verdict}: {both}"]


def _measured(winner: Winner, split: str, metric: str) -> Interval:
    """Mean and interval over fresh seeds; without finals the exported network's number."""
    final = winner.final
    if final is not None and final.finalists:
        return (finals.intervals(final.finalists[0].val) if split == "val" else finals.on_test(final))[metric]
    value = (winner.val_metrics if split == "val" else winner.test_metrics).get(metric, math.nan)
    return Interval(value, value, value)


def _said(over_seeds: Interval) -> str:
    return number(over_seeds.mean) if over_seeds.low == over_seeds.high else finals.of(over_seeds)


def _few_trials(case: Case) -> Iterator[Advice]:
    if len(case.finished) < _FEW:
        yield Advice(
            "few_trials",
            f"only {len(case.finished)} trials are finished, too few to say what matters",
            _more(case, max(64, 2 * _FEW)),
        )


def _more(case: Case, n: int) -> str:
    """How a study comes to n trials, or to those that it was granted, if they are more."""
    name, budget, n_done = case.facts.name, case.spec.budget, len(case.finished)
    if case.spec.search.sampler == "grid" and n_done >= len(grid_points(case.spec)):
        return "every point of the grid is done, and a study with lists of more values has more"
    if budget.seconds is not None and n_done < (budget.trials or math.inf):
        return f"a budget of more than {budget.seconds:g} seconds"
    is_granted = budget.trials is not None and n_done < budget.trials >= n
    return f"`studies run {name}`" if is_granted else f"`studies run {name} --trials {n}`"


def _diverged(case: Case) -> Iterator[Advice]:
    failed = [t for t in case.finished if t.state == FAIL and "diverged" in (t.reason or "")]
    share = len(failed) / len(case.finished)
    setting = case.spec.search_space.get("learning_rate")
    if share < _DIVERGED or not isinstance(setting, Range) or not is_searched(setting):
        return
    good = [float(t.hyperparameters["learning_rate"]) for t in case.ranked[:_TOP]]
    lowest = min(float(t.hyperparameters["learning_rate"]) for t in failed)
    high = max([*good, math.sqrt(lowest * setting.high)]) if good else lowest
    if high < setting.high:
        yield Advice(
            "diverged",
            f"{len(failed)} of {len(case.finished)} trials diverged, from a learning_rate of {lowest:.2g} on",
            f"lower search_space.learning_rate.high from {setting.high:g} to {high:.2g}, or give training.clip_norm",
        )


def _pruned_all(case: Case) -> Iterator[Advice]:
    pruned = [t for t in case.finished if t.state == PRUNED and t.rungs]
    if any(t.state == COMPLETE for t in case.finished) or len(pruned) < 0.9 * len(case.finished):
        return
    rung = round(median(max(t.rungs) for t in pruned))
    yield Advice(
        "pruned_all",
        f"{len(pruned)} of {len(case.finished)} trials were pruned, most at epoch {rung}, and none trained to its end",
        "grant more time, or take another search.pruner; search.halving always lets some go on",
    )


def _edges(case: Case) -> Iterator[Advice]:
    """A range whose end the winner and most of the best share: better values may lie beyond."""
    best, top = case.best, case.ranked[:_TOP]
    if best is None or len(case.finished) < _FEW:
        return
    for name, setting in case.spec.searched.items():
        if not isinstance(setting, Range) or name not in best.hyperparameters:
            continue
        own = [_place(setting, float(t.hyperparameters[name])) for t in (best, *top) if name in t.hyperparameters]
        for end, distance in (("low", own), ("high", [1 - p for p in own])):
            if distance[0] <= _EDGE and sum(d <= 2 * _EDGE for d in distance) > len(distance) / 2:
                beyond = _beyond(name, setting, end)
                if beyond is not None:
                    whose = "the best trial's" if case.winner is None else "the winner's"
                    yield Advice(
                        "edge",
                        f"{whose} {name} {format_value(best.hyperparameters[name])} is at the {end} end of its range, "
                        "as most of the best trials are",
                        f"a study with search_space.{name}.{end} = {_written(beyond)} in place of "
                        f"{_written(getattr(setting, end))}",
                    )


def _written(value: float) -> str:
    """A number as a spec takes it: a whole one stays whole."""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _place(setting: Range, value: float) -> float:
    """Where a value lies in its range: 0 is low, 1 is high."""
    ends = [float(setting.low), float(setting.high), value]
    low, high, value = map(math.log, ends) if setting.log else ends
    return (value - low) / (high - low)


def _beyond(name: str, setting: Range, end: str) -> float | None:
    """A bolder end of a range; None where the hyperparameter can have none."""
    if name == "n_frozen":
        return None  # its ends are none at all, and all of the source's layers
    rule, low, high = RULES[name], float(setting.low), float(setting.high)
    if setting.log:
        found = low / 4 if end == "low" else high * 4
    else:
        found = low - (high - low) / 2 if end == "low" else high + (high - low) / 2
    found = max(found, rule.low) if end == "low" else min(found, rule.high)
    if rule.kind == "integer":
        found = math.floor(found) if end == "low" else math.ceil(found)
    if name == "momentum" and found >= rule.high:
        found = (1 + high) / 2  # 1 itself never stops
    is_allowed = found > 0 or not (setting.log or rule.is_low_open or name == "depth")  # depth 0 is no network
    return found if is_allowed and found != getattr(setting, end) else None


def _budget(case: Case) -> Iterator[Advice]:
    """Whether the best was found late, by a real step."""
    n = len(case.finished)
    # A study in stages searches another space in each: what came early says nothing of the last one.
    if n < _FEW or not case.ranked or case.facts.spec.get("recipe") == OVERFIT_FIRST:
        return
    objective = case.facts.objectives[0]
    sign = 1.0 if objective.direction == "maximize" else -1.0
    valued = {t.number: sign * t.value for t in case.finished if t.state == COMPLETE and t.value is not None}
    if not valued:
        return
    most = max(valued.values())
    first = min(number for number, value in valued.items() if value == most)
    early = [value for number, value in valued.items() if number < case.finished[int(0.8 * n)].number]
    gain = most - max(early) if early else math.inf
    spread = most - median(valued.values())
    if gain > 0.2 * spread > 0:
        yield Advice(
            "budget",
            f"the best {objective.metric} still moved in the last fifth of {n} trials (trial {first})",
            _more(case, 2 * n),
        )
    elif first < 0.4 * n:
        yield Advice(
            "settled",
            f"no trial since trial {first} of {n} was better",
            "more trials of this space will buy little; look at the data, or at another space",
        )


def _curves(case: Case) -> Iterator[Advice]:
    """What the best trials' curves have in common."""
    top = [(t.number, fit_of(case.facts, t)) for t in case.ranked[:_TOP] if t.curve]
    kinds = [fit.kind for _, fit in top]
    common = max(kinds, key=kinds.count, default=None)
    if common is None or 2 * kinds.count(common) <= len(kinds):
        return
    number, first = next(found for found in top if found[1].kind == common)
    alike = f"{kinds.count(common)} of the best {len(top)} trials are alike; " if len(top) > 1 else ""
    seen = f"{alike}trial {number} {first.text}"
    space, epochs = case.spec.search_space, case.spec.training.epochs
    if common == UNFINISHED:
        yield Advice("epochs", seen, f"a study with training.epochs = {2 * epochs}")
    elif common == OVERFITS:
        unused = [n for n in ("dropout", "weight_decay") if n not in case.spec.searched]
        ranges = {"dropout": "{ low = 0.0, high = 0.5 }", "weight_decay": "{ low = 1e-5, high = 0.1, log = true }"}
        more = [f"search_space.{name} = {ranges[name]}" for name in unused]
        smaller = "a smaller search.max_parameters" if case.spec.transfer is None else "a smaller source"
        yield Advice("overfits", seen, " and ".join(more) or f"more rows, or {smaller}")
    elif common == UNSTABLE:
        yield Advice("unstable", seen, "a lower search_space.learning_rate.high, or training.clip_norm = 1.0")
    elif common == UNDERFITS:
        width = space.get("width")
        larger = "a larger width" if case.spec.transfer is None else "a larger source"
        wider = f"search_space.width.high = {4 * int(width.high)}" if isinstance(width, Range) else larger
        yield Advice("underfits", seen, f"{wider}, more epochs, or columns that say more about the target")


def _rungs(case: Case) -> Iterator[Advice]:
    """Whether the first rung says anything of the end."""
    ladder = case.spec.ladder
    done = [t for t in case.finished if t.state == COMPLETE and t.rungs and t.value is not None]
    if ladder is None or case.spec.search.pruner is not None or len(done) < 8:
        return
    first = min(min(t.rungs) for t in done)
    pairs = [(t.rungs[first], t.value) for t in done if first in t.rungs and math.isfinite(t.rungs[first])]
    if len(pairs) >= 8 and (agreement := rank_correlation(pairs)) < 0.2:
        epochs = min(case.spec.training.epochs - 1, 2 * ladder.first_rung)
        if epochs > ladder.first_rung:
            yield Advice(
                "rung",
                f"of the trials that trained to their end the order at epoch {first} says little of that at the end "
                f"(rank correlation {agreement:.2f})",
                f"a study with search.halving.first_rung = {epochs}",
            )


def _rival(case: Case) -> Iterator[Advice]:
    if case.winner is None or case.winner.final is None:
        return
    said = finals.verdict(case.winner, case.facts.objectives[0])
    if said.startswith("the network does not"):
        yield Advice("rival", said.partition(": ")[2].replace("it is", "the network is"), "take that model")


_RULES: tuple[Callable[[Case], Iterator[Advice]], ...] = (
    _few_trials,
    _pruned_all,
    _diverged,
    _rival,
    _curves,
    _edges,
    _budget,
    _rungs,
)
"""In the order in which people are told."""
