"""Edits of volumes back into DICOM, and what independent programs say of the files."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

from latentdrift.data.export.dicom import write_dicom_edit
from latentdrift.data.formats.dicom import read_dicom
from latentdrift.data.scan import Plane, Volume
from latentdrift.data.volumes.cut import cut_at
from latentdrift.errors import DataError
from tests.data.export.dicom_checker import check_with_dciodvfy
from tests.data.formats.dicom_files import (
    a_change,
    ct_series,
    mr_attributes,
    source_of,
)

LPS = np.array([[0.5, 0, 0, -20], [0, 0.5, 0, 10], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])


def pixels(path: Path) -> np.ndarray:
    found = read_dicom([path])
    assert isinstance(found, Plane)
    return found.pixels


def series(tmp_path: Path) -> tuple[list[Path], Volume]:
    stored = np.random.default_rng(1).integers(0, 3000, (14, 12, 10)).astype("<i2")
    files = ct_series(tmp_path / "series", stored, LPS, order=(4, 7, 0, 2, 9, 1, 3, 8, 6, 5))
    found = read_dicom(files)
    assert isinstance(found, Volume)
    return files, found


def test_a_slice_of_a_series_as_it_is_looked_at(tmp_path: Path) -> None:
    files, volume = series(tmp_path)
    cut = cut_at(volume, "axial", 6)
    shown = cut.take(volume.voxels)
    change = np.zeros(shown.shape, np.float32)
    change[2, 3] = 50
    out = write_dicom_edit(files, tmp_path / "out", change, cut=cut)
    expected = volume.voxels[:, :, 6].copy()
    expected[cut.voxel_of(volume.voxels.shape, 2, 3)[:2]] += 50
    np.testing.assert_array_equal(pixels(out), expected.T)
    made = dcmread(out)
    (place,) = [dcmread(path) for path in files if dcmread(path).ImagePositionPatient[2] == 3 + 6 * 2.5]
    assert made.ImagePositionPatient == place.ImagePositionPatient
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == place.SOPInstanceUID
    flat = np.zeros((12, 14), np.float32)
    again = write_dicom_edit(files, tmp_path / "again", flat, frame=6)
    np.testing.assert_array_equal(pixels(again), volume.voxels[:, :, 6].T)


@pytest.mark.parametrize(("name", "plane_index"), [("coronal", 5), ("sagittal", 8)])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_plane_across_a_series_is_a_reformatted_image(
    tmp_path: Path, name: str, plane_index: int, modality: str
) -> None:
    files, volume = series(tmp_path)
    for path in files if modality == "MR" else []:
        made = dcmread(path)
        made.Modality, made.SOPClassUID = "MR", MRImageStorage
        made.file_meta.MediaStorageSOPClassUID = MRImageStorage
        for keyword in ("ScanningSequence", "SequenceVariant", "RepetitionTime", "EchoTime"):
            setattr(made, keyword, mr_attributes()[keyword])
        made.save_as(path)
    cut = cut_at(volume, name, plane_index)
    shown = cut.take(volume.voxels)
    change = np.zeros(shown.shape, np.float32)
    change[1:3, 4:7] = 20
    out = write_dicom_edit(files, tmp_path / "out", change, cut=cut)
    np.testing.assert_array_equal(pixels(out), shown + change)
    made = dcmread(out)
    assert made.SOPClassUID == (SecondaryCaptureImageStorage if modality == "CT" else MRImageStorage)
    assert made.ImageType[2] == "MPR"
    assert made.DerivationCodeSequence[0].CodeMeaning == "Multiplanar reformatting"
    assert len(made.SourceImageSequence) == 10
    # Each pixel must be where the volume's affine says that its voxel is.
    for row, column in ((0, 0), (4, 6), (9, 2)):
        cosines = np.array(made.ImageOrientationPatient)
        spacing = np.array(made.PixelSpacing)
        lps = np.array(made.ImagePositionPatient) + column * spacing[1] * cosines[:3] + row * spacing[0] * cosines[3:]
        ras = volume.affine @ [*cut.voxel_of(volume.voxels.shape, row, column), 1]
        np.testing.assert_allclose(lps * [-1, -1, 1], ras[:3], atol=1e-4)
    check_with_dciodvfy(out, tmp_path)


def test_slices_that_store_in_other_ways_have_no_plane_across(tmp_path: Path) -> None:
    files, volume = series(tmp_path)
    made = dcmread(files[3])
    made.RescaleSlope = 2
    made.save_as(files[3])
    cut = cut_at(volume, "coronal", 5)
    with pytest.raises(DataError, match="like the other slices"):
        write_dicom_edit(files, tmp_path / "out", np.zeros((10, 14), np.float32), cut=cut)
    with pytest.raises(DataError, match="no plane 99"):
        write_dicom_edit(files[:1] + files[1:], tmp_path / "o", np.zeros((10, 14)), cut=replace(cut, index=99))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian: dicom3tools)")
@pytest.mark.parametrize("how", [{}, {"mark": True, "keep_identifiers": True}, {"as_secondary_capture": True}])
@pytest.mark.parametrize("kind", ["CT", "MR", "CR", "DX"])
def test_dciodvfy_finds_no_error(tmp_path: Path, kind: str, how: dict[str, Any]) -> None:
    out = write_dicom_edit([source_of(kind, tmp_path / "in")], tmp_path / "out", a_change((72, 80)), **how)
    check_with_dciodvfy(out, tmp_path)


REAL = (
    "CT_small.dcm", "MR_small.dcm", "693_J2KI.dcm", "JPGExtended.dcm", "examples_overlay.dcm", "examples_rgb_color.dcm",
    "examples_palette.dcm", "examples_ybr_color.dcm",
)  # fmt: skip


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian: dicom3tools)")
@pytest.mark.parametrize("name", REAL)
def test_dciodvfy_finds_no_error_in_edits_of_real_files(tmp_path: Path, name: str) -> None:
    found = Path(str(get_testdata_file(name, download=False)))
    source = read_dicom([found])
    assert isinstance(source, Plane)
    check_with_dciodvfy(write_dicom_edit([found], tmp_path / "out", a_change(source.pixels.shape)), tmp_path)


@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="needs dcmdump (Debian: dcmtk)")
@pytest.mark.parametrize("kind", ["CT", "MR", "CR", "DX"])
def test_dcmdump_reads_what_was_written(tmp_path: Path, kind: str) -> None:
    out = write_dicom_edit([source_of(kind, tmp_path / "in")], tmp_path / "out", a_change((72, 80)))
    ran = subprocess.run(["dcmdump", str(out)], capture_output=True, text=True, timeout=60, check=True)
    assert not ran.stderr
    for part in ("(0008,001c) CS [YES]", r"[DERIVED\SECONDARY", "=LittleEndianExplicit", "SYNTHETIC-"):
        assert part in ran.stdout
