"""The image's own noise, denoised under the wanted caption.

Noise that DDIM inversion finds under the image's own caption holds what the caption does not say: whose scan it is.
Denoising it under the wanted caption changes what the captions differ in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from latentdrift.edit.editor import Edited, Editor, editor
from latentdrift.edit.inversion import Inversion, reconstruct, way_down
from latentdrift.edit.mask import keep_outside
from latentdrift.edit.request import Editing
from latentdrift.generate import denoise
from latentdrift.models import encode_prompts


@dataclass(frozen=True)
class PromptSwapConfig:
    """Prompt swap has no settings of its own; those of the request say everything."""


@editor("prompt_swap")
class PromptSwap(Editor):
    """Swap the caption between inversion and sampling (paper, section on counterfactual generation).

    The noise prediction is source + guidance * (target - source): 1 follows the wanted caption, 0 reconstructs.
    """

    config_class = PromptSwapConfig

    def run(self, request: Editing, inversion: Inversion | None) -> Iterator[Edited]:
        """Yield each batch, edited."""
        assert inversion is not None, "edit gives one"
        pipeline = request.pipeline
        target = encode_prompts(pipeline, request.target_captions, request.images.shape[-1])
        for part in request.parts():
            own = inversion[part]
            scheduler, timesteps = way_down(pipeline, own)
            mask = None if request.mask is None else request.mask[part]
            edited = denoise(
                pipeline.unet,
                scheduler,
                own.noise,
                target[part],
                unconditional=own.source,
                guidance=request.guidance,
                timesteps=timesteps,
                on_step=keep_outside(mask, pipeline.vae_scale_factor, own.source_at),
            )
            yield edited, reconstruct(pipeline, own, request.batch_size) if request.reconstruct else None
