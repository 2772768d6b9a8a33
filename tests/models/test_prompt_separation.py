"""What the embedded text encoder makes of the prompt sets: classes kept apart, and no caption cut off."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from latentdrift.data import PromptTemplate, check_caption_length
from latentdrift.data.prompts import prompt_set
from latentdrift.models import encode_prompts, load_pipeline

CLASSES = {
    ("mri", "diagnosis"): ["CN", "MCI", "AD"],
    ("mri", "stage"): ["NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"],
    ("xray", "findings"): ["No Finding", "Cardiomegaly", "Pleural Effusion", "Pneumonia"],
}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return load_pipeline("tiny")


def separations(pipeline: Any, template: PromptTemplate, attribute: str, values: list[str]) -> list[float]:
    """Smallest distance of two classes' text states in each wording, as a fraction of the states' norm."""
    wordings = range(len(template.texts))
    keys = {template._choice(str(i), len(wordings)): str(i) for i in range(2000)}
    captions = [template.caption({attribute: value}, keys[i]) for i in wordings for value in values]
    states = encode_prompts(pipeline, captions).hidden.flatten(1)
    found = []
    for own in states.split(len(values)):
        apart = torch.cdist(own[None], own[None])[0]
        found.append(float(apart[~torch.eye(len(values), dtype=torch.bool)].min() / own.norm(dim=1).mean()))
    return found


@pytest.mark.parametrize(("modality", "attribute"), CLASSES)
def test_every_wording_keeps_the_classes_apart(pipeline: Any, modality: str, attribute: str) -> None:
    values = CLASSES[modality, attribute]
    found = separations(pipeline, prompt_set("diverse", modality, attribute), attribute, values)
    print(modality, attribute, [round(value, 2) for value in found])
    assert len(found) == 21
    assert min(found) > 0.4
    # The class at the end of a long sentence is what the wordings avoid.
    at_end = PromptTemplate(f"an axial slice of the brain, chest or body of a patient, {{{attribute}}}")
    (lost,) = separations(pipeline, at_end, attribute, values)
    assert lost < min(found) / 3


@pytest.mark.parametrize("modality", ["mri", "xray"])
def test_the_longest_captions_fit(pipeline: Any, modality: str) -> None:
    findings = "Enlarged Cardiomediastinum|Pleural Thickening"
    captions = []
    for age in ("number", "words", "decade", "bin"):
        template = prompt_set("diverse+patient", modality, "stage", age=age)
        value = "EMCI" if modality == "mri" else findings
        known = {"stage": value, "age": 77, "sex": "F", "diagnosis": "EMCI"}
        captions += [template.caption(known, key=str(i)) for i in range(300)]
    check_caption_length(captions, pipeline.tokenizer)
    longest = max(len(pipeline.tokenizer(caption).input_ids) for caption in set(captions))
    print(modality, longest)
    assert longest <= pipeline.tokenizer.model_max_length == 77
