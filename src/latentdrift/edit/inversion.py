"""Images → their noise, once, for as many edits and editors as are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from latentdrift.edit.regularisation import NoiseRegularisation, RegularisedUNet
from latentdrift.edit.request import Editing, check_finite, check_request
from latentdrift.errors import ConfigurationError
from latentdrift.generate import (
    decode_latents,
    denoise,
    encode_images,
    image_generators,
    inverse_scheduler,
    scheduler_like,
    steps_of_strength,
)
from latentdrift.models import Conditioning, check_from_noise, encode_prompts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Inversion:
    """The noise of images and the way to it; made by `invert`.

    `inversion[[0] * 8]` is the first image eight times, for eight edits of it in one batch: what editors need of an
    image apart from the wish is made once for all of them.
    """

    images: torch.Tensor
    """The images, (N, 3, H, W) in [-1, 1]."""
    captions: tuple[str, ...]
    """What they show; the inversion went up under these."""
    trajectory: tuple[torch.Tensor, ...]
    """Latents (N, C, h, w) from the image's, first, to the noise, last: one more than the steps taken."""
    source: Conditioning
    """The captions as the U-Net is told them, one row an image."""
    steps: int
    """Steps of the whole way."""
    strength: float
    """Part of the way that was gone."""
    origins: tuple[int, ...]
    """For each row, which of the images of the first inversion it is; the same image may stand in several rows."""
    channels_last: tuple[bool, ...]
    """For each row, how its latents lay in memory when it was inverted: kernels for another layout round otherwise."""
    kept: dict[Any, tuple[Any, Any, Any]] = field(default_factory=dict, repr=False)
    """What was made of the images for one edit and serves the next; all parts of an inversion share it."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | Sequence[int]) -> Inversion:
        numbers = range(len(self))[rows] if isinstance(rows, slice) else [range(len(self))[row] for row in rows]
        index = rows if isinstance(rows, slice) else list(numbers)
        last = tuple(self.channels_last[row] for row in numbers)
        layout = torch.channels_last if last and all(last) else torch.contiguous_format
        return replace(
            self,
            images=self.images[index],
            captions=tuple(self.captions[row] for row in numbers),
            trajectory=tuple(latents[index].contiguous(memory_format=layout) for latents in self.trajectory),
            source=self.source[index],
            origins=tuple(self.origins[row] for row in numbers),
            channels_last=last,
        )

    @property
    def latents(self) -> torch.Tensor:
        """The images' scaled latents, (N, C, h, w)."""
        return self.trajectory[0]

    @property
    def noise(self) -> torch.Tensor:
        """The latents at the end of the way, (N, C, h, w)."""
        return self.trajectory[-1]

    def up_to(self, strength: float) -> Inversion:
        """Return the inversion that a strength of no more than this one's would have made: the beginning of its way."""
        if strength == self.strength:
            return self
        taken = steps_of_strength(self.steps, strength)
        # What was kept for later edits belongs to the whole way.
        return replace(self, trajectory=self.trajectory[: taken + 1], strength=strength, kept={})

    def distinct(self) -> tuple[Inversion, list[int]]:
        """Return the inversion with each image once, and for each row here its row there."""
        place = {origin: row for row, origin in enumerate(dict.fromkeys(self.origins))}
        if len(place) == len(self):
            return self, list(range(len(self)))
        return self[[self.origins.index(origin) for origin in place]], [place[origin] for origin in self.origins]

    def source_at(self, count: int) -> torch.Tensor:
        """Return the images' own latents (N, C, h, w) at the level that `count` steps down from the noise reach."""
        return self.trajectory[len(self.trajectory) - 1 - count]

    def remembered(self, name: str, pipeline: DiffusionPipeline) -> Any:
        """Return what was kept under a name for these images; None if nothing, or for another U-Net or scheduler."""
        unet, config, found = self.kept.get((name, self.origins), (None, None, None))
        return found if unet is pipeline.unet and config == dict(pipeline.scheduler.config) else None

    def remember(self, name: str, pipeline: DiffusionPipeline, value: T) -> T:
        """Keep something for the next edit of these images, under this U-Net and this scheduler; return it."""
        self.kept[(name, self.origins)] = (pipeline.unet, dict(pipeline.scheduler.config), value)
        return value

    def check(self, request: Editing) -> None:
        """Raise unless this is the inversion of a request's images, as far as it goes.

        Raises:
            ConfigurationError: it is one of other images or captions, or was made with other settings.
            LatentDriftError: it holds latents that are not finite.
        """
        for name, own, wanted in (
            ("images", len(self), len(request)),
            ("steps", self.steps, request.steps),
            ("strength", self.strength, request.strength),
        ):
            if own != wanted:
                raise ConfigurationError(
                    f"The inversion was made with {name} = {own}, the edit has {wanted}. Invert again, or edit alike."
                )
        if self.captions != tuple(request.source_captions):
            raise ConfigurationError(
                "The inversion was made under other source captions than the edit's: invert again."
            )
        if self.images is not request.images and not torch.equal(self.images, request.images):
            raise ConfigurationError("The inversion is one of other images than those to be edited: invert these.")
        check_finite(self.noise, "The inverted latents")


@torch.no_grad()
def invert(request: Editing, regularisation: NoiseRegularisation | None = None) -> Inversion:
    """Return the noise of a request's images under their own captions, without guidance (DDIM, arXiv 2010.02502).

    Args:
        request: what is to be edited; wishes play no part.
        regularisation: keeps the predicted noise like noise on the way up; without, the way down leads back better.

    Raises:
        ConfigurationError: what `check_request` refuses; a model that edits images by instruction.
        DataError: a caption longer than the tokenizer takes.
        LatentDriftError: latents that are no longer finite.
    """
    check_from_noise(request.pipeline)
    check_request(request)
    pipeline, images = request.pipeline, request.images
    source = encode_prompts(pipeline, request.source_captions, images.shape[-1])
    parts = []
    for part in request.parts():
        latents = encode_images(pipeline, images[part], request.batch_size)
        inverse = inverse_scheduler(pipeline.scheduler)
        inverse.set_timesteps(request.steps, device=latents.device)
        network = pipeline.unet
        if regularisation is not None:
            network = RegularisedUNet(network, inverse, regularisation, image_generators(request.image_seeds[part]))
        parts.append(way_up(network, inverse, latents, source[part], request.steps_taken))
    return Inversion(
        images=images,
        captions=tuple(request.source_captions),
        trajectory=tuple(torch.cat(level) for level in zip(*parts, strict=True)),
        source=source,
        steps=request.steps,
        strength=request.strength,
        origins=tuple(range(len(images))),
        channels_last=tuple(
            not passed[-1].is_contiguous() and passed[-1].is_contiguous(memory_format=torch.channels_last)
            for passed in parts
            for _ in passed[-1]
        ),
    )


def way_up(
    network: torch.nn.Module, inverse: Any, latents: torch.Tensor, conditioning: Conditioning, steps: int
) -> list[torch.Tensor]:
    """Return latents (B, C, h, w) and all that come after them in so many steps."""
    passed = [latents]

    def keep(_: int, reached: torch.Tensor) -> None:
        passed.append(reached)

    denoise(network, inverse, latents, conditioning, timesteps=inverse.timesteps[:steps], on_step=keep)
    return passed


def way_down(pipeline: DiffusionPipeline, inversion: Inversion) -> tuple[Any, torch.Tensor]:
    """Return a DDIM scheduler with the pipeline's noise schedule, set, and its timesteps from noise to image."""
    from diffusers import DDIMScheduler

    scheduler = scheduler_like(pipeline.scheduler, DDIMScheduler)
    scheduler.set_timesteps(inversion.steps, device=inversion.noise.device)
    return scheduler, scheduler.timesteps[-(len(inversion.trajectory) - 1) :]


def reconstruct(pipeline: DiffusionPipeline, inversion: Inversion, batch_size: int) -> torch.Tensor:
    """Return the images (N, 3, H, W) that the noise leads back to, each made once, however often it is asked for."""
    single, rows = inversion.distinct()
    rebuilt = single.remembered("reconstruction", pipeline)
    if rebuilt is None:
        scheduler, timesteps = way_down(pipeline, single)
        down = denoise(pipeline.unet, scheduler, single.noise, single.source, timesteps=timesteps)
        rebuilt = single.remember("reconstruction", pipeline, decode_latents(pipeline, down, batch_size))
    return rebuilt[rows]
