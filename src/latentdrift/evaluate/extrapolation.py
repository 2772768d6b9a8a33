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
from latentdrift.evaluate.interval import Interval, centred, check_settings, frechet_of_draws

Counts = npt.NDArray[np.int64]


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
    draws: int = 10,
    real_whole: bool = False,
    confidence: float = 0.95,
    resamples: int = 100,
    seed: int = 0,
) -> Extrapolation:
    """Return the Fréchet distance extrapolated to infinitely many images.

    Where n is far below the features' dimensions the distance is no line in 1 / n but bends below it: the value is then
    still too large, though less than the plain distance, and `extrapolation_message` says so.

    The interval is the spread of what random halves of both sets give, centred on the value: a half without repeats
    varies about the whole as the whole varies about the truth.

    Args:
        real: features (n_real, d).
        synthetic: features (n_synthetic, d).
        parts: the smallest samples are this part of the sets; at least 3, so that a bend shows.
        draws: ways of cutting the sets that are averaged.
        real_whole: leave the real set whole, as published: for a reference of very many images.
        confidence: coverage of the interval.
        resamples: halves that the interval is made of; 0 for none.
        seed: of all draws.

    Raises:
        EvaluationError: see `check_features`; settings out of range; or fewer than 4 images a part.
    """
    first, second = check_features(real, synthetic)
    smaller = len(second) if real_whole else min(len(first), len(second))
    if parts < 3 or draws < 1:
        raise EvaluationError(f"parts={parts}, draws={draws}: give at least 3 parts and 1 draw.")
    if smaller < 4 * parts:
        raise EvaluationError(
            f"{smaller} images are too few to be cut into {parts} parts: at least {4 * parts} are needed in each set."
        )
    generator = np.random.default_rng(seed)
    cuts = [_cut(len(first), len(second), parts, real_whole, generator) for _ in range(draws)]
    means = np.mean([_means(first, second, cut) for cut in cuts], axis=0)
    inverse = np.array([smaller / (smaller // part) for part in range(1, parts + 1)])
    value = float(np.polyfit(inverse, means, 1)[-1])
    interval = None
    if resamples:
        check_settings(confidence, resamples)
        found = []
        for _ in range(resamples):
            half_a = first if real_whole else _half(first, generator)
            half_b = _half(second, generator)
            distances = _means(half_a, half_b, _cut(len(half_a), len(half_b), parts, real_whole, generator))
            found.append(float(np.polyfit(inverse, distances, 1)[-1]))
        interval = centred(value, np.array(found), confidence)
    return Extrapolation(
        value=value,
        interval=interval,
        sizes=tuple(smaller // part for part in range(1, parts + 1)),
        distances=tuple(float(mean) for mean in means),
        bend=float(np.polyfit(inverse, means, 2)[-1]) - value,
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


def _half(features: Array, generator: np.random.Generator) -> Array:
    return features[generator.permutation(len(features))[: len(features) // 2]]


def _cut(
    n_a: int, n_b: int, parts: int, real_whole: bool, generator: np.random.Generator
) -> list[tuple[Counts, Counts]]:
    """Return, for 1 to `parts` parts, which images are in each part, as counts (part, n_a) and (part, n_b)."""
    order_a, order_b = generator.permutation(n_a), generator.permutation(n_b)

    def counts(order: npt.NDArray[np.int64], part: int) -> Counts:
        found = np.zeros((part, len(order)), dtype=np.int64)
        size = len(order) // part
        found[np.repeat(np.arange(part), size), order[: part * size]] = 1
        return found

    return [
        (np.ones((part, n_a), dtype=np.int64) if real_whole else counts(order_a, part), counts(order_b, part))
        for part in range(1, parts + 1)
    ]


def _means(a: Array, b: Array, cut: list[tuple[Counts, Counts]]) -> Array:
    """Return the mean distance of the parts, for each number of parts."""
    values = frechet_of_draws(a, b, np.concatenate([x for x, _ in cut]), np.concatenate([y for _, y in cut]))
    ends = np.cumsum([len(x) for x, _ in cut])
    return np.array([part.mean() for part in np.split(values, ends[:-1])])
