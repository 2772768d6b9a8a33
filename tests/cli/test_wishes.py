from __future__ import annotations

import pytest

from latentdrift.cli.wishes import all_combinations, parse_attributes, require_card
from latentdrift.errors import ConfigurationError, UnknownNameError
from latentdrift.models import ModelCard

CARD = ModelCard(
    "toy",
    method="basic",
    steps=1,
    size=32,
    gray=True,
    template="{stage}",
    attributes={"stage": ["Mild", "Non"], "age": [60, 70, 80], "score": [0.5, 1.5, 2.0], "note": []},
)


def test_words_are_values_of_the_model() -> None:
    words = ["stage=Mild", "age=75", "score=1.25", "note=a b"]
    assert parse_attributes(words, CARD, "--attributes") == {"stage": "Mild", "age": 75, "score": 1.25, "note": "a b"}
    assert parse_attributes(["any=thing"], None, "--attributes") == {"any": "thing"}


@pytest.mark.parametrize("word", ["stage", "=Mild", "stage="])
def test_what_is_no_word(word: str) -> None:
    with pytest.raises(ConfigurationError, match="--source .* write NAME=VALUE"):
        parse_attributes([word], CARD, "--source")


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("stge=Mild", "attribute of this model 'stge'. Did you mean 'stage'"),
        ("stage=Mildd", "value of stage 'Mildd'. Did you mean 'Mild'"),
    ],
)
def test_names_the_model_does_not_know(word: str, says: str) -> None:
    with pytest.raises(UnknownNameError, match=says):
        parse_attributes([word], CARD, "--target")


@pytest.mark.parametrize("text", ["old", "nan", "inf"])
def test_a_number_must_be_one(text: str) -> None:
    with pytest.raises(ConfigurationError, match="age"):
        parse_attributes([f"age={text}"], CARD, "--target")


def test_what_is_not_given_takes_all_its_values() -> None:
    found = all_combinations(CARD, {"note": "x"})
    assert [wish["stage"] for wish in found] == ["Mild", "Non"]
    assert all((wish["age"], wish["score"], wish["note"]) == (70, 1.5, "x") for wish in found)
    assert len(all_combinations(CARD, {"note": "x", "stage": "Non"})) == 1
    with pytest.raises(ConfigurationError, match="note was another text in every image"):
        all_combinations(CARD, {})


def test_a_model_without_a_card() -> None:
    assert require_card(CARD, "toy", "--prompt") is CARD
    with pytest.raises(ConfigurationError, match="'toy' does not say .* give --prompt"):
        require_card(None, "toy", "--prompt")
