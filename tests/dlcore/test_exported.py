"""Of loading alone; what an export answers is asked in `test_export.py`."""

import subprocess
import sys


def test_whoever_uses_an_export_needs_neither_torch_nor_scikit_learn():
    code = "import sys, dlcore.exported\nprint(sorted({'torch', 'sklearn', 'safetensors'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
