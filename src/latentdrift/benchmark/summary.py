"""From cells to rows: means over seeds with intervals, and differences to the control, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from latentdrift.benchmark.plan import Benchmark, Row
from latentdrift.benchmark.runner import Measured

CONFIDENCE = 0.95

POSSIBLE = {
    **dict.fromkeys(
        ("auc", "auc_half", "precision", "recall", "coverage", "copies", "copies_held_out", "validity"), (0.0, 1.0)
    ),
    **dict.fromkeys(("fid", "error", "density"), (0.0, math.inf)),
}
"""Figures that cannot be anything: a symmetric interval of two seeds would reach beyond."""


@dataclass(frozen=True)
class Mean:
    """A figure over seeds."""

    value: float
    low: float | None
    high: float | None
    by_seed: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"value": self.value, "low": self.low, "high": self.high, "by_seed": list(self.by_seed)}


@dataclass(frozen=True)
class Difference:
    """A row's figure minus its control's under the same seeds, so that both start from the same noise."""

    value: float
    by_seed: tuple[float, ...]

    @property
    def agreed(self) -> bool:
        """Whether all seeds say the same sign."""
        return len({math.copysign(1.0, value) for value in self.by_seed if value}) == 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"value": self.value, "by_seed": list(self.by_seed), "seeds_agree": self.agreed}


@dataclass(frozen=True)
class RowSummary:
    """A row of the table."""

    row: Row
    seeds: tuple[int, ...]
    figures: dict[str, Mean]
    against: Row | None
    differences: dict[str, Difference]
    pictures: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "row": self.row,
            "seeds": list(self.seeds),
            "figures": {name: mean.to_dict() for name, mean in self.figures.items()},
            "against": self.against,
            "differences": {name: found.to_dict() for name, found in self.differences.items()},
        }


def summarise(plan: Benchmark, found: Sequence[Measured]) -> list[RowSummary]:
    """Return the rows that have been measured, in the order of the table."""
    by_row: dict[tuple[tuple[str, str], ...], dict[int, Measured]] = {}
    for one in found:
        by_row.setdefault(_key(one.cell.row), {})[one.cell.seed] = one
    rows = []
    for cells in by_row.values():
        row = next(iter(cells.values())).cell.row
        names = dict.fromkeys(name for one in cells.values() for name in one.figures)
        figures = {}
        for name in names:
            told = [one.figures[name] for one in cells.values() if name in one.figures]
            figures[name] = mean_over_seeds(told, POSSIBLE.get(name, (-math.inf, math.inf)))
        against = plan.control(row)
        others = by_row.get(_key(against), {}) if against is not None else {}
        differences = {}
        for name in names:
            both = [
                one.figures[name]["value"] - others[seed].figures[name]["value"]
                for seed, one in cells.items()
                if seed in others and name in one.figures and name in others[seed].figures
            ]
            if both:
                differences[name] = Difference(float(np.mean(both)), tuple(both))
        pictures = next((one.pictures for one in cells.values() if one.pictures), ())
        rows.append(RowSummary(row, tuple(cells), figures, against, differences, pictures))
    return rows


def mean_over_seeds(figures: Sequence[dict[str, float]], possible: tuple[float, float] = (-math.inf, math.inf)) -> Mean:
    """Return the mean over seeds with an interval for other images and other seeds.

    The variance is that of a seed's own interval plus that of the mean over seeds. The first is not divided by the
    number of seeds, because all seeds are measured against the same held-out images. Asymmetric intervals of one seed
    are widened on either side. With one seed the interval is that seed's own, and says nothing of other trainings. It
    ends where the figure cannot go on.
    """
    values = np.array([found["value"] for found in figures], dtype=np.float64)
    value, n = float(values.mean()), len(values)
    if any("low" not in found for found in figures):
        return Mean(value, None, None, tuple(values.tolist()))
    below = float(np.mean([found["value"] - found["low"] for found in figures]))
    above = float(np.mean([found["high"] - found["value"] for found in figures]))
    between = 0.0
    if n > 1:
        # Two seeds know their own spread badly: Student's t says how badly.
        between = float(values.std(ddof=1)) / math.sqrt(n) * float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    low, high = (math.hypot(max(0.0, end), between) for end in (below, above))
    return Mean(value, max(possible[0], value - low), min(possible[1], value + high), tuple(values.tolist()))


def _key(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(row.items()))
