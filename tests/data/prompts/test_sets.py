from __future__ import annotations

import json
from pathlib import Path

import pytest

from latentdrift.data import Cohort, PromptTemplate, Record
from latentdrift.data.prompts import PROMPT_SETS, as_template, prompt_set
from latentdrift.data.prompts.files import shipped
from latentdrift.data.prompts.words import Vocabulary
from latentdrift.errors import ConfigurationError, UnknownNameError

CLASSES = {
    "mri": ["CN", "SMC", "EMCI", "MCI", "LMCI", "AD", "NonDemented", "VeryMildDemented", "MildDemented"],
    "xray": ["No Finding", "Cardiomegaly", "Pleural Effusion", "Effusion", "Pneumonia", "Lung Opacity", "Mass"],
}
KEYS = [f"images/{i:05d}.png" for i in range(400)]


@pytest.mark.parametrize(
    ("modality", "value"), [(modality, value) for modality, values in CLASSES.items() for value in values]
)
def test_diverse_is_21_wordings_that_keep_the_class(modality: str, value: str) -> None:
    template = prompt_set("diverse", modality)
    name = template.attribute_names[0]
    captions = {template.caption({name: value, "age": 74, "sex": "F"}, key=key) for key in KEYS}
    assert len(captions) == len(template.texts) == len(set(template.texts)) == 21
    terms = shipped(modality).words["class"]
    own = terms[value].words
    assert all(any(f" {word}" in f" {caption}" for word in own) for caption in captions)
    # Nor is a class taken for another: without its own words no other class's are left.
    others = {word for term in terms.values() if term.words != own for word in term.words if word not in own}
    for caption in captions:
        rest = caption
        for word in sorted(own, key=len, reverse=True):
            rest = rest.replace(word, "…")
        assert not [word for word in others if f" {word} " in f" {rest} "]
    assert not any("74" in caption or "female" in caption for caption in captions)


@pytest.mark.parametrize("modality", CLASSES)
@pytest.mark.parametrize("name", ["simple+patient", "diverse+patient"])
def test_patient_information_is_true_and_goes_where_it_is_missing(modality: str, name: str) -> None:
    template = prompt_set(name, modality, "stage")
    known = {"stage": "MCI" if modality == "mri" else "Pneumonia", "age": 74, "sex": "M"}
    plain = prompt_set(name.split("+")[0], modality, "stage")
    for key in KEYS[:100]:
        caption = template.caption(known, key)
        assert "74 years old" in caption
        assert " male" in caption
        assert "{" not in caption
        without = template.caption({"stage": known["stage"]}, key)
        assert without == plain.caption(known, key)
        assert "  " not in caption
        assert " ," not in caption
    assert set(template.required_names) == {"stage"}


@pytest.mark.parametrize(
    ("age", "phrase"),
    [("number", "74 years old"), ("words", "seventy-four years old"), ("decade", "in the seventies"),
     ("bin", "70 to 79 years old"), ("bin5", "70 to 74 years old")],
)  # fmt: skip
def test_age_styles(age: str, phrase: str) -> None:
    template = prompt_set("diverse+patient", age=age)
    assert all(phrase in template.caption({"diagnosis": "CN", "age": 74.9}, key) for key in KEYS[:60])


def test_each_sample_keeps_its_wording_whatever_else_there_is() -> None:
    records = [
        Record(Path(key), attributes={"diagnosis": "AD", "age": 60 + i % 30}, key=key) for i, key in enumerate(KEYS)
    ]
    template = prompt_set("diverse+patient")
    captions = template.captions(records)
    assert captions[200:] == template.captions(records[200:])
    assert captions[::-1] == template.captions(records[::-1])
    edited = template.caption({"diagnosis": "AD", "age": 99}, key=KEYS[7])
    assert edited == captions[7].replace(f"{records[7].attributes['age']} years", "99 years")


def test_words_of_stages_codes_and_several_findings() -> None:
    assert prompt_set("simple", attribute="stage").caption({"stage": "VeryMildDemented"}) == (
        "an MRI of a very mild dementia brain"
    )
    assert prompt_set("simple", attribute="CDR").caption({"CDR": 0.5}) == "an MRI of a very mild dementia brain"
    assert prompt_set("simple", attribute="CDR").caption({"CDR": 0}) == "an MRI of a non-demented brain"
    # A number that is no clinical rating stays a number.
    assert prompt_set("simple", attribute="label").caption({"label": 1}) == "an MRI of a 1 brain"
    xray = prompt_set("simple", "xray")
    for value in ("Cardiomegaly|Effusion", "cardiomegaly | pleural_effusion", "Cardiomegaly|Pleural Effusion"):
        assert xray.caption({"findings": value}) == "a radiograph of a cardiomegaly and pleural effusion chest"
    assert xray.caption({"findings": "Mass|Edema|Hernia"}) == "a radiograph of a mass, edema and hernia chest"
    assert xray.caption({"findings": "No Finding"}) == "a radiograph of a normal chest"


CHEXPERT = (
    "No Finding|Enlarged Cardiomediastinum|Cardiomegaly|Lung Opacity|Lung Lesion|Edema|Consolidation|Pneumonia|"
    "Atelectasis|Pneumothorax|Pleural Effusion|Pleural Other|Fracture|Support Devices"
)
NIH = (
    "Atelectasis|Cardiomegaly|Consolidation|Edema|Effusion|Emphysema|Fibrosis|Hernia|Infiltration|Mass|No Finding|"
    "Nodule|Pleural_Thickening|Pneumonia|Pneumothorax"
)


@pytest.mark.parametrize(
    ("modality", "values"),
    [("xray", CHEXPERT), ("xray", NIH), ("xray", "healthy|cardiomegaly|pleural effusion|pneumonia|None Stated"),
     ("mri", "CN|SMC|EMCI|MCI|LMCI|AD"), ("mri", "CN|VeryMild|Mild|Moderate"),
     ("mri", "NonDemented|VeryMildDemented|MildDemented|ModerateDemented")],
)  # fmt: skip
def test_the_data_sets_classes_are_known_and_told_apart(modality: str, values: str) -> None:
    vocabulary = Vocabulary(shipped(modality).words["class"])
    names = values.split("|")
    terms = [vocabulary.find(name) for name in names]
    assert all(terms)
    for wording in range(6):
        assert len({vocabulary.words(name, wording, {}) for name in names}) == len(names)


def test_uncertain_and_unknown_findings_are_written_out() -> None:
    xray = prompt_set("simple", "xray")
    assert xray.caption({"findings": "possible Pneumonia|Round_Thing"}) == (
        "a radiograph of a possible pneumonia and round thing chest"
    )


def test_several_attributes_are_the_class() -> None:
    template = prompt_set("simple", "xray", ["heart", "lung", "pleura"])
    known = {"heart": "Cardiomegaly", "lung": "Pneumonia", "pleura": "Effusion"}
    assert template.caption(known) == "a radiograph of a cardiomegaly, pneumonia and pleural effusion chest"


def test_the_diagnosis_is_told_where_another_attribute_is_the_class() -> None:
    template = prompt_set("simple+patient", attribute="stage")
    known = {"stage": "MildDemented", "diagnosis": "AD", "sex": "F"}
    assert template.caption(known) == "an MRI of a mild dementia brain, female, diagnosis Alzheimer's disease"
    assert "diagnosis" not in prompt_set("simple", attribute="stage").attribute_names


@pytest.mark.parametrize("name", PROMPT_SETS)
@pytest.mark.parametrize("modality", CLASSES)
def test_a_template_is_stored_and_restored(name: str, modality: str) -> None:
    template = prompt_set(name, modality, age="words", seed=3)
    again = PromptTemplate.restore(json.loads(json.dumps(template.stored())))
    known = {template.attribute_names[0]: CLASSES[modality][1], "age": 61, "sex": "F"}
    assert [again.caption(known, key) for key in KEYS] == [template.caption(known, key) for key in KEYS]
    assert again.stored() == template.stored()


def test_a_plain_text_is_stored_as_itself() -> None:
    assert PromptTemplate("a {stage} brain").stored() == "a {stage} brain"
    assert PromptTemplate.restore("a {stage} brain").caption({"stage": "AD"}) == "a Alzheimer's disease brain"
    assert PromptTemplate.restore(PromptTemplate("{x}", abbreviations={}).stored()).caption({"x": "AD"}) == "AD"
    for damaged in ({}, {"texts": 3}, {"texts": ["a"], "words": {"x": ["y"]}}):
        with pytest.raises(ConfigurationError, match="damaged"):
            PromptTemplate.restore(damaged)


def cohort_of(name: str, *values: str) -> Cohort:
    return Cohort([Record(Path(f"{i}.png"), attributes={name: v}) for i, v in enumerate(values)], Path(), "c")


def test_what_a_user_calls_a_template() -> None:
    brains, chests = cohort_of("stage", "NonDemented", "MildDemented"), cohort_of("label", "No Finding", "Effusion")
    assert as_template("simple", brains).texts == ("an MRI of a(n) {stage} brain",)
    assert as_template("simple", chests).texts == ("a radiograph of a(n) {label} chest",)
    assert as_template("xray:simple", brains).texts == ("a radiograph of a(n) {stage} chest",)
    assert as_template("mri:simple").texts == ("an MRI of a(n) {diagnosis} brain",)
    worded = as_template("diverse+patient+words", brains)
    assert len(worded.texts) == 21
    assert worded.texts[0] == "an MRI of a(n) {stage} brain[, {sex}][, {age:years-words}][, diagnosis {diagnosis}]"
    assert as_template("simple+bin5+patient", modality="mri").texts[0].endswith("{age:years-bin5}]")
    assert as_template("an MRI of a {stage} brain").texts == ("an MRI of a {stage} brain",)
    assert as_template("a picture of a brain").texts == ("a picture of a brain",)
    assert as_template(worded) is worded
    assert as_template(worded.stored()).texts == worded.texts


def test_names_that_are_none() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'diverse'"):
        as_template("divers")
    for name in ("simple+patients", "simple+words+bin", "simple+years"):
        with pytest.raises(UnknownNameError, match="prompt set"):
            as_template(name, modality="mri")
    with pytest.raises(UnknownNameError, match="modality of prompts 'ct'"):
        as_template("ct:simple")
    with pytest.raises(UnknownNameError, match="prompt set 'many'"):
        prompt_set("many")
    with pytest.raises(ConfigurationError, match="mri:simple or xray:simple"):
        as_template("simple", cohort_of("label", "red", "blue"))
    with pytest.raises(ConfigurationError, match="mri:simple or xray:simple"):
        as_template("simple")
    with pytest.raises(ConfigurationError, match="age style 'roman'"):
        prompt_set("simple", age="roman")
    with pytest.raises(ConfigurationError, match="Rename the column"):
        prompt_set("simple", attribute="my stage")
