"""What an edit made of a batch, and what the method itself changed."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class EditResult:
    """Edited images, and what to judge them by; images are (N, 3, H, W) in [-1, 1], float32 on the CPU."""

    source: torch.Tensor
    """The images that came in."""
    image: torch.Tensor
    """The edited images; outside a mask the source's own pixels."""
    latents: torch.Tensor
    """The edited latents, (N, C, h, w), scaled, where and as the model has them."""
    reconstruction: torch.Tensor | None
    """The same way down under the images' own captions, of the whole image; None where it was not made."""
    source_captions: tuple[str, ...]
    """What the images show."""
    target_captions: tuple[str, ...]
    """What was asked for."""
    mask: torch.Tensor | None = None
    """Where the edit was allowed to act, (N, 1, H, W)."""

    @property
    def counterfactual(self) -> torch.Tensor:
        """The edited images, (N, 3, H, W): what the sources would look like under the wanted captions."""
        return self.image

    @property
    def round_trip_l1(self) -> torch.Tensor | None:
        """Mean absolute difference of reconstruction and source, (N,), in levels of 0 to 255."""
        error = self._round_trip()
        return None if error is None else error.abs().mean((1, 2, 3))

    @property
    def round_trip_psnr(self) -> torch.Tensor | None:
        """The same as peak signal-to-noise ratio, (N,), in dB."""
        error = self._round_trip()
        return None if error is None else 20 * torch.log10(255 / error.pow(2).mean((1, 2, 3)).sqrt().clamp(min=1e-6))

    @property
    def effect(self) -> torch.Tensor:
        """The edit without the error of the round trip, (N, 3, H, W): image minus reconstruction, or minus source.

        Outside the mask it is 0.
        """
        base = self.source if self.reconstruction is None else self.reconstruction
        effect = self.image - base
        return effect if self.mask is None else torch.where(self.mask.cpu() > 0, effect, torch.zeros_like(effect))

    def composed(self) -> torch.Tensor:
        """Return source plus effect: the edit with every detail that the round trip lost put back, in [-1, 1]."""
        return (self.source + self.effect).clamp(-1, 1)

    def _round_trip(self) -> torch.Tensor | None:
        return None if self.reconstruction is None else (self.reconstruction - self.source) * 127.5
