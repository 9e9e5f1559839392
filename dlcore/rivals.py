"""What else could answer: scikit-learn's models on the rows that the network has, judged by the same metrics.

A majority or a mean (what knowing nothing reaches), a logistic or a ridge regression (what straight lines reach), and
gradient boosting (what people take for tables). Each has scikit-learn's defaults, and learns from the preprocessed
train rows alone.

Bounded, and a bound that cut is said in `Rival.remark`. One thread: on a busy machine OpenMP's threads wait for each
other (measured: 90 s on two cores where one takes 2 s), and sums in one order give one result.

scikit-learn is imported where it is used: a command that trains no rival does not wait for it.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from dlcore.data import DataSplits, split_tensors
from dlcore.evaluation import evaluate_outputs, outputs_of
from dlcore.seeding import derive_seed, generator
from dlcore.tasks import Task

Floats = NDArray[np.float64]
Answer = Callable[[Floats], Floats]
"""Preprocessed rows (N, F) -> probabilities (N, C) of all classes, two for binary; or standardised targets (N, C)."""

ROUNDS = 100
"""Rounds of gradient boosting: scikit-learn's default."""
_FIRST_ROUNDS = 10
"""After which the others are foretold."""
_ITERATIONS = 200
"""Of the logistic regression's solver; its default of 100 is too few for standardised tables."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one rival may take."""

    rows: int = 100_000
    """Train rows; of more, so many are drawn."""
    products: int = 100_000_000
    """Rows times features times outputs of a linear model, which takes at most 200 passes over them."""
    seconds: float = 60.0
    """Of gradient boosting, about: it has fewer rounds where `ROUNDS` would take longer."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A model that was trained, and how it did."""

    name: str
    metrics: Mapping[str, Mapping[str, float]]
    """Split ("val", "test") -> loss and every metric of the task, as `dlcore.evaluation.evaluate` tells them."""
    on_test: Tensor = field(compare=False, repr=False)
    """Its answers there as a network would put them, (N, C), float64; see `dlcore.evaluation.outputs_of`."""
    remark: str = ""
    """What a bound cut."""


def train_rivals(splits: DataSplits, seed: int, bounds: Bounds | None = None) -> list[Rival]:
    """Train all rivals and measure them on val and test.

    Args:
        splits: The data.
        seed: The study's seed.
        bounds: What each may take.

    Returns:
        The strongest kind first. Where train has a single class there is only the majority.
    """
    bounds = bounds or Bounds()
    task = splits.to_task()
    # With folds the network learns from all rows but test, once they have chosen it; so do its rivals.
    lessons = {"val": _rows(splits, "train")}
    if splits.folds:
        lessons["test"] = _rows(splits, "train", "val")
    is_regression = task.name == "regression"
    kinds: list[tuple[str, _Train]] = [("mean" if is_regression else "majority", _constant)]
    if is_regression or all(len(np.unique(y)) > 1 for _, y in lessons.values()):
        kinds = [("gradient boosting", _boosting), (_linear_name(is_regression), _linear), *kinds]
    return [_judged(name, train, lessons, splits, _Terms(task, seed, bounds)) for name, train in kinds]


@dataclass(frozen=True, slots=True)
class _Terms:
    """Under what a rival learns."""

    task: Task
    seed: int
    bounds: Bounds


_Train = Callable[[Floats, Floats, _Terms], tuple[Answer, str]]


def _rows(splits: DataSplits, *names: str) -> tuple[Floats, Floats]:
    """Preprocessed rows of these splits and their targets."""
    parts = [split_tensors(splits, name, "cpu", torch.float64) for name in names]
    x, y = (torch.cat(tensors).numpy() for tensors in zip(*parts, strict=True))
    return x, y


def _linear_name(is_regression: bool) -> str:
    return "ridge regression" if is_regression else "logistic regression"


def _linear_rows(x: Floats, terms: _Terms) -> int:
    """Train rows that a linear model may take."""
    return max(1_000, terms.bounds.products // int(x.shape[1] * terms.task.n_outputs))


def _drawn(y: Floats, n_most: int, terms: _Terms) -> tuple[NDArray[np.int64], str]:
    """Row numbers, in order, and what to say where they are not all; one row at least of each class is among them."""
    if (n := len(y)) <= n_most:
        return np.arange(n), ""
    order = torch.randperm(n, generator=generator(terms.seed, "rivals", "rows")).numpy()
    if terms.task.name != "regression":
        _, first = np.unique(y[order], return_index=True)
        order = np.concatenate([order[first], np.delete(order, first)])
    return np.sort(order[:n_most]), f"trained on {n_most:,} of {n:,} rows"


def _judged(
    name: str, train: _Train, lessons: Mapping[str, tuple[Floats, Floats]], splits: DataSplits, terms: _Terms
) -> Rival:
    """Train a rival for each split that has a lesson of its own, and measure it."""
    metrics, remark, task = {}, "", terms.task
    for split in ("val", "test"):
        if split in lessons:
            answer, remark = train(*lessons[split], terms)
        x, y = split_tensors(splits, split, "cpu", torch.float64)
        answers = torch.from_numpy(answer(x.numpy()))
        outputs = answers if task.name == "regression" else outputs_of(task, answers)
        metrics[split] = evaluate_outputs(task, outputs, y)
    return Rival(name, metrics, outputs, remark)  # of the last split, which is test


def _constant(x: Floats, y: Floats, terms: _Terms) -> tuple[Answer, str]:
    """The mean of each target, or how often each class is seen in train."""
    always = y.mean(0)
    if terms.task.name != "regression":
        always = np.bincount(y.astype(np.int64), minlength=_n_classes(terms.task)) / len(x)
    return lambda rows: np.tile(always, (len(rows), 1)), ""


def _linear(x: Floats, y: Floats, terms: _Terms) -> tuple[Answer, str]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge

    rows, remark = _drawn(y, min(terms.bounds.rows, _linear_rows(x, terms)), terms)
    if terms.task.name == "regression":
        ridge = Ridge().fit(x[rows], y[rows])
        return lambda asked: np.asarray(ridge.predict(asked)).reshape(len(asked), -1), remark
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=_ITERATIONS).fit(x[rows], y[rows])
    is_cut = int(np.max(model.n_iter_)) >= _ITERATIONS
    cut = f"stopped after {_ITERATIONS} iterations" if is_cut else ""
    return _of_all_classes(model, terms.task), "; ".join(filter(None, [remark, cut]))


def _boosting(x: Floats, y: Floats, terms: _Terms) -> tuple[Answer, str]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    rows, remark = _drawn(y, terms.bounds.rows, terms)
    seed, n_models = derive_seed(terms.seed, "rivals") % 2**32, y[0].size
    targets = y.reshape(len(y), n_models).T
    is_regression = terms.task.name == "regression"
    kind = HistGradientBoostingRegressor if is_regression else HistGradientBoostingClassifier
    stopping = "auto" if is_regression or _can_be_parted(y[rows]) else False
    models = [kind(warm_start=True, random_state=seed, early_stopping=stopping) for _ in range(n_models)]
    n_rounds = min(
        _boost(model, x[rows], own[rows], terms.bounds.seconds / n_models)
        for model, own in zip(models, targets, strict=True)
    )
    cut = f"{n_rounds} of {ROUNDS} rounds, for want of time" if n_rounds < ROUNDS else ""
    said = "; ".join(filter(None, [remark, cut]))
    if not is_regression:
        return _of_all_classes(models[0], terms.task), said
    return lambda asked: np.stack([model.predict(asked) for model in models], 1), said


def _can_be_parted(classes: Floats) -> bool:
    """Whether a tenth of the rows, by which scikit-learn stops early, can have its share of every class."""
    counts = np.unique(classes, return_counts=True)[1]
    return bool(counts.min() >= 2 and len(counts) <= len(classes) // 10)


def _boost(model: Any, x: Floats, y: Floats, seconds: float) -> int:  # scikit-learn has no types
    """Boost a few rounds, then as many more as there is time for; the same as all of them at once.

    Returns:
        Rounds that it was allowed; it may have stopped earlier by itself.
    """
    started = time.monotonic()
    with threadpool_limits(1):
        model.set_params(max_iter=_FIRST_ROUNDS).fit(x, y)
        taken_s = time.monotonic() - started
        affordable = _FIRST_ROUNDS + int((seconds - taken_s) * _FIRST_ROUNDS / taken_s)
        n_rounds = max(_FIRST_ROUNDS, min(ROUNDS, affordable))
        if n_rounds > _FIRST_ROUNDS and model.n_iter_ == _FIRST_ROUNDS:
            model.set_params(max_iter=n_rounds).fit(x, y)
    return n_rounds


def _of_all_classes(model: Any, task: Task) -> Answer:
    """Probabilities of all classes; one that train does not have gets none."""
    seen = np.asarray(model.classes_).astype(np.int64)

    def answer(x: Floats) -> Floats:
        probabilities = np.zeros((len(x), _n_classes(task)))
        with threadpool_limits(1):
            probabilities[:, seen] = model.predict_proba(x)
        return probabilities

    return answer


def _n_classes(task: Task) -> int:
    return 2 if task.name == "binary" else task.n_outputs
