"""The finals of a study: its best trials trained again on fresh seeds, and which of them wins; pure functions.

A trial that was chosen as the best of many was lucky too, and its recorded value flatters it. Fresh seeds were not
chosen by anybody: their mean is what such a network reaches, and their spread says how surely.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from studies.ranking import pareto_front, ranking
from studies.records import COMPLETE, Final, Finalist, Interval, Measured, Objective, Rival, TrialRecord, Winner

# Student's t, 97.5th percentile, for 1, 2, .. degrees of freedom: any table of it; `MOST_SEEDS` is where it ends.
_T = (
    *(12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139),
    *(2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963),
    *(2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272),
)
MOST_SEEDS = len(_T) + 1
_LARGEST_SHARE = 0.25
"""Of the time that a study took, where time limits it, its finals may take so much more."""


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval of the mean (Student's t) of 2 to `MOST_SEEDS` values; NaN where one of them is."""
    n = len(values)
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = _T[n - 2] * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def intervals(measured: Sequence[Measured]) -> dict[str, Interval]:
    """The interval of each metric over the fresh seeds."""
    return {name: interval([m[name] for m in measured]) for name in (measured[0] if measured else ())}


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


def seeds_within(trials: Sequence[TrialRecord], n_seeds: int, spent_s: float) -> int:
    """How many seeds a study that time limits can afford, at least 2.

    Args:
        trials: The candidates.
        n_seeds: What the spec asks for.
        spent_s: Seconds of training that the study took.
    """
    once_s = sum((t.duration_s or 0.0) / t.population_size for t in trials)
    affordable = _LARGEST_SHARE * spent_s / once_s if once_s > 0 else math.inf
    return min(n_seeds, max(2, math.floor(min(affordable, n_seeds))))


def shown_metrics(winner: Winner) -> dict[str, float]:
    """What the study's run shows of its winner: `test_accuracy` is of the exported network, `final_test_accuracy_mean`,
    `_low` and `_high` of its fresh seeds, `gradient_boosting_test_accuracy` of a rival."""
    found = {f"val_{name}": value for name, value in winner.val_metrics.items()}
    found |= {f"test_{name}": value for name, value in winner.test_metrics.items()}
    if (final := winner.final) is None:
        return found
    for split, measured in _of_winner(final).items():
        for name, over_seeds in intervals(measured).items():
            found |= {f"final_{split}_{name}_{part}": value for part, value in asdict(over_seeds).items()}
    for rival in others(final):
        key = rival.name.replace(" ", "_")
        for split, once in (("val", rival.val), ("test", rival.test)):
            found |= {f"{key}_{split}_{name}": value for name, value in once.items()}
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
    return f"{over_seeds.mean:.4f} [{over_seeds.low:.4f}, {over_seeds.high:.4f}]"


def table(winner: Winner, objective: Objective) -> str:
    """All on test in one line: `network 0.9700 [0.9600, 0.9800] | gradient boosting 0.9600 | majority 0.1000`."""
    assert winner.final is not None
    own = intervals(winner.final.test).get(objective.metric)
    network = f"{winner.test_metrics[objective.metric]:.4f}" if own is None else of(own)
    return " | ".join(
        [f"network {network}", *(f"{r.name} {r.test[objective.metric]:.4f}" for r in others(winner.final))]
    )


def verdict(winner: Winner, objective: Objective) -> str:
    """Whether the network earns its place beside the rival that is best on test, in one sentence; "" without rivals.

    Test chose the rival, not the network: where that is unfair, it is so to the network.
    """
    if winner.final is None or not winner.final.rivals:
        return ""
    sign = 1.0 if objective.direction == "maximize" else -1.0
    rival = max(winner.final.rivals, key=lambda r: _or_worst(sign * r.test[objective.metric]))
    theirs, measured = rival.test[objective.metric], intervals(winner.final.test).get(objective.metric)
    ours = winner.test_metrics[objective.metric]
    own = Interval(ours, ours, ours) if measured is None else measured
    if not (math.isfinite(theirs) and math.isfinite(own.mean)):
        return ""
    by = f"{rival.name} by {abs(own.mean - theirs):.4f} of {objective.metric} on test"
    if own.low <= theirs <= own.high:
        return f"the network and {rival.name} cannot be told apart on test: take the one that is easier to run"
    if sign * own.mean > sign * theirs:
        return f"the network earns its place: it is ahead of {by}"
    return f"the network does not earn its place: it is behind {by}"


def _or_worst(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def others(final: Final) -> tuple[Rival, ...]:
    """What is compared with the winner."""
    return final.rivals if final.ensemble is None else (final.ensemble, *final.rivals)


def _of_winner(final: Final) -> dict[str, tuple[Measured, ...]]:
    """Split -> what the winner's networks did there; nothing where there were no finals."""
    return {"val": final.finalists[0].val, "test": final.test} if final.finalists else {}


def json_of_test(winner: Winner) -> dict[str, Any]:
    """What a winner did on test: mean and interval of each metric over fresh seeds, or a number without finals."""
    over_seeds = {} if winner.final is None else intervals(winner.final.test)
    found = {name: asdict(i) for name, i in over_seeds.items()} or winner.test_metrics
    checked: dict[str, Any] = finite(found)
    return checked


def as_json(winner: Winner) -> dict[str, Any]:
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
        rivals=tuple(Rival(**rival) for rival in data["rivals"]),
        ensemble=None if data["ensemble"] is None else Rival(**data["ensemble"]),
    )


def plain(final: Final | None) -> dict[str, Any] | None:
    """As JSON without NaN and infinity, which become null; for manifests and people's programs."""
    return None if final is None else finite(asdict(final))


def finite(value: Any) -> Any:
    """The same without NaN and infinity, which JSON does not know: they become null."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
