"""How a plane of a scan became the model's square image, and the way back.

A `Placement` is what has to be remembered to put an edit where it belongs: the plane's shape and pixel distance, the
intensity range that was mapped to black and white, and the square it was laid on. The way back carries the *change*,
not the image: pixels that the edit leaves alone keep the very bits they had.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.scan import Plane
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

FITS = ("pad", "crop")

WEIGHT = 1e-6
"""Smaller weights are rounding errors."""


@dataclass(frozen=True)
class Placement:
    """The mapping between a plane and a square image.

    Attributes:
        shape: (H, W) of the plane.
        spacing: (row, column) of the plane, mm.
        size: side of the square image in pixels.
        low: real value shown as black.
        high: real value shown as white.
        inverted: high values are shown dark (MONOCHROME1).
        fit: "pad" shows the whole plane on black; "crop" keeps the central square.
        extent: side of the square in mm; where None, the plane's longer (pad) or shorter (crop) side. The same extent
            for all slices of a cohort keeps heads of different sizes at one scale.
    """

    shape: tuple[int, int]
    spacing: tuple[float, float]
    size: int
    low: float
    high: float
    inverted: bool = False
    fit: str = "pad"
    extent: float | None = None

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise UnknownNameError("fit", self.fit, FITS)
        if not all(side >= 1 for side in self.shape) or not all(np.isfinite(s) and s > 0 for s in self.spacing):
            raise DataError(f"A plane of {self.shape} pixels, {self.spacing} mm apart, cannot be. Repair the header.")
        if not 8 <= self.size <= 4096 or self.size != int(self.size):
            raise ConfigurationError(f"The image size is {self.size}; give a whole number from 8 to 4096.")
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.high > self.low):
            raise DataError(f"The intensity range {self.low:g} to {self.high:g} is empty: is the image constant?")
        if self.extent is not None and not 0 < self.extent < 1e5:
            raise ConfigurationError(f"The extent is {self.extent} mm; it must be above 0.")

    @classmethod
    def of(
        cls, plane: Plane, size: int, low: float, high: float, *, fit: str = "pad", extent: float | None = None
    ) -> Placement:
        """Return the placement of a plane."""
        height, width = plane.pixels.shape
        return cls((height, width), plane.spacing, size, float(low), float(high), plane.inverted, fit, extent)

    @property
    def pixel(self) -> float:
        """Side of a pixel of the square image, mm."""
        sides = [count * step for count, step in zip(self.shape, self.spacing, strict=True)]
        extent = self.extent or (max(sides) if self.fit == "pad" else min(sides))
        return extent / self.size

    def show(self, pixels: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return a plane's real values (H, W) as the square image (size, size), float32 in [0, 1].

        Shrinking averages (each image pixel is the mean over its area), enlarging interpolates.

        Raises:
            DataError: a plane of another shape, or with values that are not finite.
        """
        if pixels.shape != self.shape:
            raise DataError(f"The plane has the shape {pixels.shape}; this placement is of {self.shape}.")
        _check_finite("plane", pixels)
        unit = pixels.astype(np.float32)  # a copy, changed in place: planes of radiographs are large
        unit -= self.low
        unit /= self.high - self.low
        np.clip(unit, 0, 1, out=unit)
        if self.inverted:
            np.subtract(1, unit, out=unit)
        rows, columns = self._weights(0), self._weights(1)
        return np.clip(rows @ unit @ columns.T, 0, 1).astype(np.float32)

    def bring_back(self, change: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return a change of the square image (size, size; differences of values in [0, 1]) in the plane's real units.

        The result is (H, W) float32, interpolated linearly, and exactly 0 wherever the change around it is 0 and
        outside the square. Taken as it is, it does not undo `show`: what is finer than the coarser of both grids is
        lost, and interpolation smooths what is almost as fine.

        Raises:
            DataError: a change of another shape, or with values that are not finite.
        """
        if change.shape != (self.size, self.size):
            raise DataError(f"The change has the shape {change.shape}; the image is {self.size} x {self.size}.")
        _check_finite("change", change)
        rows, columns = self._back(0), self._back(1)
        found = rows @ change.astype(np.float32) @ columns.T * np.float32(self.high - self.low)
        return (-found if self.inverted else found).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Placement:
        """Return what `to_dict` wrote.

        Raises:
            DataError: fields are missing or of another kind.
        """
        try:
            height, width = (int(side) for side in found["shape"])
            down, right = (float(step) for step in found["spacing"])
            rest = {name: found[name] for name in ("size", "low", "high", "inverted", "fit", "extent")}
            return cls((height, width), (down, right), **rest)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"This is no placement of a slice ({error!r}). Prepare the scan again.") from error

    def _edges(self, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the edges (mm from the middle) of the plane's pixels and of the image's, along an axis."""
        count, step, pixel = self.shape[axis], self.spacing[axis], self.pixel
        middle = count / 2
        if (count - self.size) % 2 and abs(pixel - step) < 1e-6 * step:
            # Equal pixels, one number odd: centred exactly, every pixel would be the mean of two. Half a pixel aside,
            # they are copied.
            middle += 0.5
            pixel = step
        plane: NDArray[np.float64] = (np.arange(count + 1, dtype=np.float64) - middle) * step
        image: NDArray[np.float64] = (np.arange(self.size + 1, dtype=np.float64) - self.size / 2) * pixel
        return plane, image

    def _weights(self, axis: int) -> NDArray[np.float32]:
        """Return (size, count): how much each pixel of the plane adds to each of the image."""
        plane, image = self._edges(axis)
        step = self.spacing[axis]
        if self.pixel >= step:
            overlap = np.minimum(image[1:, None], plane[None, 1:]) - np.maximum(image[:-1, None], plane[None, :-1])
            return _rounded(overlap / self.pixel)
        return _linear((image[1:] + image[:-1]) / 2, (plane[1:] + plane[:-1]) / 2, step, plane)

    def _back(self, axis: int) -> NDArray[np.float32]:
        """Return (count, size): how much each pixel of the image adds to each of the plane."""
        plane, image = self._edges(axis)
        return _linear((plane[1:] + plane[:-1]) / 2, (image[1:] + image[:-1]) / 2, self.pixel, image)


def _linear(
    at: NDArray[np.float64], knots: NDArray[np.float64], step: float, edges: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the weights (at, knots) of linear interpolation; constant to the outer edges, zero beyond them."""
    held = np.clip(at, knots[0], knots[-1])
    weights = np.clip(1 - np.abs(held[:, None] - knots[None]) / step, 0, 1)
    inside = (at >= edges[0] - 1e-9) & (at <= edges[-1] + 1e-9)
    return _rounded(weights * inside[:, None])


def _rounded(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return weights without rounding errors: a change must not leak to neighbours by 1e-16, nor 1 become 1 - 1e-16."""
    near = np.where(np.abs(weights - 1) < WEIGHT, 1.0, weights)
    return np.where(near < WEIGHT, 0.0, near).astype(np.float32)


def _check_finite(kind: str, values: NDArray[np.floating[Any]]) -> None:
    if not np.isfinite(values).all():
        raise DataError(f"The {kind} holds NaN or infinite values, which would spread. Repair it first.")
