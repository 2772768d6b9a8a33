"""pix2pix-zero (Parmar et al., arXiv 2302.03027): the wanted direction, with the reconstruction's attention kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from latentdrift.edit.attention import CrossAttentionMaps
from latentdrift.edit.editor import Edited, Editor, editor
from latentdrift.edit.inversion import Inversion, invert, reconstruct, way_down
from latentdrift.edit.mask import keep_outside
from latentdrift.edit.reference import Reference
from latentdrift.edit.regularisation import NoiseRegularisation
from latentdrift.edit.request import Editing
from latentdrift.edit.result import EditResult
from latentdrift.errors import ConfigurationError
from latentdrift.generate import decode_latents
from latentdrift.generate.images import Progress
from latentdrift.models import Conditioning, encode_prompts


@dataclass(frozen=True)
class Pix2PixZeroConfig:
    """Settings of pix2pix-zero."""

    attention_guidance: float = 0.1
    """How strongly the cross-attention is held to the reconstruction's; 0 leaves it free. Models that predict velocity
    want 0.01 or less."""
    auto_correlation: float = 20.0
    """Weight of the autocorrelation that inversion takes out of the noise; 0 leaves it in."""
    kl: float = 20.0
    """Weight of the divergence from mean 0 and variance 1 that inversion takes out of the noise; 0 leaves it in."""
    rounds: int = 5
    """How often both act at each step of the inversion."""
    rolls: int = 5
    """Random shifts in each round, over which the autocorrelation is averaged."""
    keep_megabytes: int = 512
    """Reference maps up to this size stay with the inversion for further edits; larger ones are made anew by each."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.attention_guidance) or self.attention_guidance < 0:
            raise ConfigurationError(f"attention_guidance is {self.attention_guidance}; give a number of 0 or more.")
        if self.keep_megabytes < 0:
            raise ConfigurationError(f"keep_megabytes is {self.keep_megabytes}; give 0 or more.")
        _ = self.regularisation

    @property
    def regularisation(self) -> NoiseRegularisation:
        """What inversion does to the predicted noise."""
        return NoiseRegularisation(self.auto_correlation, self.kl, self.rounds, self.rolls)


@editor("pix2pix_zero")
class Pix2PixZero(Editor):
    """Denoise the image's own noise under its caption plus an edit's direction, with its cross-attention maps kept.

    Guidance moves away from the image's own caption, as in the authors' code. The reference maps are therefore those of
    one pass under that caption, which reconstructs the image as well. Every image of a batch has its own direction,
    maps and gradient; the U-Net's weights have none.
    """

    config_class = Pix2PixZeroConfig
    config: Pix2PixZeroConfig

    def invert(self, request: Editing) -> Inversion:
        """Return an inversion with the noise kept like noise."""
        return invert(request, self.config.regularisation)

    def edit(
        self, request: Editing, inversion: Inversion | None = None, *, progress: Progress | None = None
    ) -> EditResult:
        """Return the edited images; see `Editor.edit`."""
        if inversion is not None:
            return super().edit(request, inversion, progress=progress)
        self.check(request)
        # Nobody has this inversion afterwards, so no reference maps are kept with it.
        once = type(self)(replace(self.config, keep_megabytes=0))
        return once.edit(request, self.invert(request), progress=progress)

    def run(self, request: Editing, inversion: Inversion | None) -> Iterator[Edited]:
        """Yield each batch, edited."""
        assert inversion is not None, "edit gives one"
        wanted = directed(request, inversion.source)
        for part in request.parts():
            own = inversion[part]
            mask = None if request.mask is None else request.mask[part]
            if self.config.attention_guidance == 0:
                edited = self.denoise(request, own, wanted[part], mask, None, None, [])
                yield edited, reconstruct(request.pipeline, own, request.batch_size) if request.reconstruct else None
                continue
            single, rows = own.distinct()
            reference = single.remembered("references", request.pipeline) or Reference(request.pipeline, single)
            with CrossAttentionMaps(request.pipeline.unet) as maps:
                edited = self.denoise(request, own, wanted[part], mask, maps, reference, rows)
            rebuilt = None
            if request.reconstruct:
                rebuilt = decode_latents(request.pipeline, reference.latents, request.batch_size)[rows]
            if reference.complete:
                single.remember("references", request.pipeline, reference)
            yield edited, rebuilt

    def denoise(
        self,
        request: Editing,
        own: Inversion,
        wanted: Conditioning,
        mask: torch.Tensor | None,
        maps: CrossAttentionMaps | None,
        reference: Reference | None,
        rows: Sequence[int],
    ) -> torch.Tensor:
        """Return the edited latents (B, C, h, w) of a batch, of whose images `rows` are the rows in the reference."""
        pipeline, latents, count = request.pipeline, own.noise, len(own)
        scheduler, timesteps = way_down(pipeline, own)
        guided = request.guidance != 1.0
        told = Conditioning.stack([own.source, wanted]) if guided else wanted
        keep = keep_outside(mask, pipeline.vae_scale_factor, own.source_at)
        room = self.config.keep_megabytes * 2**20 - kept_bytes(own)
        for number, timestep in enumerate(timesteps):
            seen = scheduler.scale_model_input(torch.cat([latents, latents]) if guided else latents, timestep)
            if maps is not None and reference is not None:
                wished = reference.maps(maps, number, room)
                pull = -self.config.attention_guidance * attention_gradient(maps, seen, timestep, told, wished, rows)
                # The unguided half is the one that the step starts from, as in diffusers.
                seen, latents = seen + pull, latents + pull[:count]
            if maps is not None and reference is not None and reference.joins(len(seen)):
                predicted = reference.beside(maps, seen, timestep, told, room)
            else:
                predicted = pipeline.unet(seen, timestep, **told.unet_arguments()).sample
            if guided:
                away, towards = predicted.chunk(2)
                predicted = away + request.guidance * (towards - away)
            latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
            if keep is not None:
                keep(number + 1, latents)
        return latents


def directed(request: Editing, source: Conditioning) -> Conditioning:
    """Return each image's caption plus the mean of its wanted sentences minus the mean of its own, one row an image."""
    pipeline, width = request.pipeline, request.images.shape[-1]
    if request.source_wordings is None and request.target_wordings is None:
        return encode_prompts(pipeline, request.target_captions, width)
    before = request.source_wordings or [[caption] for caption in request.source_captions]
    after = request.target_wordings or [[caption] for caption in request.target_captions]
    old, new = (mean_conditioning(request, sets) for sets in (before, after))
    pooled = None
    if source.pooled is not None and old.pooled is not None and new.pooled is not None:
        pooled = source.pooled + new.pooled - old.pooled
    return Conditioning(source.hidden + new.hidden - old.hidden, pooled, source.times)


def mean_conditioning(request: Editing, sets: Sequence[Sequence[str]]) -> Conditioning:
    """Return the mean conditioning of each set of sentences, one row a set; each distinct sentence is encoded once."""
    distinct = list(dict.fromkeys(sentence for sentences in sets for sentence in sentences))
    encoded = encode_prompts(request.pipeline, distinct, request.images.shape[-1])
    place = {sentence: row for row, sentence in enumerate(distinct)}
    parts = [encoded[[place[sentence] for sentence in sentences]] for sentences in sets]
    pooled = [part.pooled.mean(0) for part in parts if part.pooled is not None]
    return Conditioning(
        torch.stack([part.hidden.mean(0) for part in parts]), torch.stack(pooled) if pooled else None, None
    )


def attention_gradient(
    maps: CrossAttentionMaps,
    seen: torch.Tensor,
    timestep: torch.Tensor,
    told: Conditioning,
    wished: Sequence[torch.Tensor],
    rows: Sequence[int],
) -> torch.Tensor:
    """Return the gradient, as `seen` (k B, C, h, w), of each image's distance from its reference maps.

    The distance is the squared difference summed over layers, positions and tokens, and averaged over heads and, under
    guidance (k = 2), the two halves. An image's distance knows nothing of the other images.
    """
    with torch.enable_grad():
        seen = seen.detach().requires_grad_(True)
        dtype = torch.promote_types(seen.dtype, torch.float32)
        distance = seen.new_zeros((), dtype=dtype)
        for now, reference in zip(maps.only(seen, timestep, told), wished, strict=True):
            halves = now.unflatten(0, (-1, len(rows)))
            # As many references as images are one each, in order.
            difference = (halves - (reference if len(reference) == len(rows) else reference[list(rows)])).to(dtype)
            distance = distance + difference.square().sum() / (len(halves) * now.shape[1])
        return torch.autograd.grad(distance, seen)[0]


def kept_bytes(inversion: Inversion) -> int:
    """Return how much memory the reference maps take that are kept with an inversion."""
    return sum(found.nbytes for _, _, found in inversion.kept.values() if isinstance(found, Reference))
