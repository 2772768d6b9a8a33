from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentdrift.data import ImageTransform
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError


@pytest.fixture
def pattern() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (208, 176), dtype=np.uint8)


def test_gray_image_is_padded_with_black_and_resized_like_pillow(tmp_path: Path, pattern: np.ndarray) -> None:
    Image.fromarray(pattern).save(tmp_path / "a.png")
    tensor = ImageTransform(128).read(tmp_path / "a.png")
    assert tensor.shape == (3, 128, 128)
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor[0], tensor[1])
    assert torch.equal(tensor[0], tensor[2])
    # 176 / 208 of 128 is 108: ten black columns on either side.
    assert (tensor[:, :, :10] == -1).all()
    assert (tensor[:, :, -10:] == -1).all()
    reference = Image.fromarray(pattern.astype(np.float32)).resize((108, 128), Image.Resampling.BILINEAR)
    found = (tensor[0, :, 10:-10].numpy() + 1) * 127.5
    np.testing.assert_allclose(found, np.asarray(reference), atol=0.05)


def test_crop_keeps_the_central_square(pattern: np.ndarray) -> None:
    found = ImageTransform(176, "crop").from_array(pattern)
    np.testing.assert_allclose((found[0].numpy() + 1) * 127.5, pattern[16:-16], atol=1e-3)


def test_sixteen_bits_keep_their_levels(tmp_path: Path) -> None:
    levels = np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16
    for name in ("a.png", "a.tif"):
        Image.fromarray(levels).save(tmp_path / name)
        found = ImageTransform(64).read(tmp_path / name)[0].double().numpy()
        np.testing.assert_allclose((found + 1) / 2 * 65535, levels, atol=0.02)
    assert torch.equal(ImageTransform(64).from_array(levels), ImageTransform(64).read(tmp_path / "a.png"))


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_floating_point_tiff(tmp_path: Path, scale: float) -> None:
    values = np.linspace(0, scale, 100, dtype=np.float32).reshape(10, 10)
    Image.fromarray(values).save(tmp_path / "a.tif")
    found = ImageTransform(10).read(tmp_path / "a.tif")[0].numpy()
    np.testing.assert_allclose((found + 1) / 2, values / scale, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -3.0, 900.0])
def test_floating_point_without_a_range_is_refused(tmp_path: Path, bad: float) -> None:
    values = np.full((9, 9), 0.5, np.float32)
    values[4, 4] = bad
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif"):
        ImageTransform(16).read(tmp_path / "a.tif")
    with pytest.raises(DataError, match="scale them"):
        ImageTransform(16).from_array(values)


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = (250, 10, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter: what is stored left is shown on top
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    found = ImageTransform(40).read(tmp_path / "a.png")
    assert found[0, 5, 15] > 0.9
    assert found[0, 35, 15] == -1
    assert (found[:, :, :10] == -1).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_gives_the_same_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / {"CMYK": "a.tif", "YCbCr": "a.jpg"}.get(mode, "a.png")
    Image.new("RGB", (8, 8), "white").convert(mode).save(path)
    assert ImageTransform(8).read(path).min() > 0.99


def test_transparent_is_black(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 255, 255, 0)).save(tmp_path / "a.png")
    assert (ImageTransform(8).read(tmp_path / "a.png") == -1).all()


def test_truncated_and_missing_files_are_named(tmp_path: Path, pattern: np.ndarray) -> None:
    Image.fromarray(pattern).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])
    for name in ("cut.jpg", "gone.jpg"):
        with pytest.raises(DataError, match=name):
            ImageTransform().read(tmp_path / name)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused_undecoded(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    Image.new("1", (9100, 9100)).save(bomb)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"bomb\.png.*decompression bomb"):
        ImageTransform().read(bomb)


def test_a_line_of_pixels_is_neither_lost_nor_stretched() -> None:
    found = ImageTransform(64).from_array(np.full((1, 5000), 255, np.uint8))
    assert found.shape == (3, 64, 64)
    assert int((found[0] > -1).any(dim=1).sum()) == 1


def test_gray_is_told_from_colour(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    gray = rng.integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(np.stack([gray] * 3, -1)).save(tmp_path / "gray.jpg")
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "colour.jpg")
    assert ImageTransform().is_gray(tmp_path / "gray.jpg")
    assert not ImageTransform().is_gray(tmp_path / "colour.jpg")


def test_fingerprint_covers_all_settings() -> None:
    prints = {ImageTransform(*settings).fingerprint() for settings in [(128, "pad"), (128, "crop"), (64, "pad")]}
    assert len(prints) == 3
    assert ImageTransform(128, "pad").fingerprint() in prints


def test_settings_that_cannot_be() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'pad'"):
        ImageTransform(fit="padd")
    for size in (0, 1 << 20, 12.5):
        with pytest.raises(ConfigurationError, match="size"):
            ImageTransform(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("array", [np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((4, 4), np.int64)])
def test_arrays_that_are_no_images(array: np.ndarray) -> None:
    with pytest.raises(DataError):
        ImageTransform().from_array(array)
