"""Of loading alone; what an export answers is asked in `test_export.py`."""

import subprocess
import sys

from dlcore.config import PreprocessConfig
from dlcore.export import export_model
from dlcore.exported import ExportedModel
from tests.dlcore.column_tools import splits_of_all_kinds
from tests.dlcore.test_export import make_network


def test_whoever_uses_an_export_needs_neither_torch_nor_scikit_learn():
    code = "import sys, dlcore.exported\nprint(sorted({'torch', 'sklearn', 'safetensors'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_a_row_gets_the_same_bits_whatever_stands_beside_it(tmp_path):
    for task in ("regression", "multiclass"):
        splits = splits_of_all_kinds(task, PreprocessConfig("quantile_normal"))
        model, config = make_network(splits)
        exported = ExportedModel.load(export_model(tmp_path / task, model, config, splits, {}))
        columns = {column.name: column.raw() for column in splits.val.x.columns}
        whole = exported.predict(columns)
        for start, stop in ((0, 1), (3, 4), (1, 8), (5, 22), (2, 35)):
            part = exported.predict({name: values[start:stop] for name, values in columns.items()})
            assert {name: a.tolist() for name, a in part.items()} == {
                n: a[start:stop].tolist() for n, a in whole.items()
            }
