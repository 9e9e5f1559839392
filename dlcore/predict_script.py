"""The script in an export that answers a CSV file with onnxruntime and numpy alone: the same for every table.

What differs from table to table is data in `model.json`; `dlcore.cellrules` says how cells are read there, and a test
holds the script's answers against dlcore's. It keeps the file in memory; `studies predict` does not.
"""

PREDICT_SCRIPT = '''\
"""Answers the rows of a CSV file: python predict.py rows.csv > answers.csv. Needs only onnxruntime and numpy."""

import argparse
import csv
import hashlib
import json
import re
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import onnxruntime

FOLDER = Path(__file__).resolve().parent
READ = {"date": lambda iso: datetime.fromisoformat(iso).timestamp() if iso != "nan" else iso}


def values(cells, column):
    """What the cells of a column are worth: what its rules in model.json leave of them."""
    for pattern, new in column["cells"]:
        cells = [re.sub(pattern, new, cell) for cell in cells]
    return np.array([READ.get(column["kind"], str)(cell) for cell in cells], column["dtype"])


try:
    for line in (FOLDER / "SHA256SUMS").read_text().splitlines():
        if hashlib.sha256((FOLDER / line[66:]).read_bytes()).hexdigest() != line[:64]:
            raise ValueError(f"{FOLDER / line[66:]} must be as it was written, and is not: copy the export again")
    model = json.loads((FOLDER / "model.json").read_bytes())
    network = onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), providers=["CPUExecutionProvider"])
    lines = list(open(sys.argv[1], newline="\\n", encoding="utf-8-sig"))
    rows = csv.reader(lines, delimiter=max(",;\\t|", key=lines[0].count), skipinitialspace=True, strict=True)
    header, *rows = [tuple(map(str.strip, row)) for row in rows if len(row) > 1 or "".join(row).strip()]
    table = np.array(rows, {"names": header, "formats": [object] * len(header)})
    answers = network.run(None, {model["inputs"][c["name"]]: values(table[c["name"]], c) for c in model["columns"]})
    csv.writer(open(1, "w", encoding="utf-8"), lineterminator="\\n").writerows([model["outputs"], *zip(*answers)])
except (OSError, IndexError, ValueError, csv.Error) as error:
    argparse.ArgumentParser(usage="python predict.py rows.csv > answers.csv (with the training's columns)").error(error)
'''
