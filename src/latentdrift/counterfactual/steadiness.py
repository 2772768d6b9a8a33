"""How steadily a judge's answer rises along a ladder, and how evenly the pictures change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from latentdrift.errors import ConfigurationError


class Monotonicity(NamedTuple):
    """Spearman's rank correlation of scores with their place in the ladder, its 95% interval, and the frames."""

    rho: float
    low: float
    high: float
    n: int


class Smoothness(NamedTuple):
    """How evenly a strip changes.

    Attributes:
        largest_step: of all steps between neighbours, as a part of the whole way, which is their sum; L1.
        even_step: what it is where all steps are alike.
        straightness: difference of the ends as a part of the whole way; 1 where no step takes back another.
        whole_way: sum of the mean absolute differences between neighbours, in levels of 0 to 255.
    """

    largest_step: float
    even_step: float
    straightness: float
    whole_way: float


def monotonicity(scores: Sequence[float]) -> Monotonicity:
    """Return how steadily scores rise along the ladder: 1 where each is above the one before.

    The interval is Fisher's with the variance of Bonett & Wright (2000), (1 + ρ²/2) / (n - 3). It has no width at
    ρ = ±1, where half of the smallest possible change, 6 / (n (n² - 1)), is taken off. Frames of one ladder are looked
    at as n independent ranks. NaN where fewer than four frames give no interval, or equal scores no order.

    Raises:
        ConfigurationError: a score that is not finite.
    """
    from scipy.stats import rankdata

    if not all(math.isfinite(score) for score in scores):
        raise ConfigurationError("Scores along a ladder must be finite numbers; the judge gave NaN or infinity.")
    n = len(scores)
    ranks = torch.as_tensor(rankdata(scores), dtype=torch.float64)
    if n < 2 or bool((ranks == ranks[0]).all()):
        return Monotonicity(math.nan, math.nan, math.nan, n)
    # Rounded, so that a perfect order is 1 and not what rounding leaves of it.
    rho = round(float(torch.corrcoef(torch.stack([torch.arange(n, dtype=torch.float64), ranks]))[0, 1]), 12)
    if n < 4:
        return Monotonicity(rho, math.nan, math.nan, n)
    most = 1 - 6 / (n * (n * n - 1))
    inner = min(max(rho, -most), most)
    width = 1.959964 * math.sqrt((1 + inner**2 / 2) / (n - 3))
    low, high = math.tanh(math.atanh(inner) - width), math.tanh(math.atanh(inner) + width)
    return Monotonicity(rho, min(low, rho), max(high, rho), n)


def smoothness(frames: torch.Tensor) -> Smoothness:
    """Return how evenly frames (K, 3, H, W) in [-1, 1] change from first to last; zeros where nothing does.

    Raises:
        ConfigurationError: fewer than two frames.
    """
    if frames.ndim != 4 or len(frames) < 2:
        raise ConfigurationError(
            f"Frames of shape {tuple(frames.shape)} make no strip; give two or more, (K, 3, H, W)."
        )
    levels = frames.double() * 127.5
    path = (levels[1:] - levels[:-1]).abs().mean((1, 2, 3))
    whole, ends = float(path.sum()), float((levels[-1] - levels[0]).abs().mean())
    even = 1 / len(path)
    return (
        Smoothness(float(path.max()) / whole, even, ends / whole, whole) if whole else Smoothness(0.0, even, 0.0, 0.0)
    )
