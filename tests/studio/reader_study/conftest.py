"""Cohorts of disks: real ones of 24 pixels, synthetic ones of 32 that say so in their text."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from latentdrift.data import Cohort
from latentdrift.studio.reader_study.build import BuildConfig, Built, build_study

Maker = Callable[..., Path]


def write_disks(folder: Path, size: int, seed: int, *, text: bool = False, colour: bool = False) -> Path:
    """Twelve images of six subjects, in two stages."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size * 2 - 1
    rows = []
    for index in range(12):
        stage = ("NonDemented", "MildDemented")[index % 2]
        pixels = (
            150 * (np.hypot(x, y) < 0.8) - 80 * (np.hypot(x, y) < 0.2 + 0.2 * (index % 2)) + draw.normal(20, 5, x.shape)
        )
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        if colour:
            image = Image.merge("RGB", [image, image.point(lambda level: level // 2), image])
        info = PngInfo()
        if text:
            info.add_text("SyntheticData", "YES")
        image.save(folder / f"{index:02d}.png", pnginfo=info)
        rows.append([f"{index:02d}.png", f"s{index // 2}", stage])
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "subject", "stage"], *rows])
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of real images, and of two sets of synthetic ones."""
    root = tmp_path_factory.mktemp("cohorts")
    return {
        "real": write_disks(root / "real", 24, 0),
        "plain": write_disks(root / "plain", 32, 1, text=True),
        "drifted": write_disks(root / "drifted", 32, 2, text=True),
        "colour": write_disks(root / "colour", 24, 3, colour=True),
    }


@pytest.fixture(scope="session")
def cohorts(folders: dict[str, Path]) -> dict[str, Cohort]:
    return {name: Cohort.open(folder) for name, folder in folders.items()}


@pytest.fixture
def built(tmp_path: Path, cohorts: dict[str, Cohort]) -> Built:
    """A study of eight images for two readers; each sees one of them twice."""
    arms = {name: cohorts[name] for name in ("plain", "drifted")}
    config = BuildConfig(count=8, readers=2, repeats=1, attribute="stage")
    return build_study(tmp_path / "study", cohorts["real"], arms, config)
