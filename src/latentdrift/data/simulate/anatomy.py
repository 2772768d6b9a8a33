"""The tissue volumes the simulator deforms, made once from the MNI152 template that nilearn ships.

Everything is in MNI millimetres (right, anterior, superior) and covers the whole brain. Volumes at 1 mm describe the
anatomy: the template's T1 intensity, the distance to the nearest sulcus, the ventricles, the hippocampi. Two vector
fields at 2 mm describe how it changes: the growth of the ventricles, and the shrinking of the hippocampi into the
temporal horns beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.simulate.flows import flow_of, hold_at_skull, window
from latentdrift.data.simulate.lesions import expected_volumes, proneness
from latentdrift.data.simulate.sampling import Volume
from latentdrift.errors import ConfigurationError

BOX = ((-76, 76), (-112, 78), (-76, 86))
"""What is kept of the template, MNI mm: its brain, which ends at 72, -107 to 73, and -72 to 82."""

HIPPOCAMPUS = (
    (24, -9, -23), (27, -15, -19), (29, -21, -15), (30, -28, -10), (29, -34, -5), (24, -39, 0),
)  # fmt: skip
"""Axis of the right hippocampus in the template, head to tail, read off the template itself."""


@dataclass(frozen=True)
class Anatomy:
    """Volumes on one grid; `origin` is the MNI position (mm) of voxel (0, 0, 0).

    Attributes:
        t1: (X, Y, Z) template intensity, 0 to 1, at 1 mm.
        sulci: (X, Y, Z) distance to the nearest sulcus or outer surface, mm, at most 10. Widening is a level of it.
        ventricles: (X, Y, Z) share of a voxel that is lateral or third ventricle, 0 to 1.
        horns: (X, Y, Z) share of a voxel that is temporal horn, beside the hippocampus, 0 to 1.
        hippocampi: (X, Y, Z) share of a voxel that is hippocampus, 0 to 1.
        brain: (X, Y, Z) share of a voxel inside the skull-stripped brain, 0 to 1.
        white: (X/2, Y/2, Z/2, 2) at 2 mm: share of white matter, and how readily lesions form there (`lesions.py`).
        lesion_volumes: (T,) the lesions' expected volume, mL, at each threshold of `lesions.THRESHOLDS`.
        growth: (X/2, Y/2, Z/2, 3) displacement in mm of the ventricles' growth, per unit of flow, at 2 mm.
        shrinkage: the same for the hippocampi; exactly zero away from them.
    """

    origin: tuple[float, float, float]
    t1: Volume
    sulci: Volume
    ventricles: Volume
    horns: Volume
    hippocampi: Volume
    brain: Volume
    white: Volume
    lesion_volumes: NDArray[np.float64]
    growth: Volume
    shrinkage: Volume

    @cached_property
    def medial_temporal(self) -> tuple[float, float]:
        """Lowest and highest height, mm, that the hippocampi and the shrinking around them reach."""
        planes = np.flatnonzero(self.shrinkage.any((0, 1, 3))) * 2 + self.origin[2]
        return float(planes[0]), float(planes[-1])


@lru_cache(maxsize=1)
def load_anatomy() -> Anatomy:
    """Return the volumes, computed on first use (a few seconds) and kept.

    Raises:
        ConfigurationError: nilearn, or the template inside it, is not installed.
    """
    from scipy import ndimage as ndi

    t1, wm, gm, origin = _template()
    x, y, z = (
        np.arange(count, dtype=np.float32).reshape([-1 if axis == i else 1 for i in range(3)]) + origin[axis]
        for axis, count in enumerate(t1.shape)
    )
    brain = ndi.binary_fill_holes(t1 > 0.1)
    depth = ndi.distance_transform_edt(brain).astype(np.float32)
    fluid = np.clip(brain - wm - gm, 0, 1)
    # The ventricles are the fluid between the splenium and the genu; the interhemispheric fissure lies before and
    # behind them in the midline, the cisterns below, the Sylvian fissure to the side.
    central = (np.abs(x) < 36) & (y > -52) & (y < 36) & (z > -18) & (z < 36)
    fissure = (np.abs(x) < 4) & ((y > 25) | (y < -36)) | (np.abs(x) < 9) & (y < -27) & (z < 13)
    inner = (fluid > 0.45) & central & ~fissure & (t1 < 0.55)
    labels, _ = ndi.label(inner, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    seed = np.isin(labels, np.flatnonzero(sizes > 150))
    seed &= (np.abs(x) < 30 + 0 * z) & (depth > 18)
    ventricles = ndi.gaussian_filter((seed * np.clip(fluid * 1.4, 0, 1)).astype(np.float32), 0.5)

    nuclei = ((x / 32) ** 2 + ((y + 5) / 31) ** 2 < 1) & (z > -8) & (z < 27) & (t1 > 0.6)
    core = (wm > 0.42) | nuclei | ndi.binary_dilation(seed, iterations=3)
    hippocampi, horns = _medial_temporal(gm, fluid, origin)
    hold = hold_at_skull(depth)
    # What the hippocampus loses, the temporal horn gains: nothing is felt further away.
    loss = hippocampi - horns * (hippocampi.sum() / horns.sum())
    white = proneness(wm, ventricles > 0.5, nuclei | (hippocampi > 0.1), origin)
    near = window(hold.shape, (hippocampi > 0.5)[::2, ::2, ::2], 8)
    return Anatomy(
        origin=origin,
        t1=t1,
        sulci=_sulci(core, fluid, brain),
        ventricles=ventricles,
        horns=horns,
        hippocampi=hippocampi,
        brain=ndi.gaussian_filter(brain.astype(np.float32), 0.6),
        white=white,
        lesion_volumes=expected_volumes(white),
        growth=flow_of(ventricles, hold),
        shrinkage=flow_of(-loss, near * np.minimum(1, 3 * hold)),
    )


def _medial_temporal(gm: Volume, fluid: Volume, origin: tuple[float, float, float]) -> tuple[Volume, Volume]:
    """Return the hippocampi, gray matter within 6 mm of their axis, and the fluid to their side: the horns."""
    from scipy import ndimage as ndi

    right = np.array(HIPPOCAMPUS, float)
    dense = np.stack([np.interp(np.linspace(0, len(right) - 1, 60), range(len(right)), axis) for axis in right.T], 1)
    axis_points = np.concatenate([dense, dense * (-1, 1, 1)])
    voxels = np.rint(axis_points - origin).astype(int)
    low, high = voxels.min(0) - 12, voxels.max(0) + 12
    part = tuple(slice(*ends) for ends in zip(low, high, strict=True))
    outside = np.ones(high - low, bool)
    outside[tuple((voxels - low).T)] = False
    away, nearest = ndi.distance_transform_edt(outside, return_indices=True)
    middle = origin[0] + low[0]
    side = np.abs(np.arange(outside.shape[0])[:, None, None] + middle) - np.abs(nearest[0] + middle)
    hippocampi, horns = np.zeros_like(gm), np.zeros_like(gm)
    tissue = (away < 6) & (gm[part] > 0.6) & (fluid[part] < 0.3)
    hippocampi[part] = ndi.gaussian_filter(tissue.astype(np.float32), 0.5)
    rim = np.clip(fluid[part] * 2, 0, 1) * ((away < 9) & (side > 1.0) & (fluid[part] > 0.12))
    horns[part] = ndi.gaussian_filter(rim.astype(np.float32), 0.4)
    return hippocampi, horns


def _sulci(core: NDArray[np.bool_], fluid: Volume, brain: NDArray[np.bool_]) -> Volume:
    """Return the distance (mm) to the middle of the nearest sulcus.

    In an average brain most sulci are closed. Their middle is where the distance to the white matter has a ridge: the
    two banks of cortex meet there.
    """
    from scipy import ndimage as ndi

    depth = ndi.distance_transform_edt(~core).astype(np.float32)
    ridge = -ndi.gaussian_laplace(depth, 0.9)
    middle = brain & ~core & (((ridge > 0.40) & (depth > 1.6)) | ((fluid > 0.5) & (depth > 1)))
    labels, _ = ndi.label(middle, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    middle = np.isin(labels, np.flatnonzero(sizes > 60))
    distance = ndi.distance_transform_edt(~(middle | ~brain))
    smooth: Volume = np.minimum(ndi.gaussian_filter(distance, 0.45), 10).astype(np.float32)
    return smooth


def _template() -> tuple[Volume, Volume, Volume, tuple[float, float, float]]:
    import nibabel

    package = find_spec("nilearn")
    if package is None or package.origin is None:
        raise ConfigurationError("The simulator needs the MNI152 template that nilearn ships: pip install nilearn.")
    folder = Path(package.origin).parent / "datasets" / "data"
    found = []
    for name in ("t1", "wm", "gm"):
        path = folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        if not path.is_file():
            raise ConfigurationError(f"This nilearn has no {path.name}; install a version from 0.8 on.")
        image = nibabel.nifti1.load(path)
        first = np.rint(image.affine[:3, 3]).astype(int)
        kept = tuple(slice(max(0, low - start), high - start) for (low, high), start in zip(BOX, first, strict=True))
        # The file ends where the brain does; a margin of nothing around it keeps what lies beyond empty.
        margin = [(max(0, start - low), 0) for (low, _), start in zip(BOX, first, strict=True)]
        found.append(np.pad(np.asanyarray(image.dataobj)[kept].astype(np.float32) / 255, margin))
    return found[0], found[1], found[2], (float(BOX[0][0]), float(BOX[1][0]), float(BOX[2][0]))
