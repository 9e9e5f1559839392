import re
from dataclasses import replace

import numpy as np
import pytest

from dlcore.card import escaped, seen, table
from dlcore.columns import Column
from dlcore.config import ModelConfig, PreprocessConfig
from dlcore.ensemble import Part
from dlcore.export import Story, export_model, export_parts
from dlcore.models import build_model
from tests.dlcore.column_tools import splits_of_all_kinds, texts


def card(folder, task, config=None, n_parts=1, story=Story()):  # noqa: B008
    splits = splits_of_all_kinds(task, config)
    model = ModelConfig(splits.n_features, splits.n_outputs, (8, 4))
    parts = [Part(build_model(model, i), model, splits.preprocessor) for i in range(n_parts)]
    return (export_parts(folder / "out", parts, splits, story) / "README.md").read_text()


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_it_says_what_a_stranger_must_know(tmp_path, task):
    story = Story(title="my table", sections={"Results": "accuracy 0.9", "Rivals": "none"})
    text = card(tmp_path, task, story=story)
    assert re.findall(r"^# (.*)$", text, re.M) == ["my table"]
    assert re.findall(r"^## (.*)$", text, re.M) == [
        "How to use it", "Data", "Columns", "Network", "Results", "Rivals", "Limits", "Versions",
    ]  # fmt: skip
    for told in ("| train | 600 |", "| test | 150 |", "0" * 64, "hidden layers of 8, 4 units", "onnxruntime", "0.9"):
        assert told in text
    inputs, outputs = (33, 3) if task == "multiclass" else (31, 1)  # a share of each class beside how common a text is
    assert f"{inputs * 8 + 8 + 8 * 4 + 4 + 5 * outputs:,} parameters" in text
    unit = {"binary": "no, yes", "multiclass": "3, 5, 8", "regression": "t0 is 136.978 to 66,174 in training"}
    assert unit[task] in text
    assert "no answer lies outside" not in text


def test_an_ensemble_and_a_transformed_target_are_said(tmp_path):
    text = card(tmp_path, "regression", PreprocessConfig(target_transform="log"), n_parts=3)
    assert "An ensemble: the mean of the standardised values of 3 networks." in text
    assert "66,174 in training; no answer lies outside" in text
    assert f"{3 * (31 * 8 + 8 + 8 * 4 + 4 + 5):,} parameters" in text


def test_with_folds_it_has_seen_the_rows_of_val_too(tmp_path):
    splits = splits_of_all_kinds("binary")
    model = ModelConfig(splits.n_features, splits.n_outputs, (8,))
    for folds, n_rows in (((), 600), (((np.arange(600), np.arange(600, 750)),), 750)):
        folder = export_model(tmp_path / str(n_rows), build_model(model, 1), model, replace(splits, folds=folds), {})
        text = (folder / "README.md").read_text()
        assert f"It has seen {n_rows} rows" in text
        told = [int(n) for n in re.findall(r"(?:no|yes) \((\d+)\)", text)]
        assert len(told) == 2 and sum(told) == n_rows


def test_what_each_kind_of_column_holds_in_training_is_said():
    holes = np.array([np.nan, 1.5, -2.0])
    assert seen(Column("a", "numeric", holes)) == "-2 to 1.5"
    assert seen(Column("a", "numeric", np.array([2e9, 2e9 + 0.25]))) == "2,000,000,000 to 2,000,000,000.25"
    assert seen(Column("a", "numeric", np.full(3, np.nan))) == "no value"
    assert seen(Column("a", "boolean", np.array([1.0, 0.0, np.nan, 1.0]))) == "true in 67%"
    assert seen(Column("a", "date", np.array([0.0, 86_400.0 * 365 + 60]))) == "1970-01-01 to 1971-01-01 00:01:00"
    assert seen(Column("a", "date", np.array([-1e18]))) == "-1000000000000000000 s to -1000000000000000000 s"
    assert seen(texts("a", ["d", "b", "c", "a", "a", ""])) == "4 texts: a, b, c, .."


def test_texts_of_a_table_stay_texts(tmp_path):
    assert escaped("a|b\n<script>`*x*`") == r"a\|b \<script\>\`\*x\*\`"
    assert len(escaped("x" * 500)) == 60
    assert table(("a", "b"), [("1|2", "[x](http://y)")]).splitlines()[-1] == r"| 1\|2 | \[x\](http://y) |"


def test_the_same_network_has_the_same_card(tmp_path):
    splits = splits_of_all_kinds("binary")
    model = ModelConfig(splits.n_features, splits.n_outputs, (8,))
    one, two = (export_model(tmp_path / n, build_model(model, 1), model, splits, {}) for n in "ab")
    assert (one / "README.md").read_text() == (two / "README.md").read_text()
