"""Numbers -> numbers near 0, three ways, each fitted on training values and kept as plain numbers.

| name            | what it does                                                                              |
|-----------------|-------------------------------------------------------------------------------------------|
| standard        | subtracts the mean, divides by the standard deviation                                     |
| robust          | subtracts the median, divides by the quartiles' distance, softly clipped to (-3, 3)       |
| quantile_normal | the normal quantile of a value's rank in train, interpolated between stored knots         |

Every method takes and returns float64 arrays of any shape without missing values. Large values are handled without
overflow: what is fitted is finite for all finite training values.
"""

import dataclasses
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

SOFT_LIMIT = 3.0
"""Where the soft clip of `robust` ends."""
HARD_LIMIT = 1e6
"""Beyond it the soft clip is flat to the last digit, and its square would overflow."""
MIN_KNOTS, MAX_KNOTS, ROWS_PER_KNOT = 32, 1000, 30


@dataclass(frozen=True, slots=True)
class Standard:
    """(x - mean) / scale."""

    mean: float
    scale: float
    """The standard deviation; 1 where all values are equal."""

    def apply(self, x: FloatArray) -> FloatArray:
        """Values -> standardised values."""
        scaled: FloatArray = (x - self.mean) / self.scale
        return scaled


@dataclass(frozen=True, slots=True)
class Robust:
    """Soft clip of z = (x - median) / scale: z / sqrt(1 + (z / 3)^2) (Holzmüller et al., arXiv:2407.04491, RealMLP)."""

    median: float
    scale: float
    """Distance of the quartiles; where they are equal half the whole range; 1 where all values are equal."""

    def apply(self, x: FloatArray) -> FloatArray:
        """Values -> values in (-3, 3)."""
        # Halves, which changes no digit of a normal number, so that the difference of two values of 1e308 is finite.
        with np.errstate(over="ignore"):
            z = np.clip((x / 2 - self.median / 2) / (self.scale / 2), -HARD_LIMIT, HARD_LIMIT)
        clipped: FloatArray = z / np.sqrt(1 + np.square(z / SOFT_LIMIT))
        return clipped


@dataclass(frozen=True, slots=True)
class Knots:
    """A rising curve of straight pieces between knots; flat beyond the ends.

    For `quantile_normal`: the level of a knot is the normal quantile of the share of training values below it, half of
    those equal to it included.
    """

    knots: tuple[float, ...]
    """Different and ascending, (K,), K >= 1."""
    levels: tuple[float, ...]
    """Ascending, (K,)."""

    def apply(self, x: FloatArray) -> FloatArray:
        """Values -> values of the curve."""
        knots, slopes = self.pieces()
        scaled = np.clip(x, self.knots[0], self.knots[-1]) / self.unit
        left = np.searchsorted(knots, scaled, side="right") - 1
        value: FloatArray = np.asarray(self.levels)[left] + (scaled - knots[left]) * slopes[left]
        return value

    @property
    def unit(self) -> float:
        """1; for knots near the end of float64 a power of two, divided by which their differences do not overflow."""
        largest = np.abs([self.knots[0], self.knots[-1]]).max()
        return float(power_of_two(largest)) if largest > 1e300 else 1.0

    def pieces(self) -> tuple[FloatArray, FloatArray]:
        """Knots in units of `unit`, and the slope to the right of each, both (K,); 0 after the last."""
        knots, levels = np.asarray(self.knots) / self.unit, np.asarray(self.levels)
        widths, rises = np.diff(knots), np.diff(levels)
        with np.errstate(over="ignore"):  # between knots that nearly coincide there is nothing to interpolate
            slopes = np.divide(rises, widths, out=np.zeros_like(rises), where=widths > 0)
        return knots, np.append(np.where(np.isfinite(slopes), slopes, 0.0), 0.0)


Scaler = Standard | Robust | Knots
SCALERS: dict[str, type[Scaler]] = {"standard": Standard, "robust": Robust, "quantile_normal": Knots}


def fit_scaler(name: str, values: FloatArray) -> Scaler:
    """Fit one of `dlcore.config.SCALINGS` to training values (N,), N >= 1, none missing."""
    if name == "robust":
        return fit_robust(values)
    return fit_quantile_normal(values) if name == "quantile_normal" else fit_standard(values)


def fit_standard(values: FloatArray) -> Standard:
    """Mean and population standard deviation of values (N,).

    Computed on values divided by a power of two near the largest, which changes no digit but keeps squares of 1e200
    finite. A spread that is only rounding (as scikit-learn's StandardScaler judges it) is a constant column.
    """
    unit = power_of_two(np.abs(values).max())
    mean, deviation = (values / unit).mean(), (values / unit).std()
    eps = np.finfo(np.float64).eps
    # Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance, 1983: the error's upper bound.
    is_constant = deviation**2 <= len(values) * eps * deviation**2 + (len(values) * mean * eps) ** 2
    return Standard(float(mean * unit), 1.0 if is_constant else float(deviation * unit))


def fit_robust(values: FloatArray) -> Robust:
    """Median and quartiles of values (N,), all halved while they are computed, so that none overflows."""
    low, first, median, third, high = np.quantile(values / 2, [0, 0.25, 0.5, 0.75, 1])
    scale = third - first if third > first else (high - low) / 2
    # A distance near the end of float64 is made smaller rather than infinite.
    return Robust(float(2 * median), float(min(2 * scale, np.finfo(np.float64).max)) if scale > 0 else 1.0)


def fit_quantile_normal(values: FloatArray) -> Knots:
    """Knots at distinct values (N,), evenly many training values apart where there are more than are stored."""
    distinct, counts = np.unique(values, return_counts=True)
    shares = (np.cumsum(counts) - counts / 2) / len(values)
    most = min(max(len(values) // ROWS_PER_KNOT, MIN_KNOTS), MAX_KNOTS)
    if len(distinct) > most:
        wanted = np.linspace(shares[0], shares[-1], most)
        kept = np.unique(np.append(np.searchsorted(shares, wanted[:-1]), len(distinct) - 1))
        distinct, shares = distinct[kept], shares[kept]
    normal = NormalDist()
    return Knots(floats(distinct), tuple(normal.inv_cdf(share) for share in shares.tolist()))


def power_of_two(largest: NDArray[np.floating]) -> FloatArray:
    """A power of two in (largest / 2, largest]; 0.5 for 0."""
    unit: FloatArray = np.ldexp(1.0, np.frexp(largest)[1] - 1)
    return unit


def median(values: FloatArray) -> float:
    """The median of what is not NaN in values (N,); 0 where nothing is."""
    present = values[~np.isnan(values)]
    # Halved, which changes no digit, so that the mean of two middle values of 1e308 stays finite.
    return float(2 * np.median(present / 2)) if len(present) else 0.0


def floats(values: FloatArray) -> tuple[float, ...]:
    """An array (K,) as plain numbers."""
    return tuple(float(value) for value in values)


def scaler_to_dict(scaler: Scaler) -> dict[str, object]:
    """A scaler as JSON can hold it."""
    [name] = (name for name, kind in SCALERS.items() if isinstance(scaler, kind))
    return {"scaling": name, **dataclasses.asdict(scaler)}


def scaler_from_dict(stored: dict[str, object]) -> Scaler:
    """The scaler that `scaler_to_dict` described, to the bit.

    Raises:
        KeyError, TypeError, ValueError: It is not such a description.
    """
    numbers = {key: value for key, value in stored.items() if key != "scaling"}
    if stored["scaling"] == "quantile_normal":
        return Knots(*(tuple(float(v) for v in numbers[part]) for part in ("knots", "levels")))  # type: ignore[attr-defined]
    return SCALERS[str(stored["scaling"])](**{key: float(value) for key, value in numbers.items()})  # type: ignore[arg-type]
