"""Scans for the studio, and a studio whose model is a toy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from latentdrift.studio.page import Studio
from latentdrift.studio.processes import Processes
from latentdrift.studio.session import Session
from latentdrift.studio.shelf import Shelf
from latentdrift.studio.workspace import Workspace


def head(side: int, depth: float = 0.0) -> np.ndarray:
    """A bright disc with a dark hole, (side, side) in [0, 1]; smaller away from the middle."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    radius = np.hypot(x, y * 0.9) / max(0.3, 1 - depth**2)
    return np.where(radius < 0.8, np.where(radius < 0.3, 0.25, 0.7 + 0.05 * x), 0.0)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "scan.png"
    Image.fromarray((head(60) * 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def colourful(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "photo.jpg"
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[..., 0], pixels[10:30, 10:30, 1] = 200, 150
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    return write_dicom(tmp_path / "IM0001")


def write_dicom(path: Path, side: int = 96) -> Path:
    """Write an MR slice of 12 bits with a patient's name, and without a suffix, as scanners do."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Doe^Jane", "12345", "19500101", "F"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = (generate_uid() for _ in range(3))
    data.StudyDate, data.StudyTime, data.AccessionNumber, data.ReferringPhysicianName = "20200101", "120000", "", ""
    data.StudyID, data.SeriesNumber, data.InstanceNumber, data.Modality = "1", 1, 1, "MR"
    data.Manufacturer, data.PositionReferenceIndicator, data.PatientPosition = "Maker", "", "HFS"
    data.ImageType, data.ScanningSequence, data.SequenceVariant = ["ORIGINAL", "PRIMARY", "M"], "SE", "NONE"
    data.ScanOptions, data.MRAcquisitionType, data.RepetitionTime, data.EchoTime = "", "2D", 500, 10
    data.EchoTrainLength, data.SliceThickness = 1, 5
    data.Rows = data.Columns = side
    data.PixelSpacing, data.ImagePositionPatient = [2.0, 2.0], [-96.0, -96.0, 0.0]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.WindowCenter, data.WindowWidth = 1500, 3000
    data.PixelData = (head(side) * 3000).astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    import nibabel as nib

    depths = np.linspace(-0.8, 0.8, 12)
    voxels = np.stack([head(48, depth) * 1000 for depth in depths], axis=2).astype(np.int16)
    path = tmp_path / "volume.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.diag([3.0, 3.0, 6.0, 1.0])), path)
    return path


@pytest.fixture(scope="session")
def toy_studio(toy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A studio whose workspace holds the toy's run as "run"."""
    root = tmp_path_factory.mktemp("workspace")
    os.symlink(toy_run, root / "elsewhere")
    import shutil

    shutil.copytree(toy_run, root / "run")
    workspace = Workspace.of(root)
    return Studio(workspace, Shelf(workspace, "cpu"), Processes(workspace), tmp_path_factory.mktemp("studio"))


@pytest.fixture
def session(toy_studio: Studio) -> Session:
    return toy_studio.session()
