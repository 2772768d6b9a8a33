"""Photographs in memory, random training crops, and the held-out set.

The base model sees nothing but photographs, so that going to medical images is a real change of domain.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image

HELD_OUT_EVERY = 15
"""Every 15th photograph, in order of file name, is never trained on."""


def read_photographs(folder: Path, short_side: int = 176) -> tuple[list[torch.Tensor], list[str], list[str]]:
    """Return images (uint8, (3, H, W), short side `short_side` pixels), captions and file names, sorted by name."""
    table = pd.read_csv(folder / "metadata.csv").sort_values("file_name")
    images = []
    for name in table["file_name"]:
        with Image.open(folder / name) as file:
            image = file.convert("RGB")
        scale = short_side / min(image.size)
        if scale != 1:
            width, height = (max(short_side, round(side * scale)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous())
    return images, table["caption"].tolist(), table["file_name"].tolist()


def split(count: int) -> tuple[list[int], list[int]]:
    """Return the indices to train on and the indices held out."""
    held_out = list(range(0, count, HELD_OUT_EVERY))
    return [i for i in range(count) if i % HELD_OUT_EVERY], held_out


def centre_square(image: torch.Tensor, size: int) -> torch.Tensor:
    """Return the central square of a uint8 (3, H, W) image at `size` pixels, as float32 in [-1, 1]."""
    side = min(image.shape[1:])
    top, left = (image.shape[1] - side) // 2, (image.shape[2] - side) // 2
    square = image[None, :, top : top + side, left : left + side].float()
    square = F.interpolate(square, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return (square[0].clamp(0, 255) / 127.5) - 1


def random_crop(image: torch.Tensor, size: int, zoom: tuple[float, float], rng: np.random.Generator) -> torch.Tensor:
    """Return a random square of a uint8 (3, H, W) image, `size` pixels wide, float32 in [-1, 1].

    `zoom` bounds the side of the square in the source, in multiples of `size`.
    """
    side = min(round(size * rng.uniform(*zoom)), *image.shape[1:])
    top = rng.integers(0, image.shape[1] - side + 1)
    left = rng.integers(0, image.shape[2] - side + 1)
    crop = image[None, :, top : top + side, left : left + side].float()
    if side != size:
        crop = F.interpolate(crop, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    if rng.random() < 0.5:
        crop = crop.flip(-1)
    return (crop[0].clamp(0, 255) / 127.5) - 1


def change_tones(crop: torch.Tensor, rng: np.random.Generator, wide: bool) -> torch.Tensor:
    """Return the crop with random contrast, sometimes in gray, sometimes with a flat black or white part.

    Scanners and radiographs hold flat black and saturated white next to each other; photographs seldom do.
    `wide` makes gray and changed contrast twice as frequent.
    """
    if rng.random() < (0.25 if wide else 0.125):
        weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
        crop = (crop * weights).sum(0, keepdim=True).expand(3, -1, -1)
    if rng.random() < (0.5 if wide else 0.25):
        crop = crop * rng.uniform(0.6, 1.6) + rng.uniform(-0.5, 0.5)
    if rng.random() < 0.2:
        crop = crop.clone()
        half = crop.shape[-1] // 2
        h, w = rng.integers(4, half + 1, size=2)
        top, left = rng.integers(0, crop.shape[-2] - h + 1), rng.integers(0, crop.shape[-1] - w + 1)
        crop[:, top : top + h, left : left + w] = -1.0 if rng.random() < 0.8 else 1.0
    return crop.clamp(-1, 1)
