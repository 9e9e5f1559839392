"""studies.mistakes: how a mistake is said."""

import math

from studies.mistakes import Mistake, did_you_mean, message, must_be_one_of, shown, unknown_keys


def test_values_look_as_they_do_in_toml() -> None:
    assert [shown(v) for v in ("a", True, 0.0, 1e-5, [1, "b"], math.inf)] == [
        '"a"', "true", "0.0", "1e-05", '[1, "b"]', "inf",
    ]  # fmt: skip


def test_a_long_value_is_cut() -> None:
    assert shown("x" * 100_000) == '"' + "x" * 56 + "..."


def test_only_a_near_name_is_offered() -> None:
    assert did_you_mean("trails", ["seconds", "trials"]) == '; did you mean "trials"?'
    assert did_you_mean("TPE", ["tpe"]) == '; did you mean "tpe"?'
    assert did_you_mean("foo", ["seconds", "trials"]) == ""


def test_a_wrong_name_gets_the_list_of_the_right_ones() -> None:
    assert must_be_one_of("rellu", ("relu", "tanh")) == ('must be one of relu, tanh; got "rellu"; did you mean "relu"?')


def test_only_unknown_keys_are_mistakes() -> None:
    assert unknown_keys("a.", ["low", "hihg"], ["low", "high"]) == [
        Mistake("a.hihg", 'unknown key; did you mean "high"?')
    ]


def test_a_message_counts_and_aligns_its_mistakes() -> None:
    assert message("a.toml", [Mistake("x", "is required")]) == "a.toml: 1 mistake\n  x   is required"
    assert message("a.toml", [Mistake("x", "one"), Mistake("long.key", "two")]) == (
        "a.toml: 2 mistakes\n  x          one\n  long.key   two"
    )
