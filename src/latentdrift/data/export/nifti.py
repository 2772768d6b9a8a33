"""An edited slice back in its NIfTI volume: the header, the affine and every other voxel as they were, bit for bit."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.export.residual import apply_change
from latentdrift.data.formats.nifti import CHUNK, check_frame, fill, skip
from latentdrift.data.formats.nifti_header import MAX_EXTENSIONS, Layout, is_nifti, open_bytes, read_layout
from latentdrift.data.provenance.marks import SYNTHETIC_MARKER, marks
from latentdrift.data.volumes.cut import Cut
from latentdrift.errors import ConfigurationError, DataError

COMMENT = 6
"""NIfTI's extension code for plain text."""

DESCRIPTION = "SYNTHETIC: edited by latentdrift; see the comment extension"
FREE_TEXT = ("db_name", "aux_file")
SUFFIXES = (".nii", ".nii.gz", ".img", ".img.gz")


def write_nifti_edit(
    source: Path,
    out: Path,
    cut: Cut,
    change: NDArray[np.floating[Any]],
    *,
    frame: int = 0,
    description: Mapping[str, Any],
    low: float | None = None,
    high: float | None = None,
    keep_text: bool = False,
) -> Path:
    """Write a copy of a NIfTI file in which one slice has changed, whole or not at all.

    The data type, scaling, affine and all other entries of the header stay. Its description says SYNTHETIC, and a
    comment extension (code 6) holds `description` as JSON with SyntheticData: YES. Voxels where the change is 0 keep
    their bits. The same input gives the same bytes.

    Args:
        source: the scan: NIfTI-1 or -2, .nii, .nii.gz, or a .hdr/.img pair.
        out: another file: .nii, .nii.gz or .img (.hdr goes beside it), each with .gz if wanted.
        cut: which slice.
        change: (H, W) in real units, as the slice is looked at.
        frame: which volume of a 4-D file.
        description: where the edit comes from; JSON values.
        low: real value below which no change leads.
        high: real value above which no change leads.
        keep_text: keep the source's free text (database name, auxiliary file, name of no intent, extensions, what
            stands after the voxels). It may name the patient, and is dropped otherwise.

    Raises:
        ConfigurationError: `out` is the source, or of another format.
        DataError: a source that is damaged or no NIfTI file, a slice that it does not have, a change of another shape,
            a description that is no JSON, or a disk that is full.
    """
    source, out = Path(source), Path(out)
    stem, suffix = _split(out)
    pair = suffix.startswith(".img")
    targets = [out.with_name(stem + suffix.replace("img", "hdr")), out] if pair else [out]
    if not is_nifti(source):
        raise DataError(f"{source} is Analyze or MGH, which an edit is not written to. Convert it to NIfTI first.")
    layout = read_layout(source)
    originals = {layout.header_file.resolve(), layout.image_file.resolve()}
    if originals & {target.resolve() for target in targets}:
        raise ConfigurationError(f"{out} is the scan itself, which is never changed. Choose another file.")
    check_frame(source, frame, layout.frames)
    extensions = (_extensions(layout) if keep_text else b"") + _extension(layout, COMMENT, _comment(description))
    header = _header(layout, pair, len(extensions), keep_text)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _replaced(targets) as files, open_bytes(layout.image_file) as voxels:
            files[0].write(header + bytes([1, 0, 0, 0]) + extensions)
            skip(voxels, layout.image_file, layout.offset)
            _copy(voxels, files[-1], layout.image_file, frame * layout.frame_bytes)
            values = np.empty(layout.frame_bytes, np.uint8)
            fill(voxels, layout.image_file, values)
            stored = values.view(layout.dtype).reshape(layout.shape, order="F")
            place = cut.take(stored)
            cut.put(stored, apply_change(place, change, layout.slope, layout.intercept, low, high))
            files[-1].write(values.data)
            _copy(voxels, files[-1], layout.image_file, (layout.frames - 1 - frame) * layout.frame_bytes)
            # Some programs put text after the voxels. It is read in any case: a damaged file may show there.
            _copy(voxels, files[-1] if keep_text else None, layout.image_file, None)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{source} is damaged: {error}. Copy it again.") from error
    except OSError as error:
        raise DataError(
            f"{out} cannot be written, or {source} not read: {error.strerror or error}. Free space or choose another "
            "folder."
        ) from error
    return out


def _split(out: Path) -> tuple[str, str]:
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if out.name.lower().endswith(suffix) and len(out.name) > len(suffix):
            return out.name[: -len(suffix)], suffix
    raise ConfigurationError(f"{out}: volumes are written as {', '.join(SUFFIXES)}. Choose one of these suffixes.")


def _comment(description: Mapping[str, Any]) -> bytes:
    try:
        found = {**marks(), **description, **dict([SYNTHETIC_MARKER])}
        return json.dumps(found, sort_keys=True, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise DataError(f"The description of the edit is no JSON: {error}.") from error


def _extension(layout: Layout, code: int, content: bytes) -> bytes:
    size = -(-(len(content) + 8) // 16) * 16
    return np.array([size, code], layout.header.endianness + "i4").tobytes() + content.ljust(size - 8, b"\0")


def _extensions(layout: Layout) -> bytes:
    """Return the source's extensions, as they are.

    Raises:
        DataError: they do not end where they say.
    """
    length = 348 if layout.version == 1 else 540
    with open_bytes(layout.header_file) as file:
        flags = file.read(length + 4)[length:]
        if len(flags) < 4 or flags[0] == 0:
            return b""
        single = layout.header_file == layout.image_file
        block = file.read(layout.offset - length - 4 if single else MAX_EXTENSIONS)
    end = 0
    while end + 16 <= len(block):
        size = int(np.frombuffer(block, layout.header.endianness + "i4", 1, end)[0])
        if size == 0:
            break  # padding
        if size < 16 or size % 16 or end + size > len(block):
            raise DataError(f"{layout.header_file}: an extension of the header is damaged. Leave out keep_text.")
        end += size
    return block[:end]


def _header(layout: Layout, pair: bool, extended: int, keep_text: bool) -> bytes:
    """Return the header's bytes: the source's but for the description, free text, magic and offset."""
    header = layout.header.copy()
    header["descrip"] = DESCRIPTION.encode()
    free = [name for name in FREE_TEXT if name in header.structarr.dtype.names]
    for name in [] if keep_text else free:
        header[name] = b""
    if not keep_text and int(header["intent_code"]) == 0:
        header["intent_name"] = b""
    header["magic"] = (b"ni%d" if pair else b"n+%d") % layout.version
    header["vox_offset"] = 0 if pair else (352 if layout.version == 1 else 544) + extended
    return bytes(header.structarr.tobytes())


def _copy(source: Any, target: BinaryIO | None, path: Path, count: int | None) -> None:
    """Copy `count` bytes, or all that are left; without a target they are only read."""
    while count is None or count:
        block = source.read(CHUNK if count is None else min(count, CHUNK))
        if not block:
            if count is None:
                return
            raise DataError(f"{path} is cut short: {count:,} bytes are missing. Copy it again.")
        if target is not None:
            target.write(block)
        count = None if count is None else count - len(block)


@contextmanager
def _replaced(targets: list[Path]) -> Iterator[list[BinaryIO]]:
    """Open temporary files, compressed where the name says so; they take their names when all went well."""
    partial = [target.with_name(f".{target.name}.{os.getpid()}.partial") for target in targets]
    try:
        with ExitStack() as stack:
            files: list[BinaryIO] = []
            for path, target in zip(partial, targets, strict=True):
                file: Any = stack.enter_context(path.open("wb"))
                if target.name.lower().endswith(".gz"):
                    # Neither a name nor a time inside: the same content gives the same file.
                    file = stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0))
                files.append(file)
            yield files
        for path, target in zip(partial, targets, strict=True):
            os.replace(path, target)
    finally:
        for path in partial:
            with suppress(OSError):
                path.unlink()
