"""Atrophy as a flow: a velocity whose divergence is the wanted change of volume, and close to zero elsewhere.

Such fields are the gradient of a potential with the change as its source, as in the volume-change models of atrophy
(Karacali and Davatzikos 2006).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.simulate.sampling import Volume

GRID = 2
"""Spacing of the flows, in voxels of 1 mm."""


def flow_of(source: Volume, hold: Volume) -> Volume:
    """Return the velocity (X/2, Y/2, Z/2, 3), mm, whose divergence is `source`.

    Args:
        source: (X, Y, Z) at 1 mm, the relative change of volume per unit of flow: positive swells, negative shrinks.
        hold: (X/2, Y/2, Z/2) from 0 where nothing may move to 1.
    """
    from scipy import fft
    from scipy import ndimage as ndi

    coarse = ndi.gaussian_filter(source, 1.0)[::GRID, ::GRID, ::GRID]
    shape = [fft.next_fast_len(2 * side, real=True) for side in coarse.shape]
    transformed = fft.rfftn(coarse, shape)
    waves = np.meshgrid(
        *(2 * np.pi * fft.fftfreq(side, float(GRID)) for side in shape[:2]),
        2 * np.pi * fft.rfftfreq(shape[2], float(GRID)),
        indexing="ij",
        sparse=True,
    )
    square = waves[0] ** 2 + waves[1] ** 2 + waves[2] ** 2
    square[0, 0, 0] = 1
    transformed = transformed / square
    inside = tuple(slice(side) for side in coarse.shape)
    return np.stack([fft.irfftn(-1j * wave * transformed, shape)[inside] * hold for wave in waves], axis=-1).astype(
        np.float32
    )


def hold_at_skull(depth: Volume) -> Volume:
    """Return the weight (X/2, Y/2, Z/2) of a flow: nothing moves at the skull, the outer 15 mm take up the rest.

    `depth` (X, Y, Z) is the distance to the outer surface of the brain, mm, 0 outside.
    """
    hold = np.clip(depth[::GRID, ::GRID, ::GRID] / 15, 0, 1)
    smooth: Volume = (hold**2 * (3 - 2 * hold)).astype(np.float32)
    return smooth


def window(shape: tuple[int, ...], region: NDArray[np.bool_], margin: int) -> Volume:
    """Return a weight of `shape` that is 1 in the bounding box of `region` and exactly 0 from `margin` voxels on."""
    weight = np.ones(shape, np.float32)
    for axis in range(3):
        used = np.flatnonzero(region.any(tuple(i for i in range(3) if i != axis)))
        where = np.arange(shape[axis])
        away = np.maximum(0, np.maximum(used[0] - where, where - used[-1])) / margin
        fall = np.clip(1 - away, 0, 1) ** 2
        weight *= fall.reshape([-1 if i == axis else 1 for i in range(3)]).astype(np.float32)
    return weight
