from __future__ import annotations

import json

import numpy as np
import pytest

from latentdrift.data.scan import Plane
from latentdrift.data.volumes.placement import Placement
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError


def smooth(shape: tuple[int, int], seed: int = 0, sigma: float = 4) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    found = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return ((found - found.min()) / np.ptp(found)).astype(np.float32)


def placement(
    shape: tuple[int, int], size: int, spacing: tuple[float, float] = (1.0, 1.0), **rest: object
) -> Placement:
    return Placement(shape, spacing, size, 0.0, 1.0, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize("spacing", [1.0, 0.9375, 0.3, 1 / 3])
@pytest.mark.parametrize("shape", [(64, 64), (64, 48), (41, 64), (63, 64)])
def test_pixels_of_equal_size_are_copied(spacing: float, shape: tuple[int, int]) -> None:
    pixels = smooth(shape, sigma=0.5)
    place = placement(shape, 64, (spacing, spacing))
    image = place.show(pixels)
    top, left = (-(-(64 - side) // 2) if (64 - side) % 2 == 0 else (64 - side) // 2 for side in shape)
    np.testing.assert_array_equal(image[top : top + shape[0], left : left + shape[1]], pixels)
    assert np.count_nonzero(image) <= pixels.size
    change = np.zeros((64, 64), np.float32)
    change[top : top + shape[0], left : left + shape[1]] = pixels
    np.testing.assert_array_equal(place.bring_back(change), pixels)


@pytest.mark.parametrize("shape", [(200, 200), (200, 160), (181, 217), (97, 300)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 1.25), (2.0, 0.7)])
def test_shrinking_keeps_the_sum(shape: tuple[int, int], spacing: tuple[float, float]) -> None:
    pixels = smooth(shape)
    place = placement(shape, 48, spacing)
    expected = pixels.mean() * shape[0] * spacing[0] * shape[1] * spacing[1]
    if place.pixel >= max(spacing):
        assert place.show(pixels).sum() * place.pixel**2 == pytest.approx(expected, rel=1e-4)
    assert place.show(np.ones(shape, np.float32)).max() == pytest.approx(1, abs=1e-5)


def test_shrinking_by_a_whole_number_is_the_mean_of_blocks() -> None:
    pixels = smooth((96, 96), sigma=1)
    np.testing.assert_allclose(
        placement((96, 96), 32).show(pixels), pixels.reshape(32, 3, 32, 3).mean((1, 3)), atol=1e-6
    )


def test_enlarging_is_linear_interpolation() -> None:
    from scipy.ndimage import map_coordinates

    pixels = smooth((24, 24), sigma=1)
    at = (np.arange(96) + 0.5) / 4 - 0.5
    expected = map_coordinates(pixels, np.meshgrid(at, at, indexing="ij"), order=1, mode="nearest")
    np.testing.assert_allclose(placement((24, 24), 96).show(pixels), expected, atol=1e-5)


def test_range_inversion_and_crop() -> None:
    pixels = np.linspace(-200, 300, 40 * 60, dtype=np.float32).reshape(40, 60)
    place = Placement((40, 60), (1, 1), 40, -100, 200, fit="crop")
    expected = np.clip((pixels[:, 10:50] + 100) / 300, 0, 1)
    np.testing.assert_allclose(place.show(pixels), expected, atol=1e-6)
    dark = Placement((40, 60), (1, 1), 40, -100, 200, True, "crop")
    np.testing.assert_allclose(dark.show(pixels), 1 - expected, atol=1e-6)
    change = smooth((40, 40)) - 0.5
    np.testing.assert_allclose(place.bring_back(change)[:, 10:50], 300 * change, rtol=1e-5)
    np.testing.assert_allclose(dark.bring_back(change)[:, 10:50], -300 * change, rtol=1e-5)
    assert not place.bring_back(change)[:, :10].any()
    assert not place.bring_back(change)[:, 50:].any()
    # Outside the plane the square is black, inverted or not.
    padded = Placement((40, 60), (1, 1), 60, -100, 200, True).show(pixels)
    assert not padded[:10].any()
    assert not padded[50:].any()


def test_extent_keeps_one_scale() -> None:
    small, large = (Placement((n, n), (1, 1), 64, 0, 1, extent=128) for n in (80, 160))
    assert small.pixel == large.pixel == 2
    assert small.show(np.ones((80, 80), np.float32)).sum() == pytest.approx(40 * 40)
    assert large.show(np.ones((160, 160), np.float32)).sum() == pytest.approx(64 * 64)
    assert np.count_nonzero(large.bring_back(np.ones((64, 64), np.float32))) == 128 * 128


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.9375, 0.9375), (0.5, 1.2), (3.0, 0.8)])
@pytest.mark.parametrize("size", [48, 64, 100, 256])
@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("extent", [None, 70.0, 300.0])
def test_what_is_not_changed_around_a_pixel_is_not_changed_there(
    spacing: tuple[float, float], size: int, fit: str, extent: float | None
) -> None:
    place = placement((64, 90), size, spacing, fit=fit, extent=extent)
    change = np.zeros((size, size), np.float32)
    first, last = size // 3, size // 2
    change[first:last, first:last] = 1
    found = place.bring_back(change)
    # In mm from the middle: only pixels less than one image pixel outside the changed square may change.
    centres = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip((64, 90), spacing, strict=True)]
    low, high = ((end - size / 2) * place.pixel for end in (first, last))
    margin = place.pixel / 2 + max(spacing) / 2 * (
        abs(place.pixel - min(spacing)) < 1e-6 or abs(place.pixel - max(spacing)) < 1e-6
    )
    near = [(c > low - margin - 1e-6) & (c < high + margin + 1e-6) for c in centres]
    assert not found[~np.outer(*near)].any()
    inside = [(c > low + margin) & (c < high - margin) for c in centres]
    np.testing.assert_allclose(found[np.outer(*inside)], 1, atol=1e-5)
    assert not place.bring_back(np.zeros((size, size), np.float32)).any()


@pytest.mark.parametrize(("size", "most"), [(64, 0.08), (128, 0.0), (96, 0.05), (256, 0.02), (512, 0.01)])
def test_a_change_of_the_plane_survives_the_way_there_and_back(size: int, most: float) -> None:
    """The error of bring_back(show(change)), relative to a change that is smooth over 3 pixels."""
    change = 0.4 * (smooth((128, 128), sigma=3) - 0.5)
    place = placement((128, 128), size)
    shown = place.show(0.5 + change) - place.show(np.full((128, 128), 0.5, np.float32))
    error = np.linalg.norm(place.bring_back(shown) - change) / np.linalg.norm(change)
    assert error <= most + 1e-6


@pytest.mark.parametrize(("size", "most"), [(64, 0.02), (128, 0.0), (96, 0.03), (256, 0.025)])
def test_a_change_of_the_image_is_seen_again_after_it_went_back(size: int, most: float) -> None:
    place = placement((128, 128), size)
    change = 0.4 * (smooth((size, size), sigma=3 * max(1, size / 128)) - 0.5)
    base = np.full((128, 128), 0.5, np.float32)
    seen = place.show(base + place.bring_back(change)) - place.show(base)
    assert np.linalg.norm(seen - change) / np.linalg.norm(change) <= most + 1e-6


def test_placements_are_remembered_as_json_and_bad_ones_refused() -> None:
    plane = Plane(np.zeros((30, 40), np.float32), (0.5, 0.7), "DX", inverted=True)
    place = Placement.of(plane, 64, -3, 9, fit="crop", extent=17)
    found = json.loads(json.dumps(place.to_dict()))
    assert Placement.from_dict(found) == place
    for name, wrong in (
        ("shape", [0, 4]),
        ("shape", "x"),
        ("shape", [float("inf"), 3]),
        ("spacing", [0, 1]),
        ("spacing", [float("nan"), 1]),
        ("size", 4),
        ("size", "64"),
        ("size", 64.5),
        ("low", 9),
        ("high", float("nan")),
        ("fit", "stretch"),
        ("extent", -1),
        ("extent", float("nan")),
    ):
        with pytest.raises((DataError, ConfigurationError, UnknownNameError)):
            Placement.from_dict({**found, name: wrong})
    del found["low"]
    with pytest.raises(DataError, match="no placement"):
        Placement.from_dict(found)


def test_other_shapes_and_numbers_that_would_spread_are_refused() -> None:
    place = placement((30, 40), 64)
    with pytest.raises(DataError, match=r"\(40, 30\)"):
        place.show(np.zeros((40, 30), np.float32))
    with pytest.raises(DataError, match=r"\(32, 32\)"):
        place.bring_back(np.zeros((32, 32), np.float32))
    wrong = np.zeros((64, 64), np.float32)
    wrong[3, 3] = np.nan
    with pytest.raises(DataError, match="change holds NaN"):
        place.bring_back(wrong)
    with pytest.raises(DataError, match="plane holds NaN"):
        place.show(wrong[:30, :40])
