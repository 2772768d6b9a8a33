"""Maximum mean discrepancy with a Gaussian kernel, as CMMD has it, on any features.

It supposes no shape of the distribution, unlike the Fréchet distance, and is unbiased however few images there are.
Jayasumana et al. 2024 (arXiv 2401.09603); Gretton et al. 2012 (JMLR 13, 723).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.distribution import Array, Grams, check_features, weighted_mmd
from latentdrift.evaluate.manifold import Distances, distance_blocks, squared_distances

CMMD_BANDWIDTH = 10.0
CMMD_SCALE = 1000.0
"""Of the published figure, on CLIP's image embeddings of length 1."""
MOST_FOR_MEDIAN = 2000
"""Images of whose distances the median is taken."""


class GaussianDistance(NamedTuple):
    """The squared MMD, and the kernel's bandwidth."""

    value: float
    """0 for equal distributions, at most 2; slightly negative at times, as the estimator is unbiased."""
    bandwidth: float
    """Standard deviation of the Gaussian, in units of the features. Compare only figures of the same."""


def gaussian_distance(
    real: npt.ArrayLike,
    synthetic: npt.ArrayLike,
    *,
    bandwidth: float | None = None,
    distances: Distances | None = None,
) -> GaussianDistance:
    """Return the unbiased squared MMD with the kernel exp(-|x - y|^2 / (2 bandwidth^2)).

    Args:
        real: features (n_real, d).
        synthetic: features (n_synthetic, d).
        bandwidth: of the kernel; None takes the median distance of two real images, so that it is the same for all
            synthetic sets that are compared with one real set.
        distances: of these features, where they are there already.

    Raises:
        EvaluationError: see `check_features`; or a bandwidth that is not above 0.
    """
    first, second = check_features(real, synthetic)
    chosen = choose_bandwidth(first, bandwidth, None if distances is None else distances.real)
    if distances is not None:
        ones = np.ones((1, len(first))), np.ones((1, len(second)))
        return GaussianDistance(float(weighted_mmd(*grams_of_distances(distances, chosen), *ones)[0]), chosen)
    n, m = len(first), len(second)
    # An image's kernel with itself is 1, which these sums leave out already.
    within = kernel_sum(first, first, chosen) / (n * (n - 1)) + kernel_sum(second, second, chosen) / (m * (m - 1))
    return GaussianDistance(within - 2.0 * kernel_sum(first, second, chosen) / (n * m), chosen)


def cmmd(real: npt.ArrayLike, synthetic: npt.ArrayLike) -> float:
    """Return CMMD as published: 1000 times the biased squared MMD, bandwidth 10, features scaled to length 1.

    The published figures are of CLIP's projected image embeddings (ViT-L/14, 336 pixels). The biased estimate counts an
    image's likeness to itself: two sets of n images of one distribution are about 1000 / n times the mean of
    1 - kernel, twice, apart. For few images take `gaussian_distance`.

    Args:
        real: features (n_real, d).
        synthetic: features (n_synthetic, d).

    Raises:
        EvaluationError: see `check_features`; or features of length 0.
    """
    units = []
    for name, features in zip(("first", "second"), check_features(real, synthetic), strict=True):
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        zero = np.flatnonzero(lengths == 0)
        if zero.size:
            raise EvaluationError(
                f"Row {zero[0]} of the {name} feature set is 0 and cannot be scaled to length 1. Look at this image, "
                "or use gaussian_distance."
            )
        units.append(features / lengths)
    a, b = units
    pairs = ((a, a, 1.0), (b, b, 1.0), (a, b, -2.0))
    return CMMD_SCALE * sum(sign * kernel_sum(x, y, CMMD_BANDWIDTH) / (len(x) * len(y)) for x, y, sign in pairs)


def choose_bandwidth(real: Array, bandwidth: float | None, distances: Array | None = None) -> float:
    """Return a bandwidth above 0: the one given, or the median distance of two images of `real` (n, d).

    Of many images evenly spaced ones are taken, at most 2,000. `distances` is the squared ones (n, n) within `real`,
    where they are there already.

    Raises:
        EvaluationError: it is not above 0, or most real images are one.
    """
    if bandwidth is not None:
        if not 0.0 < bandwidth < np.inf:
            raise EvaluationError(f"bandwidth={bandwidth}: give a number above 0, or none for the median distance.")
        return float(bandwidth)
    step = -(-len(real) // MOST_FOR_MEDIAN)
    squares = squared_distances(real[::step], real[::step]) if distances is None else distances[::step, ::step]
    median = float(np.median(np.sqrt(squares[np.triu(np.ones(squares.shape, dtype=bool), 1)])))
    if median == 0.0:
        raise EvaluationError("Most of the first feature set is one and the same: give a bandwidth above 0.")
    return median


def kernel_sum(x: Array, y: Array, bandwidth: float) -> float:
    """Return the sum of kernel - 1 over all pairs of `x` (n, d) and `y` (m, d), block by block: for any n and m."""
    return sum(float(np.expm1(squares / (-2.0 * bandwidth**2)).sum()) for _, squares in distance_blocks(x, y))


def gaussian_grams(a: Array, b: Array, bandwidth: float) -> Grams:
    """Return `grams_of_distances` of features `a` (n_a, d) and `b` (n_b, d)."""
    return grams_of_distances(Distances.of(a, b), bandwidth)


def grams_of_distances(distances: Distances, bandwidth: float) -> Grams:
    """Return kernel - 1 within the first set (n_a, n_a), within the second (n_b, n_b) and across (n_a, n_b).

    The ones cancel in every MMD; without them nothing is lost to rounding where the bandwidth is large.
    """

    def kernel(squares: Array) -> Array:
        return np.asarray(np.expm1(squares / (-2.0 * bandwidth**2)))

    return kernel(distances.real), kernel(distances.synthetic), kernel(distances.across)
