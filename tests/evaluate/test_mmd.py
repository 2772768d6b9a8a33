"""The Gaussian kernel distance: against torch-fidelity, scikit-learn and closed forms; its interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.interval import gaussian_interval
from latentdrift.evaluate.manifold import Distances
from latentdrift.evaluate.mmd import choose_bandwidth, cmmd, gaussian_distance


def sample(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


@pytest.mark.parametrize("bandwidth", [0.7, 3.0, 50.0])
def test_agrees_with_torch_fidelity(bandwidth: float) -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    a, b = sample(60, 8, 1), sample(60, 8, 2, shift=0.4)
    # One subset of all images.
    expected = kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=1, kid_subset_size=60, kid_kernel="rbf",
        kid_kernel_rbf_sigma=bandwidth, verbose=False,
    )  # fmt: skip
    found = gaussian_distance(a, b, bandwidth=bandwidth)
    assert found.value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)
    assert found.bandwidth == bandwidth


def test_sets_of_different_size_agree_with_scikit_learn() -> None:
    from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

    a, b = sample(40, 5, 1), sample(25, 5, 2, shift=0.4)
    found = gaussian_distance(a, b)
    bandwidth = np.median(euclidean_distances(a)[np.triu_indices(40, 1)])
    assert found.bandwidth == pytest.approx(bandwidth, rel=1e-9)
    kernels = [rbf_kernel(x, y, 1 / (2 * bandwidth**2)) for x, y in ((a, a), (b, b), (a, b))]
    within = [(kernel.sum() - n) / (n * (n - 1)) for kernel, n in zip(kernels, (40, 25), strict=False)]
    assert found.value == pytest.approx(sum(within) - 2 * kernels[2].mean(), rel=1e-9)


def test_cmmd_agrees_with_scikit_learn() -> None:
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.preprocessing import normalize

    a, b = sample(40, 16, 1) * 7, sample(30, 16, 2, shift=0.4)
    x, y = normalize(a), normalize(b)
    kernels = [rbf_kernel(*pair, 1 / 200).mean() for pair in ((x, x), (y, y), (x, y))]
    assert cmmd(a, b) == pytest.approx(1000 * (kernels[0] + kernels[1] - 2 * kernels[2]), rel=1e-6)
    assert cmmd(a, a) == pytest.approx(0.0, abs=1e-9)


def test_unbiased_and_equal_to_the_closed_form_of_gaussians() -> None:
    """MMD^2 of N(0, I) and N(m, I): 2 (s^2 / (s^2 + 2))^(d/2) (1 - exp(-|m|^2 / (2 (s^2 + 2))))."""
    d, bandwidth, shift = 4, 1.5, 0.5
    wide = bandwidth**2 + 2
    expected = 2 * (bandwidth**2 / wide) ** (d / 2) * (1 - np.exp(-d * shift**2 / (2 * wide)))
    found = [
        gaussian_distance(sample(15, d, 2 * s), sample(20, d, 2 * s + 1, shift=shift), bandwidth=bandwidth).value
        for s in range(800)
    ]
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / np.sqrt(800))
    assert np.std(found) / np.sqrt(800) < 0.05 * expected
    null = [
        gaussian_distance(sample(15, d, 2 * s), sample(20, d, 2 * s + 1), bandwidth=bandwidth).value for s in range(400)
    ]
    assert abs(np.mean(null)) < 4 * np.std(null) / np.sqrt(400)


def test_nothing_is_lost_to_rounding_with_a_wide_kernel() -> None:
    """For a wide Gaussian the biased MMD^2 tends to the squared distance of the means over bandwidth^2."""
    a, b = sample(50, 6, 1), sample(40, 6, 2, shift=1.0)
    wide = 1e5
    value = gaussian_distance(a, b, bandwidth=wide).value * wide**2
    within = [x.var(axis=0, ddof=1).sum() / len(x) for x in (a, b)]
    assert value == pytest.approx(np.sum((a.mean(0) - b.mean(0)) ** 2) - sum(within), rel=1e-6)


def test_bandwidth_is_that_of_the_real_set() -> None:
    real = sample(30, 6, 1)
    others = [sample(30, 6, seed, shift=shift) for seed, shift in ((2, 0.0), (3, 9.0))]
    assert len({gaussian_distance(real, other).bandwidth for other in others}) == 1
    # Of 2,100 images every second is taken; |x - y|^2 / 2 of two dimensions is chi-squared, its median 2 log 2.
    assert choose_bandwidth(sample(2100, 2, 1), None) == pytest.approx(np.sqrt(4 * np.log(2)), rel=0.05)


def test_interval_covers_the_true_distance() -> None:
    d, bandwidth, shift = 4, 1.5, 0.4
    wide = bandwidth**2 + 2
    true = 2 * (bandwidth**2 / wide) ** (d / 2) * (1 - np.exp(-d * shift**2 / (2 * wide)))
    covered = 0
    for s in range(60):
        low, high = gaussian_interval(
            sample(50, d, 2 * s), sample(50, d, 2 * s + 1, shift=shift), bandwidth=bandwidth, resamples=200, seed=s
        )
        covered += low <= true <= high
    assert covered >= 50


def test_bad_input_is_named() -> None:
    a = sample(10, 3, 1)
    for bandwidth in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(EvaluationError, match="bandwidth="):
            gaussian_distance(a, a, bandwidth=bandwidth)
    with pytest.raises(EvaluationError, match="one and the same"):
        gaussian_distance(np.ones((10, 3)), a)
    a[4] = 0
    with pytest.raises(EvaluationError, match="Row 4 of the second"):
        cmmd(sample(10, 3, 1), a)


def test_block_by_block_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = sample(40, 5, 1), sample(33, 5, 2, shift=0.4)
    at_once = gaussian_distance(a, b, distances=Distances.of(a, b))
    whole = cmmd(a, b)
    monkeypatch.setattr("latentdrift.evaluate.manifold.ENTRIES", 100)
    assert gaussian_distance(a, b) == pytest.approx(at_once, rel=1e-12)
    assert cmmd(a, b) == pytest.approx(whole, rel=1e-12)
