"""The header of a derived image: what it takes over from its source, whose it is, and how it was made."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from latentdrift.data.export.dicom_source import EditedImage
from latentdrift.data.export.dicom_whitelist import (
    CODE_MODIFIERS,
    CODE_PARTS,
    CODE_SEQUENCES,
    COMMON,
    DIGITAL_X_RAY,
    FOR_PROCESSING,
    IDENTIFYING,
    SINGLE_PARTS,
    TEXT_VRS,
    SopClass,
    is_code,
)
from latentdrift.data.formats.dicom.facts import AGE_UNITS
from latentdrift.data.formats.dicom.pixels import PixelFormat
from latentdrift.data.formats.dicom.tags import Tags
from latentdrift.data.formats.dicom.values import in_stored_sign, is_big_endian, lookup_table, modality_map
from latentdrift.data.provenance.marks import STATEMENT

if TYPE_CHECKING:
    from pydicom import Dataset

MAKER = "latentdrift"
FIRST = ("model_sha256", "source_sha256", "model", "seed", "drift", "editor")
OLDEST = 90
"""Years; higher ages single a person out and are cut to this (45 CFR 164.514(b)(2)(i)(C))."""

LOSSY = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1", "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1", "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}  # fmt: skip
"""Transfer syntaxes that (may) lose, and what DICOM calls their method: such an image stays a lossy one."""


def copy_attributes(out: Dataset, tags: Tags, form: PixelFormat, kind: SopClass | None) -> None:
    """Copy what the whitelist names for a class of images, or for a Secondary Capture where `kind` is None."""
    for keyword in (*COMMON, *(kind.copied if kind else ())):
        meant_for_gray = keyword.startswith(("Rescale", "Window", "VOI"))
        if (form.gray or not meant_for_gray) and not _may_name_somebody(tags, keyword):
            _copy(out, tags, keyword)
    if form.gray:
        _copy_tables(out, tags, form)
        _copy_padding(out, tags, form)
    for keyword in CODE_SEQUENCES if kind and kind.modality == "DX" else ():
        setattr(out, keyword, _codes(tags.raw(keyword)))
    for keyword in kind.empty if kind else ():
        if keyword not in out:
            setattr(out, keyword, None)
    if "InversionTime" in out and "IR" not in tags.texts("ScanningSequence"):
        del out.InversionTime  # may not stand there then (PS3.3, C.8.3.1)
    if form.syntax in LOSSY and "LossyImageCompression" not in out:
        out.LossyImageCompression, out.LossyImageCompressionMethod = "01", LOSSY[form.syntax]
    # The image is tied to the source's place in space, which stays, but a fresh name for that space keeps a viewer
    # from joining the two studies, and the file from being traced to the patient, unless that is wanted.
    if kind and kind.placed:
        from highdicom import UID

        out.FrameOfReferenceUID = str(UID())
    if kind and kind.modality == "CT" and "ModalityLUTSequence" not in out:
        out.setdefault("RescaleSlope", 1)
        out.setdefault("RescaleIntercept", 0)
    if "RescaleIntercept" in out or "RescaleSlope" in out:
        out.setdefault("RescaleSlope", 1)
        out.setdefault("RescaleIntercept", 0)
        out.setdefault("RescaleType", _units(modality_map(tags, form).units))
    if "ImageOrientationPatient" not in out and "PatientOrientation" not in out:
        out.PatientOrientation = []  # must be there then, empty if not known (PS3.3, C.7.6.1)
    if "Laterality" not in out and "ImageLaterality" not in out and out.get("BodyPartExamined") not in SINGLE_PARTS:
        out.Laterality = ""  # of what there may be two it must be there, empty if not known (PS3.3, C.7.3.1)
    if kind and kind.modality == "DX":
        _complete_digital(out, tags, form)


def set_patient_and_study(out: Dataset, tags: Tags, *, keep: bool, name: str | None) -> None:
    """Write whose image it is: the source's person where `keep`, else a pseudonym without birth date or visit."""
    from highdicom import UID

    for keyword in ("PatientBirthDate", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        setattr(out, keyword, "")
    out.ReferringPhysicianName = ""
    if "PatientSex" not in out:
        out.PatientSex = ""
    if keep:
        for keyword in IDENTIFYING:
            _copy(out, tags, keyword)
        if "StudyInstanceUID" not in out:
            out.StudyInstanceUID = str(UID())
        for keyword in ("PatientName", "PatientID"):
            if keyword not in out:
                setattr(out, keyword, "")
        return
    out.StudyInstanceUID = str(UID())
    out.PatientID = out.PatientName = f"SYNTHETIC-{name or secrets.token_hex(4)}"[:64]
    age = _coarse_age(tags)
    if age:
        out.PatientAge = age
    out.PatientIdentityRemoved = "YES"
    out.DeidentificationMethod = f"{MAKER}: attribute whitelist, fresh UIDs, no dates"


def place_anew(out: Dataset, placement: Mapping[str, list[float]]) -> None:
    """Write where a reformatted plane is, in the place of what holds for the slices it was cut from."""
    from pydicom.valuerep import format_number_as_ds

    for keyword in ("SliceLocation", "PatientOrientation", "SpacingBetweenSlices", "SliceThickness"):
        if keyword in out:
            setattr(out, keyword, None)
    for keyword, values in placement.items():
        setattr(out, keyword, [format_number_as_ds(value) for value in values])


def set_origin(out: Dataset, image: EditedImage, description: Mapping[str, Any], third: str | None) -> None:
    """Write that the image is synthetic, what it is derived from and by what."""
    from highdicom import UID, ContributingEquipment
    from pydicom.dataset import Dataset as Item
    from pydicom.sr.codedict import codes

    now = datetime.now()
    release = f"{MAKER} {version(MAKER)}"
    out.SyntheticData = "YES"
    out.ImageType = ["DERIVED", "SECONDARY", *([third] if third else [])]
    out.SOPInstanceUID, out.SeriesInstanceUID = str(UID()), str(UID())
    out.InstanceCreationDate = out.ContentDate = out.SeriesDate = now.strftime("%Y%m%d")
    out.InstanceCreationTime = out.ContentTime = out.SeriesTime = now.strftime("%H%M%S")
    out.InstanceNumber, out.SeriesNumber = 1, 9000
    out.SeriesDescription = "SYNTHETIC image, not acquired"
    out.Manufacturer = out.ManufacturerModelName = MAKER
    out.SoftwareVersions = release
    # What identifies the model comes first: a long caption may be cut.
    ordered = [name for name in FIRST if name in description] + [name for name in description if name not in FIRST]
    told = "; ".join(f"{name}: {description[name]}" for name in ordered if description[name] is not None)
    text = f"{STATEMENT} Pixels changed by a generative model ({release}). {told}"
    out.DerivationDescription = " ".join(text.split())[:1024]
    reformatted = [codes.DCM.MultiplanarReformatting] if image.placement is not None else []
    out.DerivationCodeSequence = [_code(code) for code in (*reformatted, codes.DCM.PixelByPixelAddition)]
    references = []
    for sop_class, instance, frames in image.sources:
        if not sop_class or not instance:
            continue
        reference = Item()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class, instance
        if frames:
            reference.ReferencedFrameNumber = list(frames)
        reference.PurposeOfReferenceCodeSequence = [_code(codes.DCM.SourceImageForImageProcessingOperation)]
        reference.SpatialLocationsPreserved = "NO" if reformatted else "YES"
        references.append(reference)
    if references:
        out.SourceImageSequence = references
    tags = image.tags
    scanner = {"manufacturer_model_name": tags.text("ManufacturerModelName")}
    out.ContributingEquipmentSequence = [
        ContributingEquipment(tags.text("Manufacturer") or "unknown", codes.DCM.AcquisitionEquipment, **scanner),
        ContributingEquipment(
            MAKER,
            codes.DCM.ProcessingEquipment,
            software_versions=release,
            contribution_datetime=now,
            contribution_description="Change of pixels by a generative model",
        ),
    ]


def _copy(out: Dataset, tags: Tags, keyword: str) -> None:
    """Copy an attribute, if the source has it."""
    value = tags.raw(keyword)
    if value is None:
        return
    try:
        setattr(out, keyword, copy.deepcopy(value))
    except Exception as error:  # pydicom converts here what it took as it was when it read
        raise tags.refusal(keyword, f"cannot be copied ({str(error)[:120]})") from error


def _may_name_somebody(tags: Tags, keyword: str) -> bool:
    """Tell whether an attribute that is meant for a code holds other text."""
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(keyword) in TEXT_VRS and not is_code(tags.texts(keyword))


def _units(written: str | None) -> str:
    """Return what real values are said to be, unspecified where that is no code."""
    return written if written and is_code([written]) else "US"


def _code(code: Any) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme_designator, code.meaning)


def _codes(items: Any) -> list[Dataset]:
    """Return the bare codes of a code sequence, and of their modifiers."""
    from pydicom.dataset import Dataset as Item

    found = []
    for item in items or []:
        code = Item()
        for keyword in CODE_PARTS:
            if keyword in item:
                setattr(code, keyword, str(item.get(keyword)))
        for keyword in CODE_MODIFIERS:
            if keyword in item:
                setattr(code, keyword, _codes(item.get(keyword)))
        found.append(code)
    return found


def _copy_tables(out: Dataset, tags: Tags, form: PixelFormat) -> None:
    """Copy look-up tables, in the byte order of the output and without their explanations, which are free text."""
    from pydicom.dataset import Dataset as Item

    negative = form.signed or (tags.number("RescaleIntercept") or 0) < 0
    for keyword, signed in (("ModalityLUTSequence", form.signed), ("VOILUTSequence", negative)):
        copies = []
        for item in tags.raw(keyword) or []:
            entries, first, bits = lookup_table(Tags(item, tags.path), signed, big_endian=is_big_endian(tags))
            made = Item()
            made.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 2**16, first, bits])
            if first < 0 and len(entries) % 2**16 >= 2**15:  # the number of entries is unsigned whatever the VR
                made.LUTDescriptor = [len(entries) % 2**16 - 2**16, first, bits]
            made.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
            if keyword == "ModalityLUTSequence":
                made.ModalityLUTType = _units(Tags(item, tags.path).text("ModalityLUTType"))
            copies.append(made)
        if copies:
            setattr(out, keyword, copies)


def _copy_padding(out: Dataset, tags: Tags, form: PixelFormat) -> None:
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = in_stored_sign(tags, form, keyword)
        if value is not None:
            out.add_new(keyword, "SS" if form.signed else "US", value)


def _complete_digital(out: Dataset, tags: Tags, form: PixelFormat) -> None:
    """Add what a digital X-ray image must say and what follows from its class and pixels (PS3.3, A.26 and C.8.11)."""
    processing = tags.text("SOPClassUID") == FOR_PROCESSING
    assert tags.text("SOPClassUID") in DIGITAL_X_RAY
    out.PresentationIntentType = "FOR PROCESSING" if processing else "FOR PRESENTATION"
    out.PresentationLUTShape = "INVERSE" if form.photometric == "MONOCHROME1" else "IDENTITY"
    out.setdefault("LossyImageCompression", "00")
    if "ModalityLUTSequence" not in out:
        for keyword, value in (("RescaleSlope", 1), ("RescaleIntercept", 0), ("RescaleType", "US")):
            out.setdefault(keyword, value)
    if not processing and "WindowCenter" not in out and "VOILUTSequence" not in out:
        low, high = form.limits
        out.WindowCenter, out.WindowWidth = (low + high + 1) / 2, high - low + 1


def _coarse_age(tags: Tags) -> str | None:
    """Return PatientAge, the highest ages cut to one."""
    written = (tags.text("PatientAge") or "").upper()
    if len(written) != 4 or written[3] not in AGE_UNITS or not written[:3].isdecimal():
        return None
    return f"{OLDEST:03d}Y" if written[3] == "Y" and int(written[:3]) > OLDEST else written


def put_pixels(out: Dataset, stored: np.ndarray, form: PixelFormat) -> None:
    """Write stored values (H, W), or (H, W, 3) 8-bit RGB, uncompressed."""
    bits = form.allocated if form.gray else 8
    kind = np.dtype(f"{'i' if form.signed and form.gray else 'u'}{bits // 8}").newbyteorder("<")
    out.Rows, out.Columns = stored.shape[:2]
    out.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    if stored.ndim == 3:
        out.PlanarConfiguration = 0
    out.PhotometricInterpretation = form.photometric if form.gray else "RGB"
    out.BitsAllocated = bits
    out.BitsStored = form.stored if form.gray else 8
    out.HighBit = out.BitsStored - 1
    out.PixelRepresentation = int(form.signed and form.gray)
    data = stored.astype(kind).tobytes()
    out.add_new("PixelData", "OW" if bits > 8 else "OB", data + b"\0" * (len(data) % 2))
