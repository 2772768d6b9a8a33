"""What else two sets of features say: the Fréchet distance at infinite n, precision and recall, the Gaussian MMD."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.distribution import Array
from latentdrift.evaluate.extrapolation import Extrapolation, extrapolation_message, frechet_at_infinity
from latentdrift.evaluate.interval import (
    MOST_NEIGHBOURS,
    Interval,
    ManifoldIntervals,
    gaussian_interval,
    manifold_intervals,
)
from latentdrift.evaluate.lines import Line, ends
from latentdrift.evaluate.manifold import Block, Distances, ManifoldFigures, distance_blocks, manifold_figures
from latentdrift.evaluate.mmd import GaussianDistance, gaussian_distance

CLOSEST = 6
"""Pairs of a synthetic and a real image that are named."""


class NearPair(NamedTuple):
    """A synthetic image and the real one nearest to it by features."""

    synthetic: str
    real: str
    distance: float
    """Euclidean, in units of the features."""


@dataclass(frozen=True)
class MoreFigures:
    """Figures of two sets beyond the Fréchet and the kernel distance; None where the sets are too small for one."""

    infinity: Extrapolation | None
    manifold: ManifoldFigures | None
    manifold_intervals: ManifoldIntervals | None
    mmd: GaussianDistance | None
    mmd_interval: Interval | None
    closest: tuple[NearPair, ...]
    """Of the synthetic images those nearest to a real one, the nearest first."""
    notes: tuple[str, ...] = ()
    """What could not be computed, and why."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values by figure, for JSON."""
        found: dict[str, Any] = {"fid_infinity": None, "mmd": None}
        if self.infinity is not None:
            line = self.infinity
            found["fid_infinity"] = {
                "value": line.value,
                **ends(line.interval),
                "sizes": list(line.sizes),
                "distances": list(line.distances),
                "bend": line.bend,
            }
        for name in ManifoldFigures._fields:
            found[name] = None
            if self.manifold is not None:
                interval = None if self.manifold_intervals is None else getattr(self.manifold_intervals, name)
                found[name] = {"value": getattr(self.manifold, name), **ends(interval)}
        if self.mmd is not None:
            found["mmd"] = {"value": self.mmd.value, **ends(self.mmd_interval), "bandwidth": self.mmd.bandwidth}
        return {**found, "closest": [pair._asdict() for pair in self.closest]}

    def lines(self, frechet: str) -> list[Line]:
        """Return the figures; `frechet` is what the Fréchet distance is called."""
        found = []
        if self.infinity is not None:
            found.append(Line(f"{frechet}, infinite n", self.infinity.value, self.infinity.interval))
        found += manifold_lines(self.manifold, self.manifold_intervals)
        if self.mmd is not None:
            name = f"Gaussian MMD x 1000 (bandwidth {self.mmd.bandwidth:.4g})"
            found.append(Line(name, self.mmd.value, self.mmd_interval, scale=1000.0))
        return found


def manifold_lines(figures: ManifoldFigures | None, intervals: ManifoldIntervals | None, **more: Any) -> list[Line]:
    """Return precision, recall, density and coverage; `more` is other fields of the lines."""
    if figures is None:
        return []
    return [
        Line(name, getattr(figures, name), None if intervals is None else getattr(intervals, name), digits=3, **more)
        for name in ManifoldFigures._fields
    ]


def most_resamples(asked: int, images: int) -> int:
    """Return how many draws an interval is made of that costs images squared or more: 40 of 1,000, at most `asked`.

    Fewer than 40 are not taken unless asked for: the ends of an interval would be the extremes of what was drawn.
    """
    return min(asked, max(40, 40_000 // images))


def more_figures(
    real: Array,
    synthetic: Array,
    real_names: Sequence[str],
    synthetic_names: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = 100,
    seed: int = 0,
) -> MoreFigures:
    """Return the figures of features (n, d) that `check_features` returned; those that cannot be are noted.

    Args:
        real: features (n_real, d).
        synthetic: features (n_synthetic, d).
        real_names: n_real, for the closest pairs.
        synthetic_names: n_synthetic.
        confidence: coverage of the intervals.
        resamples: most that an interval is made of, ten times as many of the MMD; 0: no intervals.
        seed: of all draws.
    """
    notes: list[str] = []
    settings: dict[str, Any] = {"confidence": confidence, "seed": seed}
    few = most_resamples(resamples, min(len(real), len(synthetic)))
    # Matrices that all of these need; of larger sets each computes its own, block by block or thinned.
    distances = Distances.of(real, synthetic) if max(len(real), len(synthetic)) <= MOST_NEIGHBOURS else None
    infinity = manifold = spans = mmd = mmd_span = None
    try:
        infinity = frechet_at_infinity(real, synthetic, resamples=few, **settings)
        notes += [text for text in [extrapolation_message(infinity)] if text]
    except EvaluationError as error:
        notes.append(f"The Fréchet distance at infinite n was not computed. {error}")
    try:
        manifold = manifold_figures(real, synthetic, distances=distances)
        options = {"distances": distances, **settings}
        spans = manifold_intervals(real, synthetic, resamples=few, **options) if few else None
    except EvaluationError as error:
        what = "Precision, recall, density and coverage" + (
            " have no intervals." if manifold else " were not computed."
        )
        notes.append(f"{what} {error}")
    try:
        mmd = gaussian_distance(real, synthetic, distances=distances)
        options = {"bandwidth": mmd.bandwidth, "resamples": 10 * few, "distances": distances, **settings}
        mmd_span = gaussian_interval(real, synthetic, **options) if few else None
    except EvaluationError as error:
        notes.append(f"The Gaussian MMD was not computed. {error}")
    blocks = distance_blocks(synthetic, real) if distances is None else [(slice(None), distances.across.T)]
    closest = closest_pairs(blocks, real_names, synthetic_names)
    return MoreFigures(infinity, manifold, spans, mmd, mmd_span, closest, tuple(notes))


def closest_pairs(
    blocks: Iterable[Block], real_names: Sequence[str], synthetic_names: Sequence[str], most: int = CLOSEST
) -> tuple[NearPair, ...]:
    """Return the synthetic images that are nearest to a real one, each once, the nearest first.

    Args:
        blocks: squared distances of synthetic images to all real ones.
        real_names: n_real.
        synthetic_names: n_synthetic.
        most: how many pairs.
    """
    near, index = [], []
    for _, distances in blocks:
        index.append(distances.argmin(axis=1))
        near.append(distances.min(axis=1))
    squares, places = np.concatenate(near), np.concatenate(index)
    return tuple(
        NearPair(synthetic_names[i], real_names[int(places[i])], float(np.sqrt(squares[i])))
        for i in map(int, np.argsort(squares, kind="stable")[:most])
    )
