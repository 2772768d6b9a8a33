"""The word SYNTHETIC in the pixels of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.errors import DataError

WORD = "SYNTHETIC"
SMALLEST = 6
"""Points; the word cannot be read below."""


def burn_in(stored: NDArray[Any], *, bright_is_low: bool = False, limits: tuple[int, int] = (0, 255)) -> NDArray[Any]:
    """Return stored values with SYNTHETIC in their upper left corner, bright on a dark bar.

    Bright and dark are the extremes of the image itself, so that automatic windows stay as they were.

    Args:
        stored: (H, W) or (H, W, 3) whole numbers.
        bright_is_low: low values are shown bright.
        limits: what to take for dark and bright in a constant image.

    Raises:
        DataError: the image is too small for the word to be read.
    """
    height, width = stored.shape[:2]
    ink = _ink(height, width)
    low, high = int(stored.min()), int(stored.max())
    low, high = limits if low == high else (low, high)
    dark, bright = (high, low) if bright_is_low else (low, high)
    marked = stored.copy()
    marked[: ink.shape[0], : ink.shape[1]][~ink] = dark
    marked[: ink.shape[0], : ink.shape[1]][ink] = bright
    return marked


def _ink(height: int, width: int) -> NDArray[np.bool_]:
    """Return where the letters are, in a box of about a fifteenth of the height."""
    from PIL import Image, ImageDraw, ImageFont

    for size in range(max(height // 16, 2 * SMALLEST), SMALLEST - 1, -1):
        font = ImageFont.load_default(size)
        left, top, right, bottom = (round(edge) for edge in font.getbbox(WORD))
        box = (right - left + 4, bottom - top + 4)
        if box[0] <= width and box[1] <= height:
            picture = Image.new("L", box)
            ImageDraw.Draw(picture).text((2 - left, 2 - top), WORD, fill=255, font=font)
            return np.asarray(picture) > 127
    raise DataError(f"An image of {width} x {height} pixels has no room for the word {WORD}. Export it unmarked.")
