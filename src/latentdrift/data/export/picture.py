"""8- and 16-bit PNG and TIFF files of made images, with where they come from written inside."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.files import write_bytes
from latentdrift.data.images import write_png
from latentdrift.data.provenance.marks import marks
from latentdrift.errors import ConfigurationError, DataError

SUFFIXES = (".png", ".tif", ".tiff")
BITS = (8, 16)
KEYWORD = re.compile(r"[\x21-\x7e\xa1-\xff]([\x20-\x7e\xa1-\xff]{0,77}[\x21-\x7e\xa1-\xff])?")
TIFF_DESCRIPTION, TIFF_SOFTWARE = 270, 305


def write_picture(
    path: Path,
    unit: NDArray[np.floating[Any]],
    *,
    bits: int = 8,
    text: Mapping[str, Any] | None = None,
    synthetic: bool = False,
) -> Path:
    """Write a gray image, whole or not at all; the suffix chooses PNG or TIFF (deflate).

    `images.read_array` gives the values back to within half a level: 1 / 131070 at 16 bits.

    Args:
        path: .png, .tif or .tiff; its folder is created.
        unit: (H, W) in [0, 1]; values beyond are clipped.
        bits: 8 or 16.
        text: provenance: PNG text (iTXt), one entry a name; in TIFF, JSON in ImageDescription.
        synthetic: add the marks of `latentdrift.data.provenance.marks`: the image was made, not acquired.

    Raises:
        ConfigurationError: another suffix or number of bits, or a name of text that PNG cannot hold.
        DataError: another shape, values that are not finite, or a disk that is full or read-only.
    """
    path = Path(path)
    if bits not in BITS:
        raise ConfigurationError(f"Pictures have 8 or 16 bits, not {bits}.")
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigurationError(
            f"{path}: pictures are written as {', '.join(SUFFIXES)}. Choose one of these suffixes."
        )
    if unit.ndim != 2 or 0 in unit.shape or not np.isfinite(unit).all():
        raise DataError(f"{path}: the image has the shape {unit.shape}, not (H, W), or values that are not finite.")
    kind, top = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)
    levels = np.rint(np.clip(unit.astype(np.float64), 0, 1) * top).astype(kind)
    if path.suffix.lower() == ".png":
        for name in map(str, text or {}):
            if not KEYWORD.fullmatch(name):
                raise ConfigurationError(f"{name!r} cannot name a PNG text: use 1 to 79 letters of Latin-1.")
        write_png(path, cast("NDArray[np.uint8]", levels), text=text, synthetic=synthetic)
        return path
    write_bytes(path, _tiff(levels, marks(text) if synthetic else text or {}))
    return path


def picture_text(path: Path) -> dict[str, str]:
    """Return the provenance that `write_picture` wrote; empty where there is none.

    Raises:
        DataError: the file cannot be read.
    """
    from PIL import Image, PngImagePlugin

    try:
        with Image.open(path) as image:
            if isinstance(image, PngImagePlugin.PngImageFile):
                return {name: str(value) for name, value in image.text.items()}
            written = getattr(image, "tag_v2", {}).get(TIFF_DESCRIPTION, "")
    except Exception as error:  # Pillow's plug-ins raise anything on damaged files
        raise DataError(f"{path} cannot be read as an image: {error}. Replace or remove the file.") from error
    try:
        found = json.loads(written)
    except ValueError:
        return {}  # somebody else's description
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _tiff(levels: NDArray[Any], text: Mapping[str, Any]) -> bytes:
    from PIL import Image, TiffImagePlugin

    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if text:
        # TIFF text is ASCII: JSON escapes the rest.
        tags[TIFF_DESCRIPTION] = json.dumps({str(name): str(value) for name, value in text.items()})
    tags[TIFF_SOFTWARE] = "latentdrift"
    packed = io.BytesIO()
    Image.fromarray(levels).save(packed, format="TIFF", compression="tiff_adobe_deflate", tiffinfo=tags)
    return packed.getvalue()
