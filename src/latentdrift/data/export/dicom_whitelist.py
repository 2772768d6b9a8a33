"""Which attributes of a source image a derived one may have. What is not named here is never copied.

A whitelist, since new, private and misspelt attributes are beyond any list of what to remove. Names, free text, dates,
UIDs, devices' serial numbers and places are not on it. Of code sequences only the codes themselves are taken, and of
attributes that may hold any short text, such as the convolution kernel, only what looks like a code (`is_code`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

TEXT_VRS = ("SH", "LO")
"""Value representations of whitelisted attributes that leave open what is written. Those of coded strings do not."""

COMMON = (
    "PatientSex", "BodyPartExamined", "Laterality", "ImageLaterality", "ViewPosition", "PatientOrientation",
    "PatientPosition", "AnatomicalOrientationType", "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing",
    "PixelSpacingCalibrationType", "PixelAspectRatio", "EstimatedRadiographicMagnificationFactor",
    "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices", "SliceLocation",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    "PixelIntensityRelationship", "PixelIntensityRelationshipSign", "RecognizableVisualFeatures",
)  # fmt: skip
"""Of every image: sex, what is shown from where, geometry, and what the pixels' numbers mean."""

X_RAY = (
    "KVP", "XRayTubeCurrent", "XRayTubeCurrentInuA", "ExposureTime", "Exposure", "ExposureInuAs", "FilterType",
    "FilterMaterial",
    "FocalSpots", "DistanceSourceToDetector", "DistanceSourceToPatient", "Grid", "AnodeTargetMaterial",
    "BodyPartThickness", "CompressionForce",
)  # fmt: skip

DETECTOR = (
    "DetectorType", "DetectorConfiguration", "DetectorConditionsNominalFlag", "FieldOfViewShape",
    "FieldOfViewDimensions", "FieldOfViewOrigin", "FieldOfViewRotation", "FieldOfViewHorizontalFlip", "PositionerType",
    "PositionerPrimaryAngle", "PositionerSecondaryAngle", "OrganExposed", "BreastImplantPresent", "PartialView",
)  # fmt: skip

CODE_SEQUENCES = ("AnatomicRegionSequence", "ViewCodeSequence")
CODE_MODIFIERS = ("ViewModifierCodeSequence", "AnatomicRegionModifierSequence")
CODE_PARTS = ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")

IDENTIFYING = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientBirthTime", "PatientAge",
    "PatientSize", "PatientWeight", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription",
    "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID", "PositionReferenceIndicator",
    "AcquisitionDate", "AcquisitionTime", "InstitutionName", "PatientIdentityRemoved", "DeidentificationMethod",
)  # fmt: skip
"""Copied too where the identifiers are to be kept."""

SINGLE_PARTS = frozenset(
    {
        "ABDOMEN", "ABDOMENPELVIS", "AORTA", "BLADDER", "BRAIN", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "COCCYX",
        "COLON", "CSPINE", "HEAD", "HEADNECK", "HEART", "JAW", "LIVER", "LSPINE", "LTSPINE", "MOUTH", "NECK",
        "NECKCHEST", "NOSE", "PANCREAS", "PELVIS", "PROSTATE", "SKULL", "SPINE", "SSPINE", "STERNUM", "STOMACH",
        "TLSPINE", "TSPINE", "UTERUS", "WHOLEBODY",
    }
)  # fmt: skip
"""Values of BodyPartExamined of which a person has one, so that no side may be told."""

_PLANE = ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")


@dataclass(frozen=True)
class SopClass:
    """What one kind of image takes over.

    Attributes:
        modality: DICOM's code of it.
        copied: attributes besides the common ones.
        required: a source without these cannot be followed by an image of this class that holds to the standard.
        empty: attributes that must be there, and may be empty (type 2).
        third: third value of the image type where the source has none, or None.
        placed: it has a frame of reference.
        reformatted: planes across slices may be of this class; CT knows axial ones and scouts alone (PS3.3, C.8.2.1).
        allocated: bits a stored value may take.
    """

    modality: str
    copied: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    third: str | None = None
    placed: bool = False
    reformatted: bool = False
    allocated: tuple[int, ...] = (8, 16)


_DIGITAL = SopClass(
    "DX",
    (*X_RAY, *DETECTOR),
    ("ImagerPixelSpacing", "PixelIntensityRelationship", "PixelIntensityRelationshipSign", "ImageLaterality",
     "PatientOrientation"),
    ("DetectorType", "PositionerType"),
)  # fmt: skip

SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": SopClass(
        "CT",
        (*X_RAY, "ConvolutionKernel", "ReconstructionDiameter", "DataCollectionDiameter", "GantryDetectorTilt",
         "TableHeight", "RotationDirection", "ScanOptions", "AcquisitionNumber"),
        _PLANE,
        ("KVP", "AcquisitionNumber", "SliceThickness", "PositionReferenceIndicator"),
        "AXIAL",
        True,
        False,
        (16,),
    ),
    "1.2.840.10008.5.1.4.1.1.4": SopClass(
        "MR",
        ("ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "AngioFlag", "RepetitionTime",
         "EchoTime", "EchoTrainLength", "InversionTime", "NumberOfAverages", "ImagingFrequency", "ImagedNucleus",
         "EchoNumbers", "MagneticFieldStrength", "NumberOfPhaseEncodingSteps", "PercentSampling",
         "PercentPhaseFieldOfView", "PixelBandwidth", "ReconstructionDiameter", "AcquisitionMatrix",
         "InPlanePhaseEncodingDirection", "FlipAngle", "VariableFlipAngleFlag", "AcquisitionNumber"),
        (*_PLANE, "ScanningSequence", "SequenceVariant"),
        ("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength", "SliceThickness",
         "PositionReferenceIndicator"),
        "OTHER",
        True,
        True,
        (16,),
    ),
    "1.2.840.10008.5.1.4.1.1.1": SopClass(
        "CR",
        (*X_RAY, "PlateType", "PhosphorType", "Sensitivity", "FieldOfViewShape"),
        (),
        ("BodyPartExamined", "ViewPosition"),
    ),
    "1.2.840.10008.5.1.4.1.1.1.1": _DIGITAL,
    "1.2.840.10008.5.1.4.1.1.1.1.1": _DIGITAL,
}  # fmt: skip
"""UID of the SOP class → what images derived from it take over. Of every other class, a Secondary Capture is made."""

FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
DIGITAL_X_RAY = ("1.2.840.10008.5.1.4.1.1.1.1", FOR_PROCESSING)


def is_code(values: Iterable[str]) -> bool:
    """Tell whether short texts are each one word as manufacturers name kernels and units: nothing that was typed in."""
    return all(re.fullmatch("[A-Z0-9_.+-]*", value, re.IGNORECASE | re.ASCII) for value in values)
