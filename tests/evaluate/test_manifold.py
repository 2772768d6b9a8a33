"""Precision, recall, density and coverage: against torch-fidelity, scikit-learn and closed forms; their intervals."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from latentdrift.errors import EvaluationError
from latentdrift.evaluate import load_extractor, manifold
from latentdrift.evaluate.distribution import SmallSampleWarning, frechet_distance, kernel_distance
from latentdrift.evaluate.images import open_images
from latentdrift.evaluate.interval import manifold_intervals
from latentdrift.evaluate.manifold import manifold_figures, squared_distances
from latentdrift.evaluate.mmd import gaussian_distance


def sample(n: int, d: int, seed: int, shift: float = 0.0, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) * spread + shift


@pytest.mark.parametrize(("n_real", "n_synthetic", "d", "k"), [(80, 60, 16, 3), (50, 90, 8, 1), (70, 70, 128, 7)])
def test_precision_and_recall_agree_with_torch_fidelity(n_real: int, n_synthetic: int, d: int, k: int) -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, synthetic = sample(n_real, d, 1), sample(n_synthetic, d, 2, shift=0.3, spread=0.9)
    expected = prc_features_to_metric(
        torch.from_numpy(synthetic), torch.from_numpy(real), prc_neighborhood=k, save_cpu_ram=False, verbose=False
    )
    found = manifold_figures(real, synthetic, neighbours=k)
    assert found.precision == pytest.approx(expected["precision"], rel=1e-6)
    assert found.recall == pytest.approx(expected["recall"], rel=1e-6)
    assert 0 < found.precision < 1
    assert 0 < found.recall < 1


@pytest.mark.parametrize(("n_real", "n_synthetic"), [(80, 60), (40, 90)])
def test_all_agree_with_scikit_learn_image_by_image(n_real: int, n_synthetic: int) -> None:
    from sklearn.neighbors import NearestNeighbors

    real, synthetic = sample(n_real, 12, 1), sample(n_synthetic, 12, 2, shift=0.4)

    def radii(features: np.ndarray, k: int) -> np.ndarray:
        return NearestNeighbors(n_neighbors=k).fit(features).kneighbors()[0][:, -1]

    def members(centres: np.ndarray, reach: np.ndarray, points: np.ndarray) -> np.ndarray:
        return np.array([[np.linalg.norm(c - p) <= r for p in points] for c, r in zip(centres, reach, strict=True)])

    near, made, dense = (
        members(real, radii(real, 2), synthetic),
        members(synthetic, radii(synthetic, 2), real),
        members(real, radii(real, 4), synthetic),
    )
    found = manifold_figures(real, synthetic, neighbours=2, density_neighbours=4)
    expected = (near.any(0).mean(), made.any(0).mean(), dense.sum() / (4 * n_synthetic), dense.any(1).mean())
    assert found == pytest.approx(expected, rel=1e-12)


def test_all_figures_agree_with_other_libraries_on_features_of_images(toy_cohort: Path) -> None:
    """EfficientNet-Lite0's 1,280 dimensions of slices: not centred, not negative, far fewer images than dimensions."""
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric
    from torchmetrics.image.fid import _compute_fid

    (batch,) = open_images(toy_cohort, "real").batches(40, None)
    features = load_extractor("efficientnet-lite0")(batch).astype(np.float64)
    real, synthetic = features[::2], features[1::2] * 1.02
    a, b = torch.from_numpy(real), torch.from_numpy(synthetic)
    # In all 1,280 dimensions torchmetrics adds up the square roots of a thousand eigenvalues that are rounding, and is
    # off in the sixth digit; the span of the 40 images holds the same distance.
    span = torch.linalg.qr(torch.cat([a, b]).T)[0]
    moments = [(x.mean(0), torch.cov(x.T)) for x in (a @ span, b @ span)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSampleWarning)
        found = frechet_distance(real, synthetic)
    assert found == pytest.approx(float(_compute_fid(*moments[0], *moments[1])), rel=1e-6)
    shares = prc_features_to_metric(b, a, prc_neighborhood=3, save_cpu_ram=False, verbose=False)
    assert manifold_figures(real, synthetic)[:2] == pytest.approx((shares["precision"], shares["recall"]), rel=1e-6)
    width = gaussian_distance(real, synthetic).bandwidth
    for kernel, value in (
        ("poly", kernel_distance(real, synthetic, subsets=1, subset_size=20).value),
        ("rbf", gaussian_distance(real, synthetic).value),
    ):
        expected = kid_features_to_metric(
            a, b, kid_subsets=1, kid_subset_size=20, kid_kernel=kernel, kid_kernel_rbf_sigma=width, verbose=False
        )
        assert value == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-6)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, synthetic = sample(50, 6, 1), sample(33, 6, 2, shift=0.5)
    whole = manifold_figures(real, synthetic)
    monkeypatch.setattr(manifold, "ENTRIES", 7 * 33)
    assert [len(block) for _, block in manifold.distance_blocks(real, synthetic)] == [7] * 7 + [1]
    assert manifold_figures(real, synthetic) == whole


def test_one_distribution_has_the_expected_density_and_coverage() -> None:
    """Naeem et al. 2020, section 3.3: density 1; coverage by counting which of n + m - 1 neighbours are real."""
    n, m, k = 60, 40, 5
    found = np.array([manifold_figures(sample(n, 4, 2 * s), sample(m, 4, 2 * s + 1))[2:] for s in range(80)])
    drawn = np.arange(1, k + 1)
    coverage = 1 - np.prod((n - drawn) / (n + m - drawn))
    assert found.mean(axis=0) == pytest.approx([1.0, coverage], abs=0.03)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_copies_of_the_real_set_are_all_inside(offset: float) -> None:
    """k neighbours and the image itself are in each ball, those on its surface too, however they are rounded."""
    real = sample(40, 10, 1) + offset
    assert manifold_figures(real, real[::-1].copy()) == pytest.approx((1.0, 1.0, 6 / 5, 1.0))
    repeated = np.repeat(sample(5, 10, 2) + offset, 8, axis=0)
    assert manifold_figures(repeated, repeated + 0.01).precision == 0.0
    assert manifold_figures(repeated, repeated).precision == 1.0


def test_collapse_and_outliers_are_told_apart() -> None:
    real = sample(100, 8, 1)
    collapsed = manifold_figures(real, sample(100, 8, 2, spread=0.05))
    assert collapsed.precision == 1.0
    assert collapsed.recall < 0.05
    assert collapsed.coverage < 0.5
    # One far image gives the real set a huge ball, which precision believes and density hardly.
    stray = np.concatenate([real, np.full((1, 8), 30.0)])
    far = manifold_figures(stray, sample(100, 8, 3, shift=15.0))
    assert far.precision == 1.0
    assert far.density < 0.3
    assert far.coverage < 0.1


def test_squared_distances_are_exact_where_features_are_far_from_zero() -> None:
    x, y = sample(20, 9, 1) + 1e6, sample(30, 9, 2) + 1e6
    expected = ((x[:, None] - y[None]) ** 2).sum(-1)
    assert squared_distances(x, y) == pytest.approx(expected, rel=1e-9)


def test_settings_are_checked() -> None:
    a = sample(10, 3, 1)
    with pytest.raises(EvaluationError, match="10 nearest neighbours in a set of 10"):
        manifold_figures(a, a, neighbours=10)
    with pytest.raises(EvaluationError, match="5 nearest neighbours in a set of 4"):
        manifold_figures(a, a[:4])
    with pytest.raises(EvaluationError, match="5 nearest neighbours in a set of 5"):
        manifold_intervals(a, a)
    with pytest.raises(EvaluationError, match="NaN"):
        manifold_figures(a, np.full((10, 3), np.nan))


def test_intervals_have_the_spread_of_fresh_samples() -> None:
    def pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
        return sample(120, 6, 2 * seed), sample(120, 6, 2 * seed + 1, shift=0.7)

    fresh = np.array([manifold_figures(*pair(s)) for s in range(150)])
    wanted = np.diff(np.quantile(fresh, [0.025, 0.975], axis=0), axis=0)[0]
    intervals = [manifold_intervals(*pair(s)) for s in range(1000, 1006)]
    widths = np.mean([[high - low for low, high in found] for found in intervals], axis=0)
    assert np.all(widths > 0.75 * wanted)
    assert np.all(widths < 1.6 * wanted)


def test_intervals_contain_the_value_and_are_never_of_no_width() -> None:
    real, synthetic = sample(30, 5, 1), sample(20, 5, 2, shift=20.0)
    figures, intervals = manifold_figures(real, synthetic), manifold_intervals(real, synthetic, resamples=50)
    assert figures == (0, 0, 0, 0)
    assert intervals == manifold_intervals(real, synthetic, resamples=50)
    # None of 20: Wilson's interval ends at z^2 / (n + z^2).
    assert intervals.precision == pytest.approx((0.0, 1.959964**2 / (20 + 1.959964**2)), rel=1e-6)
    near = sample(20, 5, 3)
    for value, (low, high) in zip(manifold_figures(real, near), manifold_intervals(real, near), strict=True):
        assert low <= value <= high
        assert low < high
