"""Figures of several readers on the same images, with intervals for other readers and other images.

Readers and images are drawn again, each with replacement (the bootstrap of crossed factors; Owen 2007, "The Pigeonhole
Bootstrap"). Of R readers R − 1 are drawn, so that the spread over few readers is not too small (Rao and Wu 1988).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.auc import FEWEST_RESAMPLES
from latentdrift.evaluate.counterfactuals import Estimate
from latentdrift.evaluate.interval import Interval

Array = npt.NDArray[np.float64]

OfReaders = Callable[[Array], Array]
"""How often each image counts, (B, N), to a figure of each reader, (B, R); NaN where a reader has none."""


@dataclass(frozen=True)
class Draws:
    """B draws: how often each image counts, (B, N), and each reader, (B, R)."""

    images: Array
    readers: Array
    confidence: float

    def estimate(self, figure: OfReaders) -> Estimate | None:
        """Return the mean over readers with its interval, n being the readers; None where no reader has the figure."""
        of_each = figure(np.ones((1, self.images.shape[1])))[0]
        known = np.isfinite(of_each)
        if not known.any():
            return None
        table = figure(self.images)
        there = np.isfinite(table)
        weights = self.readers * there
        total = weights.sum(1)
        found = (weights * np.where(there, table, 0.0)).sum(1)[total > 0] / total[total > 0]
        if len(found) < FEWEST_RESAMPLES:
            return None
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(found, [tail, 1 - tail])
        return Estimate(float(of_each[known].mean()), Interval(float(low), float(high)), int(known.sum()))


def draw(
    images: int,
    readers: int,
    clusters: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Draws:
    """Return draws of images, by cluster where there are any, and of readers.

    Raises:
        EvaluationError: settings out of range, or clusters of another number than images.
    """
    if not 0.0 < confidence < 1.0:
        raise EvaluationError(f"confidence={confidence}: give a number between 0 and 1, such as 0.95.")
    if resamples < FEWEST_RESAMPLES:
        raise EvaluationError(f"resamples={resamples}: an interval needs at least {FEWEST_RESAMPLES}.")
    of_images = cluster_weights(images, clusters, resamples, seed)
    of_readers = np.ones((resamples, readers))
    if readers > 1:
        # Another stream than that of the images, so that the two factors are drawn independently.
        generator = np.random.default_rng([seed, 1])
        of_readers = generator.multinomial(readers - 1, np.full(readers, 1 / readers), size=resamples).astype(float)
    return Draws(of_images, of_readers, confidence)


def cluster_weights(count: int, clusters: Sequence[Hashable] | None, resamples: int, seed: int) -> Array:
    """Return how often each image counts in each draw, (B, N); images of one cluster are drawn together."""
    names = list(range(count)) if clusters is None else list(clusters)
    if len(names) != count:
        raise EvaluationError(f"There are {len(names)} clusters for {count} images; give one an image.")
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    group = np.array([codes[name] for name in names])
    draws = np.random.default_rng(seed).multinomial(len(codes), np.full(len(codes), 1 / len(codes)), size=resamples)
    return draws[:, group].astype(np.float64)


def means(values: npt.ArrayLike) -> OfReaders:
    """Return what gives each reader's mean of values (R, N), NaN where there is none."""
    table = np.asarray(values, dtype=np.float64)
    there = np.isfinite(table).astype(np.float64)
    filled = np.where(there > 0, table, 0.0)

    def figure(times: Array) -> Array:
        total = times @ there.T
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Array = np.where(total > 0, times @ filled.T / total, np.nan)
        return found

    return figure


def difference(first: OfReaders, second: OfReaders) -> OfReaders:
    """Return what gives each reader's first figure minus the second, on the same draws."""
    return lambda times: first(times) - second(times)
