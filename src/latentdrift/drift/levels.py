"""Signal and noise levels of the state that a scheduler hands from step to step, in the scheduler's own coordinates.

A state is a x_0 + b eps. Families, told apart by what a scheduler has and not by its name:

| family                | a, b                       | schedulers                                                   |
|-----------------------|----------------------------|--------------------------------------------------------------|
| variance preserving   | sqrt(abar), sqrt(1 - abar) | DDIM, DDPM, PNDM, LCM, TCD, DDIMInverse                      |
| the same, from sigmas | `_sigma_to_alpha_sigma_t`  | DPMSolver multistep, singlestep, inverse; DEIS, UniPC, SA    |
| variance exploding    | 1, sigma                   | Euler, Heun, KDPM2, LMS, their ancestral and SDE forms, EDM  |
| flow matching         | 1 - sigma, sigma           | FlowMatchEuler, FlowMatchHeun                                |

A scheduler that fits none of these registers its own: `@trajectory.register(MyScheduler)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch

from latentdrift.errors import DriftError


@dataclass(frozen=True)
class Trajectory:
    """The levels along one run of n calls of `step`.

    Args:
        signal, noise: a and b of the state before call 0, ..., n - 1, and after the last (n + 1 numbers).
        network: noise level the network is evaluated at in each call (n). Inversion evaluates it off the state's level.
        ends: whether the call ends a reverse step: its output is where the next step begins (n). Predictors and
            midpoints of second-order schedulers do not.
        timesteps: the timestep of each call (n).
        inverse: whether the run goes from image to noise.
    """

    signal: tuple[float, ...]
    noise: tuple[float, ...]
    network: tuple[float, ...]
    ends: tuple[bool, ...]
    timesteps: tuple[float, ...]
    inverse: bool = False

    @property
    def gain(self) -> float:
        """a_s / b_s at the noisy end of the run."""
        end = -1 if self.inverse else 0
        return self.signal[end] / self.noise[end]


@singledispatch
def trajectory(scheduler: Any) -> Trajectory:
    """Return the levels of the run that `scheduler.set_timesteps` has prepared.

    Raises:
        DriftError: a scheduler of no known family.
    """
    timesteps = tuple(float(t) for t in scheduler.timesteps.tolist())
    if hasattr(scheduler, "sigmas"):
        sigmas = _sigmas(scheduler, len(timesteps))
        inverse = sigmas[0] < sigmas[-1]
        levels = [_level_of_sigma(scheduler, sigma) for sigma in sigmas]
    elif hasattr(scheduler, "alphas_cumprod"):
        inverse = hasattr(scheduler, "initial_alpha_cumprod")
        levels = [_vp(scheduler.alphas_cumprod[int(t)]) for t in timesteps]
        # Image end: a real image going into an inversion, the finished one coming out of sampling.
        clean = _vp(getattr(scheduler, "initial_alpha_cumprod" if inverse else "final_alpha_cumprod", 1.0))
        levels = [clean, *levels] if inverse else [*levels, clean]
    else:
        raise DriftError(
            f"{type(scheduler).__name__} has neither sigmas nor alphas_cumprod, so its noise levels are unknown. "
            "Register them with latentdrift.drift.levels.trajectory.register."
        )
    signal, noise = zip(*levels, strict=True)
    network = noise[1:] if inverse and not hasattr(scheduler, "sigmas") else noise[:-1]
    return Trajectory(signal, noise, network, _ends(scheduler, len(timesteps)), timesteps, inverse)


def has_betas(config: Mapping[str, Any]) -> bool:
    """Tell whether a scheduler's noise levels follow from betas.

    diffusers asks nothing: it makes a scheduler of any other's configuration and takes defaults for what is missing.
    """
    return "beta_schedule" in config and not config.get("use_flow_sigmas")


def levels_at(scheduler: Any, timesteps: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sqrt(abar_t), sqrt(1 - abar_t) for training timesteps (B,), shaped to multiply `like` (B, ...).

    Raises:
        DriftError: the scheduler has no `alphas_cumprod`.
    """
    if not hasattr(scheduler, "alphas_cumprod"):
        raise DriftError(
            f"{type(scheduler).__name__} has no alphas_cumprod: train with DDPMScheduler or DDIMScheduler."
        )
    alphas = scheduler.alphas_cumprod.to(like.device, like.dtype)[timesteps.to(like.device).long()]
    alphas = alphas.reshape(-1, *(1,) * (like.ndim - 1))
    return alphas**0.5, (1 - alphas) ** 0.5


def _vp(alpha_cumprod: Any) -> tuple[float, float]:
    alpha = float(alpha_cumprod)
    return math.sqrt(alpha), math.sqrt(1 - alpha)


def _level_of_sigma(scheduler: Any, sigma: float) -> tuple[float, float]:
    if hasattr(scheduler, "scale_noise"):
        if scheduler.config.get("invert_sigmas"):
            raise DriftError(
                "Flow matching with invert_sigmas=True counts noise backwards: no drift is defined for it."
            )
        return 1.0 - sigma, sigma
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        signal, noise = scheduler._sigma_to_alpha_sigma_t(torch.tensor(sigma, dtype=torch.float64))
        return float(signal), float(noise)
    return 1.0, sigma


def _sigmas(scheduler: Any, calls: int) -> list[float]:
    """Sigma of the state before each call and after the last."""
    sigmas = torch.as_tensor(scheduler.sigmas, dtype=torch.float64).tolist()
    sigmas = ([*sigmas, 0.0])[: calls + 1]
    if getattr(scheduler, "order", 1) == 2:
        for call in range(1, calls, 2):
            if hasattr(scheduler, "sigmas_up"):  # KDPM2 ancestral: between sigma and its ancestral step down
                sigmas[call] = float(scheduler.sigmas_interpol[call - 1])
            elif hasattr(scheduler, "sigmas_interpol"):
                sigmas[call] = float(scheduler.sigmas_interpol[call])
            elif hasattr(scheduler, "mid_point_sigma"):  # DPMSolverSDE: half way in log sigma
                sigmas[call] = math.sqrt(float(scheduler.sigmas[call - 1]) * float(scheduler.sigmas[call]))
    return sigmas


def _ends(scheduler: Any, calls: int) -> tuple[bool, ...]:
    last = calls - 1
    if hasattr(scheduler, "order_list"):  # DPMSolverSinglestep: a step ends where the next begins with order 1
        orders = scheduler.order_list
        return tuple(call == last or orders[call + 1] == 1 for call in range(calls))
    if hasattr(scheduler, "prk_timesteps"):  # PNDM: four calls a Runge-Kutta step, or an Euler predictor, done twice
        prk = 0 if scheduler.prk_timesteps is None else len(scheduler.prk_timesteps)
        first = prk == 0 and calls > 1
        return tuple(not (first and call == 0) and (call >= prk or call % 4 == 3) for call in range(calls))
    if getattr(scheduler, "order", 1) == 2:
        return tuple(call == last or call % 2 == 1 for call in range(calls))
    return (True,) * calls
