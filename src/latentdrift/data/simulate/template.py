"""The MNI152 template itself as a slice: an average of 152 real brains, to edit as if it were a scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.simulate.position import CENTRE, FIELD_OF_VIEW
from latentdrift.errors import ConfigurationError


def template_slice(height: float = 18.0, *, size: int = 128) -> NDArray[np.float32]:
    """Return the skull-stripped T1 template's axial slice, (size, size) in [0, 1], anterior at the top.

    Args:
        height: MNI z of the slice, mm.
        size: pixels of a side; the field of view is 208 mm.

    Raises:
        ConfigurationError: a height outside the brain.
    """
    if not -40 <= height <= 70:
        raise ConfigurationError(f"height is {height} mm; the template's brain reaches from -40 to 70 mm.")
    from nilearn.datasets import load_mni152_template
    from scipy.ndimage import map_coordinates

    image = load_mni152_template(resolution=1)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    step = FIELD_OF_VIEW / size
    offsets = (np.arange(size) + 0.5) * step - FIELD_OF_VIEW / 2
    right, anterior = np.meshgrid(CENTRE[0] + offsets, CENTRE[1] - offsets)
    points = np.stack([right, anterior, np.full_like(right, height), np.ones_like(right)])
    index = np.tensordot(np.linalg.inv(image.affine), points, axes=1)[:3]
    # 1.6 mm pixels of a 1 mm volume: linear interpolation is smooth enough, and leaves the background at zero.
    plane = map_coordinates(voxels, index, order=1, mode="constant")
    # The average of many brains has less contrast between gray and white matter than a scan; the power restores it.
    return (0.85 * np.clip(plane / np.quantile(plane[plane > 0], 0.995), 0, 1) ** 1.8).astype(np.float32)
