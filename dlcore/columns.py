"""The columns of a table as they were read: numbers, times and texts, typed by what they mean.

Nothing here is filled, scaled or encoded, and nothing knows where a column came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlcore.config import KINDS
from dlcore.errors import DataError

NUMBER_KINDS = ("numeric", "boolean", "date")
"""Kinds whose values are float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One column of N rows."""

    name: str
    kind: str
    """One of `dlcore.config.KINDS`; identifier and constant columns are never features."""
    values: NDArray[Any]
    """(N,). Numeric, boolean (0 or 1) and date (seconds since 1970-01-01 UTC): float64, NaN = missing, never infinite.
    Categorical: int32 codes into `categories`, -1 = missing."""
    categories: tuple[str, ...] = ()
    """Sorted: the distinct texts of all rows of the table. What is fitted may only use those that train has."""
    form: str = ""
    """How its numbers or dates were written, where they were texts (see `dlcore.cells`): a file to predict from is
    read in the same way, since 3/4/2024 alone does not say which is the month."""

    def __post_init__(self) -> None:
        """Check that kind and values go together."""
        assert self.kind in KINDS and self.values.ndim == 1
        if self.kind in (*NUMBER_KINDS, "categorical"):
            assert self.values.dtype == (np.float64 if self.kind in NUMBER_KINDS else np.int32)

    def __len__(self) -> int:
        """Rows N."""
        return len(self.values)

    @property
    def is_missing(self) -> NDArray[np.bool_]:
        """(N,): where there is no value."""
        missing: NDArray[np.bool_] = np.isnan(self.values) if self.values.dtype == np.float64 else self.values < 0
        return missing

    def take(self, rows: NDArray[Any] | slice) -> "Column":
        """The same column with some of its rows: numbers (n,), a mask (N,), or a slice."""
        return replace(self, values=self.values[rows])

    def texts(self) -> NDArray[Any]:
        """The text of each row (N,) of a categorical column, as Python strings; "" = missing."""
        texts: NDArray[Any] = np.array([*self.categories, ""], dtype=object)[self.values]
        return texts

    def raw(self) -> NDArray[Any]:
        """The rows (N,) as an exported network takes them: texts, or numbers."""
        return self.values if self.kind in NUMBER_KINDS else self.texts()


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What a network may learn from: at least one column, all of them equally long."""

    columns: tuple[Column, ...]
    """In the order of the table."""

    def __post_init__(self) -> None:
        """Check that the columns belong together."""
        if not self.columns:
            raise DataError("a table must have a feature beside its target; it has none")
        lengths = {len(column) for column in self.columns}
        if len(lengths) > 1:
            raise DataError(f"all columns must be equally long; got lengths {sorted(lengths)}")

    def __len__(self) -> int:
        """Rows N."""
        return len(self.columns[0])

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(column.name for column in self.columns)

    def take(self, rows: NDArray[Any]) -> "Features":
        """The same columns with some of their rows: numbers (n,), or a mask (N,)."""
        return Features(tuple(column.take(rows) for column in self.columns))

    def numbers(self) -> NDArray[np.float64]:
        """All values (N, F) where every column has numbers; NaN = missing.

        Raises:
            DataError: There are columns with text.
        """
        text = [column.name for column in self.columns if column.kind not in NUMBER_KINDS]
        if text:
            raise DataError(f"all features must be numbers; text is in {', '.join(map(repr, text[:8]))}")
        return np.stack([column.values for column in self.columns], axis=1)

    @classmethod
    def from_numbers(cls, names: Sequence[str], x: NDArray[np.float64]) -> "Features":
        """All numeric: a name for each column of x (N, F); NaN = missing."""
        return cls(
            tuple(
                Column(name, "numeric", np.ascontiguousarray(x[:, i], dtype=np.float64)) for i, name in enumerate(names)
            )
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one column of a table, to be shown before anything is trained."""

    name: str
    kind: str
    """One of `dlcore.config.KINDS`, or what else the column is used for, such as "target"."""
    why: str
    """What a person should know of it: why it is no feature, say. Empty where nothing is notable."""
    n_missing: int
    n_distinct: int
    """Different values, without missing ones."""
    example: str
    """A value as it stands in the table."""
