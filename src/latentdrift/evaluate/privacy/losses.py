"""Denoising losses of single images, at timesteps and noises that are the same for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from latentdrift.drift import drift_of, training_target
from latentdrift.errors import EvaluationError
from latentdrift.finetune.denoiser import Denoiser
from latentdrift.finetune.schedules import noise_schedule
from latentdrift.generate.images import encode_images
from latentdrift.models import check_from_noise, encode_prompts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from latentdrift.evaluate.features import Progress


@dataclass(frozen=True)
class LossConfig:
    """At which noise levels losses are measured."""

    levels: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5)
    """Timesteps as shares of the model's own number of them: with little noise no model can fail, with much none can
    do well, and memory shows in between."""
    noises: int = 2
    """Noises at each timestep, over which the loss is averaged."""
    batch_size: int = 16
    """Images at once."""
    seed: int = 0
    """Of the noises."""

    def __post_init__(self) -> None:
        if not self.levels or not all(0 < level < 1 for level in self.levels):
            raise EvaluationError(f"levels are {self.levels}; give shares between 0 and 1, such as 0.1.")
        if self.noises < 1 or self.batch_size < 1:
            raise EvaluationError(f"noises={self.noises}, batch_size={self.batch_size}: at least 1 is needed.")

    def timesteps(self, pipeline: DiffusionPipeline) -> list[int]:
        """Return the training timesteps."""
        horizon = pipeline.scheduler.config.num_train_timesteps
        return [min(int(level * horizon), horizon - 1) for level in self.levels]


def file_latents(
    pipeline: DiffusionPipeline, files: Sequence[Path], batch_size: int = 16, progress: Progress | None = None
) -> torch.Tensor:
    """Return the scaled posterior means (N, C, h, w) of image files, read at the model's own size.

    Raises:
        DataError: a file that cannot be read.
    """
    from latentdrift.data import ImageTransform

    transform = ImageTransform(size=pipeline.unet.config.sample_size * pipeline.vae_scale_factor)
    parts = []
    for start in range(0, len(files), batch_size):
        part = files[start : start + batch_size]
        parts.append(encode_images(pipeline, torch.stack([transform.read(path) for path in part]), batch_size))
        if progress:
            progress(start + len(part), len(files))
    return torch.cat(parts)


@torch.no_grad()
def denoising_losses(
    pipeline: DiffusionPipeline,
    latents: torch.Tensor,
    captions: Sequence[str],
    config: LossConfig | None = None,
    *,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """Return the mean squared error of the prediction for every image and timestep, (N, T).

    It is the loss of the training, under the model's drift, at the image's own caption. All images get the same noises,
    so that the draw does not blur the comparison.

    Args:
        pipeline: from `load_pipeline`.
        latents: scaled, (N, C, h, w).
        captions: one an image.
        config: timesteps and noises.
        progress: called with (images done, images in all).

    Raises:
        EvaluationError: numbers of images and captions that differ, or losses that are not finite.
        ConfigurationError: a model that edits images by instruction.
        DataError: a caption longer than the text encoder takes.
    """
    config = config or LossConfig()
    check_from_noise(pipeline)
    if len(latents) != len(captions) or not len(latents):
        raise EvaluationError(f"{len(latents)} images and {len(captions)} captions: give one caption an image.")
    scheduler = noise_schedule(pipeline.scheduler, drift_of(pipeline))
    denoiser, unet = Denoiser(pipeline), pipeline.unet
    generator = torch.Generator().manual_seed(config.seed)
    timesteps = config.timesteps(pipeline)
    noises = torch.randn((len(timesteps), config.noises, *latents.shape[1:]), generator=generator)
    found = np.zeros((len(latents), len(timesteps)))
    for start in range(0, len(latents), config.batch_size):
        rows = slice(start, start + config.batch_size)
        clean = latents[rows].to(unet.device, unet.dtype)
        conditioning = encode_prompts(pipeline, captions[rows])
        for column, timestep in enumerate(timesteps):
            at = torch.full((len(clean),), timestep, device=unet.device, dtype=torch.long)
            for drawn in noises[column]:
                noise = drawn.to(unet.device, unet.dtype).expand_as(clean)
                predicted = denoiser(scheduler.add_noise(clean, noise, at), at, conditioning).float()
                target = training_target(scheduler, clean, noise, at).float()
                errors = (predicted - target).pow(2).flatten(1).mean(1)
                found[rows, column] += errors.double().cpu().numpy() / config.noises
        if progress:
            progress(min(start + config.batch_size, len(latents)), len(latents))
    if not np.isfinite(found).all():
        raise EvaluationError("The model's losses are not finite. Load it in float32, and check its training.")
    return found
