"""What the network is trained to predict, with and without a drift, and what follows from a prediction."""

from __future__ import annotations

from typing import Any

import torch

from latentdrift.drift.levels import levels_at
from latentdrift.drift.scheduler import STATE
from latentdrift.errors import DriftError


def training_noise(scheduler: Any, noise: torch.Tensor) -> torch.Tensor:
    """Return the noise that `scheduler.add_noise` really adds when given `noise` (B, C, h, w): eps + delta_f.

    For an undrifted scheduler, and where delta_f = 0, it is the same object.
    """
    state = scheduler.__dict__.get(STATE)
    return state.training_noise(scheduler, noise) if state else noise


def noisy_latents(scheduler: Any, sample: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """Return the noised `sample` (B, C, h, w) at `timesteps` (B,), by `add_noise` or flow matching's `scale_noise`."""
    if hasattr(scheduler, "add_noise"):
        return scheduler.add_noise(sample, noise, timesteps)
    return scheduler.scale_noise(sample, timesteps, noise)


def training_target(scheduler: Any, sample: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """Return what the network should predict from `scheduler.add_noise(sample, noise, timesteps)`.

    With eps' the noise really added if the drift's target is "drifted", the plain eps if it is "plain":
    eps' (epsilon), sqrt(abar) eps' - sqrt(1 - abar) x_0 (v_prediction), x_0 (sample), eps' - x_0 (flow matching).

    Args:
        scheduler: drifted or not.
        sample: clean latents (B, C, h, w).
        noise: eps ~ N(0, I), as handed to `add_noise`: not drifted.
        timesteps: training timesteps (B,).

    Raises:
        DriftError: a prediction type that is not known here, EDM's preconditioned network among them.
    """
    state = scheduler.__dict__.get(STATE)
    if state is not None and state.drift.target == "drifted":
        noise = state.training_noise(scheduler, noise)
    prediction = scheduler.config.get("prediction_type")
    if hasattr(scheduler, "precondition_outputs"):
        raise DriftError(
            f"{type(scheduler).__name__} preconditions the network's output by its own sigmas: train with its own loss "
            "on add_noise's output and training_noise."
        )
    if prediction == "flow_prediction" or (prediction is None and hasattr(scheduler, "scale_noise")):
        return noise - sample
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return sample
    if prediction == "v_prediction":
        signal, level = levels_at(scheduler, timesteps, sample)
        return signal * noise - level * sample
    raise DriftError(f"No training target is known for prediction_type={prediction!r} of {type(scheduler).__name__}.")


def noise_and_latents(
    scheduler: Any, predicted: torch.Tensor, seen: torch.Tensor, timestep: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the noise and the clean latents that a prediction says its state is made of, (B, C, h, w) each.

    The scheduler says what the network was trained on: what it makes of a blank image without noise, and what should be
    predicted there, are constants of the training and no part of noise or image. So both are right under every rule and
    target. Where those constants are 0, or the steps are taken without them, this is the `pred_original_sample` of the
    scheduler's step; rule `paper` of target "plain" takes them for a part of the image.

    Args:
        scheduler: variance preserving, such as DDIM, drifted or not, and set; not the one that takes the steps, because
            adding noise tells it that its run has begun.
        predicted: noise, velocity or sample, (B, C, h, w).
        seen: what the network predicted it from, as `scale_model_input` gave it.
        timestep: the step's, above which there is some signal.

    Raises:
        DriftError: a prediction type that is not known here, or a scheduler without `alphas_cumprod`.
    """
    # Half precision is too coarse for differences of large numbers.
    dtype = torch.promote_types(seen.dtype, torch.float32)
    blank, at = torch.zeros_like(seen[:1], dtype=dtype), timestep.reshape(1)
    state = seen.to(dtype) - noisy_latents(scheduler, blank, blank, at)
    told = predicted.to(dtype) - training_target(scheduler, blank, blank, at)
    signal, level = (float(number) for number in levels_at(scheduler, at, blank))
    slope, share = noise_weights(scheduler.config.get("prediction_type"), signal, level)
    noise = slope * told + share * state
    return noise, (state - level * noise) / signal


def noise_weights(prediction_type: str | None, signal: float, level: float) -> tuple[float, float]:
    """Return a and b of noise = a * predicted + b * state, for the state signal * image + level * noise.

    Raises:
        DriftError: a prediction type that is not known here.
    """
    if prediction_type == "epsilon":
        return 1.0, 0.0
    if prediction_type == "v_prediction":
        return signal, level
    if prediction_type == "sample":
        return -signal / level, 1 / level
    raise DriftError(f"The model predicts {prediction_type!r}; epsilon, v_prediction or sample is needed.")
