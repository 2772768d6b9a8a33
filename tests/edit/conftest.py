"""Toys to edit: a model under a drift, one that edits by instruction, and four images with four wishes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.data import Cohort, ImageTransform
from latentdrift.drift import LatentDrift
from latentdrift.edit import Editing
from latentdrift.finetune.methods.instruct_pix2pix import editing_pipeline, grow_input
from latentdrift.models import load_pipeline

BEFORE = ["a slice, mild demented", "a slice, non demented", "a slice, aged 60", "mild"]
AFTER = ["a slice, non demented", "a slice, mild demented", "a slice, aged 80", "none at all"]

MakeRequest = Callable[..., Editing]


@pytest.fixture
def pipeline(toy_model: Path) -> Any:
    """The toy under a drift."""
    return LatentDrift(0.1).attach(load_pipeline(toy_model))


@pytest.fixture(scope="module")
def instructed(toy_model: Path) -> Any:
    """The toy grown by the channels of a source image, which it heeds."""
    made: Any = load_pipeline(toy_model)
    grow_input(made.unet, 8)
    with torch.no_grad():
        made.unet.conv_in.weight[:, 4:].normal_(std=0.2, generator=torch.Generator().manual_seed(3))
    return LatentDrift(0.1).attach(editing_pipeline(made))


@pytest.fixture(scope="session")
def images(toy_cohort: Path) -> torch.Tensor:
    read = ImageTransform(size=32).read
    return torch.stack([read(record.image) for record in Cohort.open(toy_cohort).take(4, seed=0)])


@pytest.fixture
def request_for(images: torch.Tensor) -> MakeRequest:
    """Make a request of the first `count` images, with settings in place of the usual ones."""

    def make(pipeline: Any, count: int = 4, **settings: Any) -> Editing:
        rows = settings.pop("rows", range(count))
        usual = {
            "images": images[list(rows)],
            "source_captions": [BEFORE[row] for row in rows],
            "target_captions": [AFTER[row] for row in rows],
            "seeds": [10 + row for row in rows],
            "steps": 4,
            "objective": lambda images, rows: -images[..., 12:24, 8:24].mean((1, 2, 3)),
        }
        return Editing(pipeline, **{**usual, **settings})

    return make
