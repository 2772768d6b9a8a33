"""Stored values of the frames of a DICOM image, decoded by pydicom after every size was checked."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.formats.dicom.tags import Tags
from latentdrift.data.images import MAX_PIXELS
from latentdrift.errors import DataError

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import Decoder

MAX_VOLUME_BYTES = 2**31
"""A volume may not need more than this as float32."""

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
GRAY = ("MONOCHROME1", "MONOCHROME2")
RLE = "1.2.840.10008.1.2.5"

END_OF_IMAGE = b"\xff\xd9"
"""The last marker of a JPEG, JPEG-LS or JPEG 2000 codestream."""

NOT_FOR_READERS = re.compile(r"Unable to decode as exceptions were raised by all available plugins: | <[^<>]*>")
"""What pydicom puts around the reasons of its decoders: nothing new, and names of objects in memory."""

MOST_PADDING = 64
"""Bytes at the end of a frame that the marker is looked for in. One is the rule; some writers fill up whole words."""


@dataclass(frozen=True)
class PixelFormat:
    """What the header says about the pixels.

    Attributes:
        rows, columns, frames: the shape.
        allocated, stored, high: bits of a value in memory, its significant bits, and the highest of these.
        signed: two's complement.
        photometric: DICOM's PhotometricInterpretation; "MONOCHROME2" where a gray image does not say.
        keyword: the attribute that holds the pixels.
        syntax: UID of the transfer syntax.
    """

    rows: int
    columns: int
    frames: int
    allocated: int
    stored: int
    high: int
    signed: bool
    photometric: str
    keyword: str
    syntax: str

    @property
    def gray(self) -> bool:
        """Tell whether a pixel is one number to be shown as it is."""
        return self.photometric in GRAY

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest value that can be stored."""
        return (-(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1) if self.signed else (0, 2**self.stored - 1)


def pixel_format(tags: Tags) -> PixelFormat:
    """Return what the header says about the pixels.

    Raises:
        DataError: there are none, or they are too many, or the header contradicts itself.
    """
    keyword = next((name for name in PIXEL_KEYWORDS if tags.raw(name) is not None), None)
    if keyword is None:
        raise DataError(f"{tags.path} holds no pixels (no PixelData). Remove it, or get it whole.")
    rows, columns, frames = tags.whole("Rows"), tags.whole("Columns"), tags.whole("NumberOfFrames", 1)
    if rows < 1 or columns < 1:
        raise DataError(f"{tags.path}: the image has {rows} rows and {columns} columns. Replace or remove the file.")
    if rows * columns > MAX_PIXELS:
        raise DataError(f"{tags.path}: {columns} x {rows} pixels, more than {MAX_PIXELS:,}: taken for a bomb.")
    # Some writers give NumberOfFrames 0 for the one frame there is.
    frames = max(frames, 1)
    samples = tags.whole("SamplesPerPixel", 1)
    if samples not in (1, 3):
        raise tags.refusal("SamplesPerPixel", f"is {samples}, neither 1 nor 3")
    photometric = tags.text("PhotometricInterpretation") or ("MONOCHROME2" if samples == 1 else "RGB")
    if (samples == 3) == (photometric in GRAY or photometric == "PALETTE COLOR"):
        raise tags.refusal("PhotometricInterpretation", f"is {photometric} with SamplesPerPixel {samples}")
    allocated = tags.whole("BitsAllocated", 64 if keyword.startswith("Double") else 32 if keyword[0] == "F" else None)
    stored = tags.whole("BitsStored", allocated)
    high = tags.whole("HighBit", stored - 1)
    if allocated not in (1, 8, 16, 32, 64) or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise tags.refusal("BitsAllocated", f"is {allocated} with BitsStored {stored} and HighBit {high}")
    signed = tags.whole("PixelRepresentation", 0) == 1
    syntax = str(tags.dataset.file_meta.TransferSyntaxUID)
    return PixelFormat(rows, columns, frames, allocated, stored, high, signed, photometric, keyword, syntax)


def decode_frames(tags: Tags, form: PixelFormat, frames: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Yield the stored values of frames, each (rows, columns), or (rows, columns, 3) RGB for a colour image.

    Whole numbers are int32 (int64 for unsigned 32-bit); FloatPixelData are float64. Bits above the stored ones, where
    old files keep overlays, are cut off. YBR and palettes become RGB; palettes of 16-bit entries keep the upper 8.

    Raises:
        DataError: a frame that is not there, a syntax that cannot be decoded, or damaged data.
    """
    if frames and (min(frames) < 0 or max(frames) >= form.frames):
        raise DataError(f"{tags.path} has {form.frames} frame(s); frame {max(frames)} (counted from 0) is not there.")
    decoder = _decoder(tags, form)
    for keyword, value in (
        ("SamplesPerPixel", 1 if form.gray or form.photometric == "PALETTE COLOR" else 3),
        ("PhotometricInterpretation", form.photometric),
        ("BitsStored", form.stored),
        ("PixelRepresentation", int(form.signed)),
    ):
        tags.dataset.setdefault(keyword, value)  # pydicom insists on what `pixel_format` has a default for
    # pydicom shifts bits off without looking at HighBit; `_significant` below does.
    masked = not decoder.UID.is_encapsulated or form.syntax == RLE
    options: dict[str, Any] = {"correct_unused_bits": False} if masked and form.keyword == "PixelData" else {}
    if form.syntax == RLE:
        # On damaged data pylibjpeg-rle panics, past `except Exception`; pydicom's own decoder raises ValueError.
        options["decoding_plugin"] = "pydicom"
    try:
        if decoder.UID.is_encapsulated:
            _check_codestreams(tags, form, frames)
        for values, _ in decoder.iter_array(tags.dataset, indices=list(frames), **options):
            yield _as_said(tags, form, values, masked)
    except DataError:
        raise
    except Exception as error:  # decoders raise anything on damaged data
        reason = NOT_FOR_READERS.sub("", " ".join(str(error).split()))[:300]
        raise DataError(f"{tags.path}: its pixels cannot be decoded ({reason}). Replace or remove the file.") from error


def _as_said(tags: Tags, form: PixelFormat, values: NDArray[Any], masked: bool) -> NDArray[Any]:
    if values.shape[:2] != (form.rows, form.columns):
        raise DataError(
            f"{tags.path}: decoded to {values.shape} instead of {form.rows} x {form.columns}. Replace the file."
        )
    if form.keyword != "PixelData":
        if not np.isfinite(values).all():
            raise DataError(f"{tags.path} holds NaN or infinite pixels. Replace or remove the file.")
        return values.astype(np.float64)
    whole = values.astype(np.int64 if values.dtype.itemsize >= 4 else np.int32)
    if not form.gray:
        return _rgb(tags, form, whole, values.dtype)
    return _significant(whole, form) if masked else whole


def _significant(values: NDArray[Any], form: PixelFormat) -> NDArray[Any]:
    """Return the stored bits alone, with their sign."""
    if form.stored == form.allocated:
        return values
    shift = form.high + 1 - form.stored
    found = (values >> shift if shift else values) & (2**form.stored - 1)
    return np.where(found >= 2 ** (form.stored - 1), found - 2**form.stored, found) if form.signed else found


def _rgb(tags: Tags, form: PixelFormat, values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if form.photometric == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        colour = apply_color_lut(values.astype(dtype), tags.dataset)[..., :3]
        return (colour.astype(np.int32) >> 8) if colour.dtype.itemsize == 2 else colour.astype(np.int32)
    if values.ndim != 3 or values.shape[2] != 3:
        raise tags.refusal("PhotometricInterpretation", f"is {form.photometric}, which is read as gray or RGB only")
    return values


def _decoder(tags: Tags, form: PixelFormat) -> Decoder:
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    name = f"{UID(form.syntax).name} ({form.syntax})"
    try:
        decoder = get_decoder(form.syntax)
    except NotImplementedError:
        raise DataError(
            f"{tags.path}: no decoder exists here for the transfer syntax {name}. Convert the file to Explicit VR "
            "Little Endian, for example with dcmdjpeg or gdcmconv --raw."
        ) from None
    if not decoder.is_available:
        needs = "; ".join(decoder.missing_dependencies)
        raise DataError(
            f"{tags.path}: the transfer syntax {name} needs a package that is not installed. Install one of: {needs}."
        )
    return decoder


def _check_codestreams(tags: Tags, form: PixelFormat, frames: Sequence[int]) -> None:
    """Refuse compressed frames that decoders would take wrongly.

    Decoders allocate what the frame's own header says, not what the file's does; and those of JPEG make up the rest of
    an image that is cut short.
    """
    from pydicom.encaps import generate_frames

    wanted = set(frames)
    for index, data in enumerate(generate_frames(tags.dataset.PixelData, number_of_frames=form.frames)):
        size = codestream_size(data) if index in wanted else None
        if size is not None and size != (form.rows, form.columns):
            raise DataError(
                f"{tags.path}: the compressed frame {index} is {size[1]} x {size[0]} pixels, the header says "
                f"{form.columns} x {form.rows}. Replace or remove the file."
            )
        if size is not None and END_OF_IMAGE not in data[-MOST_PADDING:]:
            raise DataError(f"{tags.path}: the compressed frame {index} is cut short. Replace or remove the file.")
        if index >= max(wanted, default=0):
            break


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) that a JPEG, JPEG-LS or JPEG 2000 codestream says it has, None for what is none."""
    siz = data[:256].find(b"\xff\x4f\xff\x51")
    if siz >= 0:  # JPEG 2000: SOC, SIZ, then Lsiz and Rsiz of two bytes each (ISO 15444-1, A.5.1)
        if len(data) < siz + 24:
            return None
        right, bottom, left, top = struct.unpack(">4I", data[siz + 8 : siz + 24])
        return bottom - top, right - left
    if data[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(data):
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD9 or marker == 0x01:  # fill byte, or a marker without a length
            place += 1 if marker == 0xFF else 2
            continue
        # SOF0 to SOF15 without DHT, JPG and DAC, and SOF55 of JPEG-LS: length, precision, rows, columns.
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            rows, columns = struct.unpack(">2H", data[place + 5 : place + 9])
            return rows, columns
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
