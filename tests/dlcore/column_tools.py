"""Tables with columns of every kind, for tests."""

from dataclasses import replace

import numpy as np

from dlcore.columns import Column, Features
from dlcore.config import PreprocessConfig
from dlcore.data import DataSplits, Split
from dlcore.preprocess import fit_preprocessor

LABELS: dict[str, tuple[str | int, ...]] = {"binary": ("no", "yes"), "multiclass": (3, 5, 8), "regression": ()}


def texts(name: str, rows: list[str] | np.ndarray) -> Column:
    """A categorical column of texts; "" is missing."""
    categories = tuple(sorted({str(text) for text in rows} - {""}))
    codes = {text: i for i, text in enumerate(categories)} | {"": -1}
    return Column(name, "categorical", np.array([codes[str(text)] for text in rows], dtype=np.int32), categories)


def of_all_kinds(n: int, seed: int = 0, holes: float = 0.1) -> Features:
    """Rows of numbers large and small, booleans, dates, few and many categories; a share of them is missing."""
    rng = np.random.default_rng(seed)

    def holed(values: np.ndarray) -> np.ndarray:
        return np.where(rng.random(n) < holes, np.nan, values)

    def written(values: np.ndarray) -> np.ndarray:
        return np.where(rng.random(n) < holes, "", values)

    return Features(
        (
            Column("size", "numeric", holed(rng.lognormal(0, 2, n))),
            Column("year", "numeric", holed(rng.normal(2e9, 0.01, n))),
            Column("whole", "numeric", rng.normal(-1e6, 1e5, n).round()),
            Column("empty", "numeric", np.full(n, np.nan)),
            Column("same", "numeric", np.full(n, 0.1)),
            Column("is_new", "boolean", holed((rng.random(n) < 0.3).astype(np.float64))),
            texts("city", written(rng.choice(["Rome", "Ä b", "x = y", "true"], n, p=[0.5, 0.3, 0.19, 0.01]))),
            texts("full", rng.choice(["a", "b"], n)),
            texts("zip", written(rng.integers(0, 300, n).astype(str))),
            texts("nothing", [""] * n),
            Column("sold", "date", holed(rng.uniform(-2e9, 4e9, n).round())),
            Column("day", "date", 86_400 * rng.integers(0, 28, n).astype(np.float64)),
        )
    )


def splits_of_all_kinds(
    task: str, config: PreprocessConfig | None = None, n: int = 900, n_targets: int = 1
) -> DataSplits:
    """Two thirds of the rows for train."""
    config = config or PreprocessConfig()
    features, rng = of_all_kinds(n), np.random.default_rng(1)
    y = rng.lognormal(8, 1, (n, n_targets)) if task == "regression" else rng.integers(0, len(LABELS[task]), n)
    train, val, test = (Split(features.take(p), y[p], p) for p in np.split(np.arange(n), (2 * n // 3, 5 * n // 6)))
    return DataSplits(
        name="made",
        task=task,
        feature_names=features.names,
        target_names=tuple(f"t{i}" for i in range(n_targets)),
        class_labels=LABELS[task],
        train=train,
        val=val,
        test=test,
        preprocessor=fit_preprocessor(train.x, train.y, task, config),
        fingerprint="0" * 64,
        preprocessing=config,
    )


def raw(features: Features) -> dict[str, np.ndarray]:
    """Columns as a person has them."""
    return {column.name: column.raw() for column in features.columns}


def with_unseen(features: Features) -> Features:
    """The same rows with a category that the table does not have in every tenth row."""
    columns = []
    for column in features.columns:
        if column.kind == "categorical":
            values = column.values.copy()
            values[::10] = len(column.categories)
            column = replace(column, values=values, categories=(*column.categories, "zzz nowhere"))
        columns.append(column)
    return Features(tuple(columns))
