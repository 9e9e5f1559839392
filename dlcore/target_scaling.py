"""Targets of a regression on another scale before they are standardised: prices as logarithms, or as normal ranks.

A network learns the transformed target; people, and every metric, see its own unit. So each transform can be undone,
also for rows beyond the range of train. What a network *predicts* stays inside that range: an outlier among its outputs
must not become e^40.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from dlcore.errors import DataError
from dlcore.scaling import FloatArray, Knots, fit_quantile_normal, floats


@dataclass(frozen=True, slots=True)
class TargetTransform:
    """One transform of C targets, fitted on the training rows."""

    name: str
    """"log" or "quantile_normal"."""
    low: tuple[float, ...]
    """The smallest training value of each target, in its unit."""
    high: tuple[float, ...]
    """The largest."""
    offsets: tuple[float, ...] = ()
    """Log: added before the logarithm, 0 or 1 (where train has zeros)."""
    curves: tuple[Knots, ...] = ()
    """Quantile-normal: the curve of each target, going straight on beyond its ends."""

    def forward(self, y: FloatArray) -> FloatArray:
        """Targets (N, C) in their units -> transformed; NaN or -inf where a logarithm has no value."""
        if self.name == "log":
            with np.errstate(divide="ignore", invalid="ignore"):
                logs: FloatArray = np.log(y + np.asarray(self.offsets))
            return logs
        return np.stack([_bend(curve, y[:, i]) for i, curve in enumerate(self.curves)], axis=1)

    def inverse(self, transformed: FloatArray, *, is_prediction: bool) -> FloatArray:
        """Transformed targets (N, C) -> in their units; predictions stay in the range of train."""
        if self.name == "log":
            # exp(700) is near the end of float64.
            restored: FloatArray = np.exp(np.minimum(transformed, 700.0)) - np.asarray(self.offsets)
        else:
            restored = np.stack([_unbend(curve, transformed[:, i]) for i, curve in enumerate(self.curves)], axis=1)
        inside: FloatArray = np.clip(restored, self.low, self.high) if is_prediction else restored
        return inside

    def to_dict(self) -> dict[str, object]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, object]) -> "TargetTransform":
        """What `to_dict` described, to the bit."""
        numbers = {part: floats(np.asarray(stored[part], dtype=np.float64)) for part in ("low", "high", "offsets")}
        curves = tuple(
            Knots(floats(np.asarray(curve["knots"])), floats(np.asarray(curve["levels"])))
            for curve in stored["curves"]  # type: ignore[attr-defined]
        )
        return cls(str(stored["name"]), curves=curves, **numbers)


def fit_target_transform(name: str, y: FloatArray) -> TargetTransform | None:
    """Fit one of `dlcore.config.TARGET_TRANSFORMS` to the targets (N, C) of train; None for "none".

    Raises:
        DataError: Negative values have no logarithm.
    """
    if name == "none":
        return None
    low, high = floats(y.min(0)), floats(y.max(0))
    if name == "log":
        if min(low) < 0:
            raise DataError(
                f'target_transform = "log" needs targets >= 0; train has {min(low):g}: take "quantile_normal" or "none"'
            )
        return TargetTransform(name, low, high, offsets=tuple(0.0 if value > 0 else 1.0 for value in low))
    curves = tuple(fit_quantile_normal(y[:, i]) for i in range(y.shape[1]))
    return TargetTransform(name, low, high, curves=curves)


def inverse_pieces(curve: Knots) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Levels, knots in units of `curve.unit`, and knots per level to the right of each; all (K,).

    The last piece goes on beyond the end. A level lies on piece max(0, number of levels <= it, less 1).
    """
    knots, levels = np.asarray(curve.knots) / curve.unit, np.asarray(curve.levels)
    widths = np.diff(knots) / np.diff(levels)
    return levels, knots, np.append(widths, widths[-1:] if len(widths) else 0.0)


def _bend(curve: Knots, y: FloatArray) -> FloatArray:
    """Values (N,) -> levels, straight on beyond the ends."""
    knots, slopes = curve.pieces()
    slopes[-1] = slopes[-2] if len(slopes) > 1 else 0.0
    scaled = y / curve.unit
    left = np.maximum(np.searchsorted(knots, scaled, side="right") - 1, 0)
    levels: FloatArray = np.asarray(curve.levels)[left] + (scaled - knots[left]) * slopes[left]
    return levels


def _unbend(curve: Knots, level: FloatArray) -> FloatArray:
    """Levels (N,) -> values: what undoes `_bend`."""
    levels, knots, widths = inverse_pieces(curve)
    left = np.maximum(np.searchsorted(levels, level, side="right") - 1, 0)
    values: FloatArray = (knots[left] + (level - levels[left]) * widths[left]) * curve.unit
    return values
