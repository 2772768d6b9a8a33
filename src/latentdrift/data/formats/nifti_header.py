"""What a NIfTI file says about itself, checked before anything is allocated.

A header is a claim. It is compared with the size of the file, or, where the file is compressed, with what so many bytes
could hold at most, and every length has a bound: a damaged or hostile header costs a message, not the memory.

Source: the NIfTI-1.1 and NIfTI-2 data formats (nifti1.h, nifti2.h of the NIfTI Data Format Working Group).
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.formats.nifti_affine import read_affine
from latentdrift.errors import DataError

MAX_VOXELS = 2**29
"""Voxels of one frame: 2 GiB as float32."""

MAX_FILE = 2**38
"""Bytes a file may claim to hold over all frames: 256 GiB."""

MAX_EXTENSIONS = 2**24
"""Bytes between the header and the voxels."""

SURPLUS = 512
"""Bytes after the voxels that are taken for padding. More of them, and the shape in the header is wrong."""

GZIP_RATIO = 1032
"""No DEFLATE stream grows by more (zlib's technical details: 1032 : 1)."""

TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
REFUSED_TYPES = {
    1: "single bits",
    32: "complex numbers",
    128: "colours (RGB)",
    1536: "128-bit numbers",
    1792: "complex numbers",
    2048: "complex numbers",
    2304: "colours (RGBA)",
}


@dataclass(frozen=True)
class Layout:
    """Where the voxels of a NIfTI file are and what they mean.

    Attributes:
        header_file: the file with the header.
        image_file: the file with the voxels; the same but for a pair.
        header: nibabel's header, with the byte order of the file.
        version: 1 or 2.
        dtype: of a stored value, byte order included.
        shape: (I, J, K) of one frame.
        frames: how many there are.
        offset: first byte of the voxels in `image_file`, decompressed.
        slope: a stored value times `slope` plus `intercept` is the real value.
        intercept: see `slope`.
        affine: (4, 4) voxel index to mm, RAS.
        facts: what a reader may want to know; no identifiers.
    """

    header_file: Path
    image_file: Path
    header: Any
    version: int
    dtype: np.dtype[Any]
    shape: tuple[int, int, int]
    frames: int
    offset: int
    slope: float
    intercept: float
    affine: NDArray[np.float64]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_bytes(path: Path) -> BinaryIO:
    """Return a file opened for reading, decompressed if its first bytes are gzip's, whatever its name says."""
    file = path.open("rb")
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return _OwningGzip(file) if zipped else file  # type: ignore[return-value]


class _OwningGzip(gzip.GzipFile):
    """A gzip reader that closes the file below it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._below = file

    def close(self) -> None:
        super().close()
        self._below.close()


def pair_of(path: Path) -> tuple[Path, Path]:
    """Return the files (header, voxels): twice the same, or the two of a .hdr/.img pair.

    Raises:
        DataError: a file is missing or empty.
    """
    name, partner = path.name, path
    for mine, other in ((".img", ".hdr"), (".hdr", ".img")):
        stem, zipped = (name[:-3], name[-3:]) if name.lower().endswith(".gz") else (name, "")
        if stem.lower().endswith(mine):
            other = other.upper() if stem[-4:].isupper() else other
            places = [path.with_name(stem[:-4] + other + ending) for ending in (zipped, "" if zipped else ".gz")]
            partner = next((place for place in places if place.is_file()), places[0])
    for file in (path, partner):
        if not file.is_file():
            raise DataError(f"{file}: there is no such file. The header (.hdr) and the voxels (.img) belong together.")
        if file.stat().st_size == 0:
            raise DataError(f"{file} is empty. Copy it again.")
    return (partner, path) if ".img" in name.lower()[-7:] else (path, partner)


def read_layout(path: Path) -> Layout:
    """Return what the header says, after checking all of it.

    Raises:
        DataError: no NIfTI file, or a header that cannot be true; the message names the file and the entry.
    """
    import nibabel

    header_file, image_file = pair_of(path)
    block = _first_bytes(header_file, 540)
    version, order = _version(block)
    if version == 0:
        raise DataError(f"{path} is no NIfTI file: it does not begin with the size of a header. Convert or remove it.")
    kind, length = (nibabel.Nifti1Header, 348) if version == 1 else (nibabel.Nifti2Header, 540)
    if len(block) < length:
        raise DataError(f"{header_file} ends within its header, after {len(block)} bytes. Copy it again.")
    magic = block[344:348] if version == 1 else block[4:8]
    single = header_file == image_file
    good = (b"n+%d\0" if single else b"ni%d\0") % version
    if magic != good:
        raise DataError(
            f"{header_file}: the magic of the header is {magic!r}, not {good!r}: it is damaged, or named as another "
            "kind of file. Copy or convert it again."
        )
    header = kind(block[:length], order, check=False)
    shape, frames = _shape(header_file, header)
    dtype = _dtype(header_file, header)
    offset = _offset(header_file, header, length + 4 if single else 0)
    _check_size(path, image_file, offset, math.prod(shape) * dtype.itemsize * frames)
    slope, intercept = _scaling(header_file, header)
    facts: dict[str, Any] = {"format": f"NIfTI-{version}"}
    affine = read_affine(header_file, header, shape, facts)
    facts |= {"stored": dtype.name, "frames": frames, "bits": 8 * dtype.itemsize}
    if (slope, intercept) != (1.0, 0.0):
        facts |= {"slope": slope, "intercept": intercept}
    return Layout(
        header_file, image_file, header, version, dtype, shape, frames, offset, slope, intercept, affine, facts
    )


def is_nifti(path: Path) -> bool:
    """Tell whether a file, or the header beside it, is NIfTI, and not Analyze or another format nibabel knows."""
    header_file, image_file = pair_of(path)
    if header_file == image_file:
        return True  # or a damaged one: Analyze is always a pair
    block = _first_bytes(header_file, 540)
    version, _ = _version(block)
    magic = block[344:348] if version == 1 else block[4:8]
    return version > 0 and magic[:2] in (b"ni", b"n+")


def _first_bytes(path: Path, count: int) -> bytes:
    try:
        with open_bytes(path) as file:
            return file.read(count)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}. Copy it again.") from error


def _version(block: bytes) -> tuple[int, str]:
    """Return the version, 0 where it is no NIfTI header, and the byte order, by the size of the header alone."""
    for order, name in (("<", "little"), (">", "big")):
        version = {348: 1, 540: 2}.get(int.from_bytes(block[:4], name))  # type: ignore[arg-type]
        if version is not None:
            return version, order
    return 0, "<"


def _shape(path: Path, header: Any) -> tuple[tuple[int, int, int], int]:
    count, *sides = (int(side) for side in header["dim"])
    if not 2 <= count <= 7:
        raise DataError(f"{path}: dim[0] is {count}; an image has 2 to 7 axes. The header is damaged.")
    sides = sides[:count] + [1] * (7 - count)
    if min(sides) < 1:
        raise DataError(f"{path}: the shape is {sides[:count]}; every axis has at least one voxel. Repair the header.")
    shape, frames = (sides[0], sides[1], sides[2]), math.prod(sides[3:])
    if math.prod(shape) > MAX_VOXELS:
        raise DataError(f"{path} claims {' x '.join(map(str, shape))} voxels, more than {MAX_VOXELS:,}. Crop it first.")
    return shape, frames


def _dtype(path: Path, header: Any) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code in REFUSED_TYPES:
        raise DataError(f"{path} holds {REFUSED_TYPES[code]}, not one real value a voxel. Convert it first.")
    if code not in TYPES:
        raise DataError(f"{path}: the data type {code} is none that NIfTI knows. The header is damaged.")
    return np.dtype(header.endianness + TYPES[code])


def _offset(path: Path, header: Any, least: int) -> int:
    offset = float(header["vox_offset"])
    if not (math.isfinite(offset) and offset == int(offset) and least <= offset <= least + MAX_EXTENSIONS):
        # FSL and SPM once wrote 0 for "right after the header".
        if offset != 0:
            raise DataError(f"{path}: the voxels are said to begin at byte {offset:g}. The header is damaged.")
        offset = least
    return int(offset)


def _check_size(path: Path, file: Path, offset: int, needed: int) -> None:
    there, end = file.stat().st_size, offset + needed
    if end > MAX_FILE:
        raise DataError(f"{path} claims {end:,} bytes, more than {MAX_FILE:,}. The header is damaged.")
    with file.open("rb") as opened:
        zipped = opened.read(2) == b"\x1f\x8b"
    if zipped and end > there * GZIP_RATIO:
        raise DataError(f"{path}: {there:,} compressed bytes cannot hold the {end:,} of its shape. Copy it again.")
    if not zipped and there < end:
        raise DataError(f"{path} is cut short: {there:,} bytes of {end:,}. Copy it again.")
    if not zipped and there > end + SURPLUS:
        raise DataError(
            f"{path} has {there - end:,} bytes more than its shape and type need: the header is not of these voxels."
        )


def _scaling(path: Path, header: Any) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0  # "no scaling", by the standard; NaN is what some programs write for it
    if not math.isfinite(intercept):
        raise DataError(f"{path}: scl_inter is {intercept} beside the slope {slope:g}. Repair the header.")
    return slope, intercept
