"""Volumes: series in any order of files, and enhanced multi-frame images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage

from latentdrift.data.formats.dicom import read_dicom, reading
from latentdrift.data.scan import Plane, Volume
from latentdrift.errors import DataError
from tests.data.formats.dicom_files import ct_series, header, save, with_pixels

SHAPE = (7, 5, 6)
ORDER = (3, 0, 5, 1, 4, 2)


def oblique(spacing: tuple[float, float, float] = (0.7, 0.9, 2.5), origin: tuple[float, ...] = (-80, 31.5, 12)) -> Any:
    """An affine (LPS) turned about two axes."""
    a, b = 0.3, -0.2
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def voxels() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype="<i2").reshape(SHAPE)


def volume(files: list[Path], **how: Any) -> Volume:
    found = read_dicom(files, **how)
    assert isinstance(found, Volume)
    return found


def test_a_shuffled_series_becomes_a_volume_in_its_place(tmp_path: Path) -> None:
    lps = oblique()
    found = volume(ct_series(tmp_path, voxels(), lps, order=ORDER))
    np.testing.assert_array_equal(found.voxels, voxels() - 1024.0)
    np.testing.assert_allclose(found.affine, np.diag([-1, -1, 1, 1]) @ lps, atol=1e-5)
    assert (found.modality, found.facts["units"]) == ("CT", "HU")
    assert found.facts["window"] == (0, 79)


def test_voxels_are_where_the_affine_of_an_independent_reader_says(tmp_path: Path) -> None:
    """highdicom works the affine of a series out by itself."""
    from highdicom import get_volume_from_series
    from pydicom import dcmread

    files = ct_series(tmp_path, voxels(), oblique(), order=ORDER)
    found = volume(files)
    other = get_volume_from_series([dcmread(path) for path in files])
    k, j, i = 4, 3, 2
    there = np.linalg.inv(other.affine) @ np.diag([-1, -1, 1, 1]) @ found.affine @ [i, j, k, 1]
    place = tuple(np.rint(there[:3]).astype(int))
    np.testing.assert_allclose(there[:3], place, atol=1e-4)
    assert other.array[place] == found.voxels[i, j, k]


def test_a_second_window_is_chosen(tmp_path: Path) -> None:
    assert volume(ct_series(tmp_path, voxels(), oblique()), window="bone").facts["window"] == (-800, 1999)


def test_each_slice_has_its_own_slope(tmp_path: Path) -> None:
    from pydicom import dcmread

    files = ct_series(tmp_path, voxels(), oblique())
    for k, path in enumerate(files):
        made = dcmread(path)
        made.Modality, made.RescaleSlope, made.RescaleIntercept = "PT", k + 1, 0
        made.save_as(path)
    np.testing.assert_array_equal(volume(files).voxels, voxels() * np.arange(1.0, 7))


def test_padding_is_air_in_every_slice(tmp_path: Path) -> None:
    stored = voxels()
    stored[0] = -2000
    files = ct_series(tmp_path, stored, oblique(), PixelPaddingValue=-2000)
    found = volume(files)
    assert set(np.unique(found.voxels[0])) == {-1000.0}
    assert found.facts["padding"] == pytest.approx(1 / 7)


def test_a_tilted_gantry_gives_a_sheared_affine(tmp_path: Path) -> None:
    lps = np.diag([0.5, 0.5, 3.0, 1.0])
    lps[1, 2] = -1.0
    found = volume(ct_series(tmp_path, voxels(), lps))
    np.testing.assert_allclose(found.affine, np.diag([-1, -1, 1, 1]) @ lps, atol=1e-6)
    assert found.facts["shear_degrees"] == pytest.approx(np.degrees(np.arctan(1 / 3)), abs=0.01)


def break_series(kind: str, files: list[Path]) -> list[Path]:
    from pydicom import dcmread

    if kind == "gap":
        return files[:2] + files[3:]
    made = dcmread(files[2])
    if kind == "twice":
        made.ImagePositionPatient = dcmread(files[3]).ImagePositionPatient
    elif kind == "turned":
        made.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    elif kind == "localizer":
        made.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    elif kind == "other series":
        made.SeriesInstanceUID = "1.2.3"
    elif kind == "nowhere":
        del made.ImagePositionPatient
    elif kind == "size":
        made.Rows, made.PixelData = 4, made.PixelData[: 4 * 7 * 2]
    elif kind == "spacing":
        made.PixelSpacing = [1, 1]
    elif kind == "skew":
        made.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]
    elif kind == "frames":
        made.NumberOfFrames = 2
    elif kind == "aside":
        made.ImagePositionPatient = [made.ImagePositionPatient[0] + 30, *made.ImagePositionPatient[1:]]
    made.save_as(files[2])
    return files


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("gap", "5.000 mm after"), ("twice", "more than one slice"), ("turned", "several orientations"),
        ("localizer", "IM0002 is a localizer"), ("other series", "IM0002 is of another series"),
        ("nowhere", "IM0002 does not say where"), ("size", "IM0002 has 4 rows"), ("spacing", "pixel distances"),
        ("skew", "perpendicular"), ("frames", "several frames"), ("aside", "lie on a line"),
    ],
)  # fmt: skip
def test_what_is_no_stack_is_refused_with_the_reason(tmp_path: Path, kind: str, reason: str) -> None:
    lps = np.diag([0.5, 0.5, 2.5, 1.0])
    files = break_series(kind, ct_series(tmp_path, voxels(), lps))
    with pytest.raises(DataError, match=reason):
        read_dicom(files)


def test_a_volume_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(reading, "MAX_VOLUME_BYTES", 4 * np.prod(SHAPE) - 1)
    monkeypatch.setattr(reading, "decode_frames", None)
    with pytest.raises(DataError, match="210 voxels"):
        read_dicom(ct_series(tmp_path, voxels(), oblique()))


def enhanced(stored: np.ndarray, lps: np.ndarray, order: tuple[int, ...]) -> Dataset:
    """An enhanced MR image: geometry in functional groups, a slope for each frame."""
    made = header("MR", EnhancedMRImageStorage, ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    right, down, along = (lps[:3, axis] for axis in range(3))
    measures, direction, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [float(np.linalg.norm(down)), float(np.linalg.norm(right))]
    direction.ImageOrientationPatient = [
        round(float(x), 8) for x in (*(right / np.linalg.norm(right)), *(down / np.linalg.norm(down)))
    ]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [direction]
    made.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in order:
        position, values, window, groups = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [round(float(x), 6) for x in lps[:3, 3] + k * along]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 2, -k, "US"
        window.WindowCenter, window.WindowWidth = 100 + k, 51
        groups.PlanePositionSequence, groups.PixelValueTransformationSequence = [position], [values]
        groups.FrameVOILUTSequence = [window]
        frames.append(groups)
    made.PerFrameFunctionalGroupsSequence = frames
    return with_pixels(made, np.stack([stored[:, :, k].T for k in order]), bits=16)


def test_an_enhanced_image_is_a_volume(tmp_path: Path) -> None:
    lps = oblique()
    stored = voxels().astype("<u2")
    found = volume([save(enhanced(stored, lps, ORDER), tmp_path / "x")])
    np.testing.assert_array_equal(found.voxels, stored * 2.0 - np.arange(6))
    np.testing.assert_allclose(found.affine, np.diag([-1, -1, 1, 1]) @ lps, atol=1e-5)
    assert found.facts["window"] == (77.5, 127.5)  # of the middle slice: centre 103, width 51


def test_an_enhanced_image_of_one_place_is_a_loop(tmp_path: Path) -> None:
    stored = voxels().astype("<u2")
    path = save(enhanced(stored, oblique(spacing=(1, 1, 0)), ORDER), tmp_path / "x")
    found = read_dicom([path], frame=1)
    assert isinstance(found, Plane)
    np.testing.assert_array_equal(found.pixels, stored[:, :, 0].T * 2.0)
    assert found.spacing == pytest.approx((1, 1))


def test_enhanced_images_of_several_volumes_are_refused(tmp_path: Path) -> None:
    stored = np.concatenate([voxels(), voxels()], axis=2).astype("<u2")
    made = enhanced(stored, oblique(), (*range(6), *range(6)))
    with pytest.raises(DataError, match="several volumes"):
        read_dicom([save(made, tmp_path / "x")])
    made = enhanced(voxels().astype("<u2"), oblique(), ORDER)
    del made.PerFrameFunctionalGroupsSequence[5]
    with pytest.raises(DataError, match="tells of 5 frames and has 6"):
        read_dicom([save(made, tmp_path / "y")])
