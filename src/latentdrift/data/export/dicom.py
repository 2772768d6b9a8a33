"""A counterfactual back into DICOM: a derived image that references its source and says that it is synthetic."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.export.dicom_header import (
    MAKER,
    copy_attributes,
    place_anew,
    put_pixels,
    set_origin,
    set_patient_and_study,
)
from latentdrift.data.export.dicom_mark import burn_in
from latentdrift.data.export.dicom_source import EditedImage, edit_image
from latentdrift.data.export.dicom_whitelist import DIGITAL_X_RAY, SOP_CLASSES, SopClass
from latentdrift.data.formats.dicom.pixels import PixelFormat
from latentdrift.data.formats.dicom.tags import Tags
from latentdrift.data.formats.dicom.values import modality_map
from latentdrift.data.formats.dicom.window import voi_window
from latentdrift.data.volumes.cut import Cut
from latentdrift.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset


def write_dicom_edit(
    source: Sequence[Path],
    out: Path,
    change: NDArray[np.floating[Any]],
    *,
    cut: Cut | None = None,
    frame: int = 0,
    description: Mapping[str, Any] | None = None,
    mark: bool = False,
    keep_identifiers: bool = False,
    as_secondary_capture: bool = False,
    pseudonym: str | None = None,
) -> Path:
    r"""Write one image of a scan with a change added, as an uncompressed DICOM file of its own series.

    The change goes through the inverse of the modality LUT, is rounded, and clipped to what can be stored. Pixels
    whose change is exactly 0, and padding pixels, keep their stored value bit for bit; of a colour image, whose change
    is one of luminance and goes to all three channels, it is the decoded RGB value that is kept.

    The file is of the source's SOP class where that is CT, MR, CR or digital X-ray and the source has what the class
    demands, and a Secondary Capture otherwise. It says DERIVED\SECONDARY, SyntheticData (0008,001C) = YES, how it was
    made, and which image it comes from; position, orientation, pixel distance and window are the source's. UIDs of
    instance and series are fresh.

    Without `keep_identifiers` only whitelisted attributes are copied (`dicom_whitelist`); the patient is called
    SYNTHETIC-…, the study is a fresh one without date, and so is the frame of reference: under the source's UID, a
    viewer would register the image with the patient's studies, and anyone could find these by it. With it, all of this
    is the source's. The UID of the source image is kept in either case, as without it there is no reference; it names
    nobody, but whoever has the source finds the patient by it. Text that is burned into the pixels stays there.

    A reformatted plane is an MR image where the slices are, and a Secondary Capture else.

    highdicom makes the Secondary Capture, coded concepts, contributing equipment and UIDs. The header of CT, MR and
    X-ray images is ours, because highdicom has no class for derived images of these kinds: its own would all be
    segmentations, parametric maps or captures, which viewers do not show like the source.

    Args:
        source: one file, or the files of one series.
        out: the file to write; its folder is created.
        change: (H, W) in real units: of `cut` as it is looked at, otherwise as the file stores its rows and columns.
        cut: which plane of the volume that `read_dicom` makes of the source. One across its images (a coronal plane
            of axial slices) becomes a reformatted image; its slices must share bits and rescaling.
        frame: without `cut`, which slice of the volume or frame of a cine loop.
        description: what made it (model, drift, seed, prompt); it is written into the file as it is.
        mark: burn SYNTHETIC into the pixels.
        keep_identifiers: keep the patient's and the study's identity.
        as_secondary_capture: write a Secondary Capture in any case.
        pseudonym: what follows SYNTHETIC- in the patient's name, to keep visits of one subject together; random
            otherwise.

    Returns:
        The file.

    Raises:
        DataError: a source that cannot be read, a change of another shape or with NaN, pixels that cannot be stored,
            or a disk that is full or read-only.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `read_dicom`
        image = edit_image(source, change, cut, frame)
        tags, form, stored = image.tags, image.form, image.stored
        if mark:
            stored = burn_in(stored, bright_is_low=_bright_is_low(tags, form), limits=form.limits)
        kind = None if as_secondary_capture else _class_of(image)
        made = _secondary_capture(stored, form) if kind is None else _same_class(tags)
        copy_attributes(made, tags, form, kind)
        if image.placement is not None:
            place_anew(made, image.placement)
        set_patient_and_study(made, tags, keep=keep_identifiers, name=pseudonym)
        set_origin(made, image, description or {}, _third_value(image, kind))
        made.Modality = tags.text("Modality") or (kind.modality if kind else "OT")
        _set_annotation(made, tags, mark)
        put_pixels(made, stored, form)
        _write(made, out)
    return out


def _third_value(image: EditedImage, kind: SopClass | None) -> str | None:
    """Return the third value of the image type: what is the same as in the source, or "MPR"."""
    if image.placement is not None:
        return "MPR"
    return (image.tags.texts("ImageType")[2:3] or ("",))[0] or kind.third if kind else None


def _class_of(image: EditedImage) -> SopClass | None:
    """Return what the source's SOP class takes over, None where only a Secondary Capture can be made of it."""
    tags, form = image.tags, image.form
    kind = SOP_CLASSES.get(tags.text("SOPClassUID") or "")
    if kind is None or not form.gray or form.frames > 1 or form.allocated not in kind.allocated:
        return None
    if image.placement is not None and not kind.reformatted:
        return None
    return kind if all(tags.raw(keyword) is not None for keyword in kind.required) else None


def _same_class(tags: Tags) -> Dataset:
    from pydicom.dataset import Dataset as Empty
    from pydicom.dataset import FileMetaDataset

    made = Empty()
    made.file_meta = FileMetaDataset()
    made.SOPClassUID = tags.text("SOPClassUID")
    made.SpecificCharacterSet = "ISO_IR 192"
    if made.SOPClassUID in DIGITAL_X_RAY:
        made.AcquisitionContextSequence = []
    return made


def _secondary_capture(stored: NDArray[Any], form: PixelFormat) -> Dataset:
    from highdicom import UID
    from highdicom.sc import SCImage

    # SCImage takes unsigned values alone; the bits of signed ones pass through it, and `put_pixels` tells their sign.
    bits = form.allocated if form.gray else 8
    made = SCImage(
        stored.astype(f"u{bits // 8}"),
        form.photometric if form.gray else "RGB",
        bits,
        "PATIENT",
        study_instance_uid=UID(),
        series_instance_uid=UID(),
        series_number=1,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer=MAKER,
        patient_orientation=("L", "P"),
    )
    made.PatientOrientation = []  # `copy_attributes` gives the source's, if it has one
    made.ConversionType = "WSD"
    made.SpecificCharacterSet = "ISO_IR 192"
    return made


def _bright_is_low(tags: Tags, form: PixelFormat) -> bool:
    if not form.gray:
        return False
    mapping = modality_map(tags, form)
    falls = mapping.slope < 0 if mapping.table is None else bool(mapping.table[-1] < mapping.table[0])
    shown = voi_window(tags, signed=form.signed)
    return falls ^ shown.reversed ^ (form.photometric == "MONOCHROME1")


def _set_annotation(made: Dataset, tags: Tags, mark: bool) -> None:
    """Say whether there is text in the pixels; where nobody knows, a digital X-ray must say the worse."""
    known = tags.text("BurnedInAnnotation")
    if mark or known or made.get("SOPClassUID") in DIGITAL_X_RAY:
        made.BurnedInAnnotation = "YES" if mark or not known else known
    if mark:
        made.ImageComments = "SYNTHETIC is burned into the pixels"


def _write(made: Dataset, out: Path) -> None:
    from pydicom import dcmwrite
    from pydicom.uid import ExplicitVRLittleEndian

    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        dcmwrite(partial, made, enforce_file_format=True)
        os.replace(partial, out)
    except OSError as error:
        raise DataError(
            f"{out} cannot be written: {error.strerror or error}. Free space or choose another folder."
        ) from error
    except Exception as error:  # a value of a damaged source that pydicom reads and cannot write
        raise DataError(
            f"{out} cannot be written, a value of the source is damaged: {str(error)[:200]}. Repair the source."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
