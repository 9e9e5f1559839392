"""Rungs, and who is promoted at each: synchronous successive halving as pure functions of numbers.

Source: K. Jamieson and A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
AISTATS 2016; the ladder as in L. Li et al., "Hyperband", JMLR 18 (2018), for one bracket.
"""

import math
from collections.abc import Mapping


def rungs(first_rung: int, reduction_factor: int, epochs: int) -> tuple[int, ...]:
    """Epochs at which the members of a cohort are compared; the last epoch is the end, not a rung.

    Args:
        first_rung: Epoch of rung 0, at least 1.
        reduction_factor: Each rung is so many times as late as the one before; at least 2.
        epochs: Of a whole training.
    """
    found = []
    rung = first_rung
    while rung < epochs:
        found.append(rung)
        rung *= reduction_factor
    return tuple(found)


def promoted(values: Mapping[int, tuple[float, float]], factor: int, direction: str) -> set[int]:
    """Who goes on: the best 1 / factor, rounded up, so that at least one does.

    Args:
        values: Number of a trial -> its best value so far and the val loss of that epoch; NaN is worse than any value.
        factor: The reduction factor.
        direction: "maximize" or "minimize".

    Returns:
        Their numbers; of equal values those with the lower val loss, then with the lower number.
    """
    sign = -1.0 if direction == "maximize" else 1.0

    def rank(number: int) -> tuple[bool, float, float, int]:
        value, val_loss = values[number]
        return (True, 0.0, 0.0, number) if math.isnan(value) else (False, sign * value, val_loss, number)

    return set(sorted(values, key=rank)[: math.ceil(len(values) / factor)])
