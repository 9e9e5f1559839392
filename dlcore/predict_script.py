"""The script in an export that answers a CSV file with onnxruntime and numpy alone: the same for every table.

What differs from table to table is data in `model.json`; `dlcore.cellrules` says how cells are read there, and a test
holds the script's answers against dlcore's.
"""

PREDICT_SCRIPT = '''\
"""Answers the rows of a CSV file: python predict.py rows.csv > answers.csv. Needs numpy and onnxruntime only."""

import csv
import hashlib
import json
import re
import signal
import sys
from datetime import datetime
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime

USAGE, HERE = "python predict.py rows.csv > answers.csv", Path(__file__).resolve().parent
for line in (HERE / "SHA256SUMS").read_text().splitlines():
    if hashlib.sha256((HERE / line[66:]).read_bytes()).hexdigest() != line[:64]:
        sys.exit(f"{HERE / line[66:]} must be as it was written, and is not: copy the export again")
MODEL = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
SESSION = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=["CPUExecutionProvider"])
READ = {"categorical": str, "date": lambda iso: datetime.fromisoformat(iso).timestamp() if iso != "nan" else np.nan}


def answer(rows):
    """Rows, each as column -> cell, to output -> values; the rules in model.json say what a cell is worth."""
    inputs = {}
    for node, column in zip(SESSION.get_inputs(), MODEL["columns"]):
        cells = [row[column["name"]].strip() for row in rows]
        for pattern, new in column["cells"]:
            cells = [re.sub(pattern, new, cell) for cell in cells]
        inputs[node.name] = np.array([READ.get(column["kind"], float)(cell) for cell in cells])
        if column["kind"] == "numeric" and np.isinf(inputs[node.name]).any():
            raise ValueError(f"column {column['name']!r} must hold finite numbers, and has an infinite one")
    return dict(zip(MODEL["outputs"], SESSION.run(None, inputs)))


def safe(value):
    """A text that no spreadsheet takes for a formula."""
    return "'" + value if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


if __name__ == "__main__":
    signal.signal(getattr(signal, "SIGPIPE", signal.SIGTERM), signal.SIG_DFL)  # whoever reads may have enough
    lines = csv.reader(())  # none yet
    sys.excepthook = lambda kind, error, trace: print(f"{USAGE}: {error}; line {lines.line_num}", file=sys.stderr)
    with open(sys.argv[1], newline="", encoding="utf-8-sig") as file, open(1, "w", encoding="utf-8") as out:
        lines = csv.reader(file, delimiter=max(",;\\t|", key=file.readline().count), skipinitialspace=True, strict=True)
        file.seek(0)
        header = [name.strip() for name in next(lines, [])]
        if wrong := [c["name"] for c in MODEL["columns"] if header.count(c["name"]) != 1]:
            raise ValueError(f"the header must have each column of the training once; missing: {wrong}")
        rows = (dict(zip(header, row, strict=True)) for row in lines if len(row) > 1 or "".join(row).strip())
        (answers := csv.writer(out, lineterminator="\\n")).writerow(MODEL["outputs"])
        while some := list(islice(rows, 10_000)):
            answers.writerows(zip(*(map(safe, values.tolist()) for values in answer(some).values())))
'''
