"""Images as they are compared: gray pixels, features, and who they show."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError

if TYPE_CHECKING:
    from latentdrift.evaluate.features import FeatureExtractor, Progress


@dataclass(frozen=True)
class Looks:
    """What N images are compared by, in order."""

    pixels: npt.NDArray[np.uint8]
    """Gray, (N, H, W), 0 to 255."""
    features: npt.NDArray[np.float32] | None = None
    """Of a network, (N, d); None where features are not compared."""
    names: Sequence[str] = ()
    """What an image is called in tables; its number where there are none."""
    subjects: Sequence[str | None] = ()
    """Who it shows, None where that is not known; () knows nobody."""

    def __post_init__(self) -> None:
        count = len(self.pixels)
        if self.pixels.ndim != 3 or self.pixels.dtype != np.uint8 or not count:
            raise EvaluationError(
                f"Pixels have shape {self.pixels.shape} and type {self.pixels.dtype}; give gray uint8 (N, H, W), N at "
                "least 1."
            )
        if self.features is not None:
            if self.features.ndim != 2 or len(self.features) != count:
                raise EvaluationError(f"Features have shape {self.features.shape}; give (N, d) with N = {count}.")
            bad = np.flatnonzero(~np.isfinite(self.features).all(axis=1))
            if bad.size:
                raise EvaluationError(
                    f"{bad.size} image(s) have NaN or infinite features, the first is {self.name(int(bad[0]))}. Leave "
                    "them out."
                )
        for what, given in (("names", self.names), ("subjects", self.subjects)):
            if len(given) not in (0, count):
                raise EvaluationError(f"{len(given)} {what} for {count} images; give one an image.")

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        """Return what image `index` is called."""
        return self.names[index] if self.names else f"image {index}"

    def people(self) -> list[Hashable]:
        """Return who each image shows; an image of nobody known stands for itself."""
        known = list(self.subjects) or [None] * len(self)
        return [("unknown", self.name(i)) if who is None else who for i, who in enumerate(known)]

    def part(self, indices: npt.NDArray[np.intp]) -> Looks:
        """Return some of the images."""
        return Looks(
            self.pixels[indices],
            None if self.features is None else self.features[indices],
            [self.names[i] for i in indices] if self.names else (),
            [self.subjects[i] for i in indices] if self.subjects else (),
        )

    def flat(self) -> npt.NDArray[np.uint8]:
        """Return the pixels as vectors, (N, H W)."""
        return self.pixels.reshape(len(self), -1)


def read_looks(
    files: Sequence[Path],
    size: int,
    extractor: FeatureExtractor | None = None,
    *,
    names: Sequence[str] = (),
    subjects: Sequence[str | None] = (),
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Looks:
    """Return the looks of image files, each shown whole in a square of `size` pixels.

    Args:
        files: the images.
        size: side in pixels at which they are compared.
        extractor: a loaded feature extractor, or None to compare pixels alone.
        names: see `Looks`.
        subjects: see `Looks`.
        batch_size: images read and computed at once.
        progress: called with (images done, images in all).

    Raises:
        DataError: a file that cannot be read.
        EvaluationError: no file, or features that are not finite.
    """
    import torch

    from latentdrift.data import ImageTransform
    from latentdrift.evaluate.features import to_bytes

    if not files:
        raise EvaluationError("There are no images to compare. Check the folder and the split.")
    transform = ImageTransform(size=size)
    pixels, features = np.empty((len(files), size, size), dtype=np.uint8), []
    for start in range(0, len(files), batch_size):
        part = files[start : start + batch_size]
        batch = to_bytes(torch.stack([transform.read(path) for path in part]))
        pixels[start : start + len(part)] = batch.float().mean(dim=1).round().to(torch.uint8).numpy()
        if extractor is not None:
            features.append(extractor(batch, batch_size=batch_size))
        if progress:
            progress(start + len(part), len(files))
    return Looks(pixels, np.concatenate(features) if features else None, names, subjects)
