import math

from dlcore.curve import Divergence, Epoch, find_divergence, is_better, is_out_of_patience, objective_value


def epoch(number=1, val_loss=1.0, val_metric=0.5) -> Epoch:
    return Epoch(number, 1.0, val_loss, val_metric, 0.1, 0.0)


def test_the_objective_is_the_val_loss_or_the_metric():
    assert objective_value(epoch(val_loss=2.0, val_metric=3.0), "loss") == 2.0
    assert objective_value(epoch(val_loss=2.0, val_metric=3.0), "accuracy") == 3.0


def test_more_accuracy_and_less_error_are_better():
    assert is_better(epoch(val_metric=0.6), epoch(val_metric=0.5), "accuracy")
    assert not is_better(epoch(val_metric=0.6), epoch(val_metric=0.5), "rmse")
    assert is_better(epoch(val_loss=0.5), epoch(val_loss=0.6), "loss")


def test_ties_go_to_the_lower_val_loss_then_to_the_earlier_epoch():
    assert is_better(epoch(2, val_loss=0.9), epoch(1, val_loss=1.0), "accuracy")
    assert is_better(epoch(1), epoch(2), "accuracy")
    assert not is_better(epoch(2), epoch(1), "accuracy")
    assert not is_better(epoch(1), epoch(1), "accuracy")


def test_numbers_that_are_not_finite_beat_nothing():
    for bad in (math.nan, math.inf, -math.inf):
        assert not is_better(epoch(val_loss=bad), None, "accuracy")
        assert not is_better(epoch(val_metric=bad), None, "accuracy")
    assert is_better(epoch(), None, "accuracy")
    assert is_better(epoch(val_metric=math.nan), None, "loss")


def test_patience_counts_epochs_since_the_best():
    assert not is_out_of_patience(4, 2, 3)
    assert is_out_of_patience(5, 2, 3)
    assert is_out_of_patience(3, 0, 3)
    assert not is_out_of_patience(1000, 1, None)


def test_a_loss_that_is_not_finite_is_a_divergence():
    for bad in (math.nan, math.inf):
        found = find_divergence(3, 1.0, 1.0, bad)
        assert found == Divergence(3, "training loss is not finite in epoch 3")


def test_a_loss_above_ten_thousand_times_the_first_is_a_divergence():
    assert find_divergence(3, 2.0, 2e4, 1e9) is None
    found = find_divergence(3, 2.0, 2.1e4, 2.1e4)
    assert found is not None
    assert found.epoch == 3
    assert "2.1e+04 in epoch 3 is above 10000 times the first step's 2" in found.reason
