"""What the network is trained to predict, with and without a drift."""

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
