"""A whole brain: the slices that `render` makes, stacked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.simulate.position import CENTRE, FIELD_OF_VIEW
from latentdrift.data.simulate.render import HIGHEST, LOWEST, render
from latentdrift.data.simulate.subject import SimulatedSubject
from latentdrift.errors import ConfigurationError

BOTTOM, TOP = -78.0, 90.0
"""Heights between which the volume lies, mm."""


def render_volume(
    subject: SimulatedSubject,
    *,
    spacing: float = 2.0,
    heights: tuple[float, float] = (BOTTOM, TOP),
    **attributes: Any,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the subject's brain, (X, Y, Z) in [0, 1] in RAS+ order, and its affine, voxels to mm.

    Every axial plane is the slice that `render` gives at its height, bit for bit, noise and shading included; only the
    orientation differs. Planes have no thickness: there is partial volume within them and none between.

    Args:
        subject: the person at one visit.
        spacing: side of the cubic voxels, mm: 208 divided by a whole number from 32 to 1024.
        heights: the first and last plane's height, MNI mm. All planes are `spacing` apart from 0 mm on.
        attributes: any of `render`'s, apart from size and height.

    Raises:
        ConfigurationError: a spacing or heights that cannot be, or as `render`.
        UnknownNameError: as `render`.
    """
    size = round(FIELD_OF_VIEW / spacing) if spacing > 0 else 0
    if not 32 <= size <= 1024 or abs(size * spacing - FIELD_OF_VIEW) > 1e-6:
        raise ConfigurationError(f"spacing is {spacing} mm; {FIELD_OF_VIEW:g} mm must be 32 to 1024 times that.")
    low, high = heights
    first, last = int(np.ceil(low / spacing - 1e-9)), int(np.floor(high / spacing + 1e-9))
    if not (low >= LOWEST and high <= HIGHEST and first <= last):
        raise ConfigurationError(f"heights are {low} to {high} mm; give {LOWEST:g} to {HIGHEST:g}, in order.")
    planes = [render(subject, size=size, height=number * spacing, **attributes) for number in range(first, last + 1)]
    # Rows run from front to back and columns from left to right of the picture, which is the person's left to right.
    volume = np.stack([plane[::-1].T for plane in planes], axis=-1)
    corner = -FIELD_OF_VIEW / 2 + spacing / 2
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (CENTRE[0] + corner, CENTRE[1] + corner, first * spacing)
    return volume, affine
