"""What is asked of an editor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from latentdrift.edit.mask import check_mask
from latentdrift.errors import ConfigurationError, LatentDriftError
from latentdrift.generate import steps_of_strength
from latentdrift.generate.checks import check_batch_size, check_counts, check_images, check_number
from latentdrift.generate.loop import check_steps

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ImageObjective = Callable[[torch.Tensor, slice], torch.Tensor]
"""Images (B, 3, H, W) in [-1, 1], and which rows of the request they are → what they are worth, (B,), differentiable;
lower is better. An image's value may not depend on the other images."""


@dataclass(frozen=True, eq=False)
class Editing:
    """Images, wishes, and how to go from one to the other; every editor takes the same request."""

    pipeline: DiffusionPipeline
    """From `load_pipeline`; its scheduler says the noise schedule."""
    images: torch.Tensor
    """What to edit, (N, 3, H, W) in [-1, 1]; the sides are multiples of the autoencoder's factor."""
    source_captions: Sequence[str]
    """What the images show, one an image, in the words the model was trained with."""
    target_captions: Sequence[str]
    """What they should show, one an image; instructions for an editor that takes those."""
    steps: int = 50
    """Steps of the whole way between image and noise."""
    guidance: float = 2.0
    """How far beyond the wanted caption, away from the image's own; 1 follows the wanted caption."""
    strength: float = 1.0
    """Part of the way to the noise, in (0, 1]; less keeps more of the image."""
    mask: torch.Tensor | None = None
    """Where the edit may act, (N, 1, H, W), bool or in [0, 1]; where it is 0, no bit of the image changes."""
    seeds: Sequence[int] | None = None
    """One an image, for editors that draw noise; 0, 1, 2 ... by default."""
    batch_size: int = 16
    """Images at once."""
    reconstruct: bool = True
    """Make the reconstruction too, which says what the method changes when nothing should."""
    source_wordings: Sequence[Sequence[str]] | None = None
    """For each image, sentences that say what it shows, for editors that take an edit's direction from sets of prompts;
    by default its caption alone."""
    target_wordings: Sequence[Sequence[str]] | None = None
    """For each image, sentences that say what it should show; by default its wanted caption alone."""
    objective: ImageObjective | None = None
    """What the edited images are worth, for editors that follow its gradient; others do not ask."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def steps_taken(self) -> int:
        """How many of the steps belong to the part of the way that is gone."""
        return steps_of_strength(self.steps, self.strength)

    @property
    def image_seeds(self) -> tuple[int, ...]:
        """One seed an image."""
        return tuple(range(len(self))) if self.seeds is None else tuple(self.seeds)

    def parts(self) -> list[slice]:
        """Return the batches."""
        return [slice(start, start + self.batch_size) for start in range(0, len(self), self.batch_size)]


def check_request(request: Editing) -> None:
    """Raise ConfigurationError for what no editor can do."""
    images, pipeline = request.images, request.pipeline
    check_counts(
        images=len(images),
        source_captions=len(request.source_captions),
        target_captions=len(request.target_captions),
    )
    check_images(images, pipeline.vae_scale_factor)
    check_batch_size(request.batch_size)
    check_steps(pipeline.scheduler, request.steps)
    if not 0 < request.strength <= 1:
        raise ConfigurationError(
            f"strength is {request.strength}; it is a part of the way to the noise, above 0 and at most 1."
        )
    check_number("guidance", request.guidance)
    if request.seeds is not None:
        check_counts(images=len(images), seeds=len(request.seeds))
    if request.mask is not None:
        check_mask(request.mask, images)
    if request.objective is not None and not callable(request.objective):
        raise ConfigurationError(
            f"objective is {request.objective!r}; give a function of images and rows, such as image_objective makes."
        )
    for name in ("source_wordings", "target_wordings"):
        sets = getattr(request, name)
        if sets is None:
            continue
        if len(sets) != len(images):
            raise ConfigurationError(f"{len(images)} images and {len(sets)} {name}: give one list an image.")
        for row, sentences in enumerate(sets):
            if isinstance(sentences, str) or not len(sentences):
                raise ConfigurationError(f"{name}[{row}] is {sentences!r}; give a list of at least one sentence.")


def check_finite(latents: torch.Tensor, what: str) -> None:
    """Raise LatentDriftError for latents (N, ...) that hold NaN or infinite values."""
    bad = int((~torch.isfinite(latents)).flatten(1).any(1).sum())
    if bad:
        raise LatentDriftError(
            f"{what} of {bad} of {len(latents)} images hold NaN or infinite values: no image was made. Use a smaller "
            "drift or guidance, more steps, or float32 in place of float16."
        )
