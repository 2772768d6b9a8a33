"""What a drifted scheduler remembers besides what the undrifted one does."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch

from latentdrift.drift.levels import trajectory
from latentdrift.drift.plan import Plan, make_plan
from latentdrift.drift.value import LatentDrift
from latentdrift.errors import DriftError


class DriftWarning(UserWarning):
    """A drift that does not act as it should, or not fully."""


def add(tensor: torch.Tensor, delta: torch.Tensor | None, multiple: float) -> torch.Tensor:
    """Return `tensor + multiple * delta`; the same object where nothing is to be added, so that no bit changes."""
    return tensor if multiple == 0 or delta is None else torch.add(tensor, delta, alpha=multiple)


@dataclass
class DriftState:
    """The drift of one scheduler, and where its current run stands.

    Args:
        drift: value and rule.
        ready: `set_timesteps` was called, so the sampler's first timestep is known.
        noised: the initial latents came from `add_noise` (image-to-image), which has drifted them already.
        started: the initial latents were shifted by `shift_start`.
        seen: the network has seen the shifted initial latents.
        first_call: the call at which a scheduler with a counter that starts at 0 (PNDM) entered the run.
    """

    drift: LatentDrift
    ready: bool = False
    noised: bool = False
    started: bool = False
    seen: bool = False
    first_call: int = 0
    _plan: Plan | None = None
    _deltas: dict[Any, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Asked at every step, and for a map not free.
        self.silent = self.drift.is_zero

    def plan(self, scheduler: Any) -> Plan:
        """Return the plan of the current run, made once for each `set_timesteps`."""
        if self._plan is None:
            self._plan = make_plan(self.drift, trajectory(scheduler))
        return self._plan

    def new_run(self, scheduler: Any) -> None:
        """Forget the last run: `set_timesteps` was called."""
        self.ready, self.noised, self.seen, self._plan = True, False, False, None
        # Pipelines of flow matching make the initial latents before they set the timesteps.
        self.started = self.started and not hasattr(scheduler, "scale_model_input")
        self._deltas.clear()

    def delta(self, like: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        """Return delta to be added to `like`, cached for its shape, dtype and device."""
        key = (like.shape[1:], like.dtype, like.device, gain)
        delta = self._deltas.get(key)
        if delta is None:
            delta = self.drift.delta(like, gain)
            if not delta.requires_grad:
                self._deltas[key] = delta
        return delta

    def call(self, scheduler: Any, plan: Plan, timestep: Any) -> int | None:
        """Return which call of the run `timestep` belongs to, or None if it is no timestep of this run."""
        if hasattr(scheduler, "step_index"):
            if scheduler.step_index is None:
                if timestep is None:
                    return None
                scheduler._init_step_index(timestep)
            return int(scheduler.step_index)
        counter = getattr(scheduler, "counter", 0)
        if counter:
            return self.first_call + int(counter)
        if timestep is None:
            return None
        call = plan.calls.get(float(timestep))
        if call is not None:
            self.first_call = call
        return call

    def waiting(self, plan: Plan, call: int | None) -> bool:
        """Whether the state of this call is the raw initial latents, which the start's shift has still to reach."""
        return call == 0 and plan.start != 0 and not (self.noised or self.started)

    def training_noise(self, scheduler: Any, noise: torch.Tensor) -> torch.Tensor:
        """Return eps + delta_f.

        Raises:
            DriftError: an automatic drift with no timesteps set, so that delta_f is not known.
        """
        if self.silent or self.drift.forward_sign == 0:
            return noise
        if self.drift.automatic and not self.ready:
            raise DriftError(
                f"The {self.drift} has no value yet: it follows the sampler's first timestep, but adding noise in "
                "training needs one constant. Fix it for the number of sampling steps you will use: "
                "LatentMoments(...).drift_for(scheduler, steps=25, rule=...); or call set_timesteps first."
            )
        gain = self.plan(scheduler).gain if self.drift.automatic else 1.0
        return add(noise, self.delta(noise, gain), self.drift.forward_sign)

    def warn_if_unseen(self) -> None:
        """Warn, once a run, that the network was given the initial latents without the start's shift."""
        if not self.seen:
            self.seen = True
            warnings.warn(
                "The network saw the initial latents without their drift, because the loop did not call "
                "scale_model_input(latents, t) before it. Call it, or scheduler.shift_start(latents) before the loop.",
                DriftWarning,
                stacklevel=4,
            )
