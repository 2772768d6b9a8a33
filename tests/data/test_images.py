from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentdrift.data import ImageTransform, to_array, write_png
from latentdrift.errors import DataError


def test_levels_survive_the_round_trip(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    tensor = ImageTransform(16).from_array(levels)
    np.testing.assert_array_equal(to_array(tensor, gray=True), levels)
    write_png(tmp_path / "deep/a.png", tensor, gray=True)
    with Image.open(tmp_path / "deep/a.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), levels)


def test_colour_and_text(tmp_path: Path) -> None:
    tensor = torch.stack([torch.full((4, 6), value) for value in (-1.0, 0.0, 7.0)])
    write_png(tmp_path / "a.png", tensor, text={"Prompt": "a β slice", "Seed": 3}, synthetic=True)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (6, 4)
        assert image.getpixel((0, 0)) == (0, 128, 255)
        assert image.info["Prompt"] == "a β slice"
        assert image.info["Seed"] == "3"
        assert image.info["SyntheticData"] == "YES"
    write_png(tmp_path / "b.png", tensor)
    with Image.open(tmp_path / "b.png") as image:
        assert "SyntheticData" not in image.info


@pytest.mark.parametrize("bad", [torch.zeros(2, 4, 4), torch.zeros(4, 4), torch.full((3, 4, 4), float("nan"))])
def test_what_is_no_image_is_not_written(tmp_path: Path, bad: torch.Tensor) -> None:
    with pytest.raises(DataError):
        write_png(tmp_path / "a.png", bad)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(tmp_path / "a.png", torch.zeros(1, 4, 4))
    before = (tmp_path / "a.png").read_bytes()

    def full(self: Image.Image, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match=r"a\.png cannot be written: No space left"):
        write_png(tmp_path / "a.png", torch.ones(1, 4, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before
