"""Images → the noise they come from: DDIM inversion (Song et al., arXiv 2010.02502, Dhariwal & Nichol, 2105.05233)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from latentdrift.errors import ConfigurationError
from latentdrift.generate.images import encode_images
from latentdrift.generate.loop import StepCallback, check_steps, denoise
from latentdrift.generate.samplers import scheduler_like
from latentdrift.models import Conditioning, encode_prompts
from latentdrift.models.loading import check_from_noise

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def inverse_scheduler(scheduler: Any) -> Any:
    """Return the DDIM inverse of a scheduler, with its noise schedule, spacing and drift; see `scheduler_like`."""
    from diffusers import DDIMInverseScheduler

    return scheduler_like(scheduler, DDIMInverseScheduler)


def steps_of_strength(steps: int, strength: float) -> int:
    """Return how many of `steps` belong to a part of the way to the noise, at least one."""
    return max(1, round(steps * strength))


@torch.no_grad()
def invert_latents(
    pipeline: DiffusionPipeline,
    latents: torch.Tensor,
    conditioning: Conditioning,
    *,
    steps: int = 50,
    strength: float = 1.0,
    batch_size: int = 16,
    on_step: StepCallback | None = None,
) -> torch.Tensor:
    """Return the noise (N, C, h, w) from which `steps` DDIM steps lead back to scaled `latents` (N, C, h, w).

    With a `strength` below 1 only that part of the way is gone: `steps_of_strength(steps, strength)` steps. No guidance
    is used on the way up: with guidance the way down does not lead back.

    Raises:
        ConfigurationError: steps below 1, or more than the model was trained with.
    """
    check_steps(pipeline.scheduler, steps)
    inverse = inverse_scheduler(pipeline.scheduler)
    parts = []
    for start in range(0, len(latents), batch_size):
        part = slice(start, start + batch_size)
        inverse.set_timesteps(steps, device=latents.device)
        timesteps = inverse.timesteps[: steps_of_strength(steps, strength)]
        parts.append(
            denoise(pipeline.unet, inverse, latents[part], conditioning[part], timesteps=timesteps, on_step=on_step)
        )
    return torch.cat(parts)


@torch.no_grad()
def invert_images(
    pipeline: DiffusionPipeline, images: torch.Tensor, prompts: Sequence[str], *, steps: int = 50, batch_size: int = 16
) -> torch.Tensor:
    """Return the noise of images (N, 3, H, W) in [-1, 1], described by one prompt each.

    Raises:
        ConfigurationError: numbers of images and prompts differ, or a model that edits by instruction.
    """
    check_from_noise(pipeline)
    if len(images) != len(prompts):
        raise ConfigurationError(f"{len(images)} images and {len(prompts)} prompts: give one prompt an image.")
    latents = encode_images(pipeline, images, batch_size)
    conditioning = encode_prompts(pipeline, prompts, images.shape[-1])
    return invert_latents(pipeline, latents, conditioning, steps=steps, batch_size=batch_size)
