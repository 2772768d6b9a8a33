"""Where in the world the head of a scan is: its centre and its top, for slices of scans that are not registered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.scan import Volume
from latentdrift.data.volumes.orient import voxel_spacing
from latentdrift.errors import DataError

GRID = 2.0
"""Distance of the voxels looked at, mm."""

HEAD = 170.0
"""From the top of the head down to where shoulders are left out, mm; an adult's brain ends some 150 mm below it."""


def head_centre(volume: Volume, threshold: float) -> NDArray[np.float64]:
    """Return (3,) the world position (mm) of the middle of the foreground, no more than 170 mm below its top.

    Args:
        volume: the scan.
        threshold: real value above which a voxel is foreground; the largest connected part counts.

    Raises:
        DataError: no foreground.
    """
    index, height, grid = _foreground(volume, threshold)
    kept = height >= height.max() - HEAD
    if not kept.all():
        index = [axis[kept] for axis in index]
    centre: NDArray[np.float64] = grid[:3, :3] @ [axis.mean() for axis in index] + grid[:3, 3]
    return centre


def head_top(volume: Volume, threshold: float) -> float:
    """Return the height (S, mm of the world) of the topmost foreground; arguments and errors as `head_centre`."""
    return float(_foreground(volume, threshold)[1].max())


def _foreground(
    volume: Volume, threshold: float
) -> tuple[list[NDArray[np.int64]], NDArray[np.float64], NDArray[np.float64]]:
    """Return the largest connected part of the foreground on a grid of about 2 mm.

    Returns:
        three arrays (N,) of indices into the grid; (N,) the height of each, mm; the (4, 4) affine of the grid.
    """
    from scipy.ndimage import label

    strides = [max(1, round(GRID / float(step))) for step in voxel_spacing(volume.affine)]
    coarse = volume.voxels[:: strides[0], :: strides[1], :: strides[2]] > threshold
    # Voxels of a file lie with the first index fastest: transposed, all passes below go through memory in order.
    parts, count = label(np.ascontiguousarray(coarse.T))
    if not count:
        raise DataError("The volume has no foreground: is it empty? Leave it out.")
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    index = list(np.nonzero(parts == sizes.argmax())[::-1])
    grid = volume.affine * [*strides, 1]
    height: NDArray[np.float64] = grid[2, 3] + sum(step * axis for step, axis in zip(grid[2, :3], index, strict=True))
    return index, height, grid
