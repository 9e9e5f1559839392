"""Samplers beside each other on one budget: the studies to run, and what their results say; pure functions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studies import finals
from studies.errors import UserError
from studies.figures import number
from studies.hyperparameters import Range, Setting, n_choices
from studies.records import COMPLETE, Interval, Objective, TrialRecord, Winner
from studies.sections import LEARN, LEARN_FROM_COMPLETE_ONLY, SAMPLERS, Budget
from studies.spec import StudySpec, cohort_size, spec_from_dict
from studies.sweep_pictures import Lane


@dataclass(frozen=True, slots=True)
class Result:
    """What one search came to."""

    sampler: str
    trials: tuple[TrialRecord, ...]
    winner: Winner | None

    def value(self, objective: Objective) -> float:
        """The winner's mean on val over fresh seeds, the best of its finalists'; without finals its recorded value."""
        found = None if self.winner is None else finals.judged(self.winner, objective)
        return math.nan if found is None else found

    def interval(self, objective: Objective) -> Interval | None:
        """Of that mean; None without finals."""
        final = None if self.winner is None else self.winner.final
        if final is None or not final.finalists:
            return None
        return finals.intervals(final.finalists[0].val)[objective.metric]


def samplers_of(text: str) -> tuple[str, ...]:
    """The samplers that a comma-separated text names.

    Raises:
        UserError: One is none, or is named twice, or there is only one.
    """
    names = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in SAMPLERS]:
        raise UserError(f'--samplers must name some of {", ".join(SAMPLERS)}; got "{unknown[0]}"')
    if len(set(names)) < max(2, len(names)):
        raise UserError(f"--samplers must name at least two, each once; got {text}")
    return names


def entrant(spec: StudySpec, sampler: str, trials: int, index: int) -> StudySpec:
    """The study of one sampler: the same data, space, rungs, cohorts and budget, under a name of its own.

    Args:
        spec: What is searched.
        sampler: Who searches.
        trials: The budget.
        index: Of the search, from 0; each has a seed of its own, and so rows of its own.

    Raises:
        UserError: The name is too long.
        SpecError: The sampler cannot search this space.
    """
    data: dict[str, Any] = spec.to_dict()
    data |= {
        "study": f"{spec.study}-{sampler}" + (f"-{index}" if index else ""),
        "seed": spec.seed + index,
        "budget": {"trials": trials},
        "final": data["final"] | {"baselines": False, "ensemble": False},
    }
    data["search"] = {key: value for key, value in data["search"].items() if value is not None}
    granted = spec.model_copy(update={"budget": Budget(trials=trials)})
    data["search"] |= {"sampler": sampler, "cohort": cohort_size(granted)}
    if sampler == "gp":
        del data["search"]["cohort"]  # it has a limit of its own
    if sampler in LEARN_FROM_COMPLETE_ONLY:
        data["search"].pop("halving", None)
    if sampler == "grid":
        data["search_space"] |= gridded(spec.searched, trials)
    return spec_from_dict(data, data["study"])


def is_asked_at_once(spec: StudySpec) -> bool:
    """Whether a sampler that learns is asked for all trials before it has seen one: then it searches at random."""
    return spec.search.sampler in LEARN and cohort_size(spec) >= (spec.budget.trials or math.inf)


def gridded(searched: Mapping[str, Setting], trials: int) -> dict[str, list[float | int | str | bool]]:
    """Ranges as lists of evenly spaced values, by their scale: as many of each as the budget allows, at least two."""
    ranges = {name: setting for name, setting in searched.items() if isinstance(setting, Range)}
    lists = math.prod(n_choices(s) or 1 for name, s in searched.items() if name not in ranges)
    n = 2
    while ranges and lists * (n + 1) ** len(ranges) <= trials:
        n += 1
    return {name: list(_spread(setting, n)) for name, setting in ranges.items()}


def _spread(setting: Range, n: int) -> tuple[int | float, ...]:
    """At most n values of a range, both ends among them."""
    if setting.n_values is not None and setting.n_values <= n:
        return setting.values()
    shares = [i / (n - 1) for i in range(n)]
    if setting.step is not None:
        return tuple(dict.fromkeys(setting.value(round(s * ((setting.n_values or 1) - 1))) for s in shares))
    if setting.log:
        found = [setting.low * (setting.high / setting.low) ** s for s in shares]
    else:
        found = [setting.low + (setting.high - setting.low) * s for s in shares]
    found[-1] = setting.high
    whole = isinstance(setting.low, int)
    return tuple(dict.fromkeys(round(v) if whole else float(f"{v:.4g}") for v in found))


def best_so_far(trials: Sequence[TrialRecord], objective: Objective) -> tuple[float, ...]:
    """The best value of a trial that trained to its end, after 1, 2, .. trials; NaN before the first."""
    found: list[float] = []
    best = math.nan
    for trial in sorted(trials, key=lambda t: t.number):
        value = trial.value if trial.state == COMPLETE else None
        if value is not None and math.isfinite(value) and (math.isnan(best) or objective.is_better(value, best)):
            best = value
        found.append(best)
    return tuple(found)


def lanes(results: Sequence[Result], objective: Objective) -> tuple[Lane, ...]:
    """The searches of each sampler, in the order given."""
    names = dict.fromkeys(result.sampler for result in results)
    return tuple(
        Lane(name, tuple(best_so_far(r.trials, objective) for r in results if r.sampler == name)) for name in names
    )


def rows(results: Sequence[Result], objective: Objective) -> list[list[str]]:
    """The table, its header first: a row for each search."""
    header = ["sampler", "study's best", "after trials", "trained to the end", f"{objective.metric} on fresh seeds"]
    found = [header]
    for result in results:
        course = best_so_far(result.trials, objective)
        best = course[-1] if course else math.nan
        at = str(course.index(best) + 1) if math.isfinite(best) else "-"
        done = sum(t.state == COMPLETE for t in result.trials)
        over = result.interval(objective)
        fresh = finals.of(over) if over is not None else "not measured"
        found.append([result.sampler, number(best), at, f"{done} of {len(result.trials)}", fresh])
    return found


def verdict(results: Sequence[Result], objective: Objective) -> str:
    """Which sampler found the better networks, as far as that can be said."""
    names = list(dict.fromkeys(result.sampler for result in results))
    values = {name: [r.value(objective) for r in results if r.sampler == name] for name in names}
    known = {name: own for name, own in values.items() if all(map(math.isfinite, own))}
    if len(known) < 2:
        return "Fewer than two samplers found a network that can be compared."
    sign = 1.0 if objective.direction == "maximize" else -1.0
    first, *others = sorted(known, key=lambda name: -sign * math.fsum(known[name]))
    if len(known[first]) == 1:
        return _of_one_search(first, others, results, objective)
    said = []
    for name in others:
        lead = finals.interval([sign * (a - b) for a, b in zip(known[first], known[name], strict=True)])
        by = f"{number(lead.mean)} [{number(lead.low)}, {number(lead.high)}]"
        said.append(f"ahead of {name} by {by}" if lead.low > 0 else f"not to be told from {name} ({by})")
    n = len(known[first])
    is_fresh = all(result.interval(objective) is not None for result in results)
    by_what = "on fresh seeds" if is_fresh else "that each search chose by itself"
    return (
        f"Over {n} searches each, on the same rows, {first} is {'; '.join(said)}, by {objective.metric} {by_what}: "
        "what holds zero in its interval may turn with other seeds, and all of it on another table."
    )


def _of_one_search(first: str, others: Sequence[str], results: Sequence[Result], objective: Objective) -> str:
    of = {result.sampler: result for result in results}
    told = "; ".join(_beside(of[first], of[name], objective) for name in others)
    return (
        f"{told[0].upper()}{told[1:]}. That is one search each: another seed may turn the order, and --seeds 5 would "
        "say how often."
    )


def _beside(one: Result, other: Result, objective: Objective) -> str:
    """Whether one search's winner is better than another's."""
    ours, theirs = one.interval(objective), other.interval(objective)
    alone = f"{number(one.value(objective))} against {number(other.value(objective))}"
    if ours is None or theirs is None:
        if one.value(objective) == other.value(objective):
            return f"{one.sampler} and {other.sampler} come out level ({alone}), by values that each chose itself"
        return f"{one.sampler} comes out ahead of {other.sampler} ({alone}), by values that each search chose itself"
    if ours.low <= theirs.high and theirs.low <= ours.high:
        return (
            f"{one.sampler} and {other.sampler} cannot be told apart on fresh seeds ({alone}; their intervals overlap)"
        )
    return (
        f"{one.sampler}'s winner is better than {other.sampler}'s on fresh seeds ({alone}; their intervals are apart)"
    )
