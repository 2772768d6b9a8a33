"""InstructPix2Pix (Brooks et al., arXiv 2211.09800): an image and an instruction → the edited image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from latentdrift.edit.editor import Edited, Editor, editor
from latentdrift.edit.editors.sdedit import noised
from latentdrift.edit.inversion import Inversion
from latentdrift.edit.mask import keep_outside
from latentdrift.edit.request import Editing, check_request
from latentdrift.errors import ConfigurationError
from latentdrift.generate import denoise, encode_images, image_generators, start_noise
from latentdrift.generate.checks import check_counts, check_number
from latentdrift.generate.instructed import SourceGuidedUNet, check_instructed, encode_instructions, source_latents


@dataclass(frozen=True)
class InstructPix2PixConfig:
    """Settings of editing by instruction."""

    image_guidance: float = 1.5
    """How closely to keep to the image, s_I of the paper's Eq. 3; the request's guidance is s_T. With 1 a step costs
    two evaluations of the U-Net instead of three."""

    def __post_init__(self) -> None:
        check_number("image_guidance", self.image_guidance)


@editor("instruct_pix2pix")
class InstructPix2Pix(Editor):
    """Edit with a model that the method `instruct_pix2pix` trained; the target captions are instructions.

    The images' own captions are not used and may be left out. There is no reconstruction.
    """

    config_class = InstructPix2PixConfig
    config: InstructPix2PixConfig
    starts_from_inversion = False
    by_instruction = True

    def check(self, request: Editing) -> None:
        """Raise ConfigurationError for what cannot be edited, or by this model."""
        check_instructed(request.pipeline)
        check_counts(images=len(request), instructions=len(request.target_captions))
        if len(request.source_captions) not in (0, len(request)):
            raise ConfigurationError(
                f"{len(request)} images and {len(request.source_captions)} source captions: give one an image or none."
            )
        check_request(dataclasses.replace(request, source_captions=request.target_captions))
        if request.strength != 1:
            raise ConfigurationError(
                f"strength is {request.strength}, but instruct_pix2pix always starts from noise: leave it at 1, and "
                "keep more of the image by a larger image_guidance."
            )

    def run(self, request: Editing, inversion: Inversion | None) -> Iterator[Edited]:
        """Yield each batch, edited."""
        pipeline, own = request.pipeline, self.config
        unet, scheduler = pipeline.unet, pipeline.scheduler
        height, width = request.images.shape[-2:]
        conditioning = encode_instructions(pipeline, request.target_captions, height, width)
        unconditional = encode_instructions(pipeline, [""], height, width)
        for part in request.parts():
            generators = image_generators(request.image_seeds[part])
            seen = source_latents(pipeline, request.images[part])
            nothing = unconditional[[0] * len(seen)]
            seeing = SourceGuidedUNet(unet, seen, conditioning[part], nothing, request.guidance, own.image_guidance)
            scheduler.set_timesteps(request.steps, device=unet.device)
            noise = start_noise((seen.shape[1], seen.shape[2], seen.shape[3]), generators, unet.device, unet.dtype)
            keep = None
            if request.mask is not None:
                way = _SourceWay(request, part, noise)
                keep = keep_outside(request.mask[part], pipeline.vae_scale_factor, way)
            start = noise * scheduler.init_noise_sigma
            yield denoise(seeing, scheduler, start, conditioning[part], generators=generators, on_step=keep), None


class _SourceWay:
    """The source's latents (B, C, h, w) after so many steps of the pipeline's sampler."""

    def __init__(self, request: Editing, part: slice, noise: torch.Tensor) -> None:
        self.scheduler, self.noise = request.pipeline.scheduler, noise
        self.latents = encode_images(request.pipeline, request.images[part], request.batch_size).to(noise.dtype)

    def __call__(self, count: int) -> torch.Tensor:
        return noised(self.scheduler, self.latents, self.noise, self.scheduler.timesteps, count)
