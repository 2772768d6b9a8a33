"""Confidence intervals of the figures in `latentdrift.evaluate.distribution`, `mmd` and `manifold`.

Images of both sets are drawn again, with replacement (bootstrap). A resample repeats images, so its distance is larger
on average than the one of the sets themselves; the interval is therefore the resamples' spread, centred on the value.
It speaks of other samples of the SAME size, not of infinitely many images.

A repeated image would be its own nearest neighbour: for figures of neighbours random halves are drawn instead, without
repeats. A half's figure varies about that of the whole as the whole's about the truth.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.distribution import Array, Grams, check_features, frechet_of_checked, grams, weighted_mmd
from latentdrift.evaluate.manifold import Distances, check_neighbours, figures_of_distances, manifold_figures
from latentdrift.evaluate.mmd import choose_bandwidth, gaussian_grams, grams_of_distances

Counts = npt.NDArray[np.integer[Any]]
MOST_IMAGES = 4000
"""Of a set, for the interval of a kernel distance: three matrices of 128 MB."""
MOST_NEIGHBOURS = 2000
"""Of a set, for the intervals of figures of neighbours, whose matrices are read anew for every half."""

BLOCK = 16
"""Draws of which a thread computes the means at once."""


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
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 100,
    seed: int = 0,
    value: float | None = None,
) -> Interval:
    """Return the bootstrap interval of `frechet_distance(a, b)`.

    Args:
        a: features (n_a, d).
        b: features (n_b, d).
        confidence: coverage, between 0 and 1.
        resamples: how many; each costs one Fréchet distance, much less where a set has n < d.
        seed: of the resamples.
        value: the distance, where it is known already.

    Raises:
        EvaluationError: see `check_features`; or a confidence or number of resamples out of range.
    """
    first, second = check_features(a, b)
    check_settings(confidence, resamples)
    values = frechet_of_draws(first, second, *_counts(len(first), len(second), resamples, seed))
    return centred(frechet_of_checked(first, second) if value is None else value, values, confidence)


def kernel_interval(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    products: Grams | None = None,
) -> Interval:
    """Return the bootstrap interval of the kernel distance of the whole sets `a` (n_a, d) and `b` (n_b, d).

    A resample's pairs of an image with its own copy are left out, which keeps the estimator unbiased. Arguments and
    errors as in `frechet_interval`. Sets above 4,000 images are thinned to that, which widens the interval. `products`
    is what `grams(a, b)` returned, where it is there already.
    """
    first, second = check_features(a, b)
    check_settings(confidence, resamples)
    if products is not None:
        return _kernel_interval(products, confidence, resamples, seed)
    first, second = thinned(first, second, MOST_IMAGES, seed)
    return _kernel_interval(grams(first, second), confidence, resamples, seed)


def gaussian_interval(
    real: npt.ArrayLike,
    synthetic: npt.ArrayLike,
    *,
    bandwidth: float | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    distances: Distances | None = None,
) -> Interval:
    """Return the bootstrap interval of `gaussian_distance(real, synthetic)`, as `kernel_interval` does.

    The bandwidth is that of the whole real set for all resamples; arguments and errors as in these two.
    """
    first, second = check_features(real, synthetic)
    check_settings(confidence, resamples)
    if distances is not None:
        chosen = choose_bandwidth(first, bandwidth, distances.real)
        return _kernel_interval(grams_of_distances(distances, chosen), confidence, resamples, seed)
    chosen = choose_bandwidth(first, bandwidth)
    first, second = thinned(first, second, MOST_IMAGES, seed)
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
    distances: Distances | None = None,
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
        distances: of these features, where they are there already.

    Raises:
        EvaluationError: see `check_features`; a setting out of range; or halves of no more than k images.
    """
    first, second = check_features(real, synthetic)
    check_settings(confidence, resamples)
    ks = (neighbours, density_neighbours)
    settings: Any = {"neighbours": neighbours, "density_neighbours": density_neighbours}
    if distances is None and max(len(first), len(second)) <= MOST_NEIGHBOURS:
        distances = Distances.of(first, second)
    value = manifold_figures(first, second, distances=distances, **settings)
    check_neighbours(min(len(first), len(second)) // 2, *ks)
    counted = {"precision": len(second), "recall": len(first), "coverage": len(first)}
    if distances is None:
        distances = Distances.of(*thinned(first, second, MOST_NEIGHBOURS, seed))
    draw, values = np.random.default_rng(seed), []
    n_real, n_synthetic = distances.across.shape
    for _ in range(resamples):
        # In order, because memory is read faster that way.
        rows = np.sort(draw.permutation(n_real)[: n_real // 2])
        columns = np.sort(draw.permutation(n_synthetic)[: n_synthetic // 2])
        within = _among(distances.real, rows, rows), _among(distances.synthetic, columns, columns)
        half = Distances(*within, _among(distances.across, rows, columns))
        values.append(figures_of_distances(half, *ks))
    found = {}
    for name, drawn in zip(value._fields, np.array(values).T, strict=True):
        middle = getattr(value, name)
        low, high = centred(middle, drawn, confidence)
        if name in counted:
            n = counted[name]
            least = wilson_interval(round(middle * n), n, confidence)
            low, high = min(low, least.low), min(1.0, max(high, least.high))
        found[name] = Interval(max(0.0, low), high)
    return ManifoldIntervals(**found)


def _among(distances: Array, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> Array:
    return distances.take(rows, axis=0).take(columns, axis=1)


def wilson_interval(successes: int, count: int, confidence: float = 0.95) -> Interval:
    """Return the score interval of a share of independent trials (Wilson 1927, JASA 22, 209).

    As scipy.stats.binomtest gives it, whose import alone takes two seconds of every evaluation.
    """
    share, z = successes / count, NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    middle = share + z**2 / (2 * count)
    half = z * float(np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)))
    low, high = ((middle + way * half) / (1 + z**2 / count) for way in (-1, 1))
    # Where none or all succeed an end is 0 or 1 exactly, but for rounding.
    return Interval(0.0 if successes == 0 else low, 1.0 if successes == count else high)


def _kernel_interval(products: Grams, confidence: float, resamples: int, seed: int) -> Interval:
    """Return the bootstrap interval of the unbiased squared MMD of Gram matrices."""
    n_a, n_b = products[2].shape
    counts_a, counts_b = _counts(n_a, n_b, resamples, seed)
    values = weighted_mmd(*products, counts_a.astype(np.float64), counts_b.astype(np.float64))
    value = weighted_mmd(*products, np.ones((1, n_a)), np.ones((1, n_b)))
    return centred(float(value[0]), values, confidence)


def thinned(a: Array, b: Array, most: int, seed: int, *, first_whole: bool = False) -> tuple[Array, Array]:
    """Return both sets, each of at most so many images, drawn at random; the first as it is if wanted."""
    draw = np.random.default_rng(seed)
    first, second = (x if len(x) <= most else x[draw.permutation(len(x))[:most]] for x in (a, b))
    return (a, second) if first_whole else (first, second)


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
    products = _Products(a, b, np.sum(a**2, axis=1), np.sum(b**2, axis=1), a @ b.T)
    # Many matrices of a few hundred rows: a thread each is faster than all threads at one, and they never wait.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as threads:
        blocks = [slice(start, start + BLOCK) for start in range(0, len(counts_a), BLOCK)]
        return np.concatenate(
            list(threads.map(lambda rows: products.distances(counts_a[rows], counts_b[rows]), blocks))
        )


class _Products(NamedTuple):
    """Features of both sets, their squared lengths, and the inner products across the sets (n_a, n_b)."""

    a: Array
    b: Array
    norms_a: Array
    norms_b: Array
    across: Array

    def distances(self, counts_a: Counts, counts_b: Counts) -> Array:
        """Return the Fréchet distance (r,) of every draw."""
        n_a, n_b = counts_a.sum(axis=1).astype(np.float64), counts_b.sum(axis=1).astype(np.float64)
        p, q = counts_a / n_a[:, None], counts_b / n_b[:, None]
        means_a, means_b = p @ self.a, q @ self.b
        total = (p @ self.norms_a - np.sum(means_a**2, axis=1)) * n_a / (n_a - 1)
        total += (q @ self.norms_b - np.sum(means_b**2, axis=1)) * n_b / (n_b - 1)
        shifts_a, shifts_b = q @ self.across.T, p @ self.across  # a @ mean_b and b @ mean_a
        both = np.sum(means_a * means_b, axis=1)
        cross = np.empty(len(n_a))
        for draw, (drawn_a, drawn_b) in enumerate(zip(counts_a, counts_b, strict=True)):
            rows, columns = np.flatnonzero(drawn_a), np.flatnonzero(drawn_b)
            centred = self.across[np.ix_(rows, columns)] - shifts_a[draw, rows, None]
            centred += both[draw] - shifts_b[draw, columns]
            centred *= np.sqrt(drawn_a[rows].astype(np.float64))[:, None]
            centred *= np.sqrt(drawn_b[columns].astype(np.float64))
            squares = np.clip(np.linalg.eigvalsh(centred.T @ centred), 0.0, None)
            cross[draw] = np.sqrt(squares).sum() / np.sqrt((n_a[draw] - 1) * (n_b[draw] - 1))
        return np.asarray(np.maximum(0.0, np.sum((means_a - means_b) ** 2, axis=1) + total - 2.0 * cross))


def centred(value: float, values: Array, confidence: float) -> Interval:
    """Return the central interval of `values` (r,), moved so that their median is `value`."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    middle = float(np.median(values))
    return Interval(value + float(low) - middle, value + float(high) - middle)
