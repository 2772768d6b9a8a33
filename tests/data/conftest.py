from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Write a small gray gradient, different for each `level`."""

    def write(path: Path, level: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (np.arange(size[0] * size[1]).reshape(size[1], size[0]) + level) % 256
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def table(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., Path]:
    """Write a folder with metadata.csv from its lines, and every image of its first column."""

    def write(lines: Sequence[str], images: bool = True) -> Path:
        (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for number, line in enumerate(lines[1:] if images else []):
            write_image(tmp_path / line.split(",")[0], number)
        return tmp_path

    return write
