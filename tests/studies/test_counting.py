import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from studies.counting import MOST_POINTS, answered_classes, answered_values

rng = np.random.default_rng(3)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_classes_are_counted_as_sklearn_does(n_classes: int) -> None:
    truth = rng.integers(0, n_classes, 300)
    probabilities = rng.dirichlet(np.ones(n_classes), 300)
    names = tuple("abcde"[:n_classes])
    found = answered_classes("test", names, truth, probabilities)
    assert np.array_equal(found.confusion, confusion_matrix(truth, probabilities.argmax(1)))
    if n_classes == 2:
        assert answered_classes("test", names, truth, probabilities[:, 1]) == found


def test_confidence_is_counted_by_tenths_and_adds_up() -> None:
    truth = np.array([0, 1, 1, 0])
    found = answered_classes("test", ("no", "yes"), truth, np.array([0.08, 0.93, 0.97, 0.61]))
    (n, sure, right), (many, surer, all_right) = found.calibration
    assert (n, round(sure, 9), right) == (1, 0.61, 0.0)
    assert (many, round(surer, 9), all_right) == (3, 0.94, 1.0)


def test_many_classes_keep_no_confusion() -> None:
    names = tuple(map(str, range(120)))
    found = answered_classes("test", names, np.arange(120), np.eye(120))
    assert found.confusion == () and sum(n for n, _, _ in found.calibration) == 120


def test_a_large_regression_keeps_a_sample_from_its_first_row_to_its_last() -> None:
    truth = np.arange(5000.0)[:, None] * [1.0, 2.0]
    found = answered_values("test", ("price", "rent"), truth, truth + 1)
    assert found.n_rows == 5000 and [len(points) for points in found.points] == [MOST_POINTS] * 2
    assert found.points[1][0] == (0.0, 1.0) and found.points[1][-1] == (9998.0, 9999.0)
