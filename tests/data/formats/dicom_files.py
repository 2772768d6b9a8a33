"""DICOM files that tests make: images of many kinds, with identifiers to look for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

IDENTIFIERS = {
    "PatientName": "Quixote^Alonso",
    "PatientID": "HOSP-4711-0815",
    "PatientBirthDate": "19370412",
    "OtherPatientIDs": "INSURANCE-99887",
    "PatientAddress": "Windmill Lane 7",
    "AccessionNumber": "ACC5550123",
    "ReferringPhysicianName": "Panza^Sancho",
    "InstitutionName": "Hospital of La Mancha",
    "OperatorsName": "Dulcinea^Toboso",
    "StationName": "ROCINANTE1",
    "DeviceSerialNumber": "SN-1605-1615",
    "StudyID": "STUDY778",
    "StudyDate": "20110320",
    "StudyTime": "134501.25",
    "SeriesDate": "20110321",
    "AcquisitionDate": "20110322",
    "StudyDescription": "Brain of Quixote",
    "SeriesDescription": "for Dr Panza",
    "ImageComments": "seen by Sancho",
    "ProtocolName": "Quixote protocol",
}
"""What a hospital's header says about person, place and time; each value stands nowhere else."""

CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "DX": DigitalXRayImageStorageForPresentation}


def header(modality: str = "OT", sop_class: str | None = None, **more: Any) -> Dataset:
    """A data set with identifiers and UIDs, without pixels."""
    made = Dataset()
    made.SOPClassUID = sop_class or CLASSES.get(modality, "1.2.840.10008.5.1.4.1.1.7")
    made.SOPInstanceUID, made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid(), generate_uid()
    made.Modality = modality
    for keyword, value in IDENTIFIERS.items():
        setattr(made, keyword, value)
    made.PatientSex, made.PatientAge = "M", "073Y"
    made.Manufacturer, made.ManufacturerModelName = "Cervantes", "Imager 1605"
    for keyword, value in more.items():
        setattr(made, keyword, value)
    return made


def with_pixels(made: Dataset, stored: np.ndarray, *, bits: int = 16, photometric: str = "MONOCHROME2") -> Dataset:
    """Add stored values: (H, W), (frames, H, W) or (H, W, 3)."""
    colour = photometric in ("RGB", "YBR_FULL")
    made.Rows, made.Columns = stored.shape[:2] if colour else stored.shape[-2:]
    if stored.ndim == 3 and not colour:
        made.NumberOfFrames = stored.shape[0]
    made.SamplesPerPixel = 3 if colour else 1
    if colour:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = photometric
    made.BitsAllocated = 8 * stored.dtype.itemsize
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    made.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    made["PixelData"].VR = "OB" if made.BitsAllocated == 8 else "OW"
    return made


def save(made: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a file, its pixels in the syntax's byte order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7")
    made.file_meta.MediaStorageSOPInstanceUID = made.get("SOPInstanceUID", generate_uid())
    made.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian and made.BitsAllocated == 16:
        made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
    implicit = syntax == ImplicitVRLittleEndian
    dcmwrite(path, made, implicit_vr=implicit, little_endian=syntax != ExplicitVRBigEndian, enforce_file_format=True)
    return path


NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def ct_series(
    folder: Path, voxels: np.ndarray, affine_lps: np.ndarray, *, order: Sequence[int] | None = None, **more: Any
) -> list[Path]:
    """Write stored values (I, J, K) as a CT series whose voxels are where an LPS affine says, in any order of files."""
    series, study, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    right, down, along = (affine_lps[:3, axis] for axis in range(3))
    files = []
    for number, k in enumerate(order if order is not None else range(voxels.shape[2])):
        made = header("CT", SeriesInstanceUID=series, StudyInstanceUID=study, **ct_attributes())
        made.FrameOfReferenceUID = frame_of_reference
        made.PixelSpacing = [float(np.linalg.norm(down)), float(np.linalg.norm(right))]
        made.ImagePositionPatient = [round(float(x), 6) for x in affine_lps[:3, 3] + k * along]
        cosines = [*(right / np.linalg.norm(right)), *(down / np.linalg.norm(down))]
        made.ImageOrientationPatient = [round(float(x), 8) for x in cosines]
        for keyword, value in more.items():
            setattr(made, keyword, value)
        with_pixels(made, np.ascontiguousarray(voxels[:, :, k].T))
        files.append(save(made, folder / f"IM{number:04d}"))
    return files


def ct_attributes() -> Mapping[str, Any]:
    """What a CT image has besides its geometry."""
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "KVP": 120,
        "SliceThickness": 2.5,
        "AcquisitionNumber": 3,
        "InstanceNumber": 1,
        "BodyPartExamined": "HEAD",
        "PatientPosition": "HFS",
        "WindowCenter": [40, 600],
        "WindowWidth": [80, 2800],
        "WindowCenterWidthExplanation": ["BRAIN", "BONE"],
    }


def mr_attributes() -> Mapping[str, Any]:
    """What an MR image has, geometry included."""
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "ScanningSequence": "GR",
        "SequenceVariant": "SP",
        "ScanOptions": "PFP",
        "MRAcquisitionType": "3D",
        "RepetitionTime": 2300,
        "EchoTime": 2.98,
        "EchoTrainLength": 1,
        "InversionTime": 900,
        "MagneticFieldStrength": 3,
        "SliceThickness": 1,
        "InstanceNumber": 7,
        "BodyPartExamined": "BRAIN",
        "PatientPosition": "HFS",
        "PixelSpacing": [0.9, 1.1],
        "ImagePositionPatient": [-10.5, 20.25, -3],
        "ImageOrientationPatient": [1, 0, 0, 0, 0.8, -0.6],
        "FrameOfReferenceUID": generate_uid(),
        "WindowCenter": 400,
        "WindowWidth": 800,
    }


def dx_attributes() -> Mapping[str, Any]:
    """What a digital chest X-ray has."""
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "51185008", "SCT", "Chest"
    view = Dataset()
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "399348003", "SCT", "antero-posterior"
    return {
        "ImageType": ["ORIGINAL", "PRIMARY", ""],
        "PresentationIntentType": "FOR PRESENTATION",
        "InstanceNumber": 1,
        "BodyPartExamined": "CHEST",
        "ViewPosition": "AP",
        "ImageLaterality": "U",
        "PatientOrientation": ["L", "F"],
        "ImagerPixelSpacing": [0.139, 0.139],
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": -1,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "RescaleType": "US",
        "PresentationLUTShape": "IDENTITY",
        "LossyImageCompression": "00",
        "DetectorType": "SCINTILLATOR",
        "PositionerType": "NONE",
        "BurnedInAnnotation": "NO",
        "WindowCenter": 2048,
        "WindowWidth": 4096,
        "AnatomicRegionSequence": [region],
        "ViewCodeSequence": [view],
    }


def source_of(kind: str, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    """A noise image of 72 x 80 pixels: CT 16-bit signed, MR 12-bit, CR 10-bit MONOCHROME1, DX 12-bit."""
    rng = np.random.default_rng(3)
    if kind == "CT":
        made = header("CT", **ct_attributes(), PixelSpacing=[0.5, 0.5], ImagePositionPatient=[-8, -7, 31.5])
        made.ImageOrientationPatient, made.FrameOfReferenceUID = [1, 0, 0, 0, 1, 0], "1.2.826.99.7.7.7"
        stored = rng.integers(-200, 3000, (72, 80)).astype("<i2")
        return save(with_pixels(made, stored), path, syntax)
    if kind == "MR":
        stored = rng.integers(0, 4096, (72, 80)).astype("<u2")
        return save(with_pixels(header("MR", **mr_attributes()), stored, bits=12), path, syntax)
    if kind == "CR":
        attributes = {"BodyPartExamined": "CHEST", "ViewPosition": "PA", "ImagerPixelSpacing": [0.2, 0.2]}
        made = header("CR", "1.2.840.10008.5.1.4.1.1.1", WindowCenter=500, WindowWidth=1000, **attributes)
        stored = rng.integers(0, 1024, (72, 80)).astype("<u2")
        return save(with_pixels(made, stored, bits=10, photometric="MONOCHROME1"), path, syntax)
    made = header("DX", **dx_attributes())
    return save(with_pixels(made, rng.integers(0, 4096, (72, 80)).astype("<u2"), bits=12), path, syntax)


def a_change(shape: tuple[int, int], size: float = 37.3) -> np.ndarray:
    """Zero but for a ramp from -size to size in a block of 20 x 30."""
    change = np.zeros(shape, np.float32)
    change[20:40, 30:60] = np.linspace(-size, size, 600, dtype=np.float32).reshape(20, 30)
    return change
