"""Samplers by short names; any of them keeps the drift."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ConfigurationError, UnknownNameError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SAMPLERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Short names of diffusers' schedulers."""


def scheduler_like(scheduler: Any, kind: type) -> Any:
    """Return a scheduler of class `kind` with the noise schedule, spacing and drift of another.

    Classes differ in their defaults: a sample is clipped to [-1, 1] by DDIM unless told otherwise, which is for pixels
    and would cut latents. It is therefore off where the other scheduler does not ask for it. PNDM begins with
    Runge-Kutta steps, of which each is several and which need four at least; Stable Diffusion leaves them out.

    DDIM and its inverse take strides of T / steps, whatever the spacing. Timesteps of "linspace" lie further apart, so
    that steps do not end where the next begins, and the inverse does not know them at all. Both then take "trailing",
    which begins at the same last timestep.

    Raises:
        ConfigurationError: the other scheduler has no betas (EDM, flow matching), which all samplers here start from.
    """
    from diffusers import DDIMInverseScheduler, DDIMScheduler

    from latentdrift.drift import drift_of, remove
    from latentdrift.drift.levels import has_betas

    config = remove(scheduler).config
    if not has_betas(config):
        raise ConfigurationError(
            f"{type(scheduler).__name__} has no betas, and {kind.__name__} would sample on levels of its own that the "
            "model was not trained on. Keep the model's own scheduler, or give a model that diffuses by betas, such as "
            "Stable Diffusion."
        )
    accepted = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    extra: dict[str, Any] = {}
    if "clip_sample" in accepted:
        extra["clip_sample"] = "clip_sample" in config and bool(config["clip_sample"])
    if "skip_prk_steps" in accepted:
        extra["skip_prk_steps"] = bool(config.get("skip_prk_steps", True))
    if issubclass(kind, (DDIMScheduler, DDIMInverseScheduler)) and config.get("timestep_spacing") == "linspace":
        extra["timestep_spacing"] = "trailing"
    made = kind.from_config(config, **extra)  # type: ignore[attr-defined]
    drift = drift_of(scheduler)
    return made if drift is None else drift.apply(made)


def use_sampler(pipeline: DiffusionPipeline, name: str) -> None:
    """Give the pipeline another sampler with the same noise schedule and the same drift.

    Raises:
        UnknownNameError: no sampler of that name.
        ConfigurationError: a sampler that has not the model's noise levels.
    """
    import diffusers

    if name not in SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)
    kind = getattr(diffusers, SAMPLERS[name])
    known = "rescale_betas_zero_snr" in inspect.signature(kind.__init__).parameters
    if pipeline.scheduler.config.get("rescale_betas_zero_snr") and not known:
        # diffusers would drop the setting, and start where the model was not trained.
        raise ConfigurationError(
            f"The model's noise levels end in pure noise (zero terminal SNR), which {name} does not know. Use ddim."
        )
    pipeline.scheduler = scheduler_like(pipeline.scheduler, kind)
