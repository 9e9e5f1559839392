"""What the text of cells means: nothing, truth, a number or a time. Whole columns decide, never one cell alone.

Every function here takes the distinct texts of a column, stripped and without those that stand for nothing.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})
"""Cells without a value, stripped and in lower case."""
TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
_PAIRS = (frozenset({"true", "false"}), frozenset({"yes", "no"}), frozenset({"true", "false", "0", "1"}))

PLAIN = "1234.5"
GROUPED = {  # how the numbers of a column are written -> its pattern, its thousands separator, its decimal sign
    "1,234.5": (r"[+-]?(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d*)?", ",", "."),
    "1.234,5": (r"[+-]?(?:[1-9]\d{0,2}(?:\.\d{3})+|\d+)(?:,\d*)?", ".", ","),
    "1 234.5": (r"[+-]?(?:[1-9]\d{0,2}(?:[ \u00a0\u202f']\d{3})+|\d+)(?:\.\d*)?", " \u00a0\u202f'", "."),
    "1 234,5": (r"[+-]?(?:[1-9]\d{0,2}(?:[ \u00a0\u202f']\d{3})+|\d+)(?:,\d*)?", " \u00a0\u202f'", ","),
}
DECIMAL_COMMA = "1.234,5"
COMMAS = (DECIMAL_COMMA, "1 234,5")
"""Ways in which a comma is the decimal sign."""
SPACE = "[ \u00a0\u202f]?"
"""What may stand between a number and the sign beside it."""
BIT = r"0*([01])(?:\.0*)?"
"""A number that is a truth, where truths are wanted."""


def truths_of(texts: Sequence[str]) -> FloatArray | None:
    """1 and 0 (N,) where all say true or false, or yes or no; else None."""
    lowered = {text.lower() for text in texts}
    if lowered <= {"0", "1"} or not any(lowered <= pair for pair in _PAIRS):
        return None
    return np.array([TRUTH[text.lower()] if text not in "01" else float(text) for text in texts])


def number_of(text: str) -> float | None:
    """The number that Python reads, or None; `1_000` is none, 1e400 is infinite."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def numbers_of(
    texts: Sequence[str], *, decimal: str, form: str = "", is_strict: bool = True
) -> tuple[FloatArray, str] | None:
    """Numbers (N,) and how they are written, where all texts are numbers written in one way; else None.

    All may have the same sign of a currency before or behind the number, or all a percent sign behind it: 12.3 % is
    12.3.

    Args:
        texts: At least one.
        decimal: The sign in the other columns of the table; see `dlcore.rawcolumns.RawTable`.
        form: How they are written, if it is known already; "" is not.
        is_strict: False takes the way in which most texts are numbers, and gives NaN for the others.
    """
    ways = [PLAIN, *sorted(GROUPED, key=lambda way: (way == DECIMAL_COMMA) == (decimal == "."))]
    if decimal == ",":
        ways.sort(key=lambda way: way != DECIMAL_COMMA)
    signs = Counter(map(_sign_beside, texts[:1] if is_strict else texts))
    signs.pop(("", ""), None)
    for (before, behind), _ in signs.most_common(1):
        ways += [before + way + behind for way in ways]
    best: tuple[FloatArray, str] | None = None
    for way in [form] if form else ways:
        values = _numbers_in(texts, way, is_strict)
        if values is None:
            continue
        n_found = int((~np.isnan(values)).sum())
        if n_found == len(texts):
            return values, way
        if not is_strict and n_found and (best is None or n_found > (~np.isnan(best[0])).sum()):
            best = values, way
    return best


def _numbers_in(texts: Sequence[str], way: str, is_strict: bool) -> FloatArray | None:
    """Numbers (N,) written in one way, NaN for what is none; None at the first of these if strict."""
    values = np.full(len(texts), np.nan)
    before, base, behind = parts_of_form(way)
    matches = re.compile(GROUPED[base][0]).fullmatch if base != PLAIN else None
    for i, text in enumerate(texts):
        bare = _without_sign(text, before, behind) if before or behind else text
        number = None
        if bare is not None:
            number = number_of(bare) if matches is None else _translated(bare, base) if matches(bare) else None
        if number is not None:
            values[i] = number
        elif is_strict:
            return None
    return values


def _translated(text: str, way: str) -> float | None:
    _, separators, decimal = GROUPED[way]
    for separator in separators:
        text = text.replace(separator, "")
    return number_of(text.replace(decimal, "."))


def _is_sign(char: str) -> bool:
    """Of a currency, or of percent."""
    return char == "%" or unicodedata.category(char) == "Sc"


def _sign_beside(text: str) -> tuple[str, str]:
    """The sign before a number, or behind it; "" where there is none."""
    first, last = text.lstrip("+-")[:1], text[-1:]
    if first and first != "%" and _is_sign(first):
        return first, ""
    return "", last if last and _is_sign(last) else ""


def parts_of_form(form: str) -> tuple[str, str, str]:
    """The sign before, one of `PLAIN` and `GROUPED`, and the sign behind the numbers of a form; "" is `PLAIN`."""
    before, behind = (sign if sign and _is_sign(sign) else "" for sign in (form[:1], form[-1:]))
    return before, form[len(before) : len(form) - len(behind)] or PLAIN, behind


def _without_sign(text: str, before: str, behind: str) -> str | None:
    """A number's text without the sign beside it, and None without that sign: -$1 and $-1 are -1."""
    pattern = f"([+-]?){re.escape(before)}{SPACE}(.*)" if before else f"()(.*?){SPACE}{re.escape(behind)}"
    found = re.fullmatch(pattern, text, re.DOTALL)
    if found is None or not found[2] or found[2].lstrip("+-")[:1] not in set("0123456789.,"):
        return None
    return found[1] + found[2]


_TIME = (
    r"(?:(?:T|,? +)([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:[.,](\d{1,9}))?)? ?"
    r"(Z|[+-](?:[01]\d|2[0-3]):?[0-5]\d)?)?"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FULL = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_MONTH_OF = {name: i % 12 + 1 for i, name in enumerate((*_MONTHS, *_FULL))} | {"sept": 9}
_YMD = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})" + _TIME, re.ASCII)
_DMY = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})" + _TIME, re.ASCII)
_D_NAME_Y = re.compile(r"(\d{1,2})\.?([ -])([A-Za-z]{3,9})\.?,?\2(\d{4})" + _TIME, re.ASCII)
_NAME_D_Y = re.compile(r"([A-Za-z]{3,9})\.?( )(\d{1,2}),? (\d{4})" + _TIME, re.ASCII)
_COMPACT = re.compile(r"(\d{4})()(\d{2})(\d{2})" + _TIME, re.ASCII)
_Parts = tuple[int, int, int]

DATE_FORMS: dict[str, tuple[re.Pattern[str], Callable[[str, str, str], _Parts]]] = {
    "year-month-day": (_YMD, lambda y, m, d: (int(y), int(m), int(d))),
    "day/month/year": (_DMY, lambda d, m, y: (int(y), int(m), int(d))),
    "month/day/year": (_DMY, lambda m, d, y: (int(y), int(m), int(d))),
    "day month year": (_D_NAME_Y, lambda d, m, y: (int(y), _MONTH_OF.get(m.lower(), 0), int(d))),
    "month day year": (_NAME_D_Y, lambda m, d, y: (int(y), _MONTH_OF.get(m.lower(), 0), int(d))),
    "yearmonthday": (_COMPACT, lambda y, m, d: (int(y), int(m), int(d))),
}
"""How the dates of a column are written -> its pattern, and year, month and day of what stands there."""
ISO = "year-month-day"
AMBIGUOUS = "day or month first"


def times_of(texts: Sequence[str], *, form: str = "", is_wanted: bool = False) -> tuple[FloatArray, str] | str | None:
    """Seconds since 1970-01-01 UTC (N,), and how they are written; a time without a zone is UTC.

    Args:
        texts: At least one.
        form: One of `DATE_FORMS`, if it is known already; "" is not. What is written as `ISO` is understood beside it,
            since it can be taken for nothing else.
        is_wanted: A person said that these are dates: so 20240229 is one, and the day comes first where any may.

    Returns:
        None where not all are dates written in one way; `AMBIGUOUS` where both orders of day and month fit all texts
        and give different dates.
    """
    if form:
        known = _times_in(texts, form, ISO)
        return None if known is None else (known, form)
    forms = [way for way in DATE_FORMS if is_wanted or way != "yearmonthday"]
    found = [(values, way) for way in forms if (values := _times_in(texts, way)) is not None]
    if not found:
        return None
    is_dotted = "." in texts[0].split(" ")[0]  # 3.4.2024 has its day first everywhere
    if len(found) > 1 and not is_wanted and not is_dotted and not np.array_equal(found[0][0], found[1][0]):
        return AMBIGUOUS
    return found[0]


def _times_in(texts: Sequence[str], *ways: str) -> FloatArray | None:
    """Seconds (N,) where all texts are dates written in one of these ways; else None."""
    values = np.empty(len(texts))
    for i, text in enumerate(texts):
        found = next((time for way in ways if (time := _time(text, way)) is not None), None)
        if found is None:
            return None
        values[i] = found
    return values


def _time(text: str, way: str) -> float | None:
    """Seconds of a date written in one way."""
    pattern, order = DATE_FORMS[way]
    if (match := pattern.fullmatch(text)) is None:
        return None
    first, _, second, third, hour, minute, second_s, fraction, zone = match.groups()
    try:
        days = date(*order(first, second, third)).toordinal() - _EPOCH
    except ValueError:
        return None
    clock = int(hour or 0) * 3600 + int(minute or 0) * 60 + int(second_s or 0)
    return days * 86_400 + clock + (float(f"0.{fraction}") if fraction else 0.0) - _offset(zone)


_EPOCH = date(1970, 1, 1).toordinal()


def _offset(zone: str | None) -> int:
    """Seconds that a zone is ahead of UTC."""
    if zone is None or zone == "Z":
        return 0
    digits = zone[1:].replace(":", "")
    return (1 if zone[0] == "+" else -1) * (int(digits[:2]) * 3600 + int(digits[2:]) * 60)


def meaning(kind: str, form: str) -> Callable[[str], float | None]:
    """What a text is worth in a column whose kind and form are known: the one rule of all who answer rows.

    Args:
        kind: "numeric", "boolean" or "date".
        form: How the column's cells are written; "" is `PLAIN`, and `ISO`.

    Returns:
        From a text, stripped and not one that stands for nothing, to its value; None where it has none.
    """
    return _MEANINGS[kind](form)


def _number_written(form: str) -> Callable[[str], float | None]:
    before, base, behind = parts_of_form(form)

    def value(text: str) -> float | None:
        bare = _without_sign(text, before, behind) if before or behind else text
        return None if bare is None else _bare_number(bare, base)

    return value


def _bare_number(text: str, base: str) -> float | None:
    if base == PLAIN:
        return number_of(text)
    if base == DECIMAL_COMMA and "." not in text:
        return number_of(text.replace(",", "."))
    return _translated(text, base) if re.fullmatch(GROUPED[base][0], text) else None


def _time_written(form: str) -> Callable[[str], float | None]:
    def value(text: str) -> float | None:
        found = _times_in((text,), form or ISO, ISO)
        return None if found is None else float(found[0])

    return value


def _truth_written(form: str) -> Callable[[str], float | None]:
    def value(text: str) -> float | None:
        bit = re.fullmatch(BIT, text)
        return float(bit[1]) if bit else TRUTH.get(text.lower())

    return value


_MEANINGS: Mapping[str, Callable[[str], Callable[[str], float | None]]] = {
    "numeric": _number_written,
    "boolean": _truth_written,
    "date": _time_written,
}
