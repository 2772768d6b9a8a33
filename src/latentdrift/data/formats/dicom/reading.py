"""DICOM files → a `Plane` (one image) or a `Volume` (a stack of slices with a place in space)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.formats.dicom.geometry import (
    SAME_PLACE_MM,
    Slice,
    pixel_spacing,
    shear_degrees,
    slice_geometry,
    stack,
)
from latentdrift.data.formats.dicom.opening import open_dicom
from latentdrift.data.formats.dicom.pixels import MAX_VOLUME_BYTES, PixelFormat, decode_frames, pixel_format
from latentdrift.data.formats.dicom.tags import Tags
from latentdrift.data.formats.dicom.values import (
    fill_padding,
    is_big_endian,
    luminance,
    modality_map,
    padding,
)
from latentdrift.data.formats.dicom.window import voi_window
from latentdrift.data.scan import Plane, Volume
from latentdrift.errors import DataError

STACK_KEYWORDS = (
    "SeriesInstanceUID", "Modality", "ImageType", "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing",
)  # fmt: skip
"""What has to be known of every file before the pixels of a series are read."""


def read_dicom(files: Sequence[Path], frame: int = 0, window: int | str = 0) -> Volume | Plane:
    """Return what the files show.

    One file of one frame, or of frames without a place in space (a cine loop), gives a `Plane`. Several files of a
    series, or one enhanced multi-frame file, give a `Volume`: voxel (i, j, k) is column i and row j of the k-th slice
    along the normal. Real values are those after the modality LUT (HU in CT). Padding pixels become air in CT and the
    darkest value elsewhere. Colour is read as luminance, which `facts` says. Overlays and private attributes are not
    looked at, and `facts` hold nothing that identifies the patient.

    Args:
        files: one file, or those of one series in any order.
        frame: which frame, from 0, where a multi-frame file gives a plane.
        window: which display window, by its place or its explanation.

    Raises:
        DataError: the file, or the first of the files that cannot be used, and why.
    """
    if not files:
        raise DataError("There are no files to read a DICOM image from. List the source again.")
    with warnings.catch_warnings():
        # pydicom warns of every oddity of a header; those that matter here are refused by name.
        warnings.simplefilter("ignore")
        if len(files) > 1:
            return _read_series(files, window)
        tags = Tags(open_dicom(files[0]), files[0], frame)
        form = pixel_format(tags)
        if form.frames > 1:
            slices = _frame_slices(tags, form)
            if slices is not None:
                return _read_frames(tags, form, slices, window)
        return _read_plane(tags, form, frame, window)


def series_order(files: Sequence[Path]) -> tuple[list[int], NDArray[np.float64]]:
    """Return (indices of the files along the normal, affine) of a series, from headers alone.

    Raises:
        DataError: the files are not one stack of slices.
    """
    where = f"The series in {files[0].parent}"
    headers = [Tags(open_dicom(path, pixels=False, keywords=STACK_KEYWORDS), path) for path in files]
    slices = []
    for header in headers:
        if header.text("SeriesInstanceUID") != headers[0].text("SeriesInstanceUID"):
            raise DataError(f"{header.path} is of another series than {files[0]}. Give the files of one series.")
        if is_localizer(header):
            raise DataError(f"{header.path} is a localizer (scout), no slice of a volume. Leave it out.")
        if header.whole("NumberOfFrames", 1) > 1:
            raise DataError(f"{header.path} has several frames; it is a volume of its own. Give it alone.")
        shape = header.whole("Rows"), header.whole("Columns")
        if shape != (headers[0].whole("Rows"), headers[0].whole("Columns")):
            raise DataError(f"{header.path} has {shape[0]} rows and {shape[1]} columns, unlike {files[0]}.")
        place = slice_geometry(header)
        if place is None:
            raise DataError(
                f"{header.path} does not say where its slice is (ImagePositionPatient, ImageOrientationPatient). "
                "Give its files one by one."
            )
        slices.append(place)
    _check_volume(headers[0].whole("Rows") * headers[0].whole("Columns") * len(files), where)
    return stack(slices, where)


def frame_order(tags: Tags) -> tuple[list[int], NDArray[np.float64] | None]:
    """Return (frames of one file in the order of `read_dicom`'s slices, affine), (as stored, None) for a loop.

    Raises:
        DataError: frames with places in space that are not one stack.
    """
    form = pixel_format(tags)
    slices = _frame_slices(tags, form) if form.frames > 1 else None
    return (list(range(form.frames)), None) if slices is None else stack(slices, str(tags.path))


def is_localizer(tags: Tags) -> bool:
    """Tell whether an image is a scout for planning, after the third value of its type."""
    return "LOCALIZER" in {part.upper() for part in tags.texts("ImageType")[2:]}


def real_values(tags: Tags, form: PixelFormat, stored: NDArray[Any]) -> NDArray[np.float32]:
    """Return the real values of a frame; NaN where it is padding."""
    if not form.gray:
        return luminance(stored)
    real = modality_map(tags, form).real(stored)
    filling = padding(tags, form, stored)
    if filling is not None:
        real[filling] = np.nan
    return real


def _read_plane(tags: Tags, form: PixelFormat, frame: int, window: int | str) -> Plane:
    (stored,) = decode_frames(tags, form, [frame])
    pixels = real_values(tags, form, stored)
    units = modality_map(tags, form).units
    shown, note, inverted = _shown(tags, form, window)
    facts = _facts(tags, form) | {"window_from": note, "padding": float(np.isnan(pixels).mean())}
    fill_padding(pixels, units, inverted)
    spacing, source = pixel_spacing(tags)
    return Plane(
        np.ascontiguousarray(pixels),
        spacing,
        tags.text("Modality") or "OT",
        8 if form.photometric == "PALETTE COLOR" else form.stored,
        shown,
        inverted,
        facts | {"spacing_from": source} | ({"frame": frame} if form.frames > 1 else {}),
    )


def _read_frames(tags: Tags, form: PixelFormat, slices: Sequence[Slice], window: int | str) -> Volume:
    order, affine = stack(slices, str(tags.path))
    voxels = np.empty((form.columns, form.rows, form.frames), np.float32)
    place = {frame: k for k, frame in enumerate(order)}
    for frame, stored in enumerate(decode_frames(tags, form, range(form.frames))):
        of_frame = Tags(tags.dataset, tags.path, frame)
        voxels[:, :, place[frame]] = real_values(of_frame, form, stored).T
    return _volume(voxels, affine, Tags(tags.dataset, tags.path, order[len(order) // 2]), form, window)


def _read_series(files: Sequence[Path], window: int | str) -> Volume:
    order, affine = series_order(files)
    voxels: NDArray[np.float32] | None = None
    for k, index in enumerate(order):
        tags = Tags(open_dicom(files[index]), files[index])
        form = pixel_format(tags)
        (stored,) = decode_frames(tags, form, [0])
        if voxels is None:
            voxels = np.empty((form.columns, form.rows, len(files)), np.float32)
        voxels[:, :, k] = real_values(tags, form, stored).T
        if k == len(order) // 2:
            middle, middle_form = tags, form
    assert voxels is not None
    return _volume(voxels, affine, middle, middle_form, window)


def _volume(
    voxels: NDArray[np.float32], affine: NDArray[np.float64], middle: Tags, form: PixelFormat, window: int | str
) -> Volume:
    shown, note, inverted = _shown(middle, form, window)
    facts = _facts(middle, form) | {"window": shown, "window_from": note, "inverted": inverted, "bits": form.stored}
    shear = shear_degrees(affine)
    if shear > 0.1:
        facts["shear_degrees"] = round(shear, 2)
    facts["padding"] = float(np.isnan(voxels).mean())
    fill_padding(voxels, modality_map(middle, form).units, inverted)
    return Volume(voxels, affine, middle.text("Modality") or "OT", facts)


def _frame_slices(tags: Tags, form: PixelFormat) -> list[Slice] | None:
    """Return where the frames are, or None where they are not told to be at different places."""
    groups = tags.dataset.get("PerFrameFunctionalGroupsSequence") or []
    if len(groups) == 0:
        return None
    if len(groups) < form.frames:
        raise DataError(f"{tags.path} tells of {len(groups)} frames and has {form.frames}. Replace or remove the file.")
    _check_volume(form.rows * form.columns * form.frames, str(tags.path))
    slices = [slice_geometry(Tags(tags.dataset, tags.path, frame)) for frame in range(form.frames)]
    found = [one for one in slices if one is not None]
    if not found or all(np.linalg.norm(one.position - found[0].position) < SAME_PLACE_MM for one in found):
        return None  # a loop at one place
    if len(found) < len(slices):
        raise DataError(f"{tags.path}: frame {slices.index(None)} does not say where it is. Repair the header.")
    return found


def _shown(tags: Tags, form: PixelFormat, window: int | str) -> tuple[tuple[float, float] | None, str, bool]:
    """Return (display range, what it is from, whether low values are bright)."""
    if not form.gray:
        bits = 8 if form.photometric == "PALETTE COLOR" else form.stored
        return (0.0, 2.0**bits - 1), "all levels of the colours", False
    negative = form.signed or (tags.number("RescaleIntercept") or 0) < 0
    found = voi_window(tags, window, signed=negative)
    return found.range, found.note, (form.photometric == "MONOCHROME1") != found.reversed


def _facts(tags: Tags, form: PixelFormat) -> dict[str, Any]:
    from pydicom.uid import UID

    facts: Mapping[str, Any] = {
        "format": "DICOM",
        "transfer_syntax": UID(form.syntax).name,
        "photometric": form.photometric,
        "colour": None if form.gray else f"{form.photometric}, read as luminance",
        "bits_stored": form.stored,
        "units": modality_map(tags, form).units,
        "frames": form.frames if form.frames > 1 else None,
        "body_part": tags.text("BodyPartExamined"),
        "lossy": True if tags.text("LossyImageCompression") == "01" else None,
        "byte_order": "big endian" if is_big_endian(tags) else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _check_volume(voxels: int, where: str) -> None:
    if voxels * 4 > MAX_VOLUME_BYTES:
        raise DataError(f"{where} has {voxels:,} voxels, more than {MAX_VOLUME_BYTES // 4:,}. Split the series.")
