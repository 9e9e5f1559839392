import json
import os
import random
from collections import Counter

import numpy as np
import pytest
import torch

from dlcore.errors import ExportError
from dlcore.export import load_network
from dlcore.exported import ExportedModel
from dlcore.manifest import name_interface, what_is_wrong
from tests.dlcore.column_tools import of_all_kinds, raw, splits_of_all_kinds
from tests.dlcore.forging import forge, forged
from tests.dlcore.test_predict_script import an_export

N_FORGERIES = int(os.environ.get("TORTURE") or 60)
"""`TORTURE=N` makes it N."""


def test_names_in_the_graph_differ_from_those_of_people_only_where_they_must():
    interface = name_interface(["a", "label", ""], ["y"], ["no", "yes"])
    assert interface.inputs == {"a": "a", "label": "label", "": "_"}
    assert interface.outputs == {"label": "label_", "probability_no": "probability_no"} | {
        "probability_yes": "probability_yes"
    }
    assert list(name_interface(["a"], ["t"], []).outputs) == ["prediction"]
    assert list(name_interface(["a"], ["t", "u"], []).outputs) == ["prediction_t", "prediction_u"]


@pytest.fixture(scope="module", params=[("binary", 1), ("regression", 2)], ids=lambda p: p[0])
def made(request, tmp_path_factory):
    task, n_parts = request.param
    export = an_export(tmp_path_factory.mktemp("forged") / "export", splits_of_all_kinds(task), n_parts)
    return export, json.loads((export / "model.json").read_text())


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("task",), "ranking", "task must be one of binary, multiclass, regression"),
        (("class_labels",), {"a": 1}, "class_labels must be texts, or numbers"),
        (("class_labels",), ["a", "b", "c", "a"], "class_labels must be those of"),
        (("target_names",), [], "target_names must be texts"),
        (("columns",), [], "columns must be objects"),
        (("columns", 0, "kind"), "colour", "the kind of column 'size' must be one of numeric"),
        (("columns", 0, "form"), "1_000", "the form of column 'size' must be one of numbers"),
        (("columns", 0, "name"), "year", "columns must have different names"),
        (("columns", 0, "example"), "many", "the example of column 'size'"),
        (("columns", 0, "cells"), [["a"]], "the cells of column 'size'"),
        (("inputs", "size"), "year", "inputs must be those"),
        (("outputs",), None, "outputs must be those"),
        (("data",), [], "data must have a name"),
        (("versions",), 3, "versions and facts must be objects"),
    ],
)
def test_what_is_wrong_is_said(made, place, value, said):
    manifest = json.loads(json.dumps(made[1]))
    assert what_is_wrong(manifest) == ""
    inner = manifest
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    assert what_is_wrong(manifest).startswith(said)


def test_a_forged_manifest_with_right_sums_is_refused_by_name_or_answers_the_same(made):
    export, manifest = made
    rows = of_all_kinds(5, holes=0.2)

    def by_graph():
        return {name: values.tolist() for name, values in ExportedModel.load(export).predict(raw(rows)).items()}

    def by_torch():
        network, preprocessor, _ = load_network(export)
        with torch.no_grad():
            return network(torch.from_numpy(preprocessor.transform(rows)).float()).tolist()

    ways = {"graph": by_graph, "torch": by_torch}
    expected = {way: ask() for way, ask in ways.items()}
    outcomes: Counter[tuple[str, str]] = Counter()
    try:
        for seed in range(N_FORGERIES):
            new, what = forged(manifest, random.Random(seed))
            forge(export, new)
            for way, ask in ways.items():
                try:
                    found = ask()
                except ExportError as error:
                    assert "model.json" in str(error) or "weights.safetensors" in str(error), what
                    outcomes[way, "refused"] += 1
                else:
                    assert found == expected[way], (way, what)
                    outcomes[way, "equal"] += 1
    finally:
        forge(export, manifest)
    assert len(outcomes) == 4, outcomes
    assert np.isfinite(expected["torch"]).all()
