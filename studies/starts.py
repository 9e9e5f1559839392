"""Trials that start from a source beside those that start from fresh weights: pure functions of records."""

from collections.abc import Sequence

from dlcore.config import PRETRAINED
from studies.figures import number
from studies.ranking import ranking
from studies.records import COMPLETE, FINISHED_STATES, Objective, TrialRecord


def starts(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> dict[str, dict[str, object]]:
    """ "pretrained" and "fresh" -> how many finished trials start so, and the best one; empty where one has none.

    Args:
        trials: All of a study.
        objectives: Of the study.
    """
    finished = [trial for trial in trials if trial.state in FINISHED_STATES]
    found: dict[str, dict[str, object]] = {}
    for name, is_own in (("pretrained", True), ("fresh", False)):
        own = [t for t in finished if (t.hyperparameters.get("initialization") == PRETRAINED) == is_own]
        best = ranking(own, objectives)[:1]
        if not best:
            return {}
        found[name] = {"n": len(own), "number": best[0].number, "value": best[0].value, "state": best[0].state}
    return found


def starts_line(trials: Sequence[TrialRecord], objectives: Sequence[Objective]) -> str:
    """The same in one line; "" where there is nothing to compare."""
    found = starts(trials, objectives)
    if not found:
        return ""
    said = {
        name: f"{own['n']} trials that start {name}: {objectives[0].metric} {number(float(str(own['value'])))} "
        f"(trial {own['number']}{'' if own['state'] == COMPLETE else ', pruned'})"
        for name, own in found.items()
    }
    return f"the best of {said['pretrained']}; of {said['fresh']}"
