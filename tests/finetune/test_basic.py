"""The loss of basic fine-tuning against the mathematics of diffusers' text-to-image example, written anew here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.drift import LatentDrift
from latentdrift.errors import ConfigurationError
from latentdrift.finetune.method import Batch
from latentdrift.finetune.methods.basic import Basic, BasicConfig
from latentdrift.finetune.run import noise_schedule
from latentdrift.models import encode_prompts, load_pipeline

TIMESTEPS = torch.tensor([1, 400, 999])


def make_batch(pipeline: Any) -> Batch:
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(2))
    return Batch(latents, encode_prompts(pipeline, ["a", "b", ""]), noise, TIMESTEPS)


def example_loss(pipeline: Any, batch: Batch, shift: float, gamma: float | None) -> torch.Tensor:
    """The loss of `train_text_to_image.py`, on noise moved by `shift`."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    a = (1 - betas).cumprod(0)[batch.timesteps].reshape(-1, 1, 1, 1)
    noise = batch.noise + shift
    noisy = a.sqrt() * batch.latents + (1 - a).sqrt() * noise
    hidden = batch.conditioning.hidden
    predicted = pipeline.unet(noisy, batch.timesteps, encoder_hidden_states=hidden, return_dict=False)[0]
    velocity = pipeline.scheduler.config.prediction_type == "v_prediction"
    target = a.sqrt() * noise - (1 - a).sqrt() * batch.latents if velocity else noise
    error = (predicted - target).pow(2).mean((1, 2, 3))
    if gamma is None:
        return error.mean()
    snr = (a / (1 - a)).flatten()
    weights = torch.minimum(snr, torch.tensor(gamma)) / (snr + 1 if velocity else snr)
    return (weights * error).mean()


@pytest.mark.parametrize("model", ["toy_model", "toy_velocity_model"])
@pytest.mark.parametrize("drift", [None, LatentDrift(0.3), LatentDrift(0.3, rule="forward")], ids=str)
@pytest.mark.parametrize("gamma", [None, 5.0])
def test_the_loss_is_that_of_the_example(
    model: str, drift: LatentDrift | None, gamma: float | None, request: pytest.FixtureRequest
) -> None:
    pipeline = load_pipeline(request.getfixturevalue(model))
    method = Basic(BasicConfig(snr_gamma=gamma or 0.0))
    batch = make_batch(pipeline)
    loss = method.loss(method.prepare(pipeline), noise_schedule(pipeline, drift), batch)
    shift = -0.3 if drift is not None and drift.rule == "forward" else 0.0
    assert loss.item() == pytest.approx(example_loss(pipeline, batch, shift, gamma).item(), rel=1e-4)


def test_only_the_unet_is_trained(toy_model: Path) -> None:
    pipeline = load_pipeline(toy_model)
    method = Basic(BasicConfig())
    module = method.prepare(pipeline)
    assert module.unet is pipeline.unet
    assert module.text is None
    assert pipeline.unet.training
    assert all(p.requires_grad for p in pipeline.unet.parameters())
    assert dict(module.trained()).keys() == {f"unet.{name}" for name, _ in pipeline.unet.named_parameters()}
    assert not any(p.requires_grad for part in (pipeline.vae, pipeline.text_encoder) for p in part.parameters())
    method.finish(pipeline, module)
    assert not pipeline.unet.training


def test_xl_is_trained_too(toy_xl_model: Path) -> None:
    pipeline = load_pipeline(toy_xl_model)
    method = Basic(BasicConfig())
    module = method.prepare(pipeline)
    method.loss(module, noise_schedule(pipeline, None), make_batch(pipeline)).backward()
    assert pipeline.unet.add_embedding.linear_1.weight.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in pipeline.text_encoder_2.parameters())


@pytest.mark.parametrize("gamma", [-1.0, float("nan"), float("inf")])
def test_settings_that_cannot_be(gamma: float) -> None:
    with pytest.raises(ConfigurationError, match="snr_gamma is"):
        BasicConfig(snr_gamma=gamma)
