"""Counterfactuals by inversion: the image's own noise, denoised under the wanted attributes.

Noise that DDIM inversion finds under the image's own caption holds what the caption does not say: whose scan it is.
Denoising it under the wanted caption changes what the captions differ in. Both ways run under the model's drift.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from latentdrift.errors import ConfigurationError
from latentdrift.generate import (
    decode_latents,
    denoise,
    encode_images,
    invert_latents,
    scheduler_like,
    steps_of_strength,
)
from latentdrift.generate.images import Progress
from latentdrift.generate.loop import check_steps
from latentdrift.models import check_from_noise, encode_prompts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class CounterfactualResult:
    """What an edit made of a batch; images are (N, 3, H, W) in [-1, 1], float32 on the CPU.

    Args:
        source: the images that came in.
        counterfactual: the images under the wanted captions.
        reconstruction: the same way down under the images' own captions: what the method changes when nothing should.
        source_captions: one an image.
        target_captions: one an image.
        round_trip_l1: mean absolute difference of reconstruction and source, (N,), in levels of 0 to 255.
        round_trip_psnr: the same as peak signal-to-noise ratio, (N,), in dB.
    """

    source: torch.Tensor
    counterfactual: torch.Tensor
    reconstruction: torch.Tensor
    source_captions: tuple[str, ...]
    target_captions: tuple[str, ...]
    round_trip_l1: torch.Tensor
    round_trip_psnr: torch.Tensor

    @property
    def effect(self) -> torch.Tensor:
        """Counterfactual minus reconstruction, (N, 3, H, W): the edit without the error of the round trip."""
        return self.counterfactual - self.reconstruction

    def composed(self) -> torch.Tensor:
        """Return source plus effect: the edit with every detail that the round trip lost put back, in [-1, 1]."""
        return (self.source + self.effect).clamp(-1, 1)


@torch.no_grad()
def make_counterfactuals(
    pipeline: DiffusionPipeline,
    images: torch.Tensor,
    source_captions: Sequence[str],
    target_captions: Sequence[str],
    *,
    steps: int = 50,
    guidance: float = 2.0,
    strength: float = 1.0,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> CounterfactualResult:
    """Return the images as they would look under other attributes (paper, section on counterfactual generation).

    Args:
        pipeline: from `load_pipeline`, under the drift the model was trained with.
        images: (N, 3, H, W) in [-1, 1], H = W = the model's size.
        source_captions: what the images show, one an image, in the words the model was trained with.
        target_captions: what they should show.
        steps: DDIM steps each way.
        guidance: how far beyond the wanted caption, away from the image's own: the noise prediction is
            source + guidance * (target - source); 1 follows the wanted caption, 0 reconstructs.
        strength: part of the way to the noise, in (0, 1]; less keeps more of the image.
        batch_size: images at once.
        progress: called with the number of images finished.

    Raises:
        ConfigurationError: numbers of images and captions differ, a setting is out of range, or the model edits images
            by instruction.
        DataError: a caption longer than the tokenizer takes.
    """
    check_from_noise(pipeline)
    check_arguments(pipeline, images, source_captions, target_captions, steps, strength, batch_size)
    from diffusers import DDIMScheduler

    source = encode_prompts(pipeline, source_captions, images.shape[-1])
    target = encode_prompts(pipeline, target_captions, images.shape[-1])
    scheduler = scheduler_like(pipeline.scheduler, DDIMScheduler)
    edited: list[torch.Tensor] = []
    rebuilt: list[torch.Tensor] = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        latents = encode_images(pipeline, images[part], batch_size)
        noise = invert_latents(pipeline, latents, source[part], steps=steps, strength=strength, batch_size=batch_size)
        for output, wanted, scale in ((edited, target, guidance), (rebuilt, source, 1.0)):
            scheduler.set_timesteps(steps, device=latents.device)
            down = denoise(
                pipeline.unet,
                scheduler,
                noise,
                wanted[part],
                unconditional=source[part],
                guidance=scale,
                timesteps=scheduler.timesteps[-steps_of_strength(steps, strength) :],
            )
            output.append(decode_latents(pipeline, down, batch_size))
        if progress is not None:
            progress(len(latents))
    counterfactual, reconstruction = torch.cat(edited), torch.cat(rebuilt)
    error = (reconstruction - images.float().cpu()) * 127.5
    return CounterfactualResult(
        source=images.float().cpu(),
        counterfactual=counterfactual,
        reconstruction=reconstruction,
        source_captions=tuple(source_captions),
        target_captions=tuple(target_captions),
        round_trip_l1=error.abs().mean((1, 2, 3)),
        round_trip_psnr=20 * torch.log10(255 / error.pow(2).mean((1, 2, 3)).sqrt().clamp(min=1e-6)),
    )


def check_arguments(
    pipeline: DiffusionPipeline,
    images: torch.Tensor,
    source_captions: Sequence[str],
    target_captions: Sequence[str],
    steps: int,
    strength: float,
    batch_size: int,
) -> None:
    """Raise ConfigurationError for what cannot be edited."""
    if not len(images) == len(source_captions) == len(target_captions):
        raise ConfigurationError(
            f"{len(images)} images, {len(source_captions)} source captions and {len(target_captions)} target captions: "
            "give one of each an image."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise ConfigurationError(f"The images have shape {tuple(images.shape)}; (N, 3, H, W) is needed.")
    if not len(images):
        raise ConfigurationError("There is nothing to edit: the batch of images is empty.")
    if batch_size < 1:
        raise ConfigurationError(f"batch_size is {batch_size}; at least 1 is needed.")
    check_steps(pipeline.scheduler, steps)
    if not torch.isfinite(images).all():
        raise ConfigurationError("The images hold NaN or infinite values; read them again with ImageTransform.read.")
    if not 0 < strength <= 1:
        raise ConfigurationError(
            f"strength is {strength}; it is a part of the way to the noise, above 0 and at most 1."
        )
    if images.shape[-1] % pipeline.vae_scale_factor or images.shape[-2] % pipeline.vae_scale_factor:
        raise ConfigurationError(
            f"Images of {images.shape[-2]} x {images.shape[-1]} pixels do not fit: the sides must be multiples of "
            f"{pipeline.vae_scale_factor}."
        )
