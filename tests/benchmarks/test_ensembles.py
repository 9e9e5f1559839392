"""benchmarks.ensembles: a small study of each kind gives a whole row."""

from pathlib import Path

import pytest
from sklearn.datasets import load_wine

from benchmarks import ensembles


@pytest.mark.slow
def test_a_table_has_a_row_with_every_number(tmp_path: Path) -> None:
    frame = load_wine(as_frame=True).frame
    frame.to_csv(tmp_path / "wine.csv", index=False)
    line = ensembles.line_of(tmp_path / "wine.csv", "target", [0], 3)
    assert len(line) == len(ensembles.HEADER) and line[:2] == ["wine", "accuracy"]
    assert all(0.3 < float(value) <= 1 for value in line[2:5])
    assert all(text in ("0 of 1", "1 of 1") for text in line[5:7]) and 1 <= int(line[7]) <= 20
