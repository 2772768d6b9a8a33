from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from latentdrift.drift import LatentDrift, LatentMoments, drift_of
from latentdrift.errors import ConfigurationError
from latentdrift.generate import (
    denoise,
    encode_images,
    inverse_scheduler,
    invert_images,
    invert_latents,
    scheduler_like,
    steps_of_strength,
)
from latentdrift.models import Conditioning, encode_prompts, load_pipeline
from tests.conftest import build_scheduler

MOMENTS = LatentMoments((0.4, -0.3, 0.2, 0.1))


@pytest.fixture
def pipeline(toy_model: Path) -> Any:
    return load_pipeline(toy_model)


class Denoiser(torch.nn.Module):
    """The exact noise prediction for data N(0.3, 0.25): smooth, as a trained network's is."""

    def __init__(self, alphas_cumprod: torch.Tensor) -> None:
        super().__init__()
        self.levels = alphas_cumprod

    def forward(self, x: torch.Tensor, t: torch.Tensor, **_: Any) -> SimpleNamespace:
        a = self.levels[t]
        return SimpleNamespace(sample=(1 - a).sqrt() * (x - 0.3 * a.sqrt()) / (0.25 * a + 1 - a))


def round_trip(drift: LatentDrift | None, steps: int, strength: float) -> tuple[float, torch.Tensor]:
    """The error of going up and down again, and the noise in between."""
    scheduler = build_scheduler()
    pipeline: Any = SimpleNamespace(unet=Denoiser(scheduler.alphas_cumprod), scheduler=scheduler)
    if drift is not None:
        drift.attach(pipeline)
    latents = 0.3 + 0.5 * torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    conditioning = Conditioning(torch.zeros(3, 1, 1))
    noise = invert_latents(pipeline, latents, conditioning, steps=steps, strength=strength, batch_size=2)
    pipeline.scheduler.set_timesteps(steps)
    timesteps = pipeline.scheduler.timesteps[-steps_of_strength(steps, strength) :]
    back = denoise(pipeline.unet, pipeline.scheduler, noise, conditioning, timesteps=timesteps)
    return float((back - latents).pow(2).mean().sqrt()), noise


@pytest.mark.parametrize(
    "drift", [LatentDrift(0.2), LatentDrift(MOMENTS), LatentDrift(0.2, rule="paper", per_step="shared")], ids=str
)
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_inversion_leads_back_under_any_drift(drift: LatentDrift, strength: float) -> None:
    plain, few = round_trip(None, 50, strength)[0], round_trip(None, 10, strength)[0]
    assert plain < 0.03
    assert plain < few
    assert round_trip(drift, 50, strength)[0] < 1.5 * plain


@pytest.mark.parametrize("steps", [10, 50])
def test_inversion_leads_back_under_a_spacing_that_the_inverse_does_not_know(steps: int) -> None:
    plain: Any = build_scheduler()
    source = EulerDiscreteScheduler.from_config(plain.config, timestep_spacing="linspace")
    inverse, down = inverse_scheduler(source), scheduler_like(source, DDIMScheduler)
    for scheduler in (inverse, down):
        scheduler.set_timesteps(steps)
    assert torch.equal(inverse.timesteps, down.timesteps.flip(0))
    assert inverse.timesteps[-1] == 999
    pipeline: Any = SimpleNamespace(unet=Denoiser(plain.alphas_cumprod), scheduler=source)
    latents = 0.3 + 0.5 * torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    conditioning = Conditioning(torch.zeros(3, 1, 1))
    noise = invert_latents(pipeline, latents, conditioning, steps=steps)
    back = denoise(pipeline.unet, down, noise, conditioning)
    # As close as under the spacing of Stable Diffusion.
    assert (back - latents).pow(2).mean().sqrt() < 1.5 * round_trip(None, steps, 1.0)[0]


def test_inversion_ends_in_noise_without_the_drift() -> None:
    """Generation adds b_s delta at the start, so what inversion returns must lack it."""
    plain, drifted = round_trip(None, 50, 1.0)[1], round_trip(LatentDrift(0.2), 50, 1.0)[1]
    assert plain.mean().abs() < 0.15  # of data with mean 0.3
    assert plain.std() == pytest.approx(1.0, abs=0.1)  # of data with deviation 0.5
    level = (1 - build_scheduler().alphas_cumprod[981]).sqrt()
    assert torch.allclose(plain - drifted, 0.2 * level.expand_as(plain), atol=1e-4)


def test_the_noise_is_that_of_images(pipeline: Any) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = invert_images(pipeline, images, ["a", "b"], steps=10)
    latents = encode_images(pipeline, images)
    assert torch.allclose(noise, invert_latents(pipeline, latents, encode_prompts(pipeline, ["a", "b"]), steps=10))
    assert not torch.allclose(noise, latents, atol=0.1)


def test_the_inverse_has_the_schedule_and_the_drift(pipeline: Any) -> None:
    assert drift_of(inverse_scheduler(pipeline.scheduler)) is None
    LatentDrift(0.2).attach(pipeline)
    inverse = inverse_scheduler(pipeline.scheduler)
    assert type(inverse).__name__ == "DDIMInverseScheduler"
    assert drift_of(inverse) == LatentDrift(0.2)
    assert inverse.config.clip_sample is False
    assert torch.equal(inverse.alphas_cumprod, pipeline.scheduler.alphas_cumprod)


def test_numbers_that_differ_and_steps_below_one(pipeline: Any) -> None:
    with pytest.raises(ConfigurationError, match="1 images and 2 prompts"):
        invert_images(pipeline, torch.zeros(1, 3, 32, 32), ["a", "b"])
    with pytest.raises(ConfigurationError, match="steps is 0"):
        invert_latents(pipeline, torch.zeros(1, 4, 8, 8), encode_prompts(pipeline, ["a"]), steps=0)


@pytest.mark.parametrize(("strength", "count"), [(1.0, 50), (0.5, 25), (0.001, 1)])
def test_strength_is_a_part_of_the_steps(strength: float, count: int) -> None:
    assert steps_of_strength(50, strength) == count
