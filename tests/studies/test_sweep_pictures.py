"""studies.sweep_pictures: what range tests and races say, by their numbers."""

import math
from dataclasses import replace

from studies.records import Objective
from studies.sweep_pictures import Lane, Race, RatePicture, alternative, race_sentence, rate_sentence, rounded


def rates(ends: tuple[float | None, float | None] = (0.0123, 0.98), steepest: float | None = 0.1) -> RatePicture:
    return RatePicture("wine", (0.001, 0.01, 0.1, 1.0), (1.0, 1.0, 0.4, 3.0), (1.0, 0.9, 0.5, 2.0), ends, steepest)


def test_a_range_is_a_line_to_paste_and_a_sentence() -> None:
    assert rates().line == "learning_rate = { low = 0.012, high = 0.98, log = true }"
    text = rate_sentence(rates())
    assert text == (
        "The loss falls from 1 to 0.5 between the rates 0.012 and 0.98, most steeply at 0.1; beyond, it rises."
    )
    assert alternative(rates()).endswith(text)
    assert rounded(0.000123) == 0.00012


def test_a_range_without_an_edge_says_that_all_was_learnt() -> None:
    text = rate_sentence(replace(rates(), smoothed=(1.0, 0.9, 0.01, 0.001), has_edge=False))
    assert "from 1 to 0.01 between" in text and text.endswith("all is learnt, and no rate up to 1 was too high.")


def test_a_network_that_does_not_learn_has_no_line() -> None:
    nothing = rates((None, None), None)
    assert nothing.line == "" and "the network does not learn" in rate_sentence(nothing)


def test_a_race_says_who_came_how_far_and_when() -> None:
    lanes = (
        Lane("grid", ((math.nan, 0.7, 0.7),)),
        Lane("tpe", ((0.5, 0.6, 0.9), (0.7, 0.8, 0.8))),
        Lane("qmc", ((math.nan,) * 3,)),
    )
    race = Race(Objective("accuracy", "maximize"), lanes, "They cannot be told apart.")
    assert lanes[1].mean[0] == 0.6
    text = race_sentence(race)
    assert "grid comes to 0.7 by trial 2 of 3" in text and "tpe comes to 0.85 by trial 3 of 3" in text
    assert "qmc trains no trial to its end" in text
    assert "the mean of 2 searches" in text and text.endswith("told apart.")
    often = Lane("qmc", ((math.nan, 0.5), (math.nan, math.nan)))
    assert "qmc trains a trial to its end in 1 of 2 searches only" in race_sentence(replace(race, lanes=(often,)))
