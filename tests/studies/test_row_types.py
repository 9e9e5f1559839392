"""What an export says of itself to those who ask its server."""

import json
from pathlib import Path

from dlcore.export import export_model
from dlcore.exported import ExportedModel
from studies.row_types import describe
from tests.dlcore.column_tools import splits_of_all_kinds
from tests.dlcore.test_export import make_network


def test_it_is_not_told_where_the_table_of_the_training_lies(tmp_path: Path) -> None:
    splits = splits_of_all_kinds("binary")
    network, config = make_network(splits)
    facts = {"study": "made", "spec": {"seed": 7, "data": {"path": "/home/ann/clinic/patients.csv", "target": ["y"]}}}
    model = ExportedModel.load(export_model(tmp_path / "export", network, config, splits, facts))
    said = describe(model)
    assert said["facts"] == {"study": "made", "spec": {"seed": 7, "data": {"path": "patients.csv", "target": ["y"]}}}
    assert "clinic" not in json.dumps(said)
    assert model.manifest["facts"] == facts
