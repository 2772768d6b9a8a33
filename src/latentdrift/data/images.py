"""Reading and writing image files: every failure names the file, and nothing half-written is left behind."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.errors import DataError

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 80_000_000
"""Larger images are refused as decompression bombs, before they are decoded."""

GRAY_TOLERANCE = 4
"""Levels of 255 by which channels of a gray photograph stored as colour may differ (JPEG rounding)."""

SYNTHETIC_MARKER = ("SyntheticData", "YES")
"""PNG text of a made image, after the DICOM attribute of the same name (0008,001C)."""


def check_image(path: Path) -> str | None:
    """Return why the file is not a usable image, or None. Reads headers (and PNG checksums), not the pixels."""
    from PIL import Image

    try:
        if not path.is_file():
            return "there is no such file"
        if path.stat().st_size == 0:
            return "the file is empty"
        with Image.open(path) as image:
            _check_size(image.size)
            image.verify()
    except (
        Exception
    ) as error:  # Pillow's plug-ins raise anything on damaged files: struct.error, KeyError, SyntaxError.
        return _reason(error)
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
        with Image.open(path) as file:
            _check_size(file.size)
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
        raise DataError(f"{path} cannot be read as an image: {_reason(error)}. Replace or remove the file.") from error
    if mode in ("L", "RGB"):
        return pixels.astype(np.float32) / np.float32(255)
    return _to_unit(path, pixels)


def is_gray(path: Path) -> bool:
    """Tell whether an image has no colour, in a grayscale file or in a colour file with equal channels."""
    pixels = read_array(path)
    return pixels.ndim == 2 or bool(np.ptp(pixels, axis=2).max() * 255 <= GRAY_TOLERANCE)


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
        synthetic: mark the file as made, not acquired.

    Raises:
        DataError: an image that cannot be stored, or a disk that is full or read-only.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    pixels = image if isinstance(image, np.ndarray) else to_array(image, gray=gray)
    info = PngInfo()
    for name, value in {**(text or {}), **(dict([SYNTHETIC_MARKER]) if synthetic else {})}.items():
        info.add_itxt(str(name), str(value))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(partial, format="PNG", pnginfo=info)
        os.replace(partial, path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}. Free space or choose another folder."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"{size[0]} x {size[1]} pixels, more than {MAX_PIXELS:,}: taken for a decompression bomb")


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "no known image format"
    return f"{type(error).__name__}: {error}" if not isinstance(error, DataError | OSError) else str(error)


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
