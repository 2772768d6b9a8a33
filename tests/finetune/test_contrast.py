from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentdrift.data import Cohort, PromptTemplate
from latentdrift.finetune.contrast import caption_contrast, low_contrast
from latentdrift.models import load_pipeline


def test_contrast_is_the_relative_distance_of_the_nearest_two(toy_model: Path) -> None:
    pipeline = load_pipeline(toy_model)
    captions = ["a", "b", "quite another thing"]
    ids = pipeline.tokenizer(captions, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        states = pipeline.text_encoder(ids)[0].flatten(1)
    distances = torch.cdist(states, states)[~torch.eye(3, dtype=torch.bool)]
    expected = float(distances.min() / states.norm(dim=1).mean())
    assert caption_contrast(pipeline, captions) == pytest.approx(expected, rel=1e-4)
    assert caption_contrast(pipeline, ["a", "a"]) == 0
    assert caption_contrast(pipeline, ["alone"]) == float("inf")


def test_the_embedded_encoder_needs_the_class_before_the_noun(toy_cohort: Path) -> None:
    pipeline, cohort = load_pipeline("tiny"), Cohort.open(toy_cohort)
    warned = low_contrast(pipeline, cohort, PromptTemplate("an axial brain MRI slice, {stage}"))
    assert warned is not None
    assert "'stage'" in warned
    assert "--template 'an MRI of a {stage} brain'" in warned
    assert low_contrast(pipeline, cohort, PromptTemplate("an MRI of a {stage} brain")) is None


def test_a_class_that_no_caption_names_is_no_matter(toy_model: Path, toy_cohort: Path) -> None:
    assert low_contrast(load_pipeline(toy_model), Cohort.open(toy_cohort), PromptTemplate("a slice")) is None
