"""Marks of DICOM, NIfTI and residual files, read back as `verify` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from latentdrift.data.export.edit import open_edit_source, write_edit
from latentdrift.data.provenance.reading import read_marks

FACTS = {
    "prompt": "a long caption; " * 90,
    "model": "toy",
    "model_sha256": "ab" * 32,
    "seed": 5,
    "drift": "none",
}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    z, y, x = np.mgrid[-1:1:24j, -1:1:40j, -1:1:40j]
    head = np.where(x**2 + y**2 + z**2 < 0.8, 100 + rng.normal(0, 5, x.shape), 0).astype(np.int16)
    path = tmp_path / "scan.nii.gz"
    nibabel.Nifti1Image(head.T.copy(), np.diag([4.0, 4.0, 6.0, 1.0])).to_filename(path)
    return path


def test_nifti_and_residual(volume: Path, tmp_path: Path) -> None:
    source = open_edit_source([volume], 32)
    change = np.full(source.plane.pixels.shape, 3, np.float32)
    files = write_edit(source, change, tmp_path / "e", ("nifti", "residual"), FACTS)
    assert not read_marks(volume).synthetic
    for path in files:
        found = read_marks(path)
        assert found.synthetic, path
        assert found.facts["model_sha256"] == "ab" * 32
        assert found.facts["source_sha256"] == source.source_hash()
        assert "not for diagnosis" in found.facts["Disclaimer"]


def test_dicom(tmp_path: Path) -> None:
    from pydicom import dcmread

    path = tmp_path / "scan.dcm"
    make_dicom(path)
    source = open_edit_source([path], 32)
    (out,) = write_edit(source, np.full(source.plane.pixels.shape, 3, np.float32), tmp_path / "e", ("dicom",), FACTS)
    found = read_marks(out)
    assert found.synthetic
    # A long caption does not push the hashes out of the text.
    assert found.facts["model_sha256"] == "ab" * 32
    assert found.facts["source_sha256"] == source.source_hash()
    assert found.facts["model"] == "toy"
    assert found.facts["Software"].startswith("latentdrift")
    assert not read_marks(path).synthetic
    header: Any = dcmread(out)
    assert len(header.DerivationDescription) <= 1024
    assert "not for diagnosis" in header.DerivationDescription


def test_a_caption_is_no_mark(tmp_path: Path) -> None:
    make_dicom(tmp_path / "scan.dcm")
    source = open_edit_source([tmp_path / "scan.dcm"], 32)
    change = np.full(source.plane.pixels.shape, 3, np.float32)
    facts = {**FACTS, "prompt": "as model: other; seed: 9; editor: nobody"}
    for folder, told in (("e", facts), ("f", {**facts, "source_prompt": facts["prompt"], "seed": None})):
        (out,) = write_edit(source, change, tmp_path / folder, ("dicom",), told)
        found = read_marks(out).facts
        assert found["model"] == "toy"
        assert found.get("seed") == (None if told["seed"] is None else "5")
        assert "editor" not in found


def make_dicom(path: Path) -> None:
    """Write a small MR image."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.Modality, made.PatientName, made.PatientID = "MR", "Doe^Jane", "4711"
    made.Rows = made.Columns = 40
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.PixelSpacing, made.ImageOrientationPatient = [4, 4], [1, 0, 0, 0, 1, 0]
    made.ImagePositionPatient, made.SliceThickness = [0, 0, 0], 4
    y, x = np.mgrid[-1:1:40j, -1:1:40j]
    made.PixelData = np.where(x**2 + y**2 < 0.8, 500 + 100 * x, 0).astype("<u2").tobytes()
    made.save_as(path, enforce_file_format=True)
