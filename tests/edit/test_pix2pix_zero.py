"""pix2pix-zero against diffusers' deprecated pipeline, one image at a time as that pipeline goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from diffusers.pipelines.deprecated.stable_diffusion_variants.pipeline_stable_diffusion_pix2pix_zero import (
    StableDiffusionPix2PixZeroPipeline,
)

from latentdrift.edit import invert
from latentdrift.edit.attention import CrossAttentionMaps
from latentdrift.edit.editor import editor
from latentdrift.edit.editors.pix2pix_zero import Pix2PixZeroConfig, directed
from latentdrift.errors import ConfigurationError
from latentdrift.models import encode_prompts, load_pipeline
from tests.edit.conftest import AFTER, BEFORE, MakeRequest
from tests.edit.test_inversion import Rows

OLD = [["mild demented", "a brain, mild demented", "dementia"], ["none"], ["aged 60", "sixty years"], ["mild", "a"]]
NEW = [["non demented", "a brain, healthy"], ["mild", "some"], ["aged 80", "eighty years", "old"], ["not at all"]]
MODELS = ["toy_model", "toy_velocity_model"]


def theirs(folder: Path) -> Any:
    """diffusers' pipeline on weights of its own: it changes the U-Net's attention for good."""
    plain: Any = load_pipeline(folder)
    made: Any = StableDiffusionPix2PixZeroPipeline(
        **{name: plain.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "feature_extractor")},
        scheduler=DDIMScheduler.from_config(plain.scheduler.config),
        inverse_scheduler=DDIMInverseScheduler.from_config(plain.scheduler.config),
        safety_checker=None,
        caption_generator=None,
        caption_processor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def edited_by_diffusers(other: Any, noise: torch.Tensor, row: int, amount: float, guidance: float) -> torch.Tensor:
    with torch.no_grad():
        before, after = other.get_embeds(OLD[row]), other.get_embeds(NEW[row])
    return other(
        BEFORE[row],
        negative_prompt=BEFORE[row],
        source_embeds=before,
        target_embeds=after,
        latents=noise,
        num_inference_steps=4,
        guidance_scale=guidance,
        cross_attention_guidance_amount=amount,
        output_type="latent",
    ).images


@pytest.mark.parametrize(
    ("model", "amount"),
    [
        pytest.param(model, amount, marks=pytest.mark.slow if crossed else ())
        for model, amount, crossed in zip([*MODELS, *MODELS], (0.1, 4.0, 4.0, 0.1), (0, 0, 1, 1), strict=True)
    ],
)
def test_one_image_is_diffusers_and_a_batch_its_single_images(
    model: str, amount: float, request_for: MakeRequest, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(model)
    pipeline: Any = load_pipeline(folder)
    make = editor.get("pix2pix_zero")(Pix2PixZeroConfig(attention_guidance=amount))
    every = request_for(pipeline, source_wordings=OLD, target_wordings=NEW, guidance=3.0)
    inversion = make.invert(every)
    together = make.edit(every, inversion)
    free = editor.get("pix2pix_zero")(Pix2PixZeroConfig(attention_guidance=0.0)).edit(every, inversion)
    other = theirs(folder)
    for row in range(4):
        single = request_for(
            pipeline, rows=[row], source_wordings=OLD[row : row + 1], target_wordings=NEW[row : row + 1], guidance=3.0
        )
        alone = make.edit(single, inversion[[row]])
        expected = edited_by_diffusers(other, inversion.noise[[row]], row, amount, 3.0)
        torch.testing.assert_close(alone.latents, expected, atol=5e-5, rtol=1e-4)
        torch.testing.assert_close(together.latents[row], alone.latents[0], atol=5e-5, rtol=1e-4)
        # What the maps' guidance adds is well above what is let pass as rounding.
        assert (alone.latents[0] - free.latents[row]).abs().max() > (4e-4 if amount == 0.1 else 1e-2)


@pytest.mark.parametrize("model", MODELS)
def test_inversion_is_diffusers(model: str, request_for: MakeRequest, request: pytest.FixtureRequest) -> None:
    """The same regularisation with the same draws, at another weight of each loss."""
    folder = request.getfixturevalue(model)
    pipeline: Any = load_pipeline(folder)
    make = editor.get("pix2pix_zero")(Pix2PixZeroConfig(auto_correlation=30.0, kl=10.0, rounds=3, rolls=4))
    inversion = make.invert(request_for(pipeline))
    plain, other = invert(request_for(pipeline)), theirs(folder)
    for row in (0, 3):
        expected = other.invert(
            BEFORE[row],
            image=inversion.latents[[row]],
            num_inference_steps=4,
            generator=torch.Generator().manual_seed(10 + row),
            lambda_auto_corr=30.0,
            lambda_kl=10.0,
            num_reg_steps=3,
            num_auto_corr_rolls=4,
            output_type="latent",
        ).latents
        torch.testing.assert_close(inversion.noise[row], expected[0], atol=5e-5, rtol=1e-4)
        assert (inversion.noise[row] - plain.noise[row]).abs().max() > 1e-2


def test_guidance_holds_the_maps_to_the_reconstruction(pipeline: Any, request_for: MakeRequest) -> None:
    """More of it leaves the first step's maps nearer to the reference's."""
    from latentdrift.edit.editors.pix2pix_zero import attention_gradient

    request = request_for(pipeline)
    inversion = invert(request)
    wanted, timestep = directed(request, inversion.source), torch.tensor(601)

    with CrossAttentionMaps(pipeline.unet) as maps, torch.no_grad():
        reference = maps.only(inversion.noise, timestep, inversion.source)

        def distances(seen: torch.Tensor) -> torch.Tensor:
            now = maps.only(seen, timestep, wanted)
            return sum(((a - b) ** 2).sum((1, 2, 3)) / a.shape[1] for a, b in zip(now, reference, strict=True))  # type: ignore[return-value]

        gradient = attention_gradient(maps, inversion.noise, timestep, wanted, reference, range(4))
        before, after = distances(inversion.noise), distances(inversion.noise - 0.2 * gradient)
        step = 1e-2 * gradient[0] / gradient[0].norm()
        moved = inversion.noise.clone()
        moved[0] += step
        slope = (distances(moved) - before)[0] / 1e-2
    assert (after < before).all()
    assert slope == pytest.approx(gradient[0].norm().item(), rel=0.05)


def test_the_unet_is_left_as_it_was(pipeline: Any, request_for: MakeRequest) -> None:
    unet = pipeline.unet
    unet.requires_grad_(True)
    unet.conv_out.requires_grad_(False)
    wanted = [parameter.requires_grad for parameter in unet.parameters()]
    processors = dict(unet.attn_processors)
    editor.get("pix2pix_zero")().edit(request_for(pipeline, count=1))
    assert unet.attn_processors == processors
    assert [parameter.requires_grad for parameter in unet.parameters()] == wanted
    assert all(parameter.grad is None for parameter in unet.parameters())
    with CrossAttentionMaps(unet):
        assert not any(parameter.requires_grad for parameter in unet.parameters())
    with pytest.raises(RuntimeError), CrossAttentionMaps(unet) as maps:
        maps.only(torch.zeros(1, 3, 8, 8), torch.tensor(1), encode_prompts(pipeline, ["a"]))
    assert unet.attn_processors == processors
    assert [parameter.requires_grad for parameter in unet.parameters()] == wanted


def test_maps_are_those_of_attention(pipeline: Any, request_for: MakeRequest) -> None:
    inversion = invert(request_for(pipeline))
    seen, timestep = inversion.noise, torch.tensor(301)
    plain = pipeline.unet(seen, timestep, encoder_hidden_states=inversion.source.hidden).sample
    with CrossAttentionMaps(pipeline.unet) as maps:
        predicted, every = maps.predict(seen, timestep, inversion.source)
        alone = maps.only(seen, timestep, inversion.source)
    torch.testing.assert_close(predicted, plain, atol=1e-5, rtol=1e-4)
    assert len(every) == len(alone) > 1
    for one, same in zip(every, alone, strict=True):
        assert torch.equal(one, same)
        assert one.shape[0] == 4
        assert one.shape[-1] == 77
        torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:-1]))


@pytest.mark.parametrize(("megabytes", "again"), [(512, 0), (0, 4)])
def test_maps_that_do_not_fit_are_made_anew(
    megabytes: int, again: int, pipeline: Any, request_for: MakeRequest
) -> None:
    make = editor.get("pix2pix_zero")(Pix2PixZeroConfig(keep_megabytes=megabytes))
    request = request_for(pipeline, reconstruct=False)
    inversion = make.invert(request)
    with Rows(pipeline.unet) as first:
        before = make.edit(request, inversion)
    with Rows(pipeline.unet) as second:
        after = make.edit(request, inversion)
    assert first == [4, 8, 8] * 4
    assert (second.count(4), second.count(8)) == (again, 8)
    assert torch.equal(before.latents, after.latents)


def test_the_direction_is_between_the_means(pipeline: Any, request_for: MakeRequest) -> None:
    request = request_for(pipeline, source_wordings=OLD, target_wordings=NEW)
    source = encode_prompts(pipeline, BEFORE)
    found = directed(request, source).hidden
    for row in range(4):
        old, new = (encode_prompts(pipeline, sets[row]).hidden.mean(0) for sets in (OLD, NEW))
        torch.testing.assert_close(found[row], source.hidden[row] + new - old, atol=1e-5, rtol=1e-4)
    alone = directed(request_for(pipeline), source).hidden
    assert torch.equal(alone, encode_prompts(pipeline, AFTER).hidden)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_stable_diffusion_xl(toy_xl_model: Path, request_for: MakeRequest, guidance: float) -> None:
    """In double precision, because this random model makes a thousand times more of rounding than the others."""
    pipeline: Any = load_pipeline(toy_xl_model, dtype=torch.float64)
    make = editor.get("pix2pix_zero")()
    settings = {"source_wordings": OLD, "target_wordings": NEW, "guidance": guidance}
    together = make.edit(request_for(pipeline, **settings))
    single = {name: sets[2:3] for name, sets in settings.items() if name != "guidance"}
    alone = make.edit(request_for(pipeline, rows=[2], **single, guidance=guidance))
    torch.testing.assert_close(together.latents[2], alone.latents[0], atol=2e-5, rtol=1e-5)


def test_processors_with_weights_of_their_own(pipeline: Any, request_for: MakeRequest) -> None:
    from diffusers.models.attention_processor import CustomDiffusionAttnProcessor2_0

    pipeline.unet.set_attn_processor(CustomDiffusionAttnProcessor2_0(train_kv=False, train_q_out=False))
    with pytest.raises(ConfigurationError, match="CustomDiffusionAttnProcessor2_0 with weights of its own"):
        editor.get("pix2pix_zero")().edit(request_for(pipeline))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"attention_guidance": -0.1}, "attention_guidance is -0.1"),
        ({"attention_guidance": float("nan")}, "attention_guidance is nan"),
        ({"keep_megabytes": -1}, "keep_megabytes is -1"),
        ({"rolls": 0}, "rolls is 0"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Pix2PixZeroConfig(**change)
