"""Samplers by short names; any of them keeps the drift."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentdrift.errors import UnknownNameError

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


def use_sampler(pipeline: DiffusionPipeline, name: str) -> None:
    """Give the pipeline another sampler with the same noise schedule and the same drift.

    Raises:
        UnknownNameError: no sampler of that name.
    """
    import diffusers

    from latentdrift.drift import drift_of, remove

    if name not in SAMPLERS:
        raise UnknownNameError("sampler", name, SAMPLERS)
    drift = drift_of(pipeline.scheduler)
    plain = remove(pipeline.scheduler)
    pipeline.scheduler = getattr(diffusers, SAMPLERS[name]).from_config(plain.config)
    if drift is not None:
        drift.attach(pipeline)
