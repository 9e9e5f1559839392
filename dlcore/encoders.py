"""One raw column -> the numbers of it that a network gets; one frozen class per kind of column.

An encoder is fitted on the training rows alone and holds plain numbers and texts, so that an export can say it in JSON
and repeat it in ONNX (`dlcore.onnx_columns`). It encodes any later column of the same kind: texts that train does not
have become "(other)" where train has rare ones, and zeros where it has not, since the weights of an input that is
always 0 in training never learn anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dlcore.columns import Column
from dlcore.config import PreprocessConfig
from dlcore.dates import PARTS, clip_dates
from dlcore.scaling import FloatArray, Scaler, fit_scaler, fit_standard, median
from dlcore.target_encoding import OWN_CATEGORY, encode_categories, fit_means

OTHER = "(other)"


@dataclass(frozen=True, slots=True)
class NumberEncoder:
    """A numeric or boolean column: missing values filled, scaled; and whether it was missing, if train has holes."""

    name: str
    kind: str
    fill: float
    """The median of the training rows; 0 for a column without any value there."""
    scaler: Scaler
    has_indicator: bool

    @property
    def output_names(self) -> tuple[str, ...]:
        """One per output."""
        return (self.name, f"{self.name} is missing") if self.has_indicator else (self.name,)

    @property
    def example(self) -> float:
        """A usual value."""
        return self.fill

    def encode(self, column: Column) -> FloatArray:
        """A column of N rows -> (N, outputs)."""
        missing = column.is_missing
        scaled = self.scaler.apply(np.where(missing, self.fill, column.values))
        return np.stack([scaled, missing], axis=1) if self.has_indicator else scaled[:, np.newaxis]


@dataclass(frozen=True, slots=True)
class DateEncoder:
    """A date column: those of its parts that vary in train, standardised."""

    name: str
    kind: str
    fill: float
    """The median of the training rows, in seconds since 1970-01-01 UTC; days are counted from there."""
    parts: tuple[str, ...]
    """Names in `dlcore.dates.PARTS`."""
    mean: tuple[float, ...]
    """Of each part."""
    scale: tuple[float, ...]
    """Standard deviation of each part."""
    has_indicator: bool

    @property
    def output_names(self) -> tuple[str, ...]:
        """One per output."""
        names = tuple(f"{self.name}: {part}" for part in self.parts)
        return (*names, f"{self.name} is missing") if self.has_indicator else names

    @property
    def example(self) -> str:
        """A usual value, as ISO text."""
        return f"{np.datetime64(int(clip_dates(np.array(self.fill))), 's')}Z"

    def encode(self, column: Column) -> FloatArray:
        """A column of N rows -> (N, outputs)."""
        missing = column.is_missing
        seconds = clip_dates(np.where(missing, self.fill, column.values))
        columns = [
            (PARTS[part](seconds, self.fill) - mean) / scale
            for part, mean, scale in zip(self.parts, self.mean, self.scale, strict=True)
        ]
        return np.stack([*columns, missing] if self.has_indicator else columns, axis=1)


@dataclass(frozen=True, slots=True)
class CategoryEncoder:
    """A column of text: 1 for the row's category, 0 for the others."""

    name: str
    kind: str
    categories: tuple[str, ...]
    """Those with an output of their own, sorted; "" is a missing value, where train has any."""
    has_other: bool
    """Whether train has rarer categories; they, and those that it has not at all, share one output."""
    example: str
    """The commonest category."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """One per output."""
        names = tuple(f"{self.name} = {text}" if text else f"{self.name} is missing" for text in self.categories)
        return (*names, f"{self.name} = {OTHER}") if self.has_other else names

    @property
    def keys(self) -> tuple[str, ...]:
        """Texts that `table` has a row for, K."""
        return self.categories

    @property
    def table(self) -> FloatArray:
        """Outputs of each key, and in the last row those of any other text: (K + 1, outputs)."""
        return np.eye(len(self.categories) + 1)[:, : len(self.output_names)]

    def encode(self, column: Column) -> FloatArray:
        """A column of N rows -> (N, outputs)."""
        return look_up(self.keys, self.table, column)


@dataclass(frozen=True, slots=True)
class MeanEncoder:
    """A column of very many categories: the mean target of the row's category, and how common the category is.

    The means are drawn towards that of all training rows, the more so the fewer rows a category has
    (`dlcore.target_encoding`). A training row is encoded by the other rows alone, else its own target would leak in:
    `encode_training`.
    """

    name: str
    kind: str
    target_names: tuple[str, ...]
    """What each mean is of: T of them."""
    categories: tuple[str, ...]
    """Those of at least two training rows, K; "" is a missing value. Others count as unseen."""
    means: tuple[tuple[float, ...], ...]
    """Of each category and target, (K, T), in standard deviations of the target from its own mean."""
    counts: tuple[int, ...]
    """Training rows of each category, (K,)."""
    mean: float
    """Of log(1 + count) over the training rows."""
    scale: float
    """Standard deviation of log(1 + count) over the training rows."""
    example: str
    """The commonest category."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """One per output."""
        return (*(f"{self.name}: {target}" for target in self.target_names), f"{self.name}: how common")

    @property
    def keys(self) -> tuple[str, ...]:
        """Texts that `table` has a row for, K."""
        return self.categories

    @property
    def table(self) -> FloatArray:
        """Outputs of each key, and in the last row those of any other text: (K + 1, T + 1)."""
        means = np.reshape(self.means, (len(self.categories), len(self.target_names)))
        counts = np.append(np.asarray(self.counts, dtype=np.float64), 0.0)
        common = (np.log1p(counts) - self.mean) / self.scale
        return np.column_stack([np.vstack([means, np.zeros(means.shape[1])]), common])

    def encode(self, column: Column) -> FloatArray:
        """A column of N rows that are not those of train -> (N, outputs)."""
        return look_up(self.keys, self.table, column)

    def encode_training(self, column: Column, y: FloatArray) -> FloatArray:
        """The N training rows -> (N, outputs), each by the means of the other folds.

        Args:
            column: The column that the encoder was fitted on.
            y: The targets that it was fitted on, (N, T).
        """
        encoded = self.encode(column)
        encoded[:, :-1] = encode_categories(_codes_with_missing(column), y)
        return encoded


Encoder = NumberEncoder | DateEncoder | CategoryEncoder | MeanEncoder


def look_up(keys: Sequence[str], table: FloatArray, column: Column) -> FloatArray:
    """Rows of a table (K + 1, D) for a column of N rows: (N, D); the last row for what is not among the K keys."""
    row_of = {text: row for row, text in enumerate(keys)}
    rows = np.array([row_of.get(text, len(keys)) for text in (*column.categories, "")], dtype=np.int64)
    found: FloatArray = table[rows[column.values]]  # code -1, missing, is the last: ""
    return found


def fit_encoder(column: Column, y: FloatArray, target_names: tuple[str, ...], config: PreprocessConfig) -> Encoder:
    """Fit the encoder of one column of N training rows.

    Args:
        column: A feature.
        y: What a category's mean is taken of, (N, T).
        target_names: Of those T.
        config: What to do with its kind.
    """
    if column.kind == "categorical":
        return _fit_text(column, y, target_names, config)
    missing = column.is_missing
    # An indicator that is 1 in all rows of train says nothing there.
    has_indicator = config.missing_indicators and bool(missing.any() and not missing.all())
    fill = median(column.values)
    if column.kind == "date":
        return _fit_date(column, fill, has_indicator)
    is_filled = column.kind == "boolean" or config.scaling == "standard"
    present = np.where(missing, fill, column.values) if is_filled or missing.all() else column.values[~missing]
    scaler = fit_scaler("standard" if column.kind == "boolean" else config.scaling, present)
    return NumberEncoder(column.name, column.kind, fill, scaler, has_indicator)


def refit_encoder(encoder: Encoder, column: Column, y: FloatArray, config: PreprocessConfig) -> Encoder:
    """The same outputs, fitted on other training rows: those of another fold.

    Args:
        encoder: What `fit_encoder` gave for the column on the rows of one fold.
        column: The column on the rows of another.
        y: The targets of these, (N, T).
        config: As it was given to `fit_encoder`.
    """
    match encoder:
        case CategoryEncoder():  # which categories have outputs is all it knows
            return encoder
        case MeanEncoder():
            return _fit_means(column, y, encoder.target_names, encoder.example)
        case DateEncoder():
            return _fit_date(column, median(column.values), encoder.has_indicator, encoder.parts)
        case NumberEncoder():
            fitted = fit_encoder(column, y, (), config)
            assert isinstance(fitted, NumberEncoder)
            return replace(fitted, has_indicator=encoder.has_indicator)


_ROUNDING = 1e-12
"""Parts of dates that vary by less do not vary: the sine of half a day is 1e-16, a second moves it by 2.6e-9 up."""


def _fit_date(column: Column, fill: float, has_indicator: bool, parts: tuple[str, ...] | None = None) -> DateEncoder:
    """With these parts; None is those that vary."""
    seconds = clip_dates(np.where(column.is_missing, fill, column.values))
    values = {part: function(seconds, fill) for part, function in PARTS.items()}
    if parts is None:
        parts = tuple(part for part, v in values.items() if v.max() - v.min() > _ROUNDING) or ("days",)
    fitted = [fit_standard(values[part]) for part in parts]
    mean, scale = tuple(f.mean for f in fitted), tuple(f.scale if f.scale > _ROUNDING else 1.0 for f in fitted)
    return DateEncoder(column.name, column.kind, fill, parts, mean, scale, has_indicator)


def _fit_text(
    column: Column, y: FloatArray, target_names: tuple[str, ...], config: PreprocessConfig
) -> CategoryEncoder | MeanEncoder:
    codes = _codes_with_missing(column)
    texts = (*column.categories, "")
    counts = np.bincount(codes, minlength=len(texts))
    commonest = texts[int(counts.argmax())]
    seen = [code for code in np.flatnonzero(counts).tolist() if texts[code]]
    if len(seen) > config.high_cardinality:
        return _fit_means(column, y, target_names, commonest)
    least = min(config.min_category_rows, max(1, len(codes) // 100))
    ranked = sorted((code for code in seen if counts[code] >= least), key=lambda code: (-counts[code], texts[code]))
    kept = [texts[code] for code in ranked[: config.max_categories]]
    has_other = len(kept) < len(seen)
    if counts[-1] and seen:  # an input that is 1 in all rows of train would say nothing
        kept.append("")
    return CategoryEncoder(column.name, column.kind, tuple(sorted(kept)), has_other, commonest)


def _fit_means(column: Column, y: FloatArray, target_names: tuple[str, ...], commonest: str) -> MeanEncoder:
    codes = _codes_with_missing(column)
    texts = (*column.categories, "")
    counts = np.bincount(codes, minlength=len(texts))
    means = fit_means(codes, y, len(texts))
    kept = sorted(np.flatnonzero(counts >= OWN_CATEGORY).tolist(), key=lambda code: texts[code])
    common = fit_standard(np.log1p(np.where(counts >= OWN_CATEGORY, counts, 0))[codes])
    return MeanEncoder(
        name=column.name,
        kind=column.kind,
        target_names=target_names,
        categories=tuple(texts[code] for code in kept),
        means=tuple(tuple(row) for row in means[kept].tolist()),
        counts=tuple(counts[kept].tolist()),
        mean=common.mean,
        scale=common.scale,
        example=commonest,
    )


def _codes_with_missing(column: Column) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Codes (N,) into (*column.categories, ""): missing values are a category of their own, the last."""
    codes: np.ndarray[tuple[int], np.dtype[np.int64]] = np.where(
        column.values < 0, len(column.categories), column.values
    ).astype(np.int64)
    return codes
