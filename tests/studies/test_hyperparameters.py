"""studies.hyperparameters: what can be searched, and what values it may take."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcore.config import ModelConfig, PreprocessConfig, TrainConfig
from studies.hyperparameters import (
    FIXED,
    RULES,
    Range,
    choices,
    default_space,
    fixed_learning_rate,
    is_searched,
    n_choices,
    only_value,
    plain,
    read_settings,
)


def mistake_of(name: str, raw: object) -> str:
    _, (mistake,) = read_settings({name: raw})
    return f"{mistake.key} {mistake.text}".removeprefix(f"search_space.{name}").strip()


def setting_of(name: str, raw: object) -> object:
    settings, mistakes = read_settings({name: raw})
    assert mistakes == []
    return settings[name]


def test_a_condition_is_decided_before_what_depends_on_it() -> None:
    order = list(RULES)

    for name, rule in RULES.items():
        assert rule.only_with is None or order.index(rule.only_with[0]) < order.index(name)


def test_every_value_that_a_rule_allows_can_be_trained() -> None:
    for name, rule in RULES.items():
        low = 1 if rule.is_low_open else rule.low
        ends = rule.names or (True,) if rule.kind in ("name", "switch") else (int(low),)
        for value in ends:
            assert rule.wrong(value) is None
            if name in ("depth", "width", "funnel"):
                continue
            if name == "preprocess":
                PreprocessConfig(scaling=str(value))
                continue
            model = name in ("activation", "slope", "initialization", "dropout", "normalization")
            config = {name: value}
            ModelConfig(1, 1, (1,), **config) if model else TrainConfig(epochs=1, **config)  # type: ignore[arg-type]


def test_ranges_lists_and_single_values_are_settings() -> None:
    assert setting_of("width", {"low": 1, "high": 8, "log": True}) == Range(1, 8, log=True)
    assert setting_of("dropout", {"low": 0, "high": 0.5, "step": 0.1}) == Range(0.0, 0.5, step=0.1)
    assert setting_of("learning_rate", [1, 0.1]) == (1.0, 0.1)
    assert setting_of("clip_norm", [False, 2]) == (False, 2.0)
    assert setting_of("nesterov", [True, False]) == (True, False)
    assert setting_of("activation", "relu") == "relu"
    assert isinstance(setting_of("learning_rate", 1), float)
    assert isinstance(setting_of("width", 1), int)


@pytest.mark.parametrize(
    ("name", "raw", "mistake"),
    [
        ("width", 16.0, "must be a whole number; got 16.0"),
        ("width", True, "must be a whole number; got true"),
        ("width", 0, "must be >= 1; got 0"),
        ("depth", -1, "must be >= 0; got -1"),
        ("learning_rate", 0, "must be > 0; got 0"),
        ("funnel", 0, "must be > 0; got 0"),
        ("funnel", 1.5, "must be <= 1; got 1.5"),
        ("funnel", {"low": 0.0, "high": 1.0}, ".low must be > 0; got 0.0"),
        ("momentum", 1.0, "must be < 1; got 1.0"),
        ("dropout", "0.5", 'must be a number; got "0.5"'),
        ("dropout", math.nan, "must be finite; got nan"),
        ("clip_norm", True, "must be a number or false; got true"),
        ("clip_norm", math.inf, "must be finite; got inf"),
        ("clip_norm", 10**400, f"must be finite; got {str(10**400)[:57]}..."),
        ("nesterov", 1, "must be true or false; got 1"),
        ("optimizer", "adam", 'must be one of sgd, adamw; got "adam"; did you mean "adamw"?'),
        ("width", [], "must list 1 to 1000 values; got 0"),
        ("width", [8, 16, 8], "must list each value once; got 8 twice"),
        ("learning_rate", [1, 1.0], "must list each value once; got 1.0 twice"),
        ("width", [8, [16]], "must be a whole number; got [16]"),
        ("width", {"low": 1}, ".high is required in a range"),
        ("width", {"low": 9, "high": 8}, ".high must be >= low = 9; got 8"),
        ("width", {"low": 1, "high": 8, "hgih": 8}, '.hgih unknown key; did you mean "high"?'),
        ("width", {"low": 1, "high": 8, "log": 1}, ".log must be true or false; got 1"),
        ("width", {"low": 1, "high": 8, "step": 0}, ".step must be > 0; got 0"),
        ("width", {"low": 1, "high": 8, "step": 0.5}, ".step must be a whole number; got 0.5"),
        ("width", {"low": 1, "high": 8, "step": 2, "log": True},
         ".step cannot go with log = true: list the values; got 2"),
        ("depth", {"low": 0, "high": 8, "log": True}, ".low must be > 0 when log = true; got 0"),
        ("learning_rate", {"low": 0.0, "high": 1.0}, ".low must be > 0; got 0.0"),
        ("momentum", {"low": 0.0, "high": 1.0}, ".high must be < 1; got 1.0"),
        ("dropout", {"low": 0.0, "high": 0.5, "step": 5e-31},
         f".step must leave <= 1000000 values; got 1{29 * '0'}1"),
        ("clip_norm", {"low": 1, "high": 1e300, "step": 1},
         f".step must leave <= 1000000 values; got 1{56 * '0'}..."),
        ("dropout", {"low": 0.0, "high": 0.5, "step": 1e-9}, ".step must leave <= 1000000 values; got 500000001"),
        ("activation", {"low": 1, "high": 2},
         'must be a list of values or one of them, not a range; got {"low": 1, "high": 2}'),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_its_rule_and_value(name: str, raw: object, mistake: str) -> None:
    assert mistake_of(name, raw) == mistake


def test_all_mistakes_of_a_space_are_found_and_the_right_settings_kept() -> None:
    settings, mistakes = read_settings({"width": [0, -1], "depth": 3, "dropuot": 0.5, "slope": {"low": -1, "high": 2}})

    assert settings == {"depth": 3}
    assert [mistake.key for mistake in mistakes] == [
        "search_space.width",
        "search_space.width",
        "search_space.slope.low",
        "search_space.slope.high",
        "search_space.dropuot",
    ]


def test_steps_are_counted_as_the_user_wrote_them() -> None:
    assert Range(0.0, 0.3, step=0.1).values() == (0.0, 0.1, 0.2, 0.3)
    assert Range(0.0, 0.35, step=0.1).values() == (0.0, 0.1, 0.2, 0.3)
    assert Range(1, 8, step=3).values() == (1, 4, 7)
    assert Range(1, 3).values() == (1, 2, 3)
    assert Range(0.0, 1.0).n_values is None
    with pytest.raises(ValueError, match="needs a step"):
        Range(0.0, 1.0).values()


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9))
def test_a_range_holds_every_step_up_to_its_end(low: int, more: int, step: int) -> None:
    values = Range(low, low + more, step=step).values()

    assert values == tuple(range(low, low + more + 1, step))
    assert tuple(v * 10 for v in Range(low / 10, (low + more) / 10, step=step / 10).values()) == pytest.approx(values)


def test_what_has_one_value_is_not_searched() -> None:
    one = (Range(3, 3), Range(0.5, 0.5), Range(0.1, 0.15, step=0.1), (3,), 3)
    many = (Range(3, 4), Range(0.1, 0.5), Range(0.1, 0.2, step=0.1), (3, 4))

    assert [is_searched(setting) for setting in one] == [False] * 5
    assert [is_searched(setting) for setting in many] == [True] * 4
    assert [only_value(setting) for setting in one] == [3, 0.5, 0.1, 3, 3]


def test_choices_are_counted_without_listing_them() -> None:
    assert [n_choices(s) for s in (Range(1, 4), Range(0.0, 1.0), Range(0.0, 1.0, step=0.5), (1, 2), "x")] == [
        4, None, 3, 2, 1,
    ]  # fmt: skip
    assert [choices(s) for s in (Range(1, 2), Range(0.0, 1.0), (1, 2), "x")] == [(1, 2), None, (1, 2), ("x",)]


def test_settings_survive_plain_data() -> None:
    space = default_space("sgd") | {"nesterov": True}
    settings, mistakes = read_settings({name: plain(setting) for name, setting in space.items()})

    assert (settings, mistakes) == (space, [])


def test_fixed_values_keep_their_own_rules() -> None:
    assert all(RULES[name].wrong(value) is None for name, value in FIXED.items())
    assert fixed_learning_rate("sgd") > fixed_learning_rate("adamw") > 0
