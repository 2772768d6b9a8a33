from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from latentdrift.data.export.residual import Residual, apply_change, confine, pixels_hash, residual_of
from latentdrift.data.scan import Plane, Volume
from latentdrift.data.volumes.cut import cut_at, plane_of
from latentdrift.data.volumes.placement import Placement
from latentdrift.errors import ConfigurationError, DataError

INTEGERS = ("u1", "i1", "<i2", ">i2", "u2", "i4", "u4", "i8", "u8")


def stored_as(dtype: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(10, 100, (20, 30)).astype(dtype)


@pytest.mark.parametrize("dtype", [*INTEGERS, "f4", "f8", ">f4", "f2"])
@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, -1024.0), (-2.0, 3.0), (1e-3, 7.0)])
def test_unchanged_pixels_keep_their_bits_and_changed_ones_have_the_real_value(
    dtype: str, slope: float, intercept: float
) -> None:
    stored = stored_as(dtype)
    change = np.zeros((20, 30), np.float32)
    change[5:9, 5:9] = 7 * abs(slope)
    found = apply_change(stored, change, slope, intercept)
    assert found.dtype == stored.dtype
    untouched = change == 0
    assert found[untouched].tobytes() == stored[untouched].tobytes()
    real = stored.astype(float) * slope + intercept + change
    np.testing.assert_allclose((found.astype(float) * slope + intercept)[~untouched], real[~untouched], rtol=1e-3)
    assert apply_change(stored, 0 * change, slope, intercept).tobytes() == stored.tobytes()
    assert apply_change(stored, -0.0 * (change + 1), slope, intercept).tobytes() == stored.tobytes()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_clipped_to_their_type(dtype: str) -> None:
    stored = stored_as(dtype)
    limits = np.iinfo(stored.dtype)
    found = apply_change(stored, np.full(stored.shape, 1e30, np.float32))
    assert (found == limits.max).all()
    found = apply_change(stored, np.full(stored.shape, -1e30, np.float32))
    assert (found == limits.min).all()


def test_rounding_is_to_the_nearest() -> None:
    stored = np.array([[10, 10, 10, 10, 10]], np.int16)
    change = np.array([[0.4, 0.6, -0.6, 1.4, -2.51]], np.float32)
    np.testing.assert_array_equal(apply_change(stored, change), [[10, 11, 9, 11, 7]])
    np.testing.assert_array_equal(apply_change(stored, change, slope=2.0), [[10, 10, 10, 11, 9]])


def test_limits_hold_for_changed_pixels_only() -> None:
    stored = np.array([[-50, 0, 50, 100, 200]], np.int16)
    change = np.array([[0, -30, 10, 30, 0]], np.float32)
    np.testing.assert_array_equal(apply_change(stored, change, low=0, high=110), [[-50, 0, 60, 110, 200]])
    np.testing.assert_array_equal(apply_change(stored, change, low=0), [[-50, 0, 60, 130, 200]])
    np.testing.assert_array_equal(apply_change(stored, change, high=110), [[-50, -30, 60, 110, 200]])
    # With a negative slope the stored values run the other way: real = -stored.
    np.testing.assert_array_equal(apply_change(-stored, change, -1.0, low=0, high=110), [[50, 0, -60, -110, -200]])
    np.testing.assert_array_equal(apply_change(-stored, change, -1.0, high=110), [[50, 30, -60, -110, -200]])
    np.testing.assert_array_equal(apply_change(-stored, change, -1.0, low=0), [[50, 0, -60, -130, -200]])


def test_what_is_out_of_range_already_moves_by_its_change_alone() -> None:
    stored = np.array([[-50, -50, 200, 200]], np.int16)
    change = np.array([[10, -10, -10, 10]], np.float32)
    np.testing.assert_array_equal(apply_change(stored, change, low=0, high=110), [[-40, -50, 190, 200]])


def test_numbers_that_are_none_stay_and_those_too_large_are_refused() -> None:
    stored = np.array([[np.nan, np.inf, 1.0]], np.float32)
    found = apply_change(stored, np.ones((1, 3), np.float32))
    assert found[:, :2].tobytes() == stored[:, :2].tobytes()
    assert found[0, 2] == 2
    assert np.isfinite(apply_change(np.full((1, 1), 6e4, np.float16), np.full((1, 1), 1e5, np.float32))).all()
    with pytest.raises(DataError, match=r"above 2\*\*53"):
        apply_change(np.array([[2**60]]), np.ones((1, 1), np.float32))
    for change, slope, message in (
        (np.ones((2, 2)), 1.0, "shape"),
        (np.full((1, 3), np.nan), 1.0, "NaN"),
        (np.ones((1, 3)), 0.0, "slope is 0"),
    ):
        with pytest.raises(DataError, match=message):
            apply_change(stored, change, slope)
    with pytest.raises(DataError, match="bool"):
        apply_change(np.ones((1, 3), bool), np.ones((1, 3)))


def test_confine_zeroes_small_changes_and_all_outside_the_mask() -> None:
    change = np.linspace(-1, 1, 400, dtype=np.float32).reshape(20, 20)
    np.testing.assert_array_equal(confine(change), change)
    found = confine(change, 0.3)
    np.testing.assert_array_equal(found, np.where(np.abs(change) >= 0.3, change, 0))
    thresholds = np.full((20, 20), 0.3)
    thresholds[:10] = 2
    assert not confine(change, thresholds)[:10].any()
    mask = np.zeros((20, 20), bool)
    mask[4:16, 4:16] = True
    found = confine(change, 0.3, mask)
    assert not found[~mask].any()
    np.testing.assert_array_equal(found[mask], np.where(np.abs(change) >= 0.3, change, 0)[mask])
    assert found.dtype == np.float32
    assert not np.signbit(found[found == 0]).any()
    assert not confine(change, 0, np.zeros((20, 20), bool), 3).any()


def test_feathering_fades_to_nothing_at_the_mask_s_border() -> None:
    mask = np.zeros((30, 30), bool)
    mask[5:25, 5:25] = True
    found = confine(np.ones((30, 30), np.float32), 0, mask, feather=3)
    np.testing.assert_allclose(found[15, 4:10], [0, 0.25, 0.5, 0.75, 1, 1])
    assert not found[~mask].any()
    # The edge of the image is no border of the mask.
    np.testing.assert_array_equal(confine(np.ones((9, 9), np.float32), 0, np.ones((9, 9), bool), 3), 1)


def test_confine_refuses_what_cannot_be() -> None:
    change = np.ones((3, 3), np.float32)
    for call in (lambda: confine(change, -1), lambda: confine(change, feather=-1)):
        with pytest.raises(ConfigurationError, match="at least 0"):
            call()
    for call in (
        lambda: confine(change, np.ones((2, 2))),
        lambda: confine(change, 0, np.ones((2, 2), bool)),
        lambda: confine(change * np.nan),
        lambda: confine(change, float("nan")),
    ):
        with pytest.raises(DataError):
            call()


def test_the_hash_is_of_values_not_of_bytes() -> None:
    stored = stored_as("<i2")
    assert pixels_hash(stored) == pixels_hash(stored.astype(">i2")) == pixels_hash(np.asfortranarray(stored))
    assert pixels_hash(stored) != pixels_hash(stored.astype("i4"))
    assert pixels_hash(stored) != pixels_hash(stored.reshape(30, 20))
    other = stored.copy()
    other[3, 3] += 1
    assert pixels_hash(stored) != pixels_hash(other)


@pytest.fixture
def residual() -> tuple[Residual, np.ndarray]:
    volume = Volume(np.random.default_rng(0).integers(0, 900, (20, 30, 8)).astype(np.float32), np.diag([1, 1, 3.0, 1]))
    cut = cut_at(volume, "axial", 3)
    plane = plane_of(volume, cut)
    stored = cut.take(volume.voxels.astype(np.int16))
    change = np.zeros(plane.pixels.shape, np.float32)
    change[3:9, 4:8] = 41.5
    place = Placement.of(plane, 32, 0, 900)
    return residual_of(plane, stored, change, place, slope=0.5, provenance={"model": "tiny", "seed": 3}), stored


def test_a_saved_residual_is_the_same_and_applies_to_its_source_only(
    tmp_path: Path, residual: tuple[Residual, np.ndarray]
) -> None:
    made, stored = residual
    path = made.save(tmp_path / "deep/edit.npz")
    found = Residual.load(path)
    np.testing.assert_array_equal(found.change, made.change)
    assert (found.placement, found.cut, found.slope) == (made.placement, made.cut, 0.5)
    assert found.provenance == {"model": "tiny", "seed": 3}
    np.testing.assert_array_equal(found.apply(stored), apply_change(stored, made.change, 0.5))
    other = stored.copy()
    other[0, 0] += 1
    with pytest.raises(DataError, match="made for other pixels"):
        found.apply(other)
    assert made.save(tmp_path / "again.npz").read_bytes() == path.read_bytes()
    with np.load(path) as arrays:
        described = json.loads(arrays["description"].tobytes())
    assert described["SyntheticData"] == "YES"
    assert [file.name for file in path.parent.iterdir()] == ["edit.npz"]


def test_damaged_residuals_are_refused(tmp_path: Path, residual: tuple[Residual, np.ndarray]) -> None:
    path = residual[0].save(tmp_path / "edit.npz")
    good = path.read_bytes()
    for number in range(60):
        content = bytearray(good)
        place = number * len(content) // 60
        if number % 2:
            content[place] ^= 16
        else:
            del content[place:]
        path.write_bytes(bytes(content))
        try:
            found = Residual.load(path)
        except DataError as error:
            assert "edit.npz" in str(error)  # noqa: PT017
        else:
            np.testing.assert_array_equal(found.change, residual[0].change)
    with pytest.raises(DataError, match="cannot|residual"):
        Residual.load(tmp_path / "nowhere.npz")
    np.savez(path, change=np.zeros((2, 2), object), description=np.zeros(2, np.uint8))
    with pytest.raises(DataError, match=r"edit\.npz is no residual"):
        Residual.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("change.npy", "w") as file:
        for _ in range(400):
            file.write(bytes(2**20))
    with pytest.raises(DataError, match="claims more than an image"):
        Residual.load(path)
    with pytest.raises(DataError, match="no JSON"):
        Residual(np.zeros((2, 2), np.float32), "x", provenance={"a": float("nan")}).save(path)
    with pytest.raises(DataError, match="do not match"):
        residual_of(Plane(np.zeros((2, 2), np.float32)), np.zeros((2, 2)), np.zeros((2, 3), np.float32))
