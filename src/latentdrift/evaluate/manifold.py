"""How many synthetic images look real, and how many real ones are matched: precision, recall, density, coverage.

Each image of a set stands in a ball that reaches to its k-th nearest neighbour in that set; the balls together are the
set's manifold. Distances are Euclidean, of features, in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.distribution import Array, check_features

ENTRIES = 1 << 23
"""Of a block of distances: 64 MB."""
ROUNDING = 1e-13
"""Squared distances below this part of the squared lengths are rounding: copies of an image are at 0."""
TIE = 1e-9
"""Relative; a neighbour on the ball's surface is inside, and its copy too, whose distance was rounded otherwise."""

Block = tuple[slice, Array]
"""Rows of the real set, and their squared distances to all synthetic images."""


class ManifoldFigures(NamedTuple):
    """Precision, recall, density and coverage; 0 to 1, density from 0, about 1 for sets of one distribution."""

    precision: float
    """Share of synthetic images inside a ball of a real one: they look real."""
    recall: float
    """Share of real images inside a ball of a synthetic one: the generator could make them."""
    density: float
    """In how many real balls a synthetic image is on average, over k: an outlier of the real set counts little."""
    coverage: float
    """Share of real images with a synthetic one in their ball."""


class Balls(NamedTuple):
    """Squared radii."""

    real: Array
    """For precision, (n_real,)."""
    synthetic: Array
    """For recall, (n_synthetic,)."""
    dense: Array
    """Of the real images for density and coverage, (n_real,)."""


class Distances(NamedTuple):
    """Squared Euclidean distances of two sets, for whoever needs them more than once."""

    real: Array
    """Within the real set, (n_real, n_real)."""
    synthetic: Array
    """Within the synthetic set, (n_synthetic, n_synthetic)."""
    across: Array
    """(n_real, n_synthetic)."""

    @classmethod
    def of(cls, real: Array, synthetic: Array) -> Distances:
        """Return those of features (n, d)."""
        within = squared_distances(real, real), squared_distances(synthetic, synthetic)
        return cls(*within, squared_distances(real, synthetic))


def manifold_figures(
    real: npt.ArrayLike,
    synthetic: npt.ArrayLike,
    *,
    neighbours: int = 3,
    density_neighbours: int = 5,
    distances: Distances | None = None,
) -> ManifoldFigures:
    """Return precision and recall, and density and coverage.

    Kynkäänniemi et al. 2019 (arXiv 1904.06991, equations 1 and 2) with k = 3, and Naeem et al. 2020 (arXiv 2002.09797,
    equations 3 and 4) with k = 5. All depend on the number of images: compare them only between sets as large.

    Args:
        real: features (n_real, d).
        synthetic: features (n_synthetic, d).
        neighbours: k of precision and recall.
        density_neighbours: k of density and coverage.
        distances: of these features, where they are there already; by default computed block by block.

    Raises:
        EvaluationError: see `check_features`; or fewer images than k + 1.
    """
    first, second = check_features(real, synthetic)
    check_neighbours(min(len(first), len(second)), neighbours, density_neighbours)
    if distances is not None:
        return figures_of_distances(distances, neighbours, density_neighbours)
    near, dense = squared_radii(distance_blocks(first, first), (neighbours, density_neighbours))
    (made,) = squared_radii(distance_blocks(second, second), (neighbours,))
    return figures_of_blocks(Balls(near, made, dense), distance_blocks(first, second), density_neighbours)


def figures_of_distances(distances: Distances, neighbours: int, density_neighbours: int) -> ManifoldFigures:
    """Return the figures from whole matrices of squared distances."""
    whole = slice(None)
    near, dense = squared_radii([(whole, distances.real)], (neighbours, density_neighbours))
    (made,) = squared_radii([(whole, distances.synthetic)], (neighbours,))
    return figures_of_blocks(Balls(near, made, dense), [(whole, distances.across)], density_neighbours)


def check_neighbours(n: int, *neighbours: int) -> None:
    """Raise EvaluationError unless every image of n has as many neighbours."""
    for k in neighbours:
        if not 1 <= k < n:
            raise EvaluationError(
                f"{k} nearest neighbours in a set of {n} images: give a number from 1 to {n - 1}, or add images."
            )


def squared_radii(blocks: Iterable[Block], neighbours: tuple[int, ...]) -> list[Array]:
    """Return the squared distances (n,) to the k-th neighbour, for each k.

    Args:
        blocks: of a set's squared distances to itself; the diagonal does not count.
        neighbours: every k.
    """
    found = []
    for rows, distances in blocks:
        own = np.arange(*rows.indices(distances.shape[1]))
        distances[np.arange(len(own)), own] = 0.0
        # Faster than to part at every k.
        nearest = np.partition(distances, max(neighbours), axis=1)[:, : max(neighbours) + 1]
        nearest.sort(axis=1)
        found.append(nearest[:, neighbours])
    return list(np.concatenate(found).T)


def figures_of_blocks(balls: Balls, blocks: Iterable[Block], density_neighbours: int) -> ManifoldFigures:
    """Return the figures from radii and squared distances of real to synthetic images."""
    limits = Balls(*(radii * (1.0 + TIE) for radii in balls))
    inside = np.zeros(len(limits.synthetic), dtype=bool)
    held, recalled, covered = 0, 0, 0
    for rows, distances in blocks:
        inside |= (distances <= limits.real[rows, None]).any(axis=0)
        recalled += int((distances <= limits.synthetic).any(axis=1).sum())
        dense = distances <= limits.dense[rows, None]
        held += int(dense.sum())
        covered += int(dense.any(axis=1).sum())
    n_real, n_synthetic = len(limits.real), len(limits.synthetic)
    return ManifoldFigures(
        precision=float(inside.mean()),
        recall=recalled / n_real,
        density=held / (density_neighbours * n_synthetic),
        coverage=covered / n_real,
    )


def distance_blocks(x: Array, y: Array) -> Iterator[Block]:
    """Yield rows of `x` (n, d) and their squared Euclidean distances to all rows of `y` (m, d)."""
    # Distances do not depend on the origin; a near one keeps the products small and the rounding with them.
    origin = y.mean(axis=0)
    x, y = x - origin, y - origin
    squares_x, squares_y = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
    step = max(1, ENTRIES // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        squares = squares_x[rows, None] + squares_y
        distances = squares - 2.0 * (x[rows] @ y.T)
        distances[distances < ROUNDING * squares] = 0.0
        yield rows, distances


def squared_distances(x: Array, y: Array) -> Array:
    """Return the squared Euclidean distances (n, m) of `x` (n, d) and `y` (m, d)."""
    return np.concatenate([distances for _, distances in distance_blocks(x, y)])
