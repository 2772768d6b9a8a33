"""An edit confined to a part of the image.

Latents outside the mask follow the source's own way at every step, as in blended diffusion (Avrahami et al., arXiv
2111.14818), so that the edit fits in; of the pixels outside, the source's are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from latentdrift.errors import ConfigurationError
from latentdrift.generate.loop import StepCallback

SourceWay = Callable[[int], torch.Tensor]
"""The source's latents (B, C, h, w) at the noise level after so many steps."""


def check_mask(mask: torch.Tensor, images: torch.Tensor) -> None:
    """Raise ConfigurationError for a mask that is not one of these images."""
    wanted = (len(images), 1, *images.shape[-2:])
    if tuple(mask.shape) != wanted:
        raise ConfigurationError(f"The mask has shape {tuple(mask.shape)}; {wanted} is needed, one plane an image.")
    # NaN fails the comparison too.
    if not ((mask >= 0) & (mask <= 1)).all():
        raise ConfigurationError(
            "The mask has values outside 0 to 1; 1 is where the edit may act, 0 where nothing may."
        )


def confine(edited: torch.Tensor, source: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return `edited` within the mask and the source's own bits outside; both (N, 3, H, W), between 0 and 1 a blend."""
    if mask is None:
        return edited
    weight = mask.to(source.device, source.dtype)
    return torch.where(weight > 0, torch.lerp(source, edited, weight), source)


def keep_outside(mask: torch.Tensor | None, factor: int, source_at: SourceWay) -> StepCallback | None:
    """Return what puts latents outside the mask back on the source's way after each step; None without a mask.

    A latent belongs to the mask if any of the factor x factor pixels above it does.
    """
    if mask is None:
        return None
    inside = functional.max_pool2d(mask.float(), factor) > 0

    def put_back(count: int, latents: torch.Tensor) -> None:
        # The loop goes on with this very tensor.
        latents.copy_(torch.where(inside.to(latents.device), latents, source_at(count)))

    return put_back
