"""Reading and writing image files: every failure names the file, and nothing half-written is left behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.files import replacing
from latentdrift.data.provenance.marks import SYNTHETIC_MARKER as SYNTHETIC_MARKER
from latentdrift.data.provenance.marks import marks
from latentdrift.errors import DataError

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 80_000_000
"""Larger images are refused as decompression bombs, before they are decoded."""

GRAY_TOLERANCE = 4
"""Levels of 255 by which channels of a gray photograph stored as colour may differ (JPEG rounding)."""

ROWS_AT_ONCE = 256
"""Rows that are looked at together, so that a large image is not in memory several times."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
"""Pillow's readers that are asked. Others start programs (PostScript would run in Ghostscript) or are not needed."""

SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"RIFF": "WebP",
}


def check_image(path: Path) -> str | None:
    """Return why the file is not a usable image, or None. Reads headers (and PNG checksums), not the pixels."""
    from PIL import Image

    try:
        if not path.is_file():
            return "there is no such file"
        if path.stat().st_size == 0:
            return "the file is empty"
        with Image.open(path, formats=FORMATS) as image:
            _check_size(image.size)
            image.verify()
    except (
        Exception
    ) as error:  # Pillow's plug-ins raise anything on damaged files: struct.error, KeyError, SyntaxError.
        return _reason(path, error)
    return None


def read_array(path: Path) -> NDArray[np.float32]:
    """Return the pixels, float32 in [0, 1]: (H, W) for a grayscale file, (H, W, 3) for colour, upright after EXIF.

    Transparency is laid on black. 16-bit files are divided by 65535, floating-point files are taken as they are when
    within [0, 1] and divided by 255 when within [0, 255].

    Raises:
        DataError: the file is missing, damaged, too large, or holds values without a defined range.
    """
    from PIL import Image, ImageOps

    try:
        if not path.is_file():  # opening a pipe would wait for somebody to write into it
            raise DataError("there is no such file")
        with Image.open(path, formats=FORMATS) as file:
            _check_size(file.size)
            _check_strips(file)
            file.load()
            image = ImageOps.exif_transpose(file)
            if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
                gray = image.mode in ("L", "LA", "La")
                clear = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear)
                image = image.convert("L" if gray else "RGB")
            if image.mode == "1":
                image = image.convert("L")
            if image.mode not in ("L", "RGB", "F", "I") and not image.mode.startswith("I;16"):
                image = image.convert("RGB")
            pixels = np.asarray(image)
            mode = image.mode
    except Exception as error:  # as above
        raise DataError(
            f"{path} cannot be read as an image: {_reason(path, error)}. Replace or remove the file."
        ) from error
    if mode in ("L", "RGB"):
        return np.divide(pixels, np.float32(255), dtype=np.float32)
    return _to_unit(path, pixels)


def is_gray(path: Path) -> bool:
    """Tell whether an image has no colour, in a grayscale file or in a colour file with equal channels."""
    return not has_colour(read_array(path))


def has_colour(pixels: NDArray[np.float32]) -> bool:
    """Tell whether the channels of pixels (H, W) or (H, W, 3) in [0, 1] differ by more than JPEG rounding."""
    if pixels.ndim == 2:
        return False
    for start in range(0, len(pixels), ROWS_AT_ONCE):
        # Channel by channel: reductions over an axis of three take ten times as long.
        red, green, blue = np.moveaxis(pixels[start : start + ROWS_AT_ONCE], 2, 0)
        spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
        if spread.max() * 255 > GRAY_TOLERANCE:
            return True
    return False


def to_array(image: torch.Tensor, *, gray: bool = False) -> NDArray[np.uint8]:
    """Return a (3 | 1, H, W) tensor in [-1, 1] as uint8: (H, W) if `gray` or of one channel, else (H, W, 3).

    Values outside [-1, 1] are clipped; `gray` averages the channels.

    Raises:
        DataError: another shape, or values that are not finite.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise DataError(f"An image to save has the shape (3, H, W) or (1, H, W), not {tuple(image.shape)}.")
    pixels = image.detach().float().cpu().numpy()
    if not np.isfinite(pixels).all():
        raise DataError("The image to save holds NaN or infinite values. The model or its settings diverged.")
    pixels = pixels.mean(0) if gray or pixels.shape[0] == 1 else pixels.transpose(1, 2, 0)
    levels: NDArray[np.uint8] = np.rint(np.clip(pixels * 127.5 + 127.5, 0, 255)).astype(np.uint8)
    return levels


def write_png(
    path: Path,
    image: torch.Tensor | NDArray[np.uint8],
    *,
    gray: bool = False,
    text: Mapping[str, Any] | None = None,
    synthetic: bool = False,
) -> None:
    """Write a tensor (see `to_array`) or a uint8 array as PNG, whole or not at all.

    Args:
        path: the file; its folder is created.
        image: (3 | 1, H, W) tensor in [-1, 1], or uint8 (H, W) or (H, W, 3).
        gray: store one channel.
        text: metadata, written as PNG text.
        synthetic: mark the file as made, not acquired; see `latentdrift.data.provenance.marks`.

    Raises:
        DataError: an image that cannot be stored, or a disk that is full or read-only.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    pixels = image if isinstance(image, np.ndarray) else to_array(image, gray=gray)
    info = PngInfo()
    for name, value in (marks(text) if synthetic else text or {}).items():
        info.add_itxt(str(name), str(value))
    with replacing(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG", pnginfo=info)


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"{size[0]} x {size[1]} pixels, more than {MAX_PIXELS:,}: taken for a decompression bomb")


def _check_strips(file: Any) -> None:
    """Refuse a TIFF file whose strips end before its last row: Pillow would leave the rest black."""
    if file.format == "TIFF" and file.tile:
        right, bottom = (max(tile[1][end] for tile in file.tile) for end in (2, 3))
        if right * bottom < file.width * file.height:  # areas: turned by its orientation, width and height are swapped
            raise DataError(f"its data are for {right} x {bottom} pixels, its header says {file.width} x {file.height}")


def _reason(path: Path, error: Exception) -> str:
    """Return in plain words, without a full stop, what Pillow failed at."""
    from PIL import Image, UnidentifiedImageError

    said = " ".join(str(error).split()).rstrip(".")[:200]
    if isinstance(error, UnidentifiedImageError):
        with path.open("rb") as file:
            start = file.read(4)
        begun = next((name for mark, name in SIGNATURES.items() if start.startswith(mark)), None)
        return f"it begins as {begun}, but its header is damaged" if begun else "no known image format"
    if isinstance(error, Image.DecompressionBombError | MemoryError):
        return f"it claims more than {MAX_PIXELS:,} pixels: taken for a decompression bomb"
    if "MAX_TEXT" in said:
        return "its text or colour profile expands too far: taken for a decompression bomb"
    if isinstance(error, DataError):
        return said
    if isinstance(error, OSError) and not said.startswith("decoder error"):
        return error.strerror or said
    return f"its data are damaged ({said})" if said else "its data are damaged"


def _to_unit(path: Path, pixels: NDArray[Any]) -> NDArray[np.float32]:
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"{path} holds NaN or infinite pixels. Replace or remove the file.")
    low, high = float(values.min()), float(values.max())
    scale = 65535.0
    if np.issubdtype(pixels.dtype, np.floating):
        scale = 1.0 if high <= 1 else 255.0
    if low < 0 or high > scale:
        raise DataError(f"{path} has pixels from {low:g} to {high:g}; scale them to 0 to {scale:g} first.")
    return values / np.float32(scale)
