"""What a training draws from: cached latents, and the text conditioning that belongs to each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from latentdrift.data import Cohort, ImageTransform, PromptTemplate
from latentdrift.finetune.cache import LatentCache
from latentdrift.finetune.config import TrainingConfig
from latentdrift.finetune.method import Batch
from latentdrift.models import Conditioning, encode_prompts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class TrainingSet:
    """Latents with the row of the conditioning that belongs to each, and how often each is drawn.

    Args:
        cache: posteriors of N samples.
        captions: row of `conditioning` of each sample, (N,).
        conditioning: distinct captions' conditioning; its last row is the empty caption.
        weights: relative frequency of each sample, (N,), or None for all alike.
    """

    cache: LatentCache
    captions: torch.Tensor
    conditioning: Conditioning
    weights: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.captions)

    def batch(
        self, indices: torch.Tensor, generator: torch.Generator, drop: float, horizon: int, device: torch.device
    ) -> Batch:
        """Return a batch of the samples `indices`; captions are left empty with probability `drop`."""
        latents = self.cache.draw(indices, generator)
        empty = torch.rand(len(indices), generator=generator) < drop
        rows = torch.where(empty, len(self.conditioning) - 1, self.captions[indices])
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(horizon, (len(indices),), generator=generator)
        conditioning = self.conditioning[rows.to(self.conditioning.hidden.device)].to(device)
        return Batch(latents.to(device), conditioning, noise.to(device), timesteps.to(device))

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return `count` indices."""
        if self.weights is None:
            return torch.randint(len(self), (count,), generator=generator)
        return torch.multinomial(self.weights, count, replacement=True, generator=generator)


def training_set(
    cohort: Cohort,
    pipeline: DiffusionPipeline,
    transform: ImageTransform,
    prompts: PromptTemplate,
    folder: Path,
    config: TrainingConfig,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingSet:
    """Return the text conditioning and the latents of a cohort, the latents cached in `folder`.

    Raises:
        DataError: a caption that is too long or lacks an attribute, or an image that cannot be read.
        TrainingError: the latents cannot be written.
    """
    captions = prompts.captions(cohort)
    distinct = sorted(set(captions))
    rows = {caption: row for row, caption in enumerate(distinct)}
    conditioning = encode_prompts(pipeline, [*distinct, ""], transform.size)
    weights = None
    if config.balance is not None:
        counts = cohort.counts(config.balance)
        weights = torch.tensor([counts[value] ** -config.balance_strength for value in cohort.values(config.balance)])
    cache = LatentCache.build(
        cohort,
        transform,
        pipeline.vae,
        folder,
        flip=config.flip,
        batch_size=config.batch_size,
        progress=progress,
    )
    return TrainingSet(cache, torch.tensor([rows[caption] for caption in captions]), conditioning, weights)
