"""Autoencoders that overflow in half precision, in single precision while they work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def upcast_autoencoder(pipeline: Any) -> Iterator[Any]:
    """Within the block a pipeline's autoencoder, which is yielded, has a precision that it does not overflow in.

    Stable Diffusion XL's own has activations beyond float16's largest number: images come out black or not at all. Its
    configuration says so by `force_upcast`. As in diffusers' pipelines it is obeyed for XL alone, since the setting is
    true by default and the autoencoders of Stable Diffusion 1 and 2 do without, and the weights are put back after: the
    same pipelines take them for as precise as the U-Net. Half precision comes back from single bit for bit.
    """
    vae = pipeline.vae
    xl = getattr(pipeline, "text_encoder_2", None) is not None
    if not (xl and vae.dtype == torch.float16 and vae.config.force_upcast):
        yield vae
        return
    # Not the model's own `to`, which warns of any change of precision.
    torch.nn.Module.to(vae, torch.float32)
    try:
        yield vae
    finally:
        torch.nn.Module.to(vae, torch.float16)
