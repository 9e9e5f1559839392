"""The script in an export that answers a CSV file with onnxruntime and numpy alone: the same for every table.

What differs from table to table is data in `model.json`; `dlcore.cellrules` says how cells are read there, and a test
holds the script's answers against dlcore's. It keeps the file in memory; `studies predict` does not.

Rows are read one after the other, so that an error can say to which line it had come. Answers are written line by line:
what is left in a buffer at the end would be lost on a full disk without a word.
"""

PREDICT_SCRIPT = '''\
"""python predict.py rows.csv > answers.csv (with the training's columns); needs only onnxruntime and numpy."""

import argparse
import csv
import hashlib
import json
import os
import re
import signal
import sys
from datetime import datetime
from functools import reduce
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime would report to its maker, from its import on

import numpy as np
import onnxruntime

FOLDER, reader = Path(__file__).resolve().parent, csv.reader([])
READ = {"date": lambda iso: datetime.fromisoformat(iso).timestamp() if iso != "nan" else float(iso), "categorical": str}
sys.excepthook = lambda _, error, __: argparse.ArgumentParser(usage=__doc__).error(f"{error} (line {reader.line_num})")
getattr(signal, "SIGPIPE", None) and signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def value(row, column):
    """What a cell is worth: what the rules of its column in model.json leave of it."""
    return READ.get(column["kind"], float)(reduce(lambda s, r: re.sub(*r, s), column["cells"], row[column["name"]]))


for line in (FOLDER / "SHA256SUMS").read_text().splitlines():
    if hashlib.sha256((FOLDER / line[66:]).read_bytes()).hexdigest() != line[:64]:
        raise ValueError(f"{FOLDER / line[66:]} must be as it was written, and is not: copy the export again")
model = json.loads((FOLDER / "model.json").read_bytes())
lines = list(open(sys.argv[1], newline="\\n", encoding="utf-8-sig")) or [""]
reader = csv.reader(lines, delimiter=max(",;\\t|", key=lines[0].count), skipinitialspace=True, strict=True)
rows = (tuple(map(str.strip, row)) for row in reader if len(row) > 1 or "".join(row).strip())
header = next(rows, ())
if wrong := [c["name"] for c in model["columns"] if header.count(c["name"]) != 1]:
    raise ValueError(f"the file must have the columns {', '.join(wrong)}, each once")
table = [[value(row, c) for c in model["columns"]] for row in (dict(zip(header, row, strict=True)) for row in rows)]
inputs = {model["inputs"][c["name"]]: np.array([row.pop(0) for row in table], c["dtype"]) for c in model["columns"]}
answers = onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), providers=["CPUExecutionProvider"]).run(None, inputs)
csv.writer(open(1, "w", 1, "utf-8"), lineterminator="\\n").writerows([model["outputs"], *zip(*answers)])
'''
