"""Saving matplotlib figures without its global state: whole files, and nothing left behind when the disk is full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from latentdrift.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, and give it the real name when the block ends well.

    Raises:
        DataError: the file cannot be written.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(target)
    except OSError as error:
        raise DataError(f"{target} cannot be written ({error}). Free space, or choose another folder.") from error
    finally:
        with suppress(OSError):
            part.unlink()


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
