"""Strips and GIFs that show every frame in its place, and say that they are synthetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from latentdrift.errors import DataError
from latentdrift.report.strip import strip_figure, write_gif

LEVELS = (-1.0, -0.4, 0.2, 0.8)


def gray(level: float, side: int = 16) -> torch.Tensor:
    return torch.full((3, side, side), float(level))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB")).astype(int)


def test_strip_shows_source_frames_maps_and_real_scans(tmp_path: Path) -> None:
    frames = [gray(0.0), gray(0.5), gray(-0.5)]
    path = strip_figure(
        tmp_path / "strip.png",
        gray(0.0),
        frames,
        ["60", "70", "80"],
        real=[None, gray(1.0), None],
        facts={"model": "toy"},
    )
    with Image.open(path) as file:
        assert file.text["SyntheticData"] == "YES"
        assert file.text["model"] == "toy"
    shown = pixels(path)
    red, green, blue = np.moveaxis(shown, 2, 0)
    is_green, is_red = (green > red + 60) & (green > blue + 40), (red > green + 60) & (red > blue + 60)
    # The second frame is brighter, the third darker: green left of red, and nothing below the first.
    assert min(is_green.sum(), is_red.sum()) > 2000
    assert np.flatnonzero(is_green.any(0)).max() < np.flatnonzero(is_red.any(0)).min()
    # The real scan is white, of its frame's column and below its map.
    rows, columns = np.flatnonzero(is_green.any(1)), np.flatnonzero(is_green.any(0))
    without = pixels(strip_figure(tmp_path / "plain.png", gray(0.0), frames, ["60", "70", "80"]))
    assert shown.shape[0] > without.shape[0] + 150
    middle = int(columns.mean())
    assert shown[rows.max() + 100, middle].tolist() == [255, 255, 255]
    # The first row: the source and the first frame are one gray, the others brighter and darker.
    first = shown[rows.min() - 90]
    width = shown.shape[1]
    seen = [int(first[middle + step * (columns.max() - columns.min() + 8)][0]) for step in (-2, -1, 0, 1)]
    assert seen[0] == seen[1]
    assert seen[2] > seen[1] > seen[3]
    assert width > 4 * 150


def test_round_trip_is_not_shown_as_a_change(tmp_path: Path) -> None:
    path = strip_figure(tmp_path / "s.png", gray(0.0), [gray(0.2)], ["a"], threshold=np.full((16, 16), 0.2))
    assert np.ptp(pixels(path), axis=2).max() < 12


def test_strip_needs_one_of_each_a_frame(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 frames, 1 labels and no real images"):
        strip_figure(tmp_path / "s.png", gray(0), [gray(0), gray(1)], ["a"])
    with pytest.raises(DataError, match="1 frames, 1 labels and 2 real"):
        strip_figure(tmp_path / "s.png", gray(0), [gray(0)], ["a"], real=[None, None])
    assert not (tmp_path / "s.png").exists()


def test_gif_goes_there_and_back_and_is_marked(tmp_path: Path) -> None:
    path = write_gif(tmp_path / "l.gif", [gray(level) for level in LEVELS], milliseconds=300, facts={"axis": "äge"})
    with Image.open(path) as file:
        told = json.loads(file.info["comment"])
        assert told["axis"] == "äge"
        assert told["SyntheticData"] == "YES"
        assert told["Disclaimer"] == "Synthetic, not for diagnosis."
        assert file.info["loop"] == 0
        frames = [np.asarray(frame.convert("L"))[128, 128] for frame in ImageSequence.Iterator(file)]
        assert file.info["duration"] == 300
        assert file.size == (256, 256)
    expected = [round((level + 1) * 127.5) for level in (*LEVELS, LEVELS[2], LEVELS[1])]
    assert [int(level) for level in frames] == pytest.approx(expected, abs=1)
    assert [file.name for file in tmp_path.iterdir()] == ["l.gif"]


def test_gif_keeps_all_levels_of_gray(tmp_path: Path) -> None:
    ramp = torch.linspace(-1, 1, 256).expand(3, 256, 256)
    path = write_gif(tmp_path / "ramp.gif", [ramp, -ramp])
    with Image.open(path) as file:
        assert np.abs(np.asarray(file.convert("L")).astype(int)[0] - np.arange(256)).max() <= 1


def test_labels_stand_below_the_frames(tmp_path: Path) -> None:
    path = write_gif(tmp_path / "l.gif", [gray(-1), gray(-1)], ["age 60", "age 90"])
    with Image.open(path) as file:
        first = np.asarray(file.convert("L")).astype(int)
        file.seek(1)
        second = np.asarray(file.convert("L")).astype(int)
    assert first[:256].max() == 0
    assert first[256:].max() > 150
    assert (first[256:] != second[256:]).any()


@pytest.mark.parametrize(
    ("frames", "labels", "milliseconds", "says"),
    [
        ([], [], 400, "0 frames"),
        ([gray(0)], ["a", "b"], 400, "2 labels"),
        ([gray(0), gray(0, 8)], [], 400, "one size"),
        ([gray(0)], [], 5, "20 ms"),
    ],
)
def test_gifs_that_cannot_be(
    tmp_path: Path, frames: list[torch.Tensor], labels: list[str], milliseconds: int, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        write_gif(tmp_path / "x.gif", frames, labels, milliseconds=milliseconds)
    assert not list(tmp_path.iterdir())
