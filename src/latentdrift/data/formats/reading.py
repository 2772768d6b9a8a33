"""Files of a scan → a `Volume` or a `Plane`, whatever their format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from latentdrift.data.images import FORMATS, check_image, has_colour, read_array
from latentdrift.data.scan import Plane, Volume
from latentdrift.data.tables import IMAGE_SUFFIXES
from latentdrift.errors import DataError

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".img", ".img.gz", ".hdr", ".hdr.gz", ".mgz", ".mgh")


def format_of(path: Path) -> str:
    """Return "nifti", "picture" or "dicom": by the name, and DICOM for every other, which has no fixed suffix."""
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        return "nifti"
    return "picture" if path.suffix.lower() in IMAGE_SUFFIXES else "dicom"


def read_scan(files: Sequence[Path], frame: int = 0, modality: str = "OT") -> Volume | Plane:
    """Return the scan in `files`.

    Args:
        files: one file, or the files of a DICOM series.
        frame: which volume of a 4-D file, or frame of a multi-frame image.
        modality: what a picture file shows, since it does not say ("CR" for an X-ray).

    Raises:
        DataError: no file, or one that cannot be read; the message names it.
    """
    if not files:
        raise DataError("A scan without files cannot be read. List the source again.")
    kinds = {format_of(path) for path in files}
    if len(kinds) > 1 or (len(files) > 1 and kinds != {"dicom"}):
        raise DataError(f"{files[0].parent}: a scan is one file, or several DICOM files; this one mixes {len(files)}.")
    if kinds == {"nifti"}:
        from latentdrift.data.formats.nifti import read_nifti

        return read_nifti(files[0], frame=frame, modality=modality)
    if kinds == {"dicom"}:
        from latentdrift.data.formats.dicom import read_dicom

        return read_dicom(files, frame=frame)
    return read_picture(files[0], modality)


def read_picture(path: Path, modality: str = "OT") -> Plane:
    """Return a gray picture file as a plane; values are those stored.

    Raises:
        DataError: the file is damaged, or has colour.
    """
    damage = check_image(path)  # the checksums of PNG, which decoding alone does not compare
    if damage is not None:
        raise DataError(f"{path} cannot be read as an image: {damage}. Replace or remove the file.")
    pixels = read_array(path)
    if has_colour(pixels):
        raise DataError(
            f"{path} has colour, which preparing would lose. Colour images need no preparing: give their folder to "
            "`latentdrift finetune --data`."
        )
    if pixels.ndim == 3:
        gray = pixels[..., 0] + pixels[..., 1]
        gray += pixels[..., 2]
        pixels = gray / np.float32(3)
    bits = stored_bits(path)
    pixels *= np.float32(2**bits - 1)
    return Plane(pixels, modality=modality, bits=bits, window=(0.0, 2.0**bits - 1))


def stored_bits(path: Path) -> int:
    """Return the bits of a value in a picture file: 8, or 16 for 16-bit and floating-point files."""
    from PIL import Image

    with Image.open(path, formats=FORMATS) as file:
        return 16 if file.mode in ("I", "F") or file.mode.startswith("I;16") else 8
