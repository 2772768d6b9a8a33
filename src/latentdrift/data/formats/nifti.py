"""NIfTI-1 and NIfTI-2 files (.nii, .nii.gz, .hdr/.img), and Analyze and MGH by nibabel → `Volume`."""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.formats.nifti_affine import SPACINGS
from latentdrift.data.formats.nifti_header import (
    GZIP_RATIO,
    MAX_VOXELS,
    SURPLUS,
    Layout,
    is_nifti,
    open_bytes,
    pair_of,
    read_layout,
)
from latentdrift.data.scan import Volume
from latentdrift.data.volumes.orient import axis_codes, tilt_degrees, voxel_spacing
from latentdrift.errors import DataError

CHUNK = 2**20

KNOWN_PROGRAMS = re.compile(
    r"(FSL|FreeSurfer|SPM\d*|ANTs|dcm2niix?|MRIcro\w*|nibabel|AFNI|SimpleITK|MRtrix3?|NiftyReg|nilearn)"
    r"([ _-]*v?\d+(\.\w+)*)?\b",
    re.IGNORECASE,
)
"""What of a description is handed on: a program and its version. Any other text may name a patient."""


def read_nifti(path: Path, frame: int = 0, modality: str = "OT") -> Volume:
    """Return a file's volume, real values after slope and intercept.

    Voxels that are not finite become 0 and are counted in the facts (`not_finite`). A 2-D file is a volume of one
    slice. Analyze (.hdr/.img without NIfTI's magic) and MGH (.mgh, .mgz) are read by nibabel.

    Args:
        path: .nii, .nii.gz, either file of a .hdr/.img pair, .mgh or .mgz.
        frame: which volume of a 4-D file, from 0. Later axes are counted through, the fourth fastest.
        modality: DICOM's code of what it shows, which NIfTI does not say.

    Raises:
        DataError: a file that is damaged, cut short, of colours or complex numbers, or without such a frame; half of
            the voxels or more are not finite.
    """
    path = Path(path)
    if not _is_mgh(path) and is_nifti(path):
        layout = read_layout(path)
        stored = read_frame(layout, frame)
        voxels, affine, facts = _real(stored, layout.slope, layout.intercept), layout.affine, dict(layout.facts)
        facts |= _described(layout.header)
    else:
        voxels, affine, facts = _read_other(path, frame)
    voxels, lost = _finite(path, voxels)
    facts |= {"frame": frame, "shape": list(voxels.shape)} | _geometry(affine)
    if lost:
        facts["not_finite"] = f"{lost} voxels, set to 0"
    return Volume(voxels, affine, modality, facts)


def nifti_facts(path: Path) -> dict[str, Any]:
    """Return what the header says, without reading voxels: shape, spacing (mm), unit, orientation, stored type.

    Of the description only a program's name and version are told; free text may name a patient.

    Raises:
        DataError: as `read_nifti`.
    """
    path = Path(path)
    if _is_mgh(path) or not is_nifti(path):
        image = _open_other(path)
        return {**_other_facts(path, image), "shape": list(image.shape[:3]), **_geometry(_other_affine(path, image))}
    layout = read_layout(path)
    return {**layout.facts, "shape": list(layout.shape), **_geometry(layout.affine), **_described(layout.header)}


def read_frame(layout: Layout, frame: int) -> NDArray[Any]:
    """Return one frame's stored values, (I, J, K) in the file's own type and byte order.

    Raises:
        DataError: no such frame, or a file that is cut short, damaged, or longer than it says.
    """
    check_frame(layout.image_file, frame, layout.frames)
    values = np.empty(layout.frame_bytes, np.uint8)
    try:
        with open_bytes(layout.image_file) as file:
            skip(file, layout.image_file, layout.offset + frame * layout.frame_bytes)
            fill(file, layout.image_file, values)
            if frame == layout.frames - 1 and len(file.read(SURPLUS + 1)) > SURPLUS:
                # Reading on to the end is also what compares gzip's checksum.
                raise DataError(f"{layout.image_file} goes on after its last voxel: the header is not of these voxels.")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{layout.image_file} is damaged: {error}. Copy it again.") from error
    return values.view(layout.dtype).reshape(layout.shape, order="F")


def check_frame(path: Path, frame: int, frames: int) -> None:
    """Raise DataError where a file has no such frame."""
    if not 0 <= frame < frames:
        have = "one volume, 0" if frames == 1 else f"{frames} volumes, 0 to {frames - 1}"
        raise DataError(f"{path} has {have}; there is no frame {frame}.")


def skip(file: Any, path: Path, count: int) -> None:
    """Read over `count` bytes, keeping none of them.

    Raises:
        DataError: the file ends before.
    """
    while count:
        got = len(file.read(min(count, CHUNK)))
        if not got:
            raise DataError(f"{path} is cut short: {count:,} bytes are missing before the volume. Copy it again.")
        count -= got


def fill(file: Any, path: Path, values: NDArray[np.uint8]) -> None:
    """Read as many bytes as `values` has room for.

    Raises:
        DataError: the file ends before.
    """
    view, done = values.data, 0
    while done < len(view):
        got = file.readinto(view[done : done + CHUNK])
        if not got:
            raise DataError(f"{path} is cut short: {len(view) - done:,} bytes of voxels are missing. Copy it again.")
        done += got


def _real(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float32]:
    if (slope, intercept) == (1.0, 0.0):
        with np.errstate(over="ignore"):
            return stored.astype(np.float32, order="K")
    real = np.empty_like(stored, dtype=np.float32)
    for k in range(stored.shape[2]):  # one slice at a time: in double precision the whole would be twice the size
        with np.errstate(over="ignore"):
            real[:, :, k] = stored[:, :, k].astype(np.float64) * slope + intercept
    return real


def _finite(path: Path, voxels: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    wrong = ~np.isfinite(voxels)
    lost = int(np.count_nonzero(wrong))
    if 2 * lost >= voxels.size:
        raise DataError(
            f"{path}: {lost:,} of {voxels.size:,} voxels are not finite numbers. Set the background to 0, or leave "
            "the file out."
        )
    if lost:
        voxels[wrong] = 0
    return voxels, lost


def _geometry(affine: NDArray[np.float64]) -> dict[str, Any]:
    return {
        "spacing": [round(float(step), 6) for step in voxel_spacing(affine)],
        "axes": axis_codes(affine),
        "tilt_degrees": round(tilt_degrees(affine), 3),
    }


def _described(header: Any) -> dict[str, str]:
    text = bytes(header["descrip"].item()).split(b"\0")[0].decode("latin-1").strip()
    found = KNOWN_PROGRAMS.match(text)
    return {"description": found[0]} if found else {}


def _is_mgh(path: Path) -> bool:
    return path.name.lower().endswith((".mgh", ".mgz", ".mgh.gz"))


def _open_other(path: Path) -> Any:
    """Return nibabel's image of an Analyze or MGH file, its claims checked, its voxels not read."""
    import nibabel

    files = (path, path) if _is_mgh(path) else pair_of(path)
    if not files[0].is_file():
        raise DataError(f"{path}: there is no such file.")
    try:
        image = nibabel.load(files[1])
    except Exception as error:  # nibabel raises anything on damaged headers
        raise DataError(f"{path} is no NIfTI, Analyze or MGH file ({error}). Convert or remove it.") from error
    shape = tuple(int(side) for side in image.shape)
    if not 2 <= len(shape) <= 7 or min(shape) < 1 or math.prod(shape[:3]) > MAX_VOXELS:
        raise DataError(f"{path}: the shape {shape} cannot be that of an image. The header is damaged.")
    dtype = np.dtype(image.get_data_dtype())
    if dtype.kind not in "iuf":
        raise DataError(f"{path} holds {dtype}, not one real value a voxel. Convert it first.")
    with files[1].open("rb") as opened:
        ratio = GZIP_RATIO if opened.read(2) == b"\x1f\x8b" else 1
    needed = math.prod(shape) * dtype.itemsize
    if needed > files[1].stat().st_size * ratio:
        raise DataError(f"{path} is cut short: its shape needs {needed:,} bytes. Copy it again.")
    return image


def _other_affine(path: Path, image: Any) -> NDArray[np.float64]:
    affine = np.asarray(image.affine, np.float64)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not ((sides >= SPACINGS[0]) & (sides <= SPACINGS[1])).all():
        raise DataError(f"{path}: the distances of voxels are {sides.tolist()}. Repair the header.")
    return affine


def _other_facts(path: Path, image: Any) -> dict[str, Any]:
    mgh = _is_mgh(path)
    dtype = np.dtype(image.get_data_dtype())
    return {
        "format": "MGH" if mgh else "Analyze",
        "orientation_from": "header" if mgh else "assumed: Analyze does not say; left and right cannot be told",
        "unit": "mm",
        "stored": dtype.name,
        "frames": math.prod(image.shape[3:]),
        "bits": 8 * dtype.itemsize,
    }


def _read_other(path: Path, frame: int) -> tuple[NDArray[np.float32], NDArray[np.float64], dict[str, Any]]:
    image = _open_other(path)
    facts = _other_facts(path, image)
    check_frame(path, frame, facts["frames"])
    index = np.unravel_index(frame, image.shape[3:], order="F") if len(image.shape) > 3 else ()
    try:
        voxels = np.asarray(image.dataobj[(..., *map(int, index))], dtype=np.float32)
    except Exception as error:  # as above
        raise DataError(f"{path} is damaged: {error}. Copy it again.") from error
    voxels = voxels.reshape((*voxels.shape, 1, 1)[:3])
    return np.array(voxels, order="F"), _other_affine(path, image), facts
