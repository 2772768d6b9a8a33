"""The Fréchet distance at infinity: against known distances, against plain refits, and its interval."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.distribution import SmallSampleWarning, frechet_distance
from latentdrift.evaluate.extrapolation import Extrapolation, extrapolation_message, frechet_at_infinity
from latentdrift.evaluate.interval import Interval, frechet_of_draws


def sample(n: int, d: int, seed: int, shift: float = 0.0, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) * spread + shift


def true_distance(d: int, shift: float, spread: float) -> float:
    return d * (shift**2 + (spread - 1) ** 2)


@pytest.mark.parametrize("real_whole", [False, True])
def test_bias_of_small_sets_is_gone(real_whole: bool) -> None:
    """Twenty pairs of small sets: the plain distance is far too large, the extrapolated one right on average."""
    d, shift, spread = 8, 0.2, 1.2
    true = true_distance(d, shift, spread)
    plain, found = [], []
    for s in range(20):
        a, b = sample(4000 if real_whole else 120, d, 2 * s), sample(120, d, 2 * s + 1, shift, spread)
        result = frechet_at_infinity(a, b, real_whole=real_whole, resamples=0, draws=5)
        plain.append(result.distances[0])
        found.append(result.value)
    error = np.std(found) / np.sqrt(20)
    assert np.mean(plain) - true > 5 * error
    assert np.mean(found) == pytest.approx(true, abs=3 * error)


def test_first_point_is_the_plain_distance_and_the_line_is_least_squares() -> None:
    a, b = sample(97, 6, 1), sample(63, 6, 2, shift=0.3)
    found = frechet_at_infinity(a, b, parts=5, resamples=0)
    assert found.sizes == (63, 31, 21, 15, 12)
    assert found.distances[0] == pytest.approx(frechet_distance(a, b), rel=1e-9)
    assert list(found.distances) == sorted(found.distances)
    inverse = 63 / np.array(found.sizes)
    line = np.linalg.lstsq(np.stack([inverse, np.ones(5)], 1), np.array(found.distances), rcond=None)[0]
    assert found.value == pytest.approx(line[1], rel=1e-9)
    parabola = np.linalg.lstsq(np.stack([inverse**2, inverse, np.ones(5)], 1), np.array(found.distances), rcond=None)[0]
    assert found.bend == pytest.approx(parabola[2] - line[1], rel=1e-6)
    assert found.interval is None


@pytest.mark.parametrize(("n", "d"), [(40, 8), (40, 30), (24, 60)])
def test_draws_are_plain_distances_of_their_images(n: int, d: int) -> None:
    """Subsets and resamples, with images above, around and below the dimensions."""
    a, b = sample(n, d, 1) + 3, sample(n + 9, d, 2, shift=3.4)
    draw = np.random.default_rng(0)
    counts_a, counts_b = draw.integers(0, 2, (6, n)), draw.integers(0, 3, (6, n + 9))
    found = frechet_of_draws(a, b, counts_a, counts_b)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSampleWarning)
        plain = [
            frechet_distance(np.repeat(a, x, axis=0), np.repeat(b, y, axis=0))
            for x, y in zip(counts_a, counts_b, strict=True)
        ]
    assert found == pytest.approx(plain, rel=1e-6)


def test_interval_has_the_spread_of_fresh_samples() -> None:
    def pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
        return sample(100, 5, 2 * seed), sample(100, 5, 2 * seed + 1, shift=0.5)

    fresh = [frechet_at_infinity(*pair(s), resamples=0, draws=3).value for s in range(120)]
    wanted = np.diff(np.quantile(fresh, [0.025, 0.975]))[0]
    results = [frechet_at_infinity(*pair(s), resamples=60) for s in range(1000, 1008)]
    widths = [np.diff(result.interval)[0] for result in results]
    assert 0.8 * wanted < np.mean(widths) < 1.5 * wanted
    assert all(result.interval.low < result.value < result.interval.high for result in results)
    assert results[0] == frechet_at_infinity(*pair(1000), resamples=60)


def test_a_bend_is_said() -> None:
    """Far fewer images than dimensions: still nearer to the truth than the plain distance, and not to be trusted."""
    d, shift = 300, 0.1
    true = true_distance(d, shift, 1.0)
    found = frechet_at_infinity(sample(60, d, 1), sample(60, d, 2, shift), resamples=20)
    assert true < found.value < found.distances[0]
    assert found.bend < 0
    assert "no line from 15 to 60 images" in str(extrapolation_message(found))


def test_a_line_needs_no_message() -> None:
    found = frechet_at_infinity(sample(400, 4, 1), sample(400, 4, 2, shift=1.0), resamples=20)
    assert extrapolation_message(found) is None
    assert extrapolation_message(Extrapolation(1.0, Interval(0.0, 2.0), (20, 5), (2.0, 3.0), -0.9)) is None
    assert extrapolation_message(Extrapolation(1.0, None, (20, 5), (2.0, 3.0), -0.9)) is not None


def test_settings_are_checked() -> None:
    a = sample(20, 3, 1)
    with pytest.raises(EvaluationError, match="15 images are too few to be cut into 4 parts: at least 16"):
        frechet_at_infinity(a, a[:15])
    with pytest.raises(EvaluationError, match="parts=2"):
        frechet_at_infinity(a, a, parts=2)
    with pytest.raises(EvaluationError, match="draws=0"):
        frechet_at_infinity(a, a, draws=0)
    with pytest.raises(EvaluationError, match="resamples=3"):
        frechet_at_infinity(a, a, resamples=3)


def test_large_sets_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentdrift.evaluate.extrapolation.MOST_EXTRAPOLATED", 60)
    a, b = (np.random.default_rng(seed).normal(size=(200, 4)) for seed in (1, 2))
    assert frechet_at_infinity(a, b, resamples=10).sizes == (60, 30, 20, 15)
