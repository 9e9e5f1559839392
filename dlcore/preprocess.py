"""Raw columns -> numbers a network can learn from, and targets -> numbers it can be trained on.

Fitted on the training rows only, so that nothing of val and test leaks into what is trained. All that is fitted is
plain numbers and texts, so that an export can say it in JSON and repeat it exactly in ONNX. What becomes of each kind
of column stands in `dlcore.encoders`. How much a rare class weighs is no matter of preprocessing: the loss decides it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dlcore.columns import Features
from dlcore.config import PreprocessConfig
from dlcore.encoders import (
    CategoryEncoder,
    DateEncoder,
    Encoder,
    MeanEncoder,
    NumberEncoder,
    fit_encoder,
    refit_encoder,
)
from dlcore.errors import DataError
from dlcore.scaling import FloatArray, fit_standard, floats, scaler_from_dict, scaler_to_dict
from dlcore.target_scaling import TargetTransform, fit_target_transform


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """What was fitted: an encoder per column, and the scale of C targets."""

    encoders: tuple[Encoder, ...]
    """In the order of the columns."""
    target_mean: tuple[float, ...] = ()
    """Mean of each (transformed) target over the training rows; empty for classes."""
    target_scale: tuple[float, ...] = ()
    """Its standard deviation; 1 for a constant target."""
    target_transform: TargetTransform | None = None
    """What is done to the targets of a regression before they are standardised."""
    kept: tuple[str, ...] = ()
    """Columns whose encoders were fitted on another table, and stay as they are; see `dlcore.transfer`."""

    @property
    def widths(self) -> tuple[int, ...]:
        """How many outputs each column has."""
        return tuple(len(encoder.output_names) for encoder in self.encoders)

    @property
    def n_outputs(self) -> int:
        """Inputs F that a network for these columns has."""
        return sum(self.widths)

    @property
    def output_names(self) -> tuple[str, ...]:
        """What each of them is, (F,)."""
        return tuple(name for encoder in self.encoders for name in encoder.output_names)

    def transform(self, features: Features) -> FloatArray:
        """Raw columns of N rows that are not those of train -> (N, F)."""
        return self._encoded(features, None)

    def transform_training(self, features: Features, y: NDArray[np.generic]) -> FloatArray:
        """The N rows that all was fitted on -> (N, F).

        The same as `transform`, but for columns of very many categories: what a training row is told of its category's
        targets comes from other rows.

        Args:
            features: As given to `fit_preprocessor`.
            y: As given to `fit_preprocessor`.
        """
        return self._encoded(features, y)

    def _encoded(self, features: Features, y: NDArray[np.generic] | None) -> FloatArray:
        names = tuple(encoder.name for encoder in self.encoders)
        if features.names != names:
            raise DataError(f"features must be the columns {names}; got {features.names}")
        encoded = np.empty((len(features), self.n_outputs))
        targets: FloatArray | None = None
        end = 0
        for encoder, column, width in zip(self.encoders, features.columns, self.widths, strict=True):
            start, end = end, end + width
            if column.kind != encoder.kind:
                raise DataError(f"column {column.name!r} must be {encoder.kind}; it is {column.kind}")
            if y is not None and isinstance(encoder, MeanEncoder) and encoder.name not in self.kept:
                targets = self._learned_targets(y, len(encoder.target_names)) if targets is None else targets
                encoded[:, start:end] = encoder.encode_training(column, targets)
            else:
                encoded[:, start:end] = encoder.encode(column)
        return encoded

    def _learned_targets(self, y: NDArray[np.generic], n_columns: int) -> FloatArray:
        """Targets -> what category means are taken of, (N, T): as in fitting."""
        if self.target_mean:
            return _transformed(self.target_transform, y.astype(np.float64))
        return _class_columns(y, n_columns)

    def refitted(self, features: Features, y: NDArray[np.generic], config: PreprocessConfig) -> "Preprocessor":
        """The same outputs, fitted on other training rows, so that folds can share one network's shape.

        What an input stands for stays: which categories have one, which columns have an indicator. Every number that
        rows or targets decide is fitted anew, but for the unit of a regression's targets, which losses are compared in.

        Args:
            features: Raw columns of the N rows to fit on.
            y: Their targets, as given to `fit_preprocessor`.
            config: As given to `fit_preprocessor`.
        """
        means = [own for own in self.encoders if isinstance(own, MeanEncoder) and own.name not in self.kept]
        targets = self._learned_targets(y, len(means[0].target_names)) if means else np.empty((len(features), 0))
        fitted = [
            encoder if encoder.name in self.kept else refit_encoder(encoder, column, targets, config)
            for encoder, column in zip(self.encoders, features.columns, strict=True)
        ]
        return dataclasses.replace(self, encoders=tuple(fitted))

    def scale_target(self, y: FloatArray) -> FloatArray:
        """Targets (N, C) in their own units -> standardised targets (N, C)."""
        transformed = _transformed(self.target_transform, y)
        standardised: FloatArray = (transformed - np.asarray(self.target_mean)) / np.asarray(self.target_scale)
        return standardised

    def unscale_target(self, y: FloatArray, *, is_prediction: bool = False) -> FloatArray:
        """Standardised targets (N, C) -> targets (N, C) in their own units.

        Args:
            y: Standardised targets, or a network's outputs.
            is_prediction: Keep transformed targets in the range of train.
        """
        raw: FloatArray = y * np.asarray(self.target_scale) + np.asarray(self.target_mean)
        if self.target_transform is None:
            return raw
        return self.target_transform.inverse(raw, is_prediction=is_prediction)

    def to_dict(self) -> dict[str, object]:
        """All as JSON can hold it; `from_dict` gives the same Preprocessor back, to the bit."""
        transform = self.target_transform
        return {
            "encoders": [_encoder_to_dict(encoder) for encoder in self.encoders],
            "target_mean": list(self.target_mean),
            "target_scale": list(self.target_scale),
            "target_transform": None if transform is None else transform.to_dict(),
            **({"kept": list(self.kept)} if self.kept else {}),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, object]) -> "Preprocessor":
        """The Preprocessor that `to_dict` described.

        Raises:
            DataError: a part is missing, or is something else.
        """
        names = [field.name for field in dataclasses.fields(cls) if field.name != "kept"]
        missing = [name for name in names if name not in stored]
        if missing:
            raise DataError(f"stored preprocessing must have {', '.join(names)}; {', '.join(missing)} missing")
        try:
            mean, scale = (floats(np.asarray(stored[part], np.float64)) for part in ("target_mean", "target_scale"))
            transform: Mapping[str, object] | None = stored["target_transform"]  # type: ignore[assignment]
            return cls(
                tuple(_encoder_from_dict(encoder) for encoder in stored["encoders"]),  # type: ignore[attr-defined]
                mean,
                scale,
                None if transform is None else TargetTransform.from_dict(transform),
                _frozen(stored.get("kept", ())),  # type: ignore[arg-type]
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"stored preprocessing must be as it was written; {error!r}") from error


def fit_preprocessor(
    x_train: Features,
    y_train: NDArray[np.generic],
    task: str,
    config: PreprocessConfig | None = None,
    n_classes: int = 0,
) -> Preprocessor:
    """Learn everything from the training rows.

    Args:
        x_train: raw columns of N rows.
        y_train: targets (N, C) of a regression in their own units; classes (N,) of other tasks.
        task: one of `dlcore.config.TASKS`.
        config: what to do with each kind of column; None is the default.
        n_classes: classes of the whole table, of which these rows may lack some; 0 is those of `y_train`.

    Raises:
        DataError: no column says anything; or the targets cannot be transformed.
    """
    config = config or PreprocessConfig()
    transform: TargetTransform | None = None
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    if task == "regression":
        raw = y_train.astype(np.float64)
        transform = fit_target_transform(config.target_transform, raw)
        y = _transformed(transform, raw)
        fitted = [fit_standard(column) for column in y.T]
        mean, scale = tuple(f.mean for f in fitted), tuple(f.scale for f in fitted)
        names = ("mean target",) if len(mean) == 1 else tuple(f"mean target {i}" for i in range(len(mean)))
    else:
        n_classes = max(n_classes, int(y_train.max()) + 1)
        y = _class_columns(y_train, 1 if n_classes <= 2 else n_classes)
        classes = (1,) if y.shape[1] == 1 else range(y.shape[1])
        names = tuple(f"share of class {i}" for i in classes)
    encoders = tuple(fit_encoder(column, y, names, config) for column in x_train.columns)
    preprocessor = Preprocessor(encoders, mean, scale, transform)
    if not preprocessor.n_outputs:
        some = ", ".join(repr(column.name) for column in x_train.columns[:5])
        more = f" and {len(x_train.columns) - 5} more" if len(x_train.columns) > 5 else ""
        raise DataError(
            f"a feature must have a value in train; every value of the columns {some}{more} is missing there"
        )
    return preprocessor


def _transformed(transform: TargetTransform | None, y: FloatArray) -> FloatArray:
    return y if transform is None else transform.forward(y)


def _class_columns(y: NDArray[np.generic], n_columns: int) -> FloatArray:
    """Classes (N,) -> (N, 1) of 0 and 1 for at most two of them, else one such column each, (N, T)."""
    classes = y.astype(np.int64)
    if n_columns == 1:
        return classes.astype(np.float64)[:, np.newaxis]
    return np.eye(n_columns)[classes]


_FORMS: dict[str, type[Encoder]] = {
    "number": NumberEncoder,
    "date": DateEncoder,
    "category": CategoryEncoder,
    "mean": MeanEncoder,
}


def _encoder_to_dict(encoder: Encoder) -> dict[str, object]:
    [form] = (name for name, kind in _FORMS.items() if isinstance(encoder, kind))
    parts = {field.name: getattr(encoder, field.name) for field in dataclasses.fields(encoder)}
    if isinstance(encoder, NumberEncoder):
        parts["scaler"] = scaler_to_dict(encoder.scaler)
    return {"form": form, **parts}


def _encoder_from_dict(stored: Mapping[str, object]) -> Encoder:
    form = _FORMS[str(stored["form"])]
    parts: dict[str, object] = {}
    for field in dataclasses.fields(form):
        value = stored[field.name]
        parts[field.name] = scaler_from_dict(value) if field.name == "scaler" else _frozen(value)  # type: ignore[arg-type]
    build: Callable[..., Encoder] = form
    return build(**parts)


def _frozen(value: object) -> object:
    """JSON's lists as tuples."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
