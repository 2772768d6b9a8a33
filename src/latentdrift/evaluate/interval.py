"""Confidence intervals of the figures in `latentdrift.evaluate.distribution`, `mmd` and `manifold`.

Images of both sets are drawn again, with replacement (bootstrap). A resample repeats images, so its distance is larger
on average than the one of the sets themselves; the interval is therefore the resamples' spread, centred on the value.
It speaks of other samples of the SAME size, not of infinitely many images.

A repeated image would be its own nearest neighbour: for figures of neighbours random halves are drawn instead, without
repeats. A half's figure varies about that of the whole as the whole's about the truth.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.distribution import Array, check_features, frechet_of_checked, grams, weighted_mmd
from latentdrift.evaluate.manifold import (
    Balls,
    check_neighbours,
    figures_of_blocks,
    manifold_figures,
    squared_distances,
    squared_radii,
)
from latentdrift.evaluate.mmd import choose_bandwidth, gaussian_grams

Counts = npt.NDArray[np.int64]
MOST_IMAGES = 4000
"""Of a set, for the interval of a kernel distance: three matrices of 128 MB."""
MOST_NEIGHBOURS = 2000
"""Of a set, for the intervals of figures of neighbours, whose matrices are read anew for every half."""


class Interval(NamedTuple):
    """Lower and upper end of a confidence interval."""

    low: float
    high: float


class ManifoldIntervals(NamedTuple):
    """Intervals of precision, recall, density and coverage."""

    precision: Interval
    recall: Interval
    density: Interval
    coverage: Interval


def frechet_interval(
    a: npt.ArrayLike, b: npt.ArrayLike, *, confidence: float = 0.95, resamples: int = 100, seed: int = 0
) -> Interval:
    """Return the bootstrap interval of `frechet_distance(a, b)`.

    Args:
        a: features (n_a, d).
        b: features (n_b, d).
        confidence: coverage, between 0 and 1.
        resamples: how many; each costs one Fréchet distance, much less where a set has n < d.
        seed: of the resamples.

    Raises:
        EvaluationError: see `check_features`; or a confidence or number of resamples out of range.
    """
    first, second = check_features(a, b)
    check_settings(confidence, resamples)
    values = frechet_of_draws(first, second, *_counts(len(first), len(second), resamples, seed))
    return centred(frechet_of_checked(first, second), values, confidence)


def kernel_interval(
    a: npt.ArrayLike, b: npt.ArrayLike, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Return the bootstrap interval of the kernel distance of the whole sets `a` (n_a, d) and `b` (n_b, d).

    A resample's pairs of an image with its own copy are left out, which keeps the estimator unbiased. Arguments and
    errors as in `frechet_interval`. Sets above 4,000 images are thinned to that, which widens the interval.
    """
    first, second = check_features(a, b)
    check_settings(confidence, resamples)
    first, second = _thinned(first, second, MOST_IMAGES, seed)
    return _kernel_interval(grams(first, second), confidence, resamples, seed)


def gaussian_interval(
    real: npt.ArrayLike,
    synthetic: npt.ArrayLike,
    *,
    bandwidth: float | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the bootstrap interval of `gaussian_distance(real, synthetic)`, as `kernel_interval` does.

    The bandwidth is that of the whole real set for all resamples; arguments and errors as in these two.
    """
    first, second = check_features(real, synthetic)
    check_settings(confidence, resamples)
    chosen = choose_bandwidth(first, bandwidth)
    first, second = _thinned(first, second, MOST_IMAGES, seed)
    return _kernel_interval(gaussian_grams(first, second, chosen), confidence, resamples, seed)


def manifold_intervals(
    real: npt.ArrayLike,
    synthetic: npt.ArrayLike,
    *,
    neighbours: int = 3,
    density_neighbours: int = 5,
    confidence: float = 0.95,
    resamples: int = 200,
    seed: int = 0,
) -> ManifoldIntervals:
    """Return the intervals of `manifold_figures(real, synthetic)`, from random halves of both sets.

    A share's interval is never narrower than Wilson's for as many independent images: where all of few images are
    inside, the halves alone would say that there is no doubt. Sets above 2,000 images are thinned to that, which widens
    the interval.

    Args:
        real: features (n_real, d).
        synthetic: features (n_synthetic, d).
        neighbours: k of precision and recall.
        density_neighbours: k of density and coverage.
        confidence: coverage of each interval, between 0 and 1.
        resamples: how many halves.
        seed: of the halves.

    Raises:
        EvaluationError: see `check_features`; a setting out of range; or halves of no more than k images.
    """
    from scipy.stats import binomtest

    first, second = check_features(real, synthetic)
    check_settings(confidence, resamples)
    ks = (neighbours, density_neighbours)
    value = manifold_figures(first, second, neighbours=neighbours, density_neighbours=density_neighbours)
    check_neighbours(min(len(first), len(second)) // 2, *ks)
    counted = {"precision": len(second), "recall": len(first), "coverage": len(first)}
    first, second = _thinned(first, second, MOST_NEIGHBOURS, seed)
    across = squared_distances(first, second)
    within_a, within_b = squared_distances(first, first), squared_distances(second, second)
    draw, whole, values = np.random.default_rng(seed), slice(None), []
    for _ in range(resamples):
        rows = draw.permutation(len(first))[: len(first) // 2]
        columns = draw.permutation(len(second))[: len(second) // 2]
        near, dense = squared_radii([(whole, within_a[np.ix_(rows, rows)])], ks)
        (made,) = squared_radii([(whole, within_b[np.ix_(columns, columns)])], ks[:1])
        blocks = [(whole, across[np.ix_(rows, columns)])]
        values.append(figures_of_blocks(Balls(near, made, dense), blocks, density_neighbours))
    found = {}
    for name, drawn in zip(value._fields, np.array(values).T, strict=True):
        middle = getattr(value, name)
        low, high = centred(middle, drawn, confidence)
        if name in counted:
            n = counted[name]
            least = binomtest(round(middle * n), n).proportion_ci(confidence, method="wilson")
            low, high = min(low, least.low), min(1.0, max(high, least.high))
        found[name] = Interval(max(0.0, low), high)
    return ManifoldIntervals(**found)


def _kernel_interval(products: tuple[Array, Array, Array], confidence: float, resamples: int, seed: int) -> Interval:
    """Return the bootstrap interval of the unbiased squared MMD of Gram matrices."""
    n_a, n_b = products[2].shape
    counts_a, counts_b = _counts(n_a, n_b, resamples, seed)
    values = weighted_mmd(*products, counts_a.astype(np.float64), counts_b.astype(np.float64))
    value = weighted_mmd(*products, np.ones((1, n_a)), np.ones((1, n_b)))
    return centred(float(value[0]), values, confidence)


def _thinned(a: Array, b: Array, most: int, seed: int) -> tuple[Array, Array]:
    """Return both sets, each of at most so many images."""
    draw = np.random.default_rng(seed)
    first, second = (x if len(x) <= most else x[draw.permutation(len(x))[:most]] for x in (a, b))
    return first, second


def check_settings(confidence: float, resamples: int) -> None:
    """Raise EvaluationError for a confidence or number of resamples out of range."""
    if not 0.0 < confidence < 1.0:
        raise EvaluationError(f"confidence={confidence}: give a number between 0 and 1, such as 0.95.")
    if resamples < 10:
        raise EvaluationError(f"resamples={resamples}: an interval needs at least 10, better 100.")


def _counts(n_a: int, n_b: int, resamples: int, seed: int) -> tuple[Counts, Counts]:
    """Return how often each image is drawn, (resamples, n_a) and (resamples, n_b); never one image alone."""
    draw = np.random.default_rng(seed)

    def counts(n: int) -> Counts:
        drawn = draw.multinomial(n, np.full(n, 1.0 / n), size=resamples)
        while (single := (drawn > 0).sum(axis=1) < 2).any():
            drawn[single] = draw.multinomial(n, np.full(n, 1.0 / n), size=int(single.sum()))
        return np.asarray(drawn, dtype=np.int64)

    return counts(n_a), counts(n_b)


def frechet_of_draws(a: Array, b: Array, counts_a: Counts, counts_b: Counts) -> Array:
    """Return the Fréchet distance (r,) of every draw of images from `a` (n_a, d) and `b` (n_b, d).

    Args:
        a: features that `check_features` returned.
        b: the same.
        counts_a: how often each image is drawn, (r, n_a): 0 or 1 for a subset, more for a resample.
        counts_b: the same, (r, n_b).
    """
    few = np.minimum(counts_a.sum(axis=1), counts_b.sum(axis=1)) < a.shape[1]
    values = np.empty(len(few))
    if few.any():
        values[few] = _frechet_from_products(a, b, counts_a[few], counts_b[few])
    for row in np.flatnonzero(~few):
        drawn_a, drawn_b = np.repeat(a, counts_a[row], axis=0), np.repeat(b, counts_b[row], axis=0)
        values[row] = frechet_of_checked(drawn_a, drawn_b)
    return values


def _frechet_from_products(a: Array, b: Array, counts_a: Counts, counts_b: Counts) -> Array:
    """Return the Fréchet distance (r,) of every draw from the inner products of images across the sets.

    The d-dimensional features are multiplied once; a resample costs a weighted centring and the eigenvalues of a matrix
    as large as the images drawn from the smaller set. Squaring the singular values costs half the digits of the
    smallest, far below what an interval shows.
    """
    if len(a) < len(b):
        a, b, counts_a, counts_b = b, a, counts_b, counts_a
    # Distances do not depend on the origin; a near one keeps the inner products small and the rounding with them.
    origin = b.mean(axis=0)
    a, b = a - origin, b - origin
    across, norms_a, norms_b = a @ b.T, np.sum(a**2, axis=1), np.sum(b**2, axis=1)
    values = []
    for drawn_a, drawn_b in zip(counts_a, counts_b, strict=True):
        n_a, n_b = int(drawn_a.sum()), int(drawn_b.sum())
        p, q = drawn_a / n_a, drawn_b / n_b
        mean_a, mean_b = p @ a, q @ b
        total = (p @ norms_a - mean_a @ mean_a) * n_a / (n_a - 1)
        total += (q @ norms_b - mean_b @ mean_b) * n_b / (n_b - 1)
        rows, columns = np.flatnonzero(drawn_a), np.flatnonzero(drawn_b)
        shift_a, shift_b = across @ q, p @ across  # a @ mean_b and b @ mean_a
        centred = across[np.ix_(rows, columns)] - shift_a[rows, None]
        centred += mean_a @ mean_b - shift_b[columns]
        centred *= np.sqrt(drawn_a[rows])[:, None] * np.sqrt(drawn_b[columns])[None, :]
        squares = np.clip(np.linalg.eigvalsh(centred.T @ centred), 0.0, None)
        cross = np.sqrt(squares).sum() / np.sqrt((n_a - 1) * (n_b - 1))
        values.append(max(0.0, float(np.sum((mean_a - mean_b) ** 2) + total - 2.0 * cross)))
    return np.array(values)


def centred(value: float, values: Array, confidence: float) -> Interval:
    """Return the central interval of `values` (r,), moved so that their median is `value`."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    middle = float(np.median(values))
    return Interval(value + float(low) - middle, value + float(high) - middle)
