"""Reading volumes and vector fields at points, and smooth random fields."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.float32]

LOWEST = (-112.0, -148.0, -112.0)
"""Where the knots of the random fields begin, mm. Fixed, so that a field is the same wherever it is evaluated."""

HIGHEST = (112.0, 112.0, 124.0)


def sample(volume: Volume, points: Volume, origin: tuple[float, float, float], spacing: float = 1.0) -> Volume:
    """Return `volume` (X, Y, Z) at `points` (3, N) in mm, trilinear, the border value continued outside."""
    from scipy.ndimage import map_coordinates

    index = (points - np.asarray(origin, np.float32)[:, None]) / np.float32(spacing)
    found: Volume = map_coordinates(volume, index, order=1, mode="nearest", output=np.float32)
    return found


def sample_vectors(field: Volume, points: Volume, origin: tuple[float, float, float], spacing: float) -> Volume:
    """Return the `field` (X, Y, Z, C) at `points` (3, N), trilinear, as (C, N); one gather serves all parts."""
    index = (points - np.asarray(origin, np.float32)[:, None]) / np.float32(spacing)
    limit = np.array(field.shape[:3])[:, None] - 1
    index = np.clip(index, 0, limit).astype(np.float32)
    low = np.minimum(index.astype(np.intp), limit - 1)
    share = (index - low).astype(np.float32)
    parts = field.shape[3]
    flat = np.ascontiguousarray(field).reshape(-1, parts)
    # Neighbours in Z lie side by side: one look-up fetches both.
    pairs = np.lib.stride_tricks.as_strided(flat, (len(flat) - 1, 2 * parts), flat.strides, writeable=False)
    across, along = field.shape[1] * field.shape[2], field.shape[2]
    base = low[0] * across + low[1] * along + low[2]
    (x, y, z), (rest_x, rest_y, rest_z) = share, 1 - share
    found = np.zeros((points.shape[1], parts), np.float32)
    for offset, weight in (
        (0, rest_x * rest_y), (along, rest_x * y), (across, x * rest_y), (across + along, x * y),
    ):  # fmt: skip
        both = pairs[base + offset]
        found += (weight * rest_z)[:, None] * both[:, :parts] + (weight * z)[:, None] * both[:, parts:]
    return np.ascontiguousarray(found.T)


def smooth_noise(rng: np.random.Generator, points: Volume, length: float, fields: int) -> Volume:
    """Return `fields` random fields at `points` (3, N), (fields, N), of unit variance, smooth over `length` mm.

    Cubic B-splines of white noise on knots `length` apart; the knots fill a fixed box, so that the same generator
    gives the same field for whichever points are asked for.
    """
    from scipy.ndimage import map_coordinates

    low, high = np.array(LOWEST), np.array(HIGHEST)
    knots = np.ceil((high - low) / length).astype(int) + 1
    index = (points - low[:, None].astype(np.float32)) / np.float32(length)
    # A cubic B-spline of white noise has variance (151 / 315) ** 3 on average: divide it out.
    scale = (151 / 315) ** -1.5
    return np.stack(
        [
            scale
            * map_coordinates(
                rng.standard_normal(knots, dtype=np.float32), index, order=3, prefilter=False, mode="nearest"
            ).astype(np.float32)
            for _ in range(fields)
        ]
    ).astype(np.float32)


def finer(field: Volume, pixels: int) -> Volume:
    """Return `field` (C, n * n), sampled at the pixel centres of a square, as (C, pixels * pixels), linearly."""
    side = round(field.shape[1] ** 0.5)
    index = np.clip((np.arange(pixels) + 0.5) * (side / pixels) - 0.5, 0, side - 1)
    # Separable, and by sums of two instead of a product of matrices: those differ with the number of threads.
    low = np.minimum(index.astype(np.intp), side - 2)
    share = (index - low).astype(np.float32)
    planes = field.reshape(-1, side, side)
    rows = planes[:, low] * (1 - share)[:, None] + planes[:, low + 1] * share[:, None]
    found: Volume = rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share
    return found.reshape(len(field), -1)
