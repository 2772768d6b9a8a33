"""What training must compute, counted in floating-point operations, and the ceiling that sets for a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count(work: Callable[[], Any]) -> float:
    """Return the operations of `work` in GFLOP (a multiply-add is two); fused attention is unfolded to be counted."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def training_operations(pipeline: DiffusionPipeline) -> dict[str, float]:
    """Return GFLOP an image: U-Net forward, U-Net forward and backward, VAE encoding, text encoder(s)."""
    from latentdrift.models import encode_prompts

    unet, device = pipeline.unet, pipeline.unet.device
    side = unet.config.sample_size
    latent = torch.randn(1, unet.config.in_channels, side, side, device=device)
    pixels = torch.randn(1, 3, side * pipeline.vae_scale_factor, side * pipeline.vae_scale_factor, device=device)
    timestep = torch.tensor([500], device=device)
    conditioning = encode_prompts(pipeline, ["a brain MRI slice"])

    def predict() -> torch.Tensor:
        return unet(latent, timestep, **conditioning.unet_arguments()).sample

    def train() -> None:
        unet.requires_grad_(True)
        predict().mean().backward()
        unet.zero_grad(set_to_none=True)

    def encode() -> None:
        pipeline.vae.encode(pixels)

    with torch.no_grad():
        found = {
            "unet_forward": count(predict),
            "vae_encode": count(encode),
            "text": count(lambda: encode_prompts(pipeline, ["a brain MRI slice"])),
        }
    return found | {"unet_forward_backward": count(train)}


def ceiling(cost: dict[str, float], drawn: int, encoded: int, captions: int) -> dict[str, float]:
    """Return what counting operations allows.

    Args:
        cost: cost of one image by part, GFLOP or seconds: `unet_forward_backward`, `vae_encode`, `text`.
        drawn: images drawn over the training (steps times batch size), each encoded anew by the reference.
        encoded: images that a cache encodes once.
        captions: distinct captions that a cache encodes once.

    Returns:
        `ratio`: cost with a cache over cost without; `limit`: the same for endless training.
    """
    every = cost["unet_forward_backward"] + cost["vae_encode"] + cost["text"]
    cached = drawn * cost["unet_forward_backward"] + encoded * cost["vae_encode"] + captions * cost["text"]
    return {"ratio": cached / (drawn * every), "limit": cost["unet_forward_backward"] / every}
