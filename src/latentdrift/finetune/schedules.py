"""Noise in training: the schedule that adds it, zero terminal SNR, and offset noise."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler

from latentdrift.drift import LatentDrift, remove
from latentdrift.drift.levels import has_betas
from latentdrift.errors import ConfigurationError


def noise_schedule(scheduler: Any, drift: LatentDrift | None) -> Any:
    """Return the scheduler that adds noise in training: the schedule of a scheduler or a pipeline, under `drift`.

    A drift it had is left out; prediction type and zero terminal SNR are kept.

    Raises:
        ConfigurationError: a scheduler without betas (flow matching, EDM), of which DDPM would make levels of its own.
    """
    plain = remove(getattr(scheduler, "scheduler", scheduler))
    if not has_betas(plain.config):
        raise ConfigurationError(
            f"{type(plain).__name__} has no betas, by which noise is added in training here. Give a base that diffuses "
            "by them, such as Stable Diffusion."
        )
    schedule = DDPMScheduler.from_config(plain.config)
    return schedule if drift is None else drift.apply(schedule)


def zero_snr_scheduler(scheduler: Any) -> Any:
    """Return a DDIM scheduler whose last timestep is pure noise, to train and sample with (arXiv 2305.08891).

    The schedule is rescaled to a_T = 0 (Algorithm 1 there). The network must predict v: a noise prediction says
    nothing of x_0 at t = T. Spacing is "trailing", so that sampling starts at T for every number of steps. The clean
    image is the last state (`set_alpha_to_one`), as trailing steps end one stride below their last timestep, which is
    the paper's ᾱ_0 = 1. A base that predicts noise learns v in this training.

    The start then needs no drift: a_T E[z_0] / b_T = 0.

    Args:
        scheduler: of the pipeline; its drift is left out.

    Raises:
        ConfigurationError: a scheduler without betas (flow matching, EDM), or a schedule that DDIM does not know.
    """
    config = remove(scheduler).config
    if not has_betas(config):
        raise ConfigurationError(
            f"{type(scheduler).__name__} has no betas to rescale to zero terminal SNR: give a base that diffuses by "
            "them, such as Stable Diffusion, or --drift none."
        )
    try:
        return DDIMScheduler.from_config(
            config,
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            prediction_type="v_prediction",
            clip_sample=False,
            set_alpha_to_one=True,
            # Trailing spacing has no use for it, but Stable Diffusion's pipeline complains of any other.
            steps_offset=1,
        )
    except NotImplementedError as error:
        raise ConfigurationError(
            f"DDIM, which zero terminal SNR is sampled with, has no beta_schedule {config['beta_schedule']!r}. Give "
            "another base, or --drift none."
        ) from error


def offset_noise(noise: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Return noise (B, C, ...) plus `strength` times one standard normal number an image and channel.

    A model trained on it learns to move the mean of an image, which plain noise hardly hides (Guttenberg 2023,
    "Diffusion with Offset Noise"); the drift's peer. Sampling is left as it is. Strength 0 returns the same object
    and draws nothing, so that a run without it is not changed.
    """
    if strength == 0:
        return noise
    shape = (*noise.shape[:2], *(1,) * (noise.ndim - 2))
    # On the generator's own device, so that the draws are the same wherever the noise is.
    shift = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)
    return noise + strength * shift.to(noise.device, noise.dtype)
