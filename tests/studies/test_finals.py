import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from studies import finals
from studies.records import PRUNED, Final, Finalist, Interval, Objective, Rival, TrialRecord, Winner

Make = Callable[..., TrialRecord]
ACCURACY = Objective("accuracy", "maximize")
RMSE = Objective("rmse", "minimize")


def finalist(number: int, *values: float, metric: str = "accuracy", loss: float = 0.5) -> Finalist:
    return Finalist(number, tuple({"loss": loss, metric: value} for value in values))


def test_an_interval_is_students() -> None:
    # By hand: mean 2, deviation 1, t(2) = 4.302653, divided by sqrt(3).
    found = finals.interval([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, -0.4841, 4.4841), abs=1e-4)
    assert finals.interval([0.5] * 5) == Interval(0.5, 0.5, 0.5)
    assert math.isnan(finals.interval([0.5, math.nan]).mean)


def test_the_table_of_t_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    assert [stats.t.ppf(0.975, df) for df in range(1, finals.MOST_SEEDS)] == pytest.approx(finals._T, rel=1e-6)


@dataclass(frozen=True)
class Spread:
    low: float
    high: float


def measured(*values: float) -> list[dict[str, float]]:
    return [{"accuracy": value} for value in values]


def test_rows_and_seeds_widen_an_interval_together() -> None:
    # Over seeds 2 +- 2.4841; rows go 3 down and 4 up: the squares are added.
    found = finals._over_rows(measured(1.0, 2.0, 3.0), {"accuracy": Spread(-1.0, 6.0)})["accuracy"]
    half = 4.302653 / math.sqrt(3)
    wanted = (2.0, 2.0 - math.hypot(half, 3.0), 2.0 + math.hypot(half, 4.0))
    assert (found.mean, found.low, found.high) == pytest.approx(wanted)
    aside = finals.over_rows(measured(0.5, 0.5), {"accuracy": Spread(0.6, 0.7)})["accuracy"]  # a biased metric
    assert aside.low == aside.mean == 0.5 and aside.high == pytest.approx(0.7)


def test_what_rows_do_not_say_is_over_seeds_alone_and_is_said_so(winner: Winner) -> None:
    for unknown in (Spread(math.nan, 6.0), Spread(-1.0, math.nan)):
        assert finals.over_rows(measured(1.0, 2.0, 3.0), {"accuracy": unknown}) == {}
        rival = Rival("gradient boosting", {"accuracy": 0.5}, {"accuracy": 0.5})
        assert finals.leads(measured(0.8, 0.9), rival, {"accuracy": unknown}) == {}
    assert winner.final is not None
    final = replace(winner.final, over_rows={})
    assert finals.on_test(final) == finals.intervals(final.test)
    assert [finals.over(f, "accuracy") for f in (winner.final, final)] == ["seeds and rows", "seeds"]


def test_an_interval_ends_where_its_metric_does() -> None:
    sure = finals.over_rows(measured(0.97, 0.99), {"accuracy": Spread(0.9, 1.05)})["accuracy"]
    assert sure.mean == pytest.approx(0.98) and 0.8 < sure.low < 0.9 and sure.high == 1.0
    losses = finals.intervals([{"loss": 0.01, "r2": 0.9}, {"loss": 0.2, "r2": 1.0}])
    assert losses["loss"].low == 0.0 and losses["loss"].high > 0.2
    assert losses["r2"].high == 1.0 and losses["r2"].low < 0.9


def test_a_lead_is_the_winners_value_minus_the_rivals() -> None:
    rival = Rival("ridge regression", {}, {"accuracy": 0.7})
    found = finals.leads(measured(0.8, 0.8), rival, {"accuracy": Spread(0.05, 0.12)})["accuracy"]
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.05, 0.12))


def test_the_best_that_trained_to_their_end_come_into_the_finals(make_trial: Make) -> None:
    trials = [make_trial(0, 0.7), make_trial(1, 0.99, PRUNED), make_trial(2, 0.9), make_trial(3, 0.8)]
    assert [t.number for t in finals.candidates(trials, [ACCURACY], 2)] == [2, 3]
    assert finals.candidates([trials[1]], [ACCURACY], 2) == []


def test_of_several_objectives_the_front_comes_into_the_finals(make_trial: Make) -> None:
    goals = [ACCURACY, Objective("n_parameters", "minimize")]
    trials = [make_trial(n, values=v) for n, v in enumerate([(0.9, 50.0), (0.8, 90.0), (0.7, 10.0)])]
    assert [t.number for t in finals.candidates(trials, goals, 4)] == [0, 2]


def test_the_best_mean_wins_whatever_was_recorded() -> None:
    ordered = finals.in_order([finalist(0, 0.9, 0.7), finalist(1, 0.85, 0.85)], ACCURACY)
    assert [f.number for f in ordered] == [1, 0]
    ordered = finals.in_order([finalist(0, 3.0, 2.0, metric="rmse"), finalist(1, 2.0, 2.0, metric="rmse")], RMSE)
    assert [f.number for f in ordered] == [1, 0]


def test_ties_go_to_the_lower_loss_then_to_the_earlier_number() -> None:
    equal = [finalist(3, 0.9, 0.9), finalist(2, 0.9, 0.9), finalist(7, 0.9, 0.9, loss=0.1)]
    assert [f.number for f in finals.in_order(equal, ACCURACY)] == [7, 2, 3]


def test_a_finalist_of_which_a_seed_diverged_comes_last() -> None:
    shaky, sure = finalist(0, 0.99, math.nan), finalist(1, 0.5, 0.5)
    assert [f.number for f in finals.in_order([shaky, sure], ACCURACY)] == [1, 0]
    assert finals.has_winner([sure, shaky], ACCURACY) and not finals.has_winner([shaky], ACCURACY)
    assert not finals.has_winner([], ACCURACY)


def lead(mean: float, low: float, high: float) -> dict[str, Interval]:
    return {"accuracy": Interval(mean, low, high)}


@pytest.fixture
def winner() -> Winner:
    final = Final(
        {"candidates": 2, "seeds": 2, "baselines": True, "ensemble": True},
        (finalist(4, 0.9, 0.8), finalist(1, 0.7, math.nan)),
        ({"loss": 0.2, "accuracy": 0.85}, {"loss": 0.4, "accuracy": 0.75}),
        (Rival("gradient boosting", {"accuracy": 0.6}, {"accuracy": 0.5}, "37 of 100 rounds", lead(0.3, 0.1, 0.5)),),
        Rival("ensemble of 4", {"accuracy": 0.95}, {"accuracy": 0.9}, "", lead(-0.1, -0.2, 0.1)),
        lead(0.8, 0.1, 1.4),
    )
    return Winner(4, (0.9,), {"depth": 1}, 9, {"accuracy": 0.9}, {"accuracy": 0.8}, "exports/x", "a" * 64, final)


def test_finals_come_back_as_they_were_stored(winner: Winner) -> None:
    assert winner.final is not None
    back = finals.from_json(finals.to_json(winner.final))
    assert repr(back) == repr(winner.final)  # a NaN does not equal itself
    whole = replace(winner.final, finalists=winner.final.finalists[:1], ensemble=None)
    assert finals.from_json(finals.to_json(whole)) == whole


def test_finals_of_before_are_read_and_shown_as_they_were(winner: Winner) -> None:
    text = """{"asked": {"seeds": 2}, "finalists": [{"number": 4, "val": [{"accuracy": 0.9}, {"accuracy": 0.8}]}],
        "test": [{"accuracy": 0.85}, {"accuracy": 0.75}], "ensemble": null, "rivals": [
            {"name": "gradient boosting", "val": {"accuracy": 0.6}, "test": {"accuracy": 0.5}, "remark": ""}]}"""
    final = finals.from_json(text)
    assert finals.plain(final) == json.loads(text)  # as the manifest beside it says
    old = replace(winner, final=final)
    assert finals.json_of_test(old)["accuracy"]["low"] == pytest.approx(0.8 - 12.706205 * 0.05)
    said = finals.verdict(old, ACCURACY)
    assert said.startswith("on test the network is ahead of gradient boosting by 0.3000; whether other seeds and rows")


def test_the_ensemble_wins_where_val_says_so_and_not_in_doubt(winner: Winner) -> None:
    final = winner.final
    assert final is not None and finals.ensemble_wins(final, ACCURACY)  # 0.95 beside a mean of 0.85
    for value, is_won in ((0.85, False), (0.8, False), (math.nan, False), (0.8500001, True)):
        assert finals.ensemble_wins(replace(final, ensemble=Rival("e", {"accuracy": value}, {})), ACCURACY) == is_won
    assert not finals.ensemble_wins(replace(final, ensemble=None), ACCURACY)
    assert not finals.ensemble_wins(replace(final, finalists=()), ACCURACY)
    rmse = replace(final, finalists=(finalist(0, 2.0, 3.0, metric="rmse"),), ensemble=Rival("e", {"rmse": 2.4}, {}))
    assert finals.ensemble_wins(rmse, RMSE)


def test_what_is_exported_is_judged_by_val_alone(winner: Winner) -> None:
    final = winner.final
    assert final is not None and finals.judged(winner, ACCURACY) == pytest.approx(0.85)
    assert finals.judged(replace(winner, final=replace(final, is_ensemble=True)), ACCURACY) == 0.95
    assert finals.judged(replace(winner, final=None), ACCURACY) == 0.9
    assert "is_ensemble" not in (finals.plain(final) or {})  # as manifests of before
    assert finals.from_json(finals.to_json(replace(final, is_ensemble=True))).is_ensemble


def test_programs_get_a_mean_and_an_interval_and_no_nan(winner: Winner) -> None:
    found, test = finals.as_json(winner, ACCURACY), finals.json_of_test(winner)
    json.dumps([found, test], allow_nan=False)
    assert test["accuracy"] == {"mean": 0.8, "low": 0.1, "high": 1.4}
    assert test["loss"]["mean"] == pytest.approx(0.3)
    assert found["rivals"][1]["lead"]["accuracy"] == {"mean": 0.3, "low": 0.1, "high": 0.5}
    assert found["verdict"].startswith("the network earns its place")
    assert found["exported"]["test"] == {"accuracy": 0.8}
    assert found["finalists"][1]["val"]["accuracy"] == {"mean": None, "low": None, "high": None}
    assert [r["name"] for r in found["rivals"]] == ["ensemble of 4", "gradient boosting"]


@pytest.mark.parametrize("final", [None, Final({}, (), ())])
def test_without_finals_programs_get_numbers(winner: Winner, final: Final | None) -> None:
    assert finals.json_of_test(replace(winner, final=final)) == {"accuracy": 0.8}
    assert set(finals.shown_metrics(replace(winner, final=final), [ACCURACY])) == {"val_accuracy", "test_accuracy"}


def test_the_studys_run_shows_means_intervals_and_rivals(winner: Winner) -> None:
    found = finals.shown_metrics(winner, [ACCURACY])
    assert not [name for name in found if "loss" in name]  # of the objective alone: each is a chart in MLflow
    others = {"val_loss": 0.3, "val_f1": 0.9}
    more = replace(winner, val_metrics={**winner.val_metrics, **{k[4:]: v for k, v in others.items()}})
    assert finals.shown_metrics(more, [ACCURACY]) == found  # not of val either, by which nothing is reported
    assert "final_test_loss_mean" in finals.shown_metrics(winner, [ACCURACY, Objective("loss", "minimize")])
    assert found["final_val_accuracy_mean"] == pytest.approx(0.85)
    assert [found[f"final_test_accuracy_{part}"] for part in ("low", "mean", "high")] == [0.1, 0.8, 1.4]
    assert found["gradient_boosting_test_accuracy"] == 0.5 and "ensemble_of_4_test_accuracy" in found
    tags = finals.shown_tags(winner, ACCURACY)
    assert tags["dlcore.winner"] == "4"
    assert tags["dlcore.finalists"].startswith("trial 4: accuracy 0.8500 [0.2147, 1.0000] on val, 2 seeds; trial 1: ")


@pytest.mark.parametrize(
    ("found", "begin"),
    [
        (
            lead(0.3, 0.1, 0.5),
            "the network earns its place: it is ahead of gradient boosting by 0.3000 [0.1000, 0.5000]",
        ),
        (
            lead(0.3, -0.1, 0.5),
            "the network and gradient boosting cannot be told apart on test (accuracy +0.3000 [-0.1",
        ),
        (lead(0.3, 0.0, 0.5), "the network and gradient boosting cannot be told apart"),
        (lead(-0.3, -0.5, -0.1), "the network does not earn its place: it is behind gradient boosting by 0.3000 [0.1"),
        ({}, "on test the network is ahead of gradient boosting by 0.3000; whether"),
    ],
)
def test_nobody_is_ahead_whom_other_seeds_or_rows_might_put_behind(
    winner: Winner, found: dict[str, Interval], begin: str
) -> None:
    assert winner.final is not None
    is_behind = bool(found) and found["accuracy"].mean < 0
    rival = replace(winner.final.rivals[0], lead=found, test={"accuracy": 1.1 if is_behind else 0.5})
    assert finals.verdict(replace(winner, final=replace(winner.final, rivals=(rival,))), ACCURACY).startswith(begin)


def test_less_is_better_where_the_objective_is_an_error(winner: Winner) -> None:
    assert winner.final is not None
    rivals = tuple(
        Rival(name, {}, {"rmse": theirs}, "", {"rmse": Interval(2.0 - theirs, 1.9 - theirs, 2.1 - theirs)})
        for name, theirs in (("mean", 9.0), ("gradient boosting", 3.0))
    )
    final = replace(winner.final, test=({"rmse": 1.9}, {"rmse": 2.1}), over_rows={}, rivals=rivals)
    won = replace(winner, final=final, test_metrics={"rmse": 2.0})
    assert "ahead of gradient boosting by 1.0000 [0.9000, 1.1000] of rmse" in finals.verdict(won, RMSE)


def test_without_fresh_seeds_nothing_is_said_of_how_surely(winner: Winner) -> None:
    rival = Rival("gradient boosting", {}, {"accuracy": 0.8})
    alone = replace(winner, final=Final({}, (), (), (rival,)))
    assert finals.verdict(alone, ACCURACY).startswith("on test the network is level with gradient boosting; whether")
