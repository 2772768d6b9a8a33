"""The denoising loop that sampling and inversion share.

The drift is in the scheduler, so the loop knows nothing of it: it does what every diffusers pipeline does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from latentdrift.errors import ConfigurationError, LatentDriftError
from latentdrift.models.text import Conditioning

StepCallback = Callable[[int, torch.Tensor], None]


def image_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """Return one CPU generator an image, so that an image does not depend on the batch it is made in."""
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def start_noise(
    shape: tuple[int, int, int], generators: Sequence[torch.Generator], device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Return standard normal latents (B, C, h, w), one generator an image."""
    noise = [torch.randn(shape, generator=generator) for generator in generators]
    return torch.stack(noise).to(device=device, dtype=dtype)


def check_steps(scheduler: Any, steps: int) -> None:
    """Raise ConfigurationError unless a scheduler can be set to `steps` steps, all within those of training."""
    most: int = scheduler.config.num_train_timesteps
    if not 1 <= steps <= most:
        raise ConfigurationError(f"steps is {steps}; give a number from 1 to {most}.")
    if scheduler.config.get("timestep_spacing") != "leading":
        return
    offset: int = scheduler.config.get("steps_offset", 0)

    def first(count: int) -> int:
        return (count - 1) * (most // count) + offset

    if first(steps) >= most:
        # The offset is added to all timesteps, whether there is room for it above or not.
        fewer = next((count for count in range(steps, 0, -1) if first(count) < most), 1)
        raise ConfigurationError(
            f"steps is {steps}; with the scheduler's steps_offset of {offset} the first would be at timestep "
            f"{first(steps)}, and the model knows 0 to {most - 1}. Give {fewer}."
        )


@torch.no_grad()
def denoise(
    unet: torch.nn.Module,
    scheduler: Any,
    latents: torch.Tensor,
    conditioning: Conditioning,
    *,
    unconditional: Conditioning | None = None,
    guidance: float = 1.0,
    generators: Sequence[torch.Generator] | None = None,
    timesteps: torch.Tensor | None = None,
    on_step: StepCallback | None = None,
) -> torch.Tensor:
    """Run every timestep of `scheduler`, upwards or downwards, and return the last latents.

    Args:
        unet: predicts noise, velocity or sample, as the scheduler's configuration says.
        scheduler: any diffusers scheduler after `set_timesteps`, drifted or not, forward or inverse.
        latents: (B, C, h, w), scaled by the scheduler's `init_noise_sigma` already.
        conditioning: one row an image.
        unconditional: what guidance moves away from; needed where `guidance` is not 1.
        guidance: classifier-free guidance scale (Ho & Salimans, arXiv 2207.12598); 1 is none, at half the cost.
        generators: one an image, for samplers that add noise at every step.
        timesteps: a part of the scheduler's own, for going only some of the way; all of them by default.
        on_step: called with the number of steps done and the latents after each.

    Raises:
        ConfigurationError: guidance without anything to move away from.
        LatentDriftError: the latents are no longer finite; the message tells how many images.
    """
    accepted = inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {}
    if "generator" in accepted and generators is not None:
        extra["generator"] = list(generators)
    guided, both = guidance != 1.0, conditioning
    if guided:
        if unconditional is None:
            raise ConfigurationError(f"guidance is {guidance}, but there is nothing to move away from; give 1.")
        both = Conditioning.stack([unconditional, conditioning])
    arguments = both.unet_arguments()
    timesteps = scheduler.timesteps if timesteps is None else timesteps
    for count, timestep in enumerate(timesteps):
        model_input = torch.cat([latents, latents]) if guided else latents
        if hasattr(scheduler, "scale_model_input"):
            model_input = scheduler.scale_model_input(model_input, timestep)
        predicted = unet(model_input, timestep, **arguments).sample
        if guided:
            negative, positive = predicted.chunk(2)
            predicted = negative + guidance * (positive - negative)
        latents = scheduler.step(predicted, timestep, latents, **extra, return_dict=False)[0]
        if on_step is not None:
            on_step(count + 1, latents)
    if not torch.isfinite(latents).all():
        bad = int((~torch.isfinite(latents)).flatten(1).any(1).sum())
        raise LatentDriftError(
            f"{bad} of {len(latents)} latents are no longer finite after {len(timesteps)} steps: no image was "
            "made. Use a smaller drift or guidance, more steps, or float32 in place of float16."
        )
    return latents
