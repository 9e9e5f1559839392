"""The finals of a study: its best trials trained again on fresh seeds, and which of them wins; pure functions.

A trial that was chosen as the best of many was lucky too, and its recorded value flatters it. Fresh seeds were not
chosen by anybody: their mean is what such a network reaches, and their spread says how surely.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from studies.figures import number
from studies.ranking import pareto_front, ranking
from studies.records import (
    COMPLETE,
    Answers,
    Final,
    Finalist,
    Interval,
    Measured,
    Objective,
    Rival,
    TrialRecord,
    Winner,
)

# Student's t, 97.5th percentile, for 1, 2, .. degrees of freedom: any table of it; `MOST_SEEDS` is where it ends.
_T = (
    *(12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139),
    *(2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963),
    *(2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272),
)
MOST_SEEDS = len(_T) + 1


class Spread(Protocol):
    """Where 95 of 100 draws of rows are; as `dlcore.resampling.Spread`."""

    @property
    def low(self) -> float:
        """Their 2.5th percentile."""

    @property
    def high(self) -> float:
        """Their 97.5th percentile."""


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval of the mean (Student's t) of 2 to `MOST_SEEDS` values; NaN where one of them is."""
    n = len(values)
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = _T[n - 2] * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def intervals(measured: Sequence[Measured]) -> dict[str, Interval]:
    """The interval of each metric over the fresh seeds."""
    return {name: _possible(name, own) for name, own in _plain_intervals(measured).items()}


def _plain_intervals(measured: Sequence[Measured]) -> dict[str, Interval]:
    """As Student's t gives them, whatever the metric can be."""
    return {name: interval([m[name] for m in measured]) for name in (measured[0] if measured else ())}


def _possible(name: str, own: Interval) -> Interval:
    """An interval without what the metric can never be."""
    low = -math.inf if name == "r2" else 0.0
    high = 1.0 if name in ("accuracy", "balanced_accuracy", "f1", "roc_auc", "r2") else math.inf
    return Interval(own.mean, max(own.low, low), min(own.high, high))


def over_rows(measured: Sequence[Measured], spreads: Mapping[str, Spread]) -> dict[str, Interval]:
    """Mean of each metric, with an interval over seeds and rows.

    Args:
        measured: On test, one per fresh seed.
        spreads: Metric -> where its mean over these seeds goes with other rows.
    """
    return {name: _possible(name, own) for name, own in _over_rows(measured, spreads).items()}


def _over_rows(measured: Sequence[Measured], spreads: Mapping[str, Spread]) -> dict[str, Interval]:
    """Without those whose spread is not known: taken for none, it would make a seed's luck look sure."""
    return {
        name: _widened(over_seeds, spreads[name])
        for name, over_seeds in _plain_intervals(measured).items()
        if not (math.isnan(spreads[name].low) or math.isnan(spreads[name].high))
    }


def leads(measured: Sequence[Measured], rival: Rival, spreads: Mapping[str, Spread]) -> dict[str, Interval]:
    """The winner's value minus a rival's, by metric, over seeds and rows; arguments as in `over_rows`."""
    return _over_rows([{name: value - rival.test[name] for name, value in m.items()} for m in measured], spreads)


def _widened(over_seeds: Interval, spread: Spread) -> Interval:
    """An interval over seeds, widened by the rows: the two are independent, so that their squares are added."""
    mean = over_seeds.mean
    half = over_seeds.high - mean
    low, high = (math.hypot(half, max(0.0, way)) for way in (mean - spread.low, spread.high - mean))
    return Interval(mean, mean - low, mean + high)


def candidates(trials: Sequence[TrialRecord], objectives: Sequence[Objective], n: int) -> list[TrialRecord]:
    """The trials that come into the finals: the best that trained to their end, of several objectives' front."""
    ranked = ranking(trials, objectives) if len(objectives) == 1 else pareto_front(trials, objectives)
    return [trial for trial in ranked if trial.state == COMPLETE][:n]


def in_order(finalists: Sequence[Finalist], objective: Objective) -> list[Finalist]:
    """Finalists from the best mean to the worst, ties by lower val loss, then by number; without a mean comes last."""
    sign = -1.0 if objective.direction == "maximize" else 1.0

    def place(finalist: Finalist) -> tuple[bool, float, float, int]:
        measured = intervals(finalist.val)
        mean, loss = sign * measured[objective.metric].mean, measured["loss"].mean
        return not math.isfinite(mean), mean if math.isfinite(mean) else 0.0, loss, finalist.number

    return sorted(finalists, key=place)


def has_winner(ordered: Sequence[Finalist], objective: Objective) -> bool:
    """Whether the first of the ordered finalists has a mean at all: no seed of it diverged."""
    return bool(ordered) and math.isfinite(intervals(ordered[0].val)[objective.metric].mean)


def ensemble_wins(final: Final, objective: Objective) -> bool:
    """Whether the ensemble is what is to be exported: val alone decides, and in doubt the single network is simpler.

    The winner's mean over fresh seeds is what one network of its kind reaches; nobody chose these by val either.
    """
    if final.ensemble is None or not final.finalists:
        return False
    ours, mean = final.ensemble.val[objective.metric], intervals(final.finalists[0].val)[objective.metric].mean
    return math.isfinite(ours) and objective.is_better(ours, mean)


def ensemble_line(final: Final, objective: Objective) -> str:
    """Whether the ensemble is exported, and why; "" where there is none."""
    if final.ensemble is None or not final.finalists:
        return ""
    value = final.ensemble.val.get(objective.metric, math.nan)
    mean = intervals(final.finalists[0].val)[objective.metric].mean
    what = f"the ensemble is {'' if final.is_ensemble else 'not '}exported"
    why = "better" if final.is_ensemble else "not better"
    return (
        f"{what}: on val its {objective.metric} {number(value)} is {why} than {number(mean)}, one network's in the mean"
    )


def judged(winner: Winner, objective: Objective) -> float | None:
    """How good what is exported is on val by the objective: the ensemble's value, else the mean over fresh seeds, else
    what was recorded of the trial."""
    final = winner.final
    if final is not None and final.is_ensemble and final.ensemble is not None:
        return final.ensemble.val[objective.metric]
    if final is not None and final.finalists:
        return intervals(final.finalists[0].val)[objective.metric].mean
    return winner.values[0] if winner.values else None


def shown_metrics(winner: Winner, objectives: Sequence[Objective]) -> dict[str, float]:
    """What the study's run shows of its winner: `test_accuracy` is of the exported network, as is every metric there.

    Of val, of its fresh seeds (`final_val_accuracy_mean`, and of test with `_low` and `_high`) and of its rivals
    (`gradient_boosting_test_accuracy`) there are the objectives alone: MLflow draws a chart of each metric. The report
    has the rest.
    """
    names = {objective.metric for objective in objectives}
    found = {f"val_{name}": value for name, value in winner.val_metrics.items() if name in names}
    found |= {f"test_{name}": value for name, value in winner.test_metrics.items()}
    if (final := winner.final) is None:
        return found
    val, test = _on_val(final), on_test(final)
    found |= {f"final_val_{name}_mean": val[name].mean for name in sorted(names & set(val))}
    for name in sorted(names & set(test)):
        found |= {f"final_test_{name}_{part}": value for part, value in asdict(test[name]).items()}
    for rival in others(final):
        key = rival.name.replace(" ", "_")
        found |= {f"{key}_test_{name}": rival.test[name] for name in sorted(names & set(rival.test))}
    return found


def shown_tags(winner: Winner, objective: Objective) -> dict[str, str]:
    """What the study's run says of its winner in words."""
    tags = {
        "dlcore.winner": str(winner.number),
        "dlcore.winner_hyperparameters": json.dumps(dict(winner.hyperparameters)),
        "dlcore.winner_onnx_sha256": winner.onnx_sha256,
    }
    if winner.final is not None and winner.final.finalists:
        tags["dlcore.finalists"] = "; ".join(finalist_lines(winner.final, objective))
    if winner.final is not None and winner.final.rivals:
        tags["dlcore.rivals"] = f"{objective.metric} on test: {table(winner, objective)}"
        tags["dlcore.verdict"] = verdict(winner, objective)
    return {key: text for key, text in tags.items() if text}


def finalist_lines(final: Final, objective: Objective) -> list[str]:
    """One line for each finalist, the winner first: `trial 7: accuracy 0.9712 [0.9680, 0.9744] on val, 5 seeds`."""
    return [
        f"trial {f.number}: {objective.metric} {of(intervals(f.val)[objective.metric])} on val, {len(f.val)} seeds"
        for f in final.finalists
    ]


def of(over_seeds: Interval) -> str:
    """`0.9712 [0.9680, 0.9744]`."""
    return f"{number(over_seeds.mean)} [{number(over_seeds.low)}, {number(over_seeds.high)}]"


def table(winner: Winner, objective: Objective) -> str:
    """All on test in one line: `network 0.9700 [0.9600, 0.9800] | gradient boosting 0.9600 | majority 0.1000`."""
    assert winner.final is not None
    own = on_test(winner.final).get(objective.metric)
    network = number(winner.test_metrics[objective.metric]) if own is None else of(own)
    return " | ".join(
        [f"network {network}", *(f"{r.name} {number(r.test[objective.metric])}" for r in others(winner.final))]
    )


def verdict(winner: Winner, objective: Objective) -> str:
    """Whether the network earns its place beside the rival that is best on test, in one sentence; "" without rivals.

    Test chose the rival, not the network: where that is unfair, it is so to the network. Nobody is said to be ahead
    where other seeds or other rows might say the opposite.
    """
    if winner.final is None or not winner.final.rivals:
        return ""
    sign = 1.0 if objective.direction == "maximize" else -1.0
    rival = max(winner.final.rivals, key=lambda r: _or_worst(sign * r.test[objective.metric]))
    theirs, measured = rival.test[objective.metric], on_test(winner.final).get(objective.metric)
    ours = winner.test_metrics[objective.metric] if measured is None else measured.mean
    if not (math.isfinite(theirs) and math.isfinite(ours)):
        return ""
    is_ahead = sign * ours > sign * theirs
    by = f"{rival.name} by {number(abs(ours - theirs))}"
    if (lead := rival.lead.get(objective.metric)) is None:
        place = f"level with {rival.name}" if ours == theirs else f"{'ahead of' if is_ahead else 'behind'} {by}"
        return f"on test the network is {place}; whether other seeds and rows would say so was not measured"
    ends = sorted(abs(end) for end in (lead.low, lead.high))
    if lead.low <= 0.0 <= lead.high:
        mean, low, high = (number(v, has_sign=True) for v in (lead.mean, lead.low, lead.high))
        between = f"{objective.metric} {mean} [{low}, {high}]"
        return f"the network and {rival.name} cannot be told apart on test ({between}): take what is easier to run"
    by = f"{by} [{number(ends[0])}, {number(ends[1])}] of {objective.metric} on test"
    if is_ahead:
        return f"the network earns its place: it is ahead of {by}"
    return f"the network does not earn its place: it is behind {by}"


def _or_worst(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def others(final: Final) -> tuple[Rival, ...]:
    """What is compared with the winner."""
    return final.rivals if final.ensemble is None else (final.ensemble, *final.rivals)


def _on_val(final: Final) -> dict[str, Interval]:
    """The winner's means, over seeds; nothing where there were no finals."""
    return intervals(final.finalists[0].val) if final.finalists else {}


def on_test(final: Final) -> dict[str, Interval]:
    """The winner's means, over seeds and rows (over seeds alone in a study of before); nothing without finals."""
    return {name: final.over_rows.get(name, own) for name, own in intervals(final.test).items()}


def over(final: Final, name: str) -> str:
    """What the interval of a metric on test is over: `seeds and rows`, `seeds and groups of rows` or `seeds`."""
    if name not in final.over_rows:
        return "seeds"
    return "seeds and groups of rows" if final.n_groups else "seeds and rows"


def json_of_test(winner: Winner) -> dict[str, Any]:
    """What a winner did on test: mean and interval of each metric over seeds and rows, or a number without finals."""
    measured = {} if winner.final is None else on_test(winner.final)
    found = {name: asdict(i) for name, i in measured.items()} or winner.test_metrics
    checked: dict[str, Any] = finite(found)
    return checked


def as_json(winner: Winner, objective: Objective) -> dict[str, Any]:
    """What `studies show --json` says of the finals."""
    assert winner.final is not None
    found = {
        "number": winner.number,
        "exported": {"val": winner.val_metrics, "test": winner.test_metrics},
        "finalists": [
            {"number": f.number, "val": {name: asdict(i) for name, i in intervals(f.val).items()}}
            for f in winner.final.finalists
        ],
        "rivals": [asdict(rival) for rival in others(winner.final)],
        "verdict": verdict(winner, objective),
    }
    checked: dict[str, Any] = finite(found)
    return checked


def to_json(final: Final) -> str:
    """As the study database holds it."""
    return json.dumps(asdict(final))


def from_json(text: str) -> Final:
    """What `to_json` wrote."""
    data: dict[str, Any] = json.loads(text)
    return Final(
        asked=data["asked"],
        finalists=tuple(Finalist(f["number"], tuple(f["val"])) for f in data["finalists"]),
        test=tuple(data["test"]),
        rivals=tuple(map(_rival, data["rivals"])),
        ensemble=None if data["ensemble"] is None else _rival(data["ensemble"]),
        over_rows=_intervals(data),
        n_groups=data.get("n_groups", 0),
        is_ensemble=data.get("is_ensemble", False),
        answers=_answers(data.get("answers")),
        seconds=data.get("seconds", {}),
    )


def _answers(data: Mapping[str, Any] | None) -> Answers | None:
    return None if data is None else Answers(**{key: _tupled(value) for key, value in data.items()})


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _rival(data: Mapping[str, Any]) -> Rival:
    return Rival(data["name"], data["val"], data["test"], data["remark"], _intervals(data, "lead"))


def _intervals(data: Mapping[str, Any], key: str = "over_rows") -> dict[str, Interval]:
    return {name: Interval(**ends) for name, ends in data.get(key, {}).items()}  # a final of before has none


def plain(final: Final | None) -> dict[str, Any] | None:
    """As JSON without NaN and infinity, which become null; for manifests and people's programs.

    What a final of before does not have is left out, as in the manifests of then.
    """
    if final is None:
        return None
    found = asdict(final)
    del found["answers"], found["seconds"]  # the first holds targets of people's rows, the second differs each time
    for part in (found, found["ensemble"] or {}, *found["rivals"]):
        for key in ("over_rows", "lead"):
            if not part.get(key, True):
                del part[key]
    for name in ("is_ensemble", "n_groups"):
        if not found[name]:
            del found[name]
    checked: dict[str, Any] = finite(found)
    return checked


def finite(value: Any) -> Any:
    """The same without NaN and infinity, which JSON does not know: they become null."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
