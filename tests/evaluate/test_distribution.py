"""Distances against closed forms and independent implementations."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from latentdrift.errors import EvaluationError
from latentdrift.evaluate import distribution
from latentdrift.evaluate.distribution import (
    SmallSampleWarning,
    check_features,
    default_subset_size,
    frechet_distance,
    kernel_distance,
)


def features(n: int, d: int, seed: int, shift: float = 0.0, spread: float = 1.0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d)) / np.sqrt(d)
    return np.maximum(draw.normal(size=(n, d)) @ mixing * spread + shift, -0.3)


@pytest.mark.parametrize(
    ("n_a", "n_b", "d"), [(40, 30, 64), (40, 200, 64), (200, 40, 64), (300, 200, 64), (64, 64, 64), (65, 65, 64)]
)
def test_frechet_agrees_with_torchmetrics(n_a: int, n_b: int, d: int) -> None:
    from torchmetrics.image.fid import _compute_fid

    a, b = features(n_a, d, 1), features(n_b, d, 2, shift=0.2, spread=1.3)
    expected = _compute_fid(
        torch.from_numpy(a.mean(0)),
        torch.from_numpy(np.cov(a.T)),
        torch.from_numpy(b.mean(0)),
        torch.from_numpy(np.cov(b.T)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSampleWarning)
        assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-6)


def test_frechet_of_diagonal_gaussians_is_the_closed_form() -> None:
    """Sets whitened to exact moments: sum of (m_a - m_b)^2 + (s_a - s_b)^2."""
    draw = np.random.default_rng(0)
    d = 8

    def exact(mean: np.ndarray, std: np.ndarray, n: int) -> np.ndarray:
        x = draw.normal(size=(n, d))
        x -= x.mean(0)
        x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
        return x * std + mean

    mean_a, mean_b = draw.normal(size=d), draw.normal(size=d)
    std_a, std_b = draw.uniform(0.5, 2, d), draw.uniform(0.5, 2, d)
    expected = np.sum((mean_a - mean_b) ** 2 + (std_a - std_b) ** 2)
    assert frechet_distance(exact(mean_a, std_a, 50), exact(mean_b, std_b, 70)) == pytest.approx(expected, rel=1e-9)


def test_low_rank_form_equals_eigendecomposition() -> None:
    """Both branches on the same sets: d zero columns force the low-rank form and change no distance."""
    a, b = features(60, 20, 1), features(50, 20, 2, shift=0.5)
    padded = [np.pad(x, ((0, 0), (0, 40))) for x in (a, b)]
    with pytest.warns(SmallSampleWarning):
        low_rank = frechet_distance(*padded)
    assert low_rank == pytest.approx(frechet_distance(a, b), rel=1e-10)


@pytest.mark.parametrize("d", [16, 80])
def test_frechet_properties(d: int) -> None:
    a, b = features(40, d, 1), features(50, d, 2, shift=0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSampleWarning)
        value = frechet_distance(a, b)
        assert value > 0.1
        assert frechet_distance(b, a) == pytest.approx(value, rel=1e-9)
        assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)
        assert frechet_distance(a + 3, b + 3) == pytest.approx(value, rel=1e-9)
        assert frechet_distance(torch.from_numpy(a), torch.from_numpy(b)) == value


def test_dead_features_do_not_break_the_eigendecomposition() -> None:
    a, b = features(60, 10, 1), features(60, 10, 2, shift=0.5)
    dead = [np.concatenate([x, np.zeros((60, 5)), x[:, :2]], axis=1) for x in (a, b)]
    assert np.isfinite(frechet_distance(*dead))
    assert frechet_distance(dead[0], dead[0]) == pytest.approx(0.0, abs=1e-6)


def test_kernel_distance_agrees_with_torch_fidelity() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    a, b = features(80, 48, 1), features(60, 48, 2, shift=0.2)
    expected = kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=20, kid_subset_size=30, rng_seed=7, verbose=False
    )
    value, std = kernel_distance(a, b, subsets=20, subset_size=30, seed=7)
    assert value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)
    assert std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-9)


def test_kernel_distance_of_large_and_small_subsets_is_one_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways of computing it (one Gram matrix; one a subset) agree, and both are used."""
    a, b = features(90, 12, 1), features(70, 12, 2)
    used = []
    grams = distribution.grams
    monkeypatch.setattr(distribution, "grams", lambda x, y: used.append(len(x)) or grams(x, y))
    kernel_distance(a, b, subsets=50, subset_size=30, seed=3)
    assert used == [90]
    small = kernel_distance(a, b, subsets=4, subset_size=10, seed=3)
    assert used[1:] == [10] * 4
    draw = np.random.RandomState(3)
    by_hand = []
    for _ in range(4):
        x = a[draw.choice(90, 10, replace=False)]
        y = b[draw.choice(70, 10, replace=False)]
        k = [(m @ n.T / 12 + 1) ** 3 for m, n in ((x, x), (y, y), (x, y))]
        off = [m.sum() - np.trace(m) for m in k[:2]]
        by_hand.append((off[0] + off[1]) / 90 - 2 * k[2].mean())
    assert small == pytest.approx((np.mean(by_hand), np.std(by_hand)), rel=1e-9)


def test_kernel_distance_of_one_distribution_is_about_zero_and_repeatable() -> None:
    a, b = features(200, 16, 1), features(200, 16, 2)
    near, far = kernel_distance(a, b), kernel_distance(a, b + 0.5)
    assert abs(near.value) < 0.1 * far.value
    assert kernel_distance(a, b) == near
    assert near.std > 0


def test_default_subsets_differ_from_the_whole_set() -> None:
    assert [default_subset_size(n) for n in (2, 3, 40, 5000)] == [2, 2, 20, 1000]


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (np.ones((1, 4)), np.ones((5, 4)), "first feature set has 1 image"),
        (np.ones((5, 4)), np.ones((0, 4)), "second feature set has 0 image"),
        (np.ones((5, 4)), np.ones((5, 3)), "4 and 3 dimensions"),
        (np.ones((5, 4)), np.array([[1.0, 2, 3, 4], [1, np.nan, 3, 4]]), "first is row 1"),
        (np.ones((5, 4)), np.full((5, 4), np.inf), "infinite"),
        (np.ones(4), np.ones((5, 4)), "shape"),
    ],
)
def test_bad_features_are_named(a: np.ndarray, b: np.ndarray, says: str) -> None:
    for call in (frechet_distance, kernel_distance, check_features):
        with pytest.raises(EvaluationError, match=says):
            call(a, b)


def test_subset_size_must_fit() -> None:
    a = features(20, 4, 1)
    with pytest.raises(EvaluationError, match="at most 20"):
        kernel_distance(a, a, subset_size=21)
    with pytest.raises(EvaluationError, match="at least 2"):
        kernel_distance(a, a, subset_size=1)
    with pytest.raises(EvaluationError, match="subsets=0"):
        kernel_distance(a, a, subsets=0)


def test_warning_only_where_n_is_below_d() -> None:
    with pytest.warns(SmallSampleWarning, match="15 images for 16 feature dimensions"):
        frechet_distance(features(15, 16, 1), features(20, 16, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(features(16, 16, 1), features(20, 16, 2))
