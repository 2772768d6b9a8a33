"""The Fréchet distance of infinitely many images, from what it is for fewer and fewer.

For n images it is too large by about c / n: Chong and Forsyth 2020 (arXiv 1911.07023) draw a line through the distances
of smaller samples over 1 / n and read it at 0. They keep the real set whole; here both sets shrink together, since both
are small. Sizes are a half, a third ... of the sets, cut into parts without overlap: every image counts alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.distribution import Array, check_features
from latentdrift.evaluate.interval import Interval, centred, check_settings, frechet_of_draws, thinned

MOST_EXTRAPOLATED = 3000
"""Of a set."""
Indices = npt.NDArray[np.intp]


class Extrapolation(NamedTuple):
    """The distance at 1 / n = 0, and the line that leads there."""

    value: float
    """The distance for infinitely many images; by chance it may be slightly below 0."""
    interval: Interval | None
    """For other samples of the same size; None if not asked for. It knows nothing of a bend: where the points are no
    line, the truth may be far outside."""
    sizes: tuple[int, ...]
    """Images of the smaller set in each sample, descending."""
    distances: tuple[float, ...]
    """The mean distance at each size; the first is that of the sets themselves."""
    bend: float
    """By how much a parabola through the same points ends elsewhere than the line at 1 / n = 0."""


def frechet_at_infinity(
    real: npt.ArrayLike,
    synthetic: npt.ArrayLike,
    *,
    parts: int = 4,
    draws: int | None = None,
    real_whole: bool = False,
    confidence: float = 0.95,
    resamples: int = 100,
    seed: int = 0,
) -> Extrapolation:
    """Return the Fréchet distance extrapolated to infinitely many images.

    Where n is far below the features' dimensions the distance is no line in 1 / n but bends below it: the value is then
    still too large, though less than the plain distance, and `extrapolation_message` says so.

    Sets above 3,000 images are thinned to that, as each of hundreds of distances costs the cube of its images or of the
    dimensions; the line from 3,000 down is as good, and the interval wider.

    The interval is the spread of what random halves of both sets give, centred on the value: a half without repeats
    varies about the whole as the whole varies about the truth.

    Args:
        real: features (n_real, d).
        synthetic: features (n_synthetic, d).
        parts: the smallest samples are this part of the sets; at least 3, so that a bend shows.
        draws: ways of cutting the sets that are averaged; None takes 10, of sets above 500 images as few as 4, since
            each says more: with 5 of 1,000 the value varies by a thirtieth of its interval's width.
        real_whole: leave the real set whole, as published: for a reference of very many images.
        confidence: coverage of the interval.
        resamples: halves that the interval is made of; 0 for none.
        seed: of all draws.

    Raises:
        EvaluationError: see `check_features`; settings out of range; or fewer than 4 images a part.
    """
    first, second = check_features(real, synthetic)
    first, second = thinned(first, second, MOST_EXTRAPOLATED, seed, first_whole=real_whole)
    smaller = len(second) if real_whole else min(len(first), len(second))
    if draws is None:
        draws = max(4, min(10, 5000 // max(1, smaller)))
    if parts < 3 or draws < 1:
        raise EvaluationError(f"parts={parts}, draws={draws}: give at least 3 parts and 1 draw.")
    if smaller < 4 * parts:
        raise EvaluationError(
            f"{smaller} images are too few to be cut into {parts} parts: at least {4 * parts} are needed in each set."
        )
    generator = np.random.default_rng(seed)
    everyone = _Images(np.arange(len(first)), np.arange(len(second)))
    cuts = [_parts(everyone, parts, real_whole, generator) for _ in range(draws)]
    halves = []
    if resamples:
        check_settings(confidence, resamples)
        for _ in range(resamples):
            half = _Images(
                everyone.real if real_whole else _half(everyone.real, generator), _half(everyone.synthetic, generator)
            )
            halves += [[half], *_parts(half, parts, real_whole, generator)]
    # All at once: what the draws share, the products of all images, is computed once.
    means = _means(first, second, [[everyone], *(level for cut in cuts for level in cut), *halves])
    of_cuts = means[1 : 1 + draws * (parts - 1)].reshape(draws, parts - 1).mean(axis=0)
    of_halves = means[1 + draws * (parts - 1) :].reshape(-1, parts)
    inverse = np.array([smaller / (smaller // part) for part in range(1, parts + 1)])
    distances = np.array([means[0], *of_cuts])
    value = float(np.polyfit(inverse, distances, 1)[-1])
    interval = None
    if resamples:
        interval = centred(value, np.polyfit(inverse, of_halves.T, 1)[-1], confidence)
    return Extrapolation(
        value=value,
        interval=interval,
        sizes=tuple(smaller // part for part in range(1, parts + 1)),
        distances=tuple(float(mean) for mean in distances),
        bend=float(np.polyfit(inverse, distances, 2)[-1]) - value,
    )


def extrapolation_message(found: Extrapolation) -> str | None:
    """Return what to tell the user where the points do not lie on a line, else None."""
    width = 0.0 if found.interval is None else (found.interval.high - found.interval.low) / 2
    if abs(found.bend) <= max(width, 0.05 * abs(found.value)):
        return None
    return (
        f"The Fréchet distance over 1 / n is no line from {found.sizes[-1]} to {found.sizes[0]} images: at infinity "
        f"the line gives {found.value:.2f}, a parabola {found.value + found.bend:.2f}. Take neither as the distance of "
        "many images; add images, or take the kernel distance, which has no such bias."
    )


class _Images(NamedTuple):
    """Which images of both sets are taken, by index."""

    real: Indices
    synthetic: Indices


def _half(images: Indices, generator: np.random.Generator) -> Indices:
    return images[generator.permutation(len(images))[: len(images) // 2]]


def _parts(images: _Images, parts: int, real_whole: bool, generator: np.random.Generator) -> list[list[_Images]]:
    """Return images cut into 2, 3 ... `parts` parts without overlap."""
    real, synthetic = (order[generator.permutation(len(order))] for order in images)
    return [
        [
            _Images(a, b)
            for a, b in zip([real] * part if real_whole else _pieces(real, part), _pieces(synthetic, part), strict=True)
        ]
        for part in range(2, parts + 1)
    ]


def _pieces(order: Indices, part: int) -> list[Indices]:
    size = len(order) // part
    return [order[start * size : (start + 1) * size] for start in range(part)]


def _means(a: Array, b: Array, levels: list[list[_Images]]) -> Array:
    """Return the mean distance of each level's draws."""
    drawn = [images for level in levels for images in level]
    counts_a, counts_b = (np.zeros((len(drawn), len(x)), dtype=np.uint8) for x in (a, b))
    for row, images in enumerate(drawn):
        counts_a[row, images.real] = 1
        counts_b[row, images.synthetic] = 1
    values = frechet_of_draws(a, b, counts_a, counts_b)
    ends = np.cumsum([len(level) for level in levels])
    return np.array([part.mean() for part in np.split(values, ends[:-1])])
