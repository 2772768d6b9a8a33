"""Cross-attention maps of the way back to the image, which edits of it are held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from latentdrift.edit.attention import CrossAttentionMaps
from latentdrift.edit.inversion import Inversion, way_down
from latentdrift.models import Conditioning

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SMALL = 8
"""Rows up to which one evaluation of the U-Net is clearly cheaper than two with as many rows together."""


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
        self.present: list[torch.Tensor] = []
        """Maps of the last step that was gone."""
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
        if number == self.gone:
            timestep = self.timesteps[number]
            self._go(*reader.predict(self._seen(), timestep, self.source), room)
        assert number == self.gone - 1, "steps are asked for in order"
        return self.present

    def joins(self, rows: int) -> bool:
        """Whether the next step is better gone in one evaluation with so many rows of an edit."""
        return len(self.made) <= self.gone < len(self.timesteps) and rows + len(self.latents) <= SMALL

    def beside(
        self,
        reader: CrossAttentionMaps,
        seen: torch.Tensor,
        timestep: torch.Tensor,
        told: Conditioning,
        room: int,
    ) -> torch.Tensor:
        """Return the prediction for the latents (B, C, h, w) of an edit at its timestep, and go the next step as well.

        The two need each other at no point: the edit's last evaluation of a step and the reconstruction's next step.
        """
        own, count = self._seen(), len(seen)
        timesteps = torch.stack([timestep] * count + [self.timesteps[self.gone]] * len(own))
        both = Conditioning.stack([told, self.source])
        predicted, maps = reader.predict(torch.cat([seen, own]), timesteps, both)
        # Copies, so that the edit's own maps are not kept with them.
        self._go(predicted[count:], [layer[count:].clone() for layer in maps], room)
        return predicted[:count]

    def _seen(self) -> torch.Tensor:
        return self.scheduler.scale_model_input(self.latents, self.timesteps[self.gone])

    def _go(self, predicted: torch.Tensor, maps: list[torch.Tensor], room: int) -> None:
        timestep = self.timesteps[self.gone]
        self.latents = self.scheduler.step(predicted, timestep, self.latents, return_dict=False)[0]
        if len(self.made) == self.gone and sum(layer.nbytes for layer in maps) * len(self.timesteps) <= room:
            self.made.append(maps)
        self.present = maps
        self.gone += 1
