"""Prompts → images, and the autoencoder's two directions in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from latentdrift.errors import ConfigurationError
from latentdrift.generate.loop import StepCallback, check_steps, denoise, image_generators, start_noise
from latentdrift.models import check_from_noise, encode_prompts
from latentdrift.models.upcast import upcast_autoencoder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Progress = Callable[[int], None]
"""Called with the number of images finished since the last call."""


@torch.no_grad()
def encode_images(pipeline: DiffusionPipeline, images: torch.Tensor, batch_size: int = 16) -> torch.Tensor:
    """Return the scaled posterior mean, (N, C, h, w), of images (N, 3, H, W) in [-1, 1], as precise as the U-Net."""
    parts = []
    with upcast_autoencoder(pipeline) as vae:
        for batch in images.split(batch_size):
            mean = vae.encode(batch.to(vae.device, vae.dtype)).latent_dist.mean
            scaled = (mean - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
            parts.append(scaled.to(pipeline.unet.dtype))
    return torch.cat(parts)


@torch.no_grad()
def decode_latents(pipeline: DiffusionPipeline, latents: torch.Tensor, batch_size: int = 16) -> torch.Tensor:
    """Return images (N, 3, H, W) in [-1, 1], float32 on the CPU, of scaled latents (N, C, h, w)."""
    parts = []
    with upcast_autoencoder(pipeline) as vae:
        for batch in latents.split(batch_size):
            unscaled = batch.to(vae.device, vae.dtype) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
            parts.append(vae.decode(unscaled).sample.clamp(-1, 1).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def generate_images(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int = 25,
    guidance: float = 2.0,
    negative: str = "",
    batch_size: int = 16,
    size: int | None = None,
    on_step: StepCallback | None = None,
    progress: Progress | None = None,
) -> torch.Tensor:
    """Return one image a prompt, (N, 3, H, W) in [-1, 1], float32 on the CPU.

    Args:
        pipeline: from `load_pipeline`; its scheduler says the sampler and the drift.
        prompts: one an image.
        seeds: one an image; the same seed and prompt give the same image in any batch, up to rounding.
        steps: denoising steps.
        guidance: classifier-free guidance scale; 1 is none.
        negative: the prompt that guidance moves away from.
        batch_size: images at once.
        size: side in pixels, a multiple of the autoencoder's factor; the model's own by default.
        on_step: called with the number of steps done and the latents (B, C, h, w) after each.
        progress: called with the number of images finished since the last call.

    Raises:
        ConfigurationError: numbers of prompts and seeds that differ; steps or batch size below 1; a size that does not
            fit; more steps than the model was trained with; a model that edits images by instruction.
        DataError: a prompt longer than the tokenizer takes.
    """
    if len(prompts) != len(seeds):
        raise ConfigurationError(f"{len(prompts)} prompts and {len(seeds)} seeds: give one seed an image.")
    if not prompts:
        raise ConfigurationError("There is nothing to generate: the list of prompts is empty.")
    if batch_size < 1:
        raise ConfigurationError(f"batch_size is {batch_size}; at least 1 is needed.")
    check_from_noise(pipeline)
    check_steps(pipeline.scheduler, steps)
    unet, factor = pipeline.unet, pipeline.vae_scale_factor
    size = unet.config.sample_size * factor if size is None else size
    if size < factor or size % factor:
        raise ConfigurationError(f"An image of {size} pixels does not fit: the side must be a multiple of {factor}.")
    shape = (unet.config.in_channels, size // factor, size // factor)
    conditioning = encode_prompts(pipeline, prompts, size)
    unconditional = encode_prompts(pipeline, [negative], size) if guidance != 1.0 else None
    images = []
    for start in range(0, len(prompts), batch_size):
        part = slice(start, start + batch_size)
        generators = image_generators(seeds[part])
        pipeline.scheduler.set_timesteps(steps, device=unet.device)
        noise = start_noise(shape, generators, unet.device, unet.dtype) * pipeline.scheduler.init_noise_sigma
        latents = denoise(
            unet,
            pipeline.scheduler,
            noise,
            conditioning[part],
            unconditional=None if unconditional is None else unconditional[[0] * len(generators)],
            guidance=guidance,
            generators=generators,
            on_step=on_step,
        )
        images.append(decode_latents(pipeline, latents, batch_size))
        if progress is not None:
            progress(len(generators))
    return torch.cat(images)
