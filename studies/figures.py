"""Numbers as people read them; what machines read (`--json`, databases, MLflow's metrics) keeps every digit."""

import math


def number(value: float, *, has_sign: bool = False) -> str:
    """A value with as many digits as its size earns: `0.9861`, `53.123`, `532.12`, `53,212`, `0.000123`.

    Four decimals below 10, five digits above, thousands set apart, three digits where four decimals would show next to
    nothing; a whole number from 10 on has no decimals.

    Args:
        value: Any; one that is not finite is `nan`, `inf` or `-inf`.
        has_sign: Whether a positive value begins with `+`.
    """
    sign, size = "+" if has_sign else "-", abs(value)
    if not math.isfinite(value):
        return f"{value:{sign}}"
    if 0 < size < 0.001:
        return f"{value:{sign}.3g}"
    if size < 10:
        return f"{value:{sign}.4f}"
    decimals = 0 if value == round(value) else max(0, 4 - math.floor(math.log10(size)))
    return f"{value:{sign},.{decimals}f}"
