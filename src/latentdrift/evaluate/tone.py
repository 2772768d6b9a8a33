"""Background level and tint: the two things a drift repairs first, in gray levels of 0..255."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.features.base import to_bytes


def corner_background(images: Any, *, patch: int | None = None) -> float:
    """Return the mean of the four corners over images and channels, 0 (black) to 255.

    Args:
        images: (B, 3, H, W) or (B, 1, H, W), uint8 or float in [-1, 1].
        patch: side of a corner in pixels; None takes a sixteenth of the shorter side (8 pixels of 128).

    Raises:
        EvaluationError: no image, NaN, or a patch larger than half the image.
    """
    data = to_bytes(images)
    if not len(data):
        raise EvaluationError("There is no image to measure the background of.")
    side = min(data.shape[-2:])
    patch = max(1, side // 16) if patch is None else patch
    if not 1 <= patch <= side // 2 and side > 1:
        raise EvaluationError(f"patch={patch} does not fit: give 1 to {side // 2} pixels for images of {side} pixels.")
    ends = [slice(0, patch), slice(-patch, None)]
    corners = [data[..., rows, columns].double().mean() for rows in ends for columns in ends]
    return float(sum(corners) / 4)


def tint(images: Any) -> float:
    """Return the largest deviation of a channel from its pixel's mean over channels, in levels of 255; 0 is gray.

    Arguments and errors as in `corner_background`.
    """
    data = to_bytes(images)
    if not len(data):
        raise EvaluationError("There is no image to measure the tint of.")
    if data.stride(1) == 0:
        return 0.0  # one channel, seen three times
    # In whole numbers, and image by image: a large set of them would not fit into memory. NumPy, because torch would
    # wake all its threads for every one of these small sums.
    return max(_tint(image) for image in data.cpu().numpy())


def _tint(image: npt.NDArray[np.uint8]) -> float:
    levels = image.astype(np.int16)
    return float(np.abs(3 * levels - levels.sum(axis=0, dtype=np.int16)).max()) / 3
