"""The script in an export that answers a CSV file with onnxruntime and numpy alone: some twenty lines, and a few more
where a table has true-or-false cells, dates, or numbers that are not written as Python writes them.

It reads cells as `dlcore.csvfile` and `dlcore.kinds` do; a test holds its answers against theirs.
"""

from collections.abc import Mapping, Sequence

from dlcore.cells import DATE_FORMS, GROUPED, MISSING, TRUTH

_HEAD = '''\
"""Answers the rows of a CSV file: python predict.py rows.csv > answers.csv. Needs numpy and onnxruntime only."""

import csv
import hashlib
import json
import os
%(imports)simport sys
%(more_imports)sfrom itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent
for line in (HERE / "SHA256SUMS").read_text().splitlines():
    if hashlib.sha256((HERE / line[66:]).read_bytes()).hexdigest() != line[:64]:
        sys.exit(f"{HERE / line[66:]} must be as it was written, and is not: copy the export again")
MODEL = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
SESSION = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=["CPUExecutionProvider"])
MISSING = %(missing)r
'''

_TRUTH = """TRUTH = %(truth)r
"""

_GROUPED_HEAD = """GROUPED = %(grouped)r  # form -> pattern, thousands, decimal sign
"""
_NUMBER = '''

def number(cell, form):
    """The number in a cell."""
%s    value = float(cell.replace("_", "?"))
    if np.isinf(value):
        raise ValueError(cell + " is infinite")
    return value
'''
_GROUPED = """    if form in GROUPED:
        pattern, thousands, decimal = GROUPED[form]
        if not re.fullmatch(pattern, cell):
            raise ValueError(cell)
        cell = cell.translate(str.maketrans("", "", thousands)).replace(decimal, ".")
"""

_DATE_HEAD = """DATES = %(dates)r  # form -> pattern, order
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
"""
_DATE = '''

def seconds(cell, form):
    """The date in a cell, as seconds since 1970 in UTC."""
    pattern, order = DATES[form]
    if not (found := re.fullmatch(pattern, cell)):
        raise ValueError(cell)
    first, _, second, third, hour, minute, second_s, fraction, zone = found.groups()
    day = dict(zip(order, (first, second, third)))
    month = int(day["m"]) if day["m"].isdigit() else 1 + MONTHS.index(day["m"][:3].lower())
    clock = (int(part or 0) for part in (hour, minute, second_s))
    whole = datetime(int(day["y"]), month, int(day["d"]), *clock, tzinfo=timezone.utc).timestamp()
    ahead = 0 if zone in (None, "Z") else int(zone[1:3]) * 3600 + int(zone[-2:]) * 60
    return whole + float(f"0.{fraction or 0}") - (-ahead if zone and zone[0] == "-" else ahead)
'''

_ANSWER = '''

def answer(rows):
    """Rows, each as column -> cell, to output -> values."""
    inputs = {}
    for name, kind, form in ((c["name"], c["kind"], c["form"]) for c in MODEL["columns"]):
        cells = [row[name].strip() for row in rows]
        nothing = "" if kind == "categorical" else np.nan
        try:
            values = [nothing if cell.lower() in MISSING else READ[kind](cell, form) for cell in cells]
        except (ValueError, KeyError) as error:
            raise ValueError(f"column {name!r} must hold {kind} cells {form}: {error}") from None
        inputs[MODEL["inputs"][name]] = np.array(values, dtype=object if kind == "categorical" else np.float64)
    return dict(zip(MODEL["outputs"], SESSION.run(list(MODEL["outputs"].values()), inputs)))


def guarded(value):
    """A text that no spreadsheet takes for a formula."""
    return "'" + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def main(path):
    """Write the answers of a file's rows, in their order."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        separator = max(",;\\t|", key=file.readline().count)
        file.seek(0)
        lines = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
        header = [name.strip() for name in next(lines, [])]
        if len(set(header)) < len(header):
            sys.exit(f"{path} must have each column once; got {header}")
        if missing := [c["name"] for c in MODEL["columns"] if c["name"] not in header]:
            sys.exit(f"{path} must have the columns of the training; missing: {missing}")
        rows = (dict(zip(header, cells, strict=True)) for cells in lines if len(cells) > 1 or "".join(cells).strip())
        out = csv.writer(sys.stdout, lineterminator="\\n")
        out.writerow(MODEL["outputs"])
        try:
            while some := list(islice(rows, 10_000)):
                out.writerows(zip(*(map(guarded, values.tolist()) for values in answer(some).values())))
        except (ValueError, csv.Error) as error:
            sys.exit(f"{path}, up to line {lines.line_num}: {error}")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    try:
        main(sys.argv[1]) if len(sys.argv) == 2 else sys.exit(__doc__)
    except BrokenPipeError:  # whoever read the answers has enough
        os._exit(141)
    except (OSError, UnicodeError) as error:
        sys.exit(f"{sys.argv[1]} must be a CSV file in UTF-8: {error}")
'''

_ORDERS = {
    "year-month-day": "ymd",
    "day/month/year": "dmy",
    "month/day/year": "mdy",
    "day month year": "dmy",
    "month day year": "mdy",
    "yearmonthday": "ymd",
}
"""Name in `dlcore.cells.DATE_FORMS` -> its parts in the order of the pattern."""
_READ = {
    "numeric": "number",
    "boolean": "lambda cell, form: TRUTH[cell.lower()]",
    "date": "seconds",
    "categorical": "lambda cell, form: cell",
}


def predict_script(columns: Sequence[Mapping[str, object]]) -> str:
    """The script for a table.

    Args:
        columns: "kind" and "form" of each.
    """
    kinds = [kind for kind in _READ if any(c["kind"] == kind for c in columns)]
    forms = {str(c["form"]) for c in columns if c["kind"] == "numeric"}
    grouped = {form: GROUPED[form] for form in sorted(forms & GROUPED.keys())}
    dates = {str(c["form"]): str(c["form"]) or "year-month-day" for c in columns if c["kind"] == "date"}
    patterns = {form: (DATE_FORMS[way][0].pattern, _ORDERS[way]) for form, way in sorted(dates.items())}
    values = {
        "imports": "import re\n" if grouped or dates else "",
        "more_imports": "from datetime import datetime, timezone\n" if dates else "",
        "missing": sorted(MISSING),
        "truth": TRUTH | {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0},
        "dates": patterns,
        "grouped": grouped,
    }
    heads = [_HEAD, *([_TRUTH] if "boolean" in kinds else []), *([_GROUPED_HEAD] if grouped else [])]
    text = "".join([*heads, *([_DATE_HEAD] if dates else [])]) % values
    numbers = _NUMBER % (_GROUPED if grouped else "") if "numeric" in kinds else ""
    text += numbers + (_DATE if dates else "") + ("\n\n" if numbers or dates else "")
    text += "READ = {" + ", ".join(f'"{kind}": {_READ[kind]}' for kind in kinds) + "}\n"
    return text + _ANSWER
