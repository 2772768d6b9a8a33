"""Latents computed once, drawn anew at every step.

The autoencoder's posterior of an image does not change in training, so its mean and deviation are computed once and a
latent is drawn from them at each step, as encoding anew would. Rows belong to samples, never to steps (diffusers issue
14430 is what happens otherwise). The file is memory-mapped, so memory stays bounded however large the cohort is; its
name is a hash of the images' contents, the autoencoder's weights, the transform and the augmentation, so it is never
used after any of them has changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from latentdrift.errors import TrainingError
from latentdrift.finetune.augment import Augmentation, draw_key
from latentdrift.models import pipeline_fingerprint

if TYPE_CHECKING:
    from latentdrift.data import Cohort, ImageTransform


class LatentCache:
    """Posterior mean and deviation of every image of a cohort.

    Args:
        path: a .npy file of float32, (N, views, 2, C, h, w); the first view is the image itself, the others are those
            of an `Augmentation`.
        scaling_factor: the autoencoder's; drawn latents are multiplied by it.
        shift_factor: the autoencoder's; subtracted before scaling.
    """

    def __init__(self, path: Path, scaling_factor: float, shift_factor: float = 0.0) -> None:
        self.path, self.scaling_factor, self.shift_factor = path, scaling_factor, shift_factor
        self._rows = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of a latent."""
        channels, height, width = self._rows.shape[3:]
        return channels, height, width

    def draw(self, indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return scaled latents (B, C, h, w) of the samples `indices`, drawn from the posteriors of random views."""
        return self._draw(indices, self._draw_views(len(indices), generator), generator)

    def draw_pairs(
        self, sources: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what an editing model learns from: latents to be denoised, and the images they are edits of.

        Args:
            sources: samples before the edit, (B,).
            targets: samples after the edit, (B,).
            generator: of the views and of the targets' draws.

        Returns:
            Scaled latents of the targets drawn from their posteriors, and the sources' means as `modes` returns them,
            both (B, C, h, w). The two of a pair are of the same view; the same draw where `draw_key` is the same.
        """
        views = self._draw_views(len(targets), generator)
        modes = torch.from_numpy(self._rows[sources.numpy(), views.numpy(), 0])
        return self._draw(targets, views, generator), modes

    def modes(self, indices: torch.Tensor) -> torch.Tensor:
        """Return the posterior means (B, C, h, w) of the images themselves, neither shifted nor scaled.

        InstructPix2Pix (arXiv 2211.09800) conditions on the mode as the encoder gives it, and diffusers' pipelines of
        that name do the same.
        """
        return torch.from_numpy(self._rows[indices.numpy(), 0, 0])

    def _draw_views(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randint(self._rows.shape[1], (count,), generator=generator)

    def _draw(self, indices: torch.Tensor, views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        rows = torch.from_numpy(self._rows[indices.numpy(), views.numpy()])
        noise = torch.randn(rows[:, 0].shape, generator=generator)
        return (rows[:, 0] + rows[:, 1] * noise - self.shift_factor) * self.scaling_factor

    def means(self, batch_size: int = 256, *, indices: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
        """Yield the scaled posterior means in batches (B, C, h, w), each view of each sample once.

        Args:
            batch_size: means at once.
            indices: samples (N,), as often as they stand there; every sample once by default.
        """
        step = max(1, batch_size // self._rows.shape[1])
        chosen = np.arange(len(self)) if indices is None else indices.numpy()
        for start in range(0, len(chosen), step):
            rows = torch.from_numpy(self._rows[chosen[start : start + step], :, 0]).flatten(0, 1)
            yield (rows - self.shift_factor) * self.scaling_factor

    @classmethod
    def build(
        cls,
        cohort: Cohort,
        transform: ImageTransform,
        vae: Any,
        folder: Path,
        *,
        augmentation: Augmentation | None = None,
        batch_size: int = 16,
        progress: Callable[[int, int], None] | None = None,
    ) -> LatentCache:
        """Return the cache of a cohort, computed if `folder` does not hold it.

        Args:
            cohort: the images.
            transform: brings a file to (3, H, W) in [-1, 1].
            vae: the autoencoder, an AutoencoderKL.
            folder: where caches are kept.
            augmentation: the views kept of an image; only itself by default.
            batch_size: images and views encoded at once.
            progress: called with the numbers of images done and in all.

        Raises:
            DataError: an image cannot be read; the message names it.
            TrainingError: the disk is full; nothing half-written is left.
        """
        augmentation = augmentation or Augmentation()
        key = hashlib.sha256()
        # The decoder has no part in a posterior: a model whose decoder alone differs shares the cache.
        for part in ("encoder", "quant_conv"):
            if getattr(vae, part, None) is not None:
                key.update(pipeline_fingerprint(getattr(vae, part)).encode())
        key.update(f"{transform.fingerprint()} {augmentation.fingerprint()}".encode())
        for record in cohort:
            key.update(record.content_hash().encode())
        path = folder / f"latents-{key.hexdigest()[:24]}.npy"
        scaling, shift = vae.config.scaling_factor, vae.config.shift_factor or 0.0
        if is_whole(path, len(cohort)):
            if progress is not None:
                progress(len(cohort), len(cohort))
        else:
            encode_cohort(cohort, transform, vae, path, augmentation, batch_size, progress)
        return cls(path, scaling, shift)


def is_whole(path: Path, count: int) -> bool:
    """Tell whether `path` holds the latents of `count` samples."""
    try:
        return len(np.load(path, mmap_mode="r")) == count
    except (OSError, ValueError):
        return False


@torch.no_grad()
def encode_cohort(
    cohort: Cohort,
    transform: ImageTransform,
    vae: Any,
    path: Path,
    augmentation: Augmentation,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the posteriors of a cohort to `path`, whole or not at all."""
    # Two runs on the same cohort may encode it at the same time.
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            step = max(1, batch_size // len(augmentation))
            for start in range(0, len(cohort), step):
                views = [augmentation.views(transform.read(r.image), draw_key(r)) for r in cohort[start : start + step]]
                encoded = posteriors(vae, torch.cat(views), batch_size)
                block = encoded.unflatten(0, (len(views), len(augmentation))).cpu().numpy()
                if start == 0:
                    header = {"descr": "<f4", "fortran_order": False, "shape": (len(cohort), *block.shape[1:])}
                    np.lib.format.write_array_header_1_0(file, header)
                # Written, not mapped: writing to a mapped file on a full disk kills the process without a word.
                file.write(np.ascontiguousarray(block, dtype="<f4").tobytes())
                if progress is not None:
                    progress(start + len(views), len(cohort))
        partial.replace(path)
    except OSError as error:
        raise TrainingError(
            f"The latents cannot be kept in {path.parent}: {error}. Free space, or choose another --cache folder."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def posteriors(vae: Any, images: torch.Tensor, most: int) -> torch.Tensor:
    """Return the posterior mean and deviation of images, (B, 2, C, h, w), float32; at most `most` encoded at once."""
    # On a processor a few images at once are a third faster than many: their activations stay in its cache.
    few = 4 if vae.device.type == "cpu" else most
    found = [vae.encode(part.to(vae.device, vae.dtype)).latent_dist for part in images.split(few)]
    return torch.cat([torch.stack([p.mean, p.std], 1) for p in found]).float()
