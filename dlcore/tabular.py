"""What estimators of scikit-learn's kind share here: tables in, a network as it ships, answers out.

An estimator takes NumPy arrays, or DataFrames of mixed kinds, with missing values. What it has learned is an export in
memory (`Carried`): it pickles, needs no file and no torch, and answers as the exported files do.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_X_y, validate_data

from dlcore.cells import MISSING
from dlcore.errors import ConfigError, DataError
from dlcore.exported import GRAPH_FILE, MANIFEST_FILE, ExportedModel
from dlcore.files import SUMS_FILE, write_sealed
from dlcore.frames import frame_columns
from dlcore.roles import target_of
from dlcore.tables import frame_features
from dlcore.targets import MAX_WHOLE

CHUNK_ROWS = 65_536
"""Rows that are answered at once."""


class Carried:
    """The files of an export, in memory."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Open the graph.

        Args:
            files: Name -> content, of an export that was verified.
        """
        self.files = dict(files)
        self._model = ExportedModel(self.files[GRAPH_FILE], json.loads(self.files[MANIFEST_FILE]))

    @classmethod
    def written(cls, write: Callable[[Path], object]) -> "Carried":
        """What `write` leaves in a folder that is not there before and not afterwards."""
        with tempfile.TemporaryDirectory(prefix="dlcore-") as root:
            folder = Path(root) / "export"
            write(folder)
            return cls.of_folder(folder)

    @classmethod
    def of_folder(cls, folder: Path) -> "Carried":
        """What lies in the folder of an export."""
        ExportedModel.load(folder)  # which verifies it
        return cls({path.name: path.read_bytes() for path in folder.iterdir() if path.name != SUMS_FILE})

    def __getstate__(self) -> dict[str, bytes]:
        """The files: a session of onnxruntime cannot be pickled, and is opened again."""
        return self.files

    def __setstate__(self, files: dict[str, bytes]) -> None:
        """Open the graph again."""
        self.__init__(files)  # type: ignore[misc]

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Content of `model.json`."""
        return self._model.manifest

    def write(self, folder: Path) -> Path:
        """Write the export to a folder, whole or not at all."""
        write_sealed(folder.resolve(), self.files)
        return folder.resolve()

    def answers(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Probabilities of all classes, or values, (N, C), of the rows of a frame with the columns of the training.

        Raises:
            DataError: A column is missing, or holds something else than its kind.
        """
        model = self._model
        features = frame_features(frame, model.kinds, model.forms)
        found = []
        for start in range(0, len(frame), CHUNK_ROWS):
            chunk = slice(start, start + CHUNK_ROWS)
            answers = model.predict({column.name: column.take(chunk).raw() for column in features.columns})
            answers.pop("label", None)
            found.append(np.stack([own.astype(np.float64) for own in answers.values()], axis=1))
        return np.concatenate(found)


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Rows to learn from, as a frame that has features and targets."""

    frame: pd.DataFrame
    targets: tuple[str, ...]
    task: str
    """One of `dlcore.config.TASKS`."""
    kinds: Mapping[str, str]
    """Of the columns of an array of numbers: they are numbers, whatever they look like."""


class TableEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base: checks rows, keeps what was learned, answers.

    Attributes:
        n_features_in_: Columns of X.
        feature_names_in_: Their names, where X was a frame.
        model_: What was learned, as `Carried`.
    """

    model_: Carried

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from rows.

        Args:
            X: NumPy array (N, F) of numbers or text, or DataFrame of mixed kinds; missing values are allowed.
            y: Classes (N,), or numbers (N,) or (N, C).
        """
        rows = rows_of(self, X, is_fit=True)
        self._learn(self._given(rows, y))
        return self

    def export(self, folder: str | Path) -> Path:
        """Write what was learned as an export: files that need none of this code; an earlier export is replaced."""
        check_is_fitted(self)
        return self.model_.write(Path(folder))

    def _learn(self, given: Given) -> None:
        raise NotImplementedError

    def _given(self, rows: pd.DataFrame, y: Any) -> Given:
        raise NotImplementedError

    def _answers(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        answers = self.model_.answers(rows_of(self, X, is_fit=False))
        if not (is_known := np.isfinite(answers).all(axis=1)).all():
            row = int(is_known.argmin()) + 1
            raise ValueError(f"row {row} must have numbers small enough for the network to have an answer, and has not")
        return answers

    def __sklearn_tags__(self) -> Tags:
        """Missing values and text are fine."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = True
        return tags


class TableClassifier(ClassifierMixin, TableEstimator):  # type: ignore[misc]
    """Base of classifiers.

    Attributes:
        classes_: Sorted, as y has them.
    """

    classes_: NDArray[Any]

    def predict(self, X: Any) -> NDArray[Any]:
        """The likeliest class of each row (N,)."""
        likeliest = self._answers(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[likeliest]
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities (N, classes), in the order of `classes_`."""
        answers = self._answers(X)
        normal: NDArray[np.float64] = answers / answers.sum(axis=1, keepdims=True)  # float32 gives 1 to 1e-7
        return normal

    def _given(self, rows: pd.DataFrame, y: Any) -> Given:
        _, y = check_X_y(np.zeros((len(rows), 1)), column_or_1d(_refuse_none(y), warn=True), dtype=None)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have at least two classes; all rows have one class, {self.classes_[0]!r}")
        [name] = free_names(rows, ["target"])
        labels = y if can_be_read_back(self.classes_) else codes
        task = "binary" if len(self.classes_) == 2 else "multiclass"
        return Given(rows.assign(**{name: labels}), (name,), task, number_kinds(rows))


class TableRegressor(RegressorMixin, TableEstimator):  # type: ignore[misc]
    """Base of regressors, of one target or of several."""

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Values (N,), or (N, C) where y had two dimensions."""
        answers = self._answers(X)
        return answers[:, 0] if self._is_flat else answers

    def _given(self, rows: pd.DataFrame, y: Any) -> Given:
        _, y = check_X_y(np.zeros((len(rows), 1)), _refuse_none(y), multi_output=True, y_numeric=True, dtype=None)
        self._is_flat = y.ndim == 1
        values = y.reshape(len(y), -1).astype(np.float64)
        wanted = ["target"] if values.shape[1] == 1 else [f"target_{i}" for i in range(values.shape[1])]
        names = free_names(rows, wanted)
        targets = pd.DataFrame(values, columns=names, index=rows.index)
        return Given(pd.concat([rows, targets], axis=1), tuple(names), "regression", number_kinds(rows))

    def __sklearn_tags__(self) -> Tags:
        """Several targets are fine."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def rows_of(estimator: TableEstimator, X: Any, *, is_fit: bool) -> pd.DataFrame:
    """Rows as a frame, with the columns that the estimator has seen; an array's columns are called x0, x1, ...

    Raises:
        ValueError: They are no table, are infinite somewhere, or have other columns than those of the fit.
        TypeError: They are sparse.
    """
    least = 2 if is_fit else 1
    if isinstance(X, pd.DataFrame):
        validate_data(estimator, X, reset=is_fit, skip_check_array=True)
        if len(X) < least or not X.shape[1]:
            raise ValueError(
                f"Found array with {len(X)} sample(s) and {X.shape[1]} feature(s) while a minimum of {least} and 1 is "
                "required."
            )
        return X.set_axis([str(name) for name in X.columns], axis=1)
    array = validate_data(
        estimator, X, reset=is_fit, dtype=None, ensure_all_finite="allow-nan", ensure_min_samples=least
    )
    frame = pd.DataFrame(array, columns=[f"x{i}" for i in range(array.shape[1])])
    return frame if array.dtype.kind in "biuf" else frame.infer_objects()


def number_kinds(rows: pd.DataFrame) -> dict[str, str]:
    """Columns that were an array's and are numbers: none of them is the number of a row, or left out as constant."""
    is_array = list(rows.columns) == [f"x{i}" for i in range(rows.shape[1])]
    return {str(name): "numeric" for name, kind in rows.dtypes.items() if is_array and kind.kind in "biuf"}


def free_names(rows: pd.DataFrame, wanted: list[str]) -> list[str]:
    """The wanted names, with as many underscores as it takes to be none of the columns."""
    taken, end = {str(name).strip() for name in rows.columns}, ""
    while any(name + end in taken for name in wanted):
        end += "_"
    return [name + end for name in wanted]


def can_be_read_back(classes: NDArray[Any]) -> bool:
    """Whether a table says these classes, in this order; those that it would take for something else have numbers."""
    if classes.dtype.kind in "biuf":
        return classes.dtype.kind == "b" or float(np.abs(classes.astype(np.float64)).max()) < MAX_WHOLE
    texts = [str(label) for label in classes.tolist()]
    if any(text.lower() in MISSING for text in texts):
        return False
    table = frame_columns(pd.DataFrame({"target": texts}, dtype=object), "y", "y", lambda _: {"target": False})
    try:
        return bool(np.unique(target_of(table.columns[0], table)).tolist() == texts)
    except DataError:
        return False


def seed_of(random_state: Any) -> int:
    """scikit-learn's `random_state` as the seed of everything; None draws one from NumPy's global generator."""
    if isinstance(random_state, Integral):
        if random_state < 0:
            raise ConfigError(f"random_state must be >= 0; got {random_state}")
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def n_threads(n_jobs: Any, n_cores: int) -> int:
    """scikit-learn's `n_jobs` as threads: None is 1, -1 all cores, -2 all but one.

    Raises:
        ConfigError: It is no such number.
    """
    if n_jobs is None:
        return 1
    if not isinstance(n_jobs, Integral) or n_jobs == 0:
        raise ConfigError(f"n_jobs must be None, a number of cores, or negative; got {n_jobs!r}")
    n = int(n_jobs)
    return n if n > 0 else max(1, n_cores + 1 + n)


def _refuse_none(y: Any) -> Any:
    if y is None:
        raise ValueError("This estimator requires y to be passed, but the target y is None")
    return y
