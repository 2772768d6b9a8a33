from __future__ import annotations

import numpy as np
import pytest

from latentdrift.data.scan import Plane, Volume
from latentdrift.data.volumes.intensity import (
    CT_WINDOWS,
    foreground_fraction,
    foreground_threshold,
    intensity_range,
    otsu_threshold,
)
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError


def mri(seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> Volume:
    """Air (Rayleigh noise of 8), and a head of fluid at 120, gray at 400 and white at 600."""
    rng = np.random.default_rng(seed)
    voxels = np.hypot(*rng.normal(0, 8, (2, 40, 40, 40)))
    voxels[8:32, 8:32, 8:32] = rng.normal(400, 30, (24, 24, 24))
    voxels[8:32, 8:32, 18:32] = rng.normal(600, 30, (24, 24, 14))
    voxels[17:23, 17:23, 8:32] = rng.normal(120, 10, (6, 6, 24))
    return Volume((scale * voxels + shift).astype(np.float32), np.eye(4), "MR")


def test_mri_keeps_fluid_and_ignores_hot_voxels() -> None:
    volume = mri()
    low, high = intensity_range(volume)
    assert low < 20
    assert 640 < high < 700
    shown = (volume.voxels - low) / (high - low)
    assert np.mean(shown[17:23, 17:23, 8:32] > 0.08) > 0.99  # the fluid is not black
    hot = volume.voxels.copy()
    hot[:2, 0, 0] = 1e6
    assert intensity_range(Volume(hot, np.eye(4), "MR")) == pytest.approx((low, high), rel=0.02, abs=1)


def test_the_range_follows_the_scale_of_the_values() -> None:
    low, high = intensity_range(mri())
    for scale, shift in ((0.001, 0.0), (37.0, 0.0), (2.0, 500.0)):
        found = intensity_range(mri(scale=scale, shift=shift))
        assert found == pytest.approx((scale * low + shift, scale * high + shift), rel=0.02, abs=scale)


def test_a_stripped_background_is_black_and_z_scores_keep_their_dark_half() -> None:
    volume = mri()
    head = np.zeros((40, 40, 40), bool)
    head[8:32, 8:32, 8:32] = True
    stripped = np.where(head, volume.voxels, 0).astype(np.float32)
    low, high = intensity_range(Volume(stripped, np.eye(4), "MR"))
    assert low == 0
    assert high == pytest.approx(np.percentile(volume.voxels[head & (volume.voxels > 200)], 99.5), rel=0.02)
    inside = stripped[head]
    scores = np.where(head, (volume.voxels - inside.mean()) / inside.std(), 0).astype(np.float32)
    found = intensity_range(Volume(scores, np.eye(4), "MR"))
    assert found == pytest.approx(np.percentile(scores[head], [0.5, 99.5]), abs=0.05)


def test_otsu_agrees_with_an_independent_one() -> None:
    from skimage.filters import threshold_otsu

    rng = np.random.default_rng(0)
    for parts in ([(0, 1, 5000), (10, 2, 1000)], [(100, 20, 3000), (200, 30, 3000)], [(0, 5, 9000), (40, 8, 500)]):
        values = np.concatenate([rng.normal(mean, spread, count) for mean, spread, count in parts]).astype(np.float32)
        values = np.minimum(values, np.percentile(values, 99.9).astype(np.float32))
        assert otsu_threshold(values) == pytest.approx(threshold_otsu(values), abs=0.01 * float(np.ptp(values)))
    two = np.array([0.0] * 900 + [10.0] * 100, np.float32)
    assert 0 < otsu_threshold(two) < 10
    assert np.mean(two > otsu_threshold(two)) == 0.1


def test_ct_windows_in_hu() -> None:
    volume = Volume(np.linspace(-1000, 3000, 1000, dtype=np.float32).reshape(10, 10, 10), np.eye(4), "CT")
    assert intensity_range(volume) == (0, 80)
    assert intensity_range(volume, "lung") == (-1350, 150)
    assert intensity_range(volume, "soft-tissue") == (-150, 250)
    assert intensity_range(volume, "bone") == (-500, 1300)
    assert intensity_range(volume, "-600/1500") == (-1350, 150)
    assert foreground_threshold(volume) == -500
    for name, (level, width) in CT_WINDOWS.items():
        low, high = intensity_range(volume, name)
        assert ((low + high) / 2, high - low) == (level, width)
    with pytest.raises(ConfigurationError, match="in HU; this scan is MR"):
        intensity_range(mri(), "lung")
    assert intensity_range(Volume(volume.voxels, np.eye(4)), "brain") == (0, 80)


def test_xrays_use_their_window_or_percentiles_of_all_pixels() -> None:
    pixels = np.random.default_rng(0).normal(2000, 300, (200, 200)).astype(np.float32)
    assert intensity_range(Plane(pixels, modality="DX", window=(1000, 3000))) == (1000, 3000)
    expected = tuple(np.percentile(pixels, [0.5, 99.5]))
    assert intensity_range(Plane(pixels, modality="CR")) == pytest.approx(expected)
    assert intensity_range(Plane(pixels, modality="DX", window=(1000, 3000)), "percentiles") == pytest.approx(expected)
    assert intensity_range(Plane(pixels, modality="DX", window=(9000, 9999))) == pytest.approx(expected)
    assert intensity_range(Plane(pixels, modality="DX"), "minmax") == (pixels.min(), pixels.max())
    # An MR slice's own window differs from slice to slice: it is used only when asked for.
    assert intensity_range(Plane(pixels, modality="MR", window=(1, 2))) != (1, 2)
    assert intensity_range(Plane(pixels, modality="MR", window=(1, 2)), "window") == (1, 2)
    with pytest.raises(DataError, match="no window"):
        intensity_range(Plane(pixels, modality="CR"), "window")


def test_constant_images_and_unknown_methods_are_refused() -> None:
    flat = np.full((8, 8), 7, np.float32)
    for method in ("auto", "percentiles", "minmax"):
        for scan in (Plane(flat, modality="CR"), Volume(flat[..., None], np.eye(4), "MR")):
            with pytest.raises(DataError, match="constant"):
                intensity_range(scan, method)
    with pytest.raises(DataError, match="constant"):
        foreground_threshold(Plane(flat))
    with pytest.raises(UnknownNameError, match="'percentiles'"):
        intensity_range(mri(), "percentile")
    almost = flat.copy()
    almost[0, 0] = 8
    low, high = intensity_range(Volume(almost[..., None], np.eye(4), "MR"), "minmax")
    assert (low, high) == (7, 8)


def test_large_volumes_are_sampled_without_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = mri()
    whole = intensity_range(volume)
    monkeypatch.setattr("latentdrift.data.volumes.intensity.SAMPLE", 9000)
    assert intensity_range(volume) == pytest.approx(whole, rel=0.03, abs=2)


def test_the_share_of_foreground() -> None:
    pixels = np.zeros((10, 10), np.float32)
    pixels[:3] = 50
    assert foreground_fraction(pixels, 0, 100) == pytest.approx(0.3)
    assert foreground_fraction(pixels, 40, 1000) == 0
