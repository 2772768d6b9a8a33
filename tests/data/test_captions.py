from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from latentdrift.data import Cohort, PromptTemplate, Record, check_caption_length, default_template
from latentdrift.data.captions import value_words
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError


def cohort_of(*attributes: dict[str, str | int | float]) -> Cohort:
    records = [Record(Path(f"{i}.png"), attributes=values) for i, values in enumerate(attributes)]
    return Cohort(records, Path(), "cohort")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("NonDemented", "non demented"),
        ("VeryMildDemented", "very mild demented"),
        ("CN", "cognitively normal"),
        ("MCI", "mild cognitive impairment"),
        ("AD", "Alzheimer's disease"),
        ("No Finding", "no finding"),
        ("Effusion|Pleural_Thickening", "effusion and pleural thickening"),
        ("PA", "PA"),
        ("MRIScan", "MRI scan"),
        (74, "74"),
        (74.0, "74"),
        (74.25, "74.25"),
    ],
)
def test_values_become_words(value: str | float, words: str) -> None:
    assert value_words(value) == words


def test_template_is_filled() -> None:
    template = PromptTemplate("a brain MRI slice, {stage}, {sex}, age {age:.0f} {{sic}}")
    assert template.attribute_names == ("stage", "sex", "age")
    found = template.caption({"stage": "MildDemented", "sex": "F", "age": 74.6})
    assert found == "a brain MRI slice, mild demented, female, age 75 {sic}"
    assert PromptTemplate("{stage}", abbreviations={}).caption({"stage": "CN"}) == "CN"


def test_missing_attribute_is_named_with_the_sample() -> None:
    with pytest.raises(DataError, match=r"needs 'stage'.*of 0\.png lack \(age\)"):
        PromptTemplate("{stage}").caption(cohort_of({"age": 3})[0])
    with pytest.raises(UnknownNameError, match="Did you mean 'stage'"):
        PromptTemplate("{stagge}").check(cohort_of({"stage": "CN"}))
    with pytest.raises(DataError, match="'stage' = 'CN'"):
        PromptTemplate("{stage:.0f}").caption({"stage": "CN"})


@pytest.mark.parametrize("text", ["{", "{}", "{0}", "{a.b}", "{a[0]}", "{a!r}", [], "a }"])
def test_malformed_templates(text: str | list[str]) -> None:
    with pytest.raises(ConfigurationError, match="template"):
        PromptTemplate(text)


def test_wordings_are_spread_over_samples_and_stay_with_them() -> None:
    template = PromptTemplate(["a {x}", "b {x}", "c {x}"], seed=4)
    records = list(cohort_of(*({"x": 1} for _ in range(600))))
    captions = template.captions(records)
    assert captions == [template.caption(record) for record in records]
    assert captions[:10] == template.captions(records[:10])
    assert all(150 < count < 250 for count in Counter(captions).values())
    assert captions != PromptTemplate(template.texts, seed=5).captions(records)


def test_default_template() -> None:
    cohort = cohort_of(
        *({"stage": "CN", "sex": "M", "age": 60 + i % 9, "heart_size": 0.5, "scan_id": f"x{i}"} for i in range(120))
    )
    template = default_template(cohort)
    assert template.caption(cohort[1]) == "a medical image, cognitively normal, male, age 61, heart size 0.5"
    photographs = cohort_of({"caption": "a photo of a Tench|fish", "n": 1}, {"caption": "Another", "n": 2})
    assert default_template(photographs).captions(photographs) == ["a photo of a Tench|fish", "Another"]
    assert default_template(cohort_of({"a": 1}, {"a": 2, "b": 3})).attribute_names == ("a",)
    assert default_template(cohort_of({})).caption({}) == "a medical image"


def test_captions_longer_than_the_text_encoder_are_refused() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=8)
    check_caption_length("abcdef", tokenizer)  # and two for start and end
    with pytest.raises(DataError, match=r"'abcdefg' is 9 tokens long, and the text encoder takes 8"):
        check_caption_length(["abc", "abcdefg"], tokenizer)


def test_every_name_can_be_imported_from_where_it_was() -> None:
    from latentdrift.data import captions

    assert {"PromptTemplate", "check_caption_length", "default_template", "value_words"} <= set(captions.__all__)
    assert all(hasattr(captions, name) for name in captions.__all__)


def test_three_values_are_enumerated() -> None:
    assert value_words("Effusion|Mass|No_Nodule") == "effusion, mass and no nodule"


@pytest.mark.parametrize(("value", "words"), [("F", "female"), ("m", "male"), ("Female", "female"), ("MALE", "male")])
def test_sexes(value: str, words: str) -> None:
    assert PromptTemplate("{sex}").caption({"sex": value}) == words
    person = {"female": "woman", "male": "man"}[words]
    assert PromptTemplate("{sex:person}").caption({"sex": value}) == person
