"""Distances between two sets of features, as pure functions on arrays.

Everything is computed in float64 with NumPy. Images become features in `latentdrift.evaluate.features`.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError

Array = npt.NDArray[np.float64]
MOST_AT_ONCE = 6000
"""Images of a set whose kernel is one matrix: 288 MB."""
Grams = tuple[Array, Array, Array]
"""A kernel within one set, within another and across."""


class SmallSampleWarning(UserWarning):
    """Fewer images than feature dimensions: the covariance is singular and the Fréchet distance biased upwards."""


class KernelDistance(NamedTuple):
    """Mean and standard deviation of the squared MMD over random subsets."""

    value: float
    std: float


def check_features(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Array, Array]:
    """Return both feature sets as float64 arrays of shape (n, d).

    Raises:
        EvaluationError: not two-dimensional, fewer than two rows, NaN or infinite values, or different d.
    """
    checked = []
    for name, features in (("first", a), ("second", b)):
        array = np.asarray(features, dtype=np.float64)
        if array.ndim != 2:
            raise EvaluationError(
                f"The {name} feature set has shape {array.shape}; give an array (n, d), one row an image."
            )
        if len(array) < 2:
            raise EvaluationError(
                f"The {name} feature set has {len(array)} image(s); a distribution needs at least two. Add images."
            )
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if bad.size:
            raise EvaluationError(
                f"The {name} feature set has NaN or infinite values in {bad.size} row(s), the first is row {bad[0]}. "
                "Look at these images; a black or broken sample gives such features."
            )
        checked.append(array)
    first, second = checked
    if first.shape[1] != second.shape[1]:
        raise EvaluationError(
            f"The feature sets have {first.shape[1]} and {second.shape[1]} dimensions. Use the same extractor for both."
        )
    return first, second


def small_sample_message(n_a: int, n_b: int, d: int) -> str | None:
    """Return what to tell the user when one set has fewer images than features have dimensions, else None."""
    n = min(n_a, n_b)
    if n >= d:
        return None
    return (
        f"{n} images for {d} feature dimensions: the Fréchet distance is biased upwards. Compare it only with figures "
        "from as many images, and prefer the kernel distance."
    )


def frechet_distance(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the Fréchet distance (FID on Inception features) of two feature sets.

    |mean_a - mean_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), Heusel et al. 2017 (arXiv 1706.08500), covariances with
    n - 1. With centred features A, B the last trace is the nuclear norm of A B^T / sqrt((n_a - 1)(n_b - 1)): exact, and
    small where n < d. Where both n >= d, a symmetric eigendecomposition of the covariances.

    Args:
        a: features (n_a, d).
        b: features (n_b, d).

    Raises:
        EvaluationError: see `check_features`.

    Warns:
        SmallSampleWarning: n < d.
    """
    first, second = check_features(a, b)
    message = small_sample_message(len(first), len(second), first.shape[1])
    if message:
        warnings.warn(message, SmallSampleWarning, stacklevel=2)
    return frechet_of_checked(first, second)


def frechet_of_checked(a: Array, b: Array) -> float:
    """Return the Fréchet distance of arrays that `check_features` returned, without a warning."""
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    root_a = (a - mean_a) / np.sqrt(len(a) - 1)
    root_b = (b - mean_b) / np.sqrt(len(b) - 1)
    shift = float(np.sum((mean_a - mean_b) ** 2))
    total = float(np.sum(root_a**2) + np.sum(root_b**2))
    d = a.shape[1]
    if min(len(a), len(b)) < d:
        cross = _nuclear_norm(_shorten(root_a), _shorten(root_b))
    else:
        cross = _trace_of_root(root_a.T @ root_a, root_b.T @ root_b)
    # Rounding can take the distance of a set to itself just below zero, which no distance is.
    return max(0.0, shift + total - 2.0 * cross)


def _shorten(root: Array) -> Array:
    """Return a factor with the same root^T root and at most d rows."""
    rows, columns = root.shape
    return np.asarray(np.linalg.qr(root, mode="r")) if rows > columns else root


def _nuclear_norm(root_a: Array, root_b: Array) -> float:
    return float(np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum())


def _trace_of_root(cov_a: Array, cov_b: Array) -> float:
    """Return tr (cov_a cov_b)^(1/2) as tr (R cov_b R)^(1/2) with the symmetric root R of cov_a."""
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    values = np.linalg.eigvalsh(root.T @ cov_b @ root)
    # Below this an eigenvalue is rounding noise, and its square root would not be small.
    floor = values[-1] * len(values) * np.finfo(np.float64).eps
    return float(np.sqrt(values[values > floor]).sum())


def kernel_distance(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    subsets: int = 100,
    subset_size: int | None = None,
    seed: int = 0,
    products: Grams | None = None,
) -> KernelDistance:
    """Return the kernel distance (KID on Inception features): unbiased squared MMD, mean and std over subsets.

    Kernel (x y / d + 1)^3, Bińkowski et al. 2018 (arXiv 1801.01401). Subsets are drawn as torch-fidelity draws them,
    so that the same seed gives its number. The value may be slightly negative: the estimator is unbiased.

    Args:
        a: features (n_a, d).
        b: features (n_b, d).
        subsets: how many subsets.
        subset_size: images in a subset; None takes half of the smaller set, at most 1000 (the published setting).
        seed: of the subsets.
        products: what `grams(a, b)` returned, where it is there already.

    Raises:
        EvaluationError: see `check_features`; or a subset size below two or above the smaller set.
    """
    first, second = check_features(a, b)
    smaller = min(len(first), len(second))
    size = default_subset_size(smaller) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise EvaluationError(
            f"subset_size={size} does not fit: give at least 2 and at most {smaller}, the size of the smaller set."
        )
    if subsets < 1:
        raise EvaluationError(f"subsets={subsets}: at least one subset is needed.")
    draw = np.random.RandomState(seed)
    chosen = [
        (draw.choice(len(first), size, replace=False), draw.choice(len(second), size, replace=False))
        for _ in range(subsets)
    ]
    # One Gram matrix for all subsets, unless the sets are so large that the subsets' own matrices are less work.
    fewer = (len(first) + len(second)) ** 2 <= 4 * subsets * size**2 and max(len(first), len(second)) <= MOST_AT_ONCE
    if products is not None or fewer:
        weights_a, weights_b = np.zeros((subsets, len(first))), np.zeros((subsets, len(second)))
        for row, (rows_a, rows_b) in enumerate(chosen):
            weights_a[row, rows_a] = 1.0
            weights_b[row, rows_b] = 1.0
        values = weighted_mmd(*(products or grams(first, second)), weights_a, weights_b)
    else:
        ones = np.ones((1, size))
        values = np.concatenate([weighted_mmd(*grams(first[i], second[j]), ones, ones) for i, j in chosen])
    return KernelDistance(float(values.mean()), float(values.std()))


def default_subset_size(n: int) -> int:
    """Return the size of a subset for the smaller set's size: half of it, so that subsets differ, at most 1000."""
    return max(2, min(1000, n // 2))


def grams(a: Array, b: Array) -> Grams:
    """Return the cubic polynomial kernel within `a` (n_a, n_a), within `b` (n_b, n_b) and across (n_a, n_b)."""
    d = a.shape[1]

    def kernel(x: Array, y: Array) -> Any:
        product = x @ y.T
        product /= d
        product += 1.0
        return product * product * product

    return kernel(a, a), kernel(b, b), kernel(a, b)


def weighted_mmd(within_a: Array, within_b: Array, across: Array, weights_a: Array, weights_b: Array) -> Array:
    """Return the unbiased squared MMD (r,) for r weightings of the images; a pair of an image with itself never counts.

    Args:
        within_a: Gram matrix (n_a, n_a).
        within_b: Gram matrix (n_b, n_b).
        across: Gram matrix (n_a, n_b).
        weights_a: how often each image counts, (r, n_a): 0 or 1 for a subset, counts for a bootstrap resample.
        weights_b: the same, (r, n_b).
    """

    def within(gram: Array, weights: Array) -> Array:
        squares = weights**2
        pairs = weights.sum(axis=1) ** 2 - squares.sum(axis=1)
        return np.asarray((np.sum((weights @ gram) * weights, axis=1) - squares @ np.diag(gram)) / pairs)

    crossed = np.sum((weights_a @ across) * weights_b, axis=1) / (weights_a.sum(axis=1) * weights_b.sum(axis=1))
    return np.asarray(within(within_a, weights_a) + within(within_b, weights_b) - 2.0 * crossed)
