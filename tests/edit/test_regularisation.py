"""Noise kept like noise, against the losses written out and diffusers' own."""

from __future__ import annotations

import pytest
import torch
from diffusers.pipelines.deprecated.stable_diffusion_variants.pipeline_stable_diffusion_pix2pix_zero import (
    StableDiffusionPix2PixZeroPipeline,
)

from latentdrift.edit.regularisation import (
    NoiseRegularisation,
    auto_correlation_gradient,
    draw_shifts,
    kl_gradient,
    pyramid_heights,
    regularised,
)
from latentdrift.errors import ConfigurationError


def noise_of(*shape: int) -> torch.Tensor:
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    # Correlated, with another mean and variance, so that there is something to take out.
    return 1.3 * noise + 0.7 * noise.roll(1, 2) + 0.2


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (16, 20), (18, 22)])
def test_auto_correlation_is_diffusers_own(height: int, width: int) -> None:
    """Draws and gradient; diffusers differentiates its loops, one image at a time."""
    noise = noise_of(2, 3, height, width)
    heights = pyramid_heights(height, width)
    shifts = draw_shifts(1, 3, heights, [torch.Generator().manual_seed(seed) for seed in (4, 5)])[:, 0]
    ours = auto_correlation_gradient(noise, shifts)
    for row in range(2):
        if height == 18:  # the draws are diffusers' where half the height is a power of two
            loss, seen = written_out(noise[row : row + 1], shifts[row])
        else:
            seen = noise[row : row + 1].clone().requires_grad_()
            generator = torch.Generator().manual_seed(4 + row)
            loss = StableDiffusionPix2PixZeroPipeline.auto_corr_loss(None, seen, generator)
        (theirs,) = torch.autograd.grad(loss, seen)
        assert theirs.abs().max() > 1e-5
        torch.testing.assert_close(ours[row], theirs[0], atol=1e-7, rtol=1e-4)


def written_out(image: torch.Tensor, shifts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    seen = image.clone().requires_grad_()
    loss = torch.zeros(())
    for channel in range(image.shape[1]):
        level = seen[:, channel : channel + 1]
        for shift in shifts[channel].tolist():
            for dim in (2, 3):
                loss = loss + (level * torch.roll(level, shift, dim)).mean() ** 2
            level = torch.nn.functional.avg_pool2d(level, 2)
    return loss, seen


def test_kl_is_diffusers_own_an_image() -> None:
    noise = noise_of(3, 4, 8, 8)
    ours = kl_gradient(noise)
    for row in range(3):
        seen = noise[row : row + 1].clone().requires_grad_()
        (theirs,) = torch.autograd.grad(StableDiffusionPix2PixZeroPipeline.kl_divergence(None, seen), seen)
        torch.testing.assert_close(ours[row], theirs[0], atol=1e-8, rtol=1e-4)


def test_regularised_noise_is_more_like_noise() -> None:
    noise = noise_of(2, 4, 16, 16)
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    settings = NoiseRegularisation(rounds=40)
    kept = regularised(noise, torch.zeros_like(noise), 1.0, settings, generators)
    for row in range(2):
        assert abs(kept[row].var().item() - 1) < 0.5 * abs(noise[row].var().item() - 1)
        neighbour = [(image * image.roll(1, 1)).mean().abs().item() for image in (noise[row], kept[row])]
        assert neighbour[1] < 0.5 * neighbour[0]


def test_without_weights_nothing_is_taken_out() -> None:
    noise = noise_of(1, 4, 8, 8)
    settings = NoiseRegularisation(auto_correlation=0.0, kl=0.0)
    assert torch.equal(regularised(noise, noise, 0.5, settings, [torch.Generator()]), noise)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"auto_correlation": -1.0}, "auto_correlation is -1.0"),
        ({"kl": float("nan")}, "kl is nan"),
        ({"rounds": -1}, "rounds is -1"),
        ({"rolls": 0}, "rolls is 0"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        NoiseRegularisation(**change)  # type: ignore[arg-type]
