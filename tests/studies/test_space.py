"""studies.space: settings as Optuna's distributions, suggestions, grids, and what dlcore is given."""

import itertools
import warnings
from collections.abc import Mapping

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from dlcore.config import ModelConfig, TrainConfig
from dlcore.models import count_parameters
from studies.errors import SpecError
from studies.hyperparameters import OF_TRANSFER, RULES, Range
from studies.records import Value
from studies.sampler import asking_study
from studies.space import (
    check_smallest,
    decays_sgd,
    distribution,
    distributions,
    grid_points,
    middle,
    model_config,
    most_trials,
    shrink,
    suggest,
    train_config,
    widths,
)
from studies.spec import StudySpec, parse_spec, resolved_objectives

EVERYTHING = """
depth = { low = 0, high = 4 }
width = { low = 16, high = 256, log = true }
funnel = { low = 0.4, high = 1.0 }
activation = ["relu", "leaky_relu"]
slope = { low = 0.01, high = 0.3, log = true }
initialization = ["default", "orthogonal"]
dropout = { low = 0.0, high = 0.55, step = 0.1 }
normalization = ["none", "batch", "layer"]
noise = { low = 0.0, high = 0.3 }
mixup = [0.0, 0.2]
label_smoothing = { low = 0.0, high = 0.2 }
class_weights = ["none", "balanced"]
optimizer = ["sgd", "adamw"]
learning_rate = { low = 1e-3, high = 0.1, log = true }
momentum = { low = 0.0, high = 0.9 }
nesterov = [true, false]
weight_decay = { low = 1e-6, high = 1e-2, log = true }
batch_size = { low = 16, high = 129, step = 16 }
schedule = ["constant", "cosine"]
warmup_epochs = { low = 0, high = 3 }
clip_norm = [false, 1.0]
preprocess = ["standard", "quantile_normal"]
"""


def spec_of(space: str, sections: str = "") -> StudySpec:
    return parse_spec(
        f'study = "a"\nseed = 1\n[data]\nsource = "sklearn:digits"\n{sections}\n[search_space]\n{space}', "a.toml"
    )


def suggestions(spec: StudySpec, n: int) -> list[tuple[dict[str, Value], tuple[str, ...]]]:
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = asking_study(spec, resolved_objectives(spec, "multiclass"), sampler, [], {})
    return [suggest(study.ask(), spec) for _ in range(n)]


def size(hyperparameters: Mapping[str, Value]) -> int:
    """Something that grows with width and depth, as parameters do."""
    return int(hyperparameters["width"]) * (int(hyperparameters["depth"]) + 1)


def test_each_kind_of_setting_has_its_distribution() -> None:
    assert distribution(Range(1, 4)) == IntDistribution(1, 4)
    assert distribution(Range(16, 256, log=True)) == IntDistribution(16, 256, log=True)
    assert distribution(Range(16, 129, step=16)) == IntDistribution(16, 128, step=16)
    assert distribution(Range(1e-3, 1.0, log=True)) == FloatDistribution(1e-3, 1.0, log=True)
    assert distribution(Range(0.0, 0.55, step=0.1)) == FloatDistribution(0.0, 0.5, step=0.1)
    assert distribution(("a", "b")) == CategoricalDistribution(("a", "b"))


@given(st.integers(0, 999), st.integers(1, 999), st.integers(1, 99))
def test_a_step_that_does_not_meet_the_end_makes_no_noise(low: int, more: int, step: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = distribution(Range(low / 1000, (low + more) / 1000, step=step / 1000))

    assert isinstance(found, FloatDistribution)
    assert found.high == pytest.approx((low + more - more % step) / 1000)


def test_only_what_is_searched_has_a_distribution_in_one_order() -> None:
    spec = spec_of(
        "width = [8, 16]\ndepth = {low = 1, high = 2}\nactivation = 'tanh'\ndropout = {low = 0.5, high = 0.5}"
    )

    assert list(distributions(spec)) == ["depth", "width"]
    assert list(distributions(spec_of(EVERYTHING))) == [name for name in RULES if name not in OF_TRANSFER[1:]]


def test_a_suggestion_lies_inside_the_distributions() -> None:
    spec = spec_of(EVERYTHING)
    known = distributions(spec)

    for chosen, searched in suggestions(spec, 50):
        assert set(searched) == chosen.keys() & known.keys()
        for name in searched:
            value = chosen[name]
            assert known[name]._contains(known[name].to_internal_repr(value)), (name, value)


def test_a_conditional_hyperparameter_appears_only_where_it_applies() -> None:
    seen = set()
    for chosen, searched in suggestions(spec_of(EVERYTHING), 50):
        assert ("slope" in chosen) == ("slope" in searched) == (chosen["activation"] == "leaky_relu")
        assert ("momentum" in chosen) == ("momentum" in searched) == (chosen["optimizer"] == "sgd")
        assert ("nesterov" in chosen) == (chosen["optimizer"] == "sgd")
        seen.add((chosen["activation"], chosen["optimizer"]))

    assert len(seen) == 4


def test_fixed_values_are_part_of_a_suggestion_but_not_searched() -> None:
    ((chosen, searched),) = suggestions(spec_of("width = [8, 16]", "[training]\ndropout = 0.25"), 1)

    assert searched == ("width",)
    idle = {name for name, rule in RULES.items() if rule.idle is not None}
    assert chosen.keys() == RULES.keys() - {"slope"} - idle
    assert (chosen["depth"], chosen["dropout"], chosen["momentum"], chosen["learning_rate"]) == (2, 0.25, 0.9, 0.05)


def test_a_learning_rate_that_nobody_gave_fits_the_trials_optimizer() -> None:
    rates = {
        chosen["optimizer"]: chosen["learning_rate"]
        for chosen, _ in suggestions(spec_of('optimizer = ["sgd", "adamw"]'), 20)
    }

    assert rates == {"sgd": 0.05, "adamw": 0.002}


@pytest.mark.parametrize("space", [EVERYTHING, "width = [8, 16]", 'optimizer = ["sgd", "adamw"]'])
def test_every_suggestion_builds_dlcores_configs(space: str) -> None:
    spec = spec_of(space)

    for chosen, _ in suggestions(spec, 30):
        model = model_config(chosen, 64, 10)
        training = train_config(spec, chosen, "accuracy")
        assert model.widths == widths(chosen)
        assert (training.epochs, training.patience, training.objective) == (40, 16, "accuracy")
        assert training.clip_norm == (None if chosen["clip_norm"] is False else 1.0)
        for name in ("activation", "slope", "initialization", "dropout"):
            assert name not in chosen or getattr(model, name) == chosen[name]
        for name in ("optimizer", "learning_rate", "momentum", "nesterov", "weight_decay", "batch_size", "schedule"):
            assert name not in chosen or getattr(training, name) == chosen[name]
        assert isinstance(model, ModelConfig)
        assert isinstance(training, TrainConfig)


# Funnels


@pytest.mark.parametrize(
    ("width", "depth", "funnel", "expected"),
    [
        (64, 3, 1.0, (64, 64, 64)),
        (64, 4, 0.5, (64, 32, 16, 8)),
        (100, 3, 0.7, (100, 70, 49)),
        (10, 3, 0.33, (10, 3, 1)),
        (4, 4, 0.01, (4, 1, 1, 1)),
        (8, 1, 0.5, (8,)),
        (8, 0, 0.5, ()),
    ],
)
def test_a_funnel_narrows_each_layer_by_the_same_share(
    width: int, depth: int, funnel: float, expected: tuple[int, ...]
) -> None:
    assert widths({"width": width, "depth": depth, "funnel": funnel}) == expected


def test_the_parameters_of_a_funnel_are_counted_before_it_is_built() -> None:
    chosen = dict(grid_points(spec_of("width = 20\ndepth = 3\nfunnel = [0.5, 1.0]"))[0]) | {"funnel": 0.5}

    assert count_parameters(model_config(chosen, 7, 2)) == (7 + 1) * 20 + (20 + 1) * 10 + (10 + 1) * 5 + (5 + 1) * 2


@given(st.integers(1, 300), st.integers(0, 8), st.floats(0.01, 1))
def test_a_funnel_never_widens_and_grows_with_the_first_width(width: int, depth: int, funnel: float) -> None:
    found = widths({"width": width, "depth": depth, "funnel": funnel})
    wider = widths({"width": width + 1, "depth": depth, "funnel": funnel})

    assert len(found) == depth
    assert all(left >= right >= 1 for left, right in itertools.pairwise(found))
    assert all(left <= right for left, right in zip(found, wider, strict=True))


def test_a_trial_recorded_before_there_were_funnels_has_equal_widths() -> None:
    assert widths({"width": 9, "depth": 2}) == (9, 9)


def test_a_spec_without_a_funnel_suggests_what_it_did_before() -> None:
    spec = spec_of("width = [8, 16]\ndepth = {low = 1, high = 3}")

    assert "funnel" not in str(spec.to_dict())
    assert list(distributions(spec)) == ["depth", "width"]
    assert all(chosen["funnel"] == 1.0 and "funnel" not in searched for chosen, searched in suggestions(spec, 9))


# max_parameters


def limited(
    limit: int, space: str = "depth = {low = 1, high = 4}\nwidth = {low = 16, high = 256, log = true}"
) -> StudySpec:
    return spec_of(space, f"[search]\nmax_parameters = {limit}")


def test_a_suggestion_that_fits_is_left_alone() -> None:
    assert shrink({"depth": 4, "width": 200}, limited(1000), size) == {"depth": 4, "width": 200}
    assert shrink({"depth": 4, "width": 999}, spec_of("width = [1, 999]"), size) == {"depth": 4, "width": 999}


def test_a_suggestion_becomes_narrower_before_it_becomes_shallower() -> None:
    assert shrink({"depth": 4, "width": 201, "momentum": 0.5}, limited(1000), size) == {
        "depth": 4,
        "width": 200,
        "momentum": 0.5,
    }
    assert shrink({"depth": 4, "width": 201}, limited(80), size) == {"depth": 4, "width": 16}
    assert shrink({"depth": 4, "width": 201}, limited(79), size) == {"depth": 3, "width": 19}
    assert shrink({"depth": 4, "width": 17}, limited(79), size) == {"depth": 3, "width": 17}


def test_a_shrunk_suggestion_takes_values_of_the_search_space_only() -> None:
    listed = limited(100, "depth = [4, 1]\nwidth = [64, 8, 32]")

    assert shrink({"depth": 4, "width": 64}, listed, size) == {"depth": 4, "width": 8}
    assert shrink({"depth": 1, "width": 64}, listed, size) == {"depth": 1, "width": 32}
    stepped = limited(100, "depth = 1\nwidth = {low = 10, high = 90, step = 20}")
    assert shrink({"depth": 1, "width": 90}, stepped, size) == {"depth": 1, "width": 50}


@given(st.integers(1, 4), st.integers(16, 256), st.integers(32, 1300))
def test_nothing_larger_would_fit(depth: int, width: int, limit: int) -> None:
    shrunk = shrink({"depth": depth, "width": width}, limited(limit), size)

    assert size(shrunk) <= limit
    assert shrunk["width"] == width or size({**shrunk, "width": int(shrunk["width"]) + 1}) > limit
    assert shrunk["depth"] == depth or size({"depth": int(shrunk["depth"]) + 1, "width": 16}) > limit


def test_a_space_in_which_nothing_fits_is_said_before_work_starts() -> None:
    check_smallest(limited(32), size)
    check_smallest(spec_of("width = [1, 2]"), size)
    with pytest.raises(SpecError, match=r"max_parameters must allow the smallest network .* which has 32 .*; got 31"):
        check_smallest(limited(31), size)
    with pytest.raises(SpecError, match="which has 16"):
        check_smallest(limited(15, "depth = [4, 1]\nwidth = [64, 8, 32]"), size)


def test_the_widest_funnel_must_fit_at_the_smallest_width_and_depth() -> None:
    def count(chosen: Mapping[str, Value]) -> int:
        return sum(widths(chosen))

    space = "depth = 3\nwidth = [8, 16]\nfunnel = {low = 0.5, high = 1.0}"
    check_smallest(limited(24, space), count)
    with pytest.raises(SpecError, match="which has 24"):
        check_smallest(limited(23, space), count)
    assert shrink({"depth": 3, "width": 16, "funnel": 0.5}, limited(24, space), count)["width"] == 8


def test_every_normalization_must_fit_at_the_smallest_width_and_depth() -> None:
    def count(chosen: Mapping[str, Value]) -> int:
        return count_parameters(model_config(chosen, 4, 3))

    space = 'depth = [1, 2]\nwidth = [8, 16]\nnormalization = ["none", "batch", "layer"]'
    check_smallest(limited(83, space), count)  # 4 x 8 + 8, 8 x 3 + 3, and a gain and a shift for each of 8 units
    with pytest.raises(SpecError, match="which has 83"):
        check_smallest(limited(82, space), count)


# Grids

GRID = """
depth = {low = 1, high = 3}
activation = ["relu", "leaky_relu", "tanh"]
slope = [0.1, 0.2]
optimizer = ["sgd", "adamw"]
momentum = {low = 0.0, high = 0.9, step = 0.3}
width = 32
"""


def frozen(point: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(point.items()))


@pytest.mark.parametrize(
    ("budget", "limit", "most"),
    [
        ("trials = 64", "", 6),
        ("trials = 4", "", 4),
        ("seconds = 9.0", "", 6),
        ("trials = 64", "max_parameters = 1000", 3),
    ],
)
def test_a_grid_comes_to_no_more_trials_than_it_has_points(budget: str, limit: str, most: int) -> None:
    spec = parse_spec(
        f'study = "a"\nbudget = {{ {budget} }}\n[search]\nsampler = "grid"\n{limit}\n'
        '[data]\nsource = "sklearn:digits"\n'
        "[search_space]\ndepth = [1, 2, 3]\nwidth = [8, 16]",
        "a.toml",
    )

    assert most_trials(spec, lambda chosen: 100 * int(chosen["width"])) == most


def test_a_grid_has_every_point_exactly_once() -> None:
    points = grid_points(spec_of(GRID))
    searched = [
        {k: v for k, v in point.items() if k in ("depth", "activation", "slope", "optimizer", "momentum")}
        for point in points
    ]
    slopes = [{"activation": "leaky_relu", "slope": s} for s in (0.1, 0.2)] + [
        {"activation": "relu"},
        {"activation": "tanh"},
    ]
    momenta = [{"optimizer": "sgd", "momentum": m} for m in (0.0, 0.3, 0.6, 0.9)] + [{"optimizer": "adamw"}]
    expected = [{"depth": d} | a | o for d, a, o in itertools.product((1, 2, 3), slopes, momenta)]

    assert len(points) == len({frozen(p) for p in points}) == 60
    assert {frozen(p) for p in searched} == {frozen(p) for p in expected}
    assert all(point["width"] == 32 for point in points)


def test_a_grid_is_shuffled_by_the_study_seed() -> None:
    spec = spec_of(GRID)
    other = parse_spec(f'study = "a"\nseed = 2\n[data]\nsource = "sklearn:digits"\n[search_space]\n{GRID}', "a.toml")

    assert grid_points(spec) == grid_points(spec)
    assert grid_points(spec) != grid_points(other)
    assert {frozen(p) for p in grid_points(spec)} == {frozen(p) for p in grid_points(other)}
    # The first points see more than one corner.
    assert len({point["depth"] for point in grid_points(spec)[:16]}) == 3


def test_points_that_are_too_large_are_left_out_and_the_order_of_the_rest_stays() -> None:
    spec = spec_of(GRID)

    assert grid_points(spec, lambda point: point["depth"] != 3) == [p for p in grid_points(spec) if p["depth"] != 3]


def test_points_of_a_grid_have_the_keys_of_a_suggestion() -> None:
    spec = spec_of(GRID)
    for point in grid_points(spec):
        assert model_config(point, 3, 1).n_features == 3
        assert train_config(spec, point, "loss").momentum == point.get("momentum", 0.0)


def test_what_is_idle_is_no_part_of_a_trial() -> None:
    def chosen(more: str) -> dict[str, object]:
        text = f'study = "a"\n[data]\nsource = "sklearn:digits"\n{more}'
        spec = parse_spec(text, "a.toml")
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        hyperparameters, _ = suggest(study.ask(), spec)
        assert train_config(spec, hyperparameters, "accuracy").class_weights == hyperparameters.get(
            "class_weights", "none"
        )
        return dict(hyperparameters)

    assert "class_weights" not in chosen("")
    assert "class_weights" not in chosen('[training]\nclass_weights = "none"')
    assert chosen('[training]\nclass_weights = "balanced"')["class_weights"] == "balanced"
    assert "class_weights" in chosen('[search_space]\nclass_weights = ["none", "balanced"]')
    grid = '[search]\nsampler = "grid"\n[search_space]\nwidth = [8, 16]'
    spec = parse_spec(f'study = "a"\n[data]\nsource = "sklearn:digits"\n{grid}', "a.toml")
    assert all("class_weights" not in point for point in grid_points(spec))


@pytest.mark.parametrize(
    "space, sections, expected",
    [
        ("width = [8, 16]", "", False),
        ("width = [8, 16]", "[training]\nweight_decay = 0.1", True),
        ("weight_decay = { low = 0.0, high = 0.1 }", "", True),
        ('optimizer = "adamw"\nweight_decay = { low = 0.0, high = 0.1 }', "", False),
        ('optimizer = ["adamw", "sgd"]\nweight_decay = [0.0, 0.1]', "", True),
    ],
)
def test_a_study_knows_whether_sgd_may_decay_its_weights(space: str, sections: str, expected: bool) -> None:
    assert decays_sgd(spec_of(space, sections)) is expected


def test_the_middle_of_a_space_is_in_the_middle_of_each_range_by_its_scale() -> None:
    found = middle(spec_of(EVERYTHING))
    assert found["depth"] == 2 and found["width"] == 64 and found["learning_rate"] == pytest.approx(0.01)
    assert found["activation"] == "relu" and "slope" not in found and found["optimizer"] == "sgd"
    assert found["dropout"] == pytest.approx(0.2) and found["noise"] == pytest.approx(0.15)
    train_config(spec_of(EVERYTHING), found, "accuracy")
