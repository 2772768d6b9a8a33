"""Intervals: the fast form against the plain one, coverage, and settings."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from latentdrift.errors import EvaluationError
from latentdrift.evaluate import interval
from latentdrift.evaluate.distribution import frechet_of_checked, kernel_distance
from latentdrift.evaluate.interval import frechet_interval, kernel_interval, wilson_interval


def sample(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


@pytest.mark.parametrize(("n_a", "n_b"), [(12, 15), (15, 12), (90, 12), (12, 90)])
def test_resamples_from_inner_products_equal_resampled_features(n_a: int, n_b: int) -> None:
    a, b = sample(n_a, 30, 1) + 5, sample(n_b, 30, 2, shift=6.0)
    counts_a, counts_b = interval._counts(n_a, n_b, 5, seed=0)
    fast = interval._frechet_from_products(a, b, counts_a, counts_b)
    plain = [
        frechet_of_checked(np.repeat(a, m, axis=0), np.repeat(b, n, axis=0))
        for m, n in zip(counts_a, counts_b, strict=True)
    ]
    assert fast == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("d", [4, 40])
def test_interval_contains_the_value_and_narrows_with_n(d: int) -> None:
    widths = []
    for n in (20, 200):
        a, b = sample(n, d, 1), sample(n, d, 2, shift=0.5)
        low, high = frechet_interval(a, b, resamples=40)
        assert low < frechet_of_checked(a, b) < high
        widths.append(high - low)
    assert widths[1] < 0.7 * widths[0]


def test_frechet_interval_has_the_spread_of_fresh_samples() -> None:
    """Width against the distances of fresh sets of the same size, which the interval stands for."""
    fresh = [frechet_of_checked(sample(60, 5, 2 * s), sample(60, 5, 2 * s + 1, shift=1.0)) for s in range(200)]
    wanted = np.diff(np.quantile(fresh, [0.025, 0.975]))[0]
    widths = [
        np.diff(frechet_interval(sample(60, 5, 2 * s), sample(60, 5, 2 * s + 1, shift=1.0), resamples=100))[0]
        for s in range(1000, 1010)
    ]
    assert np.mean(widths) == pytest.approx(wanted, rel=0.25)


def test_kernel_interval_covers_the_true_distance() -> None:
    big = kernel_distance(sample(3000, 5, 1), sample(3000, 5, 2, shift=0.4), subsets=1, subset_size=3000).value
    covered = 0
    for s in range(60):
        low, high = kernel_interval(
            sample(60, 5, 100 + 2 * s), sample(60, 5, 101 + 2 * s, shift=0.4), resamples=200, seed=s
        )
        covered += low <= big <= high
    assert covered >= 50


def test_tiny_sets_have_an_interval() -> None:
    a, b = sample(2, 3, 1), sample(3, 3, 2)
    for call in (frechet_interval, kernel_interval):
        assert np.isfinite(call(a, b, resamples=50)).all()


def test_settings_are_checked() -> None:
    a = sample(10, 3, 1)
    for call in (frechet_interval, kernel_interval):
        with pytest.raises(EvaluationError, match="confidence=95"):
            call(a, a, confidence=95)
        with pytest.raises(EvaluationError, match="resamples=3"):
            call(a, a, resamples=3)


def test_same_seed_same_interval() -> None:
    a, b = sample(20, 6, 1), sample(20, 6, 2)
    assert kernel_interval(a, b, seed=4) == kernel_interval(a, b, seed=4) != kernel_interval(a, b, seed=5)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "count"), [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (1, 5000), (4999, 5000)])
def test_a_share_has_scipys_interval(successes: int, count: int, confidence: float) -> None:
    expected = binomtest(successes, count).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, count, confidence) == pytest.approx((expected.low, expected.high), abs=1e-14)
