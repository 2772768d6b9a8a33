"""White-matter lesions: caps and rims at the ventricles, and spots in the deep white matter, dark in T1.

A lesion is where a person's random field, plus how readily lesions form at that place, exceeds a threshold. More load
is a lower threshold, so lesions only ever appear and grow: the lesions of a smaller load lie inside those of a larger
one. The field is attached to the tissue, which carries the lesions along when the ventricles grow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.simulate.sampling import Volume, sample_vectors, smooth_noise

if TYPE_CHECKING:
    from latentdrift.data.simulate.anatomy import Anatomy

KNOTS = 5.5
"""Distance of the random field's knots, mm: single lesions are of about this size."""

EDGE = 0.6
"""Width of a lesion's edge, in standard deviations of the field; about 1.5 mm."""

NEVER = -9.0
MOST = 100.0
"""Largest load, mL."""

THRESHOLDS = np.linspace(7, -3, 101)


def proneness(
    wm: Volume, ventricles: NDArray[np.bool_], spared: NDArray[np.bool_], origin: tuple[float, float, float]
) -> Volume:
    """Return (X/2, Y/2, Z/2, 2) at 2 mm: share of white matter, and proneness in deviations of the field.

    Highest at the wall of the ventricles, falling over a few mm; the outer 5 mm of the white matter, the corpus
    callosum, brain stem and cerebellum are spared (DeCarli et al., Stroke 2005, for lesions growing outwards from the
    ventricles).
    """
    from scipy import ndimage as ndi

    wm, ventricles, spared = wm[::2, ::2, ::2], ventricles[::2, ::2, ::2], spared[::2, ::2, ::2]
    white = (wm > 0.6) & ~spared
    away = 2 * ndi.distance_transform_edt(~ventricles)
    depth = 2 * ndi.distance_transform_edt(white | ventricles)
    x, y, z = (
        2 * np.arange(count, dtype=np.float32).reshape([-1 if axis == i else 1 for i in range(3)]) + origin[axis]
        for axis, count in enumerate(wm.shape)
    )
    found = 2.4 * np.exp(-np.maximum(0, away - 1) / 4) - 1.5 * np.clip(1 - depth / 5, 0, 1)
    found = found - 3 * np.clip(1.5 - np.abs(x) / 8, 0, 1)
    infratentorial = (z < -14) | (y < -45) & (z < -4)
    found = np.where(white & ~infratentorial, found, NEVER)
    share = np.clip((wm - 0.55) / 0.2, 0, 1) * ~spared
    return np.stack([share, ndi.gaussian_filter(found, 0.35)], axis=-1).astype(np.float32)


def expected_volumes(white: Volume) -> NDArray[np.float64]:
    """Return the expected lesion volume, mL, at each of `THRESHOLDS`: the field is normal at every place."""
    from scipy.stats import norm

    places = white.reshape(-1, 2)
    places = places[(places[:, 0] > 0) & (places[:, 1] > NEVER / 2)]
    values, which = np.unique(np.round(places[:, 1] * 20), return_inverse=True)
    millilitres = np.bincount(which, weights=places[:, 0]) * 0.008
    found: NDArray[np.float64] = (norm.sf(THRESHOLDS[:, None] - values / 20) * millilitres).sum(1)
    return found


def threshold_of(load: float, anatomy: Anatomy) -> float:
    """Return the threshold at which the lesions' expected volume is `load` mL; infinite for none."""
    if load <= 0:
        return float("inf")
    return float(np.interp(np.log(load), np.log(anatomy.lesion_volumes), THRESHOLDS))


def lesion_share(seed: int, points: Volume, load: float, anatomy: Anatomy) -> Volume:
    """Return the share of lesion, 0 to 1, at template points (3, N): (N,). `load` is the expected volume in mL."""
    found = np.zeros(points.shape[1], np.float32)
    threshold = threshold_of(load, anatomy)
    if not np.isfinite(threshold):
        return found
    share, prone = sample_vectors(anatomy.white, points, anatomy.origin, 2.0)
    # The field practically never reaches 5 deviations: elsewhere it need not be known.
    possible = np.flatnonzero((share > 0) & (prone > threshold - 5))
    if possible.size:
        field = smooth_noise(np.random.default_rng([seed, 4]), points[:, possible], KNOTS, 1)[0]
        excess = (field + prone[possible] - np.float32(threshold)) / np.float32(EDGE) + np.float32(0.5)
        found[possible] = np.clip(excess, 0, 1) * share[possible]
    return found
