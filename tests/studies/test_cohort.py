import math
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dlcore.config import DataConfig
from dlcore.data import load_splits
from dlcore.export import export_model, load_network
from dlcore.seeding import derive_seed
from studies.cohort import Trainer
from studies.errors import UserError
from studies.records import COMPLETE, FAIL, PRUNED, EpochDone, Objective, Suggestion, TrialRecord
from studies.spec import StudySpec, resolved_objectives, spec_from_dict

EPOCHS = 6
ENGINE = "loop"


@pytest.fixture(autouse=True, params=["loop", "population"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both engines pass every test here."""
    monkeypatch.setitem(globals(), "ENGINE", request.param)
    return str(request.param)


def make_spec(**changes: object) -> StudySpec:
    data: dict[str, object] = {
        "study": "wine",
        "data": {"source": "sklearn:wine"},
        "training": {"epochs": EPOCHS, "batch_size": 32},
        "search": {"halving": False},
        "search_space": {"learning_rate": {"low": 1e-6, "high": 1.0, "log": True}},
    }
    given = data | changes
    given["training"] = {"engine": ENGINE, **given["training"]}  # type: ignore[dict-item]
    return spec_from_dict(given)


def make_trainer(spec: StudySpec) -> Trainer:
    splits = load_splits(DataConfig(source="sklearn:wine"), spec.seed)
    return Trainer(spec, resolved_objectives(spec, splits.task), splits)


def suggestion(number: int, **changes: object) -> Suggestion:
    values = {"depth": 1, "width": 8, "activation": "relu", "learning_rate": 0.05, "momentum": 0.5} | changes
    return Suggestion(number, {**make_spec().fixed, **values}, tuple(values))  # type: ignore[arg-type]


def train(spec: StudySpec, suggestions: list[Suggestion], deadline: float | None = None) -> list[TrialRecord]:
    events = make_trainer(spec).train(suggestions, 3, [], deadline)
    return [event for event in events if isinstance(event, TrialRecord)]


def bits(record: TrialRecord) -> object:
    """All of a record that a repetition must give again."""
    points = [replace(e, finished_at=0) for e in record.curve]
    return record.number, record.state, record.values, record.rungs, record.best_epoch, points


def test_a_trials_record_does_not_depend_on_its_cohort() -> None:
    together = train(make_spec(), [suggestion(0), suggestion(1, width=5, activation="tanh"), suggestion(2, depth=3)])
    (alone,) = train(make_spec(), [suggestion(1, width=5, activation="tanh")])
    assert together[1].values == alone.values
    for left, right in zip(together[1].curve, alone.curve, strict=True):
        assert (left.train_loss, left.val_loss) == pytest.approx((right.train_loss, right.val_loss), rel=1e-5)
    assert bits(together[0]) != bits(train(make_spec(), [suggestion(7)])[0])


def test_trials_with_equal_hyperparameters_start_from_weights_of_their_own() -> None:
    first, second, again = (train(make_spec(), [suggestion(n, dropout=0.3)])[0] for n in (1, 2, 1))
    assert first.curve[0].train_loss != second.curve[0].train_loss
    assert first.curve[0].train_loss == again.curve[0].train_loss
    trainer = make_trainer(make_spec())
    assert trainer._member(suggestion(2)).seed == derive_seed(0, "trial", 2)


def test_a_trial_that_patience_ended_is_complete_whatever_its_rank() -> None:
    spec = make_spec(
        search={"halving": {"first_rung": 5, "reduction_factor": 2}},
        training={"epochs": 6, "batch_size": 32, "patience": 2},
    )
    stalled, *others = train(spec, [suggestion(n, learning_rate=0.0 if n == 0 else 0.05) for n in range(4)])
    assert (stalled.state, len(stalled.curve), stalled.rungs) == (COMPLETE, 3, {})
    assert sum(r.state == PRUNED for r in others) == sum(5 in r.rungs for r in others) // 2


def test_an_objective_that_val_cannot_define_is_refused_before_any_training() -> None:
    spec = make_spec(data={"source": "sklearn:diabetes", "val_fraction": 0.002}, objective="r2")
    splits = load_splits(spec.data_config(), 0)
    trainer = Trainer(spec, resolved_objectives(spec, "regression"), splits)
    with pytest.raises(UserError, match="r2 must be measurable on val"):
        trainer.check_objectives()
    make_trainer(make_spec()).check_objectives()


def test_an_objective_that_one_fold_cannot_define_is_refused(tmp_path: Path) -> None:
    rows = [f"{n * 37 % 60 / 7},{'rare' if n % 10 == 0 else 'common'}" for n in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["x,y", *rows]))
    data = {"path": str(tmp_path / "rows.csv"), "target": "y", "split": {"folds": 8}}
    spec = make_spec(data=data, objective="roc_auc")
    trainer = Trainer(spec, resolved_objectives(spec, "binary"), load_splits(spec.data_config(), 0))
    with pytest.raises(UserError, match="roc_auc must be measurable on val of each fold"):
        trainer.check_objectives()


def test_with_folds_a_second_objective_is_what_the_folds_say_too() -> None:
    spec = make_spec(data={"source": "sklearn:wine", "split": {"folds": 3}}, objective=["accuracy", "loss"])
    splits = load_splits(spec.data_config(), spec.seed)
    trainer = Trainer(spec, resolved_objectives(spec, splits.task), splits)
    (record,) = [e for e in trainer.train([suggestion(0)], 0, [], None) if isinstance(e, TrialRecord)]
    assert record.best is not None and record.values == (record.best.val_metric, record.best.val_loss)


def test_times_are_those_of_the_training() -> None:
    trainer = make_trainer(make_spec())
    began = time.monotonic()
    (record,) = [e for e in trainer.train([suggestion(0)], 0, [], None) if isinstance(e, TrialRecord)]
    assert record.duration_s is not None and 0 < record.duration_s <= time.monotonic() - began
    assert record.samples_per_s == pytest.approx(EPOCHS * 106 / record.duration_s)


def test_the_same_cohort_trained_twice_is_equal_bit_for_bit() -> None:
    spec = make_spec(search={"halving": {"first_rung": 2, "reduction_factor": 2}})
    suggestions = [suggestion(n, width=3 + n, depth=1 + n % 3, dropout=0.1) for n in range(6)]
    assert list(map(bits, train(spec, suggestions))) == list(map(bits, train(spec, suggestions)))


def test_a_record_tells_all_that_a_trial_was() -> None:
    (record,) = train(make_spec(), [suggestion(4, width=8)])
    assert (record.state, record.cohort, record.n_parameters) == (COMPLETE, 3, 13 * 8 + 8 + 8 * 3 + 3)
    assert [e.epoch for e in record.curve] == list(range(1, EPOCHS + 1))
    best = record.curve[(record.best_epoch or 0) - 1]
    assert record.values == (best.val_metric,) and record.best_val_loss == best.val_loss
    assert best.val_metric == max(e.val_metric for e in record.curve)
    assert record.started_at is not None and record.finished_at is not None
    assert record.started_at <= record.finished_at and record.duration_s is not None
    assert record.samples_per_s is not None and record.samples_per_s > 0
    assert record.device and record.engine == ENGINE and record.population_size == 1


def test_every_epoch_is_told_once_as_it_ends() -> None:
    spec = make_spec(search={"halving": {"first_rung": 2, "reduction_factor": 2}})
    events = list(make_trainer(spec).train([suggestion(n, width=4 + n) for n in range(4)], 0, [], None))
    told = [(e.number, e.epoch) for e in events if isinstance(e, EpochDone)]
    recorded = [(r.number, e) for r in events if isinstance(r, TrialRecord) for e in r.curve]
    assert sorted(told, key=lambda t: (t[0], t[1].epoch)) == recorded


def test_halving_keeps_the_best_of_each_rung_and_says_why_the_others_stop() -> None:
    spec = make_spec(search={"halving": {"first_rung": 2, "reduction_factor": 2}})
    records = train(spec, [suggestion(n, learning_rate=rate) for n, rate in enumerate((1e-6, 0.05, 1e-5, 0.1))])
    at_two = {r.number: r.rungs[2] for r in records}
    kept = {r.number for r in records if len(r.curve) > 2}
    assert len(kept) == 2 and min(at_two[n] for n in kept) >= max(at_two[n] for n in set(at_two) - kept)
    assert [r.state for r in records].count(COMPLETE) == 1
    for record in records:
        if record.state == PRUNED:
            last = max(record.rungs)
            assert len(record.curve) == last and record.value == record.rungs[last]
            assert f"at epoch {last}" in (record.reason or "")
        assert all(value == max(e.val_metric for e in record.curve[:rung]) for rung, value in record.rungs.items())


def test_a_trial_that_diverges_fails_and_its_neighbours_do_not_feel_it() -> None:
    wild = suggestion(1, learning_rate=1e6, activation="relu", depth=3)
    regression = {"data": {"source": "sklearn:diabetes"}}
    spec = make_spec(**regression)
    splits = load_splits(DataConfig(source="sklearn:diabetes"), 0)
    trainer = Trainer(spec, resolved_objectives(spec, splits.task), splits)
    calm, diverged = [e for e in trainer.train([suggestion(0), wild], 0, [], None) if isinstance(e, TrialRecord)]
    assert calm.state == COMPLETE
    assert (diverged.state, diverged.values) == (FAIL, None)
    assert (diverged.reason or "").startswith("diverged in epoch ")
    assert all(math.isfinite(e.train_loss) for e in diverged.curve)


def test_what_a_deadline_cuts_is_pruned_and_what_it_never_reached_has_no_record() -> None:
    spec = make_spec(search={"halving": {"first_rung": 2, "reduction_factor": 2}})
    records = train(spec, [suggestion(0), suggestion(1)], deadline=time.monotonic())
    record = records[0]
    assert [r.number for r in records] == ([0] if ENGINE == "loop" else [0, 1])
    assert (record.number, record.state, len(record.curve)) == (0, PRUNED, 1)
    assert record.rungs == {1: record.curve[0].val_metric} and record.value == record.curve[0].val_metric
    assert "time budget" in (record.reason or "")


def test_several_objectives_are_measured_at_the_best_epoch() -> None:
    objective = [{"metric": "accuracy"}, {"metric": "loss"}, {"metric": "n_parameters"}, {"metric": "f1"}]
    (record,) = train(make_spec(objective=objective), [suggestion(0)])
    best = record.best
    assert best is not None and record.values is not None
    assert record.values[:3] == (best.val_metric, pytest.approx(best.val_loss), record.n_parameters)
    assert 0 < record.values[3] <= 1


def test_a_trial_trained_again_gives_its_curve_bit_for_bit() -> None:
    spec = make_spec(search={"halving": {"first_rung": 2, "reduction_factor": 2}})
    trainer = make_trainer(spec)
    events = trainer.train([suggestion(n, width=3 + n, dropout=0.2) for n in range(4)], 0, [], None)
    cohort = [e for e in events if isinstance(e, TrialRecord)]
    for record in cohort:
        again = trainer.retrain_network(record, cohort)
        assert [replace(e, finished_at=0) for e in again.curve] == [replace(e, finished_at=0) for e in record.curve]
        assert record.best is not None
        measured = trainer.measure(again.model, record.hyperparameters, "val")
        assert measured["loss"] == pytest.approx(record.best.val_loss, rel=1e-5)


def test_a_pruner_does_not_judge_anew_what_was_trained_beside_cohorts_that_are_finished_now() -> None:
    trainer = make_trainer(make_spec(search={"pruner": "median"}))
    suggestions = [suggestion(n, width=3 + n) for n in range(8, 12)]
    cohort = [e for e in trainer.train(suggestions, 1, [], None) if isinstance(e, TrialRecord)]
    better = [TrialRecord(n, COMPLETE, {}, (), 0, 9, values=(2.0,), rungs={5: 2.0}) for n in range(8)]
    anew = [e for e in trainer.train(suggestions, 1, better, None) if isinstance(e, TrialRecord)]
    assert {t.state for t in cohort} == {COMPLETE} and {t.state for t in anew} == {PRUNED}
    for recorded, earlier in ((cohort, better), (anew, [])):
        again = trainer.train(suggestions, 1, earlier, None, recorded)
        assert [bits(e) for e in again if isinstance(e, TrialRecord)] == list(map(bits, recorded))
        for record in recorded:
            assert len(trainer.retrain_network(record, recorded).curve) == len(record.curve)


def test_trials_that_halving_pruned_stop_there_again_though_other_numbers_would_keep_them() -> None:
    trainer = make_trainer(make_spec(search={"halving": {"first_rung": 2, "reduction_factor": 2}}))
    suggestions = [suggestion(n, width=3 + n) for n in range(4)]
    whole = make_trainer(make_spec()).train(suggestions, 0, [], None)
    complete = [replace(e, rungs={2: 0.0}) for e in whole if isinstance(e, TrialRecord)]
    assert any(e.state == PRUNED for e in trainer.train(suggestions, 0, [], None) if isinstance(e, TrialRecord))
    for record in complete:
        again = trainer.retrain_network(record, complete)
        assert [e.val_loss for e in again.curve] == [e.val_loss for e in record.curve]


def test_a_trial_trained_again_alone_gives_its_curve_up_to_rounding() -> None:
    trainer = make_trainer(make_spec())
    events = trainer.train([suggestion(n, width=3 + n, dropout=0.2) for n in range(4)], 0, [], None)
    for record in [e for e in events if isinstance(e, TrialRecord)]:
        again = [(e.train_loss, e.val_loss) for e in trainer.retrain(record)]
        assert again == [pytest.approx((e.train_loss, e.val_loss), rel=1e-4) for e in record.curve]


def test_a_pruner_by_name_is_asked_at_the_rungs() -> None:
    spec = make_spec(search={"pruner": "threshold", "prune_below": 0.99}, training={"epochs": 8, "batch_size": 32})
    bad, good = train(spec, [suggestion(0, learning_rate=1e-6), suggestion(1, learning_rate=0.1, width=32)])
    assert (bad.state, len(bad.curve)) == (PRUNED, 5)
    assert bad.reason == "pruned by threshold at epoch 5"
    assert len(good.curve) == 8 or good.state == PRUNED


def test_parameters_are_counted_without_a_network() -> None:
    trainer = make_trainer(make_spec())
    assert trainer.count_parameters({**suggestion(0).hyperparameters, "width": 10**6}) == 13 * 10**6 + 4 * 10**6 + 3
    assert isinstance(trainer._objectives[0], Objective)


def test_trials_whose_numbers_are_scaled_in_other_ways_train_beside_each_other() -> None:
    spec = make_spec(search_space={"preprocess": ["robust", "standard", "quantile_normal"], "learning_rate": 0.05})
    mixed = [suggestion(n, preprocess=name) for n, name in enumerate(("standard", "robust", "standard"))]
    together = train(spec, mixed)
    assert [record.number for record in together] == [0, 1, 2]
    for record, given in zip(together, mixed, strict=True):
        (alone,) = train(spec, [given])
        assert record.values == alone.values
        for left, right in zip(record.curve, alone.curve, strict=True):
            assert (left.train_loss, left.val_loss) == pytest.approx((right.train_loss, right.val_loss), rel=1e-5)
    (other,) = train(spec, [replace(mixed[1], hyperparameters={**mixed[1].hyperparameters, "preprocess": "standard"})])
    assert other.curve[0].train_loss != together[1].curve[0].train_loss


def test_a_network_is_measured_and_exported_with_the_numbers_that_it_was_trained_on(tmp_path: Path) -> None:
    spec = make_spec(search_space={"preprocess": ["standard", "quantile_normal"], "learning_rate": 0.05})
    trainer = make_trainer(spec)
    own = [suggestion(n, preprocess=name) for n, name in enumerate(("standard", "quantile_normal"))]
    records = [event for event in trainer.train(own, 0, [], None) if isinstance(event, TrialRecord)]
    again = trainer.retrain_network(records[1], records)
    splits = trainer.splits_of(records[1].hyperparameters)
    assert records[1].best is not None
    own, best = records[1].hyperparameters, records[1].best.val_loss
    assert trainer.measure(again.model, own, "val")["loss"] == pytest.approx(best, rel=1e-5)
    assert trainer.measure(again.model, {**own, "preprocess": "standard"}, "val")["loss"] != pytest.approx(
        best, rel=1e-3
    )
    folder = export_model(tmp_path / "out", again.model, again.model_config, splits, {})
    assert load_network(folder)[1] == splits.preprocessor != trainer.splits.preprocessor
    alone = [(e.train_loss, e.val_loss) for e in trainer.retrain(records[1])]
    assert alone[-1] == pytest.approx((records[1].curve[-1].train_loss, records[1].curve[-1].val_loss), rel=1e-4)


CURES: tuple[dict[str, object], ...] = (
    {"noise": 0.2},
    {"mixup": 0.3, "class_weights": "balanced"},
    {"label_smoothing": 0.1, "normalization": "layer"},
    {"normalization": "batch", "mixup": 0.2, "width": 9},
)


def test_trials_with_cures_for_overfitting_come_out_again_and_are_exported(tmp_path: Path) -> None:
    trainer = make_trainer(make_spec(search={"halving": {"first_rung": 2, "reduction_factor": 2}}))
    events = trainer.train([suggestion(n, **cure) for n, cure in enumerate(CURES)], 0, [], None)
    cohort = [e for e in events if isinstance(e, TrialRecord)]
    for record in cohort:
        again = trainer.retrain_network(record, cohort)
        assert [replace(e, finished_at=0) for e in again.curve] == [replace(e, finished_at=0) for e in record.curve]
        assert record.best is not None
        measured = trainer.measure(again.model, record.hyperparameters, "val")
        assert measured["loss"] == pytest.approx(record.best.val_loss, rel=1e-5)
        assert record.n_parameters == sum(p.numel() for p in again.model.parameters())
        alone = [(e.train_loss, e.val_loss) for e in trainer.retrain(record)]
        assert alone == [pytest.approx((e.train_loss, e.val_loss), rel=1e-4) for e in record.curve]
        export_model(tmp_path / str(record.number), again.model, again.model_config, trainer.splits, {})


def test_cures_go_with_folds_and_fresh_seeds() -> None:
    spec = make_spec(data={"source": "sklearn:wine", "split": {"folds": 3}})
    splits = load_splits(spec.data_config(), spec.seed)
    trainer = Trainer(spec, resolved_objectives(spec, splits.task), splits)
    suggestions = [suggestion(n, **cure) for n, cure in enumerate(CURES)]
    records = [e for e in trainer.train(suggestions, 0, [], None) if isinstance(e, TrialRecord)]
    for record in records:
        alone = [(e.train_loss, e.val_loss) for e in trainer.retrain(record)]
        assert alone == [pytest.approx((e.train_loss, e.val_loss), rel=1e-4) for e in record.curve]
    for fresh in trainer.train_fresh(suggestions[:2], 2, lambda epoch: None):
        for one in fresh:
            assert one.val is not None and math.isfinite(one.val["loss"]) and one.network is not None
            assert trainer.measure(one.network(), suggestions[0].hyperparameters, "test")["accuracy"] > 0.3
