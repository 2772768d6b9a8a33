"""The colours of difference maps, and pictures that are what was asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import latentdrift
from latentdrift.errors import DataError
from latentdrift.report import (
    LatentCurve,
    counterfactual_figure,
    image_grid,
    latent_curve_figure,
    loss_curve,
    signed_difference,
)
from latentdrift.report.figures import to_pixels


def edited() -> tuple[torch.Tensor, torch.Tensor]:
    """A gray image, and one with a brighter left and a darker right patch."""
    source = torch.zeros(3, 32, 32)
    counterfactual = source.clone()
    counterfactual[:, 8:16, 4:12] += 0.5
    counterfactual[:, 8:16, 20:28] -= 0.5
    return source, counterfactual


def test_added_is_green_and_removed_is_red() -> None:
    shown = signed_difference(*edited()).astype(int)
    assert shown.shape == (32, 32, 3)
    added, removed, same = shown[10, 6], shown[10, 24], shown[28, 16]
    assert added[1] > added[0] + 100
    assert added[1] > added[2] + 80
    assert removed[0] > removed[1] + 100
    assert removed[0] > removed[2] + 100
    assert np.ptp(same) == 0
    assert same[0] == pytest.approx(0.5 * 0.75 * 255, abs=1)


def test_strength_of_colour_follows_the_change_up_to_scale() -> None:
    source = np.full((8, 8), 100, dtype=np.uint8)
    greens = [int(np.ptp(signed_difference(source, source + step, scale=0.2)[0, 0])) for step in (0, 10, 25, 51, 100)]
    assert greens[0] == 0
    assert greens[1] < greens[2] < greens[3] == greens[4]


def test_threshold_hides_the_round_trip() -> None:
    source, counterfactual = edited()
    assert np.ptp(signed_difference(source, counterfactual, threshold=0.26), axis=2).max() == 0
    noise = np.zeros((32, 32))
    noise[:, :16] = 0.3
    shown = signed_difference(source, counterfactual, threshold=noise)
    assert np.ptp(shown[:, :16], axis=2).max() == 0
    assert np.ptp(shown[10, 24]) > 100
    with pytest.raises(DataError, match="threshold map"):
        signed_difference(source, counterfactual, threshold=noise[:5])
    with pytest.raises(DataError, match="scale=0"):
        signed_difference(source, counterfactual, scale=0)


def test_forms_of_one_image_are_equal() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    unit = torch.from_numpy(levels).permute(2, 0, 1).float() / 127.5 - 1
    assert np.allclose(to_pixels(levels), to_pixels(unit), atol=1e-6)
    assert np.allclose(to_pixels(levels[..., 0])[..., 2], levels[..., 0] / 255)
    assert to_pixels(unit[:1]).shape == (12, 10, 3)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((4, 5, 6)), "shape"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.zeros((4, 4), dtype=np.int64), "int64"),
    ],
)
def test_images_that_cannot_be_shown_are_named(image: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        to_pixels(image)


def test_sizes_must_agree() -> None:
    with pytest.raises(DataError, match="Resize one"):
        signed_difference(np.zeros((4, 4)), np.zeros((5, 4)))


def test_grid_shows_every_image_in_its_place(tmp_path: Path) -> None:
    red, green, blue = (torch.full((3, 16, 16), -1.0) for _ in range(3))
    red[0], green[1], blue[2] = 1, 1, 1
    path = image_grid(tmp_path / "new" / "grid.png", [[red, green], [blue, None]])
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    height, width = picture.shape[:2]
    seen = [picture[height * r // 4, width * c // 4].tolist() for r in (1, 3) for c in (1, 3)]
    assert seen == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]
    assert [file.name for file in path.parent.iterdir()] == ["grid.png"]


def test_labels_must_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3 row labels do not fit 1 rows"):
        image_grid(tmp_path / "x.png", [[np.zeros((4, 4))]], row_labels=["a", "b", "c"])
    with pytest.raises(DataError, match="no image"):
        image_grid(tmp_path / "x.png", [])
    assert not (tmp_path / "x.png").exists()


def colours(path: Path) -> tuple[int, int]:
    """Count green and red pixels."""
    r, g, b = np.moveaxis(np.asarray(Image.open(path).convert("RGB")).astype(int), 2, 0)
    return int(((g > r + 60) & (g > b + 40)).sum()), int(((r > g + 60) & (r > b + 60)).sum())


def test_counterfactual_figure_has_maps_and_truth(tmp_path: Path) -> None:
    source, counterfactual = edited()
    without = counterfactual_figure(tmp_path / "a.png", [source], [counterfactual], row_labels=["one"])
    with_truth = counterfactual_figure(
        tmp_path / "b.png", [source], [counterfactual], [source.clamp(max=-0.4)], row_labels=["one"]
    )
    assert min(colours(without)) > 200
    assert Image.open(with_truth).width > 1.4 * Image.open(without).width
    # The truth removes everywhere.
    assert colours(with_truth)[1] > 3 * colours(without)[1]
    hidden = counterfactual_figure(tmp_path / "c.png", [source], [counterfactual], threshold=[np.full((32, 32), 0.3)])
    assert colours(hidden) == (0, 0)
    with pytest.raises(DataError, match="2 sources, 1 counterfactuals"):
        counterfactual_figure(tmp_path / "d.png", [source, source], [counterfactual])


def test_latent_curve_is_that_of_the_latents(tmp_path: Path) -> None:
    latents = torch.randn(5, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 + 1
    curve = LatentCurve.from_latents(latents, steps=[10, 8, 6, 4, 2])
    assert curve.mean == pytest.approx(latents.double().mean(dim=(1, 2, 3, 4)).numpy())
    assert curve.std == pytest.approx(latents.double().flatten(1).std(dim=1, unbiased=False).numpy())
    assert curve.spread[2] == pytest.approx(np.std([float(latents[2, i].double().mean()) for i in range(3)]))
    path = latent_curve_figure(tmp_path / "curve.png", {"no drift": curve, "drift": curve}, title="latents")
    assert Image.open(path).width > 800
    with pytest.raises(DataError, match="shape"):
        LatentCurve.from_latents(latents[0])
    with pytest.raises(DataError, match="2 steps do not fit latents of 5"):
        LatentCurve.from_latents(latents, steps=[1, 2])
    with pytest.raises(DataError, match="no curve"):
        latent_curve_figure(tmp_path / "none.png", {})


def test_loss_curve(tmp_path: Path) -> None:
    steps = list(range(100))
    values = [1 / (1 + s) for s in steps]
    path = loss_curve(
        tmp_path / "loss.png", {"training": (steps, values), "validation": ([0, 50], [1.0, 0.2])}, smooth=9
    )
    assert Image.open(path).size[0] > 500
    with pytest.raises(DataError, match="3 steps and 1 values"):
        loss_curve(tmp_path / "bad.png", {"x": ([1, 2, 3], [1.0])})
    with pytest.raises(DataError, match="no curve"):
        loss_curve(tmp_path / "bad.png", {})


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        image_grid(tmp_path / "file" / "grid.png", [[np.zeros((4, 4))]])


def test_no_global_state_is_touched() -> None:
    code = (
        "import sys, tempfile, numpy as np, latentdrift.report as report\n"
        "assert not any(m.startswith('matplotlib') for m in sys.modules)\n"
        "report.image_grid(tempfile.mkdtemp() + '/x.png', [[np.zeros((4, 4))]])\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    source = Path(latentdrift.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(source)})
