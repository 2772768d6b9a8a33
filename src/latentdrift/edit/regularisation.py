"""Predicted noise kept like noise on the way up (pix2pix-zero, Parmar et al., arXiv 2302.03027, section 3.1).

Two losses pull the prediction towards what white noise is: no correlation with itself shifted (summed over a pyramid of
halved images), and mean 0 with variance 1. Both have gradients in closed form, so that no graph is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional

from latentdrift.drift.target import noise_weights
from latentdrift.errors import ConfigurationError

SMALLEST = 8
"""Height at which the pyramid ends."""
EPSILON = 1e-7
"""Added to the variance, as in the authors' code."""


@dataclass(frozen=True)
class NoiseRegularisation:
    """How strongly the predicted noise is kept like noise in inversion."""

    auto_correlation: float = 20.0
    """Weight of the autocorrelation; 0 leaves it out."""
    kl: float = 20.0
    """Weight of the divergence from mean 0 and variance 1; 0 leaves it out."""
    rounds: int = 5
    """How often both act at each step of the inversion."""
    rolls: int = 5
    """Random shifts in each round, over which the autocorrelation is averaged."""

    def __post_init__(self) -> None:
        for name in ("auto_correlation", "kl"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigurationError(f"{name} is {getattr(self, name)}; give a weight of 0 or more.")
        for name, least in (("rounds", 0), ("rolls", 1)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; at least {least} is needed.")


class RegularisedUNet(torch.nn.Module):
    """A U-Net whose predictions are kept like noise; for the loop it is a U-Net as any other.

    Args:
        unet: predicts noise, velocity or sample.
        scheduler: the inverse scheduler, which knows what is predicted and the noise levels.
        settings: how strongly.
        generators: one an image, so that an image does not depend on the batch it is inverted in.
    """

    def __init__(
        self,
        unet: torch.nn.Module,
        scheduler: Any,
        settings: NoiseRegularisation,
        generators: Sequence[torch.Generator],
    ) -> None:
        super().__init__()
        self.unet, self.scheduler, self.settings, self.generators = unet, scheduler, settings, list(generators)

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, **arguments: Any) -> SimpleNamespace:
        """Return the prediction, (B, C, h, w), as `sample`."""
        predicted = self.unet(latents, timestep, **arguments).sample
        alpha = self.scheduler.alphas_cumprod[int(timestep)].item()
        slope, share = noise_weights(self.scheduler.config.prediction_type, alpha**0.5, (1 - alpha) ** 0.5)
        # Half precision is too coarse for the small gradients.
        dtype = torch.promote_types(predicted.dtype, torch.float32)
        kept = regularised(predicted.to(dtype), latents.to(dtype) * share, slope, self.settings, self.generators)
        return SimpleNamespace(sample=kept.to(predicted.dtype))


def regularised(
    predicted: torch.Tensor,
    rest: torch.Tensor,
    slope: float,
    settings: NoiseRegularisation,
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """Return a prediction (B, C, h, w) after gradient steps on both losses of noise = slope * predicted + rest."""
    channels, height, width = predicted.shape[1:]
    heights = pyramid_heights(height, width)
    shifts = draw_shifts(settings.rounds * settings.rolls, channels, heights, generators)
    for number in range(settings.rounds):
        for roll in range(settings.rolls if settings.auto_correlation > 0 else 0):
            shift = shifts[:, number * settings.rolls + roll]
            gradient = auto_correlation_gradient(slope * predicted + rest, shift)
            predicted = predicted - settings.auto_correlation / settings.rolls * slope * gradient
        if settings.kl > 0:
            predicted = predicted - settings.kl * slope * kl_gradient(slope * predicted + rest)
    return predicted


def pyramid_heights(height: int, width: int) -> list[int]:
    """Return the heights of the pyramid, each half of the one before, until SMALLEST."""
    heights = [height]
    while heights[-1] > SMALLEST and width >> len(heights):
        heights.append(heights[-1] // 2)
    return heights


def draw_shifts(
    count: int, channels: int, heights: Sequence[int], generators: Sequence[torch.Generator]
) -> torch.Tensor:
    """Return shifts below half the height, (B, count, channels, levels), one generator an image."""
    limits = torch.tensor([max(1, height // 2) for height in heights])
    shape = (count, channels, len(heights))
    # Below 2^28 a draw takes 32 random bits, as one below a small limit does: these are the draws of diffusers.
    return torch.stack([torch.randint(2**27, shape, generator=generator) % limits for generator in generators])


def auto_correlation_gradient(noise: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Return the gradient of each image's summed squared autocorrelation with respect to the noise (B, C, h, w).

    The loss of a channel at a level, of n values x, is m^2 with m = mean(x * roll(x, r)), along height and along width;
    its gradient is 2 m / n (roll(x, r) + roll(x, -r)).

    Args:
        noise: (B, C, h, w).
        shifts: r for each image, channel and level, (B, C, levels).
    """
    levels = [noise]
    while len(levels) < shifts.shape[-1]:
        levels.append(functional.avg_pool2d(levels[-1], 2))
    both = torch.stack((-shifts, shifts), -1).to(noise.device)
    gradient = torch.zeros_like(levels[-1])
    for level in reversed(range(len(levels))):
        x = levels[level]
        height, width = x.shape[2:]
        if level + 1 < len(levels):
            # Each value of the smaller image is the mean of four; an odd row or column is in none.
            spread = functional.interpolate(gradient / 4, scale_factor=2)
            gradient = functional.pad(spread, (0, width - spread.shape[-1], 0, height - spread.shape[-2]))
        rows, columns = (places(both[..., level, :], size) for size in (height, width))
        for dim, index in (
            (2, rows[..., None].expand(*rows.shape, width)),
            (3, columns[:, :, None].expand(-1, -1, height, -1)),
        ):
            ahead, back = x.gather(dim, index).chunk(2, dim)
            mean = (x * ahead).mean((2, 3), keepdim=True)
            gradient = torch.addcmul(gradient, mean * (2 / (height * width)), ahead + back)
    return gradient


def places(shifts: torch.Tensor, size: int) -> torch.Tensor:
    """Return where the values of a line of `size` come from, (B, C, 2 size), rolled by either shift of (B, C, 2)."""
    return ((torch.arange(size, device=shifts.device) + shifts[..., None]) % size).flatten(-2)


def kl_gradient(noise: torch.Tensor) -> torch.Tensor:
    """Return the gradient of each image's var + mean^2 - 1 - log(var) with respect to the noise (B, C, h, w)."""
    count = noise[0].numel()
    var, mean = torch.var_mean(noise, dim=(1, 2, 3), keepdim=True)
    return 2 * (noise - mean) / (count - 1) * (1 - 1 / (var + EPSILON)) + 2 * mean / count
