"""Prompts → what the U-Net is conditioned on, for Stable Diffusion 1.x, 2.x and XL alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class Conditioning:
    """What the U-Net is told beside the latent and the timestep.

    Args:
        hidden: text states, (B, tokens, width).
        pooled: pooled text states, (B, width), of Stable Diffusion XL only.
        times: size conditioning, (B, 6), of Stable Diffusion XL only.
    """

    hidden: torch.Tensor
    pooled: torch.Tensor | None = None
    times: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, index: Any) -> Conditioning:
        pooled, times = (None if t is None else t[index] for t in (self.pooled, self.times))
        return Conditioning(self.hidden[index], pooled, times)

    def to(self, device: torch.device | str) -> Conditioning:
        """Return the same on another device."""
        pooled, times = (None if t is None else t.to(device) for t in (self.pooled, self.times))
        return Conditioning(self.hidden.to(device), pooled, times)

    @classmethod
    def stack(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """Return several conditionings, one after the other, as one batch."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        times = [part.times for part in parts if part.times is not None]
        return cls(
            torch.cat([part.hidden for part in parts]),
            torch.cat(pooled) if pooled else None,
            torch.cat(times) if times else None,
        )

    def unet_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of `UNet2DConditionModel.forward`."""
        arguments: dict[str, Any] = {"encoder_hidden_states": self.hidden}
        if self.pooled is not None:
            arguments["added_cond_kwargs"] = {"text_embeds": self.pooled, "time_ids": self.times}
        return arguments


@torch.no_grad()
def encode_prompts(pipeline: DiffusionPipeline, prompts: Sequence[str], size: int | None = None) -> Conditioning:
    """Return the conditioning of `prompts`, each distinct prompt encoded once.

    Args:
        pipeline: a Stable Diffusion pipeline.
        prompts: one prompt an image; "" is the unconditional one, which Stable Diffusion XL has as zeros if its
            configuration says so.
        size: side of the images in pixels, which Stable Diffusion XL is told; the model's own by default.

    Raises:
        DataError: a prompt has more tokens than the tokenizer takes.
    """
    from latentdrift.data import check_caption_length

    distinct = list(dict.fromkeys(prompts))
    for prompt in distinct:
        check_caption_length(prompt, pipeline.tokenizer)
    device = pipeline.unet.device
    pooled = times = None
    if hasattr(pipeline, "text_encoder_2"):
        hidden, _, pooled, _ = pipeline.encode_prompt(
            distinct, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        if pipeline.config.get("force_zeros_for_empty_prompt") and "" in distinct:
            empty = distinct.index("")
            hidden[empty], pooled[empty] = 0.0, 0.0
        size = size or pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        times = torch.tensor([[size, size, 0, 0, size, size]], device=device, dtype=hidden.dtype).repeat(
            len(prompts), 1
        )
    else:
        hidden, _ = pipeline.encode_prompt(distinct, device, 1, False)
    rows = torch.tensor([distinct.index(prompt) for prompt in prompts], device=device)
    return Conditioning(hidden[rows], None if pooled is None else pooled[rows], times)
