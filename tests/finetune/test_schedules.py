"""The schedules of training: kept as they are, rescaled to zero terminal SNR, and noise with an offset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)
from diffusers.training_utils import compute_snr

from latentdrift.drift import LatentDrift, LatentMoments, drift_of, noisy_latents, training_target
from latentdrift.drift.gaussian import GaussianNetwork, run
from latentdrift.errors import ConfigurationError
from latentdrift.finetune.drifting import NoiseChoice
from latentdrift.finetune.methods.basic import BasicConfig
from latentdrift.finetune.run import check_noise
from latentdrift.finetune.schedules import noise_schedule, offset_noise, zero_snr_scheduler
from latentdrift.generate import generate_images, scheduler_like
from latentdrift.models import load_pipeline
from tests.conftest import build_scheduler

SCHEDULE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_training_adds_noise_by_the_schedule_of_the_pipeline() -> None:
    drift = LatentDrift(0.3, "forward")
    schedule = noise_schedule(LatentDrift(0.9).apply(build_scheduler("v_prediction")), drift)
    assert isinstance(schedule, DDPMScheduler)
    assert drift_of(schedule) == drift
    assert schedule.config.prediction_type == "v_prediction"
    assert torch.equal(schedule.alphas_cumprod, build_scheduler().alphas_cumprod)
    assert drift_of(noise_schedule(LatentDrift(0.9).apply(build_scheduler()), None)) is None


def test_a_pipeline_may_be_given_and_stays_as_it_is(toy_model: Path) -> None:
    pipeline = LatentDrift(0.2).attach(load_pipeline(toy_model, drift=None))
    assert drift_of(noise_schedule(pipeline, None)) is None
    assert drift_of(pipeline) == LatentDrift(0.2)


@pytest.mark.parametrize(
    "make",
    [
        build_scheduler,
        lambda: PNDMScheduler(**SCHEDULE, skip_prk_steps=True),
        lambda: EulerDiscreteScheduler(**SCHEDULE, timestep_spacing="leading"),
        lambda: LatentDrift(0.3).apply(DDIMScheduler(**SCHEDULE)),
    ],
)
def test_rescaled_betas_end_in_pure_noise(make: Any) -> None:
    """Algorithm 1 of arXiv 2305.08891, in double precision."""
    scheduler = zero_snr_scheduler(make())
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2
    root = (1 - betas).cumprod(0).sqrt()
    expected = (root - root[-1]) * root[0] / (root[0] - root[-1])
    assert torch.allclose(scheduler.alphas_cumprod.double().sqrt(), expected, atol=1e-5)
    assert scheduler.alphas_cumprod[-1] == 0
    assert drift_of(scheduler) is None
    assert zero_snr_scheduler(scheduler).config == scheduler.config
    for steps in (1, 7, 25, 50):
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps[0] == 999
        assert len(scheduler.timesteps) == steps
    assert scheduler.config.clip_sample is False


@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler])
def test_diffusers_saves_and_loads_it(kind: type, tmp_path: Path) -> None:
    scheduler = zero_snr_scheduler(build_scheduler())
    scheduler.save_pretrained(tmp_path)
    for other in (kind.from_pretrained(tmp_path), kind.from_config(scheduler.config)):  # type: ignore[attr-defined]
        assert other.config.rescale_betas_zero_snr
        assert other.config.timestep_spacing == "trailing"
        assert other.config.prediction_type == "v_prediction"
        # Euler keeps a last level that is not quite 0, for its sigma to be finite.
        assert torch.allclose(other.alphas_cumprod, scheduler.alphas_cumprod, atol=1e-7)
        other.set_timesteps(25)
        assert other.timesteps[0] == 999


@pytest.mark.parametrize("drift", [None, LatentDrift(0.3, "forward"), LatentDrift(0.3, "paper")], ids=str)
def test_at_the_last_timestep_latents_are_pure_noise_and_v_is_minus_the_image(drift: LatentDrift | None) -> None:
    schedule = noise_schedule(zero_snr_scheduler(build_scheduler()), drift)
    assert schedule.config.rescale_betas_zero_snr
    clean, noise = draw(2, 4, 8, 8), draw(2, 4, 8, 8, seed=1)
    last = torch.tensor([999, 999])
    sign = 0.0 if drift is None else float(drift.forward_sign)
    assert torch.equal(noisy_latents(schedule, clean, noise, last), noise + sign * 0.3)
    assert torch.equal(training_target(schedule, clean, noise, last), -clean)
    middle = torch.tensor([500, 998])
    level = schedule.alphas_cumprod[middle].reshape(2, 1, 1, 1)
    shift = -0.3 if sign < 0 else 0.0  # target "plain" of rule paper leaves the shift out
    expected = level.sqrt() * (noise + shift) - (1 - level).sqrt() * clean
    assert torch.allclose(training_target(schedule, clean, noise, middle), expected, atol=1e-6)


def test_the_signal_to_noise_ratio_is_zero_there_and_its_weight_finite() -> None:
    schedule = noise_schedule(zero_snr_scheduler(build_scheduler()), None)
    snr = compute_snr(schedule, torch.arange(1000))
    assert snr[-1] == 0
    assert torch.isfinite(snr).all()
    # Min-SNR weighs errors of v by min(snr, gamma) / (snr + 1): finite, but nothing of the last timestep is learned.
    weights = snr.clamp(max=5) / (snr + 1)
    assert torch.isfinite(weights).all()
    assert weights[-1] == 0


@pytest.mark.parametrize("already", [True, False])
def test_min_snr_is_refused_where_its_weight_would_be_zero(toy_model: Path, already: bool) -> None:
    pipeline = load_pipeline(toy_model)
    if already:
        pipeline.scheduler = zero_snr_scheduler(pipeline.scheduler)
    says = "Leave --snr-gamma out " + ("for a base" if already else "with --drift zero-terminal-snr")
    choice = NoiseChoice(zero_snr=not already)
    with pytest.raises(ConfigurationError, match=says):
        check_noise(pipeline, choice, BasicConfig(snr_gamma=5.0))
    check_noise(pipeline, choice, BasicConfig())


@pytest.mark.parametrize("steps", [10, 25, 50])
def test_an_exact_network_samples_the_right_mean_and_the_automatic_drift_vanishes(steps: int) -> None:
    scheduler = zero_snr_scheduler(build_scheduler())
    mean = torch.tensor([0.5, -0.2, 0.9, 0.0]).reshape(4, 1, 1)
    half = draw(3, 4, 4, 4).double()
    noise = torch.cat([half, -half])
    drift = LatentDrift(LatentMoments(tuple(mean.flatten().tolist()), 10))
    drifted = drift.apply(scheduler)
    network = GaussianNetwork(scheduler, mean, 0.6)
    plain = run(scheduler, network, noise, steps)
    assert torch.allclose(plain.mean((0, 2, 3)), mean.double().flatten(), atol=1e-6)
    assert torch.equal(run(drifted, network, noise, steps), plain)
    assert torch.equal(drift.resolve(drifted), torch.zeros(4))
    # The schedule of Stable Diffusion misses it.
    usual = run(build_scheduler(), GaussianNetwork(build_scheduler(), mean, 0.6), noise, steps)
    assert (usual.mean((0, 2, 3)) - mean.flatten()).abs().max() > 0.03


@pytest.mark.parametrize("steps", [10, 25, 250])
def test_the_last_state_is_the_clean_image(steps: int) -> None:
    scheduler = zero_snr_scheduler(build_scheduler())
    scheduler.set_timesteps(steps)
    end = scheduler.step(draw(1, 4, 8, 8), scheduler.timesteps[-1], draw(1, 4, 8, 8, seed=1))
    assert torch.equal(end.prev_sample, end.pred_original_sample)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_toy_samples_finite_images(toy_velocity_model: Path, guidance: float) -> None:
    pipeline = load_pipeline(toy_velocity_model)
    pipeline.scheduler = zero_snr_scheduler(pipeline.scheduler)
    images = generate_images(pipeline, ["a", "b"], seeds=[1, 2], steps=5, guidance=guidance)
    assert torch.isfinite(images).all()
    assert images.std() > 0.01


def test_plain_diffusers_samples_a_saved_model_alike(toy_velocity_model: Path, tmp_path: Path, recwarn: Any) -> None:
    pipeline = load_pipeline(toy_velocity_model)
    pipeline.scheduler = zero_snr_scheduler(pipeline.scheduler)
    pipeline.save_pretrained(tmp_path / "model")
    ours = generate_images(pipeline, ["a"], seeds=[3], steps=5, guidance=1.0)
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "model", safety_checker=None)
    assert dict(loaded.scheduler.config) == dict(pipeline.scheduler.config)
    assert not [warning for warning in recwarn if "steps_offset" in str(warning.message)]
    theirs = loaded(
        "a", num_inference_steps=5, guidance_scale=1.0, generator=generator().manual_seed(3), output_type="pt"
    )
    assert torch.allclose(theirs.images * 2 - 1, ours, atol=1e-4)


@pytest.mark.parametrize(
    "scheduler",
    [FlowMatchEulerDiscreteScheduler(), EDMEulerScheduler(), UniPCMultistepScheduler(use_flow_sigmas=True)],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_a_scheduler_without_betas_is_refused(scheduler: Any) -> None:
    """Made of its configuration, a scheduler of diffusers would take linear betas, which the model never saw."""
    with pytest.raises(ConfigurationError, match=f"{type(scheduler).__name__} has no betas to rescale"):
        zero_snr_scheduler(scheduler)
    with pytest.raises(ConfigurationError, match=f"{type(scheduler).__name__} has no betas, by which noise is added"):
        noise_schedule(LatentDrift(0.1).apply(scheduler), None)
    with pytest.raises(ConfigurationError, match=f"{type(scheduler).__name__} has no betas, and DDIMScheduler would"):
        scheduler_like(LatentDrift(0.1).apply(scheduler), DDIMScheduler)


def test_a_schedule_that_ddim_does_not_know() -> None:
    with pytest.raises(ConfigurationError, match="no beta_schedule 'sigmoid'"):
        zero_snr_scheduler(DDPMScheduler(beta_schedule="sigmoid"))


def test_without_strength_offset_noise_is_the_same_object_and_draws_nothing() -> None:
    noise, source = draw(2, 4, 8, 8), generator()
    assert offset_noise(noise, 0.0, source) is noise
    assert torch.equal(source.get_state(), generator().get_state())


def test_offset_noise_shifts_the_mean_of_each_image_and_channel() -> None:
    noise = draw(600, 4, 8, 8)
    made = offset_noise(noise, 0.5, generator())
    shift = (made - noise)[:, :, 0, 0]
    assert torch.allclose(made, noise + shift[:, :, None, None], atol=1e-6)
    assert shift.std().item() == pytest.approx(0.5, rel=0.05)
    assert abs(shift.mean().item()) < 0.05
    # Independent from image to image and from channel to channel.
    assert (torch.corrcoef(shift.T) - torch.eye(4)).abs().max() < 0.15
    assert torch.equal(made, offset_noise(noise, 0.5, generator()))
    assert torch.allclose(offset_noise(noise, 0.25, generator()) - noise, (made - noise) / 2, atol=1e-6)


def test_offset_noise_keeps_shape_and_dtype() -> None:
    for shape, dtype in (((2, 4, 3, 8, 8), torch.float32), ((2, 4, 8, 8), torch.float16)):
        made = offset_noise(draw(*shape).to(dtype), 0.1, generator())
        assert (made.shape, made.dtype) == (shape, dtype)
