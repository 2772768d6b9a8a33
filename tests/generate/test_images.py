from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler

from latentdrift.drift import LatentDrift, drift_of
from latentdrift.errors import ConfigurationError, DataError, DriftError, LatentDriftError, UnknownNameError
from latentdrift.generate import (
    SAMPLERS,
    decode_latents,
    denoise,
    encode_images,
    generate_images,
    scheduler_like,
    use_sampler,
)
from latentdrift.generate.loop import check_steps
from latentdrift.models import encode_prompts, load_pipeline

PROMPTS = ["a slice, mild demented", "a slice, non demented", "a", "b"]


@pytest.fixture
def pipeline(toy_model: Path) -> Any:
    return load_pipeline(toy_model)


def theirs(pipeline: Any, prompts: list[str], seeds: list[int], guidance: float, **extra: Any) -> torch.Tensor:
    """What the diffusers pipeline makes of the same, in [-1, 1]."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    made = pipeline(
        prompts, num_inference_steps=6, guidance_scale=guidance, generator=generators, output_type="pt", **extra
    )
    return made.images * 2 - 1


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("drift", [None, 0.3])
def test_images_are_those_of_the_diffusers_pipeline(
    pipeline: Any, sampler: str, guidance: float, drift: float | None
) -> None:
    if drift is not None:
        LatentDrift(drift).attach(pipeline)
    use_sampler(pipeline, sampler)
    assert type(pipeline.scheduler).__name__ == SAMPLERS[sampler]
    ours = generate_images(pipeline, PROMPTS[:2], seeds=[3, 4], steps=6, guidance=guidance)
    expected = theirs(pipeline, PROMPTS[:2], [3, 4], guidance)
    assert ours.shape == (2, 3, 32, 32)
    assert torch.allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_xl_images_are_those_of_the_diffusers_pipeline(toy_xl_model: Path, guidance: float) -> None:
    pipeline = load_pipeline(toy_xl_model)
    ours = generate_images(pipeline, PROMPTS[:2], seeds=[3, 4], steps=6, guidance=guidance)
    assert torch.allclose(ours, theirs(pipeline, PROMPTS[:2], [3, 4], guidance), atol=1e-4)


def test_velocity_images_are_those_of_the_diffusers_pipeline(toy_velocity_model: Path, pipeline: Any) -> None:
    velocity = load_pipeline(toy_velocity_model)
    ours = generate_images(velocity, PROMPTS[:1], seeds=[3], steps=6, guidance=1.0)
    assert torch.allclose(ours, theirs(velocity, PROMPTS[:1], [3], 1.0), atol=1e-4)
    assert not torch.allclose(ours, generate_images(pipeline, PROMPTS[:1], seeds=[3], steps=6, guidance=1.0), atol=0.01)


def test_an_autoencoder_that_overflows_in_half_precision_works_in_single(overflowing_xl: Any) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = encode_images(overflowing_xl, images)
    assert latents.dtype == torch.float16
    assert torch.isfinite(latents).all()
    decoded = decode_latents(overflowing_xl, latents)
    assert torch.isfinite(decoded).all()
    # Pipelines of diffusers take its precision for that of the U-Net.
    assert overflowing_xl.vae.dtype == overflowing_xl.unet.dtype == torch.float16
    precise = overflowing_xl.vae.to(torch.float32)
    assert torch.equal(decoded, precise.decode(latents.float() / 0.9).sample.detach().clamp(-1, 1))
    # One that says it does without is left as it is.
    overflowing_xl.vae.half().register_to_config(force_upcast=False)
    assert not torch.isfinite(decode_latents(overflowing_xl, latents)).all()


@pytest.mark.parametrize("sampler", ["ddim", "euler-ancestral"])
def test_an_image_does_not_depend_on_its_batch(pipeline: Any, sampler: str) -> None:
    use_sampler(pipeline, sampler)
    seeds = [5, 6, 7, 8]
    together = generate_images(pipeline, PROMPTS, seeds=seeds, steps=5, batch_size=4)
    single = generate_images(pipeline, PROMPTS, seeds=seeds, steps=5, batch_size=1)
    uneven = generate_images(pipeline, PROMPTS[::-1], seeds=seeds[::-1], steps=5, batch_size=3)
    assert torch.allclose(together, single, atol=1e-4)
    assert torch.allclose(together, uneven.flip(0), atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_seeds_repeat_and_differ(pipeline: Any) -> None:
    first, again, other = (generate_images(pipeline, ["a"], seeds=[seed], steps=4) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.01


def test_guidance_and_prompts_matter(pipeline: Any) -> None:
    plain, guided, other = (
        generate_images(pipeline, [prompt], seeds=[1], steps=4, guidance=guidance)
        for prompt, guidance in (("a", 1.0), ("a", 4.0), ("b", 1.0))
    )
    assert (plain - guided).abs().mean() > 1e-3
    assert (plain - other).abs().mean() > 1e-3


def test_progress_and_steps_are_told(pipeline: Any) -> None:
    done: list[int] = []
    steps: list[int] = []
    generate_images(
        pipeline,
        PROMPTS[:3],
        seeds=[0, 1, 2],
        steps=2,
        batch_size=2,
        progress=done.append,
        on_step=lambda step, latents: steps.append(step * 10 + len(latents)),
    )
    assert done == [2, 1]
    assert steps == [12, 22, 11, 21]


def test_another_size_than_the_models(pipeline: Any) -> None:
    assert generate_images(pipeline, ["a"], seeds=[0], steps=2, size=48).shape == (1, 3, 48, 48)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seeds": [0]}, "2 prompts and 1 seeds"),
        ({"prompts": [], "seeds": []}, "nothing to generate"),
        ({"steps": 0}, "steps is 0; give a number from 1 to 1000"),
        ({"steps": 1001}, "steps is 1001"),
        ({"steps": 1000}, "steps is 1000; .* at timestep 1000, and the model knows 0 to 999. Give 999"),
        ({"size": 30}, "30 pixels does not fit: the side must be a multiple of 4"),
        ({"size": 0}, "0 pixels does not fit"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_settings_that_cannot_be(pipeline: Any, change: dict[str, Any], says: str) -> None:
    settings = {"prompts": ["a", "b"], "seeds": [0, 1], "steps": 2, **change}
    with pytest.raises(ConfigurationError, match=says):
        generate_images(pipeline, settings.pop("prompts"), **settings)


def test_a_prompt_too_long(pipeline: Any) -> None:
    with pytest.raises(DataError, match="tokens long"):
        generate_images(pipeline, ["long " * 40], seeds=[0])


def test_a_drift_of_the_wrong_length(pipeline: Any) -> None:
    LatentDrift([0.1, 0.2]).attach(pipeline)
    with pytest.raises(DriftError, match="4 were expected"):
        generate_images(pipeline, ["a"], seeds=[0], steps=2)


def test_guidance_needs_something_to_move_away_from(pipeline: Any) -> None:
    pipeline.scheduler.set_timesteps(2)
    with pytest.raises(ConfigurationError, match="nothing to move away from"):
        denoise(
            pipeline.unet, pipeline.scheduler, torch.zeros(1, 4, 8, 8), encode_prompts(pipeline, ["a"]), guidance=2.0
        )


def test_a_model_that_diverges_is_told(pipeline: Any) -> None:
    torch.nn.init.constant_(pipeline.unet.conv_out.bias, float("nan"))
    with pytest.raises(LatentDriftError, match="2 of 2 latents are no longer finite after 3 steps"):
        generate_images(pipeline, ["a", "b"], seeds=[0, 1], steps=3)


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_every_number_of_steps_that_is_not_refused_is_within_those_of_training(offset: int) -> None:
    scheduler = DDIMScheduler(num_train_timesteps=12, steps_offset=offset)
    for steps in range(1, 13):
        scheduler.set_timesteps(steps)
        beyond = scheduler.timesteps.max() >= 12
        with pytest.raises(ConfigurationError) if beyond else nullcontext():
            check_steps(scheduler, steps)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_pndm_takes_as_many_steps_as_on_stable_diffusion(pipeline: Any, steps: int) -> None:
    """It repeats the second step; with Runge-Kutta steps it would have none for 1 to 3, and 13 for 4."""
    use_sampler(pipeline, "pndm")
    pipeline.scheduler.set_timesteps(steps)
    assert len(pipeline.scheduler.timesteps) == (steps + 1 if steps > 1 else 1)
    assert torch.isfinite(generate_images(pipeline, ["a"], seeds=[0], steps=steps)).all()
    # A model that was saved with them keeps them.
    assert scheduler_like(PNDMScheduler(skip_prk_steps=False), PNDMScheduler).config.skip_prk_steps is False


def test_an_unknown_sampler(pipeline: Any) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'euler'"):
        use_sampler(pipeline, "eular")


def test_another_sampler_keeps_the_drift_and_the_schedule(pipeline: Any) -> None:
    LatentDrift(0.1).attach(pipeline)
    before = pipeline.scheduler.config
    use_sampler(pipeline, "dpm++")
    assert drift_of(pipeline) == LatentDrift(0.1)
    for name in ("beta_start", "beta_end", "beta_schedule", "steps_offset", "prediction_type"):
        assert pipeline.scheduler.config[name] == before[name]


def test_latents_are_not_clipped_like_pixels() -> None:
    """DDIM clips to [-1, 1] by default, and a scheduler without that setting cannot say that it should not."""
    from diffusers import DDIMScheduler, EulerDiscreteScheduler

    assert scheduler_like(EulerDiscreteScheduler(), DDIMScheduler).config.clip_sample is False
    assert scheduler_like(DDIMScheduler(clip_sample=True), DDIMScheduler).config.clip_sample is True


def test_the_autoencoders_directions_use_its_scale(pipeline: Any) -> None:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = encode_images(pipeline, images, batch_size=2)
    with torch.no_grad():
        expected = pipeline.vae.encode(images).latent_dist.mean * 0.9
        decoded = pipeline.vae.decode(expected / 0.9).sample.clamp(-1, 1)
    assert torch.allclose(latents, expected, atol=1e-5)
    assert torch.allclose(decode_latents(pipeline, latents, batch_size=2), decoded, atol=1e-5)
