"""Saving matplotlib figures without its global state: whole files, and nothing left behind when the disk is full."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from latentdrift.data.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: Figure, path: str | Path, dpi: int = 120) -> Path:
    """Write a figure as PNG and return its path.

    Raises:
        DataError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=dpi, facecolor="white")
    return Path(path)
