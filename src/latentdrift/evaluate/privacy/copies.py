"""Which synthetic images are copies of training images.

A distance alone does not tell: images of a plain kind are all near each other. Carlini et al. 2023 (arXiv 2301.13188,
section 5.1) divide it by the training image's mean distance to its own nearest neighbours in the training set. Here
these are neighbours of other subjects, since a second scan of one person would make every copy look ordinary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.interval import Interval, wilson_interval
from latentdrift.evaluate.privacy.looks import Looks
from latentdrift.evaluate.privacy.nearest import Found, nearest_neighbours

Array = npt.NDArray[np.float64]

FACTOR = 0.5
"""Carlini et al.'s alpha: nearer than this times the neighbours' mean distance is a copy."""
NEIGHBOURS = 50
"""Their n."""
CLEARLY = 0.5
"""How much smaller than every held-out image's a ratio must be to speak of memory and not of chance."""
SCALES: Mapping[str, str] = {"shifted": "pixel", "feature": "feature"}
"""Measures that copies are looked for by, and the one that neighbours within the training set are compared by."""


@dataclass(frozen=True)
class CopyFigures:
    """Copies by one measure."""

    measure: str
    ratios: Array
    """Distance to the nearest training image over that image's mean distance to its neighbours, (N,); 0 for a copy."""
    held_out_ratios: Array
    """The same of held-out images, which are no copies: what chance looks like."""
    factor: float
    """Ratios below it are copies."""
    interval: Interval
    """Wilson's, of the share of copies."""
    subjects: int
    """Training subjects who were copied; images of nobody known count one by one."""

    @property
    def copies(self) -> npt.NDArray[np.intp]:
        """Rows of the synthetic images that are copies, the closest first."""
        found = np.flatnonzero(self.ratios < self.factor)
        return found[np.argsort(self.ratios[found], kind="stable")]

    @property
    def false_alarms(self) -> int:
        """Held-out images that would be called copies."""
        return int((self.held_out_ratios < self.factor).sum())

    @property
    def beyond_chance(self) -> int:
        """Copies with less than half the smallest ratio of the held-out images.

        The smallest of as many strangers' ratios is below the smallest held-out one half of the time.
        """
        return int((self.ratios < min(self.factor, CLEARLY * float(self.held_out_ratios.min()))).sum())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "measure": self.measure,
            "copies": len(self.copies),
            "share": len(self.copies) / len(self.ratios),
            "low": self.interval.low,
            "high": self.interval.high,
            "subjects": self.subjects,
            "factor": self.factor,
            "smallest_ratio": float(self.ratios.min()),
            "held_out_smallest_ratio": float(self.held_out_ratios.min()),
            "beyond_chance": self.beyond_chance,
            "held_out_copies": self.false_alarms,
            "held_out": len(self.held_out_ratios),
        }


def copy_figures(
    synthetic: Found,
    held_out: Found,
    training: Looks,
    *,
    factor: float = FACTOR,
    neighbours: int = NEIGHBOURS,
    confidence: float = 0.95,
) -> list[CopyFigures]:
    """Return the copies among the synthetic images, by pixels after a shift and, where there are any, by features.

    Args:
        synthetic: their nearest training images.
        held_out: those of held-out images.
        training: the training images.
        factor: between 0 and 1.
        neighbours: in the training set, of other subjects; fewer where there are fewer.
        confidence: coverage of the interval of the share, between 0 and 1.

    Raises:
        EvaluationError: settings out of range, or training images of one subject.
    """
    if not 0 < factor < 1 or neighbours < 1 or not 0 < confidence < 1:
        raise EvaluationError(
            f"factor={factor}, neighbours={neighbours}, confidence={confidence}: give such as 0.5, 50 and 0.95."
        )
    people = training.people()
    found = []
    for measure, inside in SCALES.items():
        if measure not in synthetic.by:
            continue
        first, second = synthetic.by[measure], held_out.by[measure]
        used, place = np.unique(np.concatenate([first.index, second.index]), return_inverse=True)
        scale = local_scale(training, used, inside, neighbours)[place]
        # Images whose neighbours are all the same have no scale of their own; a copy of them is still at 0.
        ratios = np.concatenate([first.distance, second.distance]) / np.maximum(scale, 1e-12)
        own, others = ratios[: len(first.index)], ratios[len(first.index) :]
        copied = np.flatnonzero(own < factor)
        share = wilson_interval(len(copied), len(own), confidence)
        whose = {people[int(i)] for i in first.index[copied]}
        found.append(CopyFigures(measure, own, others, factor, share, len(whose)))
    return found


def local_scale(training: Looks, rows: npt.NDArray[np.intp], measure: str, neighbours: int = NEIGHBOURS) -> Array:
    """Return the mean distance (R,) of some training images to their nearest ones of other subjects.

    Args:
        training: all training images.
        rows: of which images, (R,).
        measure: pixel, in gray levels of 255 (RMS), or feature.
        neighbours: how many; all there are where they are fewer.

    Raises:
        EvaluationError: all training images are of one subject.
    """
    codes = {name: code for code, name in enumerate(dict.fromkeys(training.people()))}
    if len(codes) < 2:
        raise EvaluationError("The training images are of one subject; copies cannot be told from likeness.")
    group = np.array([codes[name] for name in training.people()])
    vectors = training.features if measure == "feature" and training.features is not None else training.flat()
    level = 1.0 if measure == "feature" else 1.0 / np.sqrt(vectors.shape[1])
    found = nearest_neighbours(vectors[rows], vectors, neighbours + int(np.bincount(group).max()))
    other = group[found.index] != group[rows][:, None]
    counted = other & (np.cumsum(other, axis=1) <= neighbours)
    sums = np.where(counted, found.distance, 0.0).sum(axis=1)
    return np.asarray(level * sums / counted.sum(axis=1))
