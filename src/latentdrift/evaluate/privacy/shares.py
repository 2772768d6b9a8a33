"""Whether synthetic images are nearer to the training images than held-out real images are.

Held-out images come from the same people as the training images would, but nobody trained on them: the distances of
theirs are what no memory looks like (Somepalli et al. 2022, arXiv 2212.03860, compare with real data in this way).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.interval import Interval, wilson_interval
from latentdrift.evaluate.privacy.nearest import UNITS, Found

Array = npt.NDArray[np.float64]
PERCENTILES = (1.0, 5.0)


@dataclass(frozen=True)
class Share:
    """The share of synthetic images that are nearer than a low percentile of the held-out images' distances."""

    percentile: float
    """Of the held-out images' distances, 0 to 100."""
    threshold: float
    """The distance there, in the measure's unit."""
    value: float
    """Share of synthetic images that are nearer than the threshold, 0 to 1."""
    interval: Interval
    """Of the share: synthetic images and held-out subjects drawn again; never narrower than Wilson's."""
    expected: float
    """What the share would be on average if synthetic images were as far as held-out ones."""
    p_value: float
    """Probability of at least this share if they were."""

    def to_dict(self) -> dict[str, float]:
        """Return plain values."""
        low, high = self.interval
        return {**{name: value for name, value in asdict(self).items() if name != "interval"}, "low": low, "high": high}


@dataclass(frozen=True)
class MeasureFigures:
    """Distances to the nearest training image by one measure."""

    measure: str
    unit: str
    synthetic_median: float
    held_out_median: float
    shares: tuple[Share, ...]
    """One a percentile."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "shares": [share.to_dict() for share in self.shares]}


def measure_figures(
    synthetic: Found,
    held_out: Found,
    subjects: Sequence[Hashable] | None = None,
    *,
    percentiles: Sequence[float] = PERCENTILES,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> list[MeasureFigures]:
    """Return the figures of every measure; arguments and errors as in `nearer_share`."""
    found = []
    for measure, nearest in synthetic.by.items():
        baseline = held_out.by[measure].distance
        shares = tuple(
            nearer_share(
                nearest.distance, baseline, subjects, percentile, confidence=confidence, resamples=resamples, seed=seed
            )
            for percentile in percentiles
        )
        medians = float(np.median(nearest.distance)), float(np.median(baseline))
        found.append(MeasureFigures(measure, UNITS[measure], *medians, shares))
    return found


def nearer_share(
    synthetic: npt.ArrayLike,
    held_out: npt.ArrayLike,
    subjects: Sequence[Hashable] | None = None,
    percentile: float = 1.0,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Share:
    """Return the share of synthetic distances below a percentile of the held-out ones.

    The threshold is the k-th smallest of n held-out distances, k = ceil(n q). If all were drawn from one distribution,
    the share of m synthetic ones below it would be k / (n + 1) on average and their number beta-binomial (m, k,
    n + 1 - k): that is where `expected` and `p_value` come from, and they are exact for independent images. Few
    held-out images make a poor threshold, which this takes into account. Where a subject has several images, the beta
    distribution is widened as if these told no more than one.

    Args:
        synthetic: distances of m synthetic images to their nearest training image.
        held_out: the same of n held-out images.
        subjects: whose image each held-out one is, n; None for an image a subject.
        percentile: above 0, at most 50.
        confidence: coverage of the interval, between 0 and 1.
        resamples: how often images and subjects are drawn.
        seed: of the draws.

    Raises:
        EvaluationError: values that are not finite, fewer than two subjects, or settings out of range.
    """
    from scipy.stats import betabinom

    made, real = np.asarray(synthetic, dtype=np.float64), np.asarray(held_out, dtype=np.float64)
    for name, values in (("synthetic", made), ("held-out", real)):
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise EvaluationError(f"The {name} distances have shape {values.shape} or NaN; give one number an image.")
    if not 0 < percentile <= 50:
        raise EvaluationError(f"The percentile is {percentile}; give one above 0 and at most 50, such as 1.")
    if not 0 < confidence < 1 or resamples < 10:
        raise EvaluationError(f"confidence={confidence}, resamples={resamples}: give 0.95 and at least 10.")
    names = list(range(len(real))) if subjects is None else list(subjects)
    if len(names) != len(real):
        raise EvaluationError(f"{len(names)} subjects for {len(real)} held-out images; give one an image.")
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    if len(codes) < 2:
        raise EvaluationError("The held-out images are of one subject; a baseline needs at least two.")
    m, n = len(made), len(real)
    order = np.argsort(real, kind="stable")
    ordered, group = real[order], np.array([codes[name] for name in names])[order]
    k = math.ceil(n * percentile / 100 - 1e-9)
    threshold = float(ordered[k - 1])
    nearer = int((made < threshold).sum())
    draw, people = np.random.default_rng(seed), len(codes)
    weights = draw.multinomial(people, np.full(people, 1 / people), size=resamples)[:, group]
    reached = np.cumsum(weights, axis=1)
    place = (reached >= reached[:, -1:] * (percentile / 100)).argmax(axis=1)
    # A draw of m images from m has a binomial number of those below any threshold.
    below = np.searchsorted(np.sort(made), ordered[place], side="left") / m
    drawn = draw.binomial(m, below) / m
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    least = wilson_interval(nearer, m, confidence)
    widened = people / n
    return Share(
        percentile=percentile,
        threshold=threshold,
        value=nearer / m,
        interval=Interval(float(min(low, least.low)), float(max(high, least.high))),
        expected=k / (n + 1),
        p_value=float(betabinom.sf(nearer - 1, m, k * widened, (n + 1 - k) * widened)),
    )
