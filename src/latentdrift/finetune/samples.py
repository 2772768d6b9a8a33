"""Sample sheets: what the model makes of the commonest captions, on the same noise each time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from latentdrift.data import Cohort, PromptTemplate, write_png
from latentdrift.finetune.config import TrainingConfig

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def sample_captions(cohort: Cohort, prompts: PromptTemplate, most: int = 6) -> list[str]:
    """Return the commonest captions, one a row of a sample sheet."""
    return sorted(caption for caption, _ in Counter(prompts.captions(cohort)).most_common(most))


def write_samples(
    pipeline: DiffusionPipeline, captions: list[str], path: Path, config: TrainingConfig, columns: int = 6
) -> None:
    """Write a sheet of samples, a row a caption, the same seeds in each row, made by the pipeline itself.

    Raises:
        DataError: the file cannot be written.
    """
    from torchvision.utils import make_grid

    prompts = [caption for caption in captions for _ in range(columns)]
    images = []
    for start in range(0, len(prompts), config.batch_size):
        part = range(start, min(start + config.batch_size, len(prompts)))
        generators = [torch.Generator().manual_seed(config.seed + index % columns) for index in part]
        made = pipeline(
            [prompts[index] for index in part],
            num_inference_steps=config.sample_steps,
            guidance_scale=1.0,
            generator=generators,
            output_type="pt",
        )
        images.append(made.images.float().cpu())
    # Weights that diverged give NaN; the sheet then shows black, and the loss tells.
    sheet = make_grid(torch.nan_to_num(torch.cat(images)), nrow=columns, padding=1)
    write_png(path, sheet * 2 - 1, synthetic=True)
