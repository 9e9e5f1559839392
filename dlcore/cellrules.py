"""How the cells of a column are read, as data: patterns and what takes the place of what they find.

An export's `model.json` has such rules for each of its columns, so that whoever has no dlcore (its `predict.py`, the
model in MLflow) reads a cell as `dlcore.cells.meaning` does: strip it, let each rule in turn replace what it finds
(`re.sub`), and take what is left as a text, a number (`float`), or a date (`datetime.fromisoformat`). A cell without a
value ends as "" or "nan", and one that has none of the column's kind as a sentence that says so and is neither number
nor date. So does a number that is infinite as float64, however it is written but for a few that nobody writes, such as
19e307.
"""

import re
from collections.abc import Sequence

from dlcore.cells import BIT, DATE_FORMS, DECIMAL_COMMA, GROUPED, ISO, MISSING, PLAIN, SPACE, TRUTH, parts_of_form

Rule = tuple[str, str]
"""A pattern and what takes the place of it, as `re.sub` takes them."""

_BAD = "\0"
"""Ends a sentence until the last rule, so that no rule changes it."""
_STILL_GOOD = r"(?![\s\S]*\0)"
_NAN = r"[+-]?[nN][aA][nN]"
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "june?", "july?", "aug", "sept?", "oct", "nov", "dec")
_LONG = {1: "january", 2: "february", 3: "march", 4: "april", 8: "august", 9: "september", 10: "october"} | {
    11: "november",
    12: "december",
}
_PLACES = {"year-month-day": r"\1-\3-\4", "yearmonthday": r"\1-\3-\4", "month/day/year": r"\4-\1-\3"} | {
    "day/month/year": r"\4-\3-\1",
    "day month year": r"\4-\3-\1",
    "month day year": r"\4-\1-\3",
}
"""Name in `DATE_FORMS` -> where year, month and day stand in its pattern."""
_LEAP = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_CALENDAR = (
    r"(?!0000)(?:\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    rf"|02-(?:0[1-9]|1\d|2[0-8]))|{_LEAP}-02-29)T"
)
"""Days that there are."""


def cell_rules(name: str, kind: str, form: str) -> list[Rule]:
    """The rules of a column.

    Args:
        name: For the sentence.
        kind: "numeric", "boolean", "date" or "categorical".
        form: How its cells are written; see `dlcore.columns.Column.form`.
    """
    missing = rf"(?ai)\A(?:{'|'.join(map(re.escape, sorted(MISSING)))})\Z"
    if kind == "categorical":
        return [(missing, "")]
    rules: list[Rule] = {"numeric": _number_rules, "boolean": _truth_rules, "date": _date_rules}[kind](
        name, f"{kind} cells{f', written as {form}' if form not in ('', PLAIN) else ''}", form
    )
    return [(missing, "nan"), *rules, (_BAD, "")]


def read_cell(cell: str, rules: Sequence[Rule]) -> str:
    """What is left of a cell: the twin of those who have no dlcore."""
    left = cell.strip()
    for pattern, new in rules:
        left = re.sub(pattern, new, left)
    return left


def _refusal(good: str, name: str, what: str) -> Rule:
    """Every cell but good ones becomes a sentence."""
    sentence = f"column {name!r} must hold {what}, not ".replace("\\", r"\\")
    return rf"\A(?!nan\Z|(?:{good})\Z)[\s\S]*", rf"{sentence}\g<0>{_BAD}"


def _good(pattern: str) -> str:
    """A pattern that finds nothing in a sentence."""
    return pattern + _STILL_GOOD


def _number_rules(name: str, what: str, form: str) -> list[Rule]:
    before, base, behind = parts_of_form(form)
    body = _NUMBER if base == PLAIN else GROUPED[base][0].removeprefix("[+-]?")
    if base == DECIMAL_COMMA:  # a comma alone is decimal
        body = f"(?:{body}|{_NUMBER.replace('.', ',')})".replace(r"\,", ",")
    rules: list[Rule] = []
    if before or behind:
        sign = re.escape(before or behind)
        signed = f"{sign}{SPACE}[+-]?{body}|[+-]{sign}{SPACE}{body}" if before else f"[+-]?{body}{SPACE}{sign}"
        rules = [_refusal(signed, name, what), (_good(f"{SPACE}{sign}{SPACE}"), "")]
    else:
        also = f"|{_NAN}" if base in (PLAIN, DECIMAL_COMMA) else ""  # what Python's float takes
        rules = [_refusal(f"[+-]?{body}{also}", name, what)]
    if base != PLAIN:
        _, thousands, decimal = GROUPED[base]
        rules.append((_good(f"[{re.escape(thousands)}]"), ""))
        if decimal != ".":
            rules.append((_good(re.escape(decimal)), "."))
    sentence = f"column {name!r} must hold finite numbers, not ".replace("\\", r"\\")
    return [*rules, (rf"\A{_infinite()}\Z", rf"{sentence}\g<0>{_BAD}")]


_LARGEST = "17976931348623158"
"""First digits of the largest float64, 1.7976931348623158e308."""


def _infinite() -> str:
    """A pattern of numbers as Python writes them that are larger than float64 can be."""
    beyond = (rf"{_LARGEST[1:i]}[{int(digit) + 1}-9]" for i, digit in enumerate(_LARGEST) if i > 0 and digit != "9")
    ways = [
        rf"1\.(?:{'|'.join(beyond)})\d*[eE]\+?0*308",
        *(
            rf"(?:[1-9]\d{{{309 - power},}}|[2-9]\d{{{308 - power}}})(?:\.\d*)?[eE]\+?0*{power}"
            for power in range(300, 309)
        ),
        r"[1-9]\d*(?:\.\d*)?[eE]\+?0*(?:309|3[1-9]\d|[4-9]\d\d|[1-9]\d{3,})",
        r"(?:[1-9]\d{309,}|[2-9]\d{308})(?:\.\d*)?(?:[eE]\+?\d+)?",
    ]
    return rf"[+-]?0*(?:{'|'.join(ways)})"


def _truth_rules(name: str, what: str, form: str) -> list[Rule]:
    words = [(rf"(?ai)\A{word}\Z", f"{truth:g}") for word, truth in TRUTH.items()]
    return [*words, _refusal(BIT, name, what)]


def _date_rules(name: str, what: str, form: str) -> list[Rule]:
    """To 2024-02-29T12:30:05.250000+01:00, which Python reads from 3.7 on."""
    way = form or ISO
    first = DATE_FORMS[way][0]
    # The second pattern of an alternation counts its groups from where the first ends.
    iso = DATE_FORMS[ISO][0].pattern.replace(r"\2", rf"\{first.groups + 2}")
    whole = first.pattern if way == ISO else f"{first.pattern}|{iso}"
    pattern, sentence = _refusal(whole, name, what)
    rules = [("(?a)" + pattern, sentence)]
    for one in dict.fromkeys((ISO, way)):
        rules.append((rf"(?a)\A{DATE_FORMS[one][0].pattern}\Z", _PLACES[one] + r"T\5:\6:\7.\8\9"))
    if "month" in way and " " in way:
        for number, word in enumerate(_MONTHS, 1):
            full = f"|{_LONG[number]}" if number in _LONG else ""
            rules.append((_good(rf"(?ai)-(?:{word}{full})-"), f"-{number:02}-"))
    pattern, sentence = _refusal(rf"{_CALENDAR}[\s\S]*|[\s\S]*\0", name, what)
    return [
        *rules,
        (_good(r"T::\."), "T00:00:00."),
        (_good(r":\."), ":00."),
        (_good(r"(?a)(?<=[-T])(\d)(?=[-T:])"), r"0\1"),
        (_good(r"(?a)\.(\d*)"), r".\g<1>000000"),
        (_good(r"(?a)(\.\d{6})\d*"), r"\1"),
        (_good(r"(?a)(\.\d{6})Z?\Z"), r"\1+00:00"),
        (_good(r"(?a)([+-]\d\d)(\d\d)\Z"), r"\1:\2"),
        ("(?a)" + pattern, sentence),
    ]
