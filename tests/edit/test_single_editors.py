"""SDEdit and InstructPix2Pix against what does the same elsewhere."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.drift import LatentDrift
from latentdrift.edit.editor import editor
from latentdrift.edit.editors.instruct_pix2pix import InstructPix2PixConfig
from latentdrift.edit.editors.sdedit import SDEditConfig
from latentdrift.errors import ConfigurationError, UnknownNameError
from latentdrift.generate import edit_by_instruction, encode_images, use_sampler
from latentdrift.models import load_pipeline
from tests.edit.conftest import AFTER, BEFORE, MakeRequest


@pytest.mark.parametrize("sampler", ["ddim", "euler", "euler-ancestral", "heun", "dpm++"])
def test_sdedit_is_image_to_image(sampler: str, toy_model: Path, request_for: MakeRequest) -> None:
    """diffusers' pipeline, given the same latents and generators, under the same drift."""
    from diffusers import StableDiffusionImg2ImgPipeline

    pipeline: Any = load_pipeline(toy_model)
    use_sampler(pipeline, sampler)
    pipeline = LatentDrift(0.1, rule="paper", per_step="shared").attach(pipeline)
    request = request_for(pipeline, steps=6, strength=0.5, guidance=3.0)
    ours = editor.get("sdedit")().edit(request).latents
    other: Any = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    theirs = other(
        AFTER,
        negative_prompt=BEFORE,
        image=encode_images(pipeline, request.images),
        strength=0.5,
        num_inference_steps=6,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(seed) for seed in request.image_seeds],
        output_type="latent",
    ).images
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_sdedit_keeps_more_with_less_strength(pipeline: Any, request_for: MakeRequest) -> None:
    make = editor.get("sdedit")()
    before = encode_images(pipeline, request_for(pipeline).images)
    distances = [
        (make.edit(request_for(pipeline, steps=10, strength=part)).latents - before).abs().mean()
        for part in (0.1, 0.4, 0.8)
    ]
    assert distances[0] < distances[1] < distances[2]


def test_sdedit_moves_away_from_what_it_is_told(pipeline: Any, request_for: MakeRequest) -> None:
    kind = editor.get("sdedit")
    nothing = kind(SDEditConfig(away_from="nothing")).edit(request_for(pipeline, strength=0.5))
    assert not torch.allclose(nothing.image, kind().edit(request_for(pipeline, strength=0.5)).image, atol=1e-3)
    blank = kind().edit(request_for(pipeline, strength=0.5, source_captions=[""] * 4))
    torch.testing.assert_close(nothing.image, blank.image, atol=1e-5, rtol=0)
    with pytest.raises(UnknownNameError, match="no away_from 'target'"):
        SDEditConfig(away_from="target")  # type: ignore[arg-type]


@pytest.mark.parametrize("image_guidance", [1.0, 1.5])
def test_instruct_pix2pix_is_edit_by_instruction(
    image_guidance: float, instructed: Any, images: torch.Tensor, request_for: MakeRequest
) -> None:
    make = editor.get("instruct_pix2pix")(InstructPix2PixConfig(image_guidance))
    result = make.edit(request_for(instructed, source_captions=[], batch_size=3, guidance=4.0))
    expected = edit_by_instruction(
        instructed,
        images,
        AFTER,
        seeds=[10, 11, 12, 13],
        steps=4,
        guidance=4.0,
        image_guidance=image_guidance,
        batch_size=3,
    )
    assert torch.equal(result.image, expected)
    assert result.source_captions == ()


def test_instruct_pix2pix_starts_from_noise(instructed: Any, request_for: MakeRequest) -> None:
    kind = editor.get("instruct_pix2pix")
    with pytest.raises(ConfigurationError, match=r"strength is 0.5, but instruct_pix2pix always starts from noise"):
        kind().edit(request_for(instructed, strength=0.5))
    with pytest.raises(ConfigurationError, match="4 images and 2 source captions"):
        kind().edit(request_for(instructed, source_captions=["a", "b"]))
    with pytest.raises(ConfigurationError, match="image_guidance is nan"):
        kind(InstructPix2PixConfig(float("nan"))).edit(request_for(instructed))


def test_a_mask_shows_the_network_the_sources_own_way(pipeline: Any, request_for: MakeRequest) -> None:
    """After each step the latents outside are the inversion's; at the end they are the image's."""
    from latentdrift.edit import invert

    mask = torch.zeros(4, 1, 32, 32)
    mask[..., 13:] = 1  # touches the fourth column of latents
    request = request_for(pipeline, mask=mask)
    inversion = invert(request)
    seen: list[torch.Tensor] = []
    handle = pipeline.unet.register_forward_pre_hook(lambda _, inputs: seen.append(copy.deepcopy(inputs[0])))
    result = editor.get("prompt_swap")().edit(copy_with(request, reconstruct=False), inversion)
    handle.remove()
    assert torch.equal(result.latents[..., :3], inversion.latents[..., :3])
    assert not torch.allclose(result.latents[..., 3:], inversion.latents[..., 3:], atol=1e-2)
    for count in range(1, 4):
        torch.testing.assert_close(seen[count][:4, ..., :3], inversion.source_at(count)[..., :3])


def copy_with(request: Any, **changes: Any) -> Any:
    import dataclasses

    return dataclasses.replace(request, **changes)
