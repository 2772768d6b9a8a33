"""From a subject to a slice. The same subject under another diagnosis or age shares everything else, noise included."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.simulate.anatomy import Anatomy, Volume, load_anatomy, sample, sample_vectors
from latentdrift.data.simulate.subject import DIAGNOSES, SimulatedSubject, check_age
from latentdrift.errors import ConfigurationError, UnknownNameError

FIELD_OF_VIEW = 208.0
"""Side of the square image, mm."""

CENTRE = (0.0, -18.0)
"""Middle of the image in MNI mm (right, anterior)."""

STEPS = 6
"""Euler steps of the atrophy flow; each moves a point by less than a millimetre, so nothing folds."""


def render(
    subject: SimulatedSubject, diagnosis: str | None = None, age: float | None = None, *, size: int = 128
) -> NDArray[np.float32]:
    """Return the subject's slice, (size, size) in [0, 1], anterior at the top.

    Args:
        subject: the person; their own diagnosis and age are used where none is given.
        diagnosis: render as if this were the diagnosis: the true counterfactual.
        age: render as if this were the age, years.
        size: pixels of a side; the field of view stays 208 mm.

    Raises:
        UnknownNameError: no such diagnosis.
        ConfigurationError: age or size outside what the simulator covers; nilearn is missing.
    """
    diagnosis = subject.diagnosis if diagnosis is None else diagnosis
    age = subject.age if age is None else age
    if diagnosis not in DIAGNOSES:
        raise UnknownNameError("diagnosis", diagnosis, DIAGNOSES)
    check_age(age)
    if not 32 <= size <= 1024:
        raise ConfigurationError(f"size is {size}; a simulated slice has 32 to 1024 pixels a side.")
    anatomy = load_anatomy()
    fine = 2 * size if size <= 256 else size
    template, points, open_sulci = _where(subject, diagnosis, age, anatomy)
    brain = sample(anatomy.brain, _finer(template, fine), anatomy.origin)
    inside = np.flatnonzero(brain > 0.01)

    signal = np.zeros(fine * fine, np.float32)
    signal[inside] = (
        _tissue_signal(
            _finer(points, fine)[:, inside], _finer(open_sulci, fine)[0, inside], anatomy, _stream(subject, "tissue")
        )
        * brain[inside]
    )
    return _scan(
        _shrink_to(signal.reshape(fine, fine), size),
        _shrink_to(brain.reshape(fine, fine), size),
        _stream(subject, "scan"),
    )


def ventricle_area(subject: SimulatedSubject, diagnosis: str | None = None, age: float | None = None) -> float:
    """Return the true area of the ventricles in the subject's slice, mm squared."""
    anatomy = load_anatomy()
    _, points, _ = _where(subject, diagnosis or subject.diagnosis, subject.age if age is None else age, anatomy)
    fine = _finer(points, round(FIELD_OF_VIEW))
    return float(sample(anatomy.ventricles, fine, anatomy.origin).sum())


def _stream(subject: SimulatedSubject, purpose: str) -> np.random.Generator:
    """Return the random numbers of one purpose, so that no draw for one can shift those of another."""
    return np.random.default_rng([subject.seed, {"tissue": 1, "scan": 2}[purpose]])


def _where(subject: SimulatedSubject, diagnosis: str, age: float, anatomy: Anatomy) -> tuple[Volume, Volume, Volume]:
    """Return, on a 2 mm grid of the slice: template positions (3, N) before and after atrophy, sulcal width (1, N), mm.

    Deformations are smoother than that, so the fine grid only interpolates this one.
    """
    template, folds = _identity(subject.seed, subject.sex, subject.slice_mm)
    points = _shrink_back(template, subject.ventricle_growth(diagnosis, age), anatomy)
    return template, points, subject.sulcal_width(diagnosis, age) * np.exp(0.25 * folds)


def _finer(field: Volume, pixels: int) -> Volume:
    """Return `field` (C, n * n) interpolated linearly to (C, pixels * pixels)."""
    side = round(field.shape[1] ** 0.5)
    index = np.clip((np.arange(pixels) + 0.5) * side / pixels - 0.5, 0, side - 1)
    # Linear interpolation is separable: one small matrix from the left and from the right.
    weights = np.maximum(0, 1 - np.abs(index[:, None] - np.arange(side))).astype(np.float32)
    found: Volume = (weights @ field.reshape(-1, side, side) @ weights.T).reshape(len(field), -1)
    return found


def _slice_positions(height: float, pixels: int) -> Volume:
    """Return the positions (3, pixels * pixels) of an axial slice in mm, row by row from the front."""
    offsets = ((np.arange(pixels) + 0.5) / pixels - 0.5) * FIELD_OF_VIEW
    forward, right = np.meshgrid(CENTRE[1] - offsets, CENTRE[0] + offsets, indexing="ij")
    return np.stack([right.ravel(), forward.ravel(), np.full(right.size, height)]).astype(np.float32)


def _smooth_noise(rng: np.random.Generator, positions: Volume, length: float, fields: int) -> Volume:
    """Return `fields` smooth random fields (fields, N) of unit variance, cubic between knots `length` mm apart."""
    from scipy.ndimage import map_coordinates

    low = np.array([-130.0, -160.0, -40.0])
    knots = np.ceil((np.array([130.0, 120.0, 80.0]) - low) / length).astype(int) + 1
    index = (positions - low[:, None].astype(np.float32)) / np.float32(length)
    # A cubic B-spline of white noise has variance (151 / 315) ** 3 on average: divide it out.
    scale = (151 / 315) ** -1.5
    return np.stack(
        [
            scale
            * map_coordinates(rng.standard_normal(knots), index, order=3, prefilter=False, mode="nearest").astype(
                np.float32
            )
            for _ in range(fields)
        ]
    )


@lru_cache(maxsize=16)
def _identity(seed: int, sex: str, slice_mm: float) -> tuple[Volume, Volume]:
    """Return where each point of the 2 mm grid lies in the template (3, N), and the person's pattern of sulci (1, N).

    The deformation has no detail below its 14 mm knots: it is drawn on a 4 mm grid and interpolated.
    """
    rng = np.random.default_rng([seed, 0])
    positions = _slice_positions(slice_mm, round(FIELD_OF_VIEW / 4))
    angle, tilt, roll = np.deg2rad(rng.normal(0, [2.0, 3.0, 1.5]))
    stretch = 1 + rng.normal(0, [0.025, 0.025, 0.02]) + (0.02 if sex == "M" else -0.015)
    around = np.array([CENTRE[0], CENTRE[1], slice_mm], np.float32)[:, None]
    turn = np.array([[1, -angle, roll], [angle, 1, -tilt], [-roll, tilt, 1]])
    linear = (turn / stretch[:, None]).astype(np.float32)
    warp = 3.0 * _smooth_noise(rng, positions, 38.0, 3) + 1.4 * _smooth_noise(rng, positions, 14.0, 3)
    template = (linear @ (positions - around) + around + warp).astype(np.float32)
    folds = _smooth_noise(rng, positions, 14.0, 1).astype(np.float32)
    grid = round(FIELD_OF_VIEW / 2)
    return _finer(template, grid), _finer(folds, grid)


def _shrink_back(points: Volume, amount: float, anatomy: Anatomy) -> Volume:
    """Follow the growth of the ventricles backwards: where in the template the tissue now at `points` (3, N) was."""
    for _ in range(STEPS):
        velocity = sample_vectors(anatomy.growth, points, anatomy.origin, 2.0)
        points = points - velocity * np.float32(amount / STEPS)
    return points


def _tissue_signal(points: Volume, width: Volume, anatomy: Anatomy, rng: np.random.Generator) -> Volume:
    """Return the T1-weighted signal (N,) at template points: white above gray above fluid."""
    t1 = sample(anatomy.t1, points, anatomy.origin)
    away = sample(anatomy.sulci, points, anatomy.origin)
    ventricle = np.clip((sample(anatomy.ventricles, points, anatomy.origin) - 0.5) * 1.6 + 0.5, 0, 1)
    # The mean template is flat: pull gray and white apart, and open the sulci that averaging closed.
    gray, white = rng.normal(0.52, 0.02), rng.normal(0.86, 0.02)
    tissue = np.clip(gray + (t1 - 0.72) / (0.88 - 0.72) * (white - gray), gray - 0.06, white + 0.03)
    sulcus = np.clip((width / 2 - away) / 0.9 + 0.5, 0, 1)
    fluid = np.maximum(sulcus, ventricle)
    signal: Volume = ((1 - fluid) * tissue + fluid * 0.13).astype(np.float32)
    return signal


def _shrink_to(image: Volume, size: int) -> Volume:
    factor = image.shape[0] // size
    found: Volume = image.reshape(size, factor, size, factor).mean((1, 3), dtype=np.float32)
    return found


def _scan(signal: Volume, brain: Volume, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the scan of `signal` (H, W): receive-coil shading, a slightly different contrast, Rician noise."""
    from scipy.ndimage import gaussian_filter

    side = signal.shape[0]
    across = np.linspace(-1, 1, side, dtype=np.float32)
    rows, columns = np.meshgrid(across, across, indexing="ij")
    a, b, c, d = rng.normal(0, [0.05, 0.05, 0.04, 0.04]).astype(np.float32)
    shading = 1 + a * rows + b * columns + c * rows * columns + d * (rows**2 + columns**2 - 0.5)
    gain, gamma = rng.normal(1.0, 0.03), np.exp(rng.normal(0, 0.06))
    blotches = gaussian_filter(rng.standard_normal((side, side)), side / 100).astype(np.float32)
    blotches *= 0.022 / blotches.std()
    image = gain * np.clip(signal, 0, 1) ** gamma * shading * (1 + blotches)
    noise = 0.022 * rng.standard_normal((2, side, side)).astype(np.float32)
    image = np.hypot(image + noise[0], noise[1])
    scan: Volume = np.clip(image * np.clip((brain - 0.35) * 3, 0, 1), 0, 1).astype(np.float32)
    return scan
