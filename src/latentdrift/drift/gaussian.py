"""A network that is exactly right: data N(m, s^2 I), where the best prediction is known in closed form.

A drifted state is y = a x_0 + b (eps + f), so y ~ N(a m + b f, (a^2 s^2 + b^2) I), and with r = y - a m - b f

    E[eps | y] = b r / (a^2 s^2 + b^2),      E[x_0 | y] = m + a s^2 r / (a^2 s^2 + b^2).

Tests of schedulers use it in place of a U-Net: whatever mean comes out can be compared with m.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from latentdrift.drift.attachment import shift_start

Network = Callable[[torch.Tensor, Any], torch.Tensor]


class GaussianNetwork:
    """The exact prediction for N(mean, std^2 I), for the input and output conventions of a scheduler's family.

    Args:
        scheduler: tells the conventions (epsilon, v, sample, flow, EDM) and the training noise schedule; not kept.
        mean: m, broadcast against latents (B, C, h, w).
        std: s.
        noise_mean: f, the delta_f that the network was trained with.
        target: "plain" if it predicts eps, "drifted" if eps + f.
    """

    def __init__(
        self,
        scheduler: Any,
        mean: torch.Tensor,
        std: float,
        noise_mean: torch.Tensor | float = 0.0,
        target: str = "plain",
    ) -> None:
        self.mean, self.variance = mean.double(), std**2
        self.noise_mean = torch.as_tensor(noise_mean, dtype=torch.float64)
        self.drifted = target == "drifted"
        config = scheduler.config
        self.prediction = config.get("prediction_type") or "flow_prediction"
        self.sigma_data = config.get("sigma_data") if hasattr(scheduler, "precondition_outputs") else None
        flow = hasattr(scheduler, "scale_noise") or config.get("use_flow_sigmas")
        self.flow_steps = config.num_train_timesteps if flow else None
        if self.sigma_data is None and self.flow_steps is None:
            alphas = scheduler.alphas_cumprod.double()
            self.log_sigmas = ((1 - alphas) / alphas).log() / 2

    def __call__(self, model_input: torch.Tensor, timestep: Any) -> torch.Tensor:
        """Return the prediction for what `scale_model_input` gives, at `timestep`."""
        seen, t = model_input.double(), float(timestep)
        if self.sigma_data is not None:
            return self._edm(seen, torch.tensor(4 * t, dtype=torch.float64).exp()).to(model_input.dtype)
        if self.flow_steps is not None:
            level = torch.tensor(t / self.flow_steps, dtype=torch.float64)
            signal = 1 - level
        else:
            # Second-order schedulers evaluate between training timesteps, at t interpolated in log sigma.
            low = int(t)
            log_sigma = self.log_sigmas[low]
            if t > low:
                log_sigma = torch.lerp(log_sigma, self.log_sigmas[low + 1], t - low)
            # By the logistic function, because sigma is infinite where the terminal signal is zero.
            signal, level = torch.sigmoid(-2 * log_sigma) ** 0.5, torch.sigmoid(2 * log_sigma) ** 0.5
        noise, clean = self._posterior(seen, signal, level)
        noise = noise + self.noise_mean if self.drifted else noise
        if self.prediction == "epsilon":
            predicted = noise
        elif self.prediction == "v_prediction":
            predicted = signal * noise - level * clean
        else:
            predicted = clean if self.prediction == "sample" else noise - clean
        return predicted.to(model_input.dtype)

    def _posterior(self, state: Any, signal: Any, level: Any) -> tuple[torch.Tensor, torch.Tensor]:
        rest = (state - signal * self.mean - level * self.noise_mean) / (signal**2 * self.variance + level**2)
        return level * rest, self.mean + signal * self.variance * rest

    def _edm(self, seen: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """EDM's network F, with E[x_0] = c_skip y + c_out F (arXiv 2206.00364, table 1)."""
        assert self.sigma_data is not None
        total = (sigma**2 + self.sigma_data**2) ** 0.5
        state = seen * total
        clean = self._posterior(state, 1.0, sigma)[1]
        known = state if self.drifted else state - sigma * self.noise_mean
        out = sigma * self.sigma_data / total * (-1 if self.prediction == "v_prediction" else 1)
        return (clean - self.sigma_data**2 / total**2 * known) / out


def run(
    scheduler: Any,
    network: Network,
    latents: torch.Tensor,
    steps: int,
    seed: int = 0,
    seen: list[torch.Tensor] | None = None,
) -> torch.Tensor:
    """Run `scheduler` as diffusers' pipelines do, deterministically where `step` takes `eta`, and return the end.

    Args:
        scheduler: forward or inverse, drifted or not.
        network: (model input, timestep) -> model output.
        latents: noise N(0, I), or for an inverse scheduler the image's latents.
        steps: number of sampling steps.
        seed: of the generator, for schedulers that take one.
        seen: if given, the state after each call is appended.
    """
    scheduler.set_timesteps(steps)
    options: dict[str, Any] = {}
    parameters = inspect.signature(scheduler.step).parameters
    if "eta" in parameters:
        options["eta"] = 0.0
    if "generator" in parameters:
        options["generator"] = torch.Generator().manual_seed(seed)
    latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
    scales = hasattr(scheduler, "scale_model_input")
    latents = latents if scales else shift_start(scheduler, latents)
    for timestep in scheduler.timesteps:
        model_input = scheduler.scale_model_input(latents, timestep) if scales else latents
        latents = scheduler.step(network(model_input, timestep), timestep, latents, **options).prev_sample
        if seen is not None:
            seen.append(latents)
    return latents
