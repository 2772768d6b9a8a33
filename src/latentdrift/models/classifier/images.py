"""A part's images, read once and kept as bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch

from latentdrift.data import Cohort, ImageTransform
from latentdrift.models.classifier.classes import ClassScheme
from latentdrift.models.classifier.classifier import to_side
from latentdrift.models.loading import load_pipeline

Tell = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

AT_ONCE = 32
"""Images read, or put through an autoencoder, at once."""


@dataclass(frozen=True)
class ImageSet:
    """N images of known classes.

    Args:
        pixels: uint8 (N, C, size, size).
        truth: classes, (N,).
        subjects: whose image each is, N; the file where that is not known.
        copies: the images as an autoencoder gives them back, like `pixels`; or None.
    """

    pixels: torch.Tensor
    truth: torch.Tensor
    subjects: tuple[str, ...]
    copies: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.truth)

    def drawn(self, indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return images (B, C, size, size) in [-1, 1]; half of them, at random, as the autoencoder gives them back."""
        pixels = self.pixels[indices]
        if self.copies is not None:
            other = torch.rand(len(indices), generator=generator) < 0.5
            pixels[other] = self.copies[indices[other]]
        return to_floats(pixels)

    def logits(
        self, network: Callable[[torch.Tensor], torch.Tensor], batch_size: int = 64, copies: bool = False
    ) -> npt.NDArray[np.float64]:
        """Return what a network says of all images, or of all copies, (N, K), without gradients."""
        pixels = self.copies if copies else self.pixels
        assert pixels is not None, "asked for copies of a set without"
        with torch.no_grad():
            parts = [network(to_floats(batch)).double().cpu() for batch in pixels.split(batch_size)]
        return torch.cat(parts).numpy()


@dataclass(frozen=True)
class Autoencoder:
    """A diffusion model's autoencoder, and the side in pixels of the images it is used at."""

    vae: Any
    size: int

    @classmethod
    def load(cls, name: str | Path, device: torch.device) -> Autoencoder:
        """Return that of a model by name; errors as `load_pipeline`."""
        pipeline = load_pipeline(name, device=device, dtype=torch.float32)
        return cls(pipeline.vae, pipeline.unet.config.sample_size * pipeline.vae_scale_factor)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return images (B, 3, size, size) in [-1, 1] as the autoencoder gives them back, on the CPU."""
        latents = self.vae.encode(images.to(self.vae.device, self.vae.dtype)).latent_dist.mean
        return self.vae.decode(latents).sample.clamp(-1, 1).float().cpu()


def read_images(
    cohort: Cohort,
    scheme: ClassScheme,
    *,
    size: int,
    gray: bool,
    autoencoder: Autoencoder | None = None,
    tell: Callable[[int, int], None] = lambda *_: None,
) -> ImageSet:
    """Read every image of a cohort, all of them of a class.

    Raises:
        DataError: an image cannot be read; the message names it.
        UnknownNameError: an image of no class.
    """
    shape = (len(cohort), 1 if gray else 3, size, size)
    pixels, copies = room(shape), None if autoencoder is None else room(shape)
    own, other = ImageTransform(size=size), ImageTransform(size=size if autoencoder is None else autoencoder.size)
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(cohort), AT_ONCE):
            files = [record.image for record in cohort[start : start + AT_ONCE]]
            part = slice(start, start + len(files))
            images = torch.stack(list(pool.map(own.read, files)))
            pixels[part] = to_bytes(images, gray)
            if autoencoder is not None and copies is not None:
                if other.size != size:
                    images = torch.stack(list(pool.map(other.read, files)))
                copies[part] = to_bytes(to_side(autoencoder(images), size), gray)
            tell(start + len(files), len(cohort))
    truth = [scheme.index(value) for value in cohort.values(scheme.attribute)]
    subjects = tuple(record.subject or record.key for record in cohort)
    return ImageSet(pixels, torch.tensor(truth), subjects, copies)


def room(shape: Sequence[int]) -> torch.Tensor:
    """Return an empty uint8 tensor: in memory where it takes at most half of what is free, else in a file that goes."""
    if np.prod(shape, dtype=np.float64) <= psutil.virtual_memory().available / 2:
        return torch.empty(tuple(shape), dtype=torch.uint8)
    return torch.from_numpy(np.memmap(tempfile.TemporaryFile(), dtype=np.uint8, mode="w+", shape=tuple(shape)))


def to_bytes(images: torch.Tensor, gray: bool) -> torch.Tensor:
    """Return images (B, 3, H, W) in [-1, 1] as uint8 (B, 1 | 3, H, W)."""
    images = images.mean(1, keepdim=True) if gray else images
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_floats(pixels: torch.Tensor) -> torch.Tensor:
    """Return uint8 images in [-1, 1]."""
    return pixels.float() / 127.5 - 1
