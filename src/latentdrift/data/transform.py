"""Image files to the square tensors that models train on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.images import is_gray, read_array
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

if TYPE_CHECKING:
    import torch

FITS = ("pad", "crop")
VERSION = 1
"""Raised whenever the same settings give other pixels, so that caches of encoded images are not reused."""


@dataclass(frozen=True)
class ImageTransform:
    """Make images square without distortion.

    Attributes:
        size: pixels of a side.
        fit: "pad" shows the whole image and fills the rest with black; "crop" keeps the central square.
    """

    size: int = 128
    fit: str = "pad"

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise UnknownNameError("fit", self.fit, FITS)
        if not isinstance(self.size, int) or not 8 <= self.size <= 4096:
            raise ConfigurationError(f"The image size is {self.size!r}; give a whole number from 8 to 4096.")

    def read(self, path: str | Path) -> torch.Tensor:
        """Return the image as float32 (3, size, size) in [-1, 1]; a grayscale file gives three equal channels.

        Raises:
            DataError: the file is missing or damaged; the message names it.
        """
        return self._square(read_array(Path(path)))

    def from_array(self, array: NDArray[Any]) -> torch.Tensor:
        """Return pixels (H, W) or (H, W, 1 | 3) as `read` would: uint8, uint16, or floating point in [0, 1].

        Raises:
            DataError: another shape or type, or values out of range.
        """
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)) or 0 in array.shape:
            raise DataError(f"An image array has the shape (H, W), (H, W, 1) or (H, W, 3), not {array.shape}.")
        if array.dtype == np.uint8 or array.dtype == np.uint16:
            pixels = array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
        elif np.issubdtype(array.dtype, np.floating):
            pixels = array.astype(np.float32)
            if not (pixels.min() >= 0 and pixels.max() <= 1):
                raise DataError(f"Image values go from {pixels.min():g} to {pixels.max():g}; scale them to 0 to 1.")
        else:
            raise DataError(f"Image arrays are uint8, uint16 or floating point, not {array.dtype}.")
        return self._square(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)

    def is_gray(self, path: str | Path) -> bool:
        """Tell whether the image has no colour, whatever the file's number of channels."""
        return is_gray(Path(path))

    def fingerprint(self) -> str:
        """Return 16 hex digits that change with any setting, for the keys of caches."""
        settings = json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(settings.encode()).hexdigest()[:16]

    def _square(self, pixels: NDArray[np.float32]) -> torch.Tensor:
        import torch
        import torch.nn.functional as F

        image = torch.from_numpy(pixels)
        image = image[None] if image.ndim == 2 else image.permute(2, 0, 1)
        height, width = image.shape[1:]
        if self.fit == "crop":
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            image = image[:, top : top + side, left : left + side]
        height, width = image.shape[1:]
        scale = self.size / max(height, width)
        new = (max(1, round(height * scale)), max(1, round(width * scale)))
        if new != (height, width):
            image = F.interpolate(image[None], size=new, mode="bilinear", antialias=True, align_corners=False)[0]
        below, right = self.size - new[0], self.size - new[1]
        image = F.pad(image, (right // 2, right - right // 2, below // 2, below - below // 2))
        return (image.clamp(0, 1) * 2 - 1).expand(3, -1, -1).contiguous()
