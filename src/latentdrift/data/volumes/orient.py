"""Which way a volume's axes point: right, anterior, superior, or their opposites. Nothing is resampled."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.scan import Volume
from latentdrift.errors import DataError

POSITIVE, NEGATIVE = "RAS", "LPI"


def voxel_spacing(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (3,) the distances of neighbouring voxels along the array's axes, mm."""
    spacing: NDArray[np.float64] = np.linalg.norm(affine[:3, :3], axis=0)
    return spacing


def closest_axes(affine: NDArray[np.float64]) -> tuple[tuple[int, bool], tuple[int, bool], tuple[int, bool]]:
    """Return for right, anterior and superior: the array axis closest to it, and whether that axis points against it.

    The rotation closest to the affine (polar decomposition) decides, so shear and unequal spacing do not; each axis is
    used once. Ties, at 45 degrees, go to the first.

    Raises:
        DataError: a singular affine.
    """
    directions = affine[:3, :3] / voxel_spacing(affine)
    left, singular, right = np.linalg.svd(directions)
    if not np.isfinite(singular).all() or singular[-1] < 1e-6:
        raise DataError("The affine of the volume is singular: a voxel has no volume. Repair the header.")
    cosines = left @ right
    found: dict[int, tuple[int, bool]] = {}
    free = list(range(3))
    # The world axis whose best array axis is closest goes first.
    strength = np.round(np.abs(cosines), 9)
    for _ in range(3):
        world, axis = max(
            ((w, a) for w in range(3) if w not in found for a in free), key=lambda pair: (strength[pair], -sum(pair))
        )
        found[world] = (axis, bool(cosines[world, axis] < 0))
        free.remove(axis)
    return found[0], found[1], found[2]


def axis_codes(affine: NDArray[np.float64]) -> str:
    """Return where the array's axes point to, such as "RAS" or "LPS"."""
    codes = [""] * 3
    for world, (axis, against) in enumerate(closest_axes(affine)):
        codes[axis] = (NEGATIVE if against else POSITIVE)[world]
    return "".join(codes)


def tilt_degrees(affine: NDArray[np.float64]) -> float:
    """Return the largest angle between an axis of the array and the axis of the body it is closest to, degrees."""
    directions = affine[:3, :3] / voxel_spacing(affine)
    cosines = [abs(float(directions[world, axis])) for world, (axis, _) in enumerate(closest_axes(affine))]
    return math.degrees(math.acos(min(1.0, min(cosines))))


def to_ras(volume: Volume) -> Volume:
    """Return the volume with its axes reordered and turned to right, anterior, superior as nearly as voxels allow.

    Voxels are a view of the same memory, and every voxel keeps its place in the world.
    """
    axes = closest_axes(volume.affine)
    voxels = volume.voxels.transpose([axis for axis, _ in axes])
    turned = volume.affine.copy()
    turned[:3, :3] = volume.affine[:3, [axis for axis, _ in axes]]
    for world, (axis, against) in enumerate(axes):
        if against:
            voxels = np.flip(voxels, world)
            turned[:3, 3] += volume.affine[:3, axis] * (volume.voxels.shape[axis] - 1)
            turned[:3, world] *= -1
    return replace(volume, voxels=voxels, affine=turned, facts={**volume.facts, "axes": axis_codes(turned)})
