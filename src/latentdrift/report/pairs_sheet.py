"""Pairs of images that are suspiciously alike, side by side with their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentdrift.errors import DataError
from latentdrift.report.figures import image_grid, signed_difference

SCALE = 0.25
"""Difference, as a fraction of the full range, at which a colour is full; one for all sheets, so that they compare."""


@dataclass(frozen=True)
class LikePair:
    """Two images of one size."""

    first: Any
    """See `latentdrift.report.figures.to_pixels`."""
    second: Any
    label: str = ""
    """What stands left of them; lines separated by a line break."""


def pairs_sheet(
    path: str | Path, pairs: Sequence[LikePair], *, names: tuple[str, str] = ("synthetic", "training"), title: str = ""
) -> Path:
    """Write one row a pair: first, second, and what the first has more (green) and less (red); return the file.

    Args:
        path: PNG file to write.
        pairs: in order.
        names: what the two are called.
        title: above everything.

    Raises:
        DataError: no pair, images of different size, or a file that cannot be written.
    """
    if not pairs:
        raise DataError(f"There is no pair to draw in {path}.")
    rows = [[pair.first, pair.second, signed_difference(pair.second, pair.first, scale=SCALE)] for pair in pairs]
    note = f"green: {names[0]} brighter, red: darker; full colour at {SCALE:.0%} of the range of gray"
    labels = [pair.label for pair in pairs] if any(pair.label for pair in pairs) else ()
    return image_grid(path, rows, row_labels=labels, column_labels=[*names, "difference"], title=title, note=note)
