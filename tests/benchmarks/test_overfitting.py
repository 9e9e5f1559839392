"""benchmarks.overfitting: every cure trains, and is measured without itself."""

import dataclasses

import pytest
import torch

from benchmarks import overfitting
from dlcore.config import DataConfig


def test_every_cure_has_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(overfitting, "TRAINING", dataclasses.replace(overfitting.TRAINING, epochs=2))
    monkeypatch.setattr(overfitting, "SEEDS", 2)
    lines = overfitting.lines_of(DataConfig("sklearn:digits"), 70)
    assert [line[0] for line in lines] == list(overfitting.CURES)
    assert all(len(line) == len(overfitting.HEADER) for line in lines)
    assert all(0 < float(line[2]) < 1 for line in lines)
    assert capsys.readouterr().out.count("\n") == len(lines)


def test_each_seed_has_rows_of_its_own_and_val_and_test_stay_whole() -> None:
    (one, of_test), (other, _) = (overfitting.few_rows(DataConfig("sklearn:digits"), seed, 50) for seed in (0, 1))
    assert len(one.x_train) == 50 and len(one.x_val) == len(of_test[0]) == 359
    assert not torch.equal(one.x_train, other.x_train)
