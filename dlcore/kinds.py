"""What each column of a table is: found out from all of its cells, or said by a person.

A column that names its row, or never changes, teaches nothing that holds for other rows: it is left out, and said so.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from dlcore.cells import AMBIGUOUS, MISSING, PLAIN, number_of, numbers_of, times_of, truths_of
from dlcore.columns import NUMBER_KINDS, Column, Finding
from dlcore.errors import DataError
from dlcore.rawcolumns import RawColumn, RawTable

LEFT_OUT = ("identifier", "constant")
"""Kinds that are never features."""
ALMOST_ALL = 0.95
"""Share of different values from which texts are names of rows."""
MIN_ROWS = 10
"""Of fewer rows nobody knows whether a column names them."""
_ID_NAME = re.compile(
    r"(?:.*[\s_-])?(?:id|ids|uuid|guid|index|idx|key|no|nr|number)|[a-z]+Id|[a-z]+ID|unnamed.*|", re.I
)
_FIRST_S, _LAST_S = -62_135_596_800.0, 253_402_300_799.0


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """A column whose kind is known."""

    column: Column
    finding: Finding
    is_by_hand: bool
    """A person said its kind."""
    kind: str
    """What its cells hold, which the kind of a column that is left out does not say."""


def settle(
    raw: RawColumn, table: RawTable, wanted: str | None = None, form: str = "", *, is_strict: bool = False
) -> Settled:
    """Find out what a column is.

    Args:
        raw: The column; as text where `wanted` is "categorical" or "date".
        table: That it is of, for messages.
        wanted: The kind that a person says it has; None asks the cells.
        form: How its numbers or dates are written, if that is known; see `Column.form`.
        is_strict: Where numbers are wanted, text is refused; else it counts as missing.

    Raises:
        DataError: It cannot have the wanted kind, or a number is infinite.
    """
    if raw.numbers is not None:
        found = _settle_numbers(raw, table, wanted)
    else:
        codes, texts = _without_missing(raw)
        if wanted is None:
            found = _settle_texts(raw.name, table, codes, texts)
        else:
            found = _as_wanted(raw.name, table, (codes, texts), wanted, form)
            if is_strict and wanted == "numeric":
                _refuse_text(raw.name, table, (codes, texts), found[0])
    column, why = found
    kind = column.kind
    if column.kind in NUMBER_KINDS and column.kind != "boolean":
        _refuse_infinite(column, table)
    if wanted is None:
        column, why = _left_out(column, why)
    return Settled(column, _finding(column, why), wanted is not None, kind)


_Found = tuple[Column, str]
_Texts = tuple[NDArray[np.int32], tuple[str, ...]]


def _without_missing(raw: RawColumn) -> _Texts:
    """Codes (N,) into sorted texts, none of which stands for nothing; -1 = missing."""
    there = sorted(text for text in raw.texts if text.lower() not in MISSING)
    place = {text: i for i, text in enumerate(there)}
    renumbered = np.array([*(place.get(text, -1) for text in raw.texts), -1], dtype=np.int32)
    return renumbered[raw.codes], tuple(there)


def _settle_numbers(raw: RawColumn, table: RawTable, wanted: str | None) -> _Found:
    """A column that has numbers, as what they are by their type or as what a person says."""
    assert raw.numbers is not None
    values = raw.numbers
    if wanted in (None, raw.native, *LEFT_OUT):
        return Column(
            raw.name, wanted or raw.native, values, form=raw.form
        ), f"written as {raw.form}" if raw.form else ""
    if wanted == "boolean":
        bad = np.flatnonzero(~np.isnan(values) & (values != 0) & (values != 1))
        if len(bad):
            raise _not_of_kind(raw.name, table, int(bad[0]), f"{values[bad[0]]:g}", "boolean")
    if wanted == "categorical":
        distinct, places = np.unique(values, return_inverse=True)  # NaN is the last, once
        texts = [
            f"{int(value)}" if value.is_integer() else repr(float(value)) for value in distinct[~np.isnan(distinct)]
        ]
        codes = np.where(np.isnan(values), -1, places).astype(np.int32)
        return _categorical(raw.name, *_without_missing(RawColumn(raw.name, None, codes, tuple(texts)))), ""
    if wanted == "date" and raw.native != "date":
        raise DataError(
            f"{table.place}: column {raw.name!r} must hold dates to be one (data.kinds); it holds numbers: "
            'write them as texts such as "2024-02-29"'
        )
    return Column(raw.name, str(wanted), values), ""


def _categorical(name: str, codes: NDArray[np.int32], texts: Sequence[str]) -> Column:
    return Column(name, "categorical", codes, tuple(texts))


def _spread(values: NDArray[np.float64], codes: NDArray[np.int32]) -> NDArray[np.float64]:
    """A value for each text -> one for each row (N,), NaN where missing."""
    rows: NDArray[np.float64] = np.append(values, np.nan)[codes]
    return rows


def _settle_texts(name: str, table: RawTable, codes: NDArray[np.int32], texts: tuple[str, ...]) -> _Found:
    """The kind that fits all texts; categorical where none does."""
    if not texts:
        return Column(name, "numeric", np.full(len(codes), np.nan)), ""
    if (truths := truths_of(texts)) is not None:
        return Column(name, "boolean", _spread(truths, codes)), ""
    if (numbers := numbers_of(texts, decimal=table.decimal)) is not None:
        why = "" if numbers[1] == PLAIN else f"written as {numbers[1]}"
        return Column(name, "numeric", _spread(numbers[0], codes), form=numbers[1]), why
    times = times_of(texts)
    if isinstance(times, tuple):
        return Column(name, "date", _spread(times[0], codes), form=times[1]), f"written as {times[1]}"
    column = _categorical(name, codes, texts)
    if times == AMBIGUOUS:
        return column, 'dates whose day and month cannot be told apart; kinds = "date" takes the day first'
    return column, _strangers(table, codes, texts)


def _strangers(table: RawTable, codes: NDArray[np.int32], texts: tuple[str, ...]) -> str:
    """What few texts keep a column of numbers from being one; nothing where they are not few."""
    if 2 * sum(number_of(text) is not None for text in texts[:1000]) <= min(len(texts), 1000):
        return ""
    odd = [i for i, text in enumerate(texts) if number_of(text) is None]
    if not odd or 2 * len(odd) > len(texts):
        return ""
    rows = np.flatnonzero(np.isin(codes, odd))
    first = texts[codes[rows[0]]][:40]
    return f'numbers, but {first!r} in {table.where(int(rows[0]))} is none; kinds = "numeric" takes it as missing'


def _as_wanted(name: str, table: RawTable, found: _Texts, wanted: str, form: str) -> _Found:
    """Texts as the kind that a person says they have."""
    codes, texts = found
    if wanted in ("categorical", *LEFT_OUT):
        column = _categorical(name, codes, texts)
        return (column if wanted == "categorical" else replace(column, kind=wanted)), ""
    if not texts:
        return Column(name, wanted, np.full(len(codes), np.nan), form=form), ""
    if wanted == "boolean":
        truths = truths_of(texts) if not set(texts) <= {"0", "1"} else np.array([float(text) for text in texts])
        if truths is None:
            wrong = next(
                (i for i, text in enumerate(texts) if text not in ("0", "1") and truths_of((text,)) is None), 0
            )
            raise _not_of_kind(name, table, _first_row(codes, wrong), texts[wrong], "boolean")
        return Column(name, wanted, _spread(truths, codes)), ""
    if wanted == "date":
        times = times_of(texts, form=form, is_wanted=True)
        if not isinstance(times, tuple):
            row = _first_row(
                codes, next((i for i, text in enumerate(texts) if times_of((text,), form=form) is None), 0)
            )
            raise _not_of_kind(name, table, row, texts[codes[row]], "date")
        return Column(name, wanted, _spread(times[0], codes), form=times[1]), f"written as {times[1]}"
    numbers = numbers_of(texts, decimal=table.decimal, form=form, is_strict=False)
    if numbers is None:
        raise _not_of_kind(name, table, _first_row(codes, 0), texts[0], "numeric")
    odd = np.flatnonzero(np.isnan(numbers[0]))
    why = "" if numbers[1] == PLAIN else f"written as {numbers[1]}"
    if len(odd):
        rows = np.flatnonzero(np.isin(codes, odd))
        why = f"{len(rows):,} cells are no number and count as missing, such as {texts[codes[rows[0]]][:40]!r}"
    return Column(name, wanted, _spread(numbers[0], codes), form=numbers[1]), why


def _refuse_text(name: str, table: RawTable, found: _Texts, column: Column) -> None:
    """Refuse texts that became missing numbers."""
    odd = np.flatnonzero(np.isnan(column.values) & (found[0] >= 0))
    if len(odd):
        raise _not_of_kind(name, table, int(odd[0]), found[1][found[0][odd[0]]], "numeric")


def _first_row(codes: NDArray[np.int32], code: int) -> int:
    return int(np.flatnonzero(codes == code)[0])


def _not_of_kind(name: str, table: RawTable, row: int, text: str, kind: str) -> DataError:
    what = {
        "boolean": "true or false, yes or no, or 1 and 0",
        "date": "dates, all written in one way, such as 2024-02-29",
        "numeric": "numbers",
    }[kind]
    return DataError(
        f"{table.place}: column {name!r} must hold {what} to be {kind}; {table.where(row)} has {text[:40]!r}"
    )


def _refuse_infinite(column: Column, table: RawTable) -> None:
    infinite = np.flatnonzero(np.isinf(column.values))
    if len(infinite):
        raise DataError(
            f"{table.place}: features must be finite; column {column.name!r} is infinite in "
            f"{table.where(int(infinite[0]))}, {len(infinite)} cells in all: leave such cells empty if the value is "
            "missing"
        )


def _left_out(column: Column, why: str) -> _Found:
    """The column as an identifier or a constant, if it is one."""
    is_missing = column.is_missing
    there = column.values[~is_missing]
    if not len(there):
        return replace(column, kind="constant"), "has no value"
    if not is_missing.any() and (there == there[0]).all():
        return replace(column, kind="constant"), "never changes"
    if len(column) < MIN_ROWS:
        return column, why
    is_text = column.kind == "categorical" and not why and len(there) >= MIN_ROWS
    if is_text and len(column.categories) >= ALMOST_ALL * len(there):
        return replace(column, kind="identifier"), "almost every row has another text"
    if column.kind == "numeric" and not is_missing.any():
        return _identifier(column, why)
    return column, why


def _identifier(column: Column, why: str) -> _Found:
    """A numeric column as an identifier, if it counts the rows, or is called like one and tells all rows apart."""
    values = column.values
    if values[0] in (0.0, 1.0) and (np.diff(values) == 1).all():
        return replace(column, kind="identifier"), "counts the rows"
    is_named = _ID_NAME.fullmatch(column.name) is not None
    if is_named and (values == np.trunc(values)).all() and len(np.unique(values)) == len(values):
        return replace(column, kind="identifier"), "is called like an identifier, and every row has another"
    return column, why


def _finding(column: Column, why: str) -> Finding:
    there = column.values[~column.is_missing]
    n_missing = len(column) - len(there)
    if not len(there):
        return Finding(column.name, column.kind, why, n_missing, 0, "")
    n_distinct = len(column.categories) if column.categories else len(np.unique(there))
    return Finding(column.name, column.kind, why, n_missing, n_distinct, _example(column, there[0]))


def _example(column: Column, value: float) -> str:
    if column.categories:
        return column.categories[int(value)]
    if column.kind == "boolean":
        return "true" if value else "false"
    if column.kind == "date" and _FIRST_S <= value <= _LAST_S:
        return datetime.fromtimestamp(value, UTC).isoformat(sep=" ").removesuffix("+00:00").removesuffix(" 00:00:00")
    return f"{value:.10g}"


def as_known(settled: Settled, kind: str) -> Settled:
    """A column that another table has too, as it is there, where its cells allow it; else as it was found.

    Few rows may hide what a column is: numbers that are all 0 or 1 here, or all equal. What a person said stays.
    """
    if settled.is_by_hand or settled.column.kind == kind:
        return settled
    is_wider = kind == "numeric" and settled.kind == "boolean"
    if not (settled.kind == kind or is_wider or (kind == "boolean" and _is_truth(settled))):
        return settled
    column, finding = replace(settled.column, kind=kind), replace(settled.finding, kind=kind, why="")
    return replace(settled, column=column, finding=finding)


def _is_truth(settled: Settled) -> bool:
    """Whether a column of numbers holds 0 and 1 alone."""
    values = settled.column.values
    return settled.kind == "numeric" and bool((np.isnan(values) | np.isin(values, (0.0, 1.0))).all())


def keep_last_resort(settled: Sequence[Settled]) -> list[Settled]:
    """The same, but numeric identifiers are numbers where no feature would be left without them."""
    if any(one.column.kind not in LEFT_OUT for one in settled):
        return list(settled)
    return [
        replace(
            one,
            column=replace(one.column, kind="numeric"),
            finding=replace(
                one.finding, kind="numeric", why=f"{one.finding.why}; kept, since there is no other feature"
            ),
        )
        if one.column.kind == "identifier" and one.column.values.dtype == np.float64 and not one.is_by_hand
        else one
        for one in settled
    ]


def left_out_note(settled: Sequence[Settled]) -> str:
    """One sentence on the columns that are no features though nobody said so; empty where there is none."""
    found: dict[str, list[str]] = {}
    for one in settled:
        if one.column.kind in LEFT_OUT and not one.is_by_hand:
            found.setdefault(one.column.kind, []).append(repr(one.column.name))
    if not found:
        return ""
    parts = [
        f"{'identifiers' if kind == 'identifier' else 'constants'} {', '.join(names[:8])}"
        + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        for kind, names in sorted(found.items(), reverse=True)
    ]
    return f"left out as {'; as '.join(parts)}: [data] kinds corrects it"
