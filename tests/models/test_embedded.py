"""The embedded models: what ships, and the bars it was trained for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentdrift.data.simulate import SimulatedSubject, render
from latentdrift.drift import drift_of
from latentdrift.evaluate import ssim, tint
from latentdrift.generate import decode_latents, encode_images, generate_images
from latentdrift.models import EMBEDDED, load_pipeline
from latentdrift.models.loading import WEIGHTS


@pytest.fixture(scope="module")
def tiny():
    return load_pipeline("tiny", device="cpu")


@pytest.fixture(scope="module")
def slices() -> torch.Tensor:
    images = [render(SimulatedSubject.draw(index, seed=5)) for index in range(3)]
    return torch.from_numpy(np.stack(images))[:, None].expand(-1, 3, -1, -1) * 2 - 1


def test_all_weights_together_stay_small() -> None:
    files = list(WEIGHTS.rglob("*.safetensors"))
    assert {file.relative_to(WEIGHTS).parts[0] for file in files} == set(EMBEDDED)
    assert sum(file.stat().st_size for file in files) < 60e6
    assert sum(file.stat().st_size for file in WEIGHTS.joinpath("tiny").rglob("*.safetensors")) < 40e6


def test_shipped_configurations_name_no_folder() -> None:
    for path in WEIGHTS.rglob("*.json"):
        assert "_name_or_path" not in path.read_text(), path


def test_gray_slices_come_back_gray_and_sharp(tiny, slices: torch.Tensor) -> None:
    decoded = decode_latents(tiny, encode_images(tiny, slices))
    levels = (decoded + 1) * 127.5
    assert (levels.mean((2, 3)) - levels.mean((1, 2, 3))[:, None]).abs().max() <= 2
    # Single pixels at edges may deviate by more.
    assert tint(decoded) <= 12
    assert ssim(decoded, slices).min() > 0.9


def test_colour_is_kept(tiny) -> None:
    colours = torch.tensor([[0.6, -0.5, -0.5], [-0.5, 0.5, -0.4], [-0.5, -0.4, 0.6]])
    images = colours[:, :, None, None].expand(-1, -1, 128, 128)
    decoded = decode_latents(tiny, encode_images(tiny, images)).mean((2, 3))
    assert (decoded.argmax(1) == colours.argmax(1)).all()
    assert (decoded - colours).abs().max() < 0.5


def test_tiny_has_no_drift_and_loads_in_plain_diffusers(tiny) -> None:
    from diffusers import StableDiffusionPipeline

    assert drift_of(tiny) is None
    plain = StableDiffusionPipeline.from_pretrained(WEIGHTS / "tiny", torch_dtype=torch.float32, safety_checker=None)
    first, second = plain.unet.state_dict(), tiny.unet.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tiny_brain_shares_tiny_and_brings_its_drift(tiny) -> None:
    brain = load_pipeline("tiny-brain", device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(tiny.vae.parameters(), brain.vae.parameters(), strict=True))
    assert not torch.equal(tiny.unet.conv_in.weight, brain.unet.conv_in.weight)
    assert drift_of(brain).automatic
    assert set(brain.latentdrift_card.attributes) == {"stage"}
    image = generate_images(brain, ["an MRI of a non demented brain"], seeds=[0], steps=10, guidance=1.0)
    corners = image[:, :, :8, :8]
    assert corners.mean() < -0.9
    assert image[:, :, 48:80, 48:80].mean() > -0.8
