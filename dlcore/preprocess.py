"""Raw columns -> numbers a network can learn from: fill missing values, then standardise.

Fitted on the training rows only, so that nothing of val and test leaks into what is trained. Plain float64
numpy and plain tuples, so that an export can repeat it exactly in ONNX and JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from dlcore.columns import Features
from dlcore.errors import DataError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Fitted numbers: one per feature F, or one per target C."""

    fill: tuple[float, ...]
    """Replaces a missing value: the median of the training rows; 0 for a column with no value at all."""
    mean: tuple[float, ...]
    """Subtracted after filling: the mean of the training rows."""
    scale: tuple[float, ...]
    """Divided by at last: their standard deviation; 1 for a constant column."""
    target_mean: tuple[float, ...] = ()
    """The same for the targets of a regression, in their units; empty for classes."""
    target_scale: tuple[float, ...] = ()
    """See `target_mean`."""

    @property
    def n_outputs(self) -> int:
        """Inputs F that a network for these features has."""
        return len(self.fill)

    def transform(self, features: Features) -> FloatArray:
        """Raw features of N rows, all numbers -> standardised features (N, F)."""
        x = features.numbers()
        if x.shape[1] != len(self.fill):
            raise DataError(f"features must have shape (N, {len(self.fill)}); got {x.shape}")
        filled = np.where(np.isnan(x), np.asarray(self.fill), x)
        standardised: FloatArray = (filled - np.asarray(self.mean)) / np.asarray(self.scale)
        return standardised

    def scale_target(self, y: FloatArray) -> FloatArray:
        """Targets (N, C) in their own units -> standardised targets (N, C)."""
        standardised: FloatArray = (y - np.asarray(self.target_mean)) / np.asarray(self.target_scale)
        return standardised

    def unscale_target(self, y: FloatArray) -> FloatArray:
        """Standardised targets (N, C) -> targets (N, C) in their own units."""
        raw: FloatArray = y * np.asarray(self.target_scale) + np.asarray(self.target_mean)
        return raw

    def to_dict(self) -> dict[str, list[float]]:
        """The numbers as JSON can hold them; `from_dict` gives the same Preprocessor back, to the bit."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Sequence[float]]) -> "Preprocessor":
        """The Preprocessor that `to_dict` described.

        Raises:
            DataError: a part is missing.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in stored]
        if missing:
            raise DataError(f"stored preprocessing must have {', '.join(names)}; {', '.join(missing)} missing")
        return cls(**{name: tuple(float(value) for value in stored[name]) for name in names})


def fit_preprocessor(x_train: Features, y_train: NDArray[np.generic], task: str) -> Preprocessor:
    """Learn the numbers from the training rows.

    Args:
        x_train: raw features of N rows, all numbers.
        y_train: targets (N, C) of a regression in their own units; classes (N,) of other tasks are not used.
        task: one of `dlcore.config.TASKS`.
    """
    x = x_train.numbers()
    fill = _medians(x)
    mean, scale = _moments(np.where(np.isnan(x), fill, x))
    if task != "regression":
        return Preprocessor(_floats(fill), _floats(mean), _floats(scale))
    target_mean, target_scale = _moments(y_train.astype(np.float64))
    return Preprocessor(_floats(fill), _floats(mean), _floats(scale), _floats(target_mean), _floats(target_scale))


def _medians(x: FloatArray) -> FloatArray:
    """Median of what is there in each column: (N, F) -> (F,); 0 where nothing is."""
    has_value = ~np.isnan(x).all(0)
    medians = np.zeros(x.shape[1])
    # Halved, which changes no digit, so that the mean of two middle values of 1e308 stays finite.
    medians[has_value] = 2 * np.nanmedian(x[:, has_value] / 2, axis=0)
    return medians


def _moments(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and population standard deviation of each column: (N, F) -> (F,), (F,).

    Computed on columns divided by a power of two near their largest value, which changes no digit but keeps
    squares of 1e200 finite. Spreads that are only rounding (as scikit-learn's StandardScaler judges them) are a
    constant column.
    """
    largest = np.abs(x).max(0)
    unit = np.ldexp(1.0, np.frexp(largest)[1] - 1)  # a power of two in (largest / 2, largest]; 0.5 for 0
    mean = (x / unit).mean(0)
    deviation = (x / unit).std(0)
    eps = np.finfo(np.float64).eps
    # Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance, 1983: the error's upper bound.
    n_rows = len(x)
    is_constant = deviation**2 <= n_rows * eps * deviation**2 + (n_rows * mean * eps) ** 2
    return mean * unit, np.where(is_constant, 1.0, deviation * unit)


def _floats(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
