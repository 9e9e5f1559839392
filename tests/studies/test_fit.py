import math
from collections.abc import Sequence

import pytest

from studies import fit
from studies.fit import guessing_loss, read_curve
from studies.records import EpochRecord


def curve(train: Sequence[float], val: Sequence[float]) -> tuple[EpochRecord, ...]:
    pairs = enumerate(zip(train, val, strict=True), start=1)
    return tuple(EpochRecord(e, t, v, 0.5, 0.1, float(e)) for e, (t, v) in pairs)


DOWN = [0.65, 0.4, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01]


@pytest.mark.parametrize(
    ("train", "val", "kind", "words"),
    [
        (DOWN, [0.66, 0.42, 0.22, 0.12, 0.06, 0.05, 0.05, 0.05], fit.FITS, "fits: loss 0.02 on train"),
        (DOWN, [0.66, 0.5, 0.4, 0.36, 0.35, 0.36, 0.4, 0.6], fit.OVERFITS, "val grew worse to 0.6 at epoch 8"),
        (DOWN, [0.66, 0.42, 0.22, 0.12, 0.06, 0.05, 0.05, 2.5], fit.OVERFITS, "then 0.01 on train and 2.5 on val"),
        ([*DOWN[:-1], 3.0], [0.66, 0.42, 0.22, 0.12, 0.06, 0.05, 0.05, 2.5], fit.UNSTABLE, "is unstable: loss 0.02"),
        ([0.69] * 8, [0.69] * 8, fit.UNDERFITS, "little below guessing's 0.693"),
        (DOWN, [0.66, 0.5, 0.4, 0.3, 0.2, 0.1, 0.07, 0.05], fit.UNFINISHED, "at epoch 8, and val was still falling"),
        ([math.nan], [math.nan], fit.DIVERGED, "no epoch has a finite loss"),
        ([], [], fit.DIVERGED, "no epoch"),
    ],
)
def test_a_curve_is_said_in_words(train: list[float], val: list[float], kind: str, words: str) -> None:
    found = read_curve(curve(train, val), guessing_loss("binary", 1))
    assert found.kind == kind and words in found.text
    assert found.kind in fit.KINDS


def test_the_gap_is_a_share_of_what_guessing_loses() -> None:
    found = read_curve(curve([0.2], [0.7]), 1.0)
    assert (found.gap, found.best_epoch, found.kind) == (pytest.approx(0.5), 1, fit.OVERFITS)
    assert read_curve(curve([0.2], [0.7]), 10.0).kind == fit.FITS


def test_the_epoch_that_is_kept_is_the_one_that_is_judged() -> None:
    points = curve([0.5, 0.3, 0.2], [0.5, 0.35, 0.4])
    assert read_curve(points, 1.0).kind == fit.FITS
    assert read_curve(points, 1.0, best_epoch=3).kind == fit.OVERFITS


def test_a_training_that_stopped_early_is_done() -> None:
    val = [0.66, 0.5, 0.4, 0.3, 0.2, 0.1, 0.07, 0.05]
    assert read_curve(curve(DOWN, val), 0.693, epochs=100).kind == fit.FITS


def test_guessing_loses_the_logarithm_of_the_classes_or_the_variance() -> None:
    assert guessing_loss("regression", 3) == 1
    assert guessing_loss("binary", 1) == pytest.approx(math.log(2))
    assert guessing_loss("multiclass", 10) == pytest.approx(math.log(10))


def test_a_loss_of_another_kind_is_not_held_against_vals() -> None:
    curve = [EpochRecord(n, 0.6, 0.3 - 0.01 * n, 0.9, 0.1, 0.0) for n in (1, 2)]
    found = fit.not_compared(curve, ["label_smoothing"], 2)
    assert found.kind == fit.NOT_COMPARED and found.kind in fit.KINDS
    assert "loss 0.28 on val at epoch 2" in found.text and "label_smoothing" in found.text
