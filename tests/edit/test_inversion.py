"""One inversion, made once, for many edits."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from latentdrift.drift import LatentDrift
from latentdrift.edit import invert
from latentdrift.edit.editor import editor
from latentdrift.errors import ConfigurationError, LatentDriftError
from latentdrift.generate import encode_images, invert_latents
from latentdrift.models import encode_prompts
from tests.edit.conftest import AFTER, BEFORE, MakeRequest


class Rows:
    """Rows that the U-Net was asked for, a number for each evaluation."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet

    def __enter__(self) -> list[int]:
        self.counts: list[int] = []
        self.handle = self.unet.register_forward_pre_hook(lambda _, inputs: self.counts.append(len(inputs[0])))
        return self.counts

    def __exit__(self, *_: Any) -> None:
        self.handle.remove()


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_way_leads_from_the_image_to_its_noise(pipeline: Any, request_for: MakeRequest, strength: float) -> None:
    request = request_for(pipeline, strength=strength)
    inversion = invert(request)
    latents = encode_images(pipeline, request.images)
    noise = invert_latents(pipeline, latents, encode_prompts(pipeline, BEFORE), steps=4, strength=strength)
    assert [step.shape for step in inversion.trajectory] == [(4, 4, 8, 8)] * (round(4 * strength) + 1)
    assert torch.equal(inversion.noise, noise)
    assert torch.equal(inversion.latents, latents)
    assert torch.equal(inversion.source_at(0), noise)
    assert torch.equal(inversion.source_at(len(inversion.trajectory) - 1), inversion.latents)


@pytest.mark.parametrize("name", ["prompt_swap", "pix2pix_zero"])
def test_an_inversion_serves_again_and_changes_nothing(name: str, pipeline: Any, request_for: MakeRequest) -> None:
    make, request = editor.get(name)(), request_for(pipeline)
    direct = make.edit(request)
    inversion = make.invert(request)
    before = [step.clone() for step in inversion.trajectory]
    with Rows(pipeline.unet) as first:
        once = make.edit(request, inversion)
    with Rows(pipeline.unet) as second:
        twice = make.edit(request, inversion)
    assert torch.equal(once.image, direct.image)
    assert torch.equal(twice.image, direct.image)
    assert once.reconstruction is not None
    assert twice.reconstruction is not None
    assert torch.equal(twice.reconstruction, once.reconstruction)
    assert all(map(torch.equal, inversion.trajectory, before))
    # Of each of the four steps the reconstruction's evaluation is saved, which has a row an image.
    assert sorted(first) == sorted([*second, 4, 4, 4, 4])


def test_another_drift_makes_the_reconstruction_anew(pipeline: Any, request_for: MakeRequest) -> None:
    make, request = editor.get("prompt_swap")(), request_for(pipeline)
    inversion = make.invert(request)
    before = make.edit(request, inversion).reconstruction
    LatentDrift(0.3).attach(pipeline)
    after, fresh = make.edit(request, inversion).reconstruction, make.edit(request, inversion[range(4)]).reconstruction
    assert before is not None
    assert after is not None
    assert fresh is not None
    assert not torch.allclose(before, after, atol=1e-3)
    assert torch.equal(after, fresh)


@pytest.mark.parametrize("name", ["prompt_swap", "pix2pix_zero"])
@pytest.mark.parametrize("batch_size", [2, 8])
def test_many_edits_of_one_image(
    name: str, batch_size: int, pipeline: Any, images: torch.Tensor, request_for: MakeRequest
) -> None:
    """What an image needs apart from the wish is made once for it, and each edit is what it is alone."""
    make = editor.get(name)()
    inversion = make.invert(request_for(pipeline, count=1))
    many = request_for(
        pipeline,
        images=images[[0] * 4],
        source_captions=BEFORE[:1] * 4,
        target_captions=AFTER,
        batch_size=batch_size,
    )
    with Rows(pipeline.unet) as counts:
        result = make.edit(many, inversion[[0] * 4])
    # Its own way down has four steps; beside few rows of an edit, one goes in the edit's evaluation.
    assert counts.count(1) + counts.count(5) == 4
    assert sum(counts) == 4 + 4 * 4 * (4 if name == "pix2pix_zero" else 2)
    for row, caption in enumerate(AFTER):
        alone = make.edit(request_for(pipeline, count=1, target_captions=[caption]), inversion)
        torch.testing.assert_close(result.image[row], alone.image[0], atol=2e-4, rtol=0)
        assert alone.reconstruction is not None
        assert result.reconstruction is not None
        assert torch.equal(alone.reconstruction[0], result.reconstruction[row])


def test_rows_can_be_taken(pipeline: Any, request_for: MakeRequest) -> None:
    inversion = invert(request_for(pipeline))
    taken = inversion[[2, -4, 2]]
    assert taken.captions == (BEFORE[2], BEFORE[0], BEFORE[2])
    assert taken.origins == (2, 0, 2)
    assert torch.equal(taken.noise, inversion.noise[[2, 0, 2]])
    assert torch.equal(taken.source.hidden, inversion.source.hidden[[2, 0, 2]])
    single, rows = taken.distinct()
    assert (single.origins, rows) == ((2, 0), [0, 1, 0])
    assert inversion[1:3].origins == (1, 2)
    with pytest.raises(IndexError):
        _ = inversion[[4]]


def test_editors_share_an_inversion(pipeline: Any, request_for: MakeRequest) -> None:
    request = request_for(pipeline)
    inversion = invert(request)
    images = [editor.get(name)().edit(request, inversion).image for name in ("prompt_swap", "pix2pix_zero", "sdedit")]
    assert not torch.allclose(images[0], images[1], atol=1e-4)
    assert torch.equal(images[2], editor.get("sdedit")().edit(request).image)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 5}, "made with steps = 4, the edit has 5"),
        ({"strength": 0.5}, "made with strength = 1.0, the edit has 0.5"),
        ({"source_captions": AFTER}, "under other source captions"),
        ({"images": torch.zeros(4, 3, 32, 32)}, "one of other images"),
        ({"rows": [0, 1]}, "made with images = 4, the edit has 2"),
    ],
)
def test_an_inversion_of_something_else(
    pipeline: Any, request_for: MakeRequest, change: dict[str, Any], says: str
) -> None:
    inversion = invert(request_for(pipeline))
    with pytest.raises(ConfigurationError, match=says):
        editor.get("prompt_swap")().edit(request_for(pipeline, **change), inversion)


def test_an_inversion_that_is_not_finite(pipeline: Any, request_for: MakeRequest) -> None:
    request = request_for(pipeline)
    inversion = invert(request)
    spoilt = inversion.noise.clone()
    spoilt[2, 0, 0, 0] = torch.nan
    with pytest.raises(LatentDriftError, match="inverted latents of 1 of 4 images hold NaN"):
        editor.get("pix2pix_zero")().edit(
            request, dataclasses.replace(inversion, trajectory=(*inversion.trajectory[:-1], spoilt))
        )
