"""SDEdit (Meng et al., arXiv 2108.01073): the image noised part of the way, and denoised under the wanted caption."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

import torch

from latentdrift.edit.editor import Edited, Editor, editor
from latentdrift.edit.inversion import Inversion
from latentdrift.edit.mask import keep_outside
from latentdrift.edit.request import Editing
from latentdrift.errors import UnknownNameError
from latentdrift.generate import decode_latents, denoise, encode_images, image_generators, start_noise
from latentdrift.models import Conditioning, encode_prompts


@dataclass(frozen=True)
class SDEditConfig:
    """Settings of SDEdit. The request's strength is how far the image is noised: about 0.3 to 0.7 is usual."""

    away_from: Literal["source", "nothing"] = "source"
    """What guidance moves away from: the image's own caption, or the empty one, as in plain sampling."""

    def __post_init__(self) -> None:
        known = get_args(get_type_hints(type(self))["away_from"])
        if self.away_from not in known:
            raise UnknownNameError("away_from", str(self.away_from), known)


@editor("sdedit")
class SDEdit(Editor):
    """Noise the image by the scheduler to the request's strength, and go down with the pipeline's own sampler."""

    config_class = SDEditConfig
    config: SDEditConfig
    starts_from_inversion = False

    def run(self, request: Editing, inversion: Inversion | None) -> Iterator[Edited]:
        """Yield each batch, edited; the reconstruction goes down from the same noise under the own captions."""
        pipeline, width = request.pipeline, request.images.shape[-1]
        source = encode_prompts(pipeline, request.source_captions, width)
        target = encode_prompts(pipeline, request.target_captions, width)
        away = source
        if self.config.away_from == "nothing":
            away = encode_prompts(pipeline, [""] * len(request), width)
        for part in request.parts():
            latents = encode_images(pipeline, request.images[part], request.batch_size)
            edited = noise_and_denoise(
                request, part, latents, target[part], away[part], request.guidance, confined=request.mask is not None
            )
            rebuilt = None
            if request.reconstruct:
                down = noise_and_denoise(request, part, latents, source[part], None, 1.0, confined=False)
                rebuilt = decode_latents(pipeline, down, request.batch_size)
            yield edited, rebuilt


def noise_and_denoise(
    request: Editing,
    part: slice,
    latents: torch.Tensor,
    wanted: Conditioning,
    away: Conditioning | None,
    guidance: float,
    *,
    confined: bool,
) -> torch.Tensor:
    """Return a batch's latents (B, C, h, w), noised to the request's strength and denoised; the noise is its seeds'."""
    pipeline = request.pipeline
    scheduler: Any = pipeline.scheduler
    generators = image_generators(request.image_seeds[part])
    shape = (latents.shape[1], latents.shape[2], latents.shape[3])
    noise = start_noise(shape, generators, latents.device, latents.dtype)
    scheduler.set_timesteps(request.steps, device=latents.device)
    begin = (request.steps - request.steps_taken) * getattr(scheduler, "order", 1)
    timesteps = scheduler.timesteps[begin:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)

    def source_at(count: int) -> torch.Tensor:
        return noised(scheduler, latents, noise, timesteps, count)

    mask = request.mask[part] if confined and request.mask is not None else None
    return denoise(
        pipeline.unet,
        scheduler,
        source_at(0),
        wanted,
        unconditional=away,
        guidance=guidance,
        generators=generators,
        timesteps=timesteps,
        on_step=keep_outside(mask, pipeline.vae_scale_factor, source_at),
    )


def noised(
    scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, count: int
) -> torch.Tensor:
    """Return latents (B, C, h, w) with noise of the level after `count` steps; after the last there is none."""
    if count >= len(timesteps):
        return latents
    return scheduler.add_noise(latents, noise, timesteps[count : count + 1].repeat(len(latents)))
