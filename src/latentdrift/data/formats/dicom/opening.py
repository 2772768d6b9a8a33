"""Opening DICOM files that may be damaged or hostile: sizes are checked before anything is read or inflated."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_FILE_BYTES = 2**31
"""Larger files are refused before they are read."""

MAX_INFLATED_BYTES = 2**28
"""A deflated file may not become larger than this; deflate can make a thousandfold of nothing."""

PREAMBLE_BYTES = 128
DEFLATED = "1.2.840.10008.1.2.1.99"
_BARE_STARTS = (b"\x08\x00", b"\x00\x08", b"\x02\x00")
"""Group numbers 0008 (either byte order) and 0002: what a file without its preamble starts with."""


def has_preamble(path: Path) -> bool:
    """Tell whether a file has DICOM's mark. Files that cannot be read raise OSError."""
    with path.open("rb") as file:
        return file.read(PREAMBLE_BYTES + 4)[PREAMBLE_BYTES:] == b"DICM"


def open_dicom(path: Path, *, pixels: bool = True, keywords: Sequence[str] | None = None) -> Dataset:
    """Return the data set in a file, with its transfer syntax in `file_meta`.

    Files without preamble are read too, as old archives hold them, if they begin with a data element of group 0008.

    Args:
        path: the file.
        pixels: read on to the pixel data; otherwise stop before it.
        keywords: only these attributes, by keyword.

    Raises:
        DataError: no such file, no DICOM, damaged, or too large.
    """
    from pydicom import dcmread
    from pydicom.uid import UID

    try:
        bare = _check_file(path)
        meta = None if bare else _deflated_meta(path)
        source: Any = path if meta is None else BytesIO(_inflate(path, meta))
        # pydicom takes a list of tags it can change; the transfer syntax is read whatever the list.
        wanted = None if keywords is None else list(keywords)
        found = dcmread(source, stop_before_pixels=not pixels, specific_tags=wanted, force=bare or meta is not None)
        if meta is not None:
            found.file_meta = meta
        if "TransferSyntaxUID" not in found.file_meta:
            found.file_meta.TransferSyntaxUID = UID(_guessed_syntax(found))
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Replace or remove the file.") from error
    except Exception as error:  # pydicom raises anything on damaged files: struct.error, KeyError, RecursionError
        deep = isinstance(error, RecursionError)
        said = "sequences inside sequences without end" if deep else " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} is a damaged DICOM file ({said or 'no reason given'}). Replace or remove it."
        ) from error
    return found


def _check_file(path: Path) -> bool:
    """Check size and beginning; return whether the preamble is missing."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise DataError(f"{path} has {size:,} bytes, more than {MAX_FILE_BYTES:,}. Split it into single-frame files.")
    if has_preamble(path):
        return False
    with path.open("rb") as file:
        start = file.read(4)
    if len(start) < 4 or start[:2] not in _BARE_STARTS:
        raise DataError(f"{path} is no DICOM file: it has no DICM at byte 128. Remove it or give its true format.")
    return True


def _deflated_meta(path: Path) -> Any:
    """Return the file meta information of a deflated file, None for every other."""
    from pydicom.filereader import read_file_meta_info

    meta = read_file_meta_info(path)
    return meta if str(meta.get("TransferSyntaxUID", "")).strip() == DEFLATED else None


def _inflate(path: Path, meta: Any) -> bytes:
    """Return the data set of a deflated file; pydicom itself would inflate without a bound."""
    length = meta.get("FileMetaInformationGroupLength")
    if length is None:
        raise DataError(f"{path} is deflated and does not say where its data start. Convert it with dcmconv.")
    with path.open("rb") as file:
        # The group length counts from behind its own element: 128 + 4 bytes of mark, 12 of the element.
        file.seek(PREAMBLE_BYTES + 4 + 12 + int(length))
        packed = file.read()
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(packed, MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise DataError(f"{path} inflates to more than {MAX_INFLATED_BYTES:,} bytes: taken for a decompression bomb.")
    if not inflater.eof:
        raise DataError(f"{path} is cut short: its deflated data have no end. Replace or remove the file.")
    return data


def _guessed_syntax(found: Dataset) -> str:
    """Return the transfer syntax that pydicom found a file without one to have."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = found.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little else ExplicitVRBigEndian)
