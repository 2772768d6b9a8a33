"""MS-SSIM against torchmetrics and scipy, LPIPS against its formula, and their intervals over subjects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from latentdrift.errors import EvaluationError, ModelError, UnknownNameError
from latentdrift.evaluate import pairs
from latentdrift.evaluate.counterfactuals import mean_interval
from latentdrift.evaluate.pairs import lpips, most_scales, ms_ssim, pair_figures, psnr, ssim


def made(channels: int = 1, side: tuple[int, int] = (180, 193), count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(draw.normal(size=(count, channels, *side)), axis=-1), axis=-2)
    smooth /= np.abs(smooth).max()
    noisy = np.clip(0.9 * smooth + draw.normal(size=smooth.shape) * 0.15, -1, 1)
    return torch.from_numpy(smooth), torch.from_numpy(noisy)


@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_torchmetrics(channels: int) -> None:
    a, b = made(channels)
    expected = multiscale_structural_similarity_index_measure(a, b, data_range=2.0, reduction="none")
    np.testing.assert_allclose(ms_ssim(a, b, mirrored=True), expected, rtol=1e-6)
    levels = [((x + 1) * 127.5).round().to(torch.uint8) for x in (a, b)]
    expected = multiscale_structural_similarity_index_measure(
        levels[0].double(), levels[1].double(), data_range=255.0, reduction="none"
    )
    np.testing.assert_allclose(ms_ssim(*levels, mirrored=True), expected, rtol=1e-6)


def test_fewer_scales_agree_with_torchmetrics() -> None:
    a, b = made(side=(96, 100))
    weights = np.array(pairs.SCALE_WEIGHTS[:3])
    expected = multiscale_structural_similarity_index_measure(
        a, b, data_range=2.0, reduction="none", betas=tuple((weights / weights.sum()).tolist())
    )
    np.testing.assert_allclose(ms_ssim(a, b, scales=3, mirrored=True), expected, rtol=1e-6)
    assert ms_ssim(a, b, scales=1) == pytest.approx(ssim(a, b))


def test_windows_inside_the_image_are_those_of_wang() -> None:
    a, b = made()
    expected = np.ones(len(a))
    x, y = a.numpy()[:, 0], b.numpy()[:, 0]
    for place, exponent in enumerate(pairs.SCALE_WEIGHTS):
        for i in range(len(x)):
            mean = {n: inner(v[i]) for n, v in (("x", x), ("y", y), ("xx", x * x), ("yy", y * y), ("xy", x * y))}
            covariance = mean["xy"] - mean["x"] * mean["y"]
            spread = mean["xx"] - mean["x"] ** 2 + mean["yy"] - mean["y"] ** 2
            term = (2 * covariance + 0.06**2) / (spread + 0.06**2)
            if place == 4:
                term = term * (2 * mean["x"] * mean["y"] + 0.02**2) / (mean["x"] ** 2 + mean["y"] ** 2 + 0.02**2)
            expected[i] *= term.mean() ** exponent
        x, y = (
            v[:, : v.shape[1] // 2 * 2, : v.shape[2] // 2 * 2]
            .reshape(len(v), v.shape[1] // 2, 2, v.shape[2] // 2, 2)
            .mean((2, 4))
            for v in (x, y)
        )
    np.testing.assert_allclose(ms_ssim(a, b), expected, rtol=1e-9)


def inner(image: np.ndarray) -> np.ndarray:
    """Return scipy's Gaussian means of the windows of 11 pixels that lie inside an image."""
    return gaussian_filter(image, 1.5, radius=5)[5:-5, 5:-5]


def test_equal_opposite_and_small() -> None:
    a, _ = made()
    assert ms_ssim(a, a) == pytest.approx(1.0)
    assert (ms_ssim(a, -a) == 0).all()
    assert [most_scales(side) for side in (10, 11, 22, 64, 128, 175, 176, 1024)] == [0, 1, 2, 3, 4, 4, 5, 5]
    with pytest.raises(EvaluationError, match="176 pixels a side; these have 128: take scales=4"):
        ms_ssim(a[..., :128, :128], a[..., :128, :128])
    with pytest.raises(EvaluationError, match="scales=6"):
        ms_ssim(a, a, scales=6)


@pytest.fixture
def squeeze(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.nn.Module]:
    """SqueezeNet with weights drawn at random, where torchvision keeps the published ones."""
    from torchvision.models import squeezenet1_1

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torch.manual_seed(0)
    network = squeezenet1_1(weights=None)
    file = pairs.LPIPS_NETWORKS["squeeze"][0]
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / file)
    digest = hashlib.sha256((tmp_path / "checkpoints" / file).read_bytes()).hexdigest()
    monkeypatch.setitem(pairs.LPIPS_NETWORKS, "squeeze", (file, digest[:8]))
    pairs.perceptual_network.cache_clear()
    yield network
    pairs.perceptual_network.cache_clear()


def test_lpips_is_zhangs_formula(squeeze: torch.nn.Module) -> None:
    import torchmetrics.functional.image as place

    a, b = (x.float() for x in made(1, side=(64, 70)))
    learned = torch.load(Path(place.__file__).parent / "lpips_models" / "squeeze.pth", "cpu", weights_only=True)
    shift, scale = (torch.tensor(v)[None, :, None, None] for v in ([-0.03, -0.088, -0.188], [0.458, 0.448, 0.45]))
    expected = torch.zeros(len(a))
    x, y = ((v.expand(-1, 3, -1, -1) - shift) / scale for v in (a, b))
    layer = 0
    with torch.no_grad():
        for number, part in enumerate(squeeze.features):
            x, y = part(x), part(y)
            if number in (1, 4, 7, 9, 10, 11, 12):
                weight = learned[f"lin{layer}.model.1.weight"]
                gap = (F.normalize(x, dim=1, eps=1e-10) - F.normalize(y, dim=1, eps=1e-10)) ** 2
                expected += (gap * weight).sum(1).mean((1, 2))
                layer += 1
    assert layer == 7
    np.testing.assert_allclose(lpips(a, b, network="squeeze"), expected, rtol=1e-4)
    assert lpips(a, a, network="squeeze") == pytest.approx(0.0)
    levels = [((v + 1) * 127.5).round().to(torch.uint8) for v in (a, b)]
    back = [v.double() / 127.5 - 1 for v in levels]
    np.testing.assert_allclose(lpips(*levels, network="squeeze"), lpips(*back, network="squeeze"), rtol=1e-6)
    with pytest.raises(EvaluationError, match="within half the data range"):
        lpips(a + 1, b + 1, network="squeeze")
    with pytest.raises(EvaluationError, match="at least 32 pixels"):
        lpips(a[..., :20], b[..., :20], network="squeeze")


def test_weights_of_lpips_that_are_missing_or_others(tmp_path: Path, squeeze: torch.nn.Module) -> None:
    file = tmp_path / "checkpoints" / pairs.LPIPS_NETWORKS["squeeze"][0]
    file.write_bytes(b"something else")
    with pytest.raises(ModelError, match="SHA-256"):
        pairs.perceptual_network("squeeze")
    with pytest.raises(ModelError, match="alexnet-owt-7be5be79.pth and save it as"):
        pairs.perceptual_network("alex")
    with pytest.raises(UnknownNameError, match="network of LPIPS"):
        pairs.perceptual_network("resnet")


def test_all_figures_with_intervals_over_subjects(squeeze: torch.nn.Module) -> None:
    a, b = made(side=(48, 48), count=18)
    b[3] = a[3]
    subjects = [i // 2 for i in range(18)]
    found = pair_figures(a, b, subjects, lpips_network="squeeze", resamples=50, seed=3)
    assert list(found.estimates) == ["SSIM", "MS-SSIM of 3 scales", "PSNR", "LPIPS, squeeze"]
    for name, values in (("SSIM", ssim(a, b)), ("LPIPS, squeeze", lpips(a, b, network="squeeze"))):
        np.testing.assert_allclose(found.per_image[name], values, rtol=1e-5)
        assert found.estimates[name] == mean_interval(found.per_image[name], subjects, resamples=50, seed=3)
        assert found.estimates[name].n == 9
    kept = [i for i in range(18) if i != 3]
    assert found.estimates["PSNR"].value == pytest.approx(psnr(a[kept], b[kept]).mean())
    assert any("infinite for 1 pairs" in note for note in found.notes)
    assert any("176 pixels a side; these have 48, enough for 3" in note for note in found.notes)
    written = json.loads(json.dumps(found.to_dict()))
    assert written["figures"]["PSNR"]["unit"].startswith("dB")
    assert [row["figure"] for row in found.rows()][3] == "LPIPS, squeeze (0 is equal)"


def test_lpips_that_is_not_at_hand_is_said(squeeze: torch.nn.Module) -> None:
    a, b = made(side=(180, 180), count=2)
    found = pair_figures(a, b, resamples=20)
    assert list(found.estimates) == ["SSIM", "MS-SSIM", "PSNR"]
    assert len(found.notes) == 1
    assert found.notes[0].startswith("LPIPS was not computed. The published weights")
    assert pair_figures(a, b, resamples=20, lpips_network=None).notes == ()
    with pytest.raises(EvaluationError, match="2 and 1 images"):
        pair_figures(a, b[:1])
