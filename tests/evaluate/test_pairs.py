"""SSIM and PSNR against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.pairs import psnr, ssim


def pairs(channels: int, size: tuple[int, int] = (40, 33)) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(draw.normal(size=(3, channels, *size)), axis=-1), axis=-2)
    smooth /= np.abs(smooth).max()
    return smooth, np.clip(smooth + draw.normal(size=smooth.shape) * 0.1, -1, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("as_bytes", "data_range"), [(False, 2.0), (True, 255.0)])
def test_agree_with_scikit_image(channels: int, as_bytes: bool, data_range: float) -> None:
    a, b = pairs(channels)
    if as_bytes:
        a, b = (((x + 1) * 127.5).round().astype(np.uint8) for x in (a, b))
    similar, peak = ssim(a, b), psnr(torch.from_numpy(a), torch.from_numpy(b))
    assert similar.shape == peak.shape == (3,)
    for i in range(3):
        expected = structural_similarity(
            a[i],
            b[i],
            channel_axis=0,
            data_range=data_range,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert similar[i] == pytest.approx(expected, rel=1e-6)
        assert peak[i] == pytest.approx(peak_signal_noise_ratio(a[i], b[i], data_range=data_range), rel=1e-6)


def test_equal_images() -> None:
    a, _ = pairs(3)
    assert ssim(a, a) == pytest.approx(1.0)
    assert np.isinf(psnr(a, a)).all()


def test_stated_range_counts() -> None:
    a, b = pairs(1)
    assert psnr(a / 2, b / 2, data_range=1.0) == pytest.approx(psnr(a, b))
    assert ssim(a / 2, b / 2, data_range=1.0) == pytest.approx(ssim(a, b))


@pytest.mark.parametrize(
    ("a", "b", "data_range", "says"),
    [
        (np.zeros((1, 3, 16, 16)), np.zeros((2, 3, 16, 16)), None, "shapes"),
        (np.zeros((3, 16, 16)), np.zeros((3, 16, 16)), None, "shapes"),
        (np.zeros((1, 1, 16, 16)), np.zeros((1, 1, 16, 16), dtype=np.uint8), None, "types"),
        (np.full((1, 1, 16, 16), np.nan), np.zeros((1, 1, 16, 16)), None, "first images .* NaN"),
        (np.zeros((1, 1, 16, 16)), np.arange(256.0).reshape(1, 1, 16, 16), None, "second images span 255"),
        (np.zeros((1, 1, 16, 16)), np.zeros((1, 1, 16, 16)), -1.0, "data_range=-1"),
    ],
)
def test_bad_pairs_are_named(a: np.ndarray, b: np.ndarray, data_range: float | None, says: str) -> None:
    for call in (ssim, psnr):
        with pytest.raises(EvaluationError, match=says):
            call(a, b, data_range=data_range)


def test_window_must_fit() -> None:
    small = np.zeros((1, 1, 10, 20))
    with pytest.raises(EvaluationError, match="11 pixels"):
        ssim(small, small)
