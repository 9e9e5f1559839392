"""studies.sections: the keys of a spec agree with dlcore."""

import dataclasses

import pytest
from pydantic import ValidationError

from dlcore.config import DataConfig, PreprocessConfig, TrainConfig
from studies.sections import PREPROCESSING_KEYS, DataSection, Search, Training, study_name


def test_every_key_of_data_is_one_of_dlcores() -> None:
    ours = set(DataSection.model_fields) - {"preprocess", *PREPROCESSING_KEYS}
    assert ours | {"preprocessing"} == {field.name for field in dataclasses.fields(DataConfig)}


def test_every_key_of_preprocessing_is_one_of_dlcores_with_its_default() -> None:
    ours = {"scaling": "preprocess"} | {key: key for key in PREPROCESSING_KEYS}
    defaults = {field.name: field.default for field in dataclasses.fields(PreprocessConfig)}
    assert {name: DataSection.model_fields[key].default for name, key in ours.items()} == defaults


def test_the_defaults_of_training_are_dlcores() -> None:
    ours = Training()
    for field in dataclasses.fields(TrainConfig):
        if hasattr(ours, field.name) and field.name not in ("epochs", "patience"):
            assert getattr(ours, field.name) == field.default, field.name


def test_types_are_not_guessed() -> None:
    for wrong in ({"epochs": "40"}, {"epochs": True}, {"epochs": 40.0}, {"nesterov": 1}, {"dropout": "0"}):
        with pytest.raises(ValidationError):
            Training.model_validate(wrong)
    assert Training.model_validate({"dropout": 0}).dropout == 0.0


def test_a_section_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Search().sampler = "gp"  # type: ignore[misc]


def test_a_wrong_study_name_says_the_rule() -> None:
    assert study_name("a-1") == "a-1"
    with pytest.raises(ValueError, match="must be 1 to 100 of the characters"):
        study_name("a/1")
