"""Agreement beyond chance: Cohen's kappa of two readers, plain or weighted, and Fleiss' kappa of many.

Cohen 1960, "A Coefficient of Agreement for Nominal Scales"; Cohen 1968, "Weighted Kappa"; Fleiss 1971, "Measuring
Nominal Scale Agreement among Many Raters".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError, UnknownNameError
from latentdrift.evaluate.counterfactuals import Estimate
from latentdrift.evaluate.crossed import cluster_weights
from latentdrift.evaluate.interval import Interval

Array = npt.NDArray[np.float64]

WEIGHTS = ("none", "linear", "quadratic")
"""What a disagreement costs: 1, the distance of the categories, or its square."""


def cohen_kappa(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    categories: int,
    *,
    weighting: str = "none",
    counts: npt.ArrayLike | None = None,
) -> Array:
    """Return the kappa of two readers: 1 for full agreement, 0 for that of chance; NaN where chance agrees fully.

    `sklearn.metrics.cohen_kappa_score` gives the same in milliseconds a draw, of which a bootstrap needs thousands.

    Args:
        first: one reader's categories, (N,), whole numbers from 0.
        second: the other's, (N,).
        categories: how many there are.
        weighting: one of `WEIGHTS`.
        counts: how often each image counts, (N,), or (B, N) for B kappas; once where None.

    Returns:
        A number, or (B,).

    Raises:
        EvaluationError: no image, readers of different length, or categories out of range.
        UnknownNameError: no such weighting.
    """
    one, other = _categories(first, categories), _categories(second, categories)
    if one.shape != other.shape:
        raise EvaluationError(f"One reader has {one.size} answers and the other {other.size}; give those to the same.")
    if weighting not in WEIGHTS:
        raise UnknownNameError("weighting of disagreements", weighting, WEIGHTS)
    times = np.ones(len(one)) if counts is None else np.asarray(counts, dtype=np.float64)
    cells = np.eye(categories**2)[one * categories + other]
    joint = (times @ cells).reshape(*times.shape[:-1], categories, categories)
    apart = np.abs(np.subtract.outer(np.arange(categories), np.arange(categories))).astype(np.float64)
    cost = {"none": (apart > 0).astype(np.float64), "linear": apart, "quadratic": apart**2}[weighting]
    total = joint.sum((-1, -2))
    expected = np.einsum("...i,...j,ij->...", joint.sum(-1), joint.sum(-2), cost)
    return _ratio(expected - (joint * cost).sum((-1, -2)) * total, expected)


def fleiss_kappa(table: npt.ArrayLike, counts: npt.ArrayLike | None = None) -> Array:
    """Return the kappa of many readers: 1 for full agreement, 0 for that of chance; NaN where chance agrees fully.

    Images may have different numbers of answers; those with fewer than two say nothing and are left out.

    Args:
        table: how many readers put each image into each category, (N, K).
        counts: how often each image counts, (N,), or (B, N) for B kappas; once where None.

    Returns:
        A number, or (B,).

    Raises:
        EvaluationError: another shape, negative numbers, or no image with two answers.
    """
    votes = np.asarray(table, dtype=np.float64)
    if votes.ndim != 2 or votes.shape[1] < 2 or not np.isfinite(votes).all() or (votes < 0).any():
        raise EvaluationError(f"Votes of shape {votes.shape}; give (images, categories), at least 0, two categories.")
    times = np.ones(len(votes)) if counts is None else np.asarray(counts, dtype=np.float64)
    kept = votes.sum(1) >= 2
    if not kept.any():
        raise EvaluationError("No image has the answers of two readers; agreement between readers needs both.")
    votes, times = votes[kept], times[..., kept]
    of_image = votes.sum(1)
    agreed = ((votes**2).sum(1) - of_image) / (of_image * (of_image - 1))
    observed = _ratio(times @ agreed, times.sum(-1))
    expected = (_ratio(times @ votes, (times @ of_image)[..., None]) ** 2).sum(-1)
    return _ratio(observed - expected, 1 - expected)


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Array:
    """Return a ratio, NaN where it is one of nothing."""
    under = np.asarray(below, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = np.where(under > 1e-12, np.divide(above, under), np.nan)
    return found[()]


def votes_of(answers: npt.ArrayLike, categories: int) -> Array:
    """Return how many readers put each image into each category, (N, K), from answers (R, N), NaN where there is none.

    Raises:
        EvaluationError: answers out of range.
    """
    given = np.asarray(answers, dtype=np.float64)
    table = np.zeros((given.shape[1], categories))
    for row in given:
        there = np.flatnonzero(np.isfinite(row))
        if len(there):
            np.add.at(table, (there, _categories(row[there], categories)), 1.0)
    return table


def kappa_interval(
    kappa: Callable[[Array], Array],
    count: int,
    clusters: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate | None:
    """Return a kappa with its bootstrap interval over images (percentiles), or None where it is not defined.

    Readers are not drawn again: two draws of one reader would agree with each other.

    Args:
        kappa: of how often each image counts, (B, N), to kappas (B,), NaN where not defined.
        count: N.
        clusters: images of one cluster are drawn together; None for each by itself.
        confidence: coverage, between 0 and 1.
        resamples: how often images are drawn.
        seed: of the draws.
    """
    value = float(kappa(np.ones((1, count)))[0])
    if not math.isfinite(value):
        return None
    found = kappa(cluster_weights(count, clusters, resamples, seed))
    found = found[np.isfinite(found)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail]) if len(found) else (-1.0, 1.0)
    return Estimate(value, Interval(float(low), float(high)), count)


def _categories(answers: npt.ArrayLike, categories: int) -> npt.NDArray[np.int64]:
    """Return answers as whole numbers, or raise EvaluationError."""
    given = np.asarray(answers)
    whole = given.astype(np.int64)
    if given.ndim != 1 or not len(given) or (whole != given).any() or whole.min() < 0 or whole.max() >= categories:
        raise EvaluationError(f"Categories are whole numbers from 0 to {categories - 1}, one an image, at least one.")
    return whole
