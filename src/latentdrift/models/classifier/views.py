"""Views of training images that stay of the same class: moved, turned, lighter, softer, noisier."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from latentdrift.errors import ConfigurationError

LIMITS = {"degrees": 45.0, "shift": 0.5, "zoom": 1.0, "gamma": 1.0, "blur": 5.0, "noise": 0.5}


@dataclass(frozen=True, kw_only=True)
class Views:
    """How far a training image is changed, anew each time it is seen; 0 leaves that change out."""

    degrees: float = 8.0
    """Turned by at most this, either way."""
    shift: float = 0.05
    """Moved by at most this part of the side, in each direction."""
    zoom: float = 0.08
    """At most this part larger, or smaller by as much."""
    gamma: float = 0.2
    """Brightness is raised to a power of at most 1 plus this, or of one over that."""
    blur: float = 1.0
    """Blurred by a Gaussian of at most this many pixels, half of the images."""
    noise: float = 0.03
    """Gaussian noise of at most this standard deviation, 1 being black to white; half of the images."""
    mirror: bool = False
    """Mirror half of the images left to right. Wrong for chests and for disease of one side."""

    def __post_init__(self) -> None:
        for name, limit in LIMITS.items():
            if not 0 <= getattr(self, name) <= limit:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be from 0 to {limit:g}.")

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return views (B, C, H, W) in [-1, 1] of as many images.

        Args:
            images: (B, C, H, W) in [-1, 1], on the CPU.
            generator: decides everything; same state, same views.
        """
        pixels = self._moved((images + 1) / 2, generator).clamp(0, 1)
        gamma = (1 + self.gamma) ** self._either(len(pixels), generator)
        pixels = pixels ** gamma[:, None, None, None]
        if self.blur:
            pixels = blurred(pixels, self.blur * self._half(len(pixels), generator))
        if self.noise:
            amount = self.noise * self._half(len(pixels), generator)
            # One draw for all channels: a gray picture stays gray.
            drawn = torch.randn(len(pixels), 1, *pixels.shape[2:], generator=generator)
            pixels = pixels + amount[:, None, None, None] * drawn
        return pixels.clamp(0, 1) * 2 - 1

    def _moved(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        count = len(pixels)
        angle, right, down, zoom = (self._either(count, generator) for _ in range(4))
        angle, scale = torch.deg2rad(angle * self.degrees), (1 + self.zoom) ** -zoom
        side = torch.ones(count)
        if self.mirror:
            side = torch.randint(2, (count,), generator=generator) * 2.0 - 1
        cos, sin = scale * angle.cos(), scale * angle.sin()
        place = torch.stack(
            [
                torch.stack([side * cos, -sin, 2 * self.shift * right], 1),
                torch.stack([side * sin, cos, 2 * self.shift * down], 1),
            ],
            1,
        )
        grid = F.affine_grid(place, list(pixels.shape), align_corners=False)
        # Its rim drawn on, so that no edge of black shows where a body goes on beyond the frame.
        return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)

    @staticmethod
    def _either(count: int, generator: torch.Generator) -> torch.Tensor:
        """Return numbers from -1 to 1."""
        return torch.rand(count, generator=generator) * 2 - 1

    @staticmethod
    def _half(count: int, generator: torch.Generator) -> torch.Tensor:
        """Return numbers from 0 to 1, of which half are 0."""
        return (torch.rand(count, generator=generator) * 2 - 1).clamp(min=0)


def blurred(pixels: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Return images (B, C, H, W), each blurred by a Gaussian of its own standard deviation in pixels, (B,)."""
    batch, channels, height, width = pixels.shape
    reach = min(math.ceil(3 * float(sigmas.max())), min(height, width) - 1)
    if reach < 1:
        return pixels
    steps = torch.arange(-reach, reach + 1, dtype=pixels.dtype)
    kernels = torch.exp(-0.5 * (steps / sigmas.clamp(min=1e-3)[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(pixels.reshape(1, batch * channels, height, width), (reach,) * 4, mode="reflect")
    flat = F.conv2d(flat, kernels[:, None, None, :], groups=batch * channels)
    return F.conv2d(flat, kernels[:, None, :, None], groups=batch * channels).reshape(pixels.shape)
