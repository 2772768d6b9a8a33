"""Saving matplotlib figures without its global state: whole files, and nothing left behind when the disk is full."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.data.files import replacing
from latentdrift.data.provenance.marks import marks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: Figure, path: str | Path, dpi: int = 120, synthetic: Mapping[str, Any] | None = None) -> Path:
    """Write a figure as PNG and return its path; with `synthetic`, facts that may be none, marked as synthetic.

    Raises:
        DataError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with replacing(path) as part:
        metadata = None if synthetic is None else marks(synthetic)
        figure.savefig(part, format="png", dpi=dpi, facecolor="white", metadata=metadata)
    return Path(path)
