"""The tissue volumes the simulator deforms, made once from the MNI152 template that nilearn ships.

Everything is in MNI millimetres (right, anterior, superior). Three 1 mm volumes describe the anatomy: the template's T1
intensity, the distance to the nearest sulcus, and the ventricles. One 2 mm vector field describes how
ventricles grow: the gradient of the potential whose source is the ventricles, so its divergence is positive inside them
and close to zero elsewhere, as in the volume-change models of atrophy (Karacali and Davatzikos 2006).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentdrift.errors import ConfigurationError

Volume = NDArray[np.float32]

BOTTOM, TOP = -22, 54
"""Lowest and highest slice kept, in MNI mm: all that a slice through the lateral ventricles can reach when deformed."""


@dataclass(frozen=True)
class Anatomy:
    """Volumes on one grid; `origin` is the MNI position (mm) of voxel (0, 0, 0).

    Attributes:
        t1: (X, Y, Z) template intensity, 0 to 1, at 1 mm.
        sulci: (X, Y, Z) distance to the nearest sulcus or outer surface, mm, at most 10. Widening is a level of it.
        ventricles: (X, Y, Z) share of a voxel that is ventricle, 0 to 1.
        brain: (X, Y, Z) share of a voxel inside the skull-stripped brain, 0 to 1.
        growth: (X/2, Y/2, Z/2, 3) displacement in mm of the ventricles' growth, per unit of flow, at 2 mm.
    """

    origin: tuple[float, float, float]
    t1: Volume
    sulci: Volume
    ventricles: Volume
    brain: Volume
    growth: Volume


def sample(volume: Volume, points: Volume, origin: tuple[float, float, float], spacing: float = 1.0) -> Volume:
    """Return `volume` (X, Y, Z) at `points` (3, N) in mm, trilinear, the border value continued outside."""
    from scipy.ndimage import map_coordinates

    index = (points - np.asarray(origin, np.float32)[:, None]) / np.float32(spacing)
    found: Volume = map_coordinates(volume, index, order=1, mode="nearest", output=np.float32)
    return found


def sample_vectors(field: Volume, points: Volume, origin: tuple[float, float, float], spacing: float) -> Volume:
    """Return the vector `field` (X, Y, Z, 3) at `points` (3, N), trilinear, as (3, N); one gather serves all parts."""
    index = (points - np.asarray(origin, np.float32)[:, None]) / np.float32(spacing)
    limit = np.array(field.shape[:3])[:, None] - 1
    index = np.clip(index, 0, limit).astype(np.float32)
    low = np.minimum(index.astype(np.intp), limit - 1)
    share = (index - low).astype(np.float32)
    flat = field.reshape(-1, 3)
    strides = (field.shape[1] * field.shape[2], field.shape[2], 1)
    base = low[0] * strides[0] + low[1] * strides[1] + low[2]
    found = np.zeros((points.shape[1], 3), np.float32)
    for corner in range(8):
        steps = (corner >> 2 & 1, corner >> 1 & 1, corner & 1)
        weight = np.ones(points.shape[1], np.float32)
        for axis, step in enumerate(steps):
            weight *= share[axis] if step else 1 - share[axis]
        found += weight[:, None] * flat[base + sum(s * t for s, t in zip(strides, steps, strict=True))]
    return np.ascontiguousarray(found.T)


@lru_cache(maxsize=1)
def load_anatomy() -> Anatomy:
    """Return the volumes, computed on first use (about two seconds) and kept.

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
    seed &= (np.abs(x) < 30 + 0 * z) & (ndi.distance_transform_edt(brain) > 18)
    ventricles = ndi.gaussian_filter((seed * np.clip(fluid * 1.4, 0, 1)).astype(np.float32), 0.5)

    nuclei = ((x / 32) ** 2 + ((y + 5) / 31) ** 2 < 1) & (z > -8) & (z < 27) & (t1 > 0.6)
    core = (wm > 0.42) | nuclei | ndi.binary_dilation(seed, iterations=3)
    sulci = _sulci(core, fluid, brain)

    return Anatomy(
        origin=origin,
        t1=t1,
        sulci=sulci,
        ventricles=ventricles,
        brain=ndi.gaussian_filter(brain.astype(np.float32), 0.6),
        growth=_growth(ventricles, brain),
    )


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
        affine = image.affine
        below = int(BOTTOM - affine[2, 3])
        voxels = np.asanyarray(image.dataobj)[:, :, below : below + TOP - BOTTOM]
        found.append(voxels.astype(np.float32) / 255)
    return found[0], found[1], found[2], (float(affine[0, 3]), float(affine[1, 3]), float(BOTTOM))


def _growth(ventricles: Volume, brain: NDArray[np.bool_]) -> Volume:
    """Return the velocity (X/2, Y/2, Z/2, 3), mm, whose divergence is 1 in the ventricles; zero at the brain's edge."""
    from scipy import fft
    from scipy import ndimage as ndi

    coarse = ndi.gaussian_filter(ventricles, 1.0)[::2, ::2, ::2]
    shape = [fft.next_fast_len(2 * side, real=True) for side in coarse.shape]
    source = fft.rfftn(coarse, shape)
    waves = np.meshgrid(
        *(2 * np.pi * fft.fftfreq(side, 2.0) for side in shape[:2]),
        2 * np.pi * fft.rfftfreq(shape[2], 2.0),
        indexing="ij",
    )
    square = waves[0] ** 2 + waves[1] ** 2 + waves[2] ** 2
    square[0, 0, 0] = 1
    # Nothing moves at the skull: the outer brain takes up the growth over its last 15 mm.
    hold = np.clip(ndi.distance_transform_edt(brain)[::2, ::2, ::2] / 15, 0, 1)
    hold = hold**2 * (3 - 2 * hold)
    return np.stack(
        [
            (fft.irfftn(-1j * wave * source / square, shape)[tuple(slice(side) for side in coarse.shape)] * hold)
            for wave in waves
        ],
        axis=-1,
    ).astype(np.float32)
