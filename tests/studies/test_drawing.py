"""What is on paper is what the numbers say; tests/studies/test_pictures.py holds the numbers against the database."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from studies import drawing, pictures, report
from studies.home import Home
from studies.pictures import Dot, Material
from studies.records import COMPLETE, FAIL, PRUNED, Objective
from studies.storage import Storage

Paper = Callable[[object], Axes]
ACCURACY, LOSS = Objective("accuracy", "maximize"), Objective("log_loss", "minimize")
DOTS = (Dot(0, 1e-2, 0.5, 0.7, COMPLETE), Dot(1, 1e-1, 0.9, 0.8, PRUNED), Dot(2, 1.0, 0.1, math.nan, FAIL))


@pytest.fixture(scope="module")
def own(finished_home: Home) -> Iterator[Material]:
    storage = Storage(finished_home.database_url)
    yield report.material(storage, "wine")
    storage.close()


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Paper:
    """Draws a picture as the report does, and gives what is on it."""

    def drawn(picture: object) -> Axes:
        axes = Figure().subplots()

        def files(paint: Callable[[Axes], None]) -> tuple[bytes, bytes]:
            paint(axes)
            return b"", b""

        monkeypatch.setattr(drawing, "files", files)
        drawing.draw(picture)
        return axes

    return drawn


def dots(axes: Axes, label: str) -> list[tuple[float, float]]:
    """The places of all dots of that name, in order."""
    found = [c for c in axes.collections if isinstance(c, PathCollection) and c.get_label() == label]
    return sorted((float(x), float(y)) for c in found for x, y in np.asarray(c.get_offsets()))


def line(axes: Axes, label: str) -> list[tuple[float, float]]:
    """The points of the one line of that name."""
    (found,) = [one for one in axes.lines if one.get_label() == label]
    return [(float(x), float(y)) for x, y in np.asarray(found.get_xydata())]


def places(of: Sequence[Dot], state: str) -> list[tuple[float, float]]:
    return sorted((d.x, d.y) for d in of if d.state == state)


@pytest.mark.parametrize("axis", ["trials", "seconds"])
def test_values_and_the_best_so_far(own: Material, paper: Paper, axis: str) -> None:
    numbers = pictures.progress(own, axis)
    assert not isinstance(numbers, str)
    axes = paper(numbers)
    assert dots(axes, "trained to its end") == sorted(numbers.complete)
    assert dots(axes, "pruned, at its last rung") == sorted(numbers.pruned)
    assert line(axes, "best so far") == [*numbers.best, (numbers.end, numbers.best[-1][1])]


def test_the_curves_of_all_trials(own: Material, paper: Paper) -> None:
    numbers = pictures.curves(own)
    assert not isinstance(numbers, str)
    axes = paper(numbers)
    for curve in numbers.top:
        assert line(axes, f"trial {curve.number}") == list(enumerate(curve.val_loss, 1))
    assert line(axes, f"trial {numbers.top[0].number} on train") == list(enumerate(numbers.top[0].train_loss, 1))
    (faint,) = [c for c in axes.collections if isinstance(c, LineCollection)]
    drawn = [[tuple(point) for point in np.asarray(segment)] for segment in faint.get_segments()]
    assert drawn == [list(enumerate(c.val_loss, 1)) for c in numbers.others]
    ends = [(float(len(c.val_loss)), c.val_loss[-1]) for c in (*numbers.top, *numbers.others) if c.is_pruned]
    assert dots(axes, "pruned") == sorted(ends)


def test_bars_are_as_long_as_their_numbers(paper: Paper) -> None:
    shares = {"learning_rate": 0.7, "width": 0.25, "depth": 0.05}
    for numbers in (pictures.Importances(shares, 40, 10), pictures.Phases(shares)):
        axes = paper(numbers)
        lengths = dict(zip([t.get_text() for t in axes.get_yticklabels()], axes.patches, strict=True))
        assert {name: bar.get_width() for name, bar in lengths.items()} == pytest.approx(shares)  # type: ignore[attr-defined]


def test_dots_of_rates_have_the_colour_of_their_value(paper: Paper) -> None:
    axes = paper(pictures.Rates(ACCURACY, DOTS, DOTS[0], True))
    for state, label in ((COMPLETE, "trained to its end"), (PRUNED, "pruned"), (FAIL, "failed")):
        assert dots(axes, label) == places(DOTS, state), state
    assert dots(axes, "best") == [(1e-2, 0.5)]
    colours = {c.get_label(): c.get_array() for c in axes.collections}
    assert list(np.asarray(colours["pruned"])) == [0.8] and list(np.asarray(colours["trained to its end"])) == [0.7]


@pytest.mark.parametrize("picture", [pictures.Sizes, pictures.Trade])
def test_planes_show_all_trials_and_the_front(paper: Paper, picture: type) -> None:
    what = ACCURACY if picture is pictures.Sizes else (ACCURACY, LOSS)
    axes = paper(picture(what, DOTS[:2], DOTS[:1]))
    assert dots(axes, "trained to its end") == [(1e-2, 0.5)] and dots(axes, "pruned") == [(1e-1, 0.9)]
    assert line(axes, "Pareto front") == [(1e-2, 0.5)]


def test_a_confusion_shows_counts_and_the_share_of_each_true_class(own: Material, paper: Paper) -> None:
    numbers = pictures.confusion(own)
    assert not isinstance(numbers, str)
    axes, table = paper(numbers), np.array(numbers.answers.confusion)
    assert np.asarray(axes.images[0].get_array()).tolist() == (table / table.sum(1, keepdims=True)).tolist()
    said = {(int(t.get_position()[1]), int(t.get_position()[0])): int(t.get_text()) for t in axes.texts}
    assert said == {(int(i), int(j)): int(table[i, j]) for i, j in np.argwhere(table)}


def test_a_calibration_shows_how_sure_and_how_often_right(own: Material, paper: Paper) -> None:
    numbers = pictures.calibration(own)
    assert not isinstance(numbers, str)
    axes = paper(numbers)
    wanted = sorted((sure, right) for _, sure, right in numbers.answers.calibration)
    assert dots(axes, "rows (larger: more)") == wanted
    assert [t.get_text() for t in axes.texts] == [f"{n:,}" for n, _, _ in numbers.answers.calibration]


def test_residuals_are_predictions_less_truth(own: Material, paper: Paper) -> None:
    assert own.winner is not None and own.winner.final is not None and own.winner.final.answers is not None
    pairs = ((1.0, 1.5), (2.0, 1.0), (3.0, 3.0))  # truth, prediction
    answers = dataclasses.replace(own.winner.final.answers, targets=("price",), points=(pairs,))
    final = dataclasses.replace(own.winner.final, answers=answers)
    numbers = pictures.residuals(dataclasses.replace(own, winner=dataclasses.replace(own.winner, final=final)))
    assert not isinstance(numbers, str)
    assert dots(paper(numbers), "rows of test") == [(1.0, -1.0), (1.5, 0.5), (3.0, 0.0)]


def test_losses_that_are_zero_have_an_axis(paper: Paper) -> None:
    curve = pictures.Curve(0, (0.0, 0.0), (0.0, 0.0), 1, is_pruned=False)
    axes = paper(pictures.Curves((curve,), (), 2))
    assert axes.get_ylim() == (0.0, 1.0) and line(axes, "trial 0") == [(1.0, 0.0), (2.0, 0.0)]
