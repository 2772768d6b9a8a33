"""What all cases of the benchmark of editing share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

BEFORE = "a brain MRI slice, non demented"
WISHES = (
    "a brain MRI slice, mild demented",
    "a brain MRI slice, very mild demented",
    "a brain MRI slice, moderate demented",
    "a brain MRI slice, aged 60",
    "a brain MRI slice, aged 70",
    "a brain MRI slice, aged 80",
    "a brain MRI slice, male",
    "a brain MRI slice, female",
)
DRIFTS = (-0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2)
"""The paper's range of δ, in standard deviations of the noise."""


@dataclass(frozen=True)
class Setting:
    """What is the same for all cases.

    Attributes:
        base: an embedded model's name or a Stable Diffusion folder.
        image: file of the image tensor, (1, 3, H, W) in [-1, 1].
        steps: DDIM steps each way.
        guidance: above 1: diffusers' pipeline edits nothing without.
    """

    base: str
    image: str
    steps: int
    guidance: float = 2.0


Work = Callable[[], torch.Tensor]
"""Returns images (N, 3, H, W) in [-1, 1], float32 on the CPU."""
