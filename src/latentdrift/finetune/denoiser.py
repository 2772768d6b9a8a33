"""The module that is trained: the U-Net, and the text encoders where gradients go through them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from latentdrift.models import Conditioning, PromptTokens, TextEncoders

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Denoiser(torch.nn.Module):
    """Noisy latents, timesteps and conditioning → the network's prediction.

    Args:
        pipeline: its U-Net, and text encoders, are shared, not copied.
        text: gradients go through the text encoders, which then take token ids.
    """

    def __init__(self, pipeline: DiffusionPipeline, *, text: bool = False) -> None:
        super().__init__()
        self.unet = pipeline.unet
        self.text = TextEncoders(pipeline) if text else None

    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning | PromptTokens
    ) -> torch.Tensor:
        """Return the prediction (B, C, h, w)."""
        if isinstance(conditioning, PromptTokens):
            if self.text is None:
                raise TypeError("Token ids need text encoders: make the Denoiser with text=True.")
            states: Conditioning = self.text(conditioning)
        else:
            states = conditioning
        return self.unet(latents, timesteps, **states.unet_arguments()).sample

    def enable_gradient_checkpointing(self) -> None:
        """Compute activations twice to save memory."""
        self.unet.enable_gradient_checkpointing()
        encoders: Any = [] if self.text is None else self.text.encoders
        for encoder in encoders:
            encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield name and value of every parameter that is trained."""
        return ((name, value) for name, value in self.named_parameters() if value.requires_grad)


def freeze(pipeline: DiffusionPipeline) -> None:
    """Take every network of a pipeline out of training."""
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False)
            part.eval()
