"""Where each point of a person's slice lies in the template: the person's shape, then the atrophy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.simulate.anatomy import Anatomy
from latentdrift.data.simulate.effects import head_scale
from latentdrift.data.simulate.sampling import Volume, finer, sample, sample_vectors, smooth_noise
from latentdrift.data.simulate.subject import SimulatedSubject

FIELD_OF_VIEW = 208.0
"""Side of the square image, mm."""

CENTRE = (0.0, -18.0, 15.0)
"""Middle of the image, and of the person's turn and stretch, in MNI mm (right, anterior, superior)."""

GRID = round(FIELD_OF_VIEW / 2)
"""Points of a side of the grid of deformations, 2 mm apart: they are smoother than that."""

STEP = 0.3, 0.12
"""Flow (ventricles, hippocampi) of a step of Euler's method; each moves a point by less than a millimetre, so nothing
folds."""

FLOWS = (-1.0, -0.375, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 15.0)
VOLUMES = (0.40, 0.773, 1.0, 1.362, 1.763, 2.185, 2.619, 3.499, 4.394, 5.286, 14.2)
"""Measured: the ventricles' volume after a flow, that of the template being 1."""

HIPPOCAMPUS_GAIN = 0.61
"""Measured: what one unit of flow takes from the logarithm of the hippocampi's volume."""


@dataclass(frozen=True)
class Place:
    """Template positions of an axial slice's 2 mm grid, in mm.

    Attributes:
        template: (3, N) before atrophy: the brain's outline.
        points: (3, N) after it: the tissue.
        width: (1, N) width of a sulcus there, mm.
        inside: (N,) points in the brain or within two of it.
    """

    template: Volume
    points: Volume
    width: Volume
    inside: NDArray[np.bool_]


def locate(subject: SimulatedSubject, height: float, anatomy: Anatomy) -> Place:
    """Return where the points of the subject's axial slice at `height` (mm) lie in the template."""
    from scipy.ndimage import binary_dilation

    template, folds = _identity(subject.seed, subject.sex, float(height))
    brain = sample(anatomy.brain, template, anatomy.origin) > 0.01
    inside = binary_dilation(brain.reshape(GRID, GRID), iterations=2).ravel()
    points = template.copy()
    if brain.any():
        points[:, inside] = _undo_atrophy(template[:, inside], subject, anatomy)
    width = np.float32(subject.sulcal_width()) * np.exp(np.float32(0.25) * folds)
    return Place(template, points, width, inside)


def slice_positions(height: float, pixels: int) -> Volume:
    """Return the positions (3, pixels * pixels) of an axial slice in mm, row by row from the front."""
    offsets = ((np.arange(pixels) + 0.5) / pixels - 0.5) * FIELD_OF_VIEW
    forward, right = np.meshgrid(CENTRE[1] - offsets, CENTRE[0] + offsets, indexing="ij")
    return np.stack([right.ravel(), forward.ravel(), np.full(right.size, height)]).astype(np.float32)


@lru_cache(maxsize=16)
def _identity(seed: int, sex: str, height: float) -> tuple[Volume, Volume]:
    """Return where each point of the 2 mm grid lies in the template (3, N), and the person's pattern of sulci (1, N).

    The deformation has no detail below its 14 mm knots: it is drawn on a 4 mm grid and interpolated.
    """
    rng = np.random.default_rng([seed, 0])
    positions = slice_positions(height, GRID // 2)
    angle, tilt, roll = np.deg2rad(rng.normal(0, [2.0, 3.0, 1.5]))
    stretch = (1 + rng.normal(0, [0.025, 0.025, 0.02])) * head_scale(sex)
    around = np.array(CENTRE, np.float32)[:, None]
    turn = np.array([[1, -angle, roll], [angle, 1, -tilt], [-roll, tilt, 1]])
    linear = (turn / stretch[:, None]).astype(np.float32)
    warp = 3.0 * smooth_noise(rng, positions, 38.0, 3) + 1.4 * smooth_noise(rng, positions, 14.0, 3)
    template = (linear @ (positions - around) + around + warp).astype(np.float32)
    folds = smooth_noise(rng, positions, 14.0, 1)
    return finer(template, GRID), finer(folds, GRID)


def _undo_atrophy(points: Volume, subject: SimulatedSubject, anatomy: Anatomy) -> Volume:
    """Follow the atrophy backwards: where in the template the tissue now at `points` (3, N) was."""
    ventricles = float(np.interp(subject.ventricle_volume(), VOLUMES, FLOWS))
    left, right = (-np.log(volume) / HIPPOCAMPUS_GAIN for volume in subject.hippocampal_volumes())
    low, high = anatomy.medial_temporal
    near = bool(low - 5 < points[2].max() and points[2].min() < high + 5)
    most = max(abs(ventricles) / STEP[0], max(abs(left), abs(right)) / STEP[1] if near else 0)
    steps = max(4, int(np.ceil(most)))
    for _ in range(steps):
        # Left is negative; the sides pass into each other smoothly over the midline.
        side = np.tanh(points[0] / np.float32(6))
        move = sample_vectors(anatomy.growth, points, anatomy.origin, 2.0)
        move *= (1 - np.float32(subject.asymmetry / 2) * side) * np.float32(ventricles / steps)
        if near:
            amount = np.float32((left + right) / 2) + np.float32((right - left) / 2) * side
            move += sample_vectors(anatomy.shrinkage, points, anatomy.origin, 2.0) * (amount / np.float32(steps))
        points = points - move
    return points
