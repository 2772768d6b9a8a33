"""One training batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from latentdrift.models import Conditioning, PromptTokens


@dataclass(frozen=True)
class Batch:
    """One training batch, on the training device.

    Args:
        latents: scaled clean latents, (B, C, h, w), drawn from the posterior.
        conditioning: one row an image; token ids where the text encoders are in the training.
        noise: standard normal, the latents' shape.
        timesteps: integers in [0, T), (B,).
        source: latents of the images to be edited, (B, C, h, w), unscaled; None where nothing is edited.
        prior: how many rows, the last ones, are images of the class that is to stay as it is.
    """

    latents: torch.Tensor
    conditioning: Conditioning | PromptTokens
    noise: torch.Tensor
    timesteps: torch.Tensor
    source: torch.Tensor | None = None
    prior: int = 0
