"""Cross-attention maps of the way back to the image, which edits of it are held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from latentdrift.edit.attention import CrossAttentionMaps
from latentdrift.edit.inversion import Inversion, way_down

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Reference:
    """The reconstruction of images, gone step by step beside an edit, so that one step's maps are in memory at a time.

    If all of them fit, they are kept, and a further edit costs no reconstruction.

    Args:
        pipeline: what reconstructs.
        inversion: of the images, each once.
    """

    def __init__(self, pipeline: DiffusionPipeline, inversion: Inversion) -> None:
        self.scheduler, self.timesteps = way_down(pipeline, inversion)
        self.source = inversion.source
        self.latents = inversion.noise
        """Latents (N, C, h, w) of the reconstruction so far."""
        self.made: list[list[torch.Tensor]] = []
        self.gone = 0

    @property
    def nbytes(self) -> int:
        """Memory that the kept maps take."""
        return sum(layer.nbytes for step in self.made for layer in step)

    @property
    def complete(self) -> bool:
        """Whether the maps of every step are kept."""
        return len(self.made) == len(self.timesteps)

    def maps(self, reader: CrossAttentionMaps, number: int, room: int) -> list[torch.Tensor]:
        """Return each layer's maps (N, heads, positions, tokens) of one step; steps must be asked for in order.

        Args:
            reader: on the pipeline's U-Net.
            number: of the step, 0 at the noise.
            room: bytes that the maps of all steps may take to be kept.
        """
        if number < len(self.made):
            return self.made[number]
        assert number == self.gone, "steps are asked for in order"
        timestep = self.timesteps[number]
        seen = self.scheduler.scale_model_input(self.latents, timestep)
        predicted, maps = reader.predict(seen, timestep, self.source)
        self.latents = self.scheduler.step(predicted, timestep, self.latents, return_dict=False)[0]
        if len(self.made) == number and sum(layer.nbytes for layer in maps) * len(self.timesteps) <= room:
            self.made.append(maps)
        self.gone += 1
        return maps
