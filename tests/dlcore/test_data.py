from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from dlcore.config import SCALINGS, SKLEARN_SETS, TARGET_TRANSFORMS, DataConfig, PreprocessConfig, SplitConfig
from dlcore.data import SPLITS, DataSplits, load_splits, split_tensors, to_tensors
from dlcore.errors import DataError
from dlcore.preprocess import fit_preprocessor
from dlcore.tables import read_table


def load(folder: Path, text: str, seed: int = 0, **fields: object) -> DataSplits:
    path = folder / "table.csv"
    path.write_text(text)
    fields = {"kinds": {"a": "numeric"}} | fields  # it counts the rows
    return load_splits(DataConfig(path=str(path), target=("y",), **fields), seed)  # type: ignore[arg-type]


def rows(n: int, y: str) -> str:
    """A CSV with a, b (holes in it) and y, an expression in i."""
    return "a,b,y\n" + "".join(f"{i},{'' if i % 3 == 0 else i**2},{eval(y, {'i': i})}\n" for i in range(n))


@pytest.mark.parametrize(
    ("name", "task", "n_features", "n_outputs"),
    [
        ("digits", "multiclass", 64, 10),
        ("breast_cancer", "binary", 30, 1),
        ("wine", "multiclass", 13, 3),
        ("iris", "multiclass", 4, 3),
        ("diabetes", "regression", 10, 1),
    ],
)
def test_bundled_sets_are_ready_to_learn_from(name: str, task: str, n_features: int, n_outputs: int) -> None:
    assert name in SKLEARN_SETS
    splits = load_splits(DataConfig(source=f"sklearn:{name}"), 7)
    assert (splits.task, splits.n_features, splits.n_outputs) == (task, n_features, n_outputs)
    assert splits.notes == ()
    data = to_tensors(splits, "cpu")
    assert data.task.n_outputs == n_outputs and data.task.name == task
    for x, y in ((data.x_train, data.y_train), (data.x_val, data.y_val)):
        assert x.isfinite().all() and len(x) == len(y) and x.dtype == torch.float32
    torch.testing.assert_close(data.x_train.mean(0), torch.zeros(n_features), atol=1e-5, rtol=0)


def test_a_csv_becomes_the_rows_it_has(tmp_path: Path) -> None:
    splits = load(tmp_path, rows(50, "i % 2"), val_fraction=0.2, test_fraction=0.4)
    assert [len(splits.split(name).rows) for name in SPLITS] == [20, 10, 20]
    for name in SPLITS:
        split = splits.split(name)
        np.testing.assert_array_equal(split.x.columns[0].values, split.rows)
        np.testing.assert_array_equal(split.y, split.rows % 2)
        np.testing.assert_array_equal(np.isnan(split.x.columns[1].values), split.rows % 3 == 0)
    assert (splits.name, splits.feature_names, splits.target_names) == ("table", ("a", "b"), ("y",))
    assert splits.class_labels == (0, 1)


def test_preprocessing_sees_the_training_rows_only(tmp_path: Path) -> None:
    text = rows(50, "i % 2")
    splits = load(tmp_path, text)
    hidden = {f"{i}" for i in (*splits.val.rows.tolist(), *splits.test.rows.tolist())}
    moved = [line if line.split(",")[0] not in hidden else line.replace(",", "000,", 1) for line in text.splitlines()]
    again = load(tmp_path, "\n".join(moved))
    assert again.preprocessor == splits.preprocessor
    assert not np.array_equal(again.val.x.numbers(), splits.val.x.numbers(), equal_nan=True)


@pytest.mark.parametrize(
    ("y", "shape", "dtype"),
    [("i % 2", (12,), torch.float64), ("'abc'[i % 3]", (12,), torch.int64), ("i / 7", (12, 1), torch.float64)],
)
def test_tensors_are_as_the_loss_wants_them(tmp_path: Path, y: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    splits = load(tmp_path, rows(60, y))
    data = to_tensors(splits, "cpu", torch.float64)
    assert data.y_val.shape == shape and data.y_val.dtype == dtype
    assert data.task.loss(torch.zeros(12, splits.n_outputs, dtype=torch.float64), data.y_val).shape == ()
    np.testing.assert_allclose(data.x_val.numpy(), splits.preprocessor.transform(splits.val.x))


def test_regression_targets_are_standardised_and_metrics_in_their_units(tmp_path: Path) -> None:
    splits = load(tmp_path, rows(60, "1000 + i / 7"))
    x, y = split_tensors(splits, "train", "cpu", torch.float64)
    assert abs(y.mean()) < 1e-12 and y.std(correction=0).item() == pytest.approx(1)
    off = splits.to_task().metric("mae", y + 1, y)
    assert off.item() == pytest.approx(np.std(splits.train.y))
    assert len(x) == len(splits.train.rows)


def test_test_rows_come_only_when_asked_for_by_name(tmp_path: Path) -> None:
    splits = load(tmp_path, rows(60, "i % 2"))
    x, y = split_tensors(splits, "test", "cpu")
    assert len(x) == len(y) == len(splits.test.rows) == 12


def test_the_fingerprint_changes_with_everything_that_training_can_see(tmp_path: Path) -> None:
    text = rows(50, "i % 2")
    same = [load(tmp_path, text).fingerprint for _ in range(2)]
    others = [
        load(tmp_path, text, seed=1),
        load(tmp_path, text, val_fraction=0.3),
        load(tmp_path, text.replace("a,b,y", "a,c,y")),
        load(tmp_path, text.replace("\n7,49,", "\n7,49.0000000001,")),
        load(tmp_path, text.replace("\n7,49,", "\n7,,")),
        load(tmp_path, text.replace("\n7,49,1", "\n7,49,0")),
        load(tmp_path, text, task="regression"),
        load(tmp_path, text.replace(",1\n", ",yes\n").replace(",0\n", ",no\n")),
    ]
    assert same[0] == same[1] and len(same[0]) == 64
    assert len({same[0], *(other.fingerprint for other in others)}) == 1 + len(others)


def test_a_rare_class_is_noted(tmp_path: Path) -> None:
    splits = load(tmp_path, rows(50, "'odd' if i == 3 else 'even'"))
    assert splits.notes == (
        "rows were split at random, not class by class: too few rows of some of the 2 classes "
        "(rarest: 'odd' (1), 'even' (49))",
    )
    assert splits.train.y.sum() > 0


def test_a_class_that_train_never_meets_is_noted(tmp_path: Path) -> None:
    text = rows(50, "'late' if i > 45 else 'odd' if i % 2 else 'even'")
    notes = load(tmp_path, text, split=SplitConfig(time="a")).notes
    assert "train has no row of 'late': a class that is not learned is never answered" in notes
    assert not any("train has no row" in note for note in load(tmp_path, text).notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rows(2, "i"), "train, val and test must each have a row; 2 rows give"),
        (rows(50, "0.5"), "the target 'y' must vary to be learned"),
        (rows(50, "'a'"), "must have at least two classes"),
    ],
)
def test_data_that_cannot_be_learned_from_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, text)


def test_a_regression_target_that_varies_only_outside_of_train_is_refused(tmp_path: Path) -> None:
    hidden = load(tmp_path, rows(50, "i / 7")).val.rows[0]
    with pytest.raises(DataError, match=r"the target 'y' must vary in train; all its rows have 1\.5"):
        load(tmp_path, rows(50, f"0.5 if i == {hidden} else 1.5"))


@pytest.mark.parametrize(("column", "line"), [("a", "1e300,,{y}"), ("y", "{i},,1e300")])
def test_a_value_that_float32_cannot_hold_once_standardised_is_refused(tmp_path: Path, column: str, line: str) -> None:
    text = rows(50, "i / 7")
    i = load(tmp_path, text).val.rows[0]
    lines = text.splitlines()
    lines[i + 1] = line.format(i=i, y=i / 7)
    message = rf"must lie near those of the training rows; '{column}' is 1e\+300 in row {i + 1}:"
    with pytest.raises(DataError, match=message):
        load(tmp_path, "\n".join(lines))


def mixed_rows(n: int) -> list[str]:
    """A CSV of a number, few and many categories, a date with holes, and a price."""
    lines = ["id,size,city,zip,sold,price"]
    for i in range(n):
        city = "" if i % 7 == 0 else ["Rome", "Oslo", "Bonn"][i % 3]
        zipcode = f"z{i * 37 % 90}"
        sold = "" if i % 11 == 0 else f"20{i % 23:02}-0{1 + i % 9}-1{i % 10}"
        lines.append(f"{i},{(i * 7919) % 101 / 3},{city},{zipcode},{sold},{100 + (i * 31) % 977}")
    return lines


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("transform", TARGET_TRANSFORMS)
def test_no_kind_of_column_is_fitted_on_other_rows_than_those_of_train(
    tmp_path: Path, scaling: str, transform: str
) -> None:
    config = {
        "target": ("price",),
        "task": "regression",
        "drop": ("id",),
        "kinds": {"zip": "categorical"},
        "preprocessing": PreprocessConfig(scaling, target_transform=transform),
    }
    path, lines = tmp_path / "table.csv", mixed_rows(400)

    def loaded(text: list[str]) -> DataSplits:
        path.write_text("\n".join(text))
        return load_splits(DataConfig(path=str(path), **config), 0)  # type: ignore[arg-type]

    splits = loaded(lines)
    assert {column.kind for column in splits.train.x.columns} == {"numeric", "categorical", "date"}
    hidden = {*splits.val.rows.tolist(), *splits.test.rows.tolist()}
    changed = [
        line if i - 1 not in hidden else f"{i - 1},{99 + i},Atlantis{i % 5},y{i},2030-01-01,{i * 1000}"
        for i, line in enumerate(lines)
    ]
    again = loaded(changed)
    assert again.preprocessor == splits.preprocessor
    x, y = split_tensors(splits, "train", "cpu", torch.float64)
    x_again, y_again = split_tensors(again, "train", "cpu", torch.float64)
    assert torch.equal(x, x_again) and torch.equal(y, y_again)
    assert "Atlantis" not in str(again.preprocessor.to_dict())


def test_other_scalings_of_the_same_rows_have_as_many_inputs(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\n".join(mixed_rows(300)))
    splits = load_splits(DataConfig(path=str(tmp_path / "t.csv"), target=("price",), task="regression"), 0)
    assert splits.prepared("standard") is splits
    for name in SCALINGS[1:]:
        other = splits.prepared(name)
        assert (
            other.n_features == splits.n_features
            and other.preprocessor.output_names == splits.preprocessor.output_names
        )
        assert other.preprocessor != splits.preprocessor and other.fingerprint == splits.fingerprint


def test_classes_have_no_target_to_transform(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="target_transform is for quantities; 'y' has classes"):
        load(tmp_path, rows(50, "i % 2"), preprocessing=PreprocessConfig(target_transform="log"))
    with pytest.raises(DataError, match=r'"log" needs targets >= 0'):
        load(tmp_path, rows(50, "i / 7 - 3"), preprocessing=PreprocessConfig(target_transform="log"))


def test_an_encoding_that_would_help_if_all_rows_taught_it_shows_no_gain(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shops, y = rng.integers(0, 500, 2000), rng.permutation(2000) % 2  # chance: no shop says anything
    text = "shop,y\n" + "".join(f"shop {shop},{own}\n" for shop, own in zip(shops, y, strict=True))
    splits = load(tmp_path, text, kinds={})
    table = read_table(DataConfig(path=str(tmp_path / "table.csv"), target=("y",)))
    leaking = fit_preprocessor(table.features, y, "binary", PreprocessConfig())
    found = [best_area(fitted.transform(splits.test.x), splits.test.y) for fitted in (leaking, splits.preprocessor)]
    assert found[0] > 0.6  # what it would look like
    assert found[1] == pytest.approx(0.5, abs=0.1)  # three deviations of 400 rows


def best_area(x: np.ndarray, y: np.ndarray) -> float:
    """The largest area under the ROC curve that one input alone gives."""
    return max(float(roc_auc_score(y, values)) for values in x.T)
