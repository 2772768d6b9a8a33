"""Bootstrap confidence intervals of the distances in `latentdrift.evaluate.distribution`.

Images of both sets are drawn again, with replacement. A resample repeats images, so its distance is larger on average
than the one of the sets themselves; the interval is therefore the resamples' spread, centred on the value. It speaks of
other samples of the SAME size, not of infinitely many images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.distribution import Array, check_features, frechet_of_checked, grams, weighted_mmd


class Interval(NamedTuple):
    """Lower and upper end of a confidence interval."""

    low: float
    high: float


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
    _check_settings(confidence, resamples)
    counts_a, counts_b = _counts(len(first), len(second), resamples, seed)
    n_a, n_b, d = len(first), len(second), first.shape[1]
    if min(n_a, n_b) < d:
        values = _frechet_from_products(first, second, counts_a, counts_b)
    else:
        values = np.array(
            [
                frechet_of_checked(np.repeat(first, w_a, axis=0), np.repeat(second, w_b, axis=0))
                for w_a, w_b in zip(counts_a, counts_b, strict=True)
            ]
        )
    return _centred(frechet_of_checked(first, second), values, confidence)


def kernel_interval(
    a: npt.ArrayLike, b: npt.ArrayLike, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Return the bootstrap interval of the kernel distance of the whole sets `a` (n_a, d) and `b` (n_b, d).

    A resample's pairs of an image with its own copy are left out, which keeps the estimator unbiased. Arguments and
    errors as in `frechet_interval`. Sets above 4,000 images are thinned to that, which widens the interval.
    """
    first, second = check_features(a, b)
    _check_settings(confidence, resamples)
    draw = np.random.default_rng(seed)
    first, second = (x if len(x) <= 4000 else x[draw.permutation(len(x))[:4000]] for x in (first, second))
    products = grams(first, second)
    counts_a, counts_b = _counts(len(first), len(second), resamples, seed)
    values = weighted_mmd(*products, counts_a.astype(np.float64), counts_b.astype(np.float64))
    value = weighted_mmd(*products, np.ones((1, len(first))), np.ones((1, len(second))))
    return _centred(float(value[0]), values, confidence)


def _check_settings(confidence: float, resamples: int) -> None:
    if not 0.0 < confidence < 1.0:
        raise EvaluationError(f"confidence={confidence}: give a number between 0 and 1, such as 0.95.")
    if resamples < 10:
        raise EvaluationError(f"resamples={resamples}: an interval needs at least 10, better 100.")


def _counts(n_a: int, n_b: int, resamples: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return how often each image is drawn, (resamples, n_a) and (resamples, n_b); never one image alone."""
    draw = np.random.default_rng(seed)

    def counts(n: int) -> npt.NDArray[np.int64]:
        drawn = draw.multinomial(n, np.full(n, 1.0 / n), size=resamples)
        while (single := (drawn > 0).sum(axis=1) < 2).any():
            drawn[single] = draw.multinomial(n, np.full(n, 1.0 / n), size=int(single.sum()))
        return np.asarray(drawn, dtype=np.int64)

    return counts(n_a), counts(n_b)


def _frechet_from_products(
    a: Array, b: Array, counts_a: npt.NDArray[np.int64], counts_b: npt.NDArray[np.int64]
) -> Array:
    """Return the Fréchet distance (r,) of every resample from the inner products of images across the sets.

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
        p, q = drawn_a / drawn_a.sum(), drawn_b / drawn_b.sum()
        mean_a, mean_b = p @ a, q @ b
        total = (p @ norms_a - mean_a @ mean_a) * len(a) / (len(a) - 1)
        total += (q @ norms_b - mean_b @ mean_b) * len(b) / (len(b) - 1)
        rows, columns = np.flatnonzero(drawn_a), np.flatnonzero(drawn_b)
        centred = across[np.ix_(rows, columns)] - (a[rows] @ mean_b)[:, None]
        centred += mean_a @ mean_b - (b[columns] @ mean_a)[None, :]
        centred *= np.sqrt(drawn_a[rows])[:, None] * np.sqrt(drawn_b[columns])[None, :]
        squares = np.clip(np.linalg.eigvalsh(centred.T @ centred), 0.0, None)
        cross = np.sqrt(squares).sum() / np.sqrt((len(a) - 1) * (len(b) - 1))
        values.append(max(0.0, float(np.sum((mean_a - mean_b) ** 2) + total - 2.0 * cross)))
    return np.array(values)


def _centred(value: float, values: Array, confidence: float) -> Interval:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    middle = float(np.median(values))
    return Interval(value + float(low) - middle, value + float(high) - middle)
