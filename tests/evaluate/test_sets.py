"""Whole evaluations, on a small made-up extractor where the network does not matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentdrift.errors import EvaluationError, UnknownNameError
from latentdrift.evaluate import corner_background, evaluate_sets, frechet_distance, kernel_distance, tint
from latentdrift.evaluate.features import FeatureExtractor


class Pooled(FeatureExtractor):
    """Channel means of a 2 x 2 grid: enough to see what goes in."""

    name = "pooled"
    dim = 12

    @classmethod
    def available(cls) -> bool:
        return True

    def _load(self, weights: Path | None) -> torch.nn.Module:
        return torch.nn.AdaptiveAvgPool2d(2)

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.float() / 255).flatten(1)


@pytest.fixture
def pooled() -> Pooled:
    return Pooled()


def images(count: int, seed: int, size: int = 32, brightness: int = 100) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, brightness, (count, 3, 4, 4), generator=draw).float()
    return torch.nn.functional.interpolate(coarse, size=(size, size)).to(torch.uint8)


def write(folder: Path, pixels: torch.Tensor) -> Path:
    folder.mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:03}.png")
    return folder


def test_figures_are_those_of_the_features(pooled: Pooled) -> None:
    real, synthetic = images(40, 1), images(30, 2, brightness=160)
    done: list[tuple[int, int]] = []
    result = evaluate_sets(real, synthetic, pooled, batch_size=16, progress=lambda a, b: done.append((a, b)))
    a, b = pooled(real), pooled(synthetic)
    assert result.fid == pytest.approx(frechet_distance(a, b))
    assert (result.kid, result.kid_std) == pytest.approx(kernel_distance(a, b, subset_size=15))
    assert result.fid_interval is not None
    assert result.kid_interval is not None
    assert result.fid_interval.low < result.fid < result.fid_interval.high
    assert result.kid_interval.low < result.kid < result.kid_interval.high
    assert (result.n_real, result.n_synthetic, result.feature_dim, result.extractor) == (40, 30, 12, "pooled")
    assert result.image_size == (32, 32)
    assert result.background_synthetic == pytest.approx(corner_background(synthetic), abs=1e-4)
    assert result.tint_real == tint(real)
    assert result.warnings == []
    assert done == [(16, 70), (32, 70), (40, 70), (56, 70), (70, 70)]
    assert evaluate_sets(real, synthetic, pooled) == result


def test_result_as_json(pooled: Pooled, tmp_path: Path) -> None:
    result = evaluate_sets(images(14, 1), images(14, 2), pooled, resamples=0)
    path = tmp_path / "new" / "result.json"
    assert result.to_json(path) == path.read_text()
    read = json.loads(path.read_text())
    assert read["fid"] == result.fid
    assert read["fid_interval"] is None
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(EvaluationError, match="cannot be written"):
        result.to_json(path / "below a file.json")
    assert "Fréchet distance (pooled)" in {row["figure"] for row in result.rows()}


def test_default_names_the_extractor_it_took(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    result = evaluate_sets(images(4, 1), images(4, 2), resamples=0)
    assert result.extractor == "efficientnet-lite0"
    assert any("4 images for 1280 feature dimensions" in text for text in result.warnings)
    with pytest.raises(UnknownNameError):
        evaluate_sets(images(4, 1), images(4, 2), "inceptoin")


def test_copies_are_named(pooled: Pooled) -> None:
    real, synthetic = images(20, 1), images(20, 2)
    synthetic[5] = real[7]
    synthetic[9] = synthetic[8]
    warnings = evaluate_sets(real, synthetic, pooled, resamples=0).warnings
    assert len(warnings) == 2
    assert "1 synthetic image(s) are exact copies of real ones: image 5 = image 7" in warnings[0]
    assert warnings[1].startswith("1 of the 20 synthetic images repeat")


@pytest.mark.parametrize(
    ("real", "synthetic", "says"),
    [
        (images(1, 1), images(5, 2), "real set has 1 image"),
        (images(5, 1), [], "synthetic set has 0 image"),
        (images(5, 1), images(5, 2, size=16), "real 32 x 32, synthetic 16 x 16"),
        (images(5, 1), torch.full((5, 3, 32, 32), float("nan")), "synthetic set: 5 image.s. have NaN"),
        (images(5, 1), torch.rand(5, 3, 32, 32) * 255, "synthetic set: Pixels lie in"),
        ([torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)], images(5, 1), "real images have different shapes"),
        ("no such folder", images(5, 1), "no folder no such folder"),
    ],
)
def test_bad_sets_are_named(real: Any, synthetic: Any, says: str, pooled: Pooled) -> None:
    with pytest.raises(EvaluationError, match=says):
        evaluate_sets(real, synthetic, pooled)


def test_folders_equal_arrays(pooled: Pooled, tmp_path: Path) -> None:
    real, synthetic = images(14, 1), images(13, 2)
    folders = write(tmp_path / "a", real), write(tmp_path / "b", synthetic)
    wanted = evaluate_sets(real, synthetic, pooled)
    assert evaluate_sets(*folders, pooled) == wanted
    assert evaluate_sets(str(folders[0]), sorted(folders[1].iterdir()), pooled) == wanted
    assert evaluate_sets(folders[0], synthetic, pooled) == wanted


def test_folder_with_a_table_stands_for_the_table(pooled: Pooled, tmp_path: Path) -> None:
    from latentdrift.data import Cohort

    real, synthetic = images(14, 1), images(13, 2)
    folder = write(tmp_path / "a", real)
    (folder / "metadata.csv").write_text("file_name,age\n" + "".join(f"{i:03}.png,{i}\n" for i in range(12)))
    wanted = evaluate_sets(real[:12], synthetic, pooled)
    assert evaluate_sets(folder, synthetic, pooled) == wanted
    assert evaluate_sets(Cohort.open(folder), synthetic, pooled) == wanted


def test_size_is_the_remedy_for_files_of_different_sizes(pooled: Pooled, tmp_path: Path) -> None:
    real, synthetic = write(tmp_path / "a", images(13, 1, size=48)), write(tmp_path / "b", images(13, 2))
    with pytest.raises(EvaluationError, match="Give size"):
        evaluate_sets(real, synthetic, pooled)
    assert evaluate_sets(real, synthetic, pooled, size=32, resamples=0).image_size == (32, 32)
    with pytest.raises(EvaluationError, match="in memory are 32 x 32, not 16 x 16"):
        evaluate_sets(real, images(13, 2), pooled, size=16)


def test_oblong_files_are_compared_as_they_are(pooled: Pooled, tmp_path: Path) -> None:
    real, synthetic = images(13, 1)[..., :24], images(13, 2)[..., :24]
    wanted = evaluate_sets(real, synthetic, pooled)
    assert wanted.image_size == (24, 32)
    assert evaluate_sets(write(tmp_path / "a", real), write(tmp_path / "b", synthetic), pooled) == wanted


def test_empty_and_broken_folders(pooled: Pooled, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match="no images below"):
        evaluate_sets(tmp_path / "empty", images(5, 1), pooled)
    (tmp_path / "empty" / "broken.png").write_bytes(b"no image")
    with pytest.raises(EvaluationError, match="broken.png of the real set cannot be read"):
        evaluate_sets(tmp_path / "empty", images(5, 1), pooled)


def test_background_is_the_mean_of_the_corners() -> None:
    picture = np.full((2, 1, 64, 64), 200, dtype=np.uint8)
    for rows in (slice(0, 4), slice(60, 64)):
        for columns in (slice(0, 4), slice(60, 64)):
            picture[:, :, rows, columns] = 10
    picture[1] //= 2
    assert corner_background(picture) == pytest.approx(7.5)
    assert corner_background(torch.full((1, 3, 16, 16), -1.0)) == 0.0
    assert corner_background(torch.full((1, 3, 16, 16), 1.0)) == 255.0
    assert corner_background(picture, patch=8) > 10
    with pytest.raises(EvaluationError, match="patch=40"):
        corner_background(picture, patch=40)
    with pytest.raises(EvaluationError, match="no image"):
        corner_background(torch.zeros(0, 3, 8, 8))


def test_tint_is_the_largest_deviation_from_gray() -> None:
    picture = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
    assert tint(picture) == 0.0
    picture[1, 0, 3, 3] = 106
    assert tint(picture) == pytest.approx(4.0)
    assert tint(picture[:, :1]) == 0.0
    with pytest.raises(EvaluationError, match="no image"):
        tint(picture[:0])


def test_a_file_that_pillow_fails_on_is_named(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 6, 8, 0, 0, 0, 0))
    part = zlib.compress(bytes(9 * 6))[:4]
    broken = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", part) + b"\0\0\0\x04g?rb" + bytes(8)
    for name in ("real", "made"):
        (tmp_path / name).mkdir()
        for index in range(2):
            Image.new("L", (8, 6)).save(tmp_path / name / f"{index}.png")
    (tmp_path / "made" / "broken.png").write_bytes(broken)
    with pytest.raises(EvaluationError, match=r"broken\.png of the synthetic set cannot be read"):
        evaluate_sets(tmp_path / "real", tmp_path / "made", resamples=0)
