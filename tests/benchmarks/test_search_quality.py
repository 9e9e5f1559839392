"""benchmarks.search_quality: arms that search alike, and statistics that say what they should."""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import search_quality
from benchmarks.search_quality import OURS, RANDOM, RIVAL, Found, Task, comparison, median_difference, plot

NAN = math.nan
SMALL = Task("sklearn:diabetes", seed=1, trials=20, epochs=2, objective=None)


def constant(value: float, n: int = 4, direction: str = "maximize") -> Found:
    return Found([value] * n, [float(i + 1) for i in range(n)], direction)


def test_the_best_so_far_passes_over_trials_without_a_value() -> None:
    most = Found([NAN, 0.5, 0.4, NAN, 0.7], [1, 2, 3, 4, 5], "maximize")
    least = Found([3.0, NAN, 1.0], [1, 2, 3], "minimize")

    np.testing.assert_array_equal(most.best_so_far(), [NAN, 0.5, 0.5, 0.5, 0.7])
    np.testing.assert_array_equal(least.best_so_far(), [3.0, 3.0, 1.0])
    assert (most.best_at(4.5), least.best_at(2.0)) == (0.5, 3.0)
    assert math.isnan(most.best_at(1.5))


def test_the_error_of_a_median_difference_shrinks_with_seeds_and_feels_the_pairing() -> None:
    noise = np.random.default_rng(0).normal(size=400)
    few, many = (median_difference(noise[:n], np.zeros(n))[1] for n in (25, 400))

    assert many == pytest.approx(1.2533 / 20, rel=0.25)  # of a normal median: sqrt(pi / 2) sigma / sqrt(n)
    assert few > 2 * many
    # The same noise in both arms cancels.
    assert median_difference(noise[:25] + 1, noise[:25]) == (1.0, 0.0)


@pytest.mark.parametrize(("ours", "verdict"), [(0.9, "yes"), (0.8, "yes"), (0.7, "no")])
def test_the_verdict_is_against_the_first_arm(ours: float, verdict: str) -> None:
    found = {"set": {RIVAL: [constant(0.8)] * 3, OURS: [constant(ours)] * 3}}
    *_, row = comparison(found).splitlines()

    assert f"| {verdict} |" in row


def test_less_is_better_where_the_objective_is_minimised() -> None:
    found = {
        "set": {
            RIVAL: [constant(2.0, direction="minimize")] * 3,
            OURS: [constant(1.0, direction="minimize")] * 3,
            RANDOM: [constant(3.0, direction="minimize")] * 3,
        }
    }
    *_, better, worse = comparison(found).splitlines()

    assert "+1 ± 0, 3 : 0 | yes | +1" in better
    assert "-1 ± 0, 0 : 3 | no | -1" in worse


def test_equal_seconds_give_the_rival_only_what_it_knew_by_then() -> None:
    slow = Found([0.1, 0.2, 0.9], [10.0, 20.0, 30.0], "maximize")
    fast = Found([0.5, 0.5, 0.5], [1.0, 2.0, 20.0], "maximize")
    *_, row = comparison({"set": {RIVAL: [slow], OURS: [fast]}}).splitlines()

    assert row.endswith("| +0.3 |")


def test_both_arms_train_a_trial_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: dict[str, list[tuple[object, float]]] = {}
    original = search_quality._trained

    def noted(*arguments: object) -> object:
        done = list(original(*arguments))  # type: ignore[arg-type]
        trained.setdefault(arm, []).extend((t.hyperparameters, t.value or -1.0) for t in done)  # -1: diverged
        return iter(done)

    monkeypatch.setattr(search_quality, "_trained", noted)
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)  # the loop's choice is the whole process's
    # A first cohort is drawn at random, as are the rival's first trials, from other streams: give both the same.
    monkeypatch.setattr(search_quality, "suggest", lambda trial, spec: suggested[trial.number])
    arm = OURS
    search_quality.search_in_cohorts(SMALL.spec())
    suggested = {i: (chosen, tuple(chosen)) for i, (chosen, _) in enumerate(trained[OURS])}  # type: ignore[arg-type]
    arm = RIVAL
    found = search_quality.search_one_at_a_time(SMALL.spec(cohort=1))

    assert [h for h, _ in trained[RIVAL]] == [h for h, _ in trained[OURS]]
    assert [v for _, v in trained[RIVAL]] == pytest.approx([v for _, v in trained[OURS]], rel=1e-4)
    assert len(found.values) == len(found.seconds) == SMALL.trials
    assert found.seconds == sorted(found.seconds)


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    found = {"set": {arm: [constant(0.5 + 0.1 * i, n=10) for i in range(3)] for arm in (RIVAL, OURS)}}
    plot(found, tmp_path / "plot.png")

    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
